//! Vector indexes: rebuildable caches of the store, one per (track, space).

pub mod exact;
mod frozen;
pub mod hnsw;
mod hybrid;
pub mod kernels;
pub mod quantize;
mod recall;
pub mod rows;
mod set;
pub mod snapshot;

pub use hybrid::{GRAPH_FROM, HybridIndex};
pub use recall::{Probed, Recall, WINDOW as RECALL_WINDOW};
pub use set::IndexSet;

use crate::store::StoreError;
use crate::types::{ClipId, Embedding, Space, Track};

/// Why an index refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The query has the wrong number of values.
    #[error("expected a query vector of {want} values, got {got}")]
    BadLength {
        /// Number of values found.
        got: usize,
        /// Dimension of the space.
        want: usize,
    },
    /// There is no index for this track and space.
    #[error("nothing is indexed for {0:?} in space {1}")]
    NoSuchIndex(Track, Space),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An index file could not be written or read.
    #[error("could not save or read the index: {0}")]
    Snapshot(String),
}

impl IndexError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadLength { .. } => "bad_vector_length",
            Self::NoSuchIndex(..) => "no_such_index",
            Self::Store(error) => error.code(),
            Self::Snapshot(_) => "snapshot_failed",
        }
    }
}

/// Options of one search.
#[derive(Debug, Clone, Copy, Default)]
pub struct SearchParams {
    /// Breadth of the graph search; `None` chooses it from k.
    pub ef: Option<usize>,
    /// Compare with every vector in f32.
    pub exact: bool,
    /// Recall that the graph must have reached when it was measured. Sets the breadth if `ef` is not given.
    /// At 1 the graph is not used.
    pub recall_target: Option<f32>,
}

/// One result of an index search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Id of the clip.
    pub clip: ClipId,
    /// Cosine, -1 to 1, computed in f32.
    pub score: f32,
}

/// Restricts a search to some clips. Fastest if the ids ascend.
#[derive(Debug, Clone)]
pub enum ClipFilter {
    /// Only these clips.
    Only(Vec<ClipId>),
    /// All clips but these.
    Except(Vec<ClipId>),
}

/// A searchable set of unit vectors of one length.
pub trait VectorIndex: Send + Sync {
    /// Number of live vectors.
    fn len(&self) -> usize;
    /// Whether there are no live vectors.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Adds a vector or replaces the clip's previous one.
    ///
    /// # Errors
    /// [`IndexError::BadLength`].
    fn upsert(&self, clip: ClipId, vector: &Embedding) -> Result<(), IndexError>;
    /// Removes a clip's vector. Returns whether there was one.
    fn remove(&self, clip: ClipId) -> bool;
    /// The k nearest neighbours by cosine, best first; ties by clip id.
    ///
    /// # Errors
    /// [`IndexError::BadLength`].
    fn search(
        &self,
        query: &Embedding,
        k: usize,
        params: SearchParams,
        filter: Option<&ClipFilter>,
    ) -> Result<Vec<Neighbour>, IndexError>;
    /// Memory used, in bytes.
    fn memory_bytes(&self) -> usize;
}
