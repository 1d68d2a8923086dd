//! Scans that return exactly the f32 answer: over int8 codes with proven bounds, and over f32.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use rayon::prelude::*;

use super::rows::{CHUNK_ROWS, CodeScale, Slot, View, place};
use super::{Neighbour, SearchParams, VectorIndex};
use crate::codes::kernels::{flat, kernels};
use crate::codes::quantize::{Codes, ROUNDING, bound, quantize};
use crate::types::ClipId;

/// Rows from which a scan is split among the cores. Below, distributing the work costs more than it saves.
const PARALLEL_ROWS: usize = 32 * CHUNK_ROWS;

/// The rows that a search may find; slots ascending.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// All rows but these.
    AllBut(&'a [Slot]),
    /// Only these rows.
    Only(&'a [Slot]),
}

impl<'a> Scope<'a> {
    fn skips(&self, slot: Slot) -> bool {
        match self {
            Self::AllBut(skipped) => !skipped.is_empty() && skipped.binary_search(&slot).is_ok(),
            Self::Only(_) => false,
        }
    }

    /// The rows, split at chunk boundaries.
    fn stretches(&self, view: &View) -> Vec<Stretch<'a>> {
        match self {
            Self::AllBut(_) => {
                let slots = view.slots();
                let chunks = (0..slots).step_by(CHUNK_ROWS);
                chunks
                    .map(|from| Stretch::Run(from as Slot..(from + CHUNK_ROWS).min(slots) as Slot))
                    .collect()
            }
            Self::Only(slots) => {
                let of_one_chunk = slots.chunk_by(|a, b| place(*a).0 == place(*b).0);
                of_one_chunk.filter_map(Stretch::of).collect()
            }
        }
    }
}

/// Rows of one chunk.
#[derive(Debug, Clone)]
enum Stretch<'a> {
    /// Consecutive rows.
    Run(Range<Slot>),
    /// Scattered rows.
    Picked(&'a [Slot]),
}

impl<'a> Stretch<'a> {
    fn of(slots: &'a [Slot]) -> Option<Self> {
        let (first, end) = (*slots.first()?, slots.last()? + 1);
        let is_run = (end - first) as usize == slots.len();
        Some(if is_run { Self::Run(first..end) } else { Self::Picked(slots) })
    }

    fn first(&self) -> Slot {
        match self {
            Self::Run(run) => run.start,
            Self::Picked(slots) => slots.first().copied().unwrap_or_default(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Run(run) => run.len(),
            Self::Picked(slots) => slots.len(),
        }
    }

    fn for_each(&self, look: impl FnMut(Slot)) {
        match self {
            Self::Run(run) => run.clone().for_each(look),
            Self::Picked(slots) => slots.iter().copied().for_each(look),
        }
    }
}

/// The k best neighbours so far, by descending score, then ascending clip id.
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
    /// An empty list of up to `k` neighbours.
    #[must_use]
    pub fn new(k: usize) -> Self {
        Self { k, worst_first: BinaryHeap::with_capacity(k.min(4096) + 1) }
    }

    /// The score to beat: that of the worst of the k best, or minus infinity while there are fewer than k.
    #[must_use]
    pub fn threshold(&self) -> f32 {
        if self.worst_first.len() < self.k {
            return f32::NEG_INFINITY;
        }
        self.worst_first.peek().map_or(f32::INFINITY, |worst| worst.0.score)
    }

    /// Inserts a neighbour if it is among the k best.
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

    /// The neighbours, best first.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Neighbour> {
        self.worst_first.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}

/// The score that every search reports: the f32 dot product of unit vectors, clamped to -1..=1. Adding 0.0
/// turns -0.0 into 0.0, so that such ties are broken by clip id.
#[must_use]
pub fn score(query: &[f32], values: &[f32]) -> f32 {
    kernels().dot_f32(query, values).clamp(-1.0, 1.0) + 0.0
}

/// The engine that compares with every row: always ready, and its answers are proven.
#[derive(Debug, Clone, Copy)]
pub struct Scan;

impl VectorIndex for Scan {
    fn name(&self) -> &'static str {
        "exact-int8"
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn insert(&self, _: Slot, _: bool) {}

    fn remove(&self, _: Slot) {}

    fn restart(&self) {}

