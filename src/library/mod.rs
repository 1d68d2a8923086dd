//! An opened library: one model's collection, and the work on it. The HTTP API and the command line are thin shells
//! around it.

mod models;
mod upkeep;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use crate::backup::{
    BackupError, Restored, SnapshotContents, SnapshotOptions, SnapshotPlace, SnapshotProblem,
    SnapshotProgress, SnapshotState, SnapshotView,
};
pub use crate::collection::{
    CheckOptions, CheckReport, CheckState, Collection, Compaction, DamageCounts, DamagedAsset, DataFolder,
    Evaluation, ExportReport, ExportWanted, Figure, KeepConfig, LibraryConfig, LibraryError, MAX_GIVEN_BYTES,
    MAX_PAIRS, MAX_STANDING, Measured, Pair, Shortfall, StandingError, check_folder, compact_folder,
    export_folder,
};
pub use crate::ingest::{
    AssetPatch, Deletion, Expected, Ingest, IngestReport, IngestSource, JobSource, MAX_METADATA_BYTES,
    StageSecs, Watches,
};
use crate::ingest::{Index, IndexRequest};
pub use crate::outbound::SourcesConfig;
pub use crate::standing::{
    NewStandingQuery, StandingInput, StandingPart, StandingPatch, StandingQueries, StandingQuery,
    StandingSpec,
};
pub use crate::webhooks::{Deliver, Webhook, WebhookError};
pub use models::{ModelEntry, Models, ModelsConfig, OpenEmbedder, Progress, Role};
pub use upkeep::{PartHealth, PartState, RetentionReport, Rule, RuleCount, Upkeep};

use crate::catalog::Catalog;
use crate::embed::Embedder;
use crate::index::IndexSet;
use crate::search::{SearchRequest, SearchResponse, Timeline};
use crate::store::{AssetRecord, JobRecord, StoreError};
use crate::types::{AssetId, JobId, Track};

/// How long a shutdown waits for files that are being indexed.
const PATIENCE: Duration = Duration::from_secs(10);

/// An opened library.
pub struct Library {
    collection: Arc<Collection>,
    ingest: Arc<Ingest>,
    watches: Arc<Watches>,
    standing: Arc<StandingQueries>,
    upkeep: Arc<Upkeep>,
}

impl Library {
    /// Opens or creates the data folder; see [`Collection`]. [`Library::start_workers`] resumes unfinished work.
    ///
    /// # Errors
    /// [`LibraryError::StoreBehind`] or [`LibraryError::StoreUnreadable`] if the store has lost what was
    /// acknowledged and the configuration does not allow rebuilding it; others.
    pub async fn open(config: LibraryConfig, embedder: Embedder) -> Result<Arc<Self>, LibraryError> {
        let folder = config.data_dir.clone();
        Self::open_in(&config, &folder, embedder).await
    }

    /// Like `open`, with the store and the indexes in `folder`, within the data folder.
    async fn open_in(
        config: &LibraryConfig,
        folder: &Path,
        embedder: Embedder,
    ) -> Result<Arc<Self>, LibraryError> {
        let opened = async { Self::over(Collection::open(config, folder, embedder).await?).await };
        opened.await.map_err(LibraryError::at_start)
    }

    /// Opens another model's vectors beside this library: the same media, but none of the users' settings.
    async fn open_beside(&self, folder: &Path, embedder: Embedder) -> Result<Arc<Self>, LibraryError> {
        Self::over(self.collection.open_beside(folder, embedder).await?).await
    }

    async fn over(collection: Arc<Collection>) -> Result<Arc<Self>, LibraryError> {
        let ingest = Ingest::open(collection).await?;
        let standing = StandingQueries::open(Arc::clone(&ingest)).await?;
        Ok(Self::of(ingest, standing))
    }

    /// A working library over the same store and indexes, after this one was stopped.
    fn revived(&self) -> Arc<Self> {
        let ingest = Ingest::revived(self.collection.revived());
        let standing = self.standing.revived(Arc::clone(&ingest));
        Self::of(ingest, standing)
    }

    fn of(ingest: Arc<Ingest>, standing: Arc<StandingQueries>) -> Arc<Self> {
        Arc::new(Self {
            collection: Arc::clone(&ingest.collection),
            watches: Arc::new(Watches::new(Arc::clone(&ingest))),
            upkeep: Upkeep::new(Arc::clone(&ingest)),
            ingest,
            standing,
        })
    }

    /// The model's vectors.
    #[must_use]
    pub const fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    /// The parts that all models of the data folder share.
    #[must_use]
    pub fn data(&self) -> &Arc<DataFolder> {
        &self.collection.data
    }

