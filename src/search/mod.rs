//! Queries to ranked hits: which space, which tracks, how scores are fused.

mod background;
mod bank;
mod found;
mod hubs;
mod lookup;
mod moments;
mod plan;
mod query;
mod run;
mod standing;
mod timeline;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Filter, FilterError};
use crate::embed::Vectors;
use crate::index::{IndexError, IndexSet, SearchParams};
use crate::store::Damage;
use crate::types::{AssetId, AssetKind, Modality, Space, TimeSpan, Track};

pub use background::{Background, Backgrounds, Distributions, Lane, MOST_WORDS, background};
pub use bank::{Bank, BankQuery};
pub use hubs::{CANDIDATES as HUB_CANDIDATES, HubCorrection};
pub use plan::{Comparable, plan};
pub use query::combined;
pub use run::{MAX_LIMIT, MAX_OFFSET, run};
pub use standing::{Least, Standing, Verdict, ask};
pub use timeline::{Timeline, TimelineClip, TimelineMoment, timeline};

/// Confidence that the best hit needs, or the answer says `no_match`.
pub const MATCHES_FROM: f32 = 0.9;

/// Why a search was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The two sides share no space in this model.
    #[error("this model cannot compare {query} with {target}: they share no embedding space")]
    NotComparable {
        /// Query's modality.
        query: Modality,
        /// Target track's modality.
        target: Modality,
    },
    /// The space does not exist or does not serve both sides.
    #[error("space `{0}` cannot be used for this search")]
    BadSpace(Space),
    /// A field that asks for what is not served.
    #[error("{message}")]
    BadRequest {
        /// The field, as `limit`.
        param: &'static str,
        /// Human-readable message.
        message: String,
    },
    /// The search ended before it had an answer (shutdown).
    #[error("the search was cut off: {0}")]
    CutOff(String),
    /// The filter means nothing.
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

    /// Stable code.
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

/// What is searched.
#[derive(Clone)]
pub struct Corpus {
    /// Assets and clips.
    pub catalog: Arc<Catalog>,
    /// Their vectors.
    pub index: Arc<IndexSet>,
    /// Which modalities meet in which space.
    pub comparable: Arc<Comparable>,
    /// What scores mean.
    pub backgrounds: Arc<Backgrounds>,
}

/// One part of a query, already embedded.
#[derive(Debug, Clone)]
pub struct QueryPart {
    /// What it was made of.
    pub modality: Modality,
    /// Its vectors, one per space.
    pub vectors: Vectors,
    /// How much it counts, relative to the other parts; below 0: what is like it comes last.
    pub weight: f32,
    /// Known words of a text; 0 for all else.
    pub words: usize,
}

/// A search over the library.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// What to look for.
    pub query: Vec<QueryPart>,
    /// Tracks to search; default: video.
    pub targets: Vec<Track>,
    /// How they make one score.
    pub fuse: Fuse,
    /// Which clips count.
    pub filter: Filter,
    /// Never these assets (a query made of a stored asset).
    pub exclude_assets: Vec<AssetId>,
    /// Space to use; None: the finest that all sides share.
    pub space: Option<Space>,
    /// What each hit represents.
    pub group_by: GroupBy,
    /// Hits to skip, 0 to 1000.
    pub offset: usize,
    /// Hits to return, 1 to 1000.
    pub limit: usize,
    /// Index parameters.
    pub params: SearchParams,
    /// Leaves out what is less sure; None: nothing.
    pub min_confidence: Option<f32>,
    /// Whether to correct for hubs: clips that score high for every query.
    pub hub_correction: HubCorrection,
}

impl SearchRequest {
    /// The first ten clips of the whole library whose pictures are like these parts.
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
    /// Asset found.
    pub asset_id: AssetId,
    /// Name.
    pub asset_name: String,
    /// What it is: tells whether there is a picture of the moment.
    #[serde(skip)]
    pub asset_kind: Option<AssetKind>,
    /// The moment.
    #[serde(flatten)]
    pub span: TimeSpan,
    /// Middle of the best clip, in seconds.
    pub peak_secs: f64,
    /// Cosine similarity from -1 to 1; with several query parts or fused tracks, their weighted mean.
    pub score: f32,
    /// Share of queries about something that is not here whose best answer scores less. None where
    /// there is nothing to tell it by.
    pub confidence: Option<f32>,
    /// Embedding space of the score.
    pub space: Space,
    /// Track with the best score.
    pub matched: Track,
    /// Cosine of the best clip's own sound and picture; None where it lacks one of them.
    pub agreement: Option<f32>,
    /// The asset's metadata.
    pub metadata: Arc<serde_json::Value>,
    /// What is wrong with the file, if it is a user's: it is gone, or has changed since it was indexed.
    pub damage: Option<Damage>,
}

/// Ranked hits.
#[derive(Debug, Clone)]
pub struct SearchResponse {
    /// Hits, best first.
    pub hits: Vec<Hit>,
    /// Whether no hit of the whole answer deserves to be one.
    pub no_match: bool,
    /// Space the scores were taken in.
    pub space: Space,
    /// Whether the best hits were reranked because the first was a hub.
    pub hub_corrected: bool,
    /// Seconds inside the search, filter and index included.
    pub index_secs: f64,
}
