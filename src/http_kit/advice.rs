//! Advice about errors of the library, in terms of this API and of the server's flags, which the library does
//! not know.

use crate::embed::EmbedError;
use crate::jobs::ItemView;
use crate::library::{BackupError, LibraryError, WebhookError};
use crate::media::MediaError;
use crate::model::ModelError;
use crate::outbound::OutboundError;
use crate::store::{JobItem, WorkError};
use crate::types::{Deciding, ErrorCode};

/// Advice to append to an error's text; empty if the text is enough.
#[must_use]
pub fn advice(error: &LibraryError) -> String {
    let advice = match error {
        LibraryError::CheckRunning => "; see GET /v1/checks",
        LibraryError::UnknownModel(_) => "; see /v1/models",
        LibraryError::ModelBehind(_) => "; see its progress in /v1/models",
        LibraryError::Webhook(WebhookError::Disabled) => "; start the server with --allow-webhook-host HOST",
        LibraryError::Backup(BackupError::Off) => {
            "; start the server with --snapshot-root FOLDER (or s3://BUCKET/FOLDER)"
        }
        LibraryError::Outbound(OutboundError::UrlsDisabled) => "; allow a host with --allow-url-host",
        LibraryError::Outbound(OutboundError::BucketsDisabled) => "; allow one with --allow-bucket",
        LibraryError::Embed(EmbedError::Media(error)) => advice_on_media(error),
        LibraryError::Embed(EmbedError::Model(error)) => return advice_on_model(error),
        _ => "",
    };
    advice.to_owned()
}

/// Like [`advice`], about a model.
#[must_use]
pub fn advice_on_model(error: &ModelError) -> String {
    match error {
        ModelError::NotImported(folder) => {
            format!(" with triptych-trainer import-hf {} --out models/NAME", folder.display())
        }
        ModelError::BadFrames(_) => {
            "; for another --frames, import the model again with triptych-trainer import-hf … --frames N"
                .to_owned()
        }
        ModelError::TooLarge { .. } => ", or run fewer threads with --threads".to_owned(),
        _ => String::new(),
    }
}

/// Like [`advice`], about a file that could not be read.
#[must_use]
pub fn advice_on_media(error: &MediaError) -> &'static str {
    // No flag sets the limit for thumbnails.
    if matches!(error, MediaError::Timeout { quick: true, .. }) {
        ""
    } else {
        advice_on_code(&error.code().into())
    }
}

/// Like [`advice`], for an error that was stored with an asset or an item as code and text.
fn advice_on_code(code: &ErrorCode) -> &'static str {
    match code.deciding() {
        Some(Deciding::DecodeTimeout) => "; the server's flag --decode-timeout-secs sets the limit",
        Some(Deciding::DecodeLimit) => "; the server's flag --decode-file-memory-bytes sets the limit",
        Some(Deciding::WorkLimit) => {
            "; the server's flags --decode-cpu-secs-per-mib and --max-clips-per-mib set the limits"
        }
        _ => "",
    }
}

/// The stored error of a record, as shown to clients.
pub fn advised(stored: WorkError) -> WorkError {
    let advice = advice_on_code(&stored.code);
    WorkError { message: stored.message + advice, ..stored }
}

/// An item of a job, as shown to clients.
#[must_use]
pub fn item_view(item: &JobItem) -> ItemView {
    ItemView { error: item.error.clone().map(advised), ..ItemView::from(item) }
}

/// Advice about a part of the server that is degraded or failed.
#[must_use]
pub fn advice_on_part(part: &str) -> Option<&'static str> {
    match part {
        "store" => Some("; GET /v1/checks lists them"),
        "content" => Some("; POST /v1/checks lists them"),
        "index" => Some("; POST /v1/checks with \"repair\": true recomputes them"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::WorkLimits;

    #[test]
    fn limits_of_decoding_name_their_flags() {
        let limit = MediaError::DecodeLimit { limit_bytes: 1 << 20 };
        assert!(advice_on_media(&limit).contains("--decode-file-memory-bytes"));
        let timeout = |quick| MediaError::Timeout { secs: 7, quick };
        assert!(advice_on_media(&timeout(false)).contains("--decode-timeout-secs"));
        assert_eq!(advice_on_media(&timeout(true)), "");
        for error in [WorkLimits::default().too_many_clips(1, 2), WorkLimits::default().too_much_cpu(1)] {
            let advice = advice_on_media(&error);
            assert!(advice.contains("--decode-cpu-secs-per-mib") && advice.contains("--max-clips-per-mib"));
        }
        assert_eq!(advice_on_media(&MediaError::Empty), "");
    }

    #[test]
    fn a_checkpoint_is_imported_with_a_command() {
        let error = ModelError::NotImported("/models/x".into());
        let text = format!("{error}{}", advice_on_model(&error));
        assert!(
            text.ends_with("; import it first with triptych-trainer import-hf /models/x --out models/NAME"),
            "{text}"
        );
        assert_eq!(advice(&LibraryError::Embed(EmbedError::Model(error.clone()))), advice_on_model(&error));
    }

    #[test]
    fn what_a_record_holds_is_shown_with_the_same_advice() {
        let error = MediaError::DecodeLimit { limit_bytes: 260 << 20 };
        let stored = WorkError::new(error.code(), error.to_string());
        let direct = format!("{error}{}", advice_on_media(&error));
        assert_eq!(advised(stored).message, direct);
        let empty = WorkError::new("empty_file", "the file is empty");
        assert_eq!(advised(empty.clone()), empty);
    }
}
