//! How broad a search of a graph must be, and what it finds at which breadth.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::exact::{Scope, scan_int8};
use super::rows::View;
use super::{Neighbour, SearchParams};
use crate::types::Embedding;

/// Breadth at which it was measured from how many rows on a graph is cheaper than the scan.
const BREADTH_AT_GRAPH_FROM: usize = 64;

/// Number of queries with which recall is measured.
const MEASURED_QUERIES: usize = 64;

/// Recall of searches of one breadth.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredRecall {
    /// Breadth of the searches.
    pub breadth: usize,
    /// Share of the true neighbours that they found.
    pub recall: f32,
}

/// Breadth of a graph search for `k` neighbours; `None` if the scan has to answer, as no measured breadth reaches the
/// recall that is asked for. `recalls` ascend by breadth.
pub fn breadth_for(
    k: usize,
    params: SearchParams,
    recalls: &[MeasuredRecall],
    least: usize,
) -> Option<usize> {
    let asked = match (params.ef, params.recall_target) {
        (Some(ef), _) => Some(ef),
        (None, Some(recall)) if recall >= 1.0 => None,
        (None, Some(recall)) => {
            let enough = recalls.iter().find(|measured| measured.recall >= recall);
            enough.map(|measured| measured.breadth)
        }
        (None, None) => Some(if k < 32 { 64 } else { 2 * k }),
    };
    Some(asked?.max(k).max(least))
}

/// The cost of a graph search grows with its breadth, that of a scan with the rows. A graph search that is
/// broader than this costs more than the scan, which misses nothing.
pub const fn graph_pays(breadth: usize, live: usize, graph_from: usize) -> bool {
    breadth.saturating_mul(graph_from) <= live.saturating_mul(BREADTH_AT_GRAPH_FROM)
}

/// Measures recall@10 at these breadths. The queries are stored vectors plus noise, since queries of
/// another modality do not coincide with stored vectors either. `answer` takes a query and a breadth.
pub fn measure(
    view: &View,
    breadths: &[usize],
    answer: impl Fn(&[f32], usize) -> Vec<Neighbour>,
) -> Vec<MeasuredRecall> {
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
            let answer = answer(query.as_slice(), breadth);
            found += truth.iter().filter(|n| answer.iter().any(|other| other.clip == n.clip)).count();
            wanted += truth.len();
        }
        found as f32 / wanted.max(1) as f32
    };
    breadths.iter().map(|breadth| MeasuredRecall { breadth: *breadth, recall: recall(*breadth) }).collect()
}
