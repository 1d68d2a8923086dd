//! Jobs: started, watched, cancelled.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::assets::{checked_limit, checked_metadata};
use super::error::{ApiError, ErrorBody};
use super::extract::{ApiJson, ApiQuery, IdPath};
use super::state::{AppState, detached};
use super::views::List;
use super::webhooks::{WebhookBody, WebhookView};
use crate::jobs::{ItemView, JobView, ManifestItem, NameFilter};
use crate::library::{JobSource, WebhookRequest};
use crate::store::WorkState;
use crate::types::{JobId, TrackChoice};

/// How often a watched job is looked at.
const EVENT_EVERY: Duration = Duration::from_millis(300);
/// Longest idempotency key, characters.
const MAX_KEY_CHARS: usize = 255;

/// Longest list of files or URLs in a request; longer ones come as a manifest.
const MAX_FILES: usize = 10_000;
/// Most globs of a request.
const MAX_GLOBS: usize = 100;

/// A job to start: exactly one of `path`, `manifest`, `files`, `urls` and `bucket`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobBody {
    /// What to do.
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "`kind` must be `index`")]
    kind: JobKind,
    /// Absolute path of a folder (or one file) beneath an allowed root.
    path: Option<String>,
    /// With `path`: also the folders in it; default true.
    recursive: Option<bool>,
    /// With `path` or `bucket`: only files that match one of these globs. `*` stays within a name, `**` crosses
    /// folders; a glob without `/` is looked for in every folder; case does not matter.
    #[serde(default)]
    include: Vec<String>,
    /// With `path` or `bucket`: no files that match one of these globs.
    #[serde(default)]
    exclude: Vec<String>,
    /// Absolute path of a JSONL file beneath an allowed root: one `{"path": …, "metadata": {…}}` or
    /// `{"url": …}` a line; relative paths are relative to its folder.
    manifest: Option<String>,
    /// The files themselves, at most 10,000.
    files: Option<Vec<ManifestItem>>,
    /// URLs to be fetched, at most 10,000: each a string, or `{"url": …, "name": …, "metadata": {…}}`.
    urls: Option<Vec<UrlItem>>,
    /// `s3://bucket` or `s3://bucket/folder`, of those that this server may read: what has a name of media, or
    /// where the name says nothing, first bytes of media.
    bucket: Option<String>,
    /// Any JSON object, given to every asset; an item's own keys win.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Where the job's end is told, as `job.done`, `job.failed` or `job.cancelled`.
    webhook: Option<WebhookBody>,
}

/// A job that was started.
#[derive(Serialize, ToSchema)]
pub struct StartedJob {
    /// The job.
    #[serde(flatten)]
    job: JobView,
    /// Where its end is told, with the secret, if one was made; left out where an earlier request with
    /// the same key started the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<WebhookView>,
}

impl JobBody {
    fn source(self) -> Result<JobSource, ApiError> {
        if self.recursive.is_some() && self.path.is_none() {
            return Err(ApiError::invalid("recursive", "`recursive` can only be used with `path`"));
        }
        let globs = !self.include.is_empty() || !self.exclude.is_empty();
        if globs && self.path.is_none() && self.bucket.is_none() {
            let message = "`include` and `exclude` can only be used with `path` or `bucket`";
            return Err(ApiError::invalid("include", message));
        }
        let filter = checked_filter(&self.include, &self.exclude)?;
        match (self.path, self.manifest, self.files, self.urls, self.bucket) {
            (Some(path), None, None, None, None) => {
                let recursive = self.recursive.unwrap_or(true);
                Ok(JobSource::Folder { path: path.into(), recursive, filter, choice: TrackChoice::default() })
            }
            (None, Some(manifest), None, None, None) => Ok(JobSource::Manifest(manifest.into())),
            (None, None, Some(files), None, None) => Ok(JobSource::Files(checked_items("files", files)?)),
            (None, None, None, Some(urls), None) => {
                let items = urls.into_iter().map(ManifestItem::from).collect();
                Ok(JobSource::Files(checked_items("urls", items)?))
            }
            (None, None, None, None, Some(place)) => Ok(JobSource::Bucket { place, filter }),
            (None, None, None, None, None) => {
                let message = format!("send one of {SOURCES}");
                Err(ApiError::new(StatusCode::BAD_REQUEST, "missing_field", message).with_param("path"))
            }
            _ => Err(ApiError::invalid("path", format!("send only one of {SOURCES}"))),
        }
    }
}

const SOURCES: &str = "`path`, `manifest`, `files`, `urls` and `bucket`";

/// Globs of a request.
pub fn checked_filter(include: &[String], exclude: &[String]) -> Result<NameFilter, ApiError> {
    if include.len() + exclude.len() > MAX_GLOBS {
        return Err(ApiError::invalid("include", format!("expected at most {MAX_GLOBS} globs")));
    }
    NameFilter::new(include, exclude).map_err(|reason| ApiError::invalid("include", reason))
}

