//! The form of a job in the API, on the command line and in webhooks.

use serde::Serialize;
use utoipa::ToSchema;

use super::{JobKind, JobRecord, WorkError, WorkState};
use crate::types::{JobId, now_unix_ms, rfc3339_millis};

/// Progress of a job at some moment; rates are measured from there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JobBaseline {
    unix_ms: i64,
    items: u64,
    media_secs: f64,
}

impl JobBaseline {
    /// The job's progress at this moment.
    #[must_use]
    pub fn of(job: &JobRecord, now_unix_ms: i64) -> Self {
        Self { unix_ms: now_unix_ms, items: job.items_done + job.items_failed, media_secs: job.media_secs }
    }
}

/// A job.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobView {
    /// Always `job`.
    pub object: &'static str,
    /// Id.
    pub id: JobId,
    /// Kind of job, such as `index`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: JobKind,
    /// State.
    pub state: WorkState,
    /// Path of the folder, file or manifest; null for a list of files.
    pub path: Option<String>,
    /// Your JSON object, copied to each asset.
    pub metadata: serde_json::Value,
    /// Total number of items.
    pub items_total: u64,
    /// Number of items indexed.
    pub items_done: u64,
    /// Number of items that failed.
    pub items_failed: u64,
    /// Number of items skipped because they are not media or cannot be read; each item gives the reason.
    pub items_skipped: u64,
    /// Number of items that could be read only in part; each item gives the reason.
    pub items_partial: u64,
    /// Number of clips indexed so far.
    pub clips: u64,
    /// Seconds of media indexed so far.
    pub media_secs: f64,
    /// Hours of media indexed per hour of run time.
    pub hours_of_media_per_hour: f64,
    /// Estimated seconds until the job ends; null when unknown.
    pub eta_secs: Option<f64>,
    /// Why it failed; null otherwise.
    pub error: Option<WorkError>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC; null until it starts.
    pub started_at: Option<String>,
    /// RFC 3339, UTC; null until it ends.
    pub ended_at: Option<String>,
}

impl From<&JobRecord> for JobView {
    fn from(job: &JobRecord) -> Self {
        Self::new(job, None)
    }
}

impl JobView {
    /// The view of a job now; its rate is measured from the baseline or, without one, from its start.
    #[must_use]
    pub fn new(job: &JobRecord, baseline: Option<JobBaseline>) -> Self {
        Self::at(job, baseline, now_unix_ms())
    }

    pub(super) fn at(job: &JobRecord, baseline: Option<JobBaseline>, now: i64) -> Self {
        let ended = job.ended_unix_ms > 0;
        let since =
            baseline.unwrap_or(JobBaseline { unix_ms: job.started_unix_ms, items: 0, media_secs: 0.0 });
        let until = if ended { job.ended_unix_ms } else { now };
        let running_secs = if since.unix_ms > 0 { (until - since.unix_ms).max(0) as f64 / 1e3 } else { 0.0 };
        let rate = if running_secs > 0.0 {
            (job.media_secs - since.media_secs).max(0.0) / running_secs
        } else {
            0.0
        };
        let over = job.items_done + job.items_failed;
        let left = job.items_total.saturating_sub(over + job.items_skipped);
        let here = over.saturating_sub(since.items);
        let eta_secs = match (ended || job.state == WorkState::Paused, here) {
            (true, _) | (false, 0) => None,
            _ => Some(running_secs / here as f64 * left as f64),
        };
        let stamp = |ms: i64| (ms > 0).then(|| rfc3339_millis(ms));
        Self {
            object: "job",
            id: job.id,
            kind: job.kind,
            state: job.state,
            path: job.request["path"].as_str().map(str::to_owned),
            metadata: match &job.request["metadata"] {
                serde_json::Value::Null => serde_json::json!({}),
                given => given.clone(),
            },
            items_total: job.items_total,
            items_done: job.items_done,
            items_failed: job.items_failed,
            items_skipped: job.items_skipped,
            items_partial: job.items_partial,
            clips: job.clips,
            media_secs: job.media_secs,
            hours_of_media_per_hour: rate,
            eta_secs,
            error: job.error.clone(),
            created_at: rfc3339_millis(job.created_unix_ms),
            started_at: stamp(job.started_unix_ms),
            ended_at: stamp(job.ended_unix_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobRecord {
        JobRecord {
            id: JobId::generate(),
            kind: JobKind::Index,
            request: serde_json::json!({"path": "/m"}),
            state: WorkState::Running,
            items_total: 10,
            items_done: 3,
            items_failed: 1,
            items_skipped: 0,
            items_partial: 0,
            clips: 40,
            media_secs: 360.0,
            error: None,
            created_unix_ms: 1_000,
            started_unix_ms: 2_000,
            ended_unix_ms: 0,
        }
    }

    #[test]
    fn rate_and_eta_follow_what_was_done() {
        let view = JobView::at(&job(), None, 12_000);
        assert_eq!(view.hours_of_media_per_hour, 36.0);
        assert_eq!(view.eta_secs, Some(15.0));
        assert_eq!(view.started_at.as_deref(), Some("1970-01-01T00:00:02.000Z"));
    }

    #[test]
    fn the_time_a_server_was_down_does_not_count() {
        let mut later = job();
        let baseline = JobBaseline::of(&later, 1_000_000);
        let view = JobView::at(&later, Some(baseline), 1_005_000);
        assert_eq!((view.hours_of_media_per_hour, view.eta_secs), (0.0, None));
        later.items_done += 2;
        later.media_secs += 100.0;
        let view = JobView::at(&later, Some(baseline), 1_010_000);
        assert_eq!((view.hours_of_media_per_hour, view.eta_secs), (10.0, Some(20.0)));
    }

    #[test]
    fn an_ended_job_has_no_eta() {
        let mut ended = job();
        ended.ended_unix_ms = 12_000;
        let view = JobView::at(&ended, None, 99_000);
        assert_eq!((view.hours_of_media_per_hour, view.eta_secs), (36.0, None));
    }
}
