//! Searches by graph, and what they find at which breadth.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::graph::{Graph, LEAST_BREADTH, MeasuredRecall};
use crate::index::exact::{Scope, TopK, scan_int8, score};
use crate::index::rows::{Slot, View};
use crate::index::{Neighbour, SearchParams};
use crate::types::Embedding;

/// Breadth of the graph search at which [`GRAPH_FROM`](crate::index::GRAPH_FROM) was measured.
const BREADTH_AT_GRAPH_FROM: usize = 64;

/// Breadths at which recall is measured after a build, for `recall_target`, and the number of queries.
const MEASURED_BREADTHS: [usize; 7] = [LEAST_BREADTH, 64, 96, 128, 192, 256, 512];
const MEASURED_QUERIES: usize = 64;

/// Default breadth of a graph search for k neighbours.
const fn default_breadth(k: usize) -> usize {
    if k < 32 { 64 } else { 2 * k }
}

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
        let asked = match (params.ef, params.recall_target) {
            (Some(ef), _) => Some(ef),
            (None, Some(recall)) => self.graph.breadth_for(recall),
            (None, None) => Some(default_breadth(k)),
        };
        let breadth = asked?.max(k).max(LEAST_BREADTH).saturating_add(skipped.len());
        if !graph_pays(breadth, view.live, self.graph_from) {
            return None;
        }
        let found = search_graph(view, &self.graph, &self.fresh, query, k, breadth, skipped);
        (found.len() >= k.min(view.live - skipped.len())).then_some(found)
    }
}

/// The cost of a graph search grows with its breadth, that of a scan with the rows. A graph search that is
/// broader than this costs more than the scan, which misses nothing.
const fn graph_pays(breadth: usize, live: usize, graph_from: usize) -> bool {
    breadth.saturating_mul(graph_from) <= live.saturating_mul(BREADTH_AT_GRAPH_FROM)
}

/// Measures recall@10 at several breadths. The queries are stored vectors plus noise, since queries of
/// another modality do not coincide with stored vectors either.
pub(super) fn measure(view: &View, graph: &Graph) -> Vec<MeasuredRecall> {
    let mut rng = StdRng::seed_from_u64(MEASURED_QUERIES as u64);
    let step = (view.live / MEASURED_QUERIES).max(1);
    let slots = view.live_slots().step_by(step).take(MEASURED_QUERIES);
    let queries: Vec<Embedding> = slots
        .filter_map(|(slot, _)| {
            let moved = view.values(slot).iter().map(|v| {
                let noise: f32 = rng.random_range(-1.0..1.0);
                v + noise * (3.0 / view.dim as f32).sqrt()
            });
            Embedding::new(moved.collect(), view.dim).ok()
        })
        .collect();
    let truths: Vec<Vec<Neighbour>> =
        queries.iter().map(|q| scan_int8(view, q.as_slice(), 10, Scope::AllBut(&[]))).collect();
    let recall = |breadth: usize| {
        let (mut found, mut wanted) = (0, 0);
        for (query, truth) in queries.iter().zip(&truths) {
            let answer = search_graph(view, graph, &[], query.as_slice(), 10, breadth, &[]);
            found += truth.iter().filter(|n| answer.iter().any(|other| other.clip == n.clip)).count();
            wanted += truth.len();
        }
        found as f32 / wanted.max(1) as f32
    };
    MEASURED_BREADTHS.map(|breadth| MeasuredRecall { breadth, recall: recall(breadth) }).to_vec()
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
