//! The index of one (track, space) pair: rows, and the engines that search them. Each search is answered by the first
//! engine that can, which is a graph while it costs less than the scan.

mod compact;

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::exact::{Scan, Scope, scan_f32, score};
use super::graph::OwnGraph;
use super::hnsw::HnswRs;
use super::recall::Probed;
use super::rows::{Rows, SharedRows, Slot, View};
use super::{Beside, ClipFilter, IndexError, Neighbour, SearchParams, VectorCensus, VectorIndex};
use crate::codes::quantize::quantize;
use crate::types::{ClipId, Embedding};

/// The engine that searches collections too large to scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GraphEngine {
    /// Our own graph, which grows with the collection.
    #[default]
    Own,
    /// A graph by `hnsw_rs`, which is rebuilt as the collection grows.
    HnswRs,
}

impl GraphEngine {
    /// Number of vectors from which a graph search costs less CPU than the scan. Measured:
    /// docs/measurements/index.md has the numbers and how to repeat them.
    #[must_use]
    pub const fn pays_from(self) -> usize {
        match self {
            Self::Own => GRAPH_FROM,
            Self::HnswRs => 25_000,
        }
    }
}

impl FromStr for GraphEngine {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "own" => Ok(Self::Own),
            "hnsw-rs" => Ok(Self::HnswRs),
            other => Err(format!("expected own or hnsw-rs, got `{other}`")),
        }
    }
}

/// Number of vectors from which our own graph is used.
pub const GRAPH_FROM: usize = 10_000;

/// The index of one (track, space) pair of a library.
pub struct HybridIndex {
    dim: usize,
    rows: Arc<SharedRows>,
    /// In the order in which they are asked.
    engines: Vec<Box<dyn VectorIndex>>,
    /// Held while rows change, until the engines know: they are told in the order of the changes.
    writing: Mutex<()>,
    compacting: Mutex<()>,
}

