//! The index that answers searches. It scans while the collection is small, and adds a graph when it is
//! large; each search uses the cheaper one.

mod compact;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use super::exact::{Scope, score};
use super::frozen::{Frozen, measure};
use super::hnsw::{Graph, NoGraph};
use super::quantize::quantize;
use super::recall::Probed;
use super::rows::{Rows, Slot, View};
use super::{ClipFilter, IndexError, Neighbour, SearchParams, VectorIndex};
use crate::types::{ClipId, Embedding};

/// Number of vectors from which a graph search costs less CPU than the scan. Measured:
/// docs/measurements/index.md has the numbers and how to repeat them.
pub const GRAPH_FROM: usize = 25_000;

/// The index of one (track, space) pair of a library.
///
/// New vectors are scanned until the next graph contains them, removed ones are skipped, and every answer is
/// scored in f32. Graphs are built in the background, one at a time per process.
pub struct HybridIndex {
    shared: Arc<Shared>,
}

struct Shared {
    dim: usize,
    graph_from: usize,
    state: RwLock<State>,
    building: Mutex<bool>,
    built: Condvar,
    stop: AtomicBool,
}

struct State {
    rows: Rows,
    graph: Option<Arc<Graph>>,
    /// Slots written since the graph's view was taken, ascending. The graph does not contain them.
    fresh: Arc<Vec<Slot>>,
    /// Rows of the graph's view that were removed or replaced since.
    stale: usize,
    /// Slots written and rows removed since the view of the graph under construction was taken.
    since_build: Option<(Vec<Slot>, usize)>,
    /// Size at which the graph proved useless. The next attempt waits until the size has doubled.
    useless_at: usize,
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
        let state =
            State { rows, graph: None, fresh: Arc::default(), stale: 0, since_build: None, useless_at: 0 };
        let dim = state.rows.view().dim;
        let index = Self {
            shared: Arc::new(Shared {
                dim,
                graph_from,
                state: RwLock::new(state),
                building: Mutex::new(false),
                built: Condvar::new(),
                stop: AtomicBool::new(false),
            }),
        };
        index.shared.rebuild_if_due();
        index
    }

    /// Number of values of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.shared.dim
    }

    /// The engine that answers unfiltered searches now: `exact-int8` or `hnsw`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        if self.has_graph() { "hnsw" } else { "exact-int8" }
    }

    /// Whether a graph answers unfiltered searches.
    #[must_use]
    pub fn has_graph(&self) -> bool {
        self.shared.read(|state| state.graph.is_some())
    }

    /// A frozen view of the current vectors.
    #[must_use]
    pub fn view(&self) -> View {
        self.shared.read(|state| state.rows.view().clone())
    }

    /// Number of clips and sum of their ids, with the view that both describe.
    #[must_use]
    pub fn census(&self) -> ((u64, i64), View) {
        self.shared.read(|state| (state.rows.census(), state.rows.view().clone()))
    }

    /// Waits until no graph is being built and none is due.
    pub fn wait_for_graph(&self) {
        loop {
            let mut building = self.shared.building.lock().unwrap_or_else(PoisonError::into_inner);
            while *building {
                building = self.shared.built.wait(building).unwrap_or_else(PoisonError::into_inner);
            }
            drop(building);
            // A new graph can already be out of date; the next build then starts a moment later.
            if !self.shared.read(|state| state.graph_is_due(self.shared.graph_from)) {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Numbers of slots that are scanned beside the graph: (orphans, newer than the graph).
    #[must_use]
    pub fn scanned_beside_graph(&self) -> (usize, usize) {
        self.shared
            .read(|state| (state.graph.as_ref().map_or(0, |graph| graph.orphans().len()), state.fresh.len()))
    }

    /// Scores of these clips in f32. Clips that are not in the index are left out.
    ///
    /// # Errors
    /// [`IndexError::BadLength`].
    pub fn scores(&self, query: &Embedding, clips: &[ClipId]) -> Result<Vec<Neighbour>, IndexError> {
        self.check(query)?;
        let (view, slots) = self.shared.read(|state| (state.rows.view().clone(), state.rows.slots_of(clips)));
        let scored = |slot: Slot| {
            let clip = view.id(slot)?;
            Some(Neighbour { clip, score: score(query.as_slice(), view.values(slot)) })
        };
        Ok(slots.into_iter().filter_map(scored).collect())
    }

    /// The vectors of these clips, in no particular order. Clips that are not in the index are left out.
    #[must_use]
    pub fn vectors(&self, clips: &[ClipId]) -> Vec<(ClipId, Embedding)> {
        let (view, slots) = self.shared.read(|state| (state.rows.view().clone(), state.rows.slots_of(clips)));
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
        let frozen = self.shared.read(|state| self.shared.frozen(state));
        Ok(frozen.probe(query.as_slice(), k, params))
    }

    fn check(&self, vector: &Embedding) -> Result<(), IndexError> {
        if vector.dim() == self.shared.dim {
            Ok(())
        } else {
            Err(IndexError::BadLength { got: vector.dim(), want: self.shared.dim })
        }
    }
}

impl Drop for HybridIndex {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl VectorIndex for HybridIndex {
    fn len(&self) -> usize {
        self.shared.read(|state| state.rows.view().live)
    }

    fn upsert(&self, clip: ClipId, vector: &Embedding) -> Result<(), IndexError> {
        self.check(vector)?;
        let codes = quantize(vector.as_slice());
        self.shared.write(|state| {
            let replaced = state.rows.slot(clip).is_some();
            let slot = state.rows.put(clip, vector.as_slice(), &codes);
            state.note_written(slot, replaced);
        });
        self.shared.rebuild_if_due();
        Ok(())
    }

    fn remove(&self, clip: ClipId) -> bool {
        let removed = self.shared.write(|state| {
            let slot = state.rows.remove(clip);
            state.note_gone(slot);
            slot.is_some()
        });
        self.shared.rebuild_if_due();
        removed
    }

    fn search(
        &self,
        query: &Embedding,
        k: usize,
        params: SearchParams,
        filter: Option<&ClipFilter>,
    ) -> Result<Vec<Neighbour>, IndexError> {
        self.check(query)?;
        // Everything after this works on frozen rows, without a lock.
        let (frozen, listed) = self.shared.read(|state| {
            let listed = filter.map(|filter| match filter {
                ClipFilter::Only(ids) | ClipFilter::Except(ids) => state.rows.slots_of(ids),
            });
            (self.shared.frozen(state), listed.unwrap_or_default())
        });
        let scope = match filter {
            Some(ClipFilter::Only(_)) => Scope::Only(&listed),
            Some(ClipFilter::Except(_)) | None => Scope::AllBut(&listed),
        };
        Ok(frozen.answer(query.as_slice(), k, params, scope))
    }

    fn memory_bytes(&self) -> usize {
        self.shared.read(|state| {
            state.rows.memory_bytes()
                + state.graph.as_ref().map_or(0, |graph| graph.memory_bytes())
                + state.fresh.capacity() * size_of::<Slot>()
        })
    }
}

impl State {
    fn note_written(&mut self, slot: Slot, replaced: bool) {
        if self.graph.is_some() {
            let fresh = Arc::make_mut(&mut self.fresh);
            if let Err(at) = fresh.binary_search(&slot) {
                fresh.insert(at, slot);
                self.stale += usize::from(replaced);
            }
        }
        if let Some((written, gone)) = &mut self.since_build {
            written.push(slot);
            *gone += usize::from(replaced);
        }
    }

    fn note_gone(&mut self, slot: Option<Slot>) {
        let Some(slot) = slot else { return };
        if self.graph.is_some() {
            let fresh = Arc::make_mut(&mut self.fresh);
            match fresh.binary_search(&slot) {
                Ok(at) => drop(fresh.remove(at)),
                Err(_) => self.stale += 1,
            }
        }
        if let Some((_, gone)) = &mut self.since_build {
            *gone += 1;
        }
    }

    fn graph_is_due(&self, graph_from: usize) -> bool {
        let live = self.rows.view().live;
        if live < graph_from || live < self.useless_at.saturating_mul(2) {
            return false;
        }
        match &self.graph {
            None => true,
            Some(graph) => {
                self.fresh.len() > (graph_from / 2).max(graph.covered() / 4)
                    || self.stale > graph.covered() / 5
            }
        }
    }
}

impl Shared {
    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn frozen(&self, state: &State) -> Frozen {
        Frozen {
            view: state.rows.view().clone(),
            graph: state.graph.clone(),
            fresh: state.fresh.clone(),
            graph_from: self.graph_from,
        }
    }

    fn rebuild_if_due(self: &Arc<Self>) {
        let (due, shrunk) = self.read(|state| {
            let shrunk = state.graph.is_some() && state.rows.view().live < self.graph_from / 2;
            (state.graph_is_due(self.graph_from), shrunk)
        });
        if shrunk {
            let graph = self.write(|state| {
                state.fresh = Arc::default();
                state.graph.take()
            });
            // Drop outside the lock: freeing a graph is slow.
            drop(graph);
        }
        if !due {
            return;
        }
        {
            let mut building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
            if *building {
                return;
            }
            *building = true;
        }
        let view = self.write(|state| {
            state.since_build = Some((Vec::new(), 0));
            state.rows.view().clone()
        });
        let shared = self.clone();
        let spawned = std::thread::Builder::new()
            .name("triptych-graph".into())
            .spawn(move || shared.build(&view))
            .inspect_err(
                |error| tracing::error!(%error, "could not start a thread to build a search graph; scanning instead"),
            );
        if spawned.is_err() {
            self.end_build();
        }
    }

    fn build(self: &Arc<Self>, view: &View) {
        // One build at a time, at low priority: the towers need the cores more.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = rustix::process::nice(10) {
            tracing::debug!(%error, "could not lower the priority of the graph builder");
        }
        // `hnsw_rs` asserts its own invariants. If one fails, searches keep using the scan.
        let built = std::panic::catch_unwind(|| {
            let mut graph = Graph::build(view, &self.stop)?;
            let recalls = measure(view, &graph);
            graph.note_recalls(recalls);
            Ok(graph)
        });
        drop(turn);
        let old = match built {
            Ok(Ok(graph)) => {
                tracing::info!(rows = graph.covered(), orphans = graph.orphans().len(), "search graph built");
                self.swap_in(graph)
            }
            Ok(Err(NoGraph::Stopped)) => None,
            Ok(Err(NoGraph::Useless(lost, of))) => {
                tracing::warn!(
                    lost,
                    of,
                    "too many vectors are unreachable in the search graph; scanning instead"
                );
                self.write(|state| state.useless_at = view.live);
                None
            }
            Err(_) => {
                tracing::error!(rows = view.live, "building a search graph failed; scanning instead");
                self.write(|state| state.useless_at = view.live);
                None
            }
        };
        self.end_build();
        drop(old);
        if !self.stop.load(Ordering::Relaxed) {
            self.rebuild_if_due();
        }
    }

    fn swap_in(&self, graph: Graph) -> Option<Arc<Graph>> {
        self.write(|state| {
            let (mut written, gone) = state.since_build.take().unwrap_or_default();
            written.sort_unstable();
            written.dedup();
            written.retain(|slot| state.rows.view().id(*slot).is_some());
            state.fresh = Arc::new(written);
            state.stale = gone;
            state.graph.replace(Arc::new(graph))
        })
    }

    fn end_build(&self) {
        self.write(|state| state.since_build = None);
        *self.building.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.built.notify_all();
    }
}
