//! Pictures of a moment, made once and kept in memory for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{OnceCell, Semaphore};
use utoipa::IntoParams;

use super::content::matches_etag;
use super::error::{ApiError, ErrorBody};
use super::extract::{ApiQuery, IdPath};
use super::state::AppState;
use super::views::has_picture;
use crate::library::LibraryError;
use crate::media::{Lane, MediaError};
use crate::preprocess;
use crate::types::AssetId;

const CACHE_BYTES: usize = 32 << 20;
/// A thumbnail starts a decoder; a page of results must not start fifty.
const DECODES_AT_ONCE: usize = 2;
/// Longest that one waits for the others; the decode pool may let it wait a little more.
const WAITS_AT_MOST: Duration = Duration::from_secs(20);

/// Asset, tenth of a second, longer side.
type Key = (AssetId, u64, u32);
type Cell = Arc<OnceCell<Bytes>>;

/// Least recently used pictures go first; the same picture is made once however many ask for it.
#[derive(Debug)]
pub struct ThumbnailCache {
    kept: Mutex<Kept>,
    decodes: Semaphore,
}

#[derive(Debug, Default)]
struct Kept {
    cells: HashMap<Key, Entry>,
    by_use: BTreeMap<u64, Key>,
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
        Self { kept: Mutex::default(), decodes: Semaphore::new(DECODES_AT_ONCE) }
    }
}

impl Kept {
    fn touch(&mut self, key: Key) -> Cell {
        self.clock += 1;
        let used = self.clock;
        let entry = self.cells.entry(key).or_insert_with(|| Entry { cell: Cell::default(), used, bytes: 0 });
        self.by_use.remove(&entry.used);
        entry.used = used;
        self.by_use.insert(used, key);
        Arc::clone(&entry.cell)
    }

    /// Counts a picture that was made, unless it has been forgotten since.
    fn made(&mut self, key: Key, cell: &Cell, bytes: usize) {
        if let Some(entry) = self.cells.get_mut(&key).filter(|entry| Arc::ptr_eq(&entry.cell, cell)) {
            entry.bytes = bytes;
            self.bytes += bytes;
        }
        while self.bytes > CACHE_BYTES {
            let Some((_, oldest)) = self.by_use.first_key_value() else { return };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.cells.remove(&key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

impl ThumbnailCache {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the pictures of an asset that is gone.
    pub fn forget(&self, id: AssetId) {
        let mut kept = self.kept();
        let keys: Vec<_> = kept.cells.keys().filter(|(of, _, _)| *of == id).copied().collect();
        keys.into_iter().for_each(|key| kept.remove(key));
    }

    async fn get_or_make<E>(
        &self,
        key: Key,
        busy: E,
        make: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<Bytes, E> {
        let cell = self.kept().touch(key);
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
            Ok(bytes) if made => self.kept().made(key, &cell, bytes.len()),
            Err(_) if cell.get().is_none() => self.kept().remove(key),
            _ => {}
        }
        outcome
    }
}

fn of_media(error: MediaError) -> LibraryError {
    crate::embed::EmbedError::from(error).into()
}

/// Query string of a thumbnail.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ThumbnailQuery {
    /// Position in the video, in seconds; default 0.
    at: Option<f64>,
    /// Length of the longer side in pixels, 16 to 1024; default 320.
    #[param(minimum = 16, maximum = 1024)]
    size: Option<u32>,
}

/// Returns a JPEG thumbnail of a picture, or of a video at a given time.
#[utoipa::path(get, path = "/v1/assets/{id}/thumbnail", operation_id = "get_asset_thumbnail",
    tag = "assets", params(("id" = AssetId, Path), ThumbnailQuery),
    responses((status = 200, description = "The picture", content_type = "image/jpeg"),
        (status = 304, description = "Not modified: the client's copy is current"),
        (status = "4XX", description = "Client error; see `error.code`", body = ErrorBody)))]
pub async fn thumbnail(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    ApiQuery(query): ApiQuery<ThumbnailQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let size = query.size.unwrap_or(320);
    if !(16..=1024).contains(&size) {
        return Err(ApiError::invalid("size", "`size` must be from 16 to 1024"));
    }
    let at = query.at.unwrap_or(0.0);
    if !at.is_finite() || at < 0.0 {
        return Err(ApiError::invalid("at", "`at` must be a position in the video in seconds, 0 or more"));
    }
    let asset = state.library.store().asset(id).await?;
    if !has_picture(&asset) {
        let message = "this asset has no picture: it is an audio file or is not indexed yet";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_picture", message));
    }
    // Past the end is the end; the last frame begins a little before it.
    let tenths = (at.min((asset.duration_secs - 0.1).max(0.0)) * 10.0).round() as u64;
    let etag = format!("\"{}-{tenths}-{size}\"", &asset.sha256[..16.min(asset.sha256.len())]);
    // A file of a user may change: what was kept of it is asked for again each time.
    let keep = if asset.owned { "private, max-age=86400" } else { "private, no-cache" };
    let cached = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, keep.to_owned())];
    let opened = match state.library.open_content(&asset).await {
        Ok(opened) => Some(opened),
        // The decoder says so in its own words.
        Err(LibraryError::PathMissing(_)) => None,
        Err(error) => return Err(error.into()),
    };
    if matches_etag(&headers, header::IF_NONE_MATCH.as_str(), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, cached).into_response());
    }
    let decoder = state.library.embedder().decoder.on(Lane::Interactive);
    let tracks = asset.tracks_read();
    let make = async {
        let made =
            preprocess::thumbnail_of(&decoder, asset.path.as_ref(), tenths as f64 / 10.0, size, tracks).await;
        if opened.is_some_and(|opened| !opened.is_unchanged()) {
            // It was made of whichever bytes were there.
            state.library.open_content(&asset).await?;
        }
        made.map_err(of_media)
    };
    let busy = of_media(MediaError::Overloaded { retry_after_secs: 5 });
    let bytes = state.thumbnails.get_or_make((id, tenths, size), busy, make).await?;
    Ok((cached, [(header::CONTENT_TYPE, "image/jpeg")], bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pictures_are_made_once_and_old_ones_go() {
        let cache = ThumbnailCache::default();
        let id = AssetId::generate();
        let big = CACHE_BYTES / 2 - 10;
        for tenth in 0..3 {
            let made =
                cache.get_or_make((id, tenth, 1), (), async { Ok::<_, ()>(vec![7; big]) }).await.unwrap();
            assert_eq!(made.len(), big);
        }
        let again = async { Err::<Vec<u8>, ()>(()) };
        assert!(cache.get_or_make((id, 2, 1), (), again).await.is_ok(), "kept");
        let again = async { Err::<Vec<u8>, ()>(()) };
        assert!(cache.get_or_make((id, 0, 1), (), again).await.is_err(), "the oldest went");
        cache.forget(id);
        let kept = cache.kept();
        assert_eq!((kept.bytes, kept.cells.len(), kept.by_use.len()), (0, 0, 0));
    }
}
