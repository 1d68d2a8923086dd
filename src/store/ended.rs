//! What is told of jobs that end, whichever store keeps them.

use super::{JobKind, JobRecord};
use crate::types::rfc3339_millis;

/// Code and message of a job that ended without success.
pub(super) struct EndedWith {
    pub code: &'static str,
    pub message: &'static str,
}

impl JobKind {
    /// None of the items could be done.
    pub(super) const fn all_failed(self) -> EndedWith {
        match self {
            Self::Index => EndedWith {
                code: "all_items_failed",
                message: "none of the files could be indexed; the job's items give the reasons",
            },
        }
    }

    /// There was nothing to do.
    pub(super) const fn nothing_found(self) -> EndedWith {
        match self {
            Self::Index => EndedWith {
                code: "no_media",
                message: "no video, audio or image files were found; the job's items list what was skipped",
            },
        }
    }
}

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
            "error": job.error,
            "created_at": rfc3339_millis(job.created_unix_ms),
            "started_at": stamp(job.started_unix_ms),
            "ended_at": stamp(job.ended_unix_ms),
        },
    });
    WebhookBody { body: body.to_string(), event }
}
