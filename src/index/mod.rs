//! Vector indexes: rebuildable caches of the store, one per (track, space).

mod breadth;
#[cfg(test)]
mod contract_tests;
pub mod exact;
pub mod graph;
pub mod hnsw;
mod hybrid;
mod recall;
pub mod rows;
mod set;
pub mod snapshot;

pub use hybrid::{GRAPH_FROM, GraphEngine, HybridIndex};
pub use recall::{Probed, Recall, WINDOW as RECALL_WINDOW};
pub use set::{IndexSet, IndexSpec, IndexStats};

use exact::Scope;
use rows::{Slot, View};

use crate::store::{StoreError, VectorCensus};
use crate::types::{ClipId, Space, Track};

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

/// An engine that searches the rows of one index. The index asks its engines in turn; the first that answers wins, and
/// the last is the scan, which always does.
///
/// An engine holds no vectors: it is told of each row that is written or removed, in that order, and searches a frozen
/// view, so that every score is the f32 dot product of the vector that the clip has there. It may be a row or two ahead
/// of the view, or behind it, while a write has not returned yet; it passes over slots that the view does not have.
/// What is saved are the rows: an engine starts from them, after a start as after a compaction.
pub trait VectorIndex: Send + Sync {
    /// Name of the engine, as statistics show it.
    fn name(&self) -> &'static str;
    /// Whether its answers are proven, so that their recall need not be measured.
    fn is_exact(&self) -> bool;
    /// Whether it answers unfiltered searches now.
    fn is_ready(&self) -> bool;
    /// Takes in a written row; `replaced` if its clip had another vector there. Once this returns, searches find it,
    /// even if the engine sorts it in later.
    fn insert(&self, slot: Slot, replaced: bool);
    /// Forgets a removed row, whose slot may be used again. No search finds its clip any more.
    fn remove(&self, slot: Slot);
    /// Starts anew from the present rows: they were replaced as a whole, and their generation rose.
    fn restart(&self);
    /// The `k` nearest rows in `scope` by cosine, best first, ties by clip id; all, if there are fewer. `None` if it is
    /// not ready, another engine is cheaper, or it found too few. Holds no lock while it compares.
    fn search(
        &self,
        view: &View,
        query: &[f32],
        k: usize,
        params: SearchParams,
        scope: Scope<'_>,
    ) -> Option<Vec<Neighbour>>;
    /// Memory used beside the rows, in bytes.
    fn memory_bytes(&self) -> usize;
    /// Whether it works in the background on a structure that would be useless if the rows were replaced now.
    fn is_building(&self) -> bool {
        false
    }
    /// Waits until no background work goes on and none is due.
    fn settle(&self) {}
    /// Rows that each search compares beside the engine's structure.
    fn scanned_beside(&self) -> Beside {
        Beside::default()
    }
}

/// Rows that an engine compares one by one, as its structure does not lead to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beside {
    /// Rows that a search of the structure does not reach.
    pub unreachable: usize,
    /// Rows that are newer than the structure.
    pub new: usize,
}
