//! Snapshots: begun, looked at, deleted.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http_intake::extract::{ApiJson, IdPath};
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::views::List;
use crate::library::{SnapshotOptions, SnapshotView};
use crate::types::SnapshotId;

/// Options for a snapshot.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotBody {
    /// Also read the media copied by earlier snapshots, and replace damaged copies; otherwise only their names and
    /// sizes are checked. Default false.
    #[serde(default)]
    recheck: bool,
}

/// Starts a snapshot of the library. Only one can be taken at a time.
#[utoipa::path(post, path = "/v1/snapshots", operation_id = "take_snapshot",
    tag = "keeping", request_body = SnapshotBody,
    responses((status = 202, description = "Started; see the Location header", body = SnapshotView),
        ClientError))]
pub async fn start(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<SnapshotBody>,
) -> Result<Response, ApiError> {
    let options = SnapshotOptions { scheduled: false, recheck: body.recheck };
    let view = state.library.upkeep().start_snapshot(options).await?;
    let location = format!("/v1/snapshots/{}", view.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Lists the snapshots, newest first, including the one being taken or the last one that failed.
#[utoipa::path(get, path = "/v1/snapshots", operation_id = "list_snapshots", tag = "keeping",
    responses((status = 200, description = "The complete list", body = List<SnapshotView>),
        ClientError))]
pub async fn list(State(state): State<AppState>) -> Result<Json<List<SnapshotView>>, ApiError> {
    Ok(Json(List::new(state.library.upkeep().snapshots().await?, None)))
}

/// Returns a snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{id}", operation_id = "get_snapshot",
    tag = "keeping", params(("id" = SnapshotId, Path)),
    responses((status = 200, description = "The snapshot", body = SnapshotView),
        ClientError))]
pub async fn get(
    State(state): State<AppState>,
    IdPath(id): IdPath<SnapshotId>,
) -> Result<Json<SnapshotView>, ApiError> {
    Ok(Json(state.library.upkeep().snapshot(id).await?))
}

/// Deletes a snapshot and the media that no other snapshot needs. A snapshot being taken is stopped.
#[utoipa::path(delete, path = "/v1/snapshots/{id}", operation_id = "delete_snapshot",
    tag = "keeping", params(("id" = SnapshotId, Path)),
    responses((status = 204, description = "Deleted"), ClientError))]
pub async fn delete(
    State(state): State<AppState>,
    IdPath(id): IdPath<SnapshotId>,
) -> Result<StatusCode, ApiError> {
    state.library.upkeep().delete_snapshot(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