    /// The work on assets.
    #[must_use]
    pub const fn ingest(&self) -> &Arc<Ingest> {
        &self.ingest
    }

    /// The watched folders.
    #[must_use]
    pub const fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    /// The standing queries.
    #[must_use]
    pub const fn standing(&self) -> &Arc<StandingQueries> {
        &self.standing
    }

    /// Snapshots, retention, checks and health.
    #[must_use]
    pub const fn upkeep(&self) -> &Arc<Upkeep> {
        &self.upkeep
    }

    /// The embedder of queries and files.
    #[must_use]
    pub fn embedder(&self) -> &Embedder {
        self.collection.embedder()
    }

    /// The indexes.
    #[must_use]
    pub fn index(&self) -> &Arc<IndexSet> {
        self.collection.index()
    }

    /// Assets and clips in memory.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        self.collection.catalog()
    }

    /// Tracks that have an index.
    #[must_use]
    pub fn tracks(&self) -> Vec<Track> {
        self.collection.tracks()
    }

    /// Searches the library.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn search(&self, request: SearchRequest) -> Result<SearchResponse, LibraryError> {
        self.collection.search(request).await
    }

    /// Scores every clip of an asset against a query.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn timeline(&self, request: SearchRequest, asset: AssetId) -> Result<Timeline, LibraryError> {
        self.collection.timeline(request, asset).await
    }

    /// Accepts a file durably and indexes it in the background. Returns the record and whether its bytes are
    /// new.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn submit(
        self: &Arc<Self>,
        source: &IngestSource,
    ) -> Result<(AssetRecord, bool), LibraryError> {
        self.ingest.check_room()?;
        self.start_workers();
        self.ingest.submit(source).await
    }

    /// Starts a durable job that indexes files. Every asset gets `metadata` (an object); an item's own keys
    /// take precedence.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn start_index_job(
        self: &Arc<Self>,
        source: JobSource,
        metadata: serde_json::Value,
        idempotency_key: Option<&str>,
    ) -> Result<JobRecord, LibraryError> {
        Ok(self.start_index_job_told(source, metadata, idempotency_key, None).await?.0)
    }

    /// Like [`Library::start_index_job`], with a webhook that reports the job's end. Also returns the
    /// webhook, if the job is new.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn start_index_job_told(
        self: &Arc<Self>,
        source: JobSource,
        metadata: serde_json::Value,
        idempotency_key: Option<&str>,
        webhook: Option<&Webhook>,
    ) -> Result<(JobRecord, Option<Webhook>), LibraryError> {
        let request = IndexRequest { source, metadata };
        let made = self.ingest.start_job::<Index>(request, idempotency_key, webhook).await?;
        self.start_workers();
        Ok(made)
    }

    /// Queues the failed items of a job again. A cancelled job does not change.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn retry_job(self: &Arc<Self>, id: JobId) -> Result<JobRecord, LibraryError> {
        let job = self.ingest.retry_job(id).await?;
        self.start_workers();
        Ok(job)
    }

    /// Starts the workers and background tasks, and resumes what a crash or a shutdown left unfinished. A
    /// server calls it; a command that only reads never does.
    pub fn start_workers(self: &Arc<Self>) {
        self.collection.life.started.call_once(|| {
            self.ingest.start();
            self.upkeep.start();
        });
        if self.collection.life.serves() {
            self.start_serving();
        }
    }

    /// Starts what only the serving model does, such as the scheduled work that users have set up.
    fn start_serving(&self) {
        self.collection.life.serving.call_once(|| {
            self.upkeep.start_serving();
            self.standing.start();
            self.watches.start();
        });
    }

    /// Stops taking work; running work stops at the next clip.
    fn stop_work(&self) {
        self.collection.life.stop.cancel();
        self.ingest.work.clear();
        self.collection.life.tasks.close();
    }

    /// Stops taking work, stops running files at the next clip (the next start resumes them), and saves the
    /// indexes.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn shutdown(&self) -> Result<(), LibraryError> {
        self.stop_work();
        self.collection.life.tasks.wait().await;
        // Interactive ingests run in their callers' tasks, so the task tracker does not cover them.
        if tokio::time::timeout(PATIENCE, self.ingest.until_idle()).await.is_err() {
            tracing::warn!("some files did not stop in time; they continue at the next startup");
        }
        let written = self.collection.save_indexes().await.map(drop);
        let moved = self.collection.store.checkpoint().await.map_err(LibraryError::from);
        for outcome in [written, moved] {
            match outcome {
                // The next start rebuilds the indexes from the store, and reads the write-ahead log.
                Err(error) if error.storage_full().is_some() => {
                    tracing::warn!(%error, "could not write everything on shutdown");
                }
                Err(LibraryError::Store(StoreError::Sealed)) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}