impl HybridIndex {
    /// An empty index of vectors of `dim` values.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self::with_rows(Rows::new(dim), GRAPH_FROM)
    }

    /// An index of these rows that builds graphs from `graph_from` vectors on; `usize::MAX` disables graphs.
    #[must_use]
    pub fn with_rows(rows: Rows, graph_from: usize) -> Self {
        Self::with_graph(rows, GraphEngine::default(), graph_from)
    }

    /// Like [`with_rows`](Self::with_rows), with graphs of this engine.
    #[must_use]
    pub fn with_graph(rows: Rows, engine: GraphEngine, from: usize) -> Self {
        Self::over(rows, |rows| match engine {
            _ if from == usize::MAX => Vec::new(),
            GraphEngine::Own => vec![Box::new(OwnGraph::new(rows, from)) as Box<dyn VectorIndex>],
            GraphEngine::HnswRs => vec![Box::new(HnswRs::new(rows, from))],
        })
    }

    /// An index of these rows with engines of the caller's choice, which are asked before the scan.
    #[must_use]
    pub fn over(rows: Rows, engines: impl FnOnce(Arc<SharedRows>) -> Vec<Box<dyn VectorIndex>>) -> Self {
        let dim = rows.view().dim;
        let rows = SharedRows::new(rows);
        let mut engines = engines(Arc::clone(&rows));
        engines.push(Box::new(Scan));
        Self { dim, rows, engines, writing: Mutex::default(), compacting: Mutex::default() }
    }

    /// Number of values of a vector.
    #[must_use]
    pub const fn dim(&self) -> usize {
        self.dim
    }

    /// Number of live vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.read(|rows| rows.view().live)
    }

    /// Whether there are no live vectors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The engine that answers unfiltered searches now: `exact-int8`, `graph` or `hnsw`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.answering().map_or("", VectorIndex::name)
    }

    /// Whether a graph answers unfiltered searches.
    #[must_use]
    pub fn has_graph(&self) -> bool {
        self.answering().is_some_and(|engine| !engine.is_exact())
    }

    fn answering(&self) -> Option<&dyn VectorIndex> {
        self.engines.iter().map(AsRef::as_ref).find(|engine| engine.is_ready())
    }

    /// A frozen view of the current vectors.
    #[must_use]
    pub fn view(&self) -> View {
        self.rows.view()
    }

    /// What the index holds, with the view that it describes.
    #[must_use]
    pub fn census(&self) -> (VectorCensus, View) {
        self.rows.read(|rows| (rows.census(), rows.view().clone()))
    }

    /// Waits until no graph is being built and none is due.
    pub fn wait_for_graph(&self) {
        self.engines.iter().for_each(|engine| engine.settle());
    }

    /// Numbers of rows that are scanned beside the graph.
    #[must_use]
    pub fn scanned_beside_graph(&self) -> Beside {
        self.answering().map(VectorIndex::scanned_beside).unwrap_or_default()
    }

    /// Memory used, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let of_engines: usize = self.engines.iter().map(|engine| engine.memory_bytes()).sum();
        self.rows.read(Rows::memory_bytes) + of_engines
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a vector or replaces the clip's previous one.
    ///
    /// # Errors
    /// [`IndexError::BadLength`].
    pub fn upsert(&self, clip: ClipId, vector: &Embedding) -> Result<(), IndexError> {
        self.check(vector)?;
        let codes = quantize(vector.as_slice());
        let _writing = self.writing();
        let (slot, replaced) = self.rows.write(|rows| {
            let replaced = rows.slot(clip).is_some();
            (rows.put(clip, vector.as_slice(), &codes), replaced)
        });
        self.engines.iter().for_each(|engine| engine.insert(slot, replaced));
        Ok(())
    }

    /// Removes a clip's vector. Returns whether there was one.
    pub fn remove(&self, clip: ClipId) -> bool {
        let _writing = self.writing();
        let slot = self.rows.write(|rows| rows.remove(clip));
        if let Some(slot) = slot {
            self.engines.iter().for_each(|engine| engine.remove(slot));
        }
        slot.is_some()
    }

    /// The k nearest neighbours by cosine, best first; ties by clip id.
    ///
    /// # Errors
    /// [`IndexError::BadLength`].
    pub fn search(
        &self,
        query: &Embedding,
        k: usize,
        params: SearchParams,
        filter: Option<&ClipFilter>,
    ) -> Result<Vec<Neighbour>, IndexError> {
        self.check(query)?;
        // Everything after this works on frozen rows, without a lock.
        let (view, listed) = self.rows.read(|rows| {
            let listed = filter.map(|filter| match filter {
                ClipFilter::Only(ids) | ClipFilter::Except(ids) => rows.slots_of(ids),
            });
            (rows.view().clone(), listed.unwrap_or_default())
        });
        let k = k.min(view.live);
        if k == 0 {
            return Ok(Vec::new());
        }
        let scope = match filter {
            Some(ClipFilter::Only(_)) => Scope::Only(&listed),
            Some(ClipFilter::Except(_)) | None => Scope::AllBut(&listed),
        };
        let mut engines = self.engines.iter();
        let found = engines.find_map(|engine| engine.search(&view, query.as_slice(), k, params, scope));
        Ok(found.unwrap_or_default())
    }

    /// Scores of these clips in f32. Clips that are not in the index are left out.
    ///
    /// # Errors
    /// [`IndexError::BadLength`].
    pub fn scores(&self, query: &Embedding, clips: &[ClipId]) -> Result<Vec<Neighbour>, IndexError> {
        self.check(query)?;
        let (view, slots) = self.rows.read(|rows| (rows.view().clone(), rows.slots_of(clips)));
        let scored = |slot: Slot| {
            let clip = view.id(slot)?;
            Some(Neighbour { clip, score: score(query.as_slice(), view.values(slot)) })
        };
        Ok(slots.into_iter().filter_map(scored).collect())
    }

    /// The vectors of these clips, in no particular order. Clips that are not in the index are left out.
    #[must_use]
    pub fn vectors(&self, clips: &[ClipId]) -> Vec<(ClipId, Embedding)> {
        let (view, slots) = self.rows.read(|rows| (rows.view().clone(), rows.slots_of(clips)));
        let stored = |slot: Slot| {
            let clip = view.id(slot)?;
            Some((clip, Embedding::new(view.values(slot).to_vec(), view.dim).ok()?))
        };
        slots.into_iter().filter_map(stored).collect()
    }

    /// Up to `count` clips with their vectors, spread evenly over the collection.
    #[must_use]
    pub fn sample(&self, count: usize) -> Vec<(ClipId, Embedding)> {
        let view = self.view();
        let step = view.live.div_ceil(count.max(1)).max(1);
        let stored = |(slot, clip): (Slot, ClipId)| {
            Some((clip, Embedding::new(view.values(slot).to_vec(), view.dim).ok()?))
        };
        view.live_slots().step_by(step).filter_map(stored).collect()
    }

    /// Counts how many of the k true neighbours (by f32 scan of the same rows) an unfiltered search finds
    /// now. Any clip that scores at least as high as the last true one counts. `None` if the index is empty.
    ///
    /// # Errors
    /// [`IndexError::BadLength`].
    pub fn probe(
        &self,
        query: &Embedding,
        k: usize,
        params: SearchParams,
    ) -> Result<Option<Probed>, IndexError> {
        self.check(query)?;
        let (view, everything) = (self.view(), Scope::AllBut(&[]));
        let k = k.min(view.live);
        if k == 0 {
            return Ok(None);
        }
        let mut engines = self.engines.iter().filter(|engine| !engine.is_exact());
        let served = engines.find_map(|engine| engine.search(&view, query.as_slice(), k, params, everything));
        let Some(served) = served else {
            // The scan is used, and its answer is proven.
            return Ok(Some(Probed { found: k, wanted: k }));
        };
        let truth = scan_f32(&view, query.as_slice(), k, everything);
        let enough = truth.last().map_or(f32::INFINITY, |last| last.score);
        let found = served.iter().filter(|neighbour| neighbour.score >= enough).count();
        Ok(Some(Probed { found, wanted: truth.len() }))
    }

    fn check(&self, vector: &Embedding) -> Result<(), IndexError> {
        if vector.dim() == self.dim {
            Ok(())
        } else {
            Err(IndexError::BadLength { got: vector.dim(), want: self.dim })
        }
    }
}
