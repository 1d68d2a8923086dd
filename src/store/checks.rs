//! What is known of damage: to rows of the store, and to the bytes of assets.

use std::fmt;
use std::os::unix::fs::MetadataExt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AssetRecord, StoreError};
use crate::types::{AssetId, ClipId, Embedding, Space, Track};

/// What is wrong with an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// Its file is not there.
    Missing,
    /// Its file holds other bytes than those that were indexed.
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

    /// The damage of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Missing, Self::Changed, Self::Metadata].into_iter().find(|damage| damage.as_str() == name)
    }
}

/// What was known of an asset when it was accepted, or last changed.
#[derive(Debug, Clone, PartialEq)]
pub struct AssetFacts {
    /// Id of the asset.
    pub id: AssetId,
    /// Content SHA-256, lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Where the bytes are.
    pub path: String,
    /// Whether they are our own copy.
    pub owned: bool,
    /// Display name.
    pub name: String,
    /// Your JSON object.
    pub metadata: serde_json::Value,
    /// Unix milliseconds.
    pub created_unix_ms: i64,
}

/// What was found out about the bytes of an asset.
#[derive(Debug, Clone, Copy)]
pub struct ContentNote {
    /// Id of the asset.
    pub id: AssetId,
    /// When its file was last written to, if it is there; nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// When all of its bytes were read, Unix milliseconds; `None`: they were not.
    pub checked_unix_ms: Option<i64>,
    /// What is wrong with them.
    pub damage: Option<Damage>,
}

/// When a file last changed, nanoseconds since 1970: its status change time, which unlike the time of the last
/// write nobody can set back; where the file system keeps none, that of the last write.
#[must_use]
pub fn changed_ns(meta: &std::fs::Metadata) -> i64 {
    let changed = meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec());
    if changed == 0 { mtime_ns(meta) } else { changed }
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
pub struct DamagedRow {
    /// Table of the row.
    pub table: &'static str,
    /// Number or id of the row, if it can be read.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Vectors that are not as they were stored, and assets whose clips are not all there.
#[derive(Debug, Clone, Default)]
pub struct DamagedVectors {
    /// Clips with a vector that is damaged or gone, in order.
    pub clips: Vec<ClipId>,
    /// Assets that lack clips.
    pub assets: Vec<AssetId>,
}

impl fmt::Display for DamagedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.table, self.key, self.problem)
    }
}

/// When a file was last written to, nanoseconds since 1970.
#[must_use]
pub fn mtime_ns(file: &std::fs::Metadata) -> i64 {
    file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec())
}

/// The part of a store that is about damage.
#[async_trait]
pub trait Checks: Send + Sync {
    /// Notes what was found out about the bytes of assets.
    async fn note_content(&self, notes: &[ContentNote]) -> Result<(), StoreError>;
    /// Writes down once more what is known of an asset whose row is damaged.
    async fn mend_asset(&self, facts: &AssetFacts) -> Result<(), StoreError>;
    /// Assets whose bytes are ours and were last read before this, the longest ago first.
    async fn unchecked_assets(&self, before_unix_ms: i64, limit: u32)
    -> Result<Vec<AssetRecord>, StoreError>;
    /// Assets whose bytes are known to be damaged or gone, oldest first, and how many there are.
    async fn damaged_assets(&self, limit: u32) -> Result<(Vec<AssetRecord>, u64), StoreError>;
    /// Where the bytes are that are ours, with the ids of their assets: of damaged rows, too.
    async fn owned_paths(&self) -> Result<Vec<(String, String)>, StoreError>;
    /// Rows that could not be read since the store was opened.
    fn damaged_rows(&self) -> Vec<DamagedRow>;
    /// What is wrong with the file itself, by SQLite's own check; nothing where it is whole.
    async fn integrity(&self) -> Result<Vec<String>, StoreError>;
    /// Reads every row, and notes those that cannot be read.
    async fn read_all_rows(&self) -> Result<(), StoreError>;
    /// Reads every vector.
    async fn check_vectors(&self) -> Result<DamagedVectors, StoreError>;
    /// Puts other vectors in the place of all those of a clip.
    async fn put_vectors(
        &self,
        clip: ClipId,
        vectors: &[(Track, Space, Embedding)],
    ) -> Result<(), StoreError>;
}
