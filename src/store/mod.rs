//! The store: assets, clips, vectors, jobs. The indexes are derived from it.

mod checks;
mod ended;
mod export;
mod full;
mod lock;
mod sqlite;
mod standing;
mod upkeep;
mod watches;
mod webhooks;

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use checks::{AssetFacts, Checks, ContentNote, Damage, DamagedRow, DamagedVectors, changed_ns, mtime_ns};
pub use export::{ClipCursor, ExportedClip};
pub use full::{StorageFull, TellsFull};
pub use lock::FolderLock;
pub use sqlite::{CopiedAsset, CopyFacts, DATABASE, FILES, SqliteStore, StoreCopy};
pub use standing::{
    MatchRecord, MatchedMoment, NewMatch, NewStanding, PendingAsset, PendingEnd, Settled, StandingChange,
    StandingRecord, StandingStore, StandingVectors,
};
pub use upkeep::{DeletedAsset, RetentionRule, RetentionRun, StoreSpace, Upkeep};
pub use watches::{WatchRecord, WatchSpec, WatchedFile};
pub use webhooks::{Attempt, DeliveryRecord, DeliveryState, DueDelivery, NewWebhook, WebhookStore};

use crate::types::{
    AssetId, AssetKind, ClipId, Embedding, JobId, ModelId, Space, TimeSpan, Track, TrackChoice, TrackInfo,
    TrackKind, WatchId,
};

/// Why the store refused a request or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing has this id.
    #[error("no {0} with this id")]
    NotFound(&'static str),
    /// The disk accepts no more bytes.
    #[error(transparent)]
    StorageFull(#[from] StorageFull),
    /// Pages of the database are damaged, or the file is not a database.
    #[error("the database is damaged: {0}")]
    Malformed(String),
    /// The database failed.
    #[error("the store failed: {0}")]
    Database(String),
    /// A stored row cannot be read.
    #[error("a stored {0}")]
    DamagedRow(String),
    /// A stored vector's checksum does not match.
    #[error("the stored vector of clip {0} is damaged")]
    DamagedVector(i64),
    /// Another process has the data folder open.
    #[error("the data folder is in use by another process: {0}")]
    Locked(String),
    /// Another model has taken over from this store.
    #[error("another model is taking over; try again in a moment")]
    Sealed,
    /// The data folder holds vectors of another model.
    #[error(
        "expected vectors of model {wanted} in the data folder, got vectors of {found}; use that model, or another folder"
    )]
    OtherModel {
        /// Model of the stored vectors.
        found: String,
        /// Model that was to be used.
        wanted: String,
    },
}

impl TellsFull for StoreError {
    fn storage_full(&self) -> Option<StorageFull> {
        if let Self::StorageFull(full) = self { Some(*full) } else { None }
    }
}

impl StoreError {
    /// An input/output error on a file of the data folder.
    pub(crate) fn of_io(path: &Path, error: &std::io::Error) -> Self {
        let failed = || Self::Database(format!("{}: {error}", path.display()));
        StorageFull::of_io(error).map_or_else(failed, Self::StorageFull)
    }

    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::StorageFull(_) => StorageFull::CODE,
            Self::Malformed(_) => "store_unreadable",
            Self::Database(_) => "store_failed",
            Self::DamagedRow(_) => "damaged_row",
            Self::DamagedVector(_) => "damaged_vector",
            Self::Locked(_) => "data_folder_locked",
            Self::Sealed => "switching_models",
            Self::OtherModel { .. } => "other_model",
        }
    }
}

/// State of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssetState {
    /// Accepted, clips are coming.
    Indexing,
    /// All clips are searchable.
    Ready,
    /// Searchable as far as it could be read; `error` says why not further.
    Partial,
    /// Nothing could be read; `error` says why.
    Failed,
}

