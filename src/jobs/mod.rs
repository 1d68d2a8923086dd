//! Durable batch jobs: what a person sees of them, and the worker that runs them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::store::{JobItem, JobRecord, WorkState};
use crate::types::{AssetId, JobId};

/// A job as the API and the command line show it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: JobId,
    /// Kind of job, e.g. `index`.
    pub kind: String,
    /// State.
    pub state: WorkState,
    /// Items in all.
    pub items_total: u64,
    /// Items done.
    pub items_done: u64,
    /// Items failed.
    pub items_failed: u64,
    /// Clips made so far.
    pub clips: u64,
    /// Seconds of media indexed so far.
    pub media_secs: f64,
    /// Hours of media indexed per hour of running.
    pub hours_of_media_per_hour: f64,
    /// Seconds to the end, when it can be told.
    pub eta_secs: Option<f64>,
}

impl From<&JobRecord> for JobView {
    fn from(job: &JobRecord) -> Self {
        Self {
            id: job.id,
            kind: job.kind.clone(),
            state: job.state,
            items_total: job.items_total,
            items_done: job.items_done,
            items_failed: job.items_failed,
            clips: job.clips,
            media_secs: job.media_secs,
            hours_of_media_per_hour: 0.0,
            eta_secs: None,
        }
    }
}

/// One item of a job as the API shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ItemView {
    /// The file.
    pub path: String,
    /// State.
    pub state: WorkState,
    /// The asset it became.
    #[schema(value_type = Option<String>)]
    pub asset_id: Option<AssetId>,
}

impl From<&JobItem> for ItemView {
    fn from(item: &JobItem) -> Self {
        Self { path: item.path.clone(), state: item.state, asset_id: item.asset }
    }
}
