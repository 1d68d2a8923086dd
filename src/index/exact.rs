//! Scans that give exactly the f32 answer: over int8 codes with proven bounds, and over f32.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use rayon::prelude::*;

use super::Neighbour;
use super::kernels::{flat, kernels};
use super::quantize::{ROUNDING, bound, quantize};
use super::rows::{CHUNK_ROWS, Slot, View, place};
use crate::types::ClipId;

/// Rows from which on a scan is shared among the cores; below, handing out work costs more.
const PARALLEL_ROWS: usize = 32 * CHUNK_ROWS;

/// Which rows a scan looks at; slots ascending.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// All but these.
    AllBut(&'a [Slot]),
    /// Only these.
    Only(&'a [Slot]),
}

impl Scope<'_> {
    fn skips(&self, slot: Slot) -> bool {
        match self {
            Self::AllBut(skipped) => !skipped.is_empty() && skipped.binary_search(&slot).is_ok(),
            Self::Only(_) => false,
        }
    }

    /// The rows as runs of slots, none crossing a chunk, cut into parts of similar size.
    fn parts(&self, view: &View) -> Vec<Vec<Range<usize>>> {
        let (runs, rows) = match self {
            Self::AllBut(_) => {
                let slots = view.slots();
                let runs: Vec<_> =
                    (0..slots).step_by(CHUNK_ROWS).map(|from| from..(from + CHUNK_ROWS).min(slots)).collect();
                (runs, slots)
            }
            Self::Only(slots) => {
                let same_run = |a: &Slot, b: &Slot| a + 1 == *b && place(*a).0 == place(*b).0;
                let runs = slots.chunk_by(same_run).map(|run| run[0] as usize..run[0] as usize + run.len());
                (runs.collect(), slots.len())
            }
        };
        let parts = if rows >= PARALLEL_ROWS { rayon::current_num_threads().max(1) } else { 1 };
        runs.chunks(runs.len().div_ceil(parts).max(1)).map(<[_]>::to_vec).collect()
    }
}

