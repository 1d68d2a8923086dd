//! Files on other hosts: fetched from URLs and buckets, then stored like uploads.

use tokio_util::sync::CancellationToken;

use super::{IngestSource, Library, LibraryError};
use crate::files::Upload;
use crate::jobs::{LeftOut, Place};
use crate::media::{HEAD_BYTES, NameSays, head_is_media, name_says};
use crate::outbound::bucket::BucketUrl;
use crate::outbound::{Download, OutboundError};
use crate::store::JobItem;
use crate::types::TrackChoice;

impl Library {
    /// Fetches a URL to a temporary, synced file, to be ingested like an upload.
    ///
    /// # Errors
    /// [`LibraryError::Outbound`], [`LibraryError::Io`].
    pub async fn fetch_url(&self, url: &str) -> Result<Upload, LibraryError> {
        let outbound = &self.sources.outbound;
        let url = outbound.check(url)?;
        self.receive(outbound.get(&url, self.sources.max_fetch_bytes).await?, None).await
    }

    async fn fetch_object(&self, place: &str) -> Result<Upload, LibraryError> {
        let BucketUrl { bucket, key } = self.sources.buckets.check_object(place)?;
        let bucket = self.sources.buckets.open(&bucket)?;
        // Found in a listing, not named by a user: unless its name says media, its first bytes must.
        let name = Place::Object(place).name();
        let unsaid = (name_says(&name) != NameSays::Media).then_some(name.as_str());
        self.receive(bucket.get(&key, self.sources.max_fetch_bytes).await?, unsaid).await
    }

    /// Receives a file. If the name does not tell the type, reads only the first bytes unless they are media.
    async fn receive(&self, mut download: Download, unsaid: Option<&str>) -> Result<Upload, LibraryError> {
        let max_bytes = self.sources.max_fetch_bytes;
        self.check_disk(0)?;
        let mut head = Vec::new();
        if let Some(name) = unsaid {
            while head.len() < HEAD_BYTES
                && let Some(bytes) = download.next().await?
            {
                head.extend_from_slice(&bytes);
            }
            if !head_is_media(name, head.get(..HEAD_BYTES).unwrap_or(&head)) {
                return Err(LibraryError::LeftOut(LeftOut::not_media()));
            }
        }
        let mut writer = self.begin_upload(max_bytes);
        writer.write(&head).await?;
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

    /// The source that an item of a job names, fetched if it is remote, and the guard of the fetched file.
    pub(super) async fn source_of(
        &self,
        item: &JobItem,
        cancel: &CancellationToken,
    ) -> Result<(IngestSource, Option<Upload>), LibraryError> {
        let name = item.name.clone().unwrap_or_else(|| Place::of(&item.path).name());
        let (metadata, choice) = (item.metadata.clone(), item.choice);
        let fetched = match Place::of(&item.path) {
            Place::Path(given) => {
                let path = self.allowed_path(given)?;
                return Ok((
                    IngestSource { path, name, owned: false, content: None, metadata, choice },
                    None,
                ));
            }
            Place::Url(url) => until(cancel, self.fetch_url(url)).await?,
            Place::Object(place) => until(cancel, self.fetch_object(place)).await?,
        };
        Ok((fetched.source(name, metadata, choice), Some(fetched)))
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
    /// A source of these bytes; the upload must live until they have been accepted.
    #[must_use]
    pub fn source(&self, name: String, metadata: serde_json::Value, choice: TrackChoice) -> IngestSource {
        let path = self.path.to_path_buf();
        IngestSource { path, name, owned: true, content: Some(self.content.clone()), metadata, choice }
    }
}
