//! Clips and their vectors, as stored.

use async_trait::async_trait;

use super::StoreError;
use crate::types::{AssetId, AssetKind, ClipId, Embedding, Space, TimeSpan, Track};

/// A vector of a clip: one track in one space.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipVector {
    /// Track of the clip that it describes.
    pub track: Track,
    /// Embedding space of the vector.
    pub space: Space,
    /// The vector, of unit length.
    pub vector: Embedding,
}

impl ClipVector {
    /// The vector of a clip's track in a space.
    #[must_use]
    pub const fn new(track: Track, space: Space, vector: Embedding) -> Self {
        Self { track, space, vector }
    }
}

/// A clip to store, with its vectors.
#[derive(Debug, Clone)]
pub struct NewClip {
    /// Its span within the asset.
    pub span: TimeSpan,
    /// One vector per track and space.
    pub vectors: Vec<ClipVector>,
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

/// Fingerprint of a set of clips, to compare two sets without reading them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VectorCensus {
    /// Number of clips.
    pub clips: u64,
    /// Sum of their ids.
    pub sum_of_ids: i64,
}

/// A clip with its vectors and the facts about its asset.
#[derive(Debug, Clone)]
pub struct ExportedClip {
    /// The clip without its vectors.
    pub clip: ClipRecord,
    /// Name of its asset.
    pub asset_name: String,
    /// SHA-256 of its asset's content, in lower-case hex.
    pub asset_sha256: String,
    /// Kind of its asset.
    pub asset_kind: Option<AssetKind>,
    /// One vector per track and space of the clip.
    pub vectors: Vec<ClipVector>,
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

/// Clips and their vectors.
#[async_trait]
pub trait ClipStore: Send + Sync {
    /// Commits clips with their vectors in one transaction; returns their ids in order.
    /// Of several nodes, only the one that holds the asset may: the call then carries its fence.
    async fn add_clips(&self, asset: AssetId, clips: &[NewClip]) -> Result<Vec<ClipId>, StoreError>;
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
    async fn clip_vectors(&self, id: ClipId) -> Result<Vec<ClipVector>, StoreError>;
    /// Clip ids (ascending) and vectors of one track and space, with an id > `after`, at most `limit`, in any
    /// state of their assets. The second list has the damaged rows.
    async fn scan_vectors(
        &self,
        track: Track,
        space: &Space,
        after: ClipId,
        limit: u32,
    ) -> Result<(Vec<(ClipId, Embedding)>, Vec<ClipId>), StoreError>;
    /// Clips of finished assets with their vectors, of all assets or of one, with an id > `after`.
    async fn export(&self, asset: Option<AssetId>, after: ClipId) -> Result<Box<dyn ClipCursor>, StoreError>;
    /// The clips that have a vector of this track and space: enough to tell whether an index agrees with the
    /// store, without reading vectors.
    async fn vector_census(&self, track: Track, space: &Space) -> Result<VectorCensus, StoreError>;
}
