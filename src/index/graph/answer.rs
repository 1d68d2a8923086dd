//! Answers of a graph: candidates by codes, the best of them scored in f32.

use super::build::Graph;
use super::links::HAS_TWINS;
use super::repair::LEAST_BREADTH;
use super::walk::{Comparing, Sought, with_walker};
use crate::codes::kernels::{flat, prefetch};
use crate::codes::quantize::quantize;
use crate::index::Neighbour;
use crate::index::exact::{Scope, TopK, scan_int8, score};
use crate::index::rows::{Slot, View};

/// Candidates beyond the `k` best by codes that are scored in f32: codes order near neighbours only roughly.
const MORE_SCORED: usize = 20;

impl Graph {
    /// The best `most` slots by codes that a search of this breadth finds, with the rows behind them. Their rows may have
    /// changed since.
    #[must_use]
    pub fn candidates(&self, view: &View, query: &[f32], breadth: usize, most: usize) -> Vec<Slot> {
        let codes = quantize(query);
        let sought = Sought { codes: flat(&codes.lines), norm: codes.inverse_norm() };
        let Some(entry) = self.links.entry() else { return Vec::new() };
        let map = self.links.map();
        let mut found: Vec<Slot> = with_walker(|walker| {
            let mut comparing = Comparing::new(view, sought);
            let from = walker.descend(&map, &mut comparing, entry, 0);
            walker.search(&map, &mut comparing, &[from], 0, breadth.max(LEAST_BREADTH));
            walker.found().filter(|near| !near.dead).take(most).map(|near| near.slot).collect()
        });
        if found.iter().any(|slot| map.is(*slot, HAS_TWINS)) {
            let twins = self.twins();
            let behind: Vec<Slot> = found.iter().flat_map(|slot| twins.of(*slot)).collect();
            found.extend(behind);
        }
        found
    }

    /// The k nearest of what a search of this breadth finds and of the rows `beside`, which are compared one by one.
    #[must_use]
    pub fn nearest(
        &self,
        view: &View,
        beside: &[Slot],
        query: &[f32],
        k: usize,
        breadth: usize,
        skipped: &[Slot],
    ) -> Vec<Neighbour> {
        // A row can be newer than the view: it was written after the search began.
        let beside = &beside[..beside.partition_point(|slot| (*slot as usize) < view.slots())];
        let mut top = TopK::new(k);
        if !beside.is_empty() {
            let compared: Vec<Slot> =
                beside.iter().copied().filter(|slot| skipped.binary_search(slot).is_err()).collect();
            for neighbour in scan_int8(view, query, k, Scope::Only(&compared)) {
                top.offer(neighbour.clip, neighbour.score);
            }
        }
        let most = k.saturating_add(MORE_SCORED).saturating_add(skipped.len());
        let mut slots = self.candidates(view, query, breadth, most);
        slots.retain(|slot| {
            beside.binary_search(slot).is_err()
                && skipped.binary_search(slot).is_err()
                && view.id(*slot).is_some()
        });
        for (at, slot) in slots.iter().enumerate() {
            if let Some(next) = slots.get(at + 1) {
                prefetch(view.values(*next));
            }
            if let Some(clip) = view.id(*slot) {
                top.offer(clip, score(query, view.values(*slot)));
            }
        }
        top.into_sorted()
    }
}
