//! Ingest: accepts files, embeds and stores them, and changes or removes what was stored.

mod accept;
mod active;
mod describe;
mod embed;
mod jobs;
mod kinds;
mod metrics;
mod mirror;
mod removal;
mod retries;
mod sources;
mod unfinished;
mod watches;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

pub use describe::{AssetPatch, Expected, MAX_METADATA_BYTES};
pub use kinds::JobSource;
pub(crate) use kinds::{Index, IndexRequest};
pub use removal::Deletion;
pub use watches::Watches;

use crate::collection::{Collection, LibraryError};
use crate::files::Content;
use crate::store::AssetRecord;
use crate::types::TrackChoice;
use accept::Accepted;
use active::ActiveSet;
use jobs::Baselines;
pub(crate) use unfinished::Again;
use unfinished::Unwanted;
use worker::Work;

/// How often to check whether everything is indexed.
const IDLE_LOOK_EVERY: Duration = Duration::from_millis(5);

/// One file to index.
#[derive(Debug, Clone)]
pub struct IngestSource {
    /// Path of the bytes: from [`DataFolder::allowed_path`](crate::collection::DataFolder::allowed_path), or an upload's temporary file.
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
    /// Seconds in the towers.
    pub inference: f64,
    /// Committing to the store.
    pub store: f64,
    /// Adding to the index.
    pub index: f64,
}

/// Held while bytes are accepted or removed, and while names, paths or metadata of assets change.
#[derive(Debug, Default)]
struct Accept(Mutex<()>);

impl Accept {
    async fn turn(&self) -> Accepting<'_> {
        Accepting { _turn: self.0.lock().await }
    }
}

/// The exclusive turn to accept, describe or remove assets. Functions that need it take it as an argument.
struct Accepting<'a> {
    _turn: MutexGuard<'a, ()>,
}

/// The work on the assets of a collection.
pub struct Ingest {
    pub(crate) collection: Arc<Collection>,
    /// The assets queued or being indexed.
    pub(crate) active: ActiveSet,
    /// The queue, and the running items of jobs.
    pub(crate) work: Work,
    accept: Accept,
    unwanted: Unwanted,
    pub(crate) baselines: Baselines,
}

impl Ingest {
    /// Takes up the work on a collection.
    ///
    /// # Errors
    /// [`LibraryError`] of the store.
    pub(crate) async fn open(collection: Arc<Collection>) -> Result<Arc<Self>, LibraryError> {
        let baselines = Baselines::of_unfinished(collection.store.as_ref()).await?;
        Ok(Arc::new(Self { baselines, ..Self::idle(collection) }))
    }

    /// New work on a collection whose earlier work was stopped.
    pub(crate) fn revived(collection: Arc<Collection>) -> Arc<Self> {
        Arc::new(Self::idle(collection))
    }

    fn idle(collection: Arc<Collection>) -> Self {
        Self {
            collection,
            active: ActiveSet::default(),
            work: Work::default(),
            accept: Accept::default(),
            unwanted: Unwanted::default(),
            baselines: Baselines::default(),
        }
    }

    /// Whether nothing is queued or being indexed.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.len() == 0
    }

    /// Waits until nothing is queued or being indexed.
    pub(crate) async fn until_idle(&self) {
        while !self.is_idle() {
            tokio::time::sleep(IDLE_LOOK_EVERY).await;
        }
    }

    /// Starts the workers, and resumes what a crash or a shutdown left unfinished.
    pub(crate) fn start(self: &Arc<Self>) {
        let tasks = &self.collection.life.tasks;
        for _ in 0..self.collection.data.config.ingest_workers.max(1) {
            tasks.spawn(worker::run(Arc::clone(self)));
        }
        tasks.spawn(unfinished::resume(Arc::clone(self)));
    }

    /// Number of assets queued or being indexed, and of those how many wait in the queue.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (self.active.len(), self.work.queued())
    }

    /// Refuses an upload before its body is read if the queue is full.
    ///
    /// # Errors
    /// [`LibraryError::Busy`], [`LibraryError::Stopping`].
    pub fn check_room(&self) -> Result<(), LibraryError> {
        if self.collection.life.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        if self.work.has_room() { Ok(()) } else { Err(LibraryError::Busy { retry_after_secs: 10 }) }
    }

    /// Accepts a file durably and indexes it in the background. Returns the record and whether its bytes are
    /// new.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn submit(&self, source: &IngestSource) -> Result<(AssetRecord, bool), LibraryError> {
        // Queue it before the lock is released: a claim is always in the queue or at a worker.
        let queue = |claim, record: &AssetRecord| self.work.push(claim, record.clone());
        match self.accept(source, true, queue).await? {
            Accepted::New((), record) => Ok((record, true)),
            Accepted::Running(_, record) | Accepted::Known(record) => Ok((record, false)),
        }
    }
}
