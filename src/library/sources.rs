//! Files that are not on this machine: fetched from URLs and buckets, then kept as uploads are.

use tokio_util::sync::CancellationToken;

use super::{IngestSource, Library, LibraryError, Upload};
use crate::jobs::Place;
use crate::outbound::bucket::{BucketConfig, BucketUrl, Buckets};
use crate::outbound::{Download, Outbound, OutboundConfig, OutboundError};
use crate::store::JobItem;

/// What may be fetched from other hosts.
#[derive(Debug, Clone)]
pub struct SourcesConfig {
    /// Hosts of URLs, timeouts, the network.
    pub network: OutboundConfig,
    /// Buckets.
    pub buckets: BucketConfig,
    /// Largest file that is fetched, bytes.
    pub max_fetch_bytes: u64,
}

impl Default for SourcesConfig {
    fn default() -> Self {
        Self {
            network: OutboundConfig::default(),
            buckets: BucketConfig::default(),
            max_fetch_bytes: 4 << 30,
        }
    }
}

/// The doors to other hosts.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) outbound: Outbound,
    pub(super) buckets: Buckets,
    max_fetch_bytes: u64,
}

impl Sources {
    pub(super) fn new(config: SourcesConfig) -> Result<Self, LibraryError> {
        Ok(Self {
            buckets: Buckets::new(config.buckets, &config.network)?,
            outbound: Outbound::new(config.network)?,
            max_fetch_bytes: config.max_fetch_bytes,
        })
    }
}

impl Library {
    /// Fetches a URL to a temporary file of our own, synced, to be ingested as an upload.
    ///
    /// # Errors
    /// [`LibraryError::Outbound`], [`LibraryError::Io`].
    pub async fn fetch_url(&self, url: &str) -> Result<Upload, LibraryError> {
        let outbound = &self.sources.outbound;
        let url = outbound.check(url)?;
        self.receive(outbound.get(&url, self.sources.max_fetch_bytes).await?).await
    }

    async fn fetch_object(&self, place: &str) -> Result<Upload, LibraryError> {
        let BucketUrl { bucket, key } = self.sources.buckets.check_object(place)?;
        let bucket = self.sources.buckets.open(&bucket)?;
        self.receive(bucket.get(&key, self.sources.max_fetch_bytes).await?).await
    }

    async fn receive(&self, mut download: Download) -> Result<Upload, LibraryError> {
        let max_bytes = self.sources.max_fetch_bytes;
        self.check_disk(0)?;
        let mut writer = self.begin_upload(max_bytes);
        while let Some(bytes) = download.next().await? {
            writer.write(&bytes).await?;
        }
        let upload = writer.finish().await?;
        if upload.content.size_bytes == 0 {
            let (host, reason) = (download.host().to_owned(), "sent an empty file".to_owned());
            return Err(OutboundError::Refused { host, reason }.into());
        }
        Ok(upload)
    }

    /// What an item of a job names, fetched where it is elsewhere; the guard of what was fetched.
    pub(super) async fn source_of(
        &self,
        item: &JobItem,
        cancel: &CancellationToken,
    ) -> Result<(IngestSource, Option<Upload>), LibraryError> {
        let name = item.name.clone().unwrap_or_else(|| Place::of(&item.path).name());
        let metadata = item.metadata.clone();
        let fetched = match Place::of(&item.path) {
            Place::Path(given) => {
                let path = self.allowed_path(given)?;
                return Ok((IngestSource { path, name, owned: false, content: None, metadata }, None));
            }
            Place::Url(url) => until(cancel, self.fetch_url(url)).await?,
            Place::Object(place) => until(cancel, self.fetch_object(place)).await?,
        };
        Ok((fetched.source(name, metadata), Some(fetched)))
    }
}

async fn until<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, LibraryError>>,
) -> Result<T, LibraryError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(LibraryError::Cancelled),
        done = work => done,
    }
}

impl Upload {
    /// These bytes as something to ingest; the upload must live until they have been accepted.
    #[must_use]
    pub fn source(&self, name: String, metadata: serde_json::Value) -> IngestSource {
        let path = self.path.to_path_buf();
        IngestSource { path, name, owned: true, content: Some(self.content.clone()), metadata }
    }
}
