//! Vectors read out in bulk.

use async_trait::async_trait;

use super::{ClipRecord, StoreError};
use crate::types::{AssetKind, Embedding, Space, Track};

/// A clip with everything that belongs to it.
#[derive(Debug, Clone)]
pub struct ExportedClip {
    /// The clip.
    pub clip: ClipRecord,
    /// Name of its asset.
    pub asset_name: String,
    /// SHA-256 of its asset's bytes, lower-case hex.
    pub asset_sha256: String,
    /// What its asset is.
    pub asset_kind: Option<AssetKind>,
    /// Its vectors.
    pub vectors: Vec<(Track, Space, Embedding)>,
}

/// Reads clips of finished assets in the order of their ids, all as they were at one moment, whatever is written
/// meanwhile.
#[async_trait]
pub trait ClipCursor: Send {
    /// The next clips, at most `limit`; none: that was all.
    async fn next(&mut self, limit: u32) -> Result<Vec<ExportedClip>, StoreError>;
    /// Whose vectors they are: the model's digest.
    fn model(&self) -> &str;
    /// Clips and vectors that could not be read and were left out so far.
    fn left_out(&self) -> u64;
}
