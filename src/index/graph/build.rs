//! Insertion: where a node belongs, whom it links to, and who links back. Any number of threads insert at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::links::{BASE_LINKS, HAS_TWINS, LINKED, LINKS, Links, Map, level};
use super::walk::{Comparing, MOST_NODES, Near, Sought, Walker, sought_of, with_walker};
use crate::codes::kernels::kernels;
use crate::index::rows::{Slot, View};

/// Breadth of the search that finds the links of a new node.
const BUILD_BREADTH: usize = 200;
/// A node to which no more links than this lead may get lost when another is dropped.
pub(super) const FEW: u16 = 2;
/// Cosine from which codes are compared one by one.
const ALMOST_EQUAL: f32 = 1.0 - 1e-5;
/// Rows that are compared at a time where the next comparison may be spared.
const STEP: usize = 4;

/// A graph of rows that changes while others search it. It holds no codes: it is given the view that has them.
pub struct Graph {
    pub(super) links: Links,
    pub(super) twins: RwLock<Twins>,
    /// Insertions share it; taking nodes out excludes them. Searches do not take it.
    pub(super) shape: RwLock<()>,
    pub(super) linked: AtomicUsize,
    generation: u64,
}

/// Rows whose codes a node of the graph has, too. One node stands for all, since a graph of equal nodes has no way out.
#[derive(Debug, Default)]
pub(super) struct Twins {
    behind: HashMap<Slot, BTreeSet<Slot>>,
    before: HashMap<Slot, Slot>,
}

impl Twins {
    pub fn of(&self, node: Slot) -> impl Iterator<Item = Slot> + '_ {
        self.behind.get(&node).into_iter().flatten().copied()
    }

    pub fn is_twin(&self, slot: Slot) -> bool {
        self.before.contains_key(&slot)
    }

    fn put(&mut self, node: Slot, twin: Slot) {
        self.take(twin);
        self.behind.entry(node).or_default().insert(twin);
        self.before.insert(twin, node);
    }

    /// Takes a twin away. Returns its node if no other stands behind it.
    pub fn take(&mut self, twin: Slot) -> Option<Slot> {
        let node = self.before.remove(&twin)?;
        let behind = self.behind.get_mut(&node)?;
        behind.remove(&twin);
        if !behind.is_empty() {
            return None;
        }
        self.behind.remove(&node);
        Some(node)
    }

    /// Takes all twins of a node away.
    pub fn take_all(&mut self, node: Slot) -> Vec<Slot> {
        let twins: Vec<Slot> = self.behind.remove(&node).into_iter().flatten().collect();
        for twin in &twins {
            self.before.remove(twin);
        }
        twins
    }

    fn memory_bytes(&self) -> usize {
        self.before.len() * 32 + self.behind.len() * 64
    }
}

impl Graph {
    /// An empty graph for the rows of this generation.
    #[must_use]
    pub fn new(generation: u64) -> Self {
        Self {
            links: Links::default(),
            twins: RwLock::default(),
            shape: RwLock::default(),
            linked: AtomicUsize::new(0),
            generation,
        }
    }

    /// Generation of the rows that it is about.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.linked.load(Ordering::Relaxed)
    }

    /// Whether a row is a node. One behind another with the same codes is none.
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        self.links.map().is(slot, LINKED)
    }

    /// Memory used, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.links.memory_bytes() + self.twins().memory_bytes()
    }

    pub(super) fn twins(&self) -> RwLockReadGuard<'_, Twins> {
        self.twins.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn twins_mut(&self) -> RwLockWriteGuard<'_, Twins> {
        self.twins.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a row in. Does nothing if the view has none there, or it is in. Notes nodes that few links lead to any more.
    pub fn insert(&self, view: &View, slot: Slot, lonely: &mut Vec<Slot>) {
        let _shape = self.shape.read().unwrap_or_else(PoisonError::into_inner);
        if view.id(slot).is_none() || slot as usize >= MOST_NODES {
            return;
        }
        let Some(sought) = sought_of(view, slot) else { return };
        let map = self.links.map_with(slot);
        if map.is(slot, LINKED) {
            return;
        }
        let entry = self.links.entry().unwrap_or_else(|| self.links.raise(slot));
        let mut place = Place { view, map: &map, slot, sought, lonely };
        if entry.0 != slot {
            let found = with_walker(|walker| place.find(walker, entry));
            match found {
                Found::Twin(node) => return self.put_behind(&map, node, slot),
                Found::Links(chosen) => place.link(&chosen),
            }
        }
        map.mark(slot, LINKED, true);
        self.linked.fetch_add(1, Ordering::Relaxed);
        self.links.raise(slot);
    }

    fn put_behind(&self, map: &Map, node: Slot, slot: Slot) {
        self.twins_mut().put(node, slot);
        map.mark(node, HAS_TWINS, true);
    }
}

enum Found {
    /// A node with the same codes.
    Twin(Slot),
    /// The links of each level, lowest first.
    Links(Vec<Vec<Near>>),
}