impl AssetState {
    /// The name used in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Indexing => "indexing",
            Self::Ready => "ready",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "indexing" => Some(Self::Indexing),
            "ready" => Some(Self::Ready),
            "partial" => Some(Self::Partial),
            "failed" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// An asset as stored.
#[derive(Debug, Clone)]
pub struct AssetRecord {
    /// Id of the asset.
    pub id: AssetId,
    /// SHA-256 of the content in lower-case hex.
    pub sha256: String,
    /// Display name (the file name given by the user).
    pub name: String,
    /// Path of the bytes.
    pub path: String,
    /// Whether the file is an upload, to be deleted with the asset.
    pub owned: bool,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Kind; `None` until known.
    pub kind: Option<AssetKind>,
    /// Duration in seconds.
    pub duration_secs: f64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// State of the asset.
    pub state: AssetState,
    /// Error code and message if the state is failed or partial.
    pub error: Option<(String, String)>,
    /// The user's JSON object.
    pub metadata: serde_json::Value,
    /// Number of clips.
    pub clips: u64,
    /// When it was accepted, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// When it was last changed, in Unix milliseconds.
    pub updated_unix_ms: i64,
    /// When its file was last written to (an upload) or last changed (a user's file), in nanoseconds since
    /// 1970; `None` if not noted yet.
    pub file_mtime_ns: Option<i64>,
    /// Known damage; `None` if there is none.
    pub damage: Option<Damage>,
    /// The tracks that the user chose.
    pub choice: TrackChoice,
    /// All file tracks, and which of them were read; empty until known, and for pictures.
    pub tracks: Vec<TrackInfo>,
}

impl AssetRecord {
    /// See [`content_key`].
    #[must_use]
    pub fn content_key(&self) -> String {
        content_key(&self.sha256, self.choice)
    }

    /// The tracks that were read, as a choice to read them again.
    #[must_use]
    pub fn tracks_read(&self) -> TrackChoice {
        let used = |kind: TrackKind| {
            let mut tracks = self.tracks.iter().filter(move |track| track.used && track.kind == kind);
            // Several sound tracks read together are found again by their properties.
            tracks.next().filter(|_| tracks.next().is_none()).map(|track| track.index)
        };
        TrackChoice {
            video: used(TrackKind::Video).or(self.choice.video),
            audio: used(TrackKind::Audio).or(self.choice.audio),
        }
    }
}

/// Key of what is indexed: the same bytes with other tracks are another asset.
#[must_use]
pub fn content_key(sha256: &str, choice: TrackChoice) -> String {
    format!("{sha256}{}", choice.key())
}

/// What is known about an asset when it is accepted. Its identity is (sha256, model, segmentation).
#[derive(Debug, Clone)]
pub struct NewAsset {
    /// Id and creation time, if another model's store has assigned them.
    pub given: Option<(AssetId, i64)>,
    /// SHA-256 of the content in lower-case hex.
    pub sha256: String,
    /// The model that embeds it.
    pub model: ModelId,
    /// Segmentation key, such as `w3.2/s3.2`; includes the chosen tracks, as in `w3.2/s3.2/a2`.
    pub segmentation: String,
    /// The tracks that the user chose.
    pub choice: TrackChoice,
    /// Display name.
    pub name: String,
    /// Path of the bytes.
    pub path: String,
    /// Whether the file is an upload.
    pub owned: bool,
    /// Size in bytes.
    pub size_bytes: u64,
    /// The user's JSON object.
    pub metadata: serde_json::Value,
}

/// A clip to store, with its vectors.
#[derive(Debug, Clone)]
pub struct NewClip {
    /// Its span within the asset.
    pub span: TimeSpan,
    /// One vector per track and space.
    pub vectors: Vec<(Track, Space, Embedding)>,
    /// Cosine of its own sound and picture; `None` if it lacks one of them.
    pub agreement: Option<f32>,
}

/// A stored clip, without vectors.
#[derive(Debug, Clone)]
pub struct ClipRecord {
    /// Id of the clip.
    pub id: ClipId,
    /// Id of its asset.
    pub asset: AssetId,
    /// Its span within the asset.
    pub span: TimeSpan,
    /// Cosine of its own sound and picture; `None` if it lacks one of them.
    pub agreement: Option<f32>,
}

/// The outcome of indexing an asset.
#[derive(Debug, Clone)]
pub struct AssetOutcome {
    /// Ready, partial or failed.
    pub state: AssetState,
    /// Kind, if known.
    pub kind: Option<AssetKind>,
    /// Duration in seconds.
    pub duration_secs: f64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Error code and message for partial and failed.
    pub error: Option<(String, String)>,
    /// All file tracks, and which of them were read.
    pub tracks: Vec<TrackInfo>,
}

/// What a set of clips holds, so that two of them can be compared without reading them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VectorCensus {
    /// Number of clips.
    pub clips: u64,
    /// Sum of their ids.
    pub sum_of_ids: i64,
}

