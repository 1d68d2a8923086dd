//! The store of record: assets, clips, vectors, jobs. The index is derived from it.

mod checks;
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
pub use full::StorageFull;
pub use lock::FolderLock;
pub use sqlite::{CopiedAsset, CopyFacts, DATABASE, SqliteStore, StoreCopy};
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

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of that id.
    #[error("no {0} with this id")]
    NotFound(&'static str),
    /// The disk takes no more bytes.
    #[error(transparent)]
    StorageFull(#[from] StorageFull),
    /// Pages of the database are damaged, or it is none.
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
    /// Another model has taken over.
    #[error("another model is taking over; try again in a moment")]
    Sealed,
    /// The data folder holds vectors of another model.
    #[error(
        "expected vectors of model {wanted} in the data folder, got vectors of {found}; use that model, or another folder"
    )]
    OtherModel {
        /// ModelId found.
        found: String,
        /// ModelId wanted.
        wanted: String,
    },
}

impl StoreError {
    /// A failure of input/output on a file of the data folder.
    pub(crate) fn of_io(path: &Path, error: &std::io::Error) -> Self {
        let failed = || Self::Database(format!("{}: {error}", path.display()));
        StorageFull::of_io(error).map_or_else(failed, Self::StorageFull)
    }

    /// Stable code.
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

    /// The state of this name.
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

/// One asset as stored.
#[derive(Debug, Clone)]
pub struct AssetRecord {
    /// Id.
    pub id: AssetId,
    /// Content SHA-256, lower-case hex.
    pub sha256: String,
    /// Display name (the file name given by the user).
    pub name: String,
    /// Where the bytes are.
    pub path: String,
    /// Whether the bytes are our own copy (an upload), to be deleted with the asset.
    pub owned: bool,
    /// Bytes.
    pub size_bytes: u64,
    /// Kind; None until known.
    pub kind: Option<AssetKind>,
    /// Seconds.
    pub duration_secs: f64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// State.
    pub state: AssetState,
    /// Stable code and sentence where state is failed or partial.
    pub error: Option<(String, String)>,
    /// Your JSON object.
    pub metadata: serde_json::Value,
    /// Number of clips.
    pub clips: u64,
    /// Unix milliseconds.
    pub created_unix_ms: i64,
    /// Unix milliseconds.
    pub updated_unix_ms: i64,
    /// When its file was last written to (our own copy) or last changed (a file of a user), as far as was noted;
    /// nanoseconds since 1970.
    pub file_mtime_ns: Option<i64>,
    /// What is known to be wrong with it.
    pub damage: Option<Damage>,
    /// The tracks that somebody chose.
    pub choice: TrackChoice,
    /// All tracks, and which of them were read; none until known, and none of a picture.
    pub tracks: Vec<TrackInfo>,
}

impl AssetRecord {
    /// What tells what is indexed of which bytes.
    #[must_use]
    pub fn content_key(&self) -> String {
        content_key(&self.sha256, self.choice)
    }

