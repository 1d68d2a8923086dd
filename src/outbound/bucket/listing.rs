//! Lists a bucket. The client of the `object_store` crate is not used here: it gives up on a whole page if it
//! cannot read one key, and requests pages for as long as the service claims that there are more.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::{Method, Request};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequestBody, HttpResponse, HttpService};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use url::Url;

use super::transport::Transport;
use super::{AccessKey, Object, RETRIES};
use crate::outbound::OutboundError;

/// Maximum number of pages of one listing: ten times what a million objects need.
const MAX_PAGES: usize = 10_000;
/// Maximum number of consecutive pages without an object.
const MAX_EMPTY_PAGES: usize = 100;
/// Largest page accepted, in bytes: a thousand of the longest keys, percent-encoded.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// Longest continuation token, in bytes: it becomes a part of a URL.
const MAX_TOKEN_BYTES: usize = 4096;
/// Wait before a page is requested again; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Characters that SigV4 does not escape.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parameters of one listing.
pub(super) struct Listing {
    pub(super) transport: Transport,
    /// `endpoint/bucket`.
    pub(super) url: Url,
    pub(super) region: String,
    pub(super) access: Option<AccessKey>,
    /// Name of the bucket in errors.
    pub(super) host: String,
    /// Prefix of the keys to list.
    pub(super) prefix: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    contents: Vec<Entry>,
    #[serde(default)]
    encoding_type: Option<String>,
    #[serde(default)]
    next_continuation_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default)]
    key: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    last_modified: String,
}

impl Page {
    /// Parses a page; an error is the reason why it is not one.
    fn read(xml: &[u8]) -> Result<Self, String> {
        let mut page: Self = quick_xml::de::from_reader(xml).map_err(|error| error.to_string())?;
        if page.encoding_type.as_deref() == Some("url") {
            for entry in &mut page.contents {
                let spaced = entry.key.replace('+', " ");
                entry.key = percent_decode_str(&spaced).decode_utf8_lossy().into_owned();
            }
        }
        Ok(page)
    }
}

impl Entry {
    fn object(self) -> Object {
        let modified = self.last_modified.parse::<DateTime<Utc>>();
        let modified_unix_ms = modified.map_or(0, |when| when.timestamp_millis());
        Object { key: self.key, size_bytes: self.size, modified_unix_ms }
    }
}

/// Progress of a listing.
struct Progress {
    token: Option<String>,
    seen: HashSet<String>,
    pages: usize,
    empty: usize,
    ended: bool,
}

impl Listing {
    /// The objects ordered by key, fetched page by page.
    pub(super) fn run<'a>(self) -> BoxStream<'a, Result<Object, OutboundError>> {
        let begun = Progress { token: None, seen: HashSet::new(), pages: 0, empty: 0, ended: false };
        let pages = stream::try_unfold((self, begun), async |(listing, mut progress)| {
            if progress.ended {
                return Ok(None);
            }
            let page = listing.page(progress.token.as_deref()).await?;
            listing.advance(&mut progress, &page)?;
            // A folder's own marker is not one of its objects.
            let objects = page.contents.into_iter().filter(|entry| !entry.key.ends_with('/'));
            let objects: Vec<_> = objects.map(|entry| Ok(entry.object())).collect();
            Ok::<_, OutboundError>(Some((stream::iter(objects), (listing, progress))))
        });
        pages.try_flatten().boxed()
    }

    /// Makes sure that the listing ends: each page must differ from the earlier ones, and their number is
    /// limited.
    fn advance(&self, progress: &mut Progress, page: &Page) -> Result<(), OutboundError> {
        let refused = |why: &str| Err(OutboundError::refused(&self.host, why));
        progress.pages += 1;
        progress.empty = if page.contents.is_empty() { progress.empty + 1 } else { 0 };
        let Some(next) = page.next_continuation_token.clone().filter(|token| !token.is_empty()) else {
            progress.ended = true;
            return Ok(());
        };
        if next.len() > MAX_TOKEN_BYTES {
            return refused("sent a continuation token that is too long");
        }
        if !progress.seen.insert(next.clone()) {
            return refused("keeps returning the same page of its listing");
        }
        if progress.pages >= MAX_PAGES || progress.empty >= MAX_EMPTY_PAGES {
            return refused("has too many objects to list; name a folder in it");
        }
        progress.token = Some(next);
        Ok(())
    }

