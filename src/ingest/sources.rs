//! The files of job items, fetched if they are on other hosts.

use tokio_util::sync::CancellationToken;

use super::{Ingest, IngestSource};
use crate::collection::LibraryError;
use crate::files::Upload;
use crate::jobs::Place;
use crate::store::JobItem;
use crate::types::TrackChoice;

impl Ingest {
    /// The source that an item of a job names, fetched if it is remote, and the guard of the fetched file.
    pub(crate) async fn source_of(
        &self,
        item: &JobItem,
        cancel: &CancellationToken,
    ) -> Result<(IngestSource, Option<Upload>), LibraryError> {
        let name = item.name.clone().unwrap_or_else(|| Place::of(&item.path).name());
        let (metadata, choice) = (item.metadata.clone(), item.choice);
        let fetched = match Place::of(&item.path) {
            Place::Path(given) => {
                let path = self.collection.data.allowed_path(given)?;
                return Ok((
                    IngestSource { path, name, owned: false, content: None, metadata, choice },
                    None,
                ));
            }
            Place::Url(url) => until(cancel, self.collection.data.fetch_url(url)).await?,
            Place::Object(place) => until(cancel, self.collection.data.fetch_object(place)).await?,
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