    /// The tracks that were read, to be read once more.
    #[must_use]
    pub fn tracks_read(&self) -> TrackChoice {
        let used = |kind: TrackKind| {
            let mut tracks = self.tracks.iter().filter(move |track| track.used && track.kind == kind);
            // Several sound tracks that are read together are found again by what they are.
            tracks.next().filter(|_| tracks.next().is_none()).map(|track| track.index)
        };
        TrackChoice {
            video: used(TrackKind::Video).or(self.choice.video),
            audio: used(TrackKind::Audio).or(self.choice.audio),
        }
    }
}

/// What tells what is indexed of which bytes: the same bytes with other tracks are another asset.
#[must_use]
pub fn content_key(sha256: &str, choice: TrackChoice) -> String {
    format!("{sha256}{}", choice.key())
}

/// What is known when an asset is accepted. Identity is (sha256, model, segmentation).
#[derive(Debug, Clone)]
pub struct NewAsset {
    /// The id and the time it was created at, where another model's store gave it them.
    pub given: Option<(AssetId, i64)>,
    /// Content SHA-256, lower-case hex.
    pub sha256: String,
    /// Which model embeds it.
    pub model: ModelId,
    /// Segmentation key, e.g. `w3.2/s3.2`; the tracks that were chosen are part of it, e.g. `w3.2/s3.2/a2`.
    pub segmentation: String,
    /// The tracks that somebody chose.
    pub choice: TrackChoice,
    /// Display name.
    pub name: String,
    /// Where the bytes are.
    pub path: String,
    /// Our own copy?
    pub owned: bool,
    /// Bytes.
    pub size_bytes: u64,
    /// Your JSON object.
    pub metadata: serde_json::Value,
}

/// A clip to be stored with its vectors.
#[derive(Debug, Clone)]
pub struct NewClip {
    /// Where in the asset.
    pub span: TimeSpan,
    /// One per (track, space).
    pub vectors: Vec<(Track, Space, Embedding)>,
    /// Cosine of its own sound and picture; None where it lacks one of them.
    pub agreement: Option<f32>,
}

/// A stored clip (without vectors).
#[derive(Debug, Clone)]
pub struct ClipRecord {
    /// Id.
    pub id: ClipId,
    /// Its asset.
    pub asset: AssetId,
    /// Where.
    pub span: TimeSpan,
    /// Cosine of its own sound and picture; None where it lacks one of them.
    pub agreement: Option<f32>,
}

/// How an asset ended.
#[derive(Debug, Clone)]
pub struct AssetOutcome {
    /// ready | partial | failed
    pub state: AssetState,
    /// Kind, if known.
    pub kind: Option<AssetKind>,
    /// Seconds.
    pub duration_secs: f64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Code and sentence for partial and failed.
    pub error: Option<(String, String)>,
    /// All tracks, and which of them were read.
    pub tracks: Vec<TrackInfo>,
}

/// How much a library holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Totals {
    /// Assets in any state.
    pub assets: u64,
    /// Clips.
    pub clips: u64,
    /// Seconds of media of the assets that can be searched.
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
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Cancelled, Self::Paused, Self::Skipped];

    /// Whether nothing more will happen by itself or by resuming.
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

    /// The state of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// One job.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// Id.
    pub id: JobId,
    /// Kind of job, such as `index`.
    pub kind: String,
    /// The request as JSON.
    pub request: serde_json::Value,
    /// State.
    pub state: WorkState,
    /// Total number of items.
    pub items_total: u64,
    /// Number of items indexed.
    pub items_done: u64,
    /// Number of items that failed.
    pub items_failed: u64,
    /// Items left out.
    pub items_skipped: u64,
    /// Items done of which only a part could be read.
    pub items_partial: u64,
    /// Number of clips indexed so far.
    pub clips: u64,
    /// Seconds of media indexed so far.
    pub media_secs: f64,
    /// Why it failed; null otherwise.
    pub error: Option<(String, String)>,
    /// Unix milliseconds.
    pub created_unix_ms: i64,
    /// Unix milliseconds; 0 until started.
    pub started_unix_ms: i64,
    /// Unix milliseconds; 0 until ended.
    pub ended_unix_ms: i64,
}

/// One item to be put into a job.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// The file: a path, a URL or `s3://bucket/key`.
    pub path: String,
    /// Display name, if it is not the file's name.
    pub name: Option<String>,
    /// The user's JSON object for it.
    pub metadata: serde_json::Value,
    /// Code and sentence where it is left out.
    pub skipped: Option<(String, String)>,
    /// The tracks that somebody chose.
    pub choice: TrackChoice,
}

impl NewItem {
    /// One that is to be indexed.
    #[must_use]
    pub fn new(path: String, metadata: serde_json::Value) -> Self {
        Self { path, name: None, metadata, skipped: None, choice: TrackChoice::default() }
    }
}

/// One item (file) of a job.
#[derive(Debug, Clone)]
pub struct JobItem {
    /// Position in the job, counted from 0.
    pub seq: i64,
    /// The file: a path, a URL or `s3://bucket/key`.
    pub path: String,
    /// Display name, if it is not the file's name.
    pub name: Option<String>,
    /// The user's JSON object for it.
    pub metadata: serde_json::Value,
    /// State.
    pub state: WorkState,
    /// Id of the asset; null until there is one.
    pub asset: Option<AssetId>,
    /// Number of clips indexed.
    pub clips: u64,
    /// Duration of the media in seconds.
    pub media_secs: f64,
    /// Code and sentence where it failed or was left out, or why it is tried again.
    pub error: Option<(String, String)>,
    /// Number of attempts that were postponed.
    pub attempts: u32,
    /// Not to be tried again before this, Unix milliseconds; 0: at once.
    pub not_before_unix_ms: i64,
    /// The tracks that somebody chose.
    pub choice: TrackChoice,
}

