//! Known damage: to rows of the store, and to the bytes of assets.

use std::fmt;
use std::os::unix::fs::MetadataExt;

use async_trait::async_trait;
use serde::Serialize;

use super::{AssetRecord, ClipVector, Damage, StoreError};
use crate::types::{AssetId, ClipId};

/// Values of an asset as they were acknowledged, to repair its row.
#[derive(Debug, Clone, PartialEq)]
pub struct AssetFacts {
    /// Id of the asset.
    pub id: AssetId,
    /// SHA-256 of the content in lower-case hex.
    pub sha256: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Path of the bytes.
    pub path: String,
    /// Whether the file is an upload.
    pub owned: bool,
    /// Display name.
    pub name: String,
    /// The user's JSON object.
    pub metadata: serde_json::Value,
    /// When the asset was accepted, in Unix milliseconds.
    pub created_unix_ms: i64,
}

/// Findings about the bytes of an asset.
#[derive(Debug, Clone, Copy)]
pub struct ContentNote {
    /// Id of the asset.
    pub id: AssetId,
    /// Time of the last write to its file, in nanoseconds since 1970; `None` if the file is missing.
    pub mtime_ns: Option<i64>,
    /// When all of its bytes were read, in Unix milliseconds; `None`: they were not.
    pub checked_unix_ms: Option<i64>,
    /// Damage of the bytes; `None` if there is none.
    pub damage: Option<Damage>,
}

/// When a file last changed, in nanoseconds since 1970: the time of its status change, which nobody can set
/// back, unlike the time of the last write. File systems without it give the time of the last write.
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

/// Damaged vectors, and assets with missing clips.
#[derive(Debug, Clone, Default)]
pub struct DamagedVectors {
    /// Clips with a damaged or missing vector, in order.
    pub clips: Vec<ClipId>,
    /// Assets that lack clips.
    pub assets: Vec<AssetId>,
}

impl fmt::Display for DamagedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.table, self.key, self.problem)
    }
}

/// Time of the last write to a file, in nanoseconds since 1970.
#[must_use]
pub fn mtime_ns(file: &std::fs::Metadata) -> i64 {
    file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec())
}

/// The part of a store that handles damage.
#[async_trait]
pub trait Checks: Send + Sync {
    /// Records findings about the bytes of assets.
    async fn note_content(&self, notes: &[ContentNote]) -> Result<(), StoreError>;
    /// Rewrites the damaged row of an asset with these values.
    async fn mend_asset(&self, facts: &AssetFacts) -> Result<(), StoreError>;
    /// Assets with uploads that were last read before this time, the longest ago first.
    async fn unchecked_assets(&self, before_unix_ms: i64, limit: u32)
    -> Result<Vec<AssetRecord>, StoreError>;
    /// Assets whose bytes are known to be damaged or missing, oldest first, and their total number.
    async fn damaged_assets(&self, limit: u32) -> Result<(Vec<AssetRecord>, u64), StoreError>;
    /// Paths of uploads, including those of damaged rows.
    async fn owned_paths(&self) -> Result<Vec<String>, StoreError>;
    /// Rows found unreadable since the store was opened.
    fn damaged_rows(&self) -> Vec<DamagedRow>;
    /// Reads every row, and notes those that cannot be read.
    async fn read_all_rows(&self) -> Result<(), StoreError>;
    /// Reads every vector and compares it with its checksum.
    async fn check_vectors(&self) -> Result<DamagedVectors, StoreError>;
    /// Replaces all vectors of a clip.
    async fn put_vectors(&self, clip: ClipId, vectors: &[ClipVector]) -> Result<(), StoreError>;
}