    fn search(
        &self,
        view: &View,
        query: &[f32],
        k: usize,
        params: SearchParams,
        scope: Scope<'_>,
    ) -> Option<Vec<Neighbour>> {
        let scan = if params.exact { scan_f32 } else { scan_int8 };
        Some(scan(view, query, k, scope))
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

/// Compares with every row in f32: the reference for all other searches.
#[must_use]
pub fn scan_f32(view: &View, query: &[f32], k: usize, scope: Scope<'_>) -> Vec<Neighbour> {
    let scan = |stretches: &[Stretch<'_>]| {
        let mut top = TopK::new(k);
        for stretch in stretches {
            stretch.for_each(|slot| {
                if let Some(id) = view.id(slot).filter(|_| !scope.skips(slot)) {
                    top.offer(id, score(query, view.values(slot)));
                }
            });
        }
        top
    };
    let mut parts = in_parts(&scope.stretches(view), scan).into_iter();
    let Some(mut top) = parts.next() else { return Vec::new() };
    for neighbour in parts.flat_map(TopK::into_sorted) {
        top.offer(neighbour.clip, neighbour.score);
    }
    top.into_sorted()
}

/// Scans all stretches in one call or, if there are many rows, in parallel parts.
fn in_parts<T: Send>(stretches: &[Stretch<'_>], scan: impl Fn(&[Stretch<'_>]) -> T + Send + Sync) -> Vec<T> {
    let rows: usize = stretches.iter().map(Stretch::len).sum();
    if rows < PARALLEL_ROWS {
        return vec![scan(stretches)];
    }
    let a_part = stretches.len().div_ceil(rayon::current_num_threads().max(1));
    stretches.par_chunks(a_part.max(1)).map(scan).collect()
}

/// Compares with the int8 codes of every row, then rescores in f32 only the rows that can be among the k best
/// by the proven error bound. Returns the same as [`scan_f32`].
#[must_use]
pub fn scan_int8(view: &View, query: &[f32], k: usize, scope: Scope<'_>) -> Vec<Neighbour> {
    let mut found = in_parts(&scope.stretches(view), |part| scan_codes(view, query, k, scope, part));
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

/// Returns a lower bound on the k-th best score of these rows, and every row whose score can reach it, with
/// the upper bound of its score.
fn scan_codes(
    view: &View,
    query: &[f32],
    k: usize,
    scope: Scope<'_>,
    stretches: &[Stretch<'_>],
) -> (f32, Vec<(f32, Slot)>) {
    let codes = quantize(query);
    let (query_codes, lines) = (flat(&codes.lines), view.lines());
    let mut sieve = Sieve::new(&codes, k, scope);
    let mut dots = [0_i32; CHUNK_ROWS];
    for stretch in stretches {
        let (chunk, first) = place(stretch.first());
        let page = &view.codes[chunk];
        let dots = &mut dots[..stretch.len()];
        match stretch {
            Stretch::Run(run) => {
                let rows = first..first + run.len();
                kernels().dot_i8_rows(query_codes, page.codes(rows.start, rows.end, lines), dots);
                for ((dot, row), slot) in dots.iter().zip(&page.scales[rows]).zip(run.clone()) {
                    sieve.offer(*dot, *row, slot);
                }
            }
            Stretch::Picked(slots) => {
                let start = stretch.first() - first as Slot;
                let all = page.codes(0, CHUNK_ROWS, lines);
                kernels().dot_i8_picked(query_codes, all, start, slots, dots);
                for (dot, slot) in dots.iter().zip(*slots) {
                    sieve.offer(*dot, page.scales[(slot - start) as usize], *slot);
                }
            }
        }
    }
    (sieve.floors.lowest, sieve.candidates)
}

/// Collects the rows that can be among the k best.
struct Sieve<'a> {
    scale: f32,
    constant: f32,
    factor: f32,
    scope: Scope<'a>,
    floors: Floors,
    candidates: Vec<(f32, Slot)>,
}

impl<'a> Sieve<'a> {
    fn new(query: &Codes, k: usize, scope: Scope<'a>) -> Self {
        let (constant, factor) = bound(query);
        let candidates = Vec::with_capacity(256);
        Self { scale: query.scale, constant, factor, scope, floors: Floors::new(k), candidates }
    }

    /// Runs for every row, so only the comparison that rejects most rows is inlined.
    #[inline(always)]
    fn offer(&mut self, dot: i32, row: CodeScale, slot: Slot) {
        let about = dot as f32 * (row.scale * self.scale);
        let slack = self.constant + self.factor * row.error;
        // Strictly greater: a removed row's ceiling is minus infinity, and so is the initial floor.
        if about + slack > self.floors.lowest {
            self.take(about, slack, slot);
        }
    }

    #[inline(never)]
    fn take(&mut self, about: f32, slack: f32, slot: Slot) {
        if !self.scope.skips(slot) {
            self.candidates.push((about + slack, slot));
            self.floors.offer(about - slack);
        }
    }
}

/// The k highest lower bounds. The lowest of them is a lower bound on the k-th best score.
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
