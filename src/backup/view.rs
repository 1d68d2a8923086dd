//! Snapshots as the API shows them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::BackupError;
use super::destination::Meter;
use super::manifest::Manifest;
use crate::types::{ModelId, SnapshotId, now_unix_ms, rfc3339_millis};

/// State of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// It is still being taken.
    Running,
    /// Complete and verified by its manifest.
    Ready,
    /// Not taken; `error` says why. Remembered until the next one or a restart.
    Failed,
    /// Its manifest is damaged: it cannot be restored.
    Damaged,
}

/// Why a snapshot failed or is damaged.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SnapshotProblem {
    /// Stable error code in snake_case.
    pub code: &'static str,
    /// Human-readable message.
    pub message: String,
}

/// Progress of a snapshot that is being taken.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct SnapshotProgress {
    /// Number of uploads processed.
    pub media_done: u64,
    /// Total number of uploads; 0 until the store is copied.
    pub media_total: u64,
    /// Number of bytes copied or already present.
    pub bytes_done: u64,
    /// Total number of bytes; 0 until the store is copied.
    pub bytes_total: u64,
}

/// Contents of a snapshot.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SnapshotContents {
    /// Model of the vectors; it is needed to open the restored library.
    #[schema(value_type = String)]
    pub model: ModelId,
    /// Sequence number of the store; it increases with each change of clips.
    pub sequence: i64,
    /// Assets.
    pub assets: u64,
    /// Clips.
    pub clips: u64,
    /// Duration of the media in seconds.
    pub media_secs: f64,
    /// Number of its own files: the store and the indexes.
    pub files: u64,
    /// Their size in bytes.
    pub file_bytes: u64,
    /// Number of uploads it needs, shared with other snapshots.
    pub media_files: u64,
    /// Their size in bytes.
    pub media_bytes: u64,
    /// Number of uploads copied because no earlier snapshot had them.
    pub copied_files: u64,
    /// Their size in bytes.
    pub copied_bytes: u64,
    /// Number of uploads left out because they were missing or damaged in the data folder.
    pub lacking: u64,
    /// Number of assets indexed by path, whose files are not included.
    pub by_path: u64,
}

/// One backup of the library.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SnapshotView {
    /// Always `snapshot`.
    pub object: &'static str,
    /// Id.
    pub id: SnapshotId,
    /// State.
    pub state: SnapshotState,
    /// Why it failed or is damaged; null otherwise.
    pub error: Option<SnapshotProblem>,
    /// When it was started, RFC 3339 UTC; null if its manifest is damaged.
    pub created_at: Option<String>,
    /// Whether it was taken automatically; automatic snapshots are also deleted automatically.
    pub scheduled: bool,
    /// Progress while it is being taken; null otherwise.
    pub progress: Option<SnapshotProgress>,
    /// What it contains; null until it is ready.
    pub contents: Option<SnapshotContents>,
}

impl SnapshotView {
    pub(super) fn ready(manifest: &Manifest) -> Self {
        Self {
            object: "snapshot",
            id: manifest.id,
            state: SnapshotState::Ready,
            error: None,
            created_at: Some(rfc3339_millis(manifest.created_unix_ms)),
            scheduled: manifest.scheduled,
            progress: None,
            contents: Some(SnapshotContents {
                model: manifest.model.clone(),
                sequence: manifest.sequence,
                assets: manifest.assets,
                clips: manifest.clips,
                media_secs: manifest.media_secs,
                files: manifest.files.len() as u64,
                file_bytes: manifest.file_bytes(),
                media_files: manifest.media_files,
                media_bytes: manifest.media_bytes,
                copied_files: manifest.copied_files,
                copied_bytes: manifest.copied_bytes,
                lacking: manifest.lacking,
                by_path: manifest.by_path,
            }),
        }
    }

    pub(super) fn damaged(id: SnapshotId, error: &BackupError) -> Self {
        Self {
            object: "snapshot",
            id,
            state: SnapshotState::Damaged,
            error: Some(problem(error)),
            created_at: None,
            scheduled: false,
            progress: None,
            contents: None,
        }
    }
}

fn problem(error: &BackupError) -> SnapshotProblem {
    SnapshotProblem { code: error.code(), message: error.without_paths() }
}

/// A snapshot that is being taken, or that failed.
#[derive(Debug)]
pub(super) struct Running {
    pub id: SnapshotId,
    pub created_unix_ms: i64,
    pub scheduled: bool,
    pub meter: Arc<Meter>,
    /// Fires when the work has ended, whatever the outcome.
    pub done: CancellationToken,
    media_done: AtomicU64,
    media_total: AtomicU64,
    bytes_total: AtomicU64,
    failed: Mutex<Option<SnapshotProblem>>,
}

impl Running {
    pub fn begin(scheduled: bool, cancel: CancellationToken) -> Self {
        Self {
            id: SnapshotId::generate(),
            created_unix_ms: now_unix_ms(),
            scheduled,
            meter: Arc::new(Meter::stopped_by(cancel)),
            done: CancellationToken::new(),
            media_done: AtomicU64::new(0),
            media_total: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
            failed: Mutex::new(None),
        }
    }

    pub fn expect(&self, media: u64, bytes: u64) {
        self.media_total.store(media, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub fn one_done(&self) {
        self.media_done.fetch_add(1, Ordering::Relaxed);
    }

    pub fn is_running(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        !failed && !self.done.is_cancelled()
    }

    pub fn fail(&self, error: &BackupError) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem(error));
    }

    pub fn view(&self) -> SnapshotView {
        let error = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Ended without an error: it panicked.
        let silent = || SnapshotProblem { code: "internal", message: "the snapshot was cut off".to_owned() };
        let error = error.or_else(|| self.done.is_cancelled().then(silent));
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let progress = SnapshotProgress {
            media_done: of(&self.media_done),
            media_total: of(&self.media_total),
            // The snapshot's own small files are counted as they are written.
            bytes_done: of(&self.meter.bytes_done).min(of(&self.bytes_total)),
            bytes_total: of(&self.bytes_total),
        };
        SnapshotView {
            object: "snapshot",
            id: self.id,
            state: if error.is_some() { SnapshotState::Failed } else { SnapshotState::Running },
            error,
            created_at: Some(rfc3339_millis(self.created_unix_ms)),
            scheduled: self.scheduled,
            progress: Some(progress),
            contents: None,
        }
    }
}
