//! Searches of a graph: from the entry down to the lowest level, always on towards the best node seen.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::links::{BASE_LINKS, HAS_TWINS, Map, NONE};
use crate::codes::kernels::{Kernels, LINE, kernels, prefetch};
use crate::index::rows::{CHUNK_ROWS, Slot, View};

/// A node that a search found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    pub slot: Slot,
    /// Cosine of the codes.
    pub cosine: f32,
    /// Its row was removed; it only leads on.
    pub dead: bool,
}

/// A place in the best list: the cosine, in bits that order as it does, then the slot and two flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

const EXPANDED: u64 = 1;
const DEAD: u64 = 2;
/// Slots have this many bits in an entry.
const SLOT_BITS: u32 = 30;
/// Most nodes of a graph.
pub const MOST_NODES: usize = 1 << SLOT_BITS;

impl Entry {
    #[inline]
    fn new(cosine: f32, slot: Slot, dead: bool) -> Self {
        let bits = cosine.to_bits();
        // Negative numbers order the other way round.
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(ordered) << 32 | u64::from(slot) << 2 | if dead { DEAD } else { 0 })
    }

    const fn slot(self) -> Slot {
        (self.0 as u32) >> 2
    }

    const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn near(self) -> Near {
        let ordered = (self.0 >> 32) as u32;
        let bits = if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered };
        Near { slot: self.slot(), cosine: f32::from_bits(bits), dead: self.has(DEAD) }
    }
}

/// The best nodes so far, best first: `breadth` live ones, and the dead ones among them.
#[derive(Debug, Default)]
struct Best {
    entries: Vec<Entry>,
    breadth: usize,
    dead: usize,
    /// No entry before this one is left to expand.
    next: usize,
}

impl Best {
    fn begin(&mut self, breadth: usize) {
        self.entries.clear();
        (self.breadth, self.dead, self.next) = (breadth, 0, 0);
    }

    /// Returns whether it is the next to expand.
    #[inline]
    fn offer(&mut self, entry: Entry) -> bool {
        let full = self.entries.len() >= self.breadth + self.dead;
        if full && self.entries.last().is_none_or(|last| entry <= *last) {
            return false;
        }
        let at = self.entries.partition_point(|better| *better > entry);
        self.entries.insert(at, entry);
        let is_next = at <= self.next;
        self.next = self.next.min(at);
        self.dead += usize::from(entry.has(DEAD));
        while self.entries.len() > self.breadth + self.dead {
            let dropped = self.entries.pop();
            self.dead -= usize::from(dropped.is_some_and(|entry| entry.has(DEAD)));
        }
        is_next
    }

    /// The node to expand next.
    #[inline]
    fn peek(&self) -> Option<Slot> {
        let mut left = self.entries.get(self.next..)?.iter();
        left.find(|entry| !entry.has(EXPANDED)).map(|entry| entry.slot())
    }

    #[inline]
    fn expand(&mut self) -> Option<Slot> {
        let left = self.entries.get_mut(self.next..)?;
        let ahead = left.iter().position(|entry| !entry.has(EXPANDED))?;
        left[ahead].0 |= EXPANDED;
        self.next += ahead + 1;
        Some(left[ahead].slot())
    }
}

/// Which nodes a search has seen: a bit each, cleared one by one afterwards.
#[derive(Debug, Default)]
struct Seen {
    bits: Vec<u64>,
    nodes: Vec<Slot>,
}

impl Seen {
    fn begin(&mut self, nodes: usize) {
        for node in self.nodes.drain(..) {
            self.bits[node as usize / 64] = 0;
        }
        let words = nodes.div_ceil(64);
        if self.bits.len() < words {
            self.bits.resize(words, 0);
        }
    }

    /// Whether it is new. Slots beyond the graph are not.
    #[inline]
    fn insert(&mut self, slot: Slot) -> bool {
        let Some(word) = self.bits.get_mut(slot as usize / 64) else { return false };
        let bit = 1 << (slot % 64);
        let new = *word & bit == 0;
        if new {
            *word |= bit;
            self.nodes.push(slot);
        }
        new
    }
}

/// Working memory of searches, kept by each thread: a bit for every node of the largest graph that it searched, and lists
/// as long as its broadest search.
#[derive(Debug, Default)]
pub struct Walker {
    best: Best,
    seen: Seen,
}

/// Runs a search with this thread's working memory.
pub fn with_walker<T>(walk: impl FnOnce(&mut Walker) -> T) -> T {
    thread_local! {
        static WALKER: RefCell<Walker> = RefCell::default();
    }
    WALKER.with_borrow_mut(walk)
}

/// What is searched for: codes, and 1 / their length.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    pub codes: &'a [i8],
    pub norm: f32,
}

/// A row of codes where it lies, and 1 / their length.
#[inline]
fn row(view: &View, bytes: usize, slot: Slot) -> Option<(&[i8], &[f32])> {
    let at = slot as usize % CHUNK_ROWS;
    let page = view.codes.get(slot as usize / CHUNK_ROWS)?;
    Some((page.all().get(at * bytes..(at + 1) * bytes)?, page.norms.get(at..=at)?))
}

