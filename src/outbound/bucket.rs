//! S3-compatible buckets, asked through the same door.
//!
//! Who may be asked is the operator's choice: the endpoint and the credentials come from the environment,
//! never from a request, and a request may only name buckets that are on the list.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::Request;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tower_http::timeout::TimeoutBody;
use url::Url;

use super::rule::HostRule;
use super::{Download, Outbound, OutboundConfig, OutboundError};

/// One part of a large object.
const PART_BYTES: usize = 8 << 20;
/// Parts that travel at once: what an upload holds in memory is so many times a part.
const PARTS_AT_ONCE: usize = 2;
/// Longest wait for an answer: it only comes when a part has been sent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Tries of one call, and for how long.
const RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest key, bytes.
const MAX_KEY_BYTES: usize = 1024;

/// `s3://bucket/key`, the key as it is stored, without escapes. As a folder the key is a prefix of
/// whole names: `s3://b/films` holds `films/a.mp4` and not `films-old/a.mp4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// Name of the bucket.
    pub bucket: String,
    /// Key of an object, or of the folder of some; without a slash at either end, empty for all.
    pub key: String,
}

impl FromStr for BucketUrl {
    type Err = OutboundError;

    fn from_str(text: &str) -> Result<Self, OutboundError> {
        let refused = |why: &str| OutboundError::NotAllowed(format!("this is no s3://bucket/key: {why}"));
        let rest = text.strip_prefix("s3://").ok_or_else(|| refused("it does not begin with s3://"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fits) || bucket.contains("..") {
            return Err(refused("the name of the bucket"));
        }
        let key = key.trim_matches('/');
        if key.len() > MAX_KEY_BYTES || Path::parse(key).is_err() {
            return Err(refused("the key"));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl BucketUrl {
    /// Whether another place is this one or lies in it.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        let beneath =
            || other.key.strip_prefix(&self.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.bucket == other.bucket && (self.key.is_empty() || beneath())
    }
}

/// A key of the account that owns or may use the buckets.
#[derive(Clone)]
pub struct AccessKey {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Of a session, where it is a key for a while.
    pub token: Option<String>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Which buckets may be used, and where they are.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// Buckets, or folders in them, that may be used; none: everything is off.
    pub allow: Vec<BucketUrl>,
    /// Where the service is; `None`: Amazon's own, of the region.
    pub endpoint: Option<Url>,
    /// Region.
    pub region: String,
    /// Signs requests; `None`: only what anybody may read.
    pub access: Option<AccessKey>,
}

impl Default for BucketConfig {
    fn default() -> Self {
        Self { allow: Vec::new(), endpoint: None, region: "us-east-1".to_owned(), access: None }
    }
}

/// The buckets that may be used. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Buckets {
    config: Arc<BucketConfig>,
    endpoint: Option<Url>,
    outbound: Outbound,
}

impl Buckets {
    /// Buckets of this configuration; timeouts, resolver and dialer are those of `network`.
    ///
    /// # Errors
    /// [`OutboundError`] where the endpoint is none, or TLS cannot be set up.
    pub fn new(config: BucketConfig, network: &OutboundConfig) -> Result<Self, OutboundError> {
        let endpoint = if config.allow.is_empty() { None } else { Some(endpoint_of(&config)?) };
        let allow_hosts = endpoint.iter().filter_map(HostRule::of_endpoint).collect();
        let outbound = Outbound::new(OutboundConfig { allow_hosts, ..network.clone() })?;
        Ok(Self { config: Arc::new(config), endpoint, outbound })
    }

    /// Reads the place that a request names, and checks that it may be read.
    ///
    /// # Errors
    /// [`OutboundError::BucketsDisabled`], [`OutboundError::BucketNotAllowed`], [`OutboundError::NotAllowed`].
    pub fn check(&self, text: &str) -> Result<BucketUrl, OutboundError> {
        if self.config.allow.is_empty() {
            return Err(OutboundError::BucketsDisabled);
        }
        let place: BucketUrl = text.parse()?;
        if self.config.allow.iter().any(|allowed| allowed.holds(&place)) {
            return Ok(place);
        }
        Err(OutboundError::BucketNotAllowed(place.bucket))
    }

    /// A bucket of this name.
    ///
    /// # Errors
    /// [`OutboundError::BucketsDisabled`], [`OutboundError::Failed`].
    pub fn open(&self, bucket: &str) -> Result<Bucket, OutboundError> {
        let Some(endpoint) = &self.endpoint else { return Err(OutboundError::BucketsDisabled) };
        let host = format!("s3://{bucket}");
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&self.config.region)
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_allow_http(endpoint.scheme() == "http")
            .with_virtual_hosted_style_request(false)
            // Not every service takes a list of keys to delete.
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig {
                max_retries: RETRIES,
                retry_timeout: RETRY_TIMEOUT,
                ..RetryConfig::default()
            })
            .with_http_connector(Transport(self.outbound.clone()));
        match &self.config.access {
            None => builder = builder.with_skip_signature(true),
            Some(access) => {
                builder = builder.with_access_key_id(&access.id).with_secret_access_key(&access.secret);
                if let Some(token) = &access.token {
                    builder = builder.with_token(token);
                }
            }
        }
        let store = builder.build().map_err(|error| OutboundError::within(&host, &error))?;
        Ok(Bucket { store, host, outbound: self.outbound.clone() })
    }
}

fn endpoint_of(config: &BucketConfig) -> Result<Url, OutboundError> {
    if let Some(endpoint) = &config.endpoint {
        let plain = matches!(endpoint.scheme(), "http" | "https") && endpoint.username().is_empty();
        if plain && endpoint.host().is_some() {
            return Ok(endpoint.clone());
        }
        return Err(OutboundError::NotAllowed(
            "the endpoint of the buckets is not http(s)://host".to_owned(),
        ));
    }
    let end = if config.region.starts_with("cn-") { ".cn" } else { "" };
    let text = format!("https://s3.{}.amazonaws.com{end}", config.region);
    Url::parse(&text).map_err(|error| OutboundError::NotAllowed(format!("{text}: {error}")))
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its whole key.
    pub key: String,
    /// Bytes.
    pub size_bytes: u64,
    /// When it was last written, Unix milliseconds.
    pub modified_unix_ms: i64,
}

/// One bucket. All keys are whole, from the bucket's top.
#[derive(Debug)]
pub struct Bucket {
    store: AmazonS3,
    host: String,
    outbound: Outbound,
}

impl Bucket {
    /// The objects in a folder and in the folders in it, in the order of their keys, page by page as they
    /// are asked for; an empty folder name: all.
    #[must_use]
    pub fn list(&self, folder: &str) -> BoxStream<'_, Result<Object, OutboundError>> {
        let prefix = Path::parse(folder).ok();
        let entry = |meta: object_store::Result<object_store::ObjectMeta>| match meta {
            Ok(meta) => Ok(Object {
                key: meta.location.to_string(),
                size_bytes: meta.size,
                modified_unix_ms: meta.last_modified.timestamp_millis(),
            }),
            Err(error) => Err(self.failure(&error)),
        };
        self.store.list(prefix.as_ref()).map(entry).boxed()
    }

