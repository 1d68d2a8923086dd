//! Queries to ranked hits: which space, which tracks, how scores are fused.

mod plan;
mod run;

use serde::{Deserialize, Serialize};

use crate::embed::Vectors;
use crate::index::{IndexError, SearchParams};
use crate::store::StoreError;
use crate::types::{AssetId, AssetKind, Modality, Space, TimeSpan, Track};

pub use plan::{Comparable, plan};
pub use run::{MAX_LIMIT, MAX_OFFSET, run};

/// Why a search was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The two sides share no space in this model.
    #[error("this model cannot compare {query} with {target}: they share no space")]
    NotComparable {
        /// Query's modality.
        query: Modality,
        /// Target track's modality.
        target: Modality,
    },
    /// The space does not exist or does not serve both sides.
    #[error("space `{0}` does not serve this search")]
    BadSpace(Space),
    /// A page outside of what is served, or no track to look at.
    #[error("{0}")]
    BadRequest(String),
    /// The search ended before it had an answer (shutdown).
    #[error("the search was cut off: {0}")]
    CutOff(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl SearchError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotComparable { .. } => "not_comparable",
            Self::BadSpace(_) => "bad_space",
            Self::BadRequest(_) => "bad_search",
            Self::CutOff(_) => "search_failed",
            Self::Store(error) => error.code(),
            Self::Index(error) => error.code(),
        }
    }
}

/// What one hit stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// A clip.
    #[default]
    Clip,
    /// An asset, by its best clip.
    Asset,
}

/// One part of a query, already embedded.
#[derive(Debug, Clone)]
pub struct QueryPart {
    /// What it was made of.
    pub modality: Modality,
    /// Its vectors, one per space.
    pub vectors: Vectors,
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
    /// What one hit stands for.
    pub group_by: GroupBy,
    /// Hits to skip, 0 to 1000.
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
    /// What it is: tells whether there is a picture of the moment.
    #[serde(skip)]
    pub asset_kind: Option<AssetKind>,
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
    /// Space the scores were taken in.
    pub space: Space,
    /// Seconds inside the index.
    pub index_secs: f64,
}
