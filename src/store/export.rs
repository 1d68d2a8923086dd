//! Reads clips and vectors in bulk.

use async_trait::async_trait;

use super::{ClipRecord, StoreError};
use crate::types::{AssetKind, Embedding, Space, Track};

/// A clip with its vectors and the facts about its asset.
#[derive(Debug, Clone)]
pub struct ExportedClip {
    /// The clip.
    pub clip: ClipRecord,
    /// Name of its asset.
    pub asset_name: String,
    /// SHA-256 of its asset's content, in lower-case hex.
    pub asset_sha256: String,
    /// Kind of its asset.
    pub asset_kind: Option<AssetKind>,
    /// Its vectors.
    pub vectors: Vec<(Track, Space, Embedding)>,
}

/// Reads the clips of finished assets, ordered by id, as of one moment; later writes do not show.
#[async_trait]
pub trait ClipCursor: Send {
    /// The next clips, at most `limit`; empty: the end.
    async fn next(&mut self, limit: u32) -> Result<Vec<ExportedClip>, StoreError>;
    /// Digest of the model that made the vectors.
    fn model(&self) -> &str;
    /// Number of clips and vectors left out so far because they cannot be read.
    fn left_out(&self) -> u64;
}
