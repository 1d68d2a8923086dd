//! S3-compatible buckets, reached through the same guarded client.
//!
//! The operator chooses the endpoint: it and the credentials come from the environment, never from a request,
//! and a request may only name allowed buckets.

mod listing;
mod place;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use url::Url;

pub use place::BucketUrl;

use self::listing::Listing;
use self::transport::Transport;
use super::rule::HostRule;
use super::{Download, IDLE_CONNECTIONS, Outbound, OutboundConfig, OutboundError};

/// Size of one part of a large object, in bytes.
const PART_BYTES: usize = 8 << 20;
/// Parts sent in parallel: an upload has this many parts in memory.
const PARTS_AT_ONCE: usize = 2;
/// Number of retries of a call, and their total time limit.
const RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// An access key of an account that may use the buckets.
#[derive(Clone)]
pub struct AccessKey {
    /// Id of the key.
    pub id: String,
    /// Secret that belongs to the key id.
    pub secret: String,
    /// Session token, for a temporary key.
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
    /// Buckets, or folders in them, that may be used; empty: buckets are off.
    pub allow: Vec<BucketUrl>,
    /// URL of the service; `None`: Amazon's, in the region.
    pub endpoint: Option<Url>,
    /// Region of the buckets.
    pub region: String,
    /// Key that signs requests; `None`: only public objects can be read.
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
    /// Opens the buckets of this configuration; timeouts, resolver and dialer come from `network`.
    ///
    /// # Errors
    /// [`OutboundError`] if the endpoint is invalid, or TLS cannot be set up.
    pub fn new(config: BucketConfig, network: &OutboundConfig) -> Result<Self, OutboundError> {
        let endpoint = if config.allow.is_empty() { None } else { Some(endpoint_of(&config)?) };
        let allow_hosts = endpoint.iter().filter_map(HostRule::of_endpoint).collect();
        let network = OutboundConfig { allow_hosts, ..network.clone() };
        let outbound = Outbound::keeping(network, IDLE_CONNECTIONS)?;
        Ok(Self { config: Arc::new(config), endpoint, outbound })
    }

    /// Parses the place that a request names, and checks that it may be read.
    ///
    /// # Errors
    /// [`OutboundError::BucketsDisabled`], [`OutboundError::BucketNotAllowed`], [`OutboundError::NotAllowed`].
    pub fn check(&self, text: &str) -> Result<BucketUrl, OutboundError> {
        self.allowed(text.parse()?)
    }

    /// The same for one object, whose key is taken literally.
    ///
    /// # Errors
    /// As [`Buckets::check`].
    pub fn check_object(&self, text: &str) -> Result<BucketUrl, OutboundError> {
        self.allowed(BucketUrl::of_object(text)?)
    }

    fn allowed(&self, place: BucketUrl) -> Result<BucketUrl, OutboundError> {
        if self.config.allow.is_empty() {
            return Err(OutboundError::BucketsDisabled);
        }
        if self.config.allow.iter().any(|allowed| allowed.holds(&place)) {
            return Ok(place);
        }
        Err(OutboundError::BucketNotAllowed(place.bucket))
    }

    /// Opens a bucket by name.
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
            // Not every service accepts a list of keys to delete.
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
        let mut url = endpoint.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().push(bucket),
            Err(()) => return Err(OutboundError::NotAllowed("the endpoint must not have a path".to_owned())),
        };
        let (region, access) = (self.config.region.clone(), self.config.access.clone());
        Ok(Bucket { store, host, outbound: self.outbound.clone(), url, region, access })
    }
}

fn endpoint_of(config: &BucketConfig) -> Result<Url, OutboundError> {
    if let Some(endpoint) = &config.endpoint {
        let plain = matches!(endpoint.scheme(), "http" | "https") && endpoint.username().is_empty();
        if plain && endpoint.host().is_some() {
            return Ok(endpoint.clone());
        }
        return Err(OutboundError::NotAllowed("the S3 endpoint must be http(s)://host".to_owned()));
    }
    let end = if config.region.starts_with("cn-") { ".cn" } else { "" };
    let text = format!("https://s3.{}.amazonaws.com{end}", config.region);
    Url::parse(&text).map_err(|error| OutboundError::NotAllowed(format!("{text}: {error}")))
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Full key in the bucket, without escapes.
    pub key: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Time of the last write, in Unix milliseconds.
    pub modified_unix_ms: i64,
}

/// An open bucket. All keys are full keys, from the top of the bucket.
#[derive(Debug)]
pub struct Bucket {
    store: AmazonS3,
    host: String,
    outbound: Outbound,
    /// `endpoint/bucket`.
    url: Url,
    region: String,
    access: Option<AccessKey>,
}

impl Bucket {
    /// The objects in a folder and its subfolders, ordered by key, fetched page by page on demand; an empty
    /// folder name: all objects. Includes keys that cannot be read (see [`BucketUrl::is_key`]), as they are
    /// stored. A listing that never ends is an error.
    #[must_use]
    pub fn list(&self, folder: &str) -> BoxStream<'_, Result<Object, OutboundError>> {
        let folder = match Path::parse(folder) {
            Ok(folder) => folder,
            Err(error) => {
                let why = format!("has no such folder: {error}");
                let refused = OutboundError::refused(&self.host, why);
                return stream::iter([Err(refused)]).boxed();
            }
        };
        let prefix = if folder.as_ref().is_empty() { String::new() } else { format!("{folder}/") };
        let listing = Listing {
            transport: Transport(self.outbound.clone()),
            url: self.url.clone(),
            region: self.region.clone(),
            access: self.access.clone(),
            host: self.host.clone(),
            prefix,
        };
        listing.run()
    }

    /// Size of an object in bytes; `None` if it does not exist.
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

    /// Starts reading an object of at most `max_bytes`.
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

    /// Writes an object, in parts if it is large; it is then complete, or not there at all. Returns its size.
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
                // The service would otherwise keep, and charge for, the parts already sent.
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

    /// Deletes an object; a missing one is not an error.
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
        Path::parse(key).map_err(|error| {
            OutboundError::refused(&self.host, format!("cannot contain an object with this key: {error}"))
        })
    }

    fn failure(&self, error: &object_store::Error) -> OutboundError {
        failure(&self.host, error)
    }
}

fn failure(host: &str, error: &object_store::Error) -> OutboundError {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => OutboundError::refused(host, "has no such object"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => OutboundError::refused(
            host,
            "denies access to this server; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        Error::InvalidPath { .. } => {
            OutboundError::refused(host, format!("contains an object with an invalid key: {error}"))
        }
        other => OutboundError::within(host, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
