//! The one mapping from the library's errors to statuses of HTTP.

use axum::http::StatusCode;

use super::advice::advice;
use super::error::ApiError;
use crate::embed::EmbedError;
use crate::files::FileError;
use crate::library::{BackupError, LibraryError, StandingError, WebhookError};
use crate::media::MediaError;
use crate::model::ModelError;
use crate::outbound::OutboundError;
use crate::search::SearchError;
use crate::store::StoreError;

impl From<LibraryError> for ApiError {
    fn from(error: LibraryError) -> Self {
        if let LibraryError::Part { at, error } = error {
            return Self::from(*error).with_param(at);
        }
        let advice = advice(&error);
        let mut answer = Self::of(error);
        answer.add(&advice);
        answer
    }
}

impl ApiError {
    fn of(error: LibraryError) -> Self {
        if error.storage_full().is_some() {
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, error.code(), error.to_string());
        }
        let status = match &error {
            LibraryError::Store(StoreError::NotFound(_)) => StatusCode::NOT_FOUND,
            LibraryError::File(error) => return file_error(error),
            LibraryError::Embed(error) => return embed_error(error),
            LibraryError::NoSuchTrack(_) | LibraryError::LeftOut(_) => StatusCode::UNPROCESSABLE_ENTITY,
            // The bytes existed once, and a retry will not bring them back.
            LibraryError::ContentDamaged { .. } => StatusCode::GONE,
            LibraryError::UnknownAsset(..) => {
                return Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), error.to_string())
                    .with_param("pairs");
            }
            LibraryError::Search(error) => return search_error(error),
            LibraryError::Outbound(error) => return outbound_error(error),
            LibraryError::Webhook(error) => return webhook_error(error),
            LibraryError::Standing(error) => return standing_error(error),
            LibraryError::OtherVersion => {
                return Self::new(StatusCode::PRECONDITION_FAILED, error.code(), error.to_string())
                    .with_param("if-match");
            }
            LibraryError::TooManyFiles(_) | LibraryError::BadManifest(_) => StatusCode::BAD_REQUEST,
            LibraryError::Busy { retry_after_secs } => {
                return Self::new(StatusCode::TOO_MANY_REQUESTS, error.code(), error.to_string())
                    .retry_after(*retry_after_secs);
            }
            LibraryError::Store(StoreError::Sealed) => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error.to_string())
                    .retry_after(1);
            }
            LibraryError::UnknownModel(_) => {
                return Self::new(StatusCode::NOT_FOUND, error.code(), error.to_string()).with_param("model");
            }
            LibraryError::BadField { at, .. } => {
                return Self::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()).with_param(at);
            }
            LibraryError::Backup(inner) => return backup_error(inner),
            LibraryError::TooManyWatches(_) => StatusCode::BAD_REQUEST,
            // Answered with its part, above.
            LibraryError::Part { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            LibraryError::Cancelled
            | LibraryError::CheckRunning
            | LibraryError::WatchExists(_)
            | LibraryError::ModelLoaded(_)
            | LibraryError::ModelBehind(_)
            | LibraryError::ModelServes(_) => StatusCode::CONFLICT,
            LibraryError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            LibraryError::Store(_)
            | LibraryError::StoreBehind(_)
            | LibraryError::StoreUnreadable(_)
            | LibraryError::Index(_)
            | LibraryError::Io(_)
            | LibraryError::Export(_)
            | LibraryError::Panicked => {
                return internal(error.code(), &error);
            }
        };
        Self::new(status, error.code(), error.to_string())
    }
}

fn file_error(error: &FileError) -> ApiError {
    let refused = |status| ApiError::new(status, error.code(), error.to_string());
    match error {
        FileError::Missing(_) => refused(StatusCode::NOT_FOUND),
        FileError::NotAllowed(_) => {
            ApiError::forbidden_by_rule(error.code(), error.to_string()).with_param("path")
        }
        FileError::Kind(..) | FileError::Unreadable(_) => refused(StatusCode::BAD_REQUEST).with_param("path"),
        FileError::TooLarge { .. } => refused(StatusCode::PAYLOAD_TOO_LARGE),
        FileError::Changed => refused(StatusCode::GONE),
        FileError::Io(_) => internal(error.code(), error),
    }
}

