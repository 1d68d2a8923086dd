//! Jobs: started, watched, cancelled.

pub mod watches;

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

use crate::http_intake::extract::{ApiJson, ApiQuery, IdPath};
use crate::http_intake::state::AppState;
use crate::http_kit::advice::item_view;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::metadata::checked_metadata;
use crate::http_kit::page::{DEFAULT_ENTRIES, DEFAULT_SHORT_ENTRIES, PageSize};
use crate::http_kit::views::List;
use crate::http_kit::webhook::WebhookBody;
use crate::http_kit::webhook::WebhookView;
use crate::jobs::{ItemView, JobView, ManifestItem, NameFilter};
use crate::library::{JobSource, Webhook};
use crate::store::{JobKind, JobRecord, WorkState};
use crate::types::{JobId, TrackChoice};

/// How often a watched job is looked at.
const EVENT_EVERY: Duration = Duration::from_millis(300);
/// Longest idempotency key, characters.
const MAX_KEY_CHARS: usize = 255;

/// Longest list of files or URLs in a request; a manifest may be longer.
const MAX_FILES: usize = 10_000;
/// Most globs of a request.
const MAX_GLOBS: usize = 100;

/// A job to start: exactly one of `path`, `manifest`, `files`, `urls` and `bucket`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobBody {
    /// Kind of job.
    #[serde(rename = "type")]
    #[allow(dead_code, reason = "`kind` must be `index`")]
    kind: JobKind,
    /// Absolute path of a folder or file in an allowed folder.
    path: Option<String>,
    /// With `path`: include subfolders; default true.
    recursive: Option<bool>,
    /// With `path` or `bucket`: index only files that match one of these globs. `*` matches within a name, `**`
    /// across folders; a glob without `/` matches names in every folder. Case is ignored.
    #[serde(default)]
    include: Vec<String>,
    /// With `path` or `bucket`: skip files that match one of these globs.
    #[serde(default)]
    exclude: Vec<String>,
    /// Absolute path of a JSONL file in an allowed folder, with one `{"path": …, "metadata": {…}}` or `{"url": …}`
    /// per line. Relative paths start at the manifest's folder.
    manifest: Option<String>,
    /// Files to index, at most 10,000.
    files: Option<Vec<ManifestItem>>,
    /// URLs to fetch, at most 10,000: each a string or `{"url": …, "name": …, "metadata": {…}}`.
    urls: Option<Vec<UrlItem>>,
    /// `s3://bucket` or `s3://bucket/folder`, if allowed on this server. Indexes all objects that are media by name
    /// or, if the name does not tell, by their first bytes.
    bucket: Option<String>,
    /// Any JSON object, copied to each asset; an item's own keys take precedence.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Index of the video track to read in each file, as listed in the asset's tracks; default: chosen by the server.
    /// An item's own choice takes precedence.
    video_track: Option<u16>,
    /// Index of the audio track to read in each file, as listed in the asset's tracks; default: chosen by the server.
    /// An item's own choice takes precedence.
    audio_track: Option<u16>,
    /// Webhook for the end of the job: `job.done`, `job.failed` or `job.cancelled`.
    webhook: Option<WebhookBody>,
}

/// A newly started job.
#[derive(Serialize, ToSchema)]
pub struct StartedJob {
    /// The job.
    #[serde(flatten)]
    job: JobView,
    /// Webhook for the end of the job, with its secret if the server generated one; absent if an earlier request with
    /// the same `Idempotency-Key` started the job.
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
        let choice = TrackChoice { video: self.video_track, audio: self.audio_track };
        let chosen = |mut items: Vec<ManifestItem>| {
            items.iter_mut().for_each(|item| item.choose(choice));
            items
        };
        match (self.path, self.manifest, self.files, self.urls, self.bucket) {
            (Some(path), None, None, None, None) => {
                let recursive = self.recursive.unwrap_or(true);
                Ok(JobSource::Folder { path: path.into(), recursive, filter, choice })
            }
            (None, Some(manifest), None, None, None) => {
                Ok(JobSource::Manifest { path: manifest.into(), choice })
            }
            (None, None, Some(files), None, None) => {
                Ok(JobSource::Files(chosen(checked_items("files", files)?)))
            }
            (None, None, None, Some(urls), None) => {
                let items = urls.into_iter().map(ManifestItem::from).collect();
                Ok(JobSource::Files(chosen(checked_items("urls", items)?)))
            }
            (None, None, None, None, Some(place)) => Ok(JobSource::Bucket { place, filter, choice }),
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

/// A URL to fetch.
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

/// Starts a job. Jobs are durable: they resume after a restart, and no file is indexed twice.
#[utoipa::path(post, path = "/v1/jobs", operation_id = "start_job", tag = "jobs", request_body = JobBody,
    params(("idempotency-key" = Option<String>, Header, description = "Repeating a request with the same key returns the same job")),
    responses((status = 202, description = "Started; see the Location header", body = StartedJob),
        ClientError))]
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
    let webhook = body.webhook.take().map(Webhook::from);
    let source = body.source()?;
    let (job, given) =
        state.library.start_index_job_told(source, metadata, key.as_deref(), webhook.as_ref()).await?;
    let location = format!("/v1/jobs/{}", job.id);
    let view =
        StartedJob { job: state.library.ingest().job_view(&job), webhook: given.map(WebhookView::from) };
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
    /// Only jobs in this state.
    state: Option<WorkState>,
    /// Maximum number of jobs per page, 1 to 1000; default 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Return entries after this id: the `next` of the previous page.
    after: Option<JobId>,
}

