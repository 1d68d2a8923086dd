//! What a client can do about an error of the library, in terms of this API and of the server's flags. The library knows
//! neither.

use crate::library::{BackupError, LibraryError, WebhookError};
use crate::outbound::OutboundError;

/// Ends the error's text with what to do; `None` if the text says it all.
#[must_use]
pub const fn advice(error: &LibraryError) -> Option<&'static str> {
    Some(match error {
        LibraryError::CheckRunning => "; see GET /v1/checks",
        LibraryError::UnknownModel(_) => "; see /v1/models",
        LibraryError::ModelBehind(_) => "; see its progress in /v1/models",
        LibraryError::Webhook(WebhookError::Disabled) => "; start the server with --allow-webhook-host HOST",
        LibraryError::Backup(BackupError::Off) => {
            "; start the server with --snapshot-root FOLDER (or s3://BUCKET/FOLDER)"
        }
        LibraryError::Outbound(OutboundError::UrlsDisabled) => "; allow a host with --allow-url-host",
        LibraryError::Outbound(OutboundError::BucketsDisabled) => "; allow one with --allow-bucket",
        _ => return None,
    })
}

/// What a client can do about a part of the server that does not work fully.
#[must_use]
pub fn advice_on_part(part: &str) -> Option<&'static str> {
    match part {
        "store" => Some("; GET /v1/checks lists them"),
        "content" => Some("; POST /v1/checks lists them"),
        "index" => Some("; POST /v1/checks with \"repair\": true recomputes them"),
        _ => None,
    }
}
