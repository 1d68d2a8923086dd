//! Watched folders: begun, listed, ended.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::checked_filter;
use crate::http_intake::extract::{ApiJson, IdPath};
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::metadata::checked_metadata;
use crate::http_kit::views::List;
use crate::jobs::WorkError;
use crate::store::{WatchRecord, WatchSpec};
use crate::types::{JobId, TrackChoice, WatchId, rfc3339_millis};

/// Default number of seconds between two polls.
const DEFAULT_POLL_SECS: u64 = 30;
/// Longest time between two looks: a day.
const MAX_POLL_SECS: u64 = 86_400;

/// A folder to watch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchBody {
    /// Absolute path of a folder in an allowed folder.
    path: String,
    /// Whether to include subfolders; default true.
    recursive: Option<bool>,
    /// Index only files that match one of these globs; default: files with a media extension. `*` matches within a
    /// name, `**` across folders; a glob without `/` matches names in every folder. Case is ignored.
    #[serde(default)]
    include: Vec<String>,
    /// Skip files that match one of these globs.
    #[serde(default)]
    exclude: Vec<String>,
    /// Any JSON object, copied to each asset.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Seconds between two scans, 1 to 86400; default 30.
    #[schema(minimum = 1, maximum = 86400)]
    poll_secs: Option<u64>,
    /// Whether to delete the assets of files that no longer exist; default false.
    #[serde(default)]
    delete_missing: bool,
    /// Index of the video track to read in each file, as listed in the asset's tracks; default: chosen by the server.
    video_track: Option<u16>,
    /// Index of the audio track to read in each file, as listed in the asset's tracks; default: chosen by the server.
    audio_track: Option<u16>,
}

/// The request for this folder without options.
#[must_use]
pub fn default_watch(path: String) -> WatchSpec {
    WatchSpec {
        path,
        recursive: true,
        include: Vec::new(),
        exclude: Vec::new(),
        metadata: serde_json::json!({}),
        poll_secs: DEFAULT_POLL_SECS,
        delete_missing: false,
        choice: TrackChoice::default(),
    }
}

/// A watched folder.
#[derive(Debug, Serialize, ToSchema)]
pub struct WatchView {
    /// Always `watch`.
    pub object: &'static str,
    /// Id.
    pub id: WatchId,
    /// Path of the folder, with all symbolic links resolved.
    pub path: String,
    /// Whether subfolders are included.
    pub recursive: bool,
    /// Only files that match one of these globs are indexed.
    pub include: Vec<String>,
    /// Files that match one of these globs are skipped.
    pub exclude: Vec<String>,
    /// Your JSON object, copied to each asset.
    pub metadata: Value,
    /// Seconds between two scans.
    pub poll_secs: u64,
    /// Whether to delete the assets of files that no longer exist.
    pub delete_missing: bool,
    /// Index of the chosen video track; null if the server chooses it.
    pub video_track: Option<u16>,
    /// Index of the chosen audio track; null if the server chooses it.
    pub audio_track: Option<u16>,
    /// Number of files found by the last scan.
    pub files: u64,
    /// Id of its newest job; the next job starts only after it ends.
    pub job_id: Option<JobId>,
    /// Why the last scan failed or was incomplete; null otherwise.
    pub error: Option<WorkError>,
    /// RFC 3339, UTC.
    pub created_at: String,
}

impl From<WatchRecord> for WatchView {
    fn from(watch: WatchRecord) -> Self {
        let WatchSpec { path, recursive, include, exclude, metadata, poll_secs, delete_missing, choice } =
            watch.spec;
        Self {
            object: "watch",
            id: watch.id,
            path,
            recursive,
            include,
            exclude,
            metadata,
            poll_secs,
            delete_missing,
            video_track: choice.video,
            audio_track: choice.audio,
            files: watch.files,
            job_id: watch.job,
            error: watch.error,
            created_at: rfc3339_millis(watch.created_unix_ms),
        }
    }
}

/// Watches a folder: new and changed files are indexed once they stop growing.
#[utoipa::path(post, path = "/v1/watches", operation_id = "create_watch",
    tag = "jobs", request_body = WatchBody,
    responses((status = 201, description = "Watch created; see the Location header", body = WatchView),
        ClientError))]
pub async fn create(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<WatchBody>,
) -> Result<Response, ApiError> {
    checked_filter(&body.include, &body.exclude)?;
    let poll_secs = body.poll_secs.unwrap_or(DEFAULT_POLL_SECS);
    if !(1..=MAX_POLL_SECS).contains(&poll_secs) {
        return Err(ApiError::invalid("poll_secs", format!("`poll_secs` must be from 1 to {MAX_POLL_SECS}")));
    }
    let spec = WatchSpec {
        path: body.path,
        recursive: body.recursive.unwrap_or(true),
        include: body.include,
        exclude: body.exclude,
        metadata: checked_metadata(body.metadata.unwrap_or(Value::Null))?,
        poll_secs,
        delete_missing: body.delete_missing,
        choice: TrackChoice { video: body.video_track, audio: body.audio_track },
    };
    let watch = state.library.watches().create(spec).await?;
    let location = format!("/v1/watches/{}", watch.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(WatchView::from(watch))).into_response())
}

/// Lists all watched folders.
#[utoipa::path(get, path = "/v1/watches", operation_id = "list_watches", tag = "jobs",
    responses((status = 200, description = "The list, newest first", body = List<WatchView>),
        ClientError))]
pub async fn list(State(state): State<AppState>) -> Result<Json<List<WatchView>>, ApiError> {
    let watches = state.library.watches().list().await?;
    Ok(Json(List::new(watches.into_iter().map(WatchView::from).collect(), None)))
}

/// Returns a watched folder.
#[utoipa::path(get, path = "/v1/watches/{id}", operation_id = "get_watch",
    tag = "jobs", params(("id" = WatchId, Path)),
    responses((status = 200, description = "The watch", body = WatchView),
        ClientError))]
pub async fn get(
    State(state): State<AppState>,
    IdPath(id): IdPath<WatchId>,
) -> Result<Json<WatchView>, ApiError> {
    Ok(Json(state.library.watches().find(id).await?.into()))
}

/// Stops watching a folder. Indexed assets stay, and a running job continues.
#[utoipa::path(delete, path = "/v1/watches/{id}", operation_id = "delete_watch",
    tag = "jobs", params(("id" = WatchId, Path)),
    responses((status = 204, description = "Deleted"), ClientError))]
pub async fn delete(
    State(state): State<AppState>,
    IdPath(id): IdPath<WatchId>,
) -> Result<StatusCode, ApiError> {
    state.library.watches().delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
