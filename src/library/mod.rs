//! One opened library: a data folder, a bundle, the store, the indexes, the workers.
//! The HTTP API and the command line are thin shells around it.

mod active;
mod asset_query;
mod calibrate;
mod checks;
mod compact;
mod content;
mod describe;
mod error;
mod evaluate;
mod export;
mod follow;
mod hand_over;
mod health;
mod ingest;
mod jobs;
mod keep;
mod metrics;
mod models;
mod open;
mod opened_store;
mod rebuild;
mod recall;
mod retention;
mod retries;
mod shortfall;
mod sources;
mod standing;
mod tracks;
mod upkeep;
mod watches;
mod witness;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, RwLock, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::backup::{
    BackupError, Restored, SnapshotContents, SnapshotOptions, SnapshotPlace, SnapshotProblem,
    SnapshotProgress, SnapshotState, SnapshotView,
};
pub use crate::outbound::SourcesConfig;
pub use crate::webhooks::{Deliver, WebhookError, WebhookGiven, WebhookRequest};
pub use checks::{CheckOptions, CheckReport, CheckState, DamageCounts, DamagedAsset, check_folder};
pub use compact::{Compaction, compact_folder};
pub use describe::{AssetPatch, MAX_METADATA_BYTES};
pub use error::{LibraryError, StandingError};
pub use evaluate::{Evaluation, Figure, MAX_PAIRS, Measured, Pair};
pub use export::{ExportReport, ExportWanted, export_folder};
pub use follow::Progress;
pub use health::{PartHealth, PartState};
pub use jobs::JobSource;
pub use keep::Deletion;
pub use models::{ModelEntry, Models, ModelsConfig, OpenEmbedder, Role};
pub use retention::{RetentionReport, Rule, RuleCount};
pub use shortfall::Shortfall;
pub use standing::{
    Given, GivenPart, MAX_GIVEN_BYTES, MAX_STANDING, NewStandingQuery, StandingPatch, StandingQuery,
    StandingSpec,
};
pub use upkeep::snapshots::KeepConfig;

use crate::backup::Keeper;
use crate::catalog::Catalog;
use crate::embed::Embedder;
use crate::files::{AllowedRoots, Content, Disk, FileError, UploadWriter, Uploads};
use crate::index::IndexSet;
use crate::ledger::Ledger;
use crate::outbound::Sources;
use crate::search::{self, SearchError, SearchRequest, SearchResponse, Timeline};
use crate::store::{AssetRecord, DeliveryRecord, DeliveryState, FolderLock, Store, StoreError};
use crate::types::{AssetId, DeliveryId, Space, Track, TrackChoice};
use crate::webhooks::{Sender, Webhooks};

/// Number of clips from which a search leaves the async threads.
const BLOCKING_FROM: usize = 4096;

/// How to open a library.
#[derive(Debug, Clone)]
pub struct LibraryConfig {
    /// The data folder (store, uploads, index files); created if absent.
    pub data_dir: PathBuf,
    /// Folders whose files may be indexed by path.
    pub allowed_roots: Vec<PathBuf>,
    /// Number of files decoded in parallel.
    pub ingest_workers: usize,
    /// Sends webhooks; `None`: webhooks are off.
    pub webhooks: Option<Arc<dyn Deliver>>,
    /// Settings for snapshots, retention and compaction.
    pub keep: KeepConfig,
    /// What may be fetched from other hosts.
    pub sources: SourcesConfig,
    /// If the store has lost acknowledged changes, index again from the uploads and the ledger.
    pub rebuild_from_uploads: bool,
    /// Largest share of one core for measuring recall; 0: off.
    pub recall_probe_share: f64,
}

