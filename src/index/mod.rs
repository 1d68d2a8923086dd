//! Vector indexes: rebuildable caches of the store, one per (track, space).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::store::{Store, StoreError};
use crate::types::{ClipId, Embedding, ModelId, Space, Track};

/// Why an index refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The query has another length.
    #[error("query vector has {got} values, this index holds {want}")]
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
    #[error("snapshot failed: {0}")]
    Snapshot(String),
}

/// How to search.
#[derive(Debug, Clone, Copy, Default)]
pub struct SearchParams {
    /// Breadth of the graph search; None: chosen from k.
    pub ef: Option<usize>,
    /// Compare with every vector.
    pub exact: bool,
}

/// One neighbour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Which clip.
    pub clip: ClipId,
    /// Cosine, -1 to 1 (f32 rescored).
    pub score: f32,
}

/// Restricts a search to some clips.
#[derive(Debug, Clone)]
pub enum ClipFilter {
    /// Only these.
    Only(HashSet<ClipId>),
    /// All but these.
    Except(HashSet<ClipId>),
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

/// All indexes of a library, one per (track, space).
pub struct IndexSet {
    _dir: PathBuf,
}

impl IndexSet {
    /// Loads verified snapshots from `dir` where they match the model and the store's sequence,
    /// rebuilds from the store otherwise.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn open(
        dir: &Path,
        _model: &ModelId,
        _members: &[(Track, Space, usize)],
        _store: &dyn Store,
    ) -> Result<Self, IndexError> {
        Ok(Self { _dir: dir.to_owned() })
    }
    /// Adds a clip's vectors to their indexes.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn upsert(&self, _clip: ClipId, _vectors: &[(Track, Space, Embedding)]) -> Result<(), IndexError> {
        Ok(())
    }
    /// Removes clips everywhere.
    pub fn remove(&self, _clips: &[ClipId]) {}
    /// Searches one index. CPU-bound: call from a blocking thread for large collections.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn search(
        &self,
        track: Track,
        space: &Space,
        _query: &Embedding,
        _k: usize,
        _params: SearchParams,
        _filter: Option<&ClipFilter>,
    ) -> Result<Vec<Neighbour>, IndexError> {
        Err(IndexError::NoSuchIndex(track, space.clone()))
    }
    /// Writes snapshots (temporary file, sync, rename), stamped with the store's sequence.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn snapshot(&self, _store: &dyn Store) -> Result<(), IndexError> {
        Ok(())
    }
    /// (track, space, vectors, engine name, bytes) of each.
    #[must_use]
    pub fn stats(&self) -> Vec<(Track, Space, usize, &'static str, usize)> {
        Vec::new()
    }
}