fn backup_error(error: &BackupError) -> ApiError {
    let status = match error {
        BackupError::Off | BackupError::Running | BackupError::Locked | BackupError::Cancelled => {
            StatusCode::CONFLICT
        }
        BackupError::NotFound(_) => StatusCode::NOT_FOUND,
        BackupError::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
        _ => return internal(error.code(), error),
    };
    ApiError::new(status, error.code(), error.to_string())
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        LibraryError::from(error).into()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        LibraryError::from(error).into()
    }
}

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        LibraryError::from(error).into()
    }
}

fn webhook_error(error: &WebhookError) -> ApiError {
    let (code, message) = (error.code(), error.to_string());
    match error {
        WebhookError::Disabled => ApiError::forbidden_by_rule(code, message).with_param("webhook"),
        WebhookError::NotAllowed(_) => ApiError::forbidden_by_rule(code, message).with_param("webhook.url"),
        WebhookError::BadSecret => {
            ApiError::new(StatusCode::BAD_REQUEST, code, message).with_param("webhook.secret")
        }
    }
}

fn standing_error(error: &StandingError) -> ApiError {
    let refused = |status| ApiError::new(status, error.code(), error.to_string());
    match error {
        StandingError::TooMany => refused(StatusCode::UNPROCESSABLE_ENTITY),
        StandingError::TooLarge => refused(StatusCode::PAYLOAD_TOO_LARGE).with_param("query"),
        StandingError::Damaged => internal(error.code(), error),
    }
}

/// A fault of another host is neither the client's nor ours.
fn outbound_error(error: &OutboundError) -> ApiError {
    let (status, param) = match error {
        OutboundError::UrlsDisabled | OutboundError::NotAllowed(_) => (StatusCode::FORBIDDEN, "url"),
        OutboundError::BucketsDisabled | OutboundError::BucketNotAllowed(_) => {
            (StatusCode::FORBIDDEN, "bucket")
        }
        OutboundError::Refused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "url"),
        OutboundError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "url"),
        OutboundError::Failed { .. } => (StatusCode::BAD_GATEWAY, "url"),
        OutboundError::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "url"),
    };
    ApiError::new(status, error.code(), error.to_string()).with_param(param)
}

fn search_error(error: &SearchError) -> ApiError {
    let refused = |status| ApiError::new(status, error.code(), error.to_string());
    match error {
        SearchError::NotComparable { .. } => refused(StatusCode::UNPROCESSABLE_ENTITY).with_param("targets"),
        SearchError::BadSpace(_) => refused(StatusCode::BAD_REQUEST).with_param("space"),
        SearchError::BadRequest { param, .. } => refused(StatusCode::BAD_REQUEST).with_param(*param),
        SearchError::BadFilter(inner) => {
            refused(StatusCode::BAD_REQUEST).with_param(format!("filter.{}", inner.at))
        }
        SearchError::CutOff(_) => refused(StatusCode::SERVICE_UNAVAILABLE),
        SearchError::Index(_) => internal(error.code(), error),
    }
}

/// An input that cannot be embedded is the sender's, unless our own parts failed.
fn embed_error(error: &EmbedError) -> ApiError {
    let ours = match error {
        EmbedError::BadVector { .. } => true,
        EmbedError::Model(ModelError::Overloaded { retry_after_secs }) => {
            return ApiError::new(StatusCode::TOO_MANY_REQUESTS, error.code(), error.to_string())
                .retry_after(*retry_after_secs);
        }
        EmbedError::Model(
            ModelError::NoKnownWords { .. }
            | ModelError::TextTooLong { .. }
            | ModelError::BadSamples
            | ModelError::NotSupported(_),
        ) => false,
        EmbedError::Model(_) => true,
        EmbedError::Media(MediaError::Overloaded { retry_after_secs }) => {
            return ApiError::new(StatusCode::TOO_MANY_REQUESTS, error.code(), error.to_string())
                .retry_after(*retry_after_secs);
        }
        EmbedError::Media(media) if media.is_ours() => {
            tracing::error!(code = media.code(), error = %media, detail = media.detail(), "a request failed");
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, media.code(), media.to_string())
                .retry_after(5);
        }
        EmbedError::Media(_) => false,
        EmbedError::NoTower(_) | EmbedError::WrongKind { .. } | EmbedError::NoTrack(_) => false,
    };
    if ours {
        return internal(error.code(), error);
    }
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), error.to_string())
}

/// 500: the details go to the log, under the code, and not to the client.
fn internal(code: &'static str, error: &dyn std::error::Error) -> ApiError {
    tracing::error!(code, %error, "a request failed");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code, "internal error; the server's log has details")
}
