//! Classes of requests that cost about the same.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

use crate::http_kit::media_type::content_type;

/// Routes whose requests are admitted by their expected cost.
const QUERIES: &[&str] = &["/v1/search", "/v1/embeddings", "/v1/assets/{id}/timeline"];

/// Larger JSON bodies usually contain media.
const MEDIA_FROM_BYTES: u64 = 16 << 10;

/// A class of requests that cost about the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Class {
    pub route: String,
    /// Whether the request needs media decoding. Such queries have their own lane.
    pub media: bool,
    /// Number of bits in the body's length, a measure of its size.
    pub size: u32,
}

impl Class {
    pub fn of(request: &Request, length: u64) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
        let upload = route == "/v1/assets" && request.method() == Method::POST;
        let form = content_type(request.headers()) == "multipart/form-data";
        let media = form || upload || (QUERIES.contains(&&*route) && length > MEDIA_FROM_BYTES);
        Self { route, media, size: u64::BITS - length.leading_zeros() }
    }

    pub fn is_query(&self) -> bool {
        QUERIES.contains(&&*self.route)
    }

    /// Whether this is a query without media. A quarter of the permits is reserved for these.
    pub fn is_light_query(&self) -> bool {
        self.is_query() && !self.media
    }
}
