//! Deletion by filter.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::Filter;
use crate::http_intake::extract::ApiJson;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::page::first_ids;
use crate::types::AssetId;

/// Which assets to delete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteBody {
    /// Filter as in a search, but without the keys of clips (`start_secs`, `end_secs`, `agreement`).
    #[serde(default)]
    filter: Filter,
    /// Required when the filter is empty, which deletes everything.
    #[serde(default)]
    all: bool,
    /// Report what would be deleted without deleting it; default false.
    #[serde(default)]
    dry_run: bool,
}

/// What was deleted or would be deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletionView {
    /// Always `deletion`.
    object: &'static str,
    /// Whether this was a dry run that deleted nothing.
    dry_run: bool,
    /// Assets.
    assets: u64,
    /// Their clips.
    clips: u64,
    /// Ids of the first 100 of these assets.
    asset_ids: Vec<AssetId>,
}

impl DeletionView {
    /// The view of a deletion; lists the first 100 ids.
    pub fn new(dry_run: bool, ids: &[AssetId], clips: u64) -> Self {
        Self { object: "deletion", dry_run, assets: ids.len() as u64, clips, asset_ids: first_ids(ids) }
    }
}

/// The assets that match a filter; an empty filter needs `all`.
pub fn chosen(state: &AppState, filter: &Filter, all: bool) -> Result<Vec<AssetId>, ApiError> {
    let ids = state.library.ingest().matching(filter)?;
    if filter.asks_nothing() && !all {
        let message = "the filter is empty and would match every asset; send `\"all\": true` to confirm";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "filter_required", message).with_param("filter"));
    }
    Ok(ids)
}

/// Deletes the assets that match a filter, with their clips and uploaded files.
///
/// Assets are deleted in small batches, so that searches and uploads continue; the answer comes when all are deleted.
/// If the request is interrupted, repeat it to delete the rest.
#[utoipa::path(post, path = "/v1/assets/delete", operation_id = "delete_assets",
    tag = "assets", request_body = DeleteBody,
    responses((status = 200, description = "What was deleted, or would be deleted", body = DeletionView),
        ClientError))]
pub async fn delete(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<DeleteBody>,
) -> Result<Json<DeletionView>, ApiError> {
    let ids = chosen(&state, &body.filter, body.all)?;
    if body.dry_run {
        return Ok(Json(DeletionView::new(true, &ids, state.library.ingest().clips_among(&ids))));
    }
    let deletion = state.library.ingest().delete_assets(&ids).await?;
    Ok(Json(DeletionView::new(false, &deletion.assets, deletion.clips)))
}
