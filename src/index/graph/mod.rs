//! The graph engine: it grows with the collection. Written rows are scanned beside the graph until a thread in the
//! background has put them in; nodes whose rows were removed lead on until they are taken out. Nothing is ever rebuilt
//! for growth.

mod answer;
mod build;
mod links;
mod repair;
mod state;
mod walk;
mod work;

use std::sync::Arc;

use self::repair::LEAST_BREADTH;
use self::state::Shared;
use super::breadth::{breadth_for, graph_pays};
use super::exact::Scope;
use super::rows::{SharedRows, Slot, View};
use super::{Beside, Neighbour, SearchParams, VectorIndex};

/// Our own graph over the int8 codes of the rows.
pub struct OwnGraph {
    shared: Arc<Shared>,
}

impl OwnGraph {
    /// An engine with a graph from `graph_from` rows on.
    #[must_use]
    pub fn new(rows: Arc<SharedRows>, graph_from: usize) -> Self {
        let shared = Arc::new(Shared::new(rows, graph_from));
        shared.work_if_due();
        Self { shared }
    }
}

impl Drop for OwnGraph {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl VectorIndex for OwnGraph {
    fn name(&self) -> &'static str {
        "graph"
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn is_ready(&self) -> bool {
        self.shared.read(|state| state.is_ready())
    }

    fn insert(&self, slot: Slot, _replaced: bool) {
        let generation = self.shared.generation();
        self.shared.write(|state| state.note_written(slot, generation));
        self.shared.work_if_due();
        self.shared.lend_a_hand();
    }

    fn remove(&self, slot: Slot) {
        let generation = self.shared.generation();
        self.shared.write(|state| state.note_removed(slot, generation));
        self.shared.work_if_due();
    }

    fn restart(&self) {
        let generation = self.shared.generation();
        // Drop it outside the lock: freeing a graph is slow.
        drop(self.shared.write(|state| state.begin_anew(generation)));
        self.shared.work_if_due();
    }

    fn search(
        &self,
        view: &View,
        query: &[f32],
        k: usize,
        params: SearchParams,
        scope: Scope<'_>,
    ) -> Option<Vec<Neighbour>> {
        let Scope::AllBut(skipped) = scope else { return None };
        if params.exact {
            return None;
        }
        let pinned = self.shared.read(|state| state.pin(view.generation))?;
        let breadth = breadth_for(k, params, &pinned.recalls, LEAST_BREADTH)?.saturating_add(skipped.len());
        if !graph_pays(breadth, view.live, self.shared.graph_from) {
            return None;
        }
        let found = pinned.graph.nearest(view, &pinned.beside, query, k, breadth, skipped);
        (found.len() >= k.min(view.live.saturating_sub(skipped.len()))).then_some(found)
    }

    fn memory_bytes(&self) -> usize {
        self.shared.read(|state| state.memory_bytes())
    }

    fn settle(&self) {
        self.shared.settle();
    }

    fn scanned_beside(&self) -> Beside {
        self.shared.read(|state| state.scanned_beside())
    }
}
