//! A cache of recent thumbnails in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use crate::types::AssetId;

const CACHE_BYTES: usize = 32 << 20;

/// A thumbnail starts a decoder; a page of results must not start fifty.
const DECODES_AT_ONCE: usize = 2;

/// Longest that one waits for the others; the decode pool may let it wait a little more.
const WAITS_AT_MOST: Duration = Duration::from_secs(20);

/// Which picture a thumbnail is. Those of an asset are next to each other in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thumbnail {
    pub asset: AssetId,
    /// Position in the asset, in milliseconds.
    pub at_ms: u64,
    /// Length of the longer side, in pixels.
    pub side_px: u32,
}

type Cell = Arc<OnceCell<Bytes>>;

/// CPU time of a thumbnail that never counts as dear: the first frame of an 8K film takes as much.
const CHEAP: Duration = Duration::from_secs(2);

/// For how long dear thumbnails are remembered, and of how many assets.
const DEAR_FOR: Duration = Duration::from_secs(3600);
const MOST_DEAR: usize = 4096;

/// CPU time spent on thumbnails of an asset.
#[derive(Debug)]
struct Dear {
    since: Instant,
    spent: Duration,
    /// The earliest position, in milliseconds, that was refused because it costs too much.
    refused_ms: Option<u64>,
}

/// Evicts the least recently used pictures first; concurrent requests for the same picture share one decode.
#[derive(Debug)]
pub struct ThumbnailCache {
    pictures: Mutex<Pictures>,
    dear: Mutex<HashMap<AssetId, Dear>>,
    decodes: Semaphore,
}

#[derive(Debug, Default)]
struct Pictures {
    cells: BTreeMap<Thumbnail, Entry>,
    by_use: BTreeMap<u64, Thumbnail>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    cell: Cell,
    used: u64,
    /// Its bytes in the total; 0 until it is rendered.
    bytes: usize,
}

impl Default for ThumbnailCache {
    fn default() -> Self {
        Self { pictures: Mutex::default(), dear: Mutex::default(), decodes: Semaphore::new(DECODES_AT_ONCE) }
    }
}

impl Pictures {
    fn touch(&mut self, key: Thumbnail) -> Cell {
        self.clock += 1;
        let used = self.clock;
        let entry = self.cells.entry(key).or_insert_with(|| Entry { cell: Cell::default(), used, bytes: 0 });
        self.by_use.remove(&entry.used);
        entry.used = used;
        self.by_use.insert(used, key);
        Arc::clone(&entry.cell)
    }