    /// Bytes of an object; `None` where there is none.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn size(&self, key: &str) -> Result<Option<u64>, OutboundError> {
        match self.store.head(&self.path(key)?).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Begins to read an object of at most `max_bytes`.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn get(&self, key: &str, max_bytes: u64) -> Result<Download, OutboundError> {
        let ends = Instant::now() + self.outbound.total_timeout;
        let found = self.store.get(&self.path(key)?).await.map_err(|error| self.failure(&error))?;
        let (size, host) = (found.meta.size, self.host.clone());
        let body = found.into_stream();
        let body = body.map(move |chunk| chunk.map_err(|error| failure(&host, &error))).boxed();
        Download::new(self.host.clone(), Some(size), body, max_bytes, self.outbound.idle_timeout, ends)
    }

    /// Writes an object, in parts where it is large; it is there whole or not at all. Its size.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn put(
        &self,
        key: &str,
        mut from: impl AsyncRead + Unpin + Send,
    ) -> Result<u64, OutboundError> {
        let path = self.path(key)?;
        let first = self.read_part(&mut from).await?;
        if first.len() < PART_BYTES {
            let size = first.len() as u64;
            self.store.put(&path, PutPayload::from(first)).await.map_err(|error| self.failure(&error))?;
            return Ok(size);
        }
        let upload = self.store.put_multipart(&path).await.map_err(|error| self.failure(&error))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        match self.put_parts(&mut writer, first, &mut from).await {
            Ok(size) => {
                writer.finish().await.map_err(|error| self.failure(&error))?;
                Ok(size)
            }
            Err(error) => {
                // What was sent would be kept, and paid for, until somebody looks.
                let _ = writer.abort().await;
                Err(error)
            }
        }
    }

    async fn put_parts(
        &self,
        writer: &mut WriteMultipart,
        first: Bytes,
        from: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<u64, OutboundError> {
        let mut part = first;
        let mut size = 0;
        while !part.is_empty() {
            writer.wait_for_capacity(PARTS_AT_ONCE).await.map_err(|error| self.failure(&error))?;
            size += part.len() as u64;
            writer.put(part);
            part = self.read_part(from).await?;
        }
        Ok(size)
    }

    async fn read_part(&self, from: &mut (impl AsyncRead + Unpin + Send)) -> Result<Bytes, OutboundError> {
        let mut part = BytesMut::with_capacity(PART_BYTES);
        while part.len() < PART_BYTES {
            let room = (PART_BYTES - part.len()) as u64;
            let read = (&mut *from).take(room).read_buf(&mut part).await;
            if read.map_err(|error| OutboundError::failed(&self.host, error.to_string()))? == 0 {
                break;
            }
        }
        Ok(part.freeze())
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn delete(&self, key: &str) -> Result<(), OutboundError> {
        match self.store.delete(&self.path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn path(&self, key: &str) -> Result<Path, OutboundError> {
        Path::parse(key)
            .map_err(|error| OutboundError::refused(&self.host, format!("cannot hold this key: {error}")))
    }

    fn failure(&self, error: &object_store::Error) -> OutboundError {
        failure(&self.host, error)
    }
}

fn failure(host: &str, error: &object_store::Error) -> OutboundError {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => OutboundError::refused(host, "has no such object"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            OutboundError::refused(host, "does not let this server in; see AWS_ACCESS_KEY_ID")
        }
        Error::InvalidPath { .. } => {
            OutboundError::refused(host, format!("holds a key that cannot be read: {error}"))
        }
        other => OutboundError::within(host, other),
    }
}

/// Carries the store's requests through the door.
#[derive(Debug, Clone)]
struct Transport(Outbound);

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().unwrap_or("").to_owned();
        let (parts, body) = request.into_parts();
        let uri = parts.uri.clone();
        let request = Request::from_parts(parts, body.map_err(Into::into).boxed_unsync());
        let sent = self.0.send(&host, request, Instant::now() + ANSWER_TIMEOUT).await;
        let (parts, body) = sent.map_err(http_error)?.into_parts();
        // Told here: of a listing the store would keep the status to itself, and try again.
        let listing = uri.query().is_some_and(|query| query.contains("list-type="));
        let reason = match parts.status.as_u16() {
            401 | 403 => Some("does not let this server in; see AWS_ACCESS_KEY_ID"),
            404 if listing => Some("has no such bucket"),
            301 | 302 | 307 | 308 => Some("says that the bucket is elsewhere; see AWS_REGION"),
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(http_error(OutboundError::refused(&host, reason)));
        }
        let body = TimeoutBody::new(self.0.idle_timeout, body)
            .map_err(move |error| http_error(OutboundError::within(&host, error.as_ref())));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

fn http_error(error: OutboundError) -> HttpError {
    let kind = match &error {
        OutboundError::Timeout { .. } => HttpErrorKind::Timeout,
        OutboundError::Failed { .. } => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_hold_each_other_by_whole_names() {
        let place = |text: &str| text.parse::<BucketUrl>();
        assert_eq!(place("s3://films/2024/a b%20ü.mp4").unwrap().to_string(), "s3://films/2024/a b%20ü.mp4");
        assert_eq!(place("s3://films").unwrap(), place("s3://films/").unwrap());
        for bad in [
            "films/a",
            "s3://",
            "s3:///a",
            "s3://a/b",
            "s3://Films/a",
            "s3://films/../a",
            "s3://films/a//b",
            "s3://f@b/a",
        ] {
            assert_eq!(place(bad).map_err(|error| error.code()), Err("url_not_allowed"), "{bad}");
        }
        let holds = |a: &str, b: &str| place(a).unwrap().holds(&place(b).unwrap());
        assert!(holds("s3://films", "s3://films/a") && holds("s3://films/a", "s3://films/a/b"));
        assert!(holds("s3://films/a", "s3://films/a"));
        assert!(!holds("s3://films/a", "s3://films/ab") && !holds("s3://films/a", "s3://films"));
        assert!(!holds("s3://films", "s3://other/a"));
    }

    #[test]
    fn only_listed_buckets_are_read_and_none_by_default() {
        let network = OutboundConfig::default();
        let off = Buckets::new(BucketConfig::default(), &network).unwrap();
        assert_eq!(off.check("s3://films/a"), Err(OutboundError::BucketsDisabled));
        assert_eq!(off.open("films").map(|_| ()), Err(OutboundError::BucketsDisabled));
        let allow = vec!["s3://films/new".parse().unwrap()];
        let on = Buckets::new(BucketConfig { allow, ..BucketConfig::default() }, &network).unwrap();
        assert!(on.check("s3://films/new/a.mp4").is_ok());
        assert_eq!(on.check("s3://films/old").map_err(|error| error.code()), Err("bucket_not_allowed"));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let access = AccessKey { id: "id".into(), secret: "hush".into(), token: Some("hush".into()) };
        let config = BucketConfig { access: Some(access), ..BucketConfig::default() };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
