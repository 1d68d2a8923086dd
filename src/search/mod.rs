//! From queries to ranked hits: which space, which tracks, and how scores are fused.

mod background;
mod bank;
mod found;
mod fused;
mod hubs;
mod lookup;
mod meaning;
mod moments;
mod plan;
mod query;
mod run;
mod standing;
mod timeline;
mod together;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Filter, FilterError};
use crate::embed::Vectors;
use crate::index::{IndexError, IndexSet, SearchParams};
use crate::store::Damage;
use crate::types::{AssetId, AssetKind, Modality, Space, TimeSpan, Track};

pub use background::{Background, Backgrounds, Distributions, Lane, MOST_WORDS, QueryBank, background};
pub use bank::{Bank, BankQuery};
pub use hubs::{CANDIDATES as HUB_CANDIDATES, HubCorrection};
pub use plan::{Comparable, Route, routes};
pub use query::combined;
pub use run::{MAX_LIMIT, MAX_OFFSET, run};
pub use standing::{Minimum, Standing, Verdict, ask};
pub use timeline::{Timeline, TimelineClip, TimelineMoment, timeline};

/// Confidence that the best hit needs; below it, the answer says `no_match`.
pub const MATCHES_FROM: f32 = 0.9;

/// Why a search was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Query and target share no space in this model.
    #[error("this model cannot compare {query} with {target}: they share no embedding space")]
    NotComparable {
        /// Modality of the query.
        query: Modality,
        /// Modality of the target track.
        target: Modality,
    },
    /// The space does not exist or does not serve both sides.
    #[error("space `{0}` cannot be used for this search")]
    BadSpace(Space),
    /// A field has an unsupported value.
    #[error("{message}")]
    BadRequest {
        /// Name of the field, such as `limit`.
        param: &'static str,
        /// Human-readable message.
        message: String,
    },
    /// The search was aborted before it had an answer (shutdown).
    #[error("the search was cut off: {0}")]
    CutOff(String),
    /// The filter is invalid.
    #[error("`filter.{}`: {}", .0.at, .0.message)]
    BadFilter(#[from] FilterError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl SearchError {
    pub(crate) fn bad(param: &'static str, message: impl Into<String>) -> Self {
        Self::BadRequest { param, message: message.into() }
    }

    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotComparable { .. } => "not_comparable",
            Self::BadSpace(_) => "bad_space",
            Self::BadRequest { .. } | Self::BadFilter(_) => "invalid_value",
            Self::CutOff(_) => "search_failed",
            Self::Index(error) => error.code(),
        }
    }
}

/// What each hit represents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// A clip.
    #[default]
    Clip,
    /// Neighbouring clips that answer together, as one stretch of time.
    Moment,
    /// An asset, by its best clip.
    Asset,
}

/// How the scores of a clip's tracks are combined when several are searched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fuse {
    /// The better track counts.
    #[default]
    Best,
    /// The mean of the tracks counts; a track that a clip lacks counts 0.
    Mean,
}

/// The data that a search runs on.
#[derive(Clone)]
pub struct Corpus {
    /// Assets and clips, for filters and names.
    pub catalog: Arc<Catalog>,
    /// The clips' vectors.
    pub index: Arc<IndexSet>,
    /// Which modalities share which space.
    pub comparable: Arc<Comparable>,
    /// Score distributions, for confidence.
    pub backgrounds: Arc<Backgrounds>,
}

/// One part of a query, already embedded.
#[derive(Debug, Clone)]
pub struct QueryPart {
    /// Modality of the part.
    pub modality: Modality,
    /// Its embeddings, one per space.
    pub vectors: Vectors,
    /// Weight relative to the other parts. A negative weight ranks similar clips last.
    pub weight: f32,
    /// Number of known words of a text; 0 for other modalities.
    pub words: usize,
    /// Words of a text that the model does not know and left out.
    pub ignored: Vec<String>,
    /// Share of a text's words with a meaning that the model knows, by space; all of them where it is not named.
    pub understood: BTreeMap<Space, f32>,
}

