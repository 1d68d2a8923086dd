//! One opened library: a data folder, a bundle, the store, the indexes, the job worker.
//! HTTP and the command line are thin shells around it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::embed::{EmbedError, Embedder};
use crate::index::{IndexError, IndexSet};
use crate::model::Priority;
use crate::search::{SearchRequest, SearchResponse};
use crate::store::{AssetRecord, JobRecord, Store, StoreError};
use crate::types::{AssetId, JobId, Modality, Space, Track};

/// Why the library refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Embedding.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The two sides of a search share no space in this model.
    #[error("this model cannot compare {query} with {target}: they share no space")]
    NotComparable {
        /// Query's modality.
        query: Modality,
        /// Target track's modality.
        target: Modality,
    },
    /// The space does not exist or does not serve these modalities.
    #[error("space `{0}` does not serve this search")]
    BadSpace(Space),
    /// A path outside the allowed roots.
    #[error("{0} is not beneath an allowed folder")]
    PathNotAllowed(String),
    /// A folder or file that is not there.
    #[error("{0}: no such file or folder")]
    PathMissing(String),
    /// Too much work is queued.
    #[error("too much work is queued; try again in {retry_after_secs} s")]
    Busy {
        /// When to try again.
        retry_after_secs: u64,
    },
    /// Input/output on the data folder.
    #[error("data folder: {0}")]
    Io(#[from] std::io::Error),
}

impl LibraryError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "store_failed",
            Self::Index(_) => "index_failed",
            Self::Embed(error) => error.code(),
            Self::NotComparable { .. } => "not_comparable",
            Self::BadSpace(_) => "bad_space",
            Self::PathNotAllowed(_) => "path_not_allowed",
            Self::PathMissing(_) => "path_missing",
            Self::Busy { .. } => "busy",
            Self::Io(_) => "io",
        }
    }
}

/// How to open a library.
#[derive(Debug, Clone)]
pub struct LibraryConfig {
    /// Data folder (store, uploads, snapshots); made if absent.
    pub data_dir: PathBuf,
    /// Folders whose files may be indexed by path.
    pub allowed_roots: Vec<PathBuf>,
    /// Files decoded side by side.
    pub ingest_workers: usize,
}

/// One file to be indexed.
#[derive(Debug, Clone)]
pub struct IngestSource {
    /// Where the bytes are.
    pub path: PathBuf,
    /// Name shown to people.
    pub name: String,
    /// Whether the bytes are our own copy (an upload).
    pub owned: bool,
    /// The user's JSON object.
    pub metadata: serde_json::Value,
}

/// What indexing one file took.
#[derive(Debug, Clone)]
pub struct IngestReport {
    /// The asset.
    pub asset: AssetRecord,
    /// False where the same bytes were indexed before.
    pub new: bool,
    /// Seconds: whole, decode child's CPU, preprocessing, towers, store, index.
    pub stages: StageSecs,
}

/// Where the time of one ingest went, seconds.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct StageSecs {
    /// Wall clock.
    pub total: f64,
    /// CPU of the decode child.
    pub decode: f64,
    /// Resize, windows.
    pub preprocess: f64,
    /// Towers.
    pub inference: f64,
    /// Store commits.
    pub store: f64,
    /// Index inserts.
    pub index: f64,
}

/// An opened library.
pub struct Library {
    embedder: Embedder,
    store: Arc<dyn Store>,
    index: Arc<IndexSet>,
}

impl Library {
    /// Opens or creates the data folder: takes its lock, migrates, reconciles after a crash
    /// (unfinished assets are re-queued), loads or rebuilds the indexes, starts the job worker.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn open(_config: LibraryConfig, _embedder: Embedder) -> Result<Arc<Self>, LibraryError> {
        Err(LibraryError::PathMissing(String::new()))
    }
    /// Embeds queries and files.
    #[must_use]
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }
    /// The store of record.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
    /// The indexes.
    #[must_use]
    pub fn index(&self) -> &Arc<IndexSet> {
        &self.index
    }
    /// Checks that a path given by a user lies beneath an allowed root (after resolving links).
    ///
    /// # Errors
    /// [`LibraryError::PathNotAllowed`], [`LibraryError::PathMissing`].
    pub fn allowed_path(&self, path: &Path) -> Result<PathBuf, LibraryError> {
        Err(LibraryError::PathNotAllowed(path.display().to_string()))
    }
    /// Accepts a file durably (hash, store row) without embedding it yet: (record, new).
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn accept(&self, _source: &IngestSource) -> Result<(AssetRecord, bool), LibraryError> {
        Err(LibraryError::PathMissing(String::new()))
    }
    /// Accepts, embeds, stores and indexes one file; returns when it is searchable. A file that
    /// cannot be decoded gives a report whose asset is `failed` with code and sentence.
    ///
    /// # Errors
    /// [`LibraryError`] for failures of ours, not the file's.
    pub async fn ingest(
        &self,
        _source: IngestSource,
        _priority: Priority,
    ) -> Result<IngestReport, LibraryError> {
        Err(LibraryError::PathMissing(String::new()))
    }
    /// Queues an accepted asset for embedding in the background (bounded).
    ///
    /// # Errors
    /// [`LibraryError::Busy`].
    pub fn enqueue(&self, _asset: AssetId) -> Result<(), LibraryError> {
        Err(LibraryError::Busy { retry_after_secs: 1 })
    }
    /// Searches.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn search(&self, _request: SearchRequest) -> Result<SearchResponse, LibraryError> {
        Err(LibraryError::PathMissing(String::new()))
    }
    /// Deletes an asset from store, index and (if owned) disk.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn delete_asset(&self, _id: AssetId) -> Result<(), LibraryError> {
        Err(LibraryError::PathMissing(String::new()))
    }
    /// Starts a durable job that indexes a folder (recursive) or a list of files.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn start_index_job(
        &self,
        _folder: &Path,
        _recursive: bool,
        _metadata: serde_json::Value,
        _idempotency_key: Option<&str>,
    ) -> Result<JobRecord, LibraryError> {
        Err(LibraryError::PathMissing(String::new()))
    }
    /// Cancels a job; running items are stopped at the next clip.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn cancel_job(&self, _id: JobId) -> Result<JobRecord, LibraryError> {
        Err(LibraryError::PathMissing(String::new()))
    }
    /// Tracks that have an index.
    #[must_use]
    pub fn tracks(&self) -> Vec<Track> {
        Track::ALL.to_vec()
    }
    /// Stops taking work, lets running clips finish, writes snapshots.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn shutdown(&self) -> Result<(), LibraryError> {
        Ok(())
    }
}