/// Size of a library.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Totals {
    /// Number of assets in any state.
    pub assets: u64,
    /// Number of clips.
    pub clips: u64,
    /// Total duration of the searchable assets, in seconds.
    pub media_secs: f64,
}

/// State of a job or of one of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkState {
    /// Waiting.
    Queued,
    /// Running.
    Running,
    /// Done.
    Done,
    /// Failed; `error` says why.
    Failed,
    /// Cancelled by a user.
    Cancelled,
    /// Paused by a user (jobs only): what runs ends, nothing new is begun.
    Paused,
    /// Left out (items only); `error` says why.
    Skipped,
}

impl WorkState {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Cancelled, Self::Paused, Self::Skipped];

    /// Whether the work has ended: it changes no more, unless a user retries it.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// The name used in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Skipped => "skipped",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// A job as stored.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// Id of the job.
    pub id: JobId,
    /// Kind of job, such as `index`.
    pub kind: String,
    /// The request as JSON.
    pub request: serde_json::Value,
    /// State of the job.
    pub state: WorkState,
    /// Total number of items.
    pub items_total: u64,
    /// Number of items indexed.
    pub items_done: u64,
    /// Number of items that failed.
    pub items_failed: u64,
    /// Number of items left out.
    pub items_skipped: u64,
    /// Number of items done that could be read only in part.
    pub items_partial: u64,
    /// Number of clips indexed so far.
    pub clips: u64,
    /// Seconds of media indexed so far.
    pub media_secs: f64,
    /// Error code and message if it failed.
    pub error: Option<(String, String)>,
    /// When it was created, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// When it started, in Unix milliseconds; 0 until then.
    pub started_unix_ms: i64,
    /// When it ended, in Unix milliseconds; 0 until then.
    pub ended_unix_ms: i64,
}

/// An item for a new job.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// The file: a path, a URL or `s3://bucket/key`.
    pub path: String,
    /// Display name, if it is not the file's name.
    pub name: Option<String>,
    /// The user's JSON object for this item.
    pub metadata: serde_json::Value,
    /// Code and message if the item is left out.
    pub skipped: Option<(String, String)>,
    /// The tracks that the user chose.
    pub choice: TrackChoice,
}

impl NewItem {
    /// An item to index.
    #[must_use]
    pub fn new(path: String, metadata: serde_json::Value) -> Self {
        Self { path, name: None, metadata, skipped: None, choice: TrackChoice::default() }
    }
}

/// An item (file) of a job, as stored.
#[derive(Debug, Clone)]
pub struct JobItem {
    /// Position in the job, counted from 0.
    pub seq: i64,
    /// The file: a path, a URL or `s3://bucket/key`.
    pub path: String,
    /// Display name, if it is not the file's name.
    pub name: Option<String>,
    /// The user's JSON object for this item.
    pub metadata: serde_json::Value,
    /// State of the item.
    pub state: WorkState,
    /// Id of the asset; `None` until there is one.
    pub asset: Option<AssetId>,
    /// Number of clips indexed.
    pub clips: u64,
    /// Duration of the media in seconds.
    pub media_secs: f64,
    /// Code and message if it failed or was left out, or why it is retried.
    pub error: Option<(String, String)>,
    /// Number of attempts that were postponed.
    pub attempts: u32,
    /// Earliest time of the next attempt, in Unix milliseconds; 0: at once.
    pub not_before_unix_ms: i64,
    /// The tracks that the user chose.
    pub choice: TrackChoice,
}

