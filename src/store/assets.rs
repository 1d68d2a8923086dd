//! Assets, as stored.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{StoreError, WorkError};
use crate::types::{AssetId, AssetKind, ClipId, ModelId, TrackChoice, TrackInfo, TrackKind};

/// State of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssetState {
    /// Accepted, clips are coming.
    Indexing,
    /// All clips are searchable.
    Ready,
    /// Searchable as far as it could be read; `error` gives the reason.
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

/// What is wrong with an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// Its file is not there.
    Missing,
    /// The bytes of its file are not those that were indexed.
    Changed,
    /// Its metadata in the store cannot be read any more; they are shown as empty.
    Metadata,
}

impl Damage {
    /// The name used in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Metadata => "metadata",
        }
    }

    /// The damage with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Missing, Self::Changed, Self::Metadata].into_iter().find(|damage| damage.as_str() == name)
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
    pub error: Option<WorkError>,
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
    /// Changes with the asset: its name, its metadata, or its indexed content.
    #[must_use]
    pub fn version(&self) -> String {
        let parts = serde_json::json!([
            self.id.to_string(),
            self.sha256,
            self.name,
            self.metadata,
            self.state,
            self.clips,
            self.path,
            self.updated_unix_ms,
        ]);
        let hash = Sha256::digest(parts.to_string());
        hex::encode(hash.get(..16).unwrap_or(&hash))
    }

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

/// Facts about an asset when it is accepted. Its identity is (sha256, model, segmentation).
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
    pub error: Option<WorkError>,
    /// All file tracks, and which of them were read.
    pub tracks: Vec<TrackInfo>,
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

/// Records deleted with an asset.
#[derive(Debug, Clone)]
pub struct DeletedAsset {
    /// Id of the asset.
    pub id: AssetId,
    /// Ids of its clips.
    pub clips: Vec<ClipId>,
    /// Path of its upload, to be removed; `None` for a file indexed by path.
    pub owned_path: Option<String>,
}

/// Records of assets.
#[async_trait]
pub trait AssetStore: Send + Sync {
    /// Accepts an asset. Returns (record, true) if it is new, (existing record, false) if its identity is
    /// already stored. A failed or unfinished asset of the same identity is reset to indexing (its clips are
    /// dropped) and returned as new.
    /// Of several nodes, only the one that holds the asset may: the call then carries its fence.
    async fn begin_asset(&self, new: NewAsset) -> Result<(AssetRecord, bool), StoreError>;
    /// Records the outcome of an asset.
    /// Of several nodes, only the one that holds the asset may: the call then carries its fence.
    async fn finish_asset(&self, asset: AssetId, outcome: AssetOutcome) -> Result<AssetRecord, StoreError>;
    /// Looks up one asset.
    async fn asset(&self, id: AssetId) -> Result<AssetRecord, StoreError>;
    /// Assets by id, in one query and in no particular order; missing ones are left out.
    async fn assets(&self, ids: &[AssetId]) -> Result<Vec<AssetRecord>, StoreError>;
    /// Assets, newest first; `after` is the last id of the previous page.
    async fn list_assets(&self, after: Option<AssetId>, limit: u32) -> Result<Vec<AssetRecord>, StoreError>;
    /// Assets indexed from a user's file at this path, with any content.
    async fn assets_at(&self, path: &str) -> Result<Vec<AssetRecord>, StoreError>;
    /// Some of the paths at which jobs and watches found an asset's bytes.
    async fn asset_paths(&self, id: AssetId) -> Result<Vec<String>, StoreError>;
    /// Assets that a crash left in `indexing`.
    /// With several nodes, only those whose lease has expired.
    async fn unfinished_assets(&self) -> Result<Vec<AssetRecord>, StoreError>;
    /// Writes path, ownership, name and metadata of assets in one transaction and changes nothing else.
    /// Returns the new records.
    async fn describe_assets(&self, records: &[AssetRecord]) -> Result<Vec<AssetRecord>, StoreError>;
    /// Deletes an asset with its clips and vectors; returns the ids of the clips.
    async fn delete_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError>;
    /// Deletes assets with their clips and vectors in one transaction; missing ones are left out.
    async fn delete_assets(&self, ids: &[AssetId]) -> Result<Vec<DeletedAsset>, StoreError>;
    /// Drops the clips of an asset that is to be indexed again and sets it to `indexing`; returns the ids of
    /// the clips. Also for assets that a crash left unfinished, whose clips may be in an index.
    /// Of several nodes, only the one that holds the asset may: the call then carries its fence.
    async fn reset_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError>;
    /// The size of the library.
    async fn totals(&self) -> Result<Totals, StoreError>;
}
