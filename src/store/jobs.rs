//! Jobs and their items, as stored.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{NewWebhook, StoreError, WorkError};
use crate::types::{AssetId, JobId, TrackChoice};

/// State of a job or of one of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkState {
    /// Waiting.
    Queued,
    /// Running.
    Running,
    /// Done.
    Done,
    /// Failed; `error` says why.
    Failed,
    /// Cancelled by a user.
    Cancelled,
    /// Paused by a user (jobs only): running items finish, and no new one starts.
    Paused,
    /// Left out (items only); `error` says why.
    Skipped,
}

impl WorkState {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Cancelled, Self::Paused, Self::Skipped];

    /// Whether the work has ended: it changes no more, unless a user retries it.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// The name used in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Skipped => "skipped",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// Kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Index files.
    Index,
}

impl JobKind {
    /// All kinds.
    pub const ALL: [Self; 1] = [Self::Index];

    /// The name used in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A job as stored.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// Id of the job.
    pub id: JobId,
    /// Kind of work.
    pub kind: JobKind,
    /// The request as JSON.
    pub request: serde_json::Value,
    /// State of the job.
    pub state: WorkState,
    /// Total number of items.
    pub items_total: u64,
    /// Number of items indexed.
    pub items_done: u64,
    /// Number of items that failed.
    pub items_failed: u64,
    /// Number of items left out.
    pub items_skipped: u64,
    /// Number of items done that could be read only in part.
    pub items_partial: u64,
    /// Number of clips indexed so far.
    pub clips: u64,
    /// Seconds of media indexed so far.
    pub media_secs: f64,
    /// Error code and message if it failed.
    pub error: Option<WorkError>,
    /// When it was created, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// When it started, in Unix milliseconds; 0 until then.
    pub started_unix_ms: i64,
    /// When it ended, in Unix milliseconds; 0 until then.
    pub ended_unix_ms: i64,
}

/// An item for a new job.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// The file: a path, a URL or `s3://bucket/key`.
    pub path: String,
    /// Display name, if it is not the file's name.
    pub name: Option<String>,
    /// The user's JSON object for this item.
    pub metadata: serde_json::Value,
    /// Code and message if the item is left out.
    pub skipped: Option<WorkError>,
    /// The tracks that the user chose.
    pub choice: TrackChoice,
}

impl NewItem {
    /// An item to index.
    #[must_use]
    pub fn new(path: String, metadata: serde_json::Value) -> Self {
        Self { path, name: None, metadata, skipped: None, choice: TrackChoice::default() }
    }
}

/// An item (file) of a job, as stored.
#[derive(Debug, Clone)]
pub struct JobItem {
    /// Position in the job, counted from 0.
    pub seq: i64,
    /// The file: a path, a URL or `s3://bucket/key`.
    pub path: String,
    /// Display name, if it is not the file's name.
    pub name: Option<String>,
    /// The user's JSON object for this item.
    pub metadata: serde_json::Value,
    /// State of the item.
    pub state: WorkState,
    /// Id of the asset; `None` until there is one.
    pub asset: Option<AssetId>,
    /// Number of clips indexed.
    pub clips: u64,
    /// Duration of the media in seconds.
    pub media_secs: f64,
    /// Code and message if it failed or was left out, or why it is retried.
    pub error: Option<WorkError>,
    /// Number of attempts that were postponed.
    pub attempts: u32,
    /// Earliest time of the next attempt, in Unix milliseconds; 0: at once.
    pub not_before_unix_ms: i64,
    /// The tracks that the user chose.
    pub choice: TrackChoice,
}

/// Jobs and their items.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Creates a job with its items; it is durable on return. A known `idempotency_key` returns the earlier
    /// job.
    async fn create_job(
        &self,
        kind: JobKind,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
    ) -> Result<JobRecord, StoreError>;
    /// Like [`create_job`](super::Store::create_job), with a webhook that reports its end. Also returns
    /// whether the job is new; if not, the earlier job keeps its webhook.
    async fn create_job_with_webhook(
        &self,
        kind: JobKind,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
        webhook: &NewWebhook,
    ) -> Result<(JobRecord, bool), StoreError>;
    /// Looks up one job.
    async fn job(&self, id: JobId) -> Result<JobRecord, StoreError>;
    /// Jobs, newest first, of one state or of all; `after` is the last id of the previous page.
    async fn list_jobs(
        &self,
        state: Option<WorkState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRecord>, StoreError>;
    /// Number of jobs per state; states without jobs are left out.
    async fn job_counts(&self) -> Result<BTreeMap<WorkState, u64>, StoreError>;
    /// Items of a job after `after_seq` (exclusive; -1 for all), of one state or of all.
    async fn job_items(
        &self,
        id: JobId,
        state: Option<WorkState>,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JobItem>, StoreError>;
    /// Claims the next due item of the oldest active job, and marks both as running.
    /// With several nodes, a claim has an owner and a lease, and gives a fence for what follows.
    async fn claim_item(&self) -> Result<Option<(JobId, JobItem)>, StoreError>;
    /// Records the outcome of an item, and ends the job after its last item. An item that has already ended
    /// changes nothing; one handed back as `queued` waits again.
    /// With several nodes, it carries the owner and the fence of the claim; a lost claim changes nothing.
    async fn finish_item(&self, job: JobId, item: &JobItem) -> Result<JobRecord, StoreError>;
    /// Unfinished jobs, oldest first.
    async fn unended_jobs(&self) -> Result<Vec<JobId>, StoreError>;
    /// Cancels a job and its queued items.
    async fn cancel_job(&self, id: JobId) -> Result<JobRecord, StoreError>;
    /// Pauses an active job, or resumes a paused one; any other job does not change.
    async fn pause_job(&self, id: JobId, paused: bool) -> Result<JobRecord, StoreError>;
    /// Queues the failed items of a job again, and resumes the job if it had ended. Returns the job and the
    /// number of items. A cancelled job does not change.
    async fn retry_failed(&self, id: JobId) -> Result<(JobRecord, u64), StoreError>;
    /// For use after startup: queues running items again, and makes postponed items due. Returns how many had
    /// been running. With several nodes, only items whose lease has expired are queued.
    async fn requeue_running(&self) -> Result<u64, StoreError>;
}