/// A node on its way into a graph.
struct Place<'a> {
    view: &'a View,
    map: &'a Map,
    slot: Slot,
    sought: Sought<'a>,
    lonely: &'a mut Vec<Slot>,
}

impl Place<'_> {
    fn find(&mut self, walker: &mut Walker, entry: (Slot, u32)) -> Found {
        let highest = level(self.slot).min(entry.1);
        let mut comparing = Comparing::new(self.view, self.sought);
        let mut from = walker.descend(self.map, &mut comparing, entry, highest);
        let mut chosen = Vec::with_capacity(highest as usize + 1);
        for level in (0..=highest).rev() {
            walker.search(self.map, &mut comparing, &[from], level, BUILD_BREADTH);
            let live = |near: &Near| !near.dead && near.slot != self.slot;
            let found: Vec<Near> = walker.found().filter(live).collect();
            if let Some(nearest) = found.first() {
                from = nearest.slot;
                if nearest.cosine > ALMOST_EQUAL && self.is_equal(nearest.slot) {
                    return Found::Twin(nearest.slot);
                }
            }
            chosen.push(select(self.view, &[], &found, LINKS));
        }
        chosen.reverse();
        Found::Links(chosen)
    }

    fn is_equal(&self, other: Slot) -> bool {
        sought_of(self.view, other).is_some_and(|other| other.codes == self.sought.codes)
    }

    /// Writes the node's own links on all levels before any link leads to it.
    fn link(&mut self, chosen: &[Vec<Near>]) {
        if let Some(_turn) = self.map.lock(self.slot) {
            for (level, links) in (0..).zip(chosen) {
                let slots: Vec<Slot> = links.iter().map(|near| near.slot).collect();
                self.map.set(self.slot, level, &slots);
            }
        }
        for (level, links) in (0..).zip(chosen) {
            links.iter().for_each(|near| self.link_back(*near, level));
        }
    }

    fn link_back(&mut self, near: Near, level: u32) {
        let Some(_turn) = self.map.lock(near.slot) else { return };
        if self.map.links(near.slot, level).any(|link| link == self.slot)
            || self.map.push(near.slot, level, self.slot)
        {
            return;
        }
        let most = if level == 0 { BASE_LINKS } else { LINKS };
        let Some(sought) = sought_of(self.view, near.slot) else { return };
        let before: Vec<Slot> = self.map.links(near.slot, level).collect();
        let mut all = nearest(self.view, sought, &before);
        all.push(Near { slot: self.slot, ..near });
        all.sort_unstable_by(by_cosine);
        let kept: Vec<Slot> = select(self.view, &[], &all, most).iter().map(|near| near.slot).collect();
        self.map.set(near.slot, level, &kept);
        if level == 0 {
            let lost =
                before.iter().filter(|slot| !kept.contains(slot) && self.map.leading_to(**slot) <= FEW);
            self.lonely.extend(lost);
        }
    }
}

pub(super) fn by_cosine(one: &Near, other: &Near) -> std::cmp::Ordering {
    other.cosine.total_cmp(&one.cosine).then(one.slot.cmp(&other.slot))
}

/// These slots with their cosine to a vector.
pub(super) fn nearest(view: &View, sought: Sought<'_>, slots: &[Slot]) -> Vec<Near> {
    let mut comparing = Comparing::new(view, sought);
    let mut all = Vec::with_capacity(slots.len() + 1);
    for part in slots.chunks(BASE_LINKS) {
        part.iter().for_each(|slot| comparing.add(*slot));
        comparing.compare(|slot, cosine, dead| all.push(Near { slot, cosine, dead }));
    }
    all
}

/// The links to keep, after those that stay in any case: from the nearest on, each that is nearer to the node than to all
/// links kept so far. So links lead into every direction, not only into the densest.
pub(super) fn select(view: &View, staying: &[Near], candidates: &[Near], most: usize) -> Vec<Near> {
    let kernels = kernels();
    let mut kept: Vec<Near> = Vec::with_capacity(most);
    let mut codes: Vec<&[i8]> = Vec::with_capacity(most);
    let mut norms: Vec<f32> = Vec::with_capacity(most);
    for (stays, near) in
        staying.iter().map(|near| (true, near)).chain(candidates.iter().map(|near| (false, near)))
    {
        if kept.len() == most {
            break;
        }
        let Some(sought) = sought_of(view, near.slot) else { continue };
        let mut dots = [0; STEP];
        let mut is_new = || {
            codes.chunks(STEP).zip(norms.chunks(STEP)).all(|(codes, norms)| {
                kernels.dot_i8_near(sought.codes, codes, &mut dots);
                dots.iter().zip(norms).all(|(dot, norm)| *dot as f32 * sought.norm * norm < near.cosine)
            })
        };
        if stays || is_new() {
            kept.push(*near);
            codes.push(sought.codes);
            norms.push(sought.norm);
        }
    }
    kept
}
