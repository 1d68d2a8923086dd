//! Standing queries, as stored.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{NewWebhook, StoreError};
use crate::types::{AssetId, MatchId, ModelId, Space, StandingId, Track};

/// A standing query to be stored.
#[derive(Debug, Clone)]
pub struct NewStanding {
    /// Id.
    pub id: StandingId,
    /// Display name.
    pub name: Option<String>,
    /// The query as JSON; the store does not parse it.
    pub spec: serde_json::Value,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Its vectors; the store does not look into them.
    pub vectors: Vec<u8>,
    /// The model that made them.
    pub model: ModelId,
    /// What the user gave, to recompute them from.
    pub source: String,
    /// Webhook for matches.
    pub webhook: Option<NewWebhook>,
    /// Ask it about the assets that are there already.
    pub backfill: bool,
}

/// A standing query without what it is made of.
#[derive(Debug, Clone)]
pub struct StandingRecord {
    /// Id.
    pub id: StandingId,
    /// Display name.
    pub name: Option<String>,
    /// Text of the query.
    pub spec: serde_json::Value,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Why the serving model cannot run it.
    pub error: Option<(String, String)>,
    /// Webhook for matches.
    pub webhook_url: Option<String>,
    /// Number of matched assets that still exist.
    pub matches: u64,
    /// Unix milliseconds.
    pub created_unix_ms: i64,
    /// Unix milliseconds.
    pub updated_unix_ms: i64,
}

/// A standing query with its vectors.
#[derive(Debug, Clone)]
pub struct StandingVectors {
    /// The query.
    pub record: StandingRecord,
    /// The model its vectors are of.
    pub model: ModelId,
    /// `None` where the bytes are not those that were stored.
    pub vectors: Option<Vec<u8>>,
}

/// What changes of a standing query; `None`: nothing.
#[derive(Debug, Clone, Default)]
pub struct StandingChange {
    /// New name.
    pub name: Option<String>,
    /// Another spec.
    pub spec: Option<serde_json::Value>,
    /// Whether it is enabled.
    pub enabled: Option<bool>,
    /// Ask it about the assets that are there already.
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

/// A match to be stored.
#[derive(Debug, Clone)]
pub struct NewMatch {
    /// Id.
    pub id: MatchId,
    /// Which query.
    pub query: StandingId,
    /// Embedding space of the scores.
    pub space: Space,
    /// Hits, best first.
    pub moments: Vec<MatchedMoment>,
    /// Body of its webhook, if it has one.
    pub body: String,
}

/// A stored match.
#[derive(Debug, Clone)]
pub struct MatchRecord {
    /// Id.
    pub id: MatchId,
    /// Which asset.
    pub asset: AssetId,
    /// The asset's name.
    pub asset_name: String,
    /// Embedding space of the scores.
    pub space: Space,
    /// Hits, best first.
    pub moments: Vec<MatchedMoment>,
    /// Unix milliseconds.
    pub matched_unix_ms: i64,
}

/// An asset still to be matched against standing queries.
#[derive(Debug, Clone)]
pub struct PendingAsset {
    /// Names it to [`StandingStore::settle`].
    pub ticket: i64,
    /// Id of the asset.
    pub asset: AssetId,
    /// Only this query; `None`: all.
    pub query: Option<StandingId>,
}

/// What becomes of a pending asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingEnd {
    /// It is taken off the list.
    Done,
    /// It is looked at again once it is known what scores mean.
    Waits,
    /// It stays: more of its matches follow.
    Stays,
}

/// What came of a pending asset, or a part of it.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Of [`PendingAsset`].
    pub ticket: i64,
    /// The asset.
    pub asset: AssetId,
    /// Queries that match.
    pub matches: Vec<NewMatch>,
    /// What becomes of it.
    pub end: PendingEnd,
}

/// Standing queries and their matches.
#[async_trait]
pub trait StandingStore {
    /// Stores a standing query, with its webhook and the assets to match it against.
    async fn create_standing(&self, new: &NewStanding) -> Result<StandingRecord, StoreError>;
    /// One standing query.
    async fn standing(&self, id: StandingId) -> Result<StandingRecord, StoreError>;
    /// Newest first; `after` = last id of the previous page.
    async fn list_standing(
        &self,
        after: Option<StandingId>,
        limit: u32,
    ) -> Result<Vec<StandingRecord>, StoreError>;
    /// With their vectors, newest first; `after` as in a list.
    async fn standing_vectors(
        &self,
        after: Option<StandingId>,
        limit: u32,
    ) -> Result<Vec<StandingVectors>, StoreError>;
    /// What the user gave.
    async fn standing_source(&self, id: StandingId) -> Result<String, StoreError>;
    /// Puts other vectors in the place of a query's, of another model; its error goes.
    async fn set_standing_vectors(
        &self,
        id: StandingId,
        model: &ModelId,
        vectors: &[u8],
    ) -> Result<(), StoreError>;
    /// Notes why a query has no vectors of the model that runs.
    async fn set_standing_error(&self, id: StandingId, code: &str, message: &str) -> Result<(), StoreError>;
    /// Changes one.
    async fn update_standing(
        &self,
        id: StandingId,
        change: &StandingChange,
    ) -> Result<StandingRecord, StoreError>;
    /// Deletes one with its matches, its webhook and what that was still to be told.
    async fn delete_standing(&self, id: StandingId) -> Result<(), StoreError>;
    /// Matches newest first; `after` = last id of the previous page.
    async fn standing_matches(
        &self,
        id: StandingId,
        after: Option<MatchId>,
        limit: u32,
    ) -> Result<Vec<MatchRecord>, StoreError>;
    /// Assets to match against standing queries, oldest first, without those that wait.
    async fn pending_assets(&self, limit: u32) -> Result<Vec<PendingAsset>, StoreError>;
    /// Stores matches with what their webhooks are to be told, and takes the assets off the list, all in
    /// one transaction. A match that is known (or whose query is off or gone) changes nothing. How many
    /// were new.
    async fn settle(&self, settled: &[Settled]) -> Result<u64, StoreError>;
    /// Ends the waiting of assets; how many waited.
    async fn wake_pending(&self) -> Result<u64, StoreError>;
}
