//! The engine for collections too large to scan: an HNSW graph, built in the background from frozen rows, one at a time
//! per process. Rows written since are scanned beside it until the next graph contains them.

mod graph;
mod search;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use self::graph::{Graph, NoGraph};
use self::search::{Pinned, measured};
use super::exact::Scope;
use super::rows::{SharedRows, Slot, View};
use super::{Beside, Neighbour, SearchParams, VectorIndex};

/// A graph by `hnsw_rs`.
pub struct HnswRs {
    shared: Arc<Shared>,
}

struct Shared {
    rows: Arc<SharedRows>,
    graph_from: usize,
    /// Taken before the lock of the rows.
    state: RwLock<State>,
    building: Mutex<bool>,
    built: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    built: Option<Built>,
    /// What changed since the view of the graph under construction was taken.
    since_view: Option<Changes>,
    /// Size at which the graph proved useless. The next attempt waits until the size has doubled.
    useless_at: usize,
}

struct Built {
    graph: Arc<Graph>,
    /// Slots written since the graph's view was taken, ascending. The graph does not contain them.
    fresh: Arc<Vec<Slot>>,
    /// Rows of the graph's view that were removed or replaced since.
    stale: usize,
}

#[derive(Default)]
struct Changes {
    written: Vec<Slot>,
    gone: usize,
}

impl HnswRs {
    /// An engine that builds graphs from `graph_from` rows on.
    #[must_use]
    pub fn new(rows: Arc<SharedRows>, graph_from: usize) -> Self {
        let shared = Arc::new(Shared {
            rows,
            graph_from,
            state: RwLock::default(),
            building: Mutex::new(false),
            built: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        shared.rebuild_if_due();
        Self { shared }
    }
}

impl Drop for HnswRs {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl VectorIndex for HnswRs {
    fn name(&self) -> &'static str {
        "hnsw"
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn is_ready(&self) -> bool {
        self.shared.read(|state| state.built.is_some())
    }

    fn insert(&self, slot: Slot, replaced: bool) {
        self.shared.write(|state| state.note_written(slot, replaced));
        self.shared.rebuild_if_due();
    }

    fn remove(&self, slot: Slot) {
        self.shared.write(|state| state.note_gone(slot));
        self.shared.rebuild_if_due();
    }

    fn restart(&self) {
        let generation = self.shared.rows.view().generation;
        let of_before = |built: &mut Built| built.graph.generation() != generation;
        // Drop it outside the lock: freeing a graph is slow.
        drop(self.shared.write(|state| state.built.take_if(of_before)));
        self.shared.rebuild_if_due();
    }

    fn search(
        &self,
        view: &View,
        query: &[f32],
        k: usize,
        params: SearchParams,
        scope: Scope<'_>,
    ) -> Option<Vec<Neighbour>> {
        if params.exact {
            return None;
        }
        let pinned = self.shared.read(|state| {
            let built = state.built.as_ref().filter(|built| built.graph.generation() == view.generation)?;
            let (graph, fresh) = (Arc::clone(&built.graph), Arc::clone(&built.fresh));
            Some(Pinned { graph, fresh, graph_from: self.shared.graph_from })
        });
        pinned?.answer(view, query, k, params, scope)
    }

    fn memory_bytes(&self) -> usize {
        self.shared.read(|state| state.built.as_ref().map_or(0, Built::memory_bytes))
    }

    fn is_building(&self) -> bool {
        *self.shared.building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self) {
        loop {
            let mut building = self.shared.building.lock().unwrap_or_else(PoisonError::into_inner);
            while *building {
                building = self.shared.built.wait(building).unwrap_or_else(PoisonError::into_inner);
            }
            drop(building);
            // A new graph can already be out of date; the next build then starts a moment later.
            if !self.shared.is_due() {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn scanned_beside(&self) -> Beside {
        let beside =
            |built: &Built| Beside { unreachable: built.graph.orphans().len(), new: built.fresh.len() };
        self.shared.read(|state| state.built.as_ref().map(beside).unwrap_or_default())
    }
}

impl Built {
    fn memory_bytes(&self) -> usize {
        self.graph.memory_bytes() + self.fresh.capacity() * size_of::<Slot>()
    }
}

impl State {
    fn note_written(&mut self, slot: Slot, replaced: bool) {
        if let Some(built) = &mut self.built {
            let fresh = Arc::make_mut(&mut built.fresh);
            if let Err(at) = fresh.binary_search(&slot) {
                fresh.insert(at, slot);
                built.stale += usize::from(replaced);
            }
        }
        if let Some(changes) = &mut self.since_view {
            changes.written.push(slot);
            changes.gone += usize::from(replaced);
        }
    }

    fn note_gone(&mut self, slot: Slot) {
        if let Some(built) = &mut self.built {
            let fresh = Arc::make_mut(&mut built.fresh);
            match fresh.binary_search(&slot) {
                Ok(at) => drop(fresh.remove(at)),
                Err(_) => built.stale += 1,
            }
        }
        if let Some(changes) = &mut self.since_view {
            changes.gone += 1;
        }
    }

    fn graph_is_due(&self, live: usize, graph_from: usize) -> bool {
        if live < graph_from || live < self.useless_at.saturating_mul(2) {
            return false;
        }
        self.built.as_ref().is_none_or(|built| {
            let covered = built.graph.covered();
            built.fresh.len() > (graph_from / 2).max(covered / 4) || built.stale > covered / 5
        })
    }
}

impl Shared {
    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn live(&self) -> usize {
        self.rows.read(|rows| rows.view().live)
    }

    fn is_due(&self) -> bool {
        let live = self.live();
        self.read(|state| state.graph_is_due(live, self.graph_from))
    }

    fn rebuild_if_due(self: &Arc<Self>) {
        let live = self.live();
        let (due, shrunk) = self.read(|state| {
            let shrunk = state.built.is_some() && live < self.graph_from / 2;
            (state.graph_is_due(live, self.graph_from), shrunk)
        });
        if shrunk {
            // Drop it outside the lock: freeing a graph is slow.
            drop(self.write(|state| state.built.take()));
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
        // Before the view is taken: a row written between the two is in both, and one of them is passed over.
        self.write(|state| state.since_view = Some(Changes::default()));
        let view = self.rows.view();
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
            let recalls = measured(view, &graph);
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
            Ok(Err(NoGraph::Useless { lost, of })) => {
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

    /// Puts a graph in the place of the one before, which is returned, unless its rows were replaced meanwhile.
    fn swap_in(&self, graph: Graph) -> Option<Built> {
        self.write(|state| {
            let Changes { written: mut fresh, gone: stale } = state.since_view.take().unwrap_or_default();
            let view = self.rows.view();
            if view.generation != graph.generation() {
                return None;
            }
            fresh.sort_unstable();
            fresh.dedup();
            fresh.retain(|slot| view.id(*slot).is_some());
            state.built.replace(Built { graph: Arc::new(graph), fresh: Arc::new(fresh), stale })
        })
    }

    fn end_build(&self) {
        self.write(|state| state.since_view = None);
        *self.building.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.built.notify_all();
    }
}