fn checked_items(param: &str, items: Vec<ManifestItem>) -> Result<Vec<ManifestItem>, ApiError> {
    if items.len() > MAX_FILES {
        let message = format!("expected at most {MAX_FILES} files or URLs; send more as a manifest");
        return Err(ApiError::invalid(param, message));
    }
    for (at, item) in items.iter().enumerate() {
        item.check().map_err(|reason| ApiError::invalid(format!("{param}[{at}]"), reason))?;
    }
    Ok(items)
}

/// A URL to be fetched.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum UrlItem {
    /// The URL.
    Url(String),
    /// With a name or metadata.
    Item(ManifestItem),
}

impl From<UrlItem> for ManifestItem {
    fn from(item: UrlItem) -> Self {
        match item {
            UrlItem::Url(url) => Self { url: Some(url), ..Self::default() },
            UrlItem::Item(item) => item,
        }
    }
}

/// Kinds of jobs.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Index files.
    Index,
}

/// Starts a job. It is durable: it goes on after a restart, and no file is done twice.
#[utoipa::path(post, path = "/v1/jobs", operation_id = "start_job", tag = "jobs", request_body = JobBody,
    params(("idempotency-key" = Option<String>, Header, description = "The same key gives the same job back")),
    responses((status = 202, description = "Started; see the Location header", body = StartedJob),
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
    let mut body = body;
    let metadata = checked_metadata(body.metadata.take().unwrap_or(Value::Null))?;
    let webhook = body.webhook.take().map(WebhookRequest::from);
    let source = body.source()?;
    let library = state.library.clone();
    let (job, given) = detached(async move {
        let started = library.start_index_job_told(source, metadata, key.as_deref(), webhook.as_ref());
        Ok(started.await?)
    })
    .await?;
    let location = format!("/v1/jobs/{}", job.id);
    let view = StartedJob { job: state.library.job_view(&job), webhook: given.map(WebhookView::from) };
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

fn checked_key(key: &str) -> Result<String, ApiError> {
    if key.is_empty() || key.len() > MAX_KEY_CHARS || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("`Idempotency-Key` must be 1 to {MAX_KEY_CHARS} visible ASCII characters");
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
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists the newest jobs.
#[utoipa::path(get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs", params(JobsQuery),
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
#[utoipa::path(get, path = "/v1/jobs/{id}", operation_id = "get_job",
    tag = "jobs", params(("id" = JobId, Path)),
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
#[utoipa::path(delete, path = "/v1/jobs/{id}", operation_id = "cancel_job",
    tag = "jobs", params(("id" = JobId, Path)),
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

/// Pauses a job: what runs ends, nothing new is begun until it is resumed, also after a restart.
#[utoipa::path(post, path = "/v1/jobs/{id}/pause", operation_id = "pause_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "The job as it then is; one that has ended stays so", body = JobView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn pause(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.pause_job(id).await?;
    Ok(Json(state.library.job_view(&job)))
}

/// Lets a paused job go on.
#[utoipa::path(post, path = "/v1/jobs/{id}/resume", operation_id = "resume_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "The job as it then is", body = JobView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn resume(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.resume_job(id).await?;
    Ok(Json(state.library.job_view(&job)))
}

/// Queues the failed items of a job once more, also of one that has ended.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", operation_id = "retry_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "The job as it then is; a cancelled one stays so", body = JobView),
        (status = "4XX", description = "Refused", body = ErrorBody)))]
pub async fn retry(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.retry_job(id).await?;
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
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only items in this state.
    state: Option<WorkState>,
}

/// The items of a job, in order, with what became of each.
#[utoipa::path(get, path = "/v1/jobs/{id}/items", operation_id = "list_job_items",
    tag = "jobs", params(("id" = JobId, Path), ItemsQuery),
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
#[utoipa::path(get, path = "/v1/jobs/{id}/events", operation_id = "watch_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "Events; the data of each is a job as JSON",
            content_type = "text/event-stream", body = String),
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
    last: Option<(WorkState, u64, u64, u64, u64)>,
    ended: bool,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            // Whichever model serves by now.
            let library = self.state.models.serving();
            let job = library.store().job(self.id).await.ok()?;
            let now = (job.state, job.items_done, job.items_failed, job.items_skipped, job.clips);
            if self.last != Some(now) {
                self.last = Some(now);
                self.ended = job.state.has_ended();
                let event = Event::default().event("job").json_data(library.job_view(&job)).ok()?;
                return Some((Ok(event), self));
            }
            tokio::select! {
                () = self.state.stop.cancelled() => return None,
                () = tokio::time::sleep(EVENT_EVERY) => {}
            }
        }
    }
}