/// The k best neighbours so far: higher score first, ties by lower clip id.
#[derive(Debug)]
pub struct TopK {
    k: usize,
    worst_first: BinaryHeap<Ranked>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Ranked(Neighbour);

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.score.total_cmp(&self.0.score).then(self.0.clip.cmp(&other.0.clip))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TopK {
    /// Nothing yet.
    #[must_use]
    pub fn new(k: usize) -> Self {
        Self { k, worst_first: BinaryHeap::with_capacity(k.min(4096) + 1) }
    }

    /// Score to beat; minus infinity until there are k.
    #[must_use]
    pub fn threshold(&self) -> f32 {
        if self.worst_first.len() < self.k {
            return f32::NEG_INFINITY;
        }
        self.worst_first.peek().map_or(f32::INFINITY, |worst| worst.0.score)
    }

    /// Takes a neighbour if it is among the k best.
    pub fn offer(&mut self, clip: ClipId, score: f32) {
        let ranked = Ranked(Neighbour { clip, score });
        if self.worst_first.len() < self.k {
            self.worst_first.push(ranked);
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && ranked < *worst
        {
            *worst = ranked;
        }
    }

    /// Best first.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Neighbour> {
        self.worst_first.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}

/// The score every search reports: the f32 dot product of unit vectors, clamped. Adding 0.0 makes
/// -0.0 and 0.0 one score, so that ties are broken by clip id.
#[must_use]
pub fn score(query: &[f32], values: &[f32]) -> f32 {
    kernels().dot_f32(query, values).clamp(-1.0, 1.0) + 0.0
}

/// Compares with every row in f32: the oracle.
#[must_use]
pub fn scan_f32(view: &View, query: &[f32], k: usize, scope: Scope<'_>) -> Vec<Neighbour> {
    let scan = |runs: &Vec<Range<usize>>| {
        let mut top = TopK::new(k);
        for slot in runs.iter().cloned().flatten().map(|slot| slot as Slot) {
            if let Some(id) = view.id(slot).filter(|_| !scope.skips(slot)) {
                top.offer(id, score(query, view.values(slot)));
            }
        }
        top
    };
    let mut parts = run_parts(&scope.parts(view), scan).into_iter();
    let Some(mut top) = parts.next() else { return Vec::new() };
    for neighbour in parts.flat_map(TopK::into_sorted) {
        top.offer(neighbour.clip, neighbour.score);
    }
    top.into_sorted()
}

fn run_parts<T: Send>(
    parts: &[Vec<Range<usize>>],
    scan: impl Fn(&Vec<Range<usize>>) -> T + Send + Sync,
) -> Vec<T> {
    if parts.len() == 1 { parts.iter().map(scan).collect() } else { parts.par_iter().map(scan).collect() }
}

/// Compares with every row's int8 codes, then with the f32 values of those rows that could belong
/// to the k best by the proven error bound. Gives what [`scan_f32`] gives.
#[must_use]
pub fn scan_int8(view: &View, query: &[f32], k: usize, scope: Scope<'_>) -> Vec<Neighbour> {
    let mut found = run_parts(&scope.parts(view), |runs| scan_codes(view, query, k, scope, runs));
    let best_floor = found.iter().map(|(floor, _)| *floor).fold(f32::NEG_INFINITY, f32::max);
    let mut candidates: Vec<(f32, Slot)> = match found.len() {
        1 => found.pop().map(|(_, candidates)| candidates).unwrap_or_default(),
        _ => found.into_iter().flat_map(|(_, candidates)| candidates).collect(),
    };
    candidates.retain(|(ceiling, _)| *ceiling >= best_floor);
    candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut top = TopK::new(k);
    for (ceiling, slot) in candidates {
        if ceiling + ROUNDING < top.threshold() {
            break;
        }
        if let Some(id) = view.id(slot) {
            top.offer(id, score(query, view.values(slot)));
        }
    }
    top.into_sorted()
}

/// A floor under the k-th best score of these rows, and every row whose score could reach it, with
/// the most its score could be.
fn scan_codes(
    view: &View,
    query: &[f32],
    k: usize,
    scope: Scope<'_>,
    runs: &[Range<usize>],
) -> (f32, Vec<(f32, Slot)>) {
    let codes = quantize(query);
    let (constant, factor) = bound(&codes);
    let (query_codes, lines) = (flat(&codes.lines), view.lines());
    let mut floors = Floors::new(k);
    let mut candidates = Vec::with_capacity(256);
    let mut dots = [0_i32; CHUNK_ROWS];
    for run in runs {
        let (chunk, first) = place(run.start as Slot);
        let chunk = &view.chunks[chunk];
        let rows = first..first + run.len();
        kernels().dot_i8_rows(query_codes, chunk.codes(rows.start, rows.end, lines), &mut dots[..run.len()]);
        let scales = &chunk.scales[rows.clone()];
        let errors = &chunk.errors[rows];
        for (row, ((dot, scale), error)) in dots.iter().zip(scales).zip(errors).enumerate() {
            let about = *dot as f32 * (*scale * codes.scale);
            let slack = constant + factor * *error;
            // Strictly: a removed row's ceiling is minus infinity, as the first floor is.
            if about + slack > floors.lowest {
                let slot = (run.start + row) as Slot;
                if !scope.skips(slot) {
                    candidates.push((about + slack, slot));
                    floors.offer(about - slack);
                }
            }
        }
    }
    (floors.lowest, candidates)
}

/// The k highest lower bounds; the lowest of them is under the k-th best score.
struct Floors {
    k: usize,
    lowest: f32,
    heap: BinaryHeap<std::cmp::Reverse<Total>>,
}

#[derive(PartialEq)]
struct Total(f32);

impl Eq for Total {}

impl Ord for Total {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Floors {
    fn new(k: usize) -> Self {
        Self { k, lowest: f32::NEG_INFINITY, heap: BinaryHeap::with_capacity(k.min(4096) + 1) }
    }

    fn offer(&mut self, floor: f32) {
        if floor <= self.lowest {
            return;
        }
        self.heap.push(std::cmp::Reverse(Total(floor)));
        if self.heap.len() > self.k {
            self.heap.pop();
        }
        if self.heap.len() == self.k {
            self.lowest = self.heap.peek().map_or(f32::NEG_INFINITY, |lowest| lowest.0.0);
        }
    }
}