/// Every query of the store of record. SQLite is the default; Postgres comes behind the same trait.
#[async_trait]
pub trait Store: StandingStore + WebhookStore + Upkeep + Checks {
    /// Accepts an asset; returns (record, true) if new, (existing record, false) if its identity
    /// is stored already. A failed or unfinished asset of the same identity is reset to indexing
    /// (its clips dropped) and returned as new.
    async fn begin_asset(&self, new: NewAsset) -> Result<(AssetRecord, bool), StoreError>;
    /// Commits clips with their vectors in one transaction; ids in order.
    async fn add_clips(&self, asset: AssetId, clips: &[NewClip]) -> Result<Vec<ClipId>, StoreError>;
    /// Ends an asset.
    async fn finish_asset(&self, asset: AssetId, outcome: AssetOutcome) -> Result<AssetRecord, StoreError>;
    /// One asset.
    async fn asset(&self, id: AssetId) -> Result<AssetRecord, StoreError>;
    /// Assets by id, in one query and in no promised order; missing ones are left out.
    async fn assets(&self, ids: &[AssetId]) -> Result<Vec<AssetRecord>, StoreError>;
    /// Assets newest first; `after` = last id of the previous page.
    async fn list_assets(&self, after: Option<AssetId>, limit: u32) -> Result<Vec<AssetRecord>, StoreError>;
    /// Assets of users' files at this path, with any contents.
    async fn assets_at(&self, path: &str) -> Result<Vec<AssetRecord>, StoreError>;
    /// Some of the paths at which jobs and watches found the bytes of an asset.
    async fn asset_paths(&self, id: AssetId) -> Result<Vec<String>, StoreError>;
    /// Assets left in `indexing` by a crash.
    async fn unfinished_assets(&self) -> Result<Vec<AssetRecord>, StoreError>;
    /// Writes where the bytes of assets lie, whose they are, their names and metadata as these records say,
    /// in one transaction; all else stays. The records as they then are.
    async fn describe_assets(&self, records: &[AssetRecord]) -> Result<Vec<AssetRecord>, StoreError>;
    /// Deletes an asset with its clips and vectors; the clip ids that went.
    async fn delete_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError>;
    /// Drops the clips of an asset that is to be indexed again and sets it to `indexing`; the clip
    /// ids that went. For assets a crash left unfinished, whose clips an index may hold.
    async fn reset_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError>;
    /// The clips of an asset in time order.
    async fn clips_of(&self, asset: AssetId) -> Result<Vec<ClipRecord>, StoreError>;
    /// The clips of an asset in time order, each with the tracks that it has vectors of.
    async fn clips_with_tracks(&self, asset: AssetId) -> Result<Vec<(ClipRecord, Vec<Track>)>, StoreError>;
    /// Clips by id; missing ones are left out.
    async fn clips(&self, ids: &[ClipId]) -> Result<Vec<ClipRecord>, StoreError>;
    /// Clips with id > `after` in the order of their ids, at most `limit`.
    async fn scan_clips(&self, after: ClipId, limit: u32) -> Result<Vec<ClipRecord>, StoreError>;
    /// Clips with an id > `after` that have no agreement yet, in order, at most `limit`.
    async fn clips_without_agreement(&self, after: ClipId, limit: u32) -> Result<Vec<ClipId>, StoreError>;
    /// Notes agreements of clips.
    async fn set_agreements(&self, agreements: &[(ClipId, f32)]) -> Result<(), StoreError>;
    /// The vectors of one clip.
    async fn clip_vectors(&self, id: ClipId) -> Result<Vec<(Track, Space, Embedding)>, StoreError>;
    /// Clip ids (ascending) and vectors of one track and space with id > `after`, at most `limit`,
    /// whatever their asset's state. Damaged rows are reported in the second list, not returned.
    async fn scan_vectors(
        &self,
        track: Track,
        space: &Space,
        after: ClipId,
        limit: u32,
    ) -> Result<(Vec<(ClipId, Embedding)>, Vec<ClipId>), StoreError>;
    /// Clips of finished assets with their vectors, of all or of one, with ids > `after`.
    async fn export(&self, asset: Option<AssetId>, after: ClipId) -> Result<Box<dyn ClipCursor>, StoreError>;
    /// How many clips have a vector of this track and space, and the sum of their ids: tells
    /// whether an index holds what the store does without reading vectors.
    async fn vector_census(&self, track: Track, space: &Space) -> Result<(u64, i64), StoreError>;
    /// Monotonic number that changes with every committed change of clips.
    async fn sequence(&self) -> Result<i64, StoreError>;
    /// Number that rises with every committed change that somebody is told of: assets, jobs and whatever
    /// else people set up. Never falls, also when another model's store takes over.
    async fn acknowledged(&self) -> Result<i64, StoreError>;
    /// How much there is.
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// Creates a job with its items, durable when it returns. A known `idempotency_key` gives
    /// back the job made before.
    async fn create_job(
        &self,
        kind: &str,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
    ) -> Result<JobRecord, StoreError>;
    /// One job.
    async fn job(&self, id: JobId) -> Result<JobRecord, StoreError>;
    /// Jobs newest first, of one state or of all; `after` = last id of the previous page.
    async fn list_jobs(
        &self,
        state: Option<WorkState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRecord>, StoreError>;
    /// How many jobs are in each state; states that no job is in are left out.
    async fn job_counts(&self) -> Result<BTreeMap<WorkState, u64>, StoreError>;
    /// Items of a job from `after_seq` on (exclusive; -1 for all), of one state or of all.
    async fn job_items(
        &self,
        id: JobId,
        state: Option<WorkState>,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JobItem>, StoreError>;
    /// Takes the next item that is due of the oldest live job (marks both running).
    async fn claim_item(&self) -> Result<Option<(JobId, JobItem)>, StoreError>;
    /// Ends an item; ends the job when it was the last. An item that has ended already changes
    /// nothing; one handed back as `queued` waits again.
    async fn finish_item(&self, job: JobId, item: &JobItem) -> Result<JobRecord, StoreError>;
    /// Jobs that have not ended, oldest first.
    async fn unended_jobs(&self) -> Result<Vec<JobId>, StoreError>;
    /// Cancels a job: queued items become cancelled.
    async fn cancel_job(&self, id: JobId) -> Result<JobRecord, StoreError>;
    /// Pauses a live job, or lets a paused one go on; any other one stays as it is.
    async fn pause_job(&self, id: JobId, paused: bool) -> Result<JobRecord, StoreError>;
    /// Queues the failed items of a job once more, and the job with them if it had ended; the job
    /// and how many items. A cancelled job stays as it is.
    async fn retry_failed(&self, id: JobId) -> Result<(JobRecord, u64), StoreError>;
    /// After a start: running items become queued again, and what was put off is due. Returns how
    /// many had been running.
    async fn requeue_running(&self) -> Result<u64, StoreError>;

    /// From now on (until unsealed) every change is refused with [`StoreError::Sealed`]; what was begun
    /// has ended when this returns.
    async fn seal(&self, sealed: bool);
    /// Drops everything that a model did not derive from media: jobs and other user settings.
    async fn clear_work(&self) -> Result<(), StoreError>;
    /// Takes all of that over from the sealed store in another folder, in one transaction.
    async fn adopt_work(&self, from: &Path) -> Result<(), StoreError>;
    /// Begins to watch a folder.
    async fn create_watch(&self, spec: &WatchSpec) -> Result<WatchRecord, StoreError>;
    /// One watch.
    async fn watch(&self, id: WatchId) -> Result<WatchRecord, StoreError>;
    /// All watches, newest first.
    async fn list_watches(&self) -> Result<Vec<WatchRecord>, StoreError>;
    /// Ends a watch; assets and jobs stay.
    async fn delete_watch(&self, id: WatchId) -> Result<(), StoreError>;
    /// Records that a scan was made, and why it was incomplete.
    async fn note_look(&self, id: WatchId, error: Option<&(String, String)>) -> Result<(), StoreError>;
    /// Files of a watch in the order of their paths, from after this one on.
    async fn watch_files(&self, id: WatchId, after: &str, limit: u32)
    -> Result<Vec<WatchedFile>, StoreError>;
    /// The files of these paths, in no promised order.
    async fn watch_files_named(&self, id: WatchId, paths: &[String]) -> Result<Vec<WatchedFile>, StoreError>;
    /// Files that were missing for this many scans in a row.
    async fn watch_files_gone(
        &self,
        id: WatchId,
        looks: u32,
        limit: u32,
    ) -> Result<Vec<WatchedFile>, StoreError>;
    /// Paths of files that have stopped growing and are not what was last given to a job.
    async fn watch_files_ready(&self, id: WatchId, limit: u32) -> Result<Vec<String>, StoreError>;
    /// Writes what was seen of files.
    async fn put_watch_files(&self, id: WatchId, files: &[WatchedFile]) -> Result<(), StoreError>;
    /// Forgets a file.
    async fn drop_watch_file(&self, id: WatchId, path: &str) -> Result<(), StoreError>;
    /// Notes the newest job of a watch: what its items name was taken as it was last seen.
    async fn begin_watch_job(&self, id: WatchId, job: JobId) -> Result<(), StoreError>;
    /// Notes that the end of the newest job was dealt with.
    async fn settle_watch(&self, id: WatchId, ended_unix_ms: i64) -> Result<(), StoreError>;
    /// Whether a watched file other than this one became the same asset.
    async fn asset_has_other_file(&self, asset: AssetId, id: WatchId, path: &str)
    -> Result<bool, StoreError>;
}
