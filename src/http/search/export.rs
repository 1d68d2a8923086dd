//! Vectors out: of one asset as JSON, of the whole library as Parquet.

use std::io::Write;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use utoipa::{IntoParams, ToSchema};

use super::vectors::{Encoding, VectorView};
use crate::http_intake::extract::{ApiQuery, IdPath};
use crate::http_intake::spaces::known_space;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::page::{DEFAULT_SHORT_ENTRIES, PageSize};
use crate::library::{ExportWanted, LibraryError};
use crate::types::{AssetId, ClipId, Space, TimeSpan, Track};

/// Each uses a connection to the store and memory for some row groups.
const EXPORTS_AT_ONCE: usize = 2;
/// When to try again while these run.
const RETRY_SECS: u64 = 30;
static EXPORTS: Semaphore = Semaphore::const_new(EXPORTS_AT_ONCE);
/// Bytes that are sent at a time, and how many of these wait for a slow client.
const CHUNK_BYTES: usize = 128 << 10;
const CHUNKS_AHEAD: usize = 8;

/// Query string of an asset's embeddings.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AssetEmbeddingsQuery {
    /// Return only vectors of this embedding space.
    space: Option<String>,
    /// Return only vectors of this track.
    track: Option<Track>,
    /// Return clips after this one: the `next` of the previous page.
    after: Option<i64>,
    /// Maximum number of clips per page, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Encoding of vectors: `float` (the default) or `base64`.
    #[serde(default)]
    #[param(inline)]
    encoding_format: Encoding,
    /// Name or digest of a loaded model; default: the serving model.
    model: Option<String>,
}

/// A stored vector, of unit length.
#[derive(Debug, Serialize, ToSchema)]
pub struct StoredEmbedding {
    /// Always `embedding`.
    object: &'static str,
    /// Number of the clip; clips are numbered in time order.
    clip_id: i64,
    /// Time span.
    #[serde(flatten)]
    span: TimeSpan,
    /// Track of the clip.
    track: Track,
    /// Embedding space.
    space: Space,
    /// The vector.
    embedding: VectorView,
}

/// The vectors of an asset's clips.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssetEmbeddings {
    /// Always `list`.
    object: &'static str,
    /// The asset.
    asset_id: AssetId,
    /// Name of the model.
    model: String,
    /// Digest of the model.
    model_id: String,
    /// One entry per clip, track and space.
    data: Vec<StoredEmbedding>,
    /// Value of `after` for the next page; null on the last page.
    next: Option<String>,
}

/// Lists the stored vectors of an asset, clip by clip.
#[utoipa::path(get, path = "/v1/assets/{id}/embeddings", operation_id = "get_asset_embeddings", tag = "embeddings",
    params(("id" = AssetId, Path), AssetEmbeddingsQuery),
    responses((status = 200, description = "One page of results", body = AssetEmbeddings),
        ClientError))]
pub async fn of_asset(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    ApiQuery(query): ApiQuery<AssetEmbeddingsQuery>,
) -> Result<Json<AssetEmbeddings>, ApiError> {
    let state = state.of_model(query.model.as_deref())?;
    let size = PageSize::of(query.limit, DEFAULT_SHORT_ENTRIES)?;
    let space = known_space(&state, query.space.as_deref())?;
    let after = ClipId(query.after.unwrap_or(0).max(0));
    let exported = state.library.collection().export_page(id, after, size.to_read()).await?;
    let page = size.cut(exported, |exported| exported.clip.id.0);
    let mut data = Vec::new();
    for exported in page.entries {
        for found in exported.vectors {
            if query.track.is_none_or(|wanted| wanted == found.track)
                && space.as_ref().is_none_or(|space| *space == found.space)
            {
                data.push(StoredEmbedding {
                    object: "embedding",
                    clip_id: exported.clip.id.0,
                    span: exported.clip.span,
                    track: found.track,
                    space: found.space,
                    embedding: VectorView::of(&found.vector, query.encoding_format),
                });
            }
        }
    }
    let bundle = state.library.embedder().bundle();
    let (model, model_id) = (bundle.name().to_owned(), bundle.id().to_string());
    Ok(Json(AssetEmbeddings { object: "list", asset_id: id, model, model_id, data, next: page.next }))
}

/// Query string of an export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// Return only vectors of this embedding space.
    space: Option<String>,
    /// Return only vectors of this track.
    track: Option<Track>,
    /// Name or digest of a loaded model; default: the serving model.
    model: Option<String>,
}

/// Exports the vectors of all indexed assets as one Parquet file.
///
/// The file is streamed and shows the library as it was when the request began. An interrupted answer has no footer,
/// so Parquet readers reject it.
#[utoipa::path(get, path = "/v1/export", operation_id = "export_embeddings", tag = "embeddings", params(ExportQuery),
    responses((status = 200, description = "One row per clip, track and space: asset_id, asset_name, \
            asset_sha256, asset_kind, clip_id, start_secs, end_secs, track, space, model, embedding",
            content_type = "application/vnd.apache.parquet"),
        ClientError))]
pub async fn export(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<ExportQuery>,
) -> Result<Response, ApiError> {
    let state = state.of_model(query.model.as_deref())?;
    let wanted = ExportWanted { space: known_space(&state, query.space.as_deref())?, track: query.track };
    let Ok(permit) = EXPORTS.try_acquire() else {
        let message =
            format!("{EXPORTS_AT_ONCE} exports are already running; try again when one has finished");
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "busy", message).retry_after(RETRY_SECS));
    };
    let (chunks, coming) = mpsc::channel(CHUNKS_AHEAD);
    tokio::spawn(async move {
        let _permit = permit;
        let out = ChunkWriter(chunks.clone());
        let exported = tokio::select! {
            () = state.stop.cancelled() => Err(LibraryError::Stopping),
            exported = state.library.collection().export(wanted, out) => exported,
        };
        match exported {
            Ok(report) => {
                tracing::info!(clips = report.clips, vectors = report.vectors, "exported vectors")
            }
            Err(error) => {
                tracing::warn!(%error, "an export did not finish");
                let _ = chunks.send(Err(std::io::Error::other("the export was interrupted"))).await;
            }
        }
    });
    let body = stream::unfold(coming, async |mut coming| coming.recv().await.map(|chunk| (chunk, coming)));
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.apache.parquet"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"embeddings.parquet\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Passes written bytes to a response body, and waits while its client is slow.
struct ChunkWriter(mpsc::Sender<Result<Bytes, std::io::Error>>);

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let part = bytes.get(..CHUNK_BYTES).unwrap_or(bytes);
        let gone = |_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the client disconnected");
        self.0.blocking_send(Ok(Bytes::copy_from_slice(part))).map_err(gone)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
