//! Thumbnails, rendered once and cached in memory.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::files::FileError;
use crate::http_intake::extract::{ApiQuery, IdPath};
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::etag::{check_if_match, matches_etag};
use crate::http_kit::thumbnails::Thumbnail;
use crate::http_kit::views::has_picture;
use crate::library::LibraryError;
use crate::media::{Lane, MediaError};
use crate::preprocess;
use crate::types::AssetId;

/// Default length of a thumbnail's longer side, in pixels.
const DEFAULT_SIDE_PX: u32 = 320;

/// Shortest time for which the last frame is on the screen. At the very end, ffmpeg would find nothing to seek to.
const LAST_FRAME_SECS: f64 = 0.01;

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
        ClientError))]
pub async fn thumbnail(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    ApiQuery(query): ApiQuery<ThumbnailQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let size = query.size.unwrap_or(DEFAULT_SIDE_PX);
    if !(16..=1024).contains(&size) {
        return Err(ApiError::invalid("size", "`size` must be from 16 to 1024"));
    }
    let at = query.at.unwrap_or(0.0);
    if !at.is_finite() || at < 0.0 {
        return Err(ApiError::invalid("at", "`at` must be a position in the video in seconds, 0 or more"));
    }
    let asset = state.library.collection().asset(id).await?;
    if !has_picture(&asset) {
        let message = "this asset has no picture: it is an audio file or is not indexed yet";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_picture", message));
    }
    // A position after the end means the end; the last frame begins a little before it.
    let at_ms = (at.min((asset.duration_secs - LAST_FRAME_SECS).max(0.0)) * 1000.0).round() as u64;
    let etag = format!("\"{}-{at_ms}ms-{size}\"", &asset.sha256[..16.min(asset.sha256.len())]);
    // A file indexed by path may change: clients must revalidate its thumbnails each time.
    let keep = if asset.owned { "private, max-age=86400" } else { "private, no-cache" };
    let cached = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, keep.to_owned())];
    let opened = match state.library.collection().open_content(&asset).await {
        Ok(opened) => Some(opened),
        // The decoder has its own message for this.
        Err(LibraryError::File(FileError::Missing(_))) => None,
        Err(error) => return Err(error.into()),
    };
    check_if_match(&headers, &etag)?;
    if matches_etag(&headers, header::IF_NONE_MATCH.as_str(), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, cached).into_response());
    }
    let mut decoder = state.library.embedder().decoder.on(Lane::Interactive);
    let tracks = asset.tracks_read();
    let make = async {
        let work = &mut decoder.config.limits.work;
        let share = state.thumbnails.share(id, at_ms, work.cpu(asset.size_bytes));
        if share == 0.0 {
            return Err(of_media(work.too_much_cpu(asset.size_bytes)));
        }
        *work = work.share(share);
        let at_secs = at_ms as f64 / 1000.0;
        let made = preprocess::thumbnail_of(&decoder, asset.path.as_ref(), at_secs, size, tracks).await;
        let made = made.and_then(|made| {
            let refused = matches!(made.jpeg, Err(MediaError::WorkLimit { .. }));
            state.thumbnails.spent(id, at_ms, made.cpu, refused);
            made.jpeg
        });
        if opened.is_some_and(|opened| !opened.is_unchanged()) {
            // It was made of whichever bytes were there.
            state.library.collection().open_content(&asset).await?;
        }
        made.map_err(of_media)
    };
    let busy = of_media(MediaError::Overloaded { retry_after_secs: 5 });
    let bytes =
        state.thumbnails.get_or_make(Thumbnail { asset: id, at_ms, side_px: size }, busy, make).await?;
    Ok((cached, [(header::CONTENT_TYPE, "image/jpeg")], bytes).into_response())
}
