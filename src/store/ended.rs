//! What is told of jobs that end, whichever store keeps them.

use super::JobRecord;
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

/// The webhook for the end of a job.
pub(super) fn ended(job: &JobRecord) -> WebhookBody {
    let event = format!("job.{}", job.state.as_str());
    let stamp = |ms: i64| (ms > 0).then(|| rfc3339_millis(ms));
    let error = job.error.as_ref();
    let body = serde_json::json!({
        "type": event,
        "timestamp": rfc3339_millis(job.ended_unix_ms),
        "data": {
            "id": job.id,
            "type": job.kind,
            "state": job.state,
            "path": job.request["path"],
            "metadata": job.request["metadata"],
            "items_total": job.items_total,
            "items_done": job.items_done,
            "items_failed": job.items_failed,
            "items_skipped": job.items_skipped,
            "items_partial": job.items_partial,
            "clips": job.clips,
            "media_secs": job.media_secs,
            "error": error.map(|(code, message)| serde_json::json!({ "code": code, "message": message })),
            "created_at": rfc3339_millis(job.created_unix_ms),
            "started_at": stamp(job.started_unix_ms),
            "ended_at": stamp(job.ended_unix_ms),
        },
    });
    WebhookBody { body: body.to_string(), event }
}
