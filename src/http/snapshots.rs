//! Snapshots: begun, looked at, deleted.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::extract::{ApiJson, IdPath};
use super::state::{AppState, detached};
use super::views::List;
use crate::library::{SnapshotOptions, SnapshotView};
use crate::types::SnapshotId;

/// How to take a snapshot.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotBody {
    /// Read the media too that earlier snapshots brought, and replace what is damaged; else their names
    /// and sizes are enough.
    #[serde(default)]
    recheck: bool,
}

/// Begins to take a snapshot of the library where the server keeps them; one at a time.
#[utoipa::path(post, path = "/v1/snapshots", operation_id = "take_snapshot",
    tag = "keeping", request_body = SnapshotBody,
    responses((status = 202, description = "Begun; see the Location header", body = SnapshotView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn start(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<SnapshotBody>,
) -> Result<Response, ApiError> {
    let options = SnapshotOptions { scheduled: false, recheck: body.recheck };
    let library = state.library.clone();
    let view = detached(async move { Ok(library.start_snapshot(options).await?) }).await?;
    let location = format!("/v1/snapshots/{}", view.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Lists the snapshots, newest first; the one being taken, or the last that failed, among them.
#[utoipa::path(get, path = "/v1/snapshots", operation_id = "list_snapshots", tag = "keeping",
    responses((status = 200, description = "All", body = List<SnapshotView>),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn list(State(state): State<AppState>) -> Result<Json<List<SnapshotView>>, ApiError> {
    Ok(Json(List::new(state.library.snapshots().await?, None)))
}

/// One snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{id}", operation_id = "get_snapshot",
    tag = "keeping", params(("id" = SnapshotId, Path)),
    responses((status = 200, description = "The snapshot", body = SnapshotView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn get(
    State(state): State<AppState>,
    IdPath(id): IdPath<SnapshotId>,
) -> Result<Json<SnapshotView>, ApiError> {
    Ok(Json(state.library.snapshot(id).await?))
}

/// Deletes a snapshot with the media that no other one needs; one that is being taken is stopped.
#[utoipa::path(delete, path = "/v1/snapshots/{id}", operation_id = "delete_snapshot",
    tag = "keeping", params(("id" = SnapshotId, Path)),
    responses((status = 204, description = "Gone"), (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn delete(
    State(state): State<AppState>,
    IdPath(id): IdPath<SnapshotId>,
) -> Result<StatusCode, ApiError> {
    let library = state.library.clone();
    detached(async move { Ok(library.delete_snapshot(id).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}
