//! Compaction: reclaims the space of deleted clips.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http_intake::extract::ApiJson;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::library::Compaction;

/// Options for compaction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompactionBody {
    /// Rewrite the whole store, which also defragments it; needs free disk space for two copies, and uploads wait
    /// until it is done. Otherwise, free pages are released in small batches. Default false.
    #[serde(default)]
    full: bool,
}

/// Disk space and memory before and after compaction.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompactionView {
    /// Always `compaction`.
    object: &'static str,
    /// Whether the whole store was rewritten.
    rewritten: bool,
    /// Size of the store's files before compaction, in bytes.
    store_bytes_before: u64,
    /// The same after compaction, in bytes.
    store_bytes_after: u64,
    /// Memory of the indexes before compaction, in bytes.
    index_bytes_before: u64,
    /// The same after compaction, in bytes.
    index_bytes_after: u64,
    /// Duration in seconds.
    secs: f64,
}

impl From<Compaction> for CompactionView {
    fn from(done: Compaction) -> Self {
        Self {
            object: "compaction",
            rewritten: done.rewritten,
            store_bytes_before: done.store_bytes_before,
            store_bytes_after: done.store_bytes_after,
            index_bytes_before: done.index_bytes_before,
            index_bytes_after: done.index_bytes_after,
            secs: done.secs,
        }
    }
}

/// Reclaims the disk space and memory of deleted clips; the answer comes when it is done.
#[utoipa::path(post, path = "/v1/compactions", operation_id = "compact",
    tag = "keeping", request_body = CompactionBody,
    responses((status = 200, description = "What was reclaimed", body = CompactionView),
        ClientError))]
pub async fn compact(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<CompactionBody>,
) -> Result<Json<CompactionView>, ApiError> {
    let done = state.library.collection().compact(body.full).await?;
    Ok(Json(done.into()))
}
