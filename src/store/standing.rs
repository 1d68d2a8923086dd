//! Standing queries, as stored.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{NewWebhook, StoreError, WorkError};
use crate::types::{AssetId, MatchId, ModelId, Space, StandingId, Track};

/// A standing query to store.
#[derive(Debug, Clone)]
pub struct NewStanding {
    /// Id of the query.
    pub id: StandingId,
    /// Display name.
    pub name: Option<String>,
    /// The query as JSON; the store does not parse it.
    pub spec: serde_json::Value,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Its encoded vectors; the store does not decode them.
    pub vectors: Vec<u8>,
    /// The model that made the vectors.
    pub model: ModelId,
    /// The user's input as JSON, to recompute the vectors from.
    pub source: String,
    /// Webhook for matches.
    pub webhook: Option<NewWebhook>,
    /// Whether to match it against existing assets too.
    pub backfill: bool,
}

/// A standing query without its vectors and source.
#[derive(Debug, Clone)]
pub struct StandingRecord {
    /// Id of the query.
    pub id: StandingId,
    /// Display name.
    pub name: Option<String>,
    /// The query as JSON; the store does not parse it.
    pub spec: serde_json::Value,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Code and message if the serving model cannot run it.
    pub error: Option<WorkError>,
    /// URL of the webhook for matches, if there is one.
    pub webhook_url: Option<String>,
    /// Number of matched assets that still exist.
    pub matches: u64,
    /// When it was created, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// When it was last changed, in Unix milliseconds.
    pub updated_unix_ms: i64,
}

/// A standing query with its vectors.
#[derive(Debug, Clone)]
pub struct StandingVectors {
    /// The query without vectors.
    pub record: StandingRecord,
    /// The model that made the vectors.
    pub model: ModelId,
    /// Encoded vectors; `None` if they do not match their checksum.
    pub vectors: Option<Vec<u8>>,
}

/// Changes to a standing query; `None`: no change.
#[derive(Debug, Clone, Default)]
pub struct StandingChange {
    /// New name.
    pub name: Option<String>,
    /// New definition as JSON.
    pub spec: Option<serde_json::Value>,
    /// Whether it is enabled.
    pub enabled: Option<bool>,
    /// Whether to match it against existing assets too.
    pub backfill: bool,
}

/// A matching part of an asset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MatchedMoment {
    /// Start, in seconds.
    pub start_secs: f64,
    /// End, in seconds.
    pub end_secs: f64,
    /// Middle of its best clip, in seconds.
    pub peak_secs: f64,
    /// Score of its best clip.
    pub score: f32,
    /// Confidence from 0 to 1 that the match is not accidental; null when unknown.
    pub confidence: Option<f32>,
    /// Track with the best score.
    pub matched: Track,
}

/// A match to store.
#[derive(Debug, Clone)]
pub struct NewMatch {
    /// Id of the match.
    pub id: MatchId,
    /// The query that matches.
    pub query: StandingId,
    /// Embedding space of the scores.
    pub space: Space,
    /// Matching moments, best first.
    pub moments: Vec<MatchedMoment>,
    /// Body of its webhook; empty if the query has no webhook.
    pub body: String,
}

/// A stored match.
#[derive(Debug, Clone)]
pub struct MatchRecord {
    /// Id of the match.
    pub id: MatchId,
    /// Id of the asset.
    pub asset: AssetId,
    /// The asset's name.
    pub asset_name: String,
    /// Embedding space of the scores.
    pub space: Space,
    /// Matching moments, best first.
    pub moments: Vec<MatchedMoment>,
    /// When it matched, in Unix milliseconds.
    pub matched_unix_ms: i64,
}

/// An asset still to be matched against standing queries.
#[derive(Debug, Clone)]
pub struct PendingAsset {
    /// Identifies the entry for [`StandingStore::settle`].
    pub ticket: i64,
    /// Id of the asset.
    pub asset: AssetId,
    /// Match only this query; `None`: all.
    pub query: Option<StandingId>,
}

/// Fate of a pending asset after matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingEnd {
    /// It leaves the list.
    Done,
    /// It is matched again once confidence is calibrated.
    Waits,
    /// It stays: more of its matches follow.
    Stays,
}

/// The result for a pending asset, or a part of it.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Ticket of the [`PendingAsset`].
    pub ticket: i64,
    /// Id of the asset.
    pub asset: AssetId,
    /// Matches of this asset, one per query.
    pub matches: Vec<NewMatch>,
    /// Fate of the pending asset.
    pub end: PendingEnd,
}

/// Standing queries and their matches.
#[async_trait]
pub trait StandingStore {
    /// Stores a standing query, with its webhook and the assets to match it against.
    async fn create_standing(&self, new: &NewStanding) -> Result<StandingRecord, StoreError>;
    /// Looks up one standing query.
    async fn standing(&self, id: StandingId) -> Result<StandingRecord, StoreError>;
    /// Standing queries, newest first; `after` is the last id of the previous page.
    async fn list_standing(
        &self,
        after: Option<StandingId>,
        limit: u32,
    ) -> Result<Vec<StandingRecord>, StoreError>;
    /// The same with their vectors.
    async fn standing_vectors(
        &self,
        after: Option<StandingId>,
        limit: u32,
    ) -> Result<Vec<StandingVectors>, StoreError>;
    /// The user's input, as stored.
    async fn standing_source(&self, id: StandingId) -> Result<String, StoreError>;
    /// Replaces the vectors of a query by those of another model, and clears its error.
    async fn set_standing_vectors(
        &self,
        id: StandingId,
        model: &ModelId,
        vectors: &[u8],
    ) -> Result<(), StoreError>;
    /// Records why a query has no vectors of the serving model.
    async fn set_standing_error(&self, id: StandingId, code: &str, message: &str) -> Result<(), StoreError>;
    /// Changes a standing query.
    async fn update_standing(
        &self,
        id: StandingId,
        change: &StandingChange,
    ) -> Result<StandingRecord, StoreError>;
    /// Deletes a standing query with its matches, its webhook and its deliveries.
    async fn delete_standing(&self, id: StandingId) -> Result<(), StoreError>;
    /// Matches, newest first; `after` is the last id of the previous page.
    async fn standing_matches(
        &self,
        id: StandingId,
        after: Option<MatchId>,
        limit: u32,
    ) -> Result<Vec<MatchRecord>, StoreError>;
    /// Assets to match against standing queries, oldest first, without those that wait for a calibration.
    async fn pending_assets(&self, limit: u32) -> Result<Vec<PendingAsset>, StoreError>;
    /// Stores matches with the deliveries to their webhooks, and updates the list of pending assets, all in
    /// one transaction. A match that is known, or whose query is disabled or gone, changes nothing. Returns
    /// how many were new.
    async fn settle(&self, settled: &[Settled]) -> Result<u64, StoreError>;
    /// Ends the waiting of assets; returns how many waited.
    async fn wake_pending(&self) -> Result<u64, StoreError>;
}
