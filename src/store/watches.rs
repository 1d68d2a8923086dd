//! Watched folders, as stored.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{StoreError, WorkError};
use crate::types::{AssetId, JobId, TrackChoice, WatchId};

/// The settings of a watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchSpec {
    /// The folder, resolved.
    pub path: String,
    /// Whether subfolders are included.
    pub recursive: bool,
    /// Only files that match one of these globs are indexed.
    pub include: Vec<String>,
    /// Files that match one of these globs are skipped.
    pub exclude: Vec<String>,
    /// The user's JSON object, copied to each asset.
    pub metadata: serde_json::Value,
    /// Seconds between two polls.
    pub poll_secs: u64,
    /// Whether to delete the assets of files that no longer exist.
    pub delete_missing: bool,
    /// The tracks to read from each file.
    #[serde(default, skip_serializing_if = "TrackChoice::is_open")]
    pub choice: TrackChoice,
}

/// A watched folder as stored.
#[derive(Debug, Clone)]
pub struct WatchRecord {
    /// Id of the watch.
    pub id: WatchId,
    /// Settings of the watch.
    pub spec: WatchSpec,
    /// Number of files found by the last poll.
    pub files: u64,
    /// The newest job that it started.
    pub job: Option<JobId>,
    /// End of the job whose results were recorded last, in Unix milliseconds; 0 if there is none.
    pub settled_unix_ms: i64,
    /// Number of jobs started so far.
    pub jobs_made: u64,
    /// Time of the last poll in Unix milliseconds; 0 if there was none.
    pub last_look_unix_ms: i64,
    /// Code and message if the last poll failed or was incomplete.
    pub error: Option<WorkError>,
    /// When it was created, in Unix milliseconds.
    pub created_unix_ms: i64,
}

/// A file of a watched folder, as of the last poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedFile {
    /// Path of the file.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Time of the last write, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Whether it was unchanged since the poll before.
    pub stable: bool,
    /// Number of consecutive polls that missed it.
    pub missing_looks: u32,
    /// Size and time when it was last given to a job; `None` if it never was.
    pub taken: Option<(u64, i64)>,
    /// The asset indexed from it, if there is one.
    pub asset: Option<AssetId>,
}

/// Watched folders and their files.
#[async_trait]
pub trait WatchStore: Send + Sync {
    /// Starts watching a folder.
    async fn create_watch(&self, spec: &WatchSpec) -> Result<WatchRecord, StoreError>;
    /// Looks up one watch.
    async fn watch(&self, id: WatchId) -> Result<WatchRecord, StoreError>;
    /// All watches, newest first.
    async fn list_watches(&self) -> Result<Vec<WatchRecord>, StoreError>;
    /// Ends a watch; its assets and jobs stay.
    async fn delete_watch(&self, id: WatchId) -> Result<(), StoreError>;
    /// Records that a poll was made, and why it was incomplete.
    async fn note_look(&self, id: WatchId, error: Option<&WorkError>) -> Result<(), StoreError>;
    /// Files of a watch after this path, ordered by path.
    async fn watch_files(&self, id: WatchId, after: &str, limit: u32)
    -> Result<Vec<WatchedFile>, StoreError>;
    /// The files with these paths, in no particular order.
    async fn watch_files_named(&self, id: WatchId, paths: &[String]) -> Result<Vec<WatchedFile>, StoreError>;
    /// Files that were missing in this many consecutive polls.
    async fn watch_files_gone(
        &self,
        id: WatchId,
        looks: u32,
        limit: u32,
    ) -> Result<Vec<WatchedFile>, StoreError>;
    /// Paths of files that have stopped growing and differ from what was last given to a job.
    async fn watch_files_ready(&self, id: WatchId, limit: u32) -> Result<Vec<String>, StoreError>;
    /// Stores the results of a poll.
    async fn put_watch_files(&self, id: WatchId, files: &[WatchedFile]) -> Result<(), StoreError>;
    /// Removes a file from a watch.
    async fn drop_watch_file(&self, id: WatchId, path: &str) -> Result<(), StoreError>;
    /// Records the newest job of a watch, and its files, as last seen, as given to a job.
    async fn begin_watch_job(&self, id: WatchId, job: JobId) -> Result<(), StoreError>;
    /// Records that the results of the newest job are stored.
    async fn settle_watch(&self, id: WatchId, ended_unix_ms: i64) -> Result<(), StoreError>;
    /// Whether another watched file has the same asset.
    async fn asset_has_other_file(&self, asset: AssetId, id: WatchId, path: &str)
    -> Result<bool, StoreError>;
}