/// Compares a vector with rows that lie anywhere.
pub struct Comparing<'a> {
    view: &'a View,
    kernels: &'static Kernels,
    sought: Sought<'a>,
    codes: [&'a [i8]; BASE_LINKS],
    norms: [&'a [f32]; BASE_LINKS],
    slots: [Slot; BASE_LINKS],
    count: usize,
}

impl<'a> Comparing<'a> {
    pub fn new(view: &'a View, sought: Sought<'a>) -> Self {
        let (codes, norms): ([&[i8]; BASE_LINKS], [&[f32]; BASE_LINKS]) = ([&[]; _], [&[]; _]);
        Self { view, kernels: kernels(), sought, codes, norms, slots: [0; BASE_LINKS], count: 0 }
    }

    /// Notes a row to be compared; at most [`BASE_LINKS`] at a time.
    #[inline]
    pub fn add(&mut self, slot: Slot) {
        if let Some((codes, norm)) = row(self.view, self.sought.codes.len(), slot)
            && self.count < BASE_LINKS
        {
            prefetch(norm);
            (self.codes[self.count], self.norms[self.count]) = (codes, norm);
            self.slots[self.count] = slot;
            self.count += 1;
        }
    }

    /// Compares the noted rows. Tells slot, cosine, and whether the row was removed.
    #[inline]
    pub fn compare(&mut self, mut tell: impl FnMut(Slot, f32, bool)) {
        let mut dots = [0; BASE_LINKS];
        let count = std::mem::take(&mut self.count);
        self.kernels.dot_i8_each(self.sought.codes, &self.codes[..count], &mut dots[..count]);
        for ((dot, norm), slot) in dots[..count].iter().zip(&self.norms).zip(&self.slots) {
            let norm = norm.first().copied().unwrap_or_default();
            // No row has been there yet: the view is older than the node.
            if norm != 0.0 {
                tell(*slot, *dot as f32 * self.sought.norm * norm.abs(), norm < 0.0);
            }
        }
    }
}

/// The codes of a stored row as what is searched for.
pub fn sought_of<'a>(view: &'a View, slot: Slot) -> Option<Sought<'a>> {
    let (codes, norm) = row(view, view.lines() * LINE, slot)?;
    let norm = norm.first()?.abs();
    (norm > 0.0).then_some(Sought { codes, norm })
}

impl Walker {
    /// From the entry down to a level, on each to the best node. Returns the best node of that level, or of the level
    /// above it.
    pub fn descend(&mut self, map: &Map, comparing: &mut Comparing<'_>, entry: (Slot, u32), to: u32) -> Slot {
        let (mut best, mut best_cosine) = (entry.0, f32::NEG_INFINITY);
        comparing.add(best);
        comparing.compare(|_, cosine, _| best_cosine = cosine);
        for level in (to + 1..=entry.1).rev() {
            loop {
                let before = best;
                map.links(best, level).for_each(|link| comparing.add(link));
                comparing.compare(|slot, cosine, _| {
                    if cosine > best_cosine {
                        (best, best_cosine) = (slot, cosine);
                    }
                });
                if best == before {
                    break;
                }
            }
        }
        best
    }

    /// The `breadth` best live nodes of a level that a search from these nodes meets, and the dead ones between them.
    pub fn search(
        &mut self,
        map: &Map,
        comparing: &mut Comparing<'_>,
        from: &[Slot],
        level: u32,
        breadth: usize,
    ) {
        self.best.begin(breadth);
        self.seen.begin(comparing.view.codes.len() * CHUNK_ROWS);
        let (best, seen) = (&mut self.best, &mut self.seen);
        for part in from.chunks(BASE_LINKS) {
            part.iter().filter(|slot| seen.insert(**slot)).for_each(|slot| comparing.add(*slot));
            comparing.compare(|slot, cosine, dead| {
                best.offer(entry(map, slot, cosine, dead));
            });
        }
        while let Some(node) = best.expand() {
            for link in map.list(node, level) {
                let link = link.load(Ordering::Relaxed);
                if link == NONE {
                    break;
                }
                if seen.insert(link) {
                    comparing.add(link);
                }
            }
            // The links of the node that comes next, unless one of these is better.
            if let Some(next) = best.peek() {
                prefetch(map.list(next, level));
            }
            comparing.compare(|slot, cosine, dead| {
                if best.offer(entry(map, slot, cosine, dead)) {
                    prefetch(map.list(slot, level));
                }
            });
        }
    }

    /// What the last search found, best first.
    pub fn found(&self) -> impl ExactSizeIterator<Item = Near> + '_ {
        self.best.entries.iter().map(|entry| entry.near())
    }
}

/// A removed row before live ones with the same codes still stands for them.
#[inline]
fn entry(map: &Map, slot: Slot, cosine: f32, dead: bool) -> Entry {
    Entry::new(cosine, slot, dead && !map.is(slot, HAS_TWINS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_order_by_cosine() {
        let cosines = [-1.0, -0.5, -1e-9, 0.0, 1e-9, 0.25, 0.999_999_9, 1.0];
        for (at, cosine) in cosines.into_iter().enumerate() {
            let entry = Entry::new(cosine, MOST_NODES as Slot - 1, at % 2 == 0);
            assert_eq!(entry.near(), Near { slot: MOST_NODES as Slot - 1, cosine, dead: at % 2 == 0 });
            assert!(cosines[..at].iter().all(|less| Entry::new(*less, MOST_NODES as Slot - 1, true) < entry));
        }
    }

    #[test]
    fn the_best_live_nodes_stay_and_dead_ones_take_no_place() {
        let mut best = Best::default();
        best.begin(3);
        for (slot, cosine, dead) in [
            (1, 0.1, false),
            (2, 0.9, true),
            (3, 0.5, false),
            (4, 0.4, true),
            (5, 0.3, false),
            (6, 0.2, false),
            (7, 0.6, false),
        ] {
            best.offer(Entry::new(cosine, slot, dead));
        }
        let slots: Vec<Slot> = best.entries.iter().map(|entry| entry.slot()).collect();
        assert_eq!(slots, [2, 7, 3, 4, 5]);
        let expanded: Vec<Slot> = std::iter::from_fn(|| best.expand()).collect();
        assert_eq!(expanded, slots);
        best.offer(Entry::new(0.7, 9, false));
        assert_eq!((best.expand(), best.expand()), (Some(9), None));
    }
}