    /// Counts a picture that was made, unless it has been forgotten since.
    fn made(&mut self, key: Thumbnail, cell: &Cell, bytes: usize) {
        if let Some(entry) = self.cells.get_mut(&key).filter(|entry| Arc::ptr_eq(&entry.cell, cell)) {
            entry.bytes = bytes;
            self.bytes += bytes;
        }
        while self.bytes > CACHE_BYTES {
            let Some((_, oldest)) = self.by_use.first_key_value() else { return };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: Thumbnail) {
        if let Some(entry) = self.cells.remove(&key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

impl ThumbnailCache {
    fn pictures(&self) -> std::sync::MutexGuard<'_, Pictures> {
        self.pictures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dear(&self) -> std::sync::MutexGuard<'_, HashMap<AssetId, Dear>> {
        self.dear.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share of `allowed`, the CPU time of a whole decode of this asset, that its next thumbnail may use:
    /// half of the rest of the budget for expensive ones, so that those of an hour never cost more than one
    /// decode, whether they succeed or are refused. Cheap ones are always allowed. 0 if the position was
    /// refused before, or an earlier one was.
    pub fn share(&self, id: AssetId, at_ms: u64, allowed: Duration) -> f64 {
        let allowed = allowed.as_secs_f64();
        let dear = self.dear();
        let known = dear.get(&id).filter(|dear| dear.since.elapsed() < DEAR_FOR);
        if known.and_then(|dear| dear.refused_ms).is_some_and(|refused_ms| at_ms >= refused_ms) {
            return 0.0;
        }
        let left = allowed - known.map_or(0.0, |dear| dear.spent.as_secs_f64());
        (left / 2.0).max(CHEAP.as_secs_f64()) / allowed.max(f64::MIN_POSITIVE)
    }

    /// Records the cost of a thumbnail, and whether it was too high.
    pub fn spent(&self, id: AssetId, at_ms: u64, cpu: Duration, refused: bool) {
        if cpu <= CHEAP && !refused {
            return;
        }
        let mut all = self.dear();
        all.retain(|_, dear| dear.since.elapsed() < DEAR_FOR);
        if all.len() >= MOST_DEAR
            && !all.contains_key(&id)
            && let Some(oldest) = all.iter().min_by_key(|(_, dear)| dear.since).map(|(id, _)| *id)
        {
            all.remove(&oldest);
        }
        let new = || Dear { since: Instant::now(), spent: Duration::ZERO, refused_ms: None };
        let dear = all.entry(id).or_insert_with(new);
        dear.spent += cpu;
        if refused {
            dear.refused_ms = Some(dear.refused_ms.map_or(at_ms, |before| before.min(at_ms)));
        }
    }

    /// Drops the pictures of a deleted asset.
    pub fn forget(&self, id: AssetId) {
        let mut pictures = self.pictures();
        let first = Thumbnail { asset: id, at_ms: 0, side_px: 0 };
        let last = Thumbnail { asset: id, at_ms: u64::MAX, side_px: u32::MAX };
        let of_asset = pictures.cells.range(first..=last);
        let keys: Vec<_> = of_asset.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| pictures.remove(key));
        self.dear().remove(&id);
    }

    /// Memory of all pictures, in bytes.
    pub fn bytes(&self) -> usize {
        self.pictures().bytes
    }

    /// The picture, made if it is not there.
    pub async fn get_or_make<E>(
        &self,
        key: Thumbnail,
        busy: E,
        make: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<Bytes, E> {
        let cell = self.pictures().touch(key);
        let mut made = false;
        let outcome = cell
            .get_or_try_init(|| async {
                let Ok(_permit) = tokio::time::timeout(WAITS_AT_MOST, self.decodes.acquire()).await else {
                    metrics::counter!("triptych_decodes_refused_total", "reason" => "thumbnails")
                        .increment(1);
                    return Err(busy);
                };
                let bytes = Bytes::from(make.await?);
                made = true;
                Ok(bytes)
            })
            .await
            .cloned();
        match &outcome {
            Ok(bytes) if made => self.pictures().made(key, &cell, bytes.len()),
            Err(_) if cell.get().is_none() => self.pictures().remove(key),
            _ => {}
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pictures_are_made_once_and_old_ones_go() {
        let cache = ThumbnailCache::default();
        let id = AssetId::generate();
        let picture = |asset, at_ms| Thumbnail { asset, at_ms, side_px: 1 };
        let big = CACHE_BYTES / 2 - 10;
        for tenth in 0..3 {
            let made =
                cache.get_or_make(picture(id, tenth), (), async { Ok::<_, ()>(vec![7; big]) }).await.unwrap();
            assert_eq!(made.len(), big);
        }
        let again = async { Err::<Vec<u8>, ()>(()) };
        assert!(cache.get_or_make(picture(id, 2), (), again).await.is_ok(), "kept");
        let again = async { Err::<Vec<u8>, ()>(()) };
        assert!(cache.get_or_make(picture(id, 0), (), again).await.is_err(), "the oldest went");
        let other = AssetId::generate();
        cache.get_or_make(picture(other, 0), (), async { Ok::<_, ()>(vec![7; 3]) }).await.unwrap();
        cache.forget(id);
        assert_eq!(cache.bytes(), 3, "those of the other asset");
        cache.forget(other);
        let pictures = cache.pictures();
        assert_eq!((pictures.bytes, pictures.cells.len(), pictures.by_use.len()), (0, 0, 0));
    }

    #[test]
    fn dear_thumbnails_of_an_asset_cost_less_than_one_decode() {
        let (cache, id, allowed) = (ThumbnailCache::default(), AssetId::generate(), Duration::from_secs(40));
        let mut total = Duration::ZERO;
        for _ in 0..50 {
            let may = allowed.mul_f64(cache.share(id, 5, allowed));
            assert!(may >= CHEAP.mul_f64(0.99), "{may:?}");
            cache.spent(id, 5, may, false);
            total += if may > CHEAP { may } else { Duration::ZERO };
        }
        assert!(total < allowed && total > allowed / 2, "{total:?}");
        let other = AssetId::generate();
        assert!(cache.share(other, 5, allowed) > 0.49, "another asset");
        cache.forget(id);
        assert!(cache.share(id, 5, allowed) > 0.49);
        cache.spent(id, 5, CHEAP, false);
        assert!(cache.share(id, 5, allowed) > 0.49, "cheap ones do not count");

        cache.spent(other, 700, CHEAP, true);
        assert!(cache.share(other, 699, allowed) > 0.4);
        assert_eq!((cache.share(other, 700, allowed), cache.share(other, 9000, allowed)), (0.0, 0.0));
        cache.spent(other, 20, CHEAP, true);
        cache.spent(other, 800, CHEAP, true);
        assert_eq!((cache.share(other, 20, allowed), cache.share(other, 19, allowed) > 0.4), (0.0, true));

        (0..2 * MOST_DEAR).for_each(|_| cache.spent(AssetId::generate(), 0, allowed, false));
        assert_eq!(cache.dear().len(), MOST_DEAR);
    }
}