impl QueryPart {
    /// A part of weight 1.
    #[must_use]
    pub const fn new(modality: Modality, vectors: Vectors) -> Self {
        let understood = BTreeMap::new();
        Self { modality, vectors, weight: 1.0, words: 0, ignored: Vec::new(), understood }
    }
}

/// A search over the library.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// Parts of the query, already embedded.
    pub query: Vec<QueryPart>,
    /// Tracks to search; video by default.
    pub targets: Vec<Track>,
    /// How the scores of several tracks are combined.
    pub fuse: Fuse,
    /// The clips to search.
    pub filter: Filter,
    /// Assets to leave out, such as the one that the query was made from.
    pub exclude_assets: Vec<AssetId>,
    /// Space to search in; `None` means the finest that all sides share.
    pub space: Option<Space>,
    /// What each hit represents.
    pub group_by: GroupBy,
    /// Hits to skip, 0 to 1000.
    pub offset: usize,
    /// Hits to return, 1 to 1000.
    pub limit: usize,
    /// Options of the index search.
    pub params: SearchParams,
    /// Leaves out hits with less confidence; `None` leaves out nothing.
    pub min_confidence: Option<f32>,
    /// Whether to correct for hubs: clips that score high for every query.
    pub hub_correction: HubCorrection,
}

impl SearchRequest {
    /// A request for the ten clips of the whole library whose pictures match these parts best.
    #[must_use]
    pub fn new(query: Vec<QueryPart>) -> Self {
        Self {
            query,
            targets: vec![Track::Video],
            fuse: Fuse::default(),
            filter: Filter::default(),
            exclude_assets: Vec::new(),
            space: None,
            group_by: GroupBy::default(),
            offset: 0,
            limit: 10,
            params: SearchParams::default(),
            min_confidence: None,
            hub_correction: HubCorrection::default(),
        }
    }
}

/// One hit.
#[derive(Debug, Clone, Serialize)]
pub struct Hit {
    /// Rank, counted from 1.
    pub rank: usize,
    /// Id of the asset.
    pub asset_id: AssetId,
    /// Name of the asset.
    pub asset_name: String,
    /// Kind of the asset, which determines whether there can be a thumbnail.
    #[serde(skip)]
    pub asset_kind: Option<AssetKind>,
    /// Time span of the hit.
    #[serde(flatten)]
    pub span: TimeSpan,
    /// Middle of the best clip, in seconds.
    pub peak_secs: f64,
    /// Cosine similarity from -1 to 1; with several query parts or fused tracks, their weighted mean.
    pub score: f32,
    /// Share of queries about absent things whose best answer scores lower. `None` if it cannot be computed.
    pub confidence: Option<f32>,
    /// Embedding space of the score.
    pub space: Space,
    /// Track with the best score.
    pub matched: Track,
    /// Cosine between the best clip's own sound and picture; `None` if it lacks one of them.
    pub agreement: Option<f32>,
    /// The asset's metadata.
    pub metadata: Arc<serde_json::Value>,
    /// Damage of a file indexed by path: it is missing, or has changed since it was indexed.
    pub damage: Option<Damage>,
}

/// How hits of several spaces, whose scores have no common scale, were ranked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FusedBy {
    /// By confidence.
    Confidence,
    /// In turn, by the rank in each space: confidence is not calibrated yet.
    Rank,
}

/// Ranked hits, with properties of the whole answer.
#[derive(Debug, Clone)]
pub struct SearchResponse {
    /// Hits, best first.
    pub hits: Vec<Hit>,
    /// Whether no hit has enough confidence.
    pub no_match: bool,
    /// Space of the scores; of several, that of the first target.
    pub space: Space,
    /// Spaces that were searched, one for each group of targets; each hit names its own.
    pub spaces: Vec<Space>,
    /// How hits of several spaces were ranked together; `None` if there was one space.
    pub fused_by: Option<FusedBy>,
    /// Words of the query that the model does not know and left out, each once.
    pub ignored_words: Vec<String>,
    /// Whether the best hits were reranked because the first was a hub.
    pub hub_corrected: bool,
    /// Seconds spent in the search, including filter and index.
    pub index_secs: f64,
}