/// All queries and changes of the store. SQLite is the default; Postgres can implement the same trait.
#[async_trait]
pub trait Store: StandingStore + WebhookStore + Upkeep + Checks {
    /// Accepts an asset. Returns (record, true) if it is new, (existing record, false) if its identity is
    /// already stored. A failed or unfinished asset of the same identity is reset to indexing (its clips are
    /// dropped) and returned as new.
    async fn begin_asset(&self, new: NewAsset) -> Result<(AssetRecord, bool), StoreError>;
    /// Commits clips with their vectors in one transaction; returns their ids in order.
    async fn add_clips(&self, asset: AssetId, clips: &[NewClip]) -> Result<Vec<ClipId>, StoreError>;
    /// Records the outcome of an asset.
    async fn finish_asset(&self, asset: AssetId, outcome: AssetOutcome) -> Result<AssetRecord, StoreError>;
    /// Looks up one asset.
    async fn asset(&self, id: AssetId) -> Result<AssetRecord, StoreError>;
    /// Assets by id, in one query and in no particular order; missing ones are left out.
    async fn assets(&self, ids: &[AssetId]) -> Result<Vec<AssetRecord>, StoreError>;
    /// Assets, newest first; `after` is the last id of the previous page.
    async fn list_assets(&self, after: Option<AssetId>, limit: u32) -> Result<Vec<AssetRecord>, StoreError>;
    /// Assets indexed from a user's file at this path, whatever its content.
    async fn assets_at(&self, path: &str) -> Result<Vec<AssetRecord>, StoreError>;
    /// Some of the paths at which jobs and watches found an asset's bytes.
    async fn asset_paths(&self, id: AssetId) -> Result<Vec<String>, StoreError>;
    /// Assets that a crash left in `indexing`.
    async fn unfinished_assets(&self) -> Result<Vec<AssetRecord>, StoreError>;
    /// Writes path, ownership, name and metadata of assets in one transaction and changes nothing else.
    /// Returns the new records.
    async fn describe_assets(&self, records: &[AssetRecord]) -> Result<Vec<AssetRecord>, StoreError>;
    /// Deletes an asset with its clips and vectors; returns the ids of the clips.
    async fn delete_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError>;
    /// Drops the clips of an asset that is to be indexed again and sets it to `indexing`; returns the ids of
    /// the clips. Also for assets that a crash left unfinished, whose clips may be in an index.
    async fn reset_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError>;
    /// The clips of an asset, ordered by time.
    async fn clips_of(&self, asset: AssetId) -> Result<Vec<ClipRecord>, StoreError>;
    /// The clips of an asset, ordered by time, each with the tracks for which it has vectors.
    async fn clips_with_tracks(&self, asset: AssetId) -> Result<Vec<(ClipRecord, Vec<Track>)>, StoreError>;
    /// Clips by id; missing ones are left out.
    async fn clips(&self, ids: &[ClipId]) -> Result<Vec<ClipRecord>, StoreError>;
    /// Clips with an id > `after`, ordered by id, at most `limit`.
    async fn scan_clips(&self, after: ClipId, limit: u32) -> Result<Vec<ClipRecord>, StoreError>;
    /// Clips with an id > `after` that have no agreement yet, ordered by id, at most `limit`.
    async fn clips_without_agreement(&self, after: ClipId, limit: u32) -> Result<Vec<ClipId>, StoreError>;
    /// Stores agreements of clips.
    async fn set_agreements(&self, agreements: &[(ClipId, f32)]) -> Result<(), StoreError>;
    /// The vectors of one clip.
    async fn clip_vectors(&self, id: ClipId) -> Result<Vec<(Track, Space, Embedding)>, StoreError>;
    /// Clip ids (ascending) and vectors of one track and space, with an id > `after`, at most `limit`,
    /// whatever the state of their assets. The second list has the damaged rows.
    async fn scan_vectors(
        &self,
        track: Track,
        space: &Space,
        after: ClipId,
        limit: u32,
    ) -> Result<(Vec<(ClipId, Embedding)>, Vec<ClipId>), StoreError>;
    /// Clips of finished assets with their vectors, of all assets or of one, with an id > `after`.
    async fn export(&self, asset: Option<AssetId>, after: ClipId) -> Result<Box<dyn ClipCursor>, StoreError>;
    /// The clips that have a vector of this track and space: enough to tell whether an index holds what the store
    /// does, without reading vectors.
    async fn vector_census(&self, track: Track, space: &Space) -> Result<VectorCensus, StoreError>;
    /// Monotonic number that changes with every committed change of clips.
    async fn sequence(&self) -> Result<i64, StoreError>;
    /// Monotonic number that rises with every committed change that is acknowledged: of assets, jobs and
    /// other user settings. It never falls, even when another model's store takes over.
    async fn acknowledged(&self) -> Result<i64, StoreError>;
    /// The size of the library.
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// Creates a job with its items; it is durable on return. A known `idempotency_key` returns the earlier
    /// job.
    async fn create_job(
        &self,
        kind: &str,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
    ) -> Result<JobRecord, StoreError>;
    /// Looks up one job.
    async fn job(&self, id: JobId) -> Result<JobRecord, StoreError>;
    /// Jobs, newest first, of one state or of all; `after` is the last id of the previous page.
    async fn list_jobs(
        &self,
        state: Option<WorkState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRecord>, StoreError>;
    /// Number of jobs per state; states without jobs are left out.
    async fn job_counts(&self) -> Result<BTreeMap<WorkState, u64>, StoreError>;
    /// Items of a job after `after_seq` (exclusive; -1 for all), of one state or of all.
    async fn job_items(
        &self,
        id: JobId,
        state: Option<WorkState>,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JobItem>, StoreError>;
    /// Claims the next due item of the oldest active job, and marks both as running.
    async fn claim_item(&self) -> Result<Option<(JobId, JobItem)>, StoreError>;
    /// Records the outcome of an item, and ends the job after its last item. An item that has already ended
    /// changes nothing; one handed back as `queued` waits again.
    async fn finish_item(&self, job: JobId, item: &JobItem) -> Result<JobRecord, StoreError>;
    /// Unfinished jobs, oldest first.
    async fn unended_jobs(&self) -> Result<Vec<JobId>, StoreError>;
    /// Cancels a job and its queued items.
    async fn cancel_job(&self, id: JobId) -> Result<JobRecord, StoreError>;
    /// Pauses an active job, or resumes a paused one; any other job does not change.
    async fn pause_job(&self, id: JobId, paused: bool) -> Result<JobRecord, StoreError>;
    /// Queues the failed items of a job again, and resumes the job if it had ended. Returns the job and the
    /// number of items. A cancelled job does not change.
    async fn retry_failed(&self, id: JobId) -> Result<(JobRecord, u64), StoreError>;
    /// For use after a start: queues running items again, and makes postponed items due. Returns how many had
    /// been running.
    async fn requeue_running(&self) -> Result<u64, StoreError>;

    /// Until unsealed, every change is refused with [`StoreError::Sealed`]; changes already begun have ended
    /// when this returns.
    async fn seal(&self, sealed: bool);
    /// Deletes everything that was not derived from media: jobs and other user settings.
    async fn clear_work(&self) -> Result<(), StoreError>;
    /// Copies jobs and other user settings from the sealed store in another folder, in one transaction.
    async fn adopt_work(&self, from: &Path) -> Result<(), StoreError>;
    /// Starts watching a folder.
    async fn create_watch(&self, spec: &WatchSpec) -> Result<WatchRecord, StoreError>;
    /// Looks up one watch.
    async fn watch(&self, id: WatchId) -> Result<WatchRecord, StoreError>;
    /// All watches, newest first.
    async fn list_watches(&self) -> Result<Vec<WatchRecord>, StoreError>;
    /// Ends a watch; its assets and jobs stay.
    async fn delete_watch(&self, id: WatchId) -> Result<(), StoreError>;
    /// Records that a poll was made, and why it was incomplete.
    async fn note_look(&self, id: WatchId, error: Option<&(String, String)>) -> Result<(), StoreError>;
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
    /// Stores what a poll found out about files.
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
