//! Jobs: started, watched, cancelled.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::assets::{checked_limit, checked_metadata};
use super::error::{ApiError, ErrorBody};
use super::extract::{ApiJson, ApiQuery, IdPath};
use super::state::{AppState, detached};
use super::views::List;
use crate::jobs::{ItemView, JobView};
use crate::store::WorkState;
use crate::types::JobId;

/// How often a watched job is looked at.
const EVENT_EVERY: Duration = Duration::from_millis(300);
/// Longest idempotency key, characters.
const MAX_KEY_CHARS: usize = 255;

/// A job to start.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobBody {
    /// What to do.
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "there is one kind of job, and it must be named")]
    kind: JobKind,
    /// Absolute path of a folder (or one file) beneath an allowed root.
    path: String,
    /// Also the folders in it; default true.
    #[serde(default = "yes")]
    recursive: bool,
    /// Any JSON object, given to every asset.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Kinds of jobs.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Index a folder.
    Index,
}

const fn yes() -> bool {
    true
}

/// Starts a job. It is durable: it goes on after a restart, and no file is done twice.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", request_body = JobBody,
    params(("idempotency-key" = Option<String>, Header, description = "The same key gives the same job back")),
    responses((status = 202, description = "Started; see the Location header", body = JobView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn start(
    State(state): State<AppState>,
    headers: HeaderMap,
    ApiJson(body): ApiJson<JobBody>,
) -> Result<Response, ApiError> {
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(value) => Some(checked_key(value.to_str().unwrap_or(""))?),
    };
    let metadata = checked_metadata(body.metadata.unwrap_or(Value::Null))?;
    let library = state.library.clone();
    let job = detached(async move {
        let path = PathBuf::from(body.path);
        Ok(library.start_index_job(&path, body.recursive, metadata, key.as_deref()).await?)
    })
    .await?;
    let location = format!("/v1/jobs/{}", job.id);
    let view = state.library.job_view(&job);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

fn checked_key(key: &str) -> Result<String, ApiError> {
    if key.is_empty() || key.len() > MAX_KEY_CHARS || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("`Idempotency-Key` takes 1 to {MAX_KEY_CHARS} visible ASCII characters");
        return Err(ApiError::invalid("idempotency-key", message));
    }
    Ok(key.to_owned())
}

/// Query string of the list of jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// Jobs, 1 to 1000; default 50.
    limit: Option<u32>,
}

/// Lists the newest jobs.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, description = "Newest first", body = List<JobView>),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn list(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<JobsQuery>,
) -> Result<Json<List<JobView>>, ApiError> {
    let jobs = state.library.store().list_jobs(checked_limit(query.limit, 50)?).await?;
    Ok(Json(List::new(jobs.iter().map(|job| state.library.job_view(job)).collect(), None)))
}

/// One job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, description = "The job", body = JobView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn get(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.store().job(id).await?;
    Ok(Json(state.library.job_view(&job)))
}

/// Cancels a job: what waits is not begun, what runs is stopped and leaves nothing behind.
#[utoipa::path(delete, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, description = "The job as it then is", body = JobView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn cancel(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let library = state.library.clone();
    let job = detached(async move { Ok(library.cancel_job(id).await?) }).await?;
    Ok(Json(state.library.job_view(&job)))
}

/// Query string of a job's items.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ItemsQuery {
    /// The `seq` of the last item of the page before.
    after: Option<i64>,
    /// Items, 1 to 1000; default 100.
    limit: Option<u32>,
    /// Only items in this state.
    state: Option<WorkState>,
}

/// The items of a job, in order, with what became of each.
#[utoipa::path(get, path = "/v1/jobs/{id}/items", tag = "jobs", params(("id" = String, Path), ItemsQuery),
    responses((status = 200, description = "A page", body = List<ItemView>),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn items(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
    ApiQuery(query): ApiQuery<ItemsQuery>,
) -> Result<Json<List<ItemView>>, ApiError> {
    let store = state.library.store();
    store.job(id).await?;
    let limit = checked_limit(query.limit, 100)? as usize;
    let mut after = query.after.unwrap_or(-1);
    let mut found = Vec::new();
    // One more than asked for tells whether there is a next page.
    while found.len() <= limit {
        let page = store.job_items(id, after, 1000).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        let short = page.len() < 1000;
        found.extend(
            page.iter().filter(|item| query.state.is_none_or(|s| s == item.state)).map(ItemView::from),
        );
        if short {
            break;
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.last().map(|item| item.seq.to_string()) } else { None };
    Ok(Json(List::new(found, next)))
}

/// The job as server-sent events named `job`, one for each change, until it ends.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, description = "Events", content_type = "text/event-stream", body = JobView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn events(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    state.library.store().job(id).await?;
    let watch = Watch { state, id, last: None, ended: false };
    Ok(Sse::new(stream::unfold(watch, Watch::next)).keep_alive(KeepAlive::default()))
}

/// One listener of a job.
struct Watch {
    state: AppState,
    id: JobId,
    last: Option<(WorkState, u64, u64, u64)>,
    ended: bool,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            let job = self.state.library.store().job(self.id).await.ok()?;
            let now = (job.state, job.items_done, job.items_failed, job.clips);
            if self.last != Some(now) {
                self.last = Some(now);
                self.ended = matches!(job.state, WorkState::Done | WorkState::Failed | WorkState::Cancelled);
                let event =
                    Event::default().event("job").json_data(self.state.library.job_view(&job)).ok()?;
                return Some((Ok(event), self));
            }
            tokio::select! {
                () = self.state.stop.cancelled() => return None,
                () = tokio::time::sleep(EVENT_EVERY) => {}
            }
        }
    }
}
