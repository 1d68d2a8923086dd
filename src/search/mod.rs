//! Queries to ranked hits: which space, which tracks, how scores are fused.

use serde::Serialize;

use crate::embed::Vectors;
use crate::index::SearchParams;
use crate::types::{AssetId, Modality, Space, TimeSpan, Track};

/// One part of a query, already embedded.
#[derive(Debug, Clone)]
pub struct QueryPart {
    /// What it was made of.
    pub modality: Modality,
    /// Its vectors, one per space.
    pub vectors: Vectors,
}

/// What a hit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupBy {
    /// Every clip.
    #[default]
    Clip,
    /// An asset's best clip.
    Asset,
}

/// A search over the library.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// What to look for.
    pub query: QueryPart,
    /// Tracks to look at; both may be given, a clip's best track counts.
    pub targets: Vec<Track>,
    /// Only in these assets; empty: everywhere.
    pub assets: Vec<AssetId>,
    /// Never this asset (a query made of a stored asset).
    pub exclude_asset: Option<AssetId>,
    /// Space to use; None: the finest that both sides share.
    pub space: Option<Space>,
    /// What a hit is.
    pub group_by: GroupBy,
    /// Hits to skip.
    pub offset: usize,
    /// Hits to return, 1 to 1000.
    pub limit: usize,
    /// Index parameters.
    pub params: SearchParams,
}

/// One hit.
#[derive(Debug, Clone, Serialize)]
pub struct Hit {
    /// From 1.
    pub rank: usize,
    /// Asset found.
    pub asset_id: AssetId,
    /// Its name.
    pub asset_name: String,
    /// What it is.
    #[serde(skip)]
    pub asset_kind: Option<crate::types::AssetKind>,
    /// The moment.
    #[serde(flatten)]
    pub span: TimeSpan,
    /// Cosine, -1 to 1.
    pub score: f32,
    /// Space the score was taken in.
    pub space: Space,
    /// Track that matched.
    pub matched: Track,
    /// The asset's metadata.
    pub metadata: serde_json::Value,
}

/// Ranked hits.
#[derive(Debug, Clone)]
pub struct SearchResponse {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Space of the scores.
    pub space: Space,
    /// Seconds inside the index.
    pub index_secs: f64,
}

/// Runs.
///
/// # Errors
/// None.
pub async fn run(
    _store: &dyn crate::store::Store,
    _index: &crate::index::IndexSet,
    _bundle: &crate::model::Bundle,
    _request: SearchRequest,
) -> Result<SearchResponse, crate::store::StoreError> {
    Ok(SearchResponse { hits: Vec::new(), space: Space::new(""), index_secs: 0.0 })
}
