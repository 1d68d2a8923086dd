//! Entity tags.

use axum::http::{HeaderMap, header};

use super::error::ApiError;
use crate::library::{Expected, LibraryError};

/// The states of a resource that `If-Match` allows: any without the header or with `*`. Weak tags match nothing.
pub fn expected(headers: &HeaderMap) -> Expected {
    if !headers.contains_key(header::IF_MATCH) {
        return Expected::Any;
    }
    let listed = headers.get_all(header::IF_MATCH).iter().filter_map(|value| value.to_str().ok());
    let tags: Vec<&str> = listed.flat_map(|value| value.split(',')).map(str::trim).collect();
    if tags.contains(&"*") {
        return Expected::Any;
    }
    let version = |tag: &&str| Some(tag.strip_prefix('"')?.strip_suffix('"')?.to_owned());
    Expected::OneOf(tags.iter().filter_map(version).collect())
}

/// Refuses a request whose `If-Match` does not list this tag.
pub fn check_if_match(headers: &HeaderMap, etag: &str) -> Result<(), ApiError> {
    if expected(headers).holds(etag.trim_matches('"')) {
        Ok(())
    } else {
        Err(LibraryError::OtherVersion.into())
    }
}

/// Whether a header lists the tag, or `*`.
pub fn matches_etag(headers: &HeaderMap, name: &str, etag: &str) -> bool {
    let listed = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn if_match_takes_strong_tags_in_any_number_of_lines() {
        let holds = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append(header::IF_MATCH, HeaderValue::from_static(value));
            });
            check_if_match(&headers, "\"a\"").is_ok()
        };
        for good in [&[][..], &["*"], &["\"a\""], &["\"b\", \"a\""], &["\"b\"", "\"a\""], &["\"b\" ,*"]] {
            assert!(holds(good), "{good:?}");
        }
        for bad in [&["\"b\""][..], &["a"], &["W/\"a\""], &[""], &["\"\""], &["\"A\""]] {
            assert!(!holds(bad), "{bad:?}");
        }
    }
}
