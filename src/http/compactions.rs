//! Space given back.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::extract::ApiJson;
use super::state::{AppState, detached};
use crate::library::Compaction;

/// How to compact.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompactionBody {
    /// Write the store anew, which also brings side by side what belongs together; needs room for two
    /// copies, and uploads wait meanwhile. Else free pages are given back a few at a time.
    #[serde(default)]
    full: bool,
}

/// What was given back.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompactionView {
    /// Always `compaction`.
    object: &'static str,
    /// Whether the store was written anew.
    rewritten: bool,
    /// Bytes of the store's files before.
    store_bytes_before: u64,
    /// And after.
    store_bytes_after: u64,
    /// Memory of the indexes before.
    index_bytes_before: u64,
    /// And after.
    index_bytes_after: u64,
    /// How long it took.
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

/// Gives back the disk and the memory that deleted clips held; answers when it is done.
#[utoipa::path(post, path = "/v1/compactions", operation_id = "compact",
    tag = "keeping", request_body = CompactionBody,
    responses((status = 200, description = "What was given back", body = CompactionView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn compact(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<CompactionBody>,
) -> Result<Json<CompactionView>, ApiError> {
    let library = state.library.clone();
    let done = detached(async move { Ok(library.compact(body.full).await?) }).await?;
    Ok(Json(done.into()))
}