/// One file to index.
#[derive(Debug, Clone)]
pub struct IngestSource {
    /// Path of the bytes: from [`Library::allowed_path`], or an upload's temporary file.
    pub path: PathBuf,
    /// Display name.
    pub name: String,
    /// Whether the file is an upload; it is then moved to where uploads are stored.
    pub owned: bool,
    /// Hash and size, if already known; `None`: the file is read to find them.
    pub content: Option<Content>,
    /// The user's metadata, a JSON object.
    pub metadata: serde_json::Value,
    /// The tracks that the user chose.
    pub choice: TrackChoice,
}

/// The result of indexing one file.
#[derive(Debug, Clone)]
pub struct IngestReport {
    /// The asset as stored.
    pub asset: AssetRecord,
    /// False if the same bytes were indexed before.
    pub new: bool,
    /// How long each stage took.
    pub stages: StageSecs,
}

/// Times of the stages of one ingest, in seconds.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct StageSecs {
    /// Wall-clock time of the whole ingest.
    pub total: f64,
    /// CPU time of the decode worker.
    pub decode: f64,
    /// Resizing and cutting into windows.
    pub preprocess: f64,
    /// Running the towers.
    pub inference: f64,
    /// Committing to the store.
    pub store: f64,
    /// Adding to the index.
    pub index: f64,
}

/// An opened library.
pub struct Library {
    config: LibraryConfig,
    /// Folder of this model's store and indexes.
    folder: PathBuf,
    embedder: Embedder,
    store: Arc<dyn Store>,
    index: Arc<IndexSet>,
    catalog: Arc<Catalog>,
    roots: AllowedRoots,
    /// The lock of the data folder, held while any of its models is open.
    lock: Arc<FolderLock>,
    /// The second record of what was acknowledged.
    ledger: Arc<Ledger>,
    sources: Arc<Sources>,
    uploads: Arc<Uploads>,
    /// The disk of the data folder.
    disk: Arc<Disk>,
    verified: content::Verified,
    checker: checks::Checker,
    pulse: health::Pulse,
    /// Whether this library follows another one, whose files it must not remove.
    beside: AtomicBool,
    /// Announces assets that have become searchable, failed or been removed.
    changes: broadcast::Sender<AssetId>,
    segmentation: String,
    comparable: Arc<search::Comparable>,
    backgrounds: Arc<search::Backgrounds>,
    recall: Arc<recall::Sampler>,
    index_dir: PathBuf,
    /// The finest space that sound and picture share, if there is one.
    agreement_space: Option<Space>,
    active: active::ActiveSet,
    work: worker::Work,
    /// Held while bytes are accepted or removed, and while names, paths or metadata of assets change.
    accept_lock: Mutex<()>,
    /// Read: a change of clips with its change of the index. Write: saving the indexes, which must see both
    /// or neither.
    commit_gate: RwLock<()>,
    baselines: jobs::Baselines,
    standing: Arc<standing::StandingQueries>,
    webhooks: Arc<Webhooks>,
    keeper: Arc<Keeper>,
    unwanted: upkeep::disk::Unwanted,
    /// Retention rules are changed and applied one at a time.
    retention_turn: Mutex<()>,
    /// Wakes the watcher because a watched folder is due for a poll.
    watch_wake: Notify,
    started: Once,
    serving: Once,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Library {
    /// The embedder of queries and files.
    #[must_use]
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The indexes.
    #[must_use]
    pub fn index(&self) -> &Arc<IndexSet> {
        &self.index
    }

    /// Assets and clips in memory.
    #[must_use]
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Tracks that have an index.
    #[must_use]
    pub fn tracks(&self) -> Vec<Track> {
        Track::ALL
            .into_iter()
            .filter(|track| !tracks::members_of(self.embedder.bundle(), *track).is_empty())
            .collect()
    }

    /// Number of assets queued or being indexed, and of those how many wait in the queue.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (self.active.len(), self.work.queued())
    }

    /// Checks that a user's path lies beneath an allowed root; returns it with all links resolved, to be
    /// opened with [`crate::files::open_resolved`].
    ///
    /// # Errors
    /// [`FileError::NotAllowed`], [`FileError::Missing`].
    pub fn allowed_path(&self, path: &Path) -> Result<PathBuf, LibraryError> {
        Ok(self.roots.resolve(path)?)
    }

