//! One shape for every error.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, response};
use utoipa::{IntoResponses, ToSchema};

use super::brief::{MAX_MESSAGE_BYTES, MAX_PARAM_BYTES, shortened};

/// An error on its way to the client. The outermost middleware adds the request id and writes it.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    param: Option<String>,
    retry_after_secs: Option<u64>,
    /// Whether a 403 is a matter of the request, not of who sends it.
    by_rule: bool,
    /// Further fields of the answer, beside `error`.
    more: Option<Box<serde_json::Value>>,
}

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

/// Documents the answer to an invalid request, the same for every call.
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
            by_rule: false,
            more: None,
        }
    }

    /// 403 for a request that the operator's rules forbid for any client.
    pub(super) fn forbidden_by_rule(code: &'static str, message: String) -> Self {
        Self { by_rule: true, ..Self::new(StatusCode::FORBIDDEN, code, message) }
    }

    /// 400 for an invalid field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).with_param(param)
    }

    /// Stable code, as in `error.code`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Names the field, which may be a client's own word too.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(shortened(param.into(), MAX_PARAM_BYTES));
        self
    }

    /// Adds to the message.
    pub(super) fn add(&mut self, more: &str) {
        self.message.push_str(more);
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

    /// The error body of a response that has none of ours.
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
            StatusCode::FORBIDDEN if !self.by_rule => "authentication_error",
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
