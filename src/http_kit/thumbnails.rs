//! Thumbnails made lately, kept in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// Least recently used pictures go first; the same picture is made once however many ask for it.
#[derive(Debug)]
pub struct ThumbnailCache {
    pictures: Mutex<Pictures>,
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
    /// What it counts towards the total; 0 until it is made.
    bytes: usize,
}

impl Default for ThumbnailCache {
    fn default() -> Self {
        Self { pictures: Mutex::default(), decodes: Semaphore::new(DECODES_AT_ONCE) }
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

    /// Drops the pictures of an asset that is gone.
    pub fn forget(&self, id: AssetId) {
        let mut pictures = self.pictures();
        let first = Thumbnail { asset: id, at_ms: 0, side_px: 0 };
        let last = Thumbnail { asset: id, at_ms: u64::MAX, side_px: u32::MAX };
        let of_asset = pictures.cells.range(first..=last);
        let keys: Vec<_> = of_asset.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| pictures.remove(key));
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
}