    /// Starts receiving an upload of at most `max_bytes`.
    pub fn begin_upload(&self, max_bytes: u64) -> UploadWriter {
        // While the disk refuses writes, only files of queries come here, none that would be stored.
        if self.disk.refusal().is_some() {
            return UploadWriter::elsewhere(max_bytes);
        }
        UploadWriter::new(&self.uploads, max_bytes)
    }

    /// Refuses an upload before its body is read if the queue is full.
    ///
    /// # Errors
    /// [`LibraryError::Busy`], [`LibraryError::Stopping`].
    pub fn check_room(&self) -> Result<(), LibraryError> {
        if self.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        if self.work.has_room() { Ok(()) } else { Err(LibraryError::Busy { retry_after_secs: 10 }) }
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
        self.check_room()?;
        self.start_workers();
        // Queue it before the lock is released: whoever sees the claim finds it in the queue or at a worker.
        let queue = |claim, record: &AssetRecord| self.work.push(claim, record.clone());
        match self.accept(source, true, queue).await? {
            ingest::Accepted::New((), record) => Ok((record, true)),
            ingest::Accepted::Running(_, record) | ingest::Accepted::Known(record) => Ok((record, false)),
        }
    }

    /// Searches the library.
    ///
    /// # Errors
    /// [`LibraryError`].
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn search(&self, request: SearchRequest) -> Result<SearchResponse, LibraryError> {
        let (corpus, recall) = (self.corpus(), Arc::clone(&self.recall));
        let answer = move || {
            let response = search::run(&corpus, &request)?;
            recall.offer(&corpus.index, &request, &response.space);
            Ok(response)
        };
        let mut response = self.off_thread(answer).await?;
        metrics::searched(response.index_secs);
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
        let corpus = self.corpus();
        self.off_thread(move || search::timeline(&corpus, &request, asset)).await
    }

    /// Whether this is the serving model; a model beside repeats all work, which metrics must not count
    /// twice.
    fn serves(&self) -> bool {
        !self.beside.load(Ordering::Acquire)
    }

    /// Tells followers that an asset has changed.
    fn tell(&self, id: AssetId) {
        // There may be no followers.
        let _ = self.changes.send(id);
    }

    fn corpus(&self) -> search::Corpus {
        search::Corpus {
            catalog: Arc::clone(&self.catalog),
            index: Arc::clone(&self.index),
            comparable: Arc::clone(&self.comparable),
            backgrounds: Arc::clone(&self.backgrounds),
        }
    }

    /// Number of clips when the confidence of searches was last calibrated.
    #[must_use]
    pub fn calibrated_clips(&self) -> usize {
        self.backgrounds.now().clips
    }

    /// Runs searches of large libraries off the async threads; for small ones the switch takes longer than
    /// the search.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, LibraryError> {
        if self.catalog.len().1 < BLOCKING_FROM {
            return Ok(work()?);
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => Ok(outcome?),
            Err(error) => Err(SearchError::CutOff(error.to_string()).into()),
        }
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

