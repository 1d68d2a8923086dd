//! A collection: one model's vectors. The store is the truth; the indexes and the catalog are derived from
//! it.

pub mod ask;
mod calibrate;
pub(crate) mod checks;
mod clips;
mod compact;
mod content;
mod data_folder;
mod error;
mod evaluate;
mod export;
mod life;
mod limits;
mod notes;
mod open;
pub(crate) mod recall;
mod recovery;
mod removals;
mod tracks;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics::histogram;

pub(crate) use checks::Checker;
pub use checks::{CheckOptions, CheckReport, CheckState, DamageCounts, DamagedAsset, check_folder};
pub use compact::{Compaction, compact_folder};
pub use content::Opened;
pub(crate) use content::read_whole;
pub use data_folder::{DataFolder, KeepConfig, LibraryConfig};
pub(crate) use error::embedding_message;
pub use error::{LibraryError, StandingError};
pub use evaluate::{Evaluation, Figure, MAX_PAIRS, Measured, Pair};
pub use export::{ExportReport, ExportWanted, export_folder};
pub use limits::{MAX_GIVEN_BYTES, MAX_STANDING};
pub(crate) use recovery::adopt_uploads;

pub use crate::files::Shortfall;

use crate::catalog::Catalog;
use crate::embed::Embedder;
use crate::files::FileError;
use crate::index::IndexSet;
use crate::media::DecoderHealth;
use crate::preprocess;
use crate::search::{self, SearchError, SearchRequest, SearchResponse, Timeline};
use crate::store::{
    AssetRecord, ClipRecord, DeliveryRecord, DeliveryState, EmbeddedStore, StoreError, Totals,
};
use crate::types::{AssetId, DeliveryId, Space, Track};
use clips::Gate;
use content::Verified;
use life::Life;
use recall::Sampler;

/// Number of clips from which a search leaves the async threads.
const BLOCKING_FROM: usize = 4096;

/// One model's vectors: its store, and the indexes and catalog derived from it.
pub struct Collection {
    pub(crate) data: Arc<DataFolder>,
    pub(crate) embedder: Embedder,
    pub(crate) store: Arc<dyn EmbeddedStore>,
    /// The indexes, the catalog and the calibration, which searches read.
    pub(crate) searched: search::Corpus,
    /// Folder of the store and the indexes.
    pub(crate) folder: PathBuf,
    /// The finest space that sound and picture share, if there is one.
    agreement_space: Option<Space>,
    /// Keeps clips and indexes together while the indexes are saved.
    gate: Gate,
    /// Known states of the files of assets.
    verified: Verified,
    /// Samples searches to measure recall.
    pub(crate) recall: Arc<Sampler>,
    pub(crate) life: Life,
}

impl Collection {
    /// The embedder of queries and files.
    #[must_use]
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn EmbeddedStore> {
        &self.store
    }

    /// The indexes.
    #[must_use]
    pub fn index(&self) -> &Arc<IndexSet> {
        &self.searched.index
    }

    /// Assets and clips in memory.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.searched.catalog
    }

    /// Tracks that have an index.
    #[must_use]
    pub fn tracks(&self) -> Vec<Track> {
        Track::ALL
            .into_iter()
            .filter(|track| !tracks::members_of(self.embedder.bundle(), *track).is_empty())
            .collect()
    }

    /// Searches the library.
    ///
    /// # Errors
    /// [`LibraryError`].
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn search(&self, request: SearchRequest) -> Result<SearchResponse, LibraryError> {
        let (corpus, recall) = (self.searched.clone(), Arc::clone(&self.recall));
        let answer = move || {
            let response = search::run(&corpus, &request)?;
            recall.offer(&corpus.index, &request, &response.space);
            Ok(response)
        };
        let mut response = self.off_thread(answer).await?;
        histogram!("triptych_query_stage_seconds", "stage" => "search").record(response.index_secs);
        let damaged = self.damage_of(response.hits.iter().map(|hit| hit.asset_id).collect()).await?;
        for hit in &mut response.hits {
            hit.damage = damaged.get(&hit.asset_id).copied();
        }
        Ok(response)
    }

    /// Scores every clip of an asset against a query.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn timeline(&self, request: SearchRequest, asset: AssetId) -> Result<Timeline, LibraryError> {
        let corpus = self.searched.clone();
        self.off_thread(move || search::timeline(&corpus, &request, asset)).await
    }

    /// Number of clips when the confidence of searches was last calibrated.
    #[must_use]
    pub fn calibrated_clips(&self) -> usize {
        self.searched.backgrounds.now().clips
    }

    /// Runs searches of large libraries off the async threads; for small ones the switch takes longer than
    /// the search.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, LibraryError> {
        if self.searched.catalog.len().1 < BLOCKING_FROM {
            return Ok(work()?);
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => Ok(outcome?),
            Err(error) => Err(SearchError::CutOff(error.to_string()).into()),
        }
    }

    /// Whether files can be decoded now.
    pub async fn decoder_health(&self) -> DecoderHealth {
        preprocess::decoder_health(&self.embedder.decoder).await
    }

    /// Looks up an asset.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn asset(&self, id: AssetId) -> Result<AssetRecord, StoreError> {
        self.store.asset(id).await
    }

    /// The clips of an asset, ordered by time, each with the tracks for which it has vectors.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clips_with_tracks(
        &self,
        asset: AssetId,
    ) -> Result<Vec<(ClipRecord, Vec<Track>)>, StoreError> {
        self.store.clips_with_tracks(asset).await
    }

    /// The size of the collection.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn totals(&self) -> Result<Totals, StoreError> {
        self.store.totals().await
    }

    /// Assets, newest first; `after` is the last id of the previous page.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn assets(&self, after: Option<AssetId>, limit: u32) -> Result<Vec<AssetRecord>, StoreError> {
        self.store.list_assets(after, limit).await
    }

    /// Deliveries of webhooks that were sent, are pending or have failed, newest first; `after` is the last id of
    /// the previous page.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn deliveries(
        &self,
        state: Option<DeliveryState>,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, LibraryError> {
        Ok(self.store.deliveries(state, after, limit).await?)
    }

    /// Sends a delivery again, even if it succeeded.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn retry_delivery(&self, id: DeliveryId) -> Result<DeliveryRecord, LibraryError> {
        Ok(self.store.retry_delivery(id).await?)
    }

    /// Folder of the saved indexes.
    pub(crate) fn index_dir(&self) -> PathBuf {
        index_dir(&self.folder)
    }

    /// How files are cut into clips, as text; it is part of an asset's identity.
    pub(crate) fn segmentation(&self) -> String {
        tracks::segmentation(&self.embedder)
    }
}

fn index_dir(folder: &Path) -> PathBuf {
    folder.join("index")
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LibraryError> + Send + 'static,
) -> Result<T, LibraryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => Err(LibraryError::Panicked),
        Err(_) => Err(LibraryError::Stopping),
    }
}

/// Converts a path to text, the form in which the store has paths.
pub(crate) fn utf8(path: &Path) -> Result<String, LibraryError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| LibraryError::File(FileError::Kind(path.display().to_string(), "a name in UTF-8")))
}
