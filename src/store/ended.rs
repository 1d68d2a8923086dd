//! What is told of jobs that end, whichever store keeps them.

use super::{JobRecord, JobView};
use crate::types::rfc3339_millis;

/// Error of a job none of whose files could be indexed.
pub(super) const ALL_FAILED: (&str, &str) =
    ("all_items_failed", "none of the files could be indexed; the job's items give the reasons");
/// Error of a job without files to index.
pub(super) const NO_MEDIA: (&str, &str) =
    ("no_media", "no video, audio or image files were found; the job's items list what was skipped");

/// What a webhook tells.
pub(super) struct WebhookBody {
    /// Name of the event, such as `job.done`.
    pub(super) event: String,
    /// JSON.
    pub(super) body: String,
}

/// The webhook for the end of a job; its data is the job as the API shows it.
pub(super) fn ended(job: &JobRecord) -> WebhookBody {
    let event = format!("job.{}", job.state.as_str());
    let body = serde_json::json!({
        "type": event,
        "timestamp": rfc3339_millis(job.ended_unix_ms),
        "data": JobView::at(job, None, job.ended_unix_ms),
    });
    WebhookBody { body: body.to_string(), event }
}
