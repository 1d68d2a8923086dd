//! Snapshots as people see them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::BackupError;
use super::destination::Meter;
use super::manifest::Manifest;
use crate::jobs::now_unix_ms;
use crate::types::{ModelId, SnapshotId, rfc3339_millis};

/// State of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Being taken.
    Running,
    /// There, whole.
    Ready,
    /// Not taken; `error` says why. Remembered until the next one or a restart.
    Failed,
    /// Its manifest is damaged: it cannot be restored.
    Damaged,
}

/// Why a snapshot failed or is damaged.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SnapshotProblem {
    /// Stable snake_case code.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

/// How far one is that is being taken.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct SnapshotProgress {
    /// Uploads looked at.
    pub media_done: u64,
    /// Uploads in all; 0 until the store is copied.
    pub media_total: u64,
    /// Bytes that are there, found or copied.
    pub bytes_done: u64,
    /// Bytes in all; 0 until the store is copied.
    pub bytes_total: u64,
}

/// What a snapshot holds.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SnapshotContents {
    /// Model whose vectors these are: it is needed to open the library again.
    #[schema(value_type = String)]
    pub model: ModelId,
    /// The store's number at that moment; it rises with every change of clips.
    pub sequence: i64,
    /// Assets.
    pub assets: u64,
    /// Clips.
    pub clips: u64,
    /// Seconds of media.
    pub media_secs: f64,
    /// Files of its own: the store, the indexes.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Uploads it needs, shared with other snapshots.
    pub media_files: u64,
    /// Their bytes.
    pub media_bytes: u64,
    /// Uploads that no earlier snapshot had brought.
    pub copied_files: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Uploads that are not in it because they were missing or damaged in the data folder.
    pub lacking: u64,
    /// Assets indexed by path, whose files are not in it.
    pub by_path: u64,
}

/// One backup of the library.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SnapshotView {
    /// Always `snapshot`.
    pub object: &'static str,
    /// Its id.
    pub id: SnapshotId,
    /// State.
    pub state: SnapshotState,
    /// Why it failed or is damaged.
    pub error: Option<SnapshotProblem>,
    /// When it was begun, RFC 3339 UTC; null where its manifest is damaged.
    pub created_at: Option<String>,
    /// Taken by the clock rather than by somebody; such ones are deleted by the clock too.
    pub scheduled: bool,
    /// While it is being taken.
    pub progress: Option<SnapshotProgress>,
    /// Once it is ready.
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

/// A snapshot that is being taken, or that could not be.
#[derive(Debug)]
pub(super) struct Running {
    pub id: SnapshotId,
    pub created_unix_ms: i64,
    pub scheduled: bool,
    pub meter: Arc<Meter>,
    /// Fires when it has ended, however it ended.
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
        // Ended without a word: it panicked.
        let silent = || SnapshotProblem { code: "internal", message: "the snapshot was cut off".to_owned() };
        let error = error.or_else(|| self.done.is_cancelled().then(silent));
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let progress = SnapshotProgress {
            media_done: of(&self.media_done),
            media_total: of(&self.media_total),
            // Small files of the snapshot's own are counted as they come.
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
