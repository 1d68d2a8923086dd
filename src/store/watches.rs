//! What the store keeps of watched folders.

use serde::{Deserialize, Serialize};

use crate::types::{AssetId, JobId, WatchId};

/// What to watch.
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
    /// Your JSON object, copied to each asset.
    pub metadata: serde_json::Value,
    /// Seconds between two scans.
    pub poll_secs: u64,
    /// Whether to delete the assets of files that no longer exist.
    pub delete_missing: bool,
}

/// One watched folder.
#[derive(Debug, Clone)]
pub struct WatchRecord {
    /// Id.
    pub id: WatchId,
    /// What was requested.
    pub spec: WatchSpec,
    /// Number of files found by the last scan.
    pub files: u64,
    /// The newest job it made.
    pub job: Option<JobId>,
    /// The end of that job that was noted, Unix milliseconds; 0: not yet.
    pub settled_unix_ms: i64,
    /// Jobs it has made.
    pub jobs_made: u64,
    /// Time in Unix milliseconds; 0 if not yet.
    pub last_look_unix_ms: i64,
    /// Why the last scan failed or was incomplete; null otherwise.
    pub error: Option<(String, String)>,
    /// Unix milliseconds.
    pub created_unix_ms: i64,
}

/// One file of a watched folder, as it was at the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedFile {
    /// Its path.
    pub path: String,
    /// Bytes.
    pub size_bytes: u64,
    /// When it was last written, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Whether it was the same at the look before.
    pub stable: bool,
    /// How often in turn it was not there.
    pub missing_looks: u32,
    /// Size and time when it was last given to a job.
    pub taken: Option<(u64, i64)>,
    /// What it became.
    pub asset: Option<AssetId>,
}
