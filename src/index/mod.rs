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
    /// The query has another length.
    #[error("expected a query vector of {want} values, got {got}")]
    BadLength {
        /// Length found.
        got: usize,
        /// Length of the space.
        want: usize,
    },
    /// No index for this track and space.
    #[error("nothing is indexed for {0:?} in space {1}")]
    NoSuchIndex(Track, Space),
    /// The store behind failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A snapshot could not be written.
    #[error("could not save or read the index: {0}")]
    Snapshot(String),
}

impl IndexError {
    /// Stable code.
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

/// Search options.
#[derive(Debug, Clone, Copy, Default)]
pub struct SearchParams {
    /// Breadth of the graph search; None: chosen from k.
    pub ef: Option<usize>,
    /// Compare with every vector.
    pub exact: bool,
    /// Share of the true neighbours that a graph search must have found when it was measured; the
    /// breadth follows from it where `ef` is not given. At 1 the graph is left aside.
    pub recall_target: Option<f32>,
}

/// One neighbour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Which clip.
    pub clip: ClipId,
    /// Cosine, -1 to 1 (f32 rescored).
    pub score: f32,
}

/// Restricts a search to some clips; quickest where the ids ascend.
#[derive(Debug, Clone)]
pub enum ClipFilter {
    /// Only these.
    Only(Vec<ClipId>),
    /// All but these.
    Except(Vec<ClipId>),
}

/// One searchable set of unit vectors of one length.
pub trait VectorIndex: Send + Sync {
    /// Number of live vectors.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Adds or replaces.
    ///
    /// # Errors
    /// [`IndexError::BadLength`].
    fn upsert(&self, clip: ClipId, vector: &Embedding) -> Result<(), IndexError>;
    /// Removes; whether it was there.
    fn remove(&self, clip: ClipId) -> bool;
    /// The k nearest by cosine, best first; ties by clip id.
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
    /// Bytes held.
    fn memory_bytes(&self) -> usize;
}
