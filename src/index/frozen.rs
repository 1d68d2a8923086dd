//! One search of an index, by scan or graph, over a frozen state.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::exact::{Scope, TopK, scan_f32, scan_int8, score};
use super::hnsw::{Graph, LEAST_BREADTH};
use super::recall::Probed;
use super::rows::{Slot, View};
use super::{Neighbour, SearchParams};
use crate::types::Embedding;

/// Breadth of the graph search at which [`GRAPH_FROM`](super::GRAPH_FROM) was measured.
const BREADTH_AT_GRAPH_FROM: usize = 64;

/// Breadths at which recall is measured after a build, for `recall_target`, and the number of queries.
const MEASURED_BREADTHS: [usize; 7] = [LEAST_BREADTH, 64, 96, 128, 192, 256, 512];
const MEASURED_QUERIES: usize = 64;

/// Default breadth of a graph search for k neighbours.
const fn default_breadth(k: usize) -> usize {
    if k < 32 { 64 } else { 2 * k }
}

/// The state of an index at one moment, on which a search runs without locks.
pub(super) struct Frozen {
    pub view: View,
    pub graph: Option<Arc<Graph>>,
    /// Slots that the graph does not contain, ascending.
    pub fresh: Arc<Vec<Slot>>,
    pub graph_from: usize,
}

impl Frozen {
    pub fn answer(&self, query: &[f32], k: usize, params: SearchParams, scope: Scope<'_>) -> Vec<Neighbour> {
        let k = k.min(self.view.live);
        if k == 0 {
            return Vec::new();
        }
        if params.exact {
            return scan_f32(&self.view, query, k, scope);
        }
        let by_graph = self.by_graph(query, k, params, scope);
        by_graph.unwrap_or_else(|| scan_int8(&self.view, query, k, scope))
    }

    /// The graph's answer; `None` if there is no graph, the scan is cheaper, or the graph found too few.
    fn by_graph(
        &self,
        query: &[f32],
        k: usize,
        params: SearchParams,
        scope: Scope<'_>,
    ) -> Option<Vec<Neighbour>> {
        let (Some(graph), Scope::AllBut(skipped)) = (&self.graph, scope) else { return None };
        let asked = match (params.ef, params.recall_target) {
            (Some(ef), _) => Some(ef),
            (None, Some(recall)) => graph.breadth_for(recall),
            (None, None) => Some(default_breadth(k)),
        };
        let breadth = asked?.max(k).max(LEAST_BREADTH).saturating_add(skipped.len());
        if !graph_pays(breadth, self.view.live, self.graph_from) {
            return None;
        }
        let found = search_graph(&self.view, graph, &self.fresh, query, k, breadth, skipped);
        (found.len() >= k.min(self.view.live - skipped.len())).then_some(found)
    }

    /// Counts how many of the k true neighbours (by f32 scan) an unfiltered search finds. Any clip that
    /// scores at least as high as the last true one counts. `None` if the index is empty.
    pub fn probe(&self, query: &[f32], k: usize, params: SearchParams) -> Option<Probed> {
        let k = k.min(self.view.live);
        if k == 0 {
            return None;
        }
        let Some(served) = self.by_graph(query, k, params, Scope::AllBut(&[])) else {
            // The scan is used, and its answer is proven.
            return Some(Probed { found: k, wanted: k });
        };
        let truth = scan_f32(&self.view, query, k, Scope::AllBut(&[]));
        let enough = truth.last().map_or(f32::INFINITY, |last| last.score);
        let found = served.iter().filter(|neighbour| neighbour.score >= enough).count();
        Some(Probed { found, wanted: truth.len() })
    }
}

/// The cost of a graph search grows with its breadth, that of a scan with the rows. A graph search that is
/// broader than this costs more than the scan, which misses nothing.
const fn graph_pays(breadth: usize, live: usize, graph_from: usize) -> bool {
    breadth.saturating_mul(graph_from) <= live.saturating_mul(BREADTH_AT_GRAPH_FROM)
}

/// Measures recall@10 at several breadths. The queries are stored vectors plus noise, since queries of
/// another modality do not coincide with stored vectors either.
pub(super) fn measure(view: &View, graph: &Graph) -> Vec<(usize, f32)> {
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
    MEASURED_BREADTHS.iter().map(|breadth| (*breadth, recall(*breadth))).collect()
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
