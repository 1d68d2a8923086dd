//! Searches by graph, and what they find at which breadth.

use std::sync::Arc;

use super::graph::{Graph, LEAST_BREADTH};
use crate::index::breadth::{MeasuredRecall, breadth_for, graph_pays, measure};
use crate::index::exact::{Scope, TopK, scan_int8, score};
use crate::index::rows::{Slot, View};
use crate::index::{Neighbour, SearchParams};

/// Breadths at which recall is measured after a build, for `recall_target`.
const MEASURED_BREADTHS: [usize; 7] = [LEAST_BREADTH, 64, 96, 128, 192, 256, 512];

/// A graph with the rows that it does not contain, at one moment.
pub(super) struct Pinned {
    pub graph: Arc<Graph>,
    /// Slots that the graph does not contain, ascending.
    pub fresh: Arc<Vec<Slot>>,
    pub graph_from: usize,
}

impl Pinned {
    /// The graph's answer; `None` if the scan is cheaper, or the graph found too few.
    pub fn answer(
        &self,
        view: &View,
        query: &[f32],
        k: usize,
        params: SearchParams,
        scope: Scope<'_>,
    ) -> Option<Vec<Neighbour>> {
        let Scope::AllBut(skipped) = scope else { return None };
        let breadth = breadth_for(k, params, self.graph.recalls(), LEAST_BREADTH)?;
        let breadth = breadth.saturating_add(skipped.len());
        if !graph_pays(breadth, view.live, self.graph_from) {
            return None;
        }
        let found = search_graph(view, &self.graph, &self.fresh, query, k, breadth, skipped);
        (found.len() >= k.min(view.live - skipped.len())).then_some(found)
    }
}

/// Measures recall at several breadths.
pub(super) fn measured(view: &View, graph: &Graph) -> Vec<MeasuredRecall> {
    measure(view, &MEASURED_BREADTHS, |query, breadth| {
        search_graph(view, graph, &[], query, 10, breadth, &[])
    })
}

/// Searches the graph, and scans the orphans and the rows that are newer than the graph.
fn search_graph(
    view: &View,
    graph: &Graph,
    fresh: &[Slot],
    query: &[f32],
    k: usize,
    breadth: usize,
    skipped: &[Slot],
) -> Vec<Neighbour> {
    let mut beside: Vec<Slot> = [graph.orphans(), fresh].concat();
    beside.sort_unstable();
    beside.dedup();
    // A row can be newer than the view: it was written after the search began.
    beside.truncate(beside.partition_point(|slot| (*slot as usize) < view.slots()));
    beside.retain(|slot| skipped.binary_search(slot).is_err());
    let mut slots = graph.candidates(query, breadth);
    slots.sort_unstable();
    slots.dedup();
    let mut top = TopK::new(k);
    for neighbour in scan_int8(view, query, k, Scope::Only(&beside)) {
        top.offer(neighbour.clip, neighbour.score);
    }
    for slot in slots {
        if beside.binary_search(&slot).is_ok() || skipped.binary_search(&slot).is_ok() {
            continue;
        }
        if let Some(clip) = view.id(slot) {
            top.offer(clip, score(query, view.values(slot)));
        }
    }
    top.into_sorted()
}