/// Lists jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, description = "One page, newest first", body = List<JobView>),
        ClientError))]
pub async fn list(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<JobsQuery>,
) -> Result<Json<List<JobView>>, ApiError> {
    let size = PageSize::of(query.limit, DEFAULT_ENTRIES)?;
    let read = state.library.ingest().jobs(query.state, query.after, size.to_read()).await?;
    Ok(Json(size.cut(read, |job| job.id).show(|job| state.library.ingest().job_view(&job))))
}

/// Returns a job.
#[utoipa::path(get, path = "/v1/jobs/{id}", operation_id = "get_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "The job", body = JobView),
        ClientError))]
pub async fn get(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.ingest().job(id).await?;
    Ok(Json(state.library.ingest().job_view(&job)))
}

/// Cancels a job: waiting items are not started, and running items are stopped and their partial results removed.
#[utoipa::path(delete, path = "/v1/jobs/{id}", operation_id = "cancel_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "The updated job", body = JobView),
        ClientError))]
pub async fn cancel(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.ingest().cancel_job(id).await?;
    Ok(Json(state.library.ingest().job_view(&job)))
}

/// Pauses a job: running items finish, and no further item is started until the job is resumed, even after a restart.
#[utoipa::path(post, path = "/v1/jobs/{id}/pause", operation_id = "pause_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "The updated job; a finished job is unchanged", body = JobView),
        ClientError))]
pub async fn pause(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.ingest().pause_job(id).await?;
    Ok(Json(state.library.ingest().job_view(&job)))
}

/// Resumes a paused job.
#[utoipa::path(post, path = "/v1/jobs/{id}/resume", operation_id = "resume_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "The updated job", body = JobView),
        ClientError))]
pub async fn resume(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.ingest().resume_job(id).await?;
    Ok(Json(state.library.ingest().job_view(&job)))
}

/// Queues the failed items of a job again, even if the job has ended.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", operation_id = "retry_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "The updated job; a cancelled job is unchanged", body = JobView),
        ClientError))]
pub async fn retry(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.library.retry_job(id).await?;
    Ok(Json(state.library.ingest().job_view(&job)))
}

/// Query string of a job's items.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ItemsQuery {
    /// Return items after this `seq`: the `next` of the previous page.
    after: Option<i64>,
    /// Maximum number of items per page, 1 to 1000; default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Return only items in this state.
    state: Option<WorkState>,
}

/// Lists the items of a job, in order, with the outcome of each.
#[utoipa::path(get, path = "/v1/jobs/{id}/items", operation_id = "list_job_items",
    tag = "jobs", params(("id" = JobId, Path), ItemsQuery),
    responses((status = 200, description = "One page of results", body = List<ItemView>),
        ClientError))]
pub async fn items(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
    ApiQuery(query): ApiQuery<ItemsQuery>,
) -> Result<Json<List<ItemView>>, ApiError> {
    let size = PageSize::of(query.limit, DEFAULT_SHORT_ENTRIES)?;
    let after = query.after.unwrap_or(-1);
    let read = state.library.ingest().job_items(id, query.state, after, size.to_read()).await?;
    Ok(Json(size.cut(read, |item| item.seq).show(|item| item_view(&item))))
}

/// Streams a job as server-sent events named `job`, one per change, until it ends.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", operation_id = "watch_job",
    tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, description = "Events whose data is the job as JSON",
            content_type = "text/event-stream", body = String),
        ClientError))]
pub async fn events(
    State(state): State<AppState>,
    IdPath(id): IdPath<JobId>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    state.library.ingest().job(id).await?;
    let watch = Watch { state, id, last: None, ended: false };
    Ok(Sse::new(stream::unfold(watch, Watch::next)).keep_alive(KeepAlive::default()))
}

/// One listener of a job.
struct Watch {
    state: AppState,
    id: JobId,
    last: Option<Progress>,
    ended: bool,
}

/// The values whose changes are sent to listeners.
#[derive(PartialEq)]
struct Progress {
    state: WorkState,
    items_done: u64,
    items_failed: u64,
    items_skipped: u64,
    clips: u64,
}

impl From<&JobRecord> for Progress {
    fn from(job: &JobRecord) -> Self {
        Self {
            state: job.state,
            items_done: job.items_done,
            items_failed: job.items_failed,
            items_skipped: job.items_skipped,
            clips: job.clips,
        }
    }
}

impl Watch {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            // Whichever model serves by now.
            let library = self.state.models.serving();
            let job = library.ingest().job(self.id).await.ok()?;
            let now = Some(Progress::from(&job));
            if self.last != now {
                self.last = now;
                self.ended = job.state.has_ended();
                let event = Event::default().event("job").json_data(library.ingest().job_view(&job)).ok()?;
                return Some((Ok(event), self));
            }
            tokio::select! {
                () = self.state.stop.cancelled() => return None,
                () = tokio::time::sleep(EVENT_EVERY) => {}
            }
        }
    }
}
