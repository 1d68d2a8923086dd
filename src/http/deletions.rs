//! Deletion by filter.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::extract::ApiJson;
use super::state::{AppState, detached};
use crate::catalog::Filter;
use crate::types::AssetId;

/// Ids that an answer names.
const NAMED: usize = 100;

/// Which assets to delete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteBody {
    /// As in a search; keys of clips (`start_secs`, `end_secs`, `agreement`) cannot be asked for.
    #[serde(default)]
    filter: Filter,
    /// Has to be true where the filter asks nothing: then everything goes.
    #[serde(default)]
    all: bool,
    /// Only tell what would go.
    #[serde(default)]
    dry_run: bool,
}

/// What went, or would go.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletionView {
    /// Always `deletion`.
    object: &'static str,
    /// Whether nothing was deleted.
    dry_run: bool,
    /// Assets.
    assets: u64,
    /// Their clips.
    clips: u64,
    /// The first hundred of them.
    asset_ids: Vec<AssetId>,
}

impl DeletionView {
    /// Of these assets.
    pub fn new(dry_run: bool, ids: &[AssetId], clips: u64) -> Self {
        Self { object: "deletion", dry_run, assets: ids.len() as u64, clips, asset_ids: first_named(ids) }
    }
}

/// Those that an answer names.
pub fn first_named(ids: &[AssetId]) -> Vec<AssetId> {
    ids.iter().take(NAMED).copied().collect()
}

/// The assets that a filter keeps; everything has to be asked for by name.
pub fn chosen(state: &AppState, filter: &Filter, all: bool) -> Result<Vec<AssetId>, ApiError> {
    let ids = state.library.matching(filter)?;
    if filter.asks_nothing() && !all {
        let message = "the filter is empty and would match every asset; send `\"all\": true` to confirm";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "filter_required", message).with_param("filter"));
    }
    Ok(ids)
}

/// Deletes the assets that a filter keeps, with their clips and uploaded files.
///
/// They go a few at a time, so that searches and uploads go on; the answer comes when all are gone.
/// Where it is cut off, the rest is still there and the same call deletes it.
#[utoipa::path(post, path = "/v1/assets/delete", operation_id = "delete_assets",
    tag = "assets", request_body = DeleteBody,
    responses((status = 200, description = "What went, or would go", body = DeletionView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn delete(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<DeleteBody>,
) -> Result<Json<DeletionView>, ApiError> {
    let ids = chosen(&state, &body.filter, body.all)?;
    if body.dry_run {
        return Ok(Json(DeletionView::new(true, &ids, state.library.clips_among(&ids))));
    }
    let library = state.library.clone();
    let deletion = detached(async move { Ok(library.delete_assets(&ids).await?) }).await?;
    deletion.assets.iter().for_each(|id| state.thumbnails.forget(*id));
    Ok(Json(DeletionView::new(false, &deletion.assets, deletion.clips)))
}
