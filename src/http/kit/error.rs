//! One shape for every error, one mapping from the library's errors to statuses.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, response};
use utoipa::{IntoResponses, ToSchema};

use super::advice::advice;
use super::brief::{MAX_MESSAGE_BYTES, MAX_PARAM_BYTES, shortened};
use crate::embed::EmbedError;
use crate::files::FileError;
use crate::library::{BackupError, LibraryError, StandingError, WebhookError};
use crate::media::MediaError;
use crate::model::ModelError;
use crate::outbound::OutboundError;
use crate::search::SearchError;
use crate::store::StoreError;

/// An error on its way to the client. The outermost middleware adds the request id and writes it.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    param: Option<String>,
    retry_after_secs: Option<u64>,
    /// Further fields of the answer, beside `error`.
    more: Option<Box<serde_json::Value>>,
}

/// Codes of 403 that are a matter of the request, not of who sends it.
const REFUSED_BY_RULE: &[&str] = &["path_not_allowed", "webhooks_disabled", "webhook_not_allowed"];

/// The body of every error answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
    #[serde(flatten)]
    #[schema(ignore)]
    more: Option<Box<serde_json::Value>>,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// Message that says what went wrong and what to do.
    pub message: String,
    /// `invalid_request_error`, `authentication_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field at fault, such as `query.text`; null if no single field is.
    pub param: Option<String>,
    /// Stable error code in snake_case.
    pub code: String,
    /// Id of the request, as in the `x-request-id` header and the server's log.
    pub request_id: String,
}

/// Documents what a wrong request gets: the same for every call.
pub struct ClientError;

impl IntoResponses for ClientError {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
        let response = ResponseBuilder::new()
            .description("Client error; see `error.code`")
            .content("application/json", body)
            .build();
        BTreeMap::from([("4XX".to_owned(), response.into())])
    }
}

impl ApiError {
    /// An error of a status and a stable code. Messages quote what clients sent: a long one loses its middle.
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: shortened(message.into(), MAX_MESSAGE_BYTES),
            param: None,
            retry_after_secs: None,
            more: None,
        }
    }

    /// 400 for a field that is wrong.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).with_param(param)
    }

    /// Its stable code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Names the field, which may be a client's own word too.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(shortened(param.into(), MAX_PARAM_BYTES));
        self
    }

    /// Adds fields of an object to the answer.
    #[must_use]
    pub fn with_more(mut self, more: serde_json::Value) -> Self {
        self.more = Some(Box::new(more));
        self
    }

    /// Says when to try again.
    #[must_use]
    pub const fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// What a response without a body of ours becomes.
    pub fn of_status(status: StatusCode) -> Self {
        let (code, message) = match status {
            StatusCode::NOT_FOUND => ("not_found", "nothing exists at this path; see /docs"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "this path does not support this method; see the Allow header")
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                ("payload_too_large", "the body is larger than this server accepts")
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported_media_type", "this path does not accept a body of this content type")
            }
            StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the client sent the request too slowly"),
            StatusCode::RANGE_NOT_SATISFIABLE => (
                "range_not_satisfiable",
                "the requested range is outside the file; see the Content-Range header",
            ),
            status if status.is_client_error() => {
                ("bad_request", "the request is malformed; see /docs for its format")
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                ("unavailable", "the server cannot answer at the moment; try again")
            }
            _ => ("internal", "internal error; the server's log has details under this request id"),
        };
        Self::new(status, code, message)
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN if !REFUSED_BY_RULE.contains(&&*self.code) => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The answer, with the request's id.
    pub fn render(self, request_id: &str) -> Response {
        let (status, kind, retry) = (self.status, self.kind(), self.retry_after_secs);
        let error = ErrorDetail {
            message: self.message,
            kind,
            param: self.param,
            code: self.code.into_owned(),
            request_id: request_id.to_owned(),
        };
        let mut response = (status, Json(ErrorBody { error, more: self.more })).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry.unwrap_or(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<LibraryError> for ApiError {
    fn from(error: LibraryError) -> Self {
        if let LibraryError::Part { at, error } = error {
            return Self::from(*error).with_param(at);
        }
        let advice = advice(&error);
        let mut answer = Self::of(error);
        answer.message.push_str(&advice);
        answer
    }
}

impl ApiError {
    fn of(error: LibraryError) -> Self {
        if error.storage_full().is_some() {
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, error.code(), error.to_string());
        }
        let status = match &error {
            LibraryError::Store(StoreError::NotFound(_)) | LibraryError::File(FileError::Missing(_)) => {
                StatusCode::NOT_FOUND
            }
            LibraryError::Embed(error) => return embed_error(error),
            LibraryError::NoSuchTrack(_) | LibraryError::LeftOut(_) => StatusCode::UNPROCESSABLE_ENTITY,
            // They were here once, and will not come back by asking again.
            LibraryError::ContentDamaged { .. } | LibraryError::File(FileError::Changed) => StatusCode::GONE,
            LibraryError::UnknownAsset(..) => {
                return Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), error.to_string())
                    .with_param("pairs");
            }
            LibraryError::Search(error) => return search_error(error),
            LibraryError::Outbound(error) => return outbound_error(error),
            LibraryError::File(FileError::NotAllowed(_)) => {
                return Self::new(StatusCode::FORBIDDEN, error.code(), error.to_string()).with_param("path");
            }
            LibraryError::Webhook(error) => return webhook_error(error),
            LibraryError::Standing(error) => return standing_error(error),
            LibraryError::File(FileError::Kind(..) | FileError::Unreadable(_)) => {
                return Self::new(StatusCode::BAD_REQUEST, error.code(), error.to_string())
                    .with_param("path");
            }
            LibraryError::OtherVersion => {
                return Self::new(StatusCode::PRECONDITION_FAILED, error.code(), error.to_string())
                    .with_param("if-match");
            }
            LibraryError::TooManyFiles(_) | LibraryError::BadManifest(_) => StatusCode::BAD_REQUEST,
            LibraryError::File(FileError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
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
            | LibraryError::File(FileError::Io(_))
            | LibraryError::Export(_)
            | LibraryError::Panicked => {
                return internal(error.code(), &error);
            }
        };
        Self::new(status, error.code(), error.to_string())
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
    let refused = |status| ApiError::new(status, error.code(), error.to_string());
    match error {
        WebhookError::Disabled => refused(StatusCode::FORBIDDEN).with_param("webhook"),
        WebhookError::NotAllowed(_) => refused(StatusCode::FORBIDDEN).with_param("webhook.url"),
        WebhookError::BadSecret => refused(StatusCode::BAD_REQUEST).with_param("webhook.secret"),
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

/// What another host did wrong is neither the sender's fault nor ours.
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
