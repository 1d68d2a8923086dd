//! Entity tags.

use axum::http::HeaderMap;

/// Whether a header lists the tag, or `*`.
pub fn matches_etag(headers: &HeaderMap, name: &str, etag: &str) -> bool {
    let listed = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}
