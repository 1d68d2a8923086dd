//! The page, its files, the documentation: everything is inside the binary.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::http_kit::error::ApiError;
use crate::http_kit::etag::{check_if_match, matches_etag};

#[derive(RustEmbed)]
#[folder = "ui/"]
struct Ui;

/// Only our own scripts and styles; nothing from elsewhere, nothing framed.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
     media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// The documentation's viewer writes its styles into the page.
const DOCS_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub async fn index(headers: HeaderMap) -> Response {
    serve("index.html", &headers, PAGE_POLICY)
}

/// The page that renders the OpenAPI document.
pub async fn docs(headers: HeaderMap) -> Response {
    serve("vendor/docs.html", &headers, DOCS_POLICY)
}

/// A file of the page.
pub async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    serve(&path, &headers, PAGE_POLICY)
}

fn serve(path: &str, headers: &HeaderMap, policy: HeaderValue) -> Response {
    match Ui::get(path) {
        Some(file) => answer(path, &file, headers, policy),
        None => ApiError::of_status(StatusCode::NOT_FOUND).into_response(),
    }
}

fn answer(path: &str, file: &EmbeddedFile, headers: &HeaderMap, policy: HeaderValue) -> Response {
    let etag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    if let Err(error) = check_if_match(headers, &etag) {
        return error.into_response();
    }
    let mut response = if matches_etag(headers, header::IF_NONE_MATCH.as_str(), &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.data.clone().into_owned().into_response()
    };
    let out = response.headers_mut();
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    out.insert(header::CONTENT_SECURITY_POLICY, policy);
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        out.insert(header::ETAG, etag);
    }
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or("") {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        _ => mime_guess::from_path(path).first_raw().unwrap_or("text/plain; charset=utf-8"),
    }
}
