//! The media types of bodies.

use axum::http::{HeaderMap, StatusCode, header};

use super::error::ApiError;

/// 415 with what would do.
pub fn unsupported(wanted: &str) -> ApiError {
    let message = format!("expected a body of type {wanted}; set the Content-Type header to match");
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
}

/// The media type of a body, without parameters, in lower case.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// Whether a body is declared as JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers) == "application/json"
}
