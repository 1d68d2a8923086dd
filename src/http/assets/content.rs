//! The bytes of an asset, whole or in part.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::files::FileError;
use crate::http_intake::extract::IdPath;
use crate::http_intake::state::AppState;
use crate::http_kit::error::{ApiError, ClientError};
use crate::http_kit::etag::{check_if_match, matches_etag};
use crate::library::LibraryError;
use crate::store::AssetRecord;
use crate::types::{AssetId, AssetKind};

const CHUNK_BYTES: usize = 128 << 10;
/// Characters allowed in an extended header value (RFC 8187).
const ATTR_CHARS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns the file of an asset, or a single byte range of it with status 206.
#[utoipa::path(get, path = "/v1/assets/{id}/content", operation_id = "get_asset_content", tag = "assets",
    params(("id" = AssetId, Path), ("range" = Option<String>, Header, description = "A single byte range"),
        ("if-match" = Option<String>, Header, description = "Answer 412 unless the file has one of these ETags")),
    responses((status = 200, description = "The file", content(
            ("video/*"), ("audio/*"), ("image/*"), ("application/octet-stream"))),
        (status = 206, description = "The requested byte range"),
        (status = 304, description = "Not modified: the client's copy is current"),
        ClientError))]
pub async fn content(
    State(state): State<AppState>,
    IdPath(id): IdPath<AssetId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asset = state.library.collection().asset(id).await?;
    let etag = format!("\"{}\"", asset.sha256);
    // Checked first: if the file has changed, the client's copy is stale.
    let opened = match state.library.collection().open_content(&asset).await {
        Err(LibraryError::File(FileError::Missing(_))) => {
            let message = "the file is no longer at the path it was indexed from";
            return Err(ApiError::new(StatusCode::NOT_FOUND, "content_missing", message));
        }
        opened => opened?,
    };
    check_if_match(&headers, &etag)?;
    if matches_etag(&headers, header::IF_NONE_MATCH.as_str(), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let length = opened.size_bytes;
    let whole = !headers.contains_key(header::RANGE) || !if_range_holds(&headers, &etag);
    let range = if whole { Range::Whole } else { parse_range(headers.get(header::RANGE), length) };
    let (status, start, count) = match range {
        Range::Whole => (StatusCode::OK, 0, length),
        Range::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end - start + 1),
        Range::Outside => {
            let error = ApiError::of_status(StatusCode::RANGE_NOT_SATISFIABLE);
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{length}"))], error).into_response());
        }
    };
    let mut file = tokio::fs::File::from_std(opened.file.try_clone().map_err(LibraryError::from)?);
    file.seek(std::io::SeekFrom::Start(start)).await.map_err(LibraryError::from)?;
    let chunks = ReaderStream::with_capacity(file.take(count), CHUNK_BYTES);
    let body = Body::from_stream(chunks.map(move |chunk| {
        // If somebody writes to the file during the answer, the answer is aborted, so that no byte of other
        // content is sent.
        if opened.is_unchanged() {
            chunk
        } else {
            Err(std::io::Error::other("the file has changed since it was indexed; index it again"))
        }
    }));
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, count.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(&asset)));
    let mut set = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, etag);
    set(header::CONTENT_DISPOSITION, disposition(&asset.name));
    if status == StatusCode::PARTIAL_CONTENT {
        set(header::CONTENT_RANGE, format!("bytes {start}-{}/{length}", start + count - 1));
    }
    Ok(response)
}

fn if_range_holds(headers: &HeaderMap, etag: &str) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == etag.as_bytes())
}

#[derive(Debug, PartialEq)]
enum Range {
    Whole,
    /// First and last byte.
    Part(u64, u64),
    Outside,
}

/// A single byte range. Several ranges, and invalid ones, get the whole file, as RFC 9110 allows.
fn parse_range(value: Option<&HeaderValue>, length: u64) -> Range {
    let spec = value.and_then(|v| v.to_str().ok()).and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.filter(|spec| !spec.contains(',')).and_then(|spec| spec.split_once('-'))
    else {
        return Range::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let end = length.saturating_sub(1);
    match (digits(first), digits(last)) {
        (false, true) if first.is_empty() => match number(last) {
            0 => Range::Outside,
            _ if length == 0 => Range::Outside,
            count => Range::Part(length.saturating_sub(count), end),
        },
        (true, false) if last.is_empty() && number(first) < length => Range::Part(number(first), end),
        (true, false) if last.is_empty() => Range::Outside,
        (true, true) if number(first) > number(last) => Range::Whole,
        (true, true) if number(first) >= length => Range::Outside,
        (true, true) => Range::Part(number(first), number(last).min(end)),
        _ => Range::Whole,
    }
}

/// The type according to the name, if it is one that a browser may play inline; otherwise according to the
/// kind.
fn media_type(asset: &AssetRecord) -> &'static str {
    let by_name = mime_guess::from_path(&asset.name).first_raw().unwrap_or("");
    let plays = ["video/", "audio/", "image/"].iter().any(|top| by_name.starts_with(top));
    // An SVG is a document that can run scripts; we index none.
    if plays && !by_name.contains("svg") {
        return by_name;
    }
    match asset.kind {
        Some(AssetKind::Video) => "video/mp4",
        Some(AssetKind::Audio) => "audio/wav",
        Some(AssetKind::Image) => "image/jpeg",
        None => "application/octet-stream",
    }
}

fn disposition(name: &str) -> String {
    let ascii: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ' { c } else { '_' })
        .collect();
    format!("inline; filename=\"{ascii}\"; filename*=UTF-8''{}", utf8_percent_encode(name, ATTR_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, length: u64) -> Range {
        parse_range(Some(&HeaderValue::from_str(text).unwrap()), length)
    }

    #[test]
    fn ranges_follow_the_rfc() {
        assert_eq!(range("bytes=0-0", 10), Range::Part(0, 0));
        assert_eq!(range("bytes=2-", 10), Range::Part(2, 9));
        assert_eq!(range("bytes=2-99", 10), Range::Part(2, 9));
        assert_eq!(range("bytes=-3", 10), Range::Part(7, 9));
        assert_eq!(range("bytes=-30", 10), Range::Part(0, 9));
        for outside in ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(range(outside, 10), Range::Outside, "{outside}");
        }
        for whole in ["bytes=5-2", "bytes=0-1,3-4", "bytes=a-b", "bytes=-", "items=0-1", "bytes=+1-2"] {
            assert_eq!(range(whole, 10), Range::Whole, "{whole}");
        }
        assert_eq!(range("bytes=-1", 0), Range::Outside);
    }

    #[test]
    fn names_cannot_break_out_of_the_header() {
        assert_eq!(
            disposition("a\"b\r\nX: ü.mp4"),
            "inline; filename=\"a_b__X: _.mp4\"; filename*=UTF-8''a%22b%0D%0AX%3A%20%C3%BC.mp4"
        );
    }
}