    async fn page(&self, token: Option<&str>) -> Result<Page, OutboundError> {
        let mut wait = FIRST_WAIT;
        for _ in 0..RETRIES {
            match self.ask(token).await {
                Err(OutboundError::Failed { .. } | OutboundError::Timeout { .. }) => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                outcome => return outcome,
            }
        }
        self.ask(token).await
    }

    async fn ask(&self, token: Option<&str>) -> Result<Page, OutboundError> {
        let failed = |why: String| OutboundError::failed(&self.host, why);
        let mut request = Request::new(HttpRequestBody::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.address(token).parse().map_err(|_| failed("no address".to_owned()))?;
        if let Some(access) = &self.access {
            let credential = AwsCredential {
                key_id: access.id.clone(),
                secret_key: access.secret.clone(),
                token: access.token.clone(),
            };
            let signer = AwsAuthorizer::new(&credential, "s3", &self.region);
            let signed = signer.try_authorize(&mut request, None);
            signed.map_err(|error| OutboundError::within(&self.host, &error))?;
        }
        let response = self.transport.call(request).await;
        let response = response.map_err(|error| OutboundError::within(&self.host, &error))?;
        let status = response.status();
        if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
            return Err(failed(format!("answered {status}")));
        }
        if !status.is_success() {
            return Err(OutboundError::refused(
                &self.host,
                format!("answered a listing request with {status}"),
            ));
        }
        let xml = self.body(response).await?;
        Page::read(&xml)
            .map_err(|error| OutboundError::refused(&self.host, format!("sent an invalid listing: {error}")))
    }

    fn address(&self, token: Option<&str>) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let mut query = String::new();
        // In alphabetical order, as the signature requires.
        if let Some(token) = token {
            query += &format!("continuation-token={}&", encoded(token));
        }
        query += "encoding-type=url&list-type=2";
        if !self.prefix.is_empty() {
            query += &format!("&prefix={}", encoded(&self.prefix));
        }
        format!("{}?{query}", self.url.as_str().trim_end_matches('/'))
    }

    async fn body(&self, response: HttpResponse) -> Result<Vec<u8>, OutboundError> {
        let mut body = response.into_body();
        let mut xml = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| OutboundError::within(&self.host, &error))?;
            let Ok(bytes) = frame.into_data() else { continue };
            if xml.len() + bytes.len() > MAX_PAGE_BYTES {
                return Err(OutboundError::refused(&self.host, "sent a page of a listing that is too large"));
            }
            xml.extend_from_slice(&bytes);
        }
        Ok(xml)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_are_read_with_and_without_escapes() {
        let page = |encoding: &str, key: &str| {
            Page::read(
                format!(
                    "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                     <Name>b</Name>{encoding}<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
                     <Size>7</Size></Contents><IsTruncated>true</IsTruncated><Contents><Key>z</Key></Contents>\
                     <NextContinuationToken>t</NextContinuationToken></ListBucketResult>"
                )
                .as_bytes(),
            )
            .unwrap()
        };
        let plain = page("", "a&amp;b+c%20d//e");
        assert_eq!(plain.contents[0].key, "a&b+c%20d//e");
        let escaped = page("<EncodingType>url</EncodingType>", "a+b%2Bc%0A%FF");
        assert_eq!(escaped.contents[0].key, "a b+c\n\u{fffd}");
        assert_eq!((escaped.contents.len(), escaped.next_continuation_token.as_deref()), (2, Some("t")));
        let object = plain.contents.into_iter().next().unwrap().object();
        assert_eq!((object.size_bytes, object.modified_unix_ms), (7, 1_704_067_200_000));
        assert!(Page::read(b"<html>").is_err());
    }

    proptest! {
        #[test]
        fn no_answer_of_a_service_makes_it_panic(text in "(<(/)?(Key|Contents|Size|ListBucketResult|EncodingType)>|url|%F|&#|[ -~]){0,60}") {
            let _ = Page::read(text.as_bytes());
        }
    }
}
