//! Snapshots in an S3-compatible bucket. A bucket cannot be locked: the operator must make sure that only one
//! server or command works in it at a time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::BackupError;
use super::destination::{Destination, Meter, Turn};
use super::folder::{new_file, pump};
use crate::files::Content;
use crate::outbound::bucket::{Bucket, BucketUrl, Buckets};
use crate::outbound::{Download, OutboundConfig, OutboundError, SourcesConfig};
use crate::own_files;

/// Timeout for reading one object, long enough for a large store over a slow line.
const READ_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl From<OutboundError> for BackupError {
    fn from(error: OutboundError) -> Self {
        Self::Destination(error.to_string())
    }
}

/// Snapshots in a bucket, or in a folder of a bucket.
#[derive(Debug)]
pub(super) struct InBucket {
    place: BucketUrl,
    bucket: Bucket,
}

impl InBucket {
    /// Opens the bucket that the setting names, with the endpoint and key that sources in buckets use.
    pub(super) fn open(root: &str, sources: &SourcesConfig) -> Result<Self, BackupError> {
        let place: BucketUrl = root.parse()?;
        let mut buckets = sources.buckets.clone();
        // Only this client may read the place: requests may read no more than before.
        buckets.allow = vec![place.clone()];
        let network = OutboundConfig { total_timeout: READ_TIMEOUT, ..sources.network.clone() };
        let bucket = Buckets::new(buckets, &network)?.open(&place.bucket)?;
        Ok(Self { place, bucket })
    }

    fn key(&self, key: &str) -> String {
        let key = key.trim_end_matches('/');
        if self.place.key.is_empty() { key.to_owned() } else { format!("{}/{key}", self.place.key) }
    }

    /// Starts reading an object; `None` if it does not exist.
    async fn get(&self, key: &str) -> Result<Option<Download>, BackupError> {
        let key = self.key(key);
        match self.bucket.size(&key).await? {
            Some(size_bytes) => Ok(Some(self.bucket.get(&key, size_bytes).await?)),
            None => Ok(None),
        }
    }
}

/// Reads a download to its end and returns the size and hash of its content.
async fn drain(
    mut download: Download,
    to: &mut (impl AsyncWrite + Unpin + Send),
    meter: &Meter,
) -> Result<Content, BackupError> {
    let (mut hasher, mut size_bytes) = (Sha256::new(), 0);
    while let Some(part) = download.next().await? {
        meter.check()?;
        hasher.update(&part);
        to.write_all(&part).await?;
        size_bytes += part.len() as u64;
        meter.add(part.len() as u64);
    }
    Ok(Content { sha256: hex::encode(hasher.finalize()), size_bytes })
}

#[async_trait]
impl Destination for InBucket {
    fn scratch(&self) -> Option<&Path> {
        None
    }

    async fn lock(&self) -> Result<Turn, BackupError> {
        Ok(Box::new(()))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, BackupError> {
        Ok(self.bucket.size(&self.key(key)).await?)
    }

    async fn read(&self, key: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BackupError> {
        let Some(download) = self.get(key).await? else { return Ok(None) };
        if download.size_bytes().is_some_and(|size_bytes| size_bytes > most_bytes) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        drain(download, &mut bytes, &Meter::default()).await?;
        Ok(Some(bytes))
    }

    async fn write(&self, key: &str, bytes: Vec<u8>) -> Result<(), BackupError> {
        self.bucket.put(&self.key(key), bytes.as_slice()).await?;
        Ok(())
    }

    async fn upload(
        &self,
        from: &Path,
        key: &str,
        expected: Option<&str>,
        meter: &Arc<Meter>,
    ) -> Result<Content, BackupError> {
        // Read the file twice: damage must be found before the upload, not only in the bucket.
        let (path, counted) = (from.to_owned(), Arc::clone(meter));
        let hashed = tokio::task::spawn_blocking(move || {
            pump(&mut own_files::open_path(&path)?, &mut io::sink(), &counted)
        });
        let content = match hashed.await {
            Ok(Err(BackupError::Io(error))) => {
                return Err(BackupError::Destination(format!("{}: {error}", from.display())));
            }
            Ok(outcome) => outcome?,
            Err(error) => return Err(BackupError::Destination(error.to_string())),
        };
        if expected.is_some_and(|expected| expected != content.sha256) {
            return Ok(content);
        }
        let key = self.key(key);
        let sent = self.bucket.put(&key, tokio::fs::File::from_std(own_files::open_path(from)?));
        let size_bytes = tokio::select! {
            () = meter.cancel.cancelled() => return Err(BackupError::Cancelled),
            size_bytes = sent => size_bytes?,
        };
        if size_bytes == content.size_bytes {
            Ok(content)
        } else {
            Err(BackupError::Destination(format!("{} changed while it was being read", from.display())))
        }
    }

    async fn adopt(&self, from: &Path, key: &str, meter: &Arc<Meter>) -> Result<Content, BackupError> {
        let content = self.upload(from, key, None, meter).await?;
        tokio::fs::remove_file(from).await?;
        Ok(content)
    }

    async fn download(
        &self,
        key: &str,
        to: &Path,
        meter: &Arc<Meter>,
    ) -> Result<Option<Content>, BackupError> {
        let Some(download) = self.get(key).await? else { return Ok(None) };
        let mut file = tokio::fs::File::from_std(new_file(to)?);
        let content = drain(download, &mut file, meter).await?;
        file.flush().await?;
        file.sync_all().await?;
        Ok(Some(content))
    }

    async fn digest(&self, key: &str, meter: &Arc<Meter>) -> Result<Option<Content>, BackupError> {
        let Some(download) = self.get(key).await? else { return Ok(None) };
        drain(download, &mut tokio::io::sink(), meter).await.map(Some)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, BackupError> {
        let above = if self.place.key.is_empty() { String::new() } else { format!("{}/", self.place.key) };
        let objects: Vec<_> = self.bucket.list(&self.key(prefix)).try_collect().await?;
        let relative = |key: &str| key.strip_prefix(above.as_str()).map(str::to_owned);
        let mut keys: Vec<String> = objects.iter().filter_map(|object| relative(&object.key)).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    async fn delete(&self, key: &str) -> Result<(), BackupError> {
        Ok(self.bucket.delete(&self.key(key)).await?)
    }
}
