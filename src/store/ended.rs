//! The messages with which jobs end, in any store.

use super::{JobKind, JobRecord, JobView};
use crate::types::rfc3339_millis;

/// Code and message of a job that ended without success.
pub(crate) struct EndedWith {
    pub code: &'static str,
    pub message: &'static str,
}

impl JobKind {
    /// None of the items could be done.
    pub(crate) const fn all_failed(self) -> EndedWith {
        match self {
            Self::Index => EndedWith {
                code: "all_items_failed",
                message: "none of the files could be indexed; the job's items give the reasons",
            },
        }
    }

    /// There was nothing to do.
    pub(crate) const fn nothing_found(self) -> EndedWith {
        match self {
            Self::Index => EndedWith {
                code: "no_media",
                message: "no video, audio or image files were found; the job's items list what was skipped",
            },
        }
    }
}

/// The data of a webhook.
pub(crate) struct WebhookBody {
    /// Name of the event, such as `job.done`.
    pub(crate) event: String,
    /// JSON of the webhook's body.
    pub(crate) body: String,
}

/// The webhook for the end of a job; its data is the job as the API shows it.
pub(crate) fn ended(job: &JobRecord) -> WebhookBody {
    let event = format!("job.{}", job.state.as_str());
    let body = serde_json::json!({
        "type": event,
        "timestamp": rfc3339_millis(job.ended_unix_ms),
        "data": JobView::at(job, None, job.ended_unix_ms),
    });
    WebhookBody { body: body.to_string(), event }
}