    /// Deletes an asset from store, index and (if owned) disk; stops its indexing first if it is running.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn delete_asset(&self, id: AssetId) -> Result<(), LibraryError> {
        let record = self.store.asset(id).await?;
        if let Some(active) = self.active.by_id(id) {
            if let Some(refusal) = self.disk.refusal() {
                // The indexing waits for the disk, and so would the deletion.
                return Err(StoreError::from(refusal).into());
            }
            active.cancel.cancel();
            drop(self.work.take(id));
            active.done.cancelled().await;
        }
        match self.remove_asset(&record).await {
            // The stopped indexing removed it itself.
            Err(LibraryError::Store(StoreError::NotFound(_))) => Ok(()),
            outcome => outcome,
        }
    }

    async fn remove_asset(&self, record: &AssetRecord) -> Result<(), LibraryError> {
        let _serial = self.accept_lock.lock().await;
        self.remove_accepted(record).await
    }

    /// Like `remove_asset`; the caller holds the lock under which bytes are accepted.
    async fn remove_accepted(&self, record: &AssetRecord) -> Result<(), LibraryError> {
        let gate = self.commit_gate.read().await;
        let clips = self.store.delete_asset(record.id).await?;
        self.index.remove(&clips);
        self.catalog.remove_asset(record.id);
        drop(gate);
        let path = record.owned.then(|| Path::new(&record.path));
        let ticket = self.note_gone([(record.id, path)]).await?;
        self.noted(ticket).await?;
        self.tell(record.id);
        if self.serves() {
            metrics::deleted(1, clips.len() as u64);
        }
        if record.owned {
            self.remove_kept(record.path.as_ref()).await?;
        }
        Ok(())
    }

    /// Starts the workers and background tasks, and resumes what a crash or a shutdown left unfinished. A
    /// server calls it; a command that only reads never does.
    pub fn start_workers(self: &Arc<Self>) {
        self.started.call_once(|| {
            for _ in 0..self.config.ingest_workers.max(1) {
                self.tasks.spawn(worker::run(Arc::clone(self)));
            }
            self.tasks.spawn(open::resume_unfinished(Arc::clone(self)));
            self.tasks.spawn(open::snapshot_when_idle(Arc::clone(self)));
            self.tasks.spawn(calibrate::keep_up(Arc::clone(self)));
        });
        if self.serves() {
            self.start_serving();
        }
    }

    /// Starts what only the serving model does, such as the scheduled work that users have set up.
    fn start_serving(self: &Arc<Self>) {
        self.serving.call_once(|| {
            self.tasks.spawn(checks::keep_reading(Arc::clone(self)));
            self.tasks.spawn(upkeep::disk::keep_watch(Arc::clone(self)));
            self.measure_recall(self.config.recall_probe_share);
            self.tasks.spawn(standing::run(Arc::clone(self)));
            let sender = Sender {
                webhooks: Arc::clone(&self.webhooks),
                store: Arc::clone(&self.store),
                disk: Arc::clone(&self.disk),
                stop: self.stop.clone(),
            };
            self.tasks.spawn(sender.run());
            self.tasks.spawn(upkeep::clock::take_by_the_clock(Arc::clone(self)));
            self.tasks.spawn(retention::keep_up(Arc::clone(self)));
            self.tasks.spawn(compact::keep_up(Arc::clone(self)));
            self.tasks.spawn(watches::keep_watching(Arc::clone(self)));
        });
    }

    /// Stops taking work, stops running files at the next clip (the next start resumes them), and saves the
    /// indexes.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn shutdown(&self) -> Result<(), LibraryError> {
        self.stop.cancel();
        self.work.clear();
        self.tasks.close();
        self.tasks.wait().await;
        // Interactive ingests run in their callers' tasks, so the task tracker does not cover them.
        let patience = tokio::time::timeout(Duration::from_secs(10), async {
            while self.active.len() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if patience.await.is_err() {
            tracing::warn!("some files did not stop in time; they continue at the next start");
        }
        let _gate = self.commit_gate.write().await;
        let written = self.index.snapshot(self.store.as_ref()).await.map_err(LibraryError::from);
        let moved = self.store.checkpoint().await.map_err(LibraryError::from);
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

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LibraryError> + Send + 'static,
) -> Result<T, LibraryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => Err(LibraryError::Panicked),
        Err(_) => Err(LibraryError::Stopping),
    }
}

/// Converts a path to text, as the store holds paths.
fn utf8(path: &Path) -> Result<String, LibraryError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| LibraryError::File(FileError::Kind(path.display().to_string(), "a name in UTF-8")))
}
