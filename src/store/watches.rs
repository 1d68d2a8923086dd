//! Watched folders, as stored.

use serde::{Deserialize, Serialize};

use crate::types::{AssetId, JobId, WatchId};

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
}

/// A watched folder as stored.
#[derive(Debug, Clone)]
pub struct WatchRecord {
    /// Id of the watch.
    pub id: WatchId,
    /// Its settings.
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
    pub error: Option<(String, String)>,
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
