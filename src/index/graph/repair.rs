//! What keeps a changing graph whole: nodes are taken out and those around them linked anew; and a node that does not
//! find itself gets a link where a search for it ends.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::build::{FEW, Graph, by_cosine, nearest, select};
use super::links::{BASE_LINKS, HAS_TWINS, LINKED, LINKS, Map, NONE, level};
use super::walk::{Comparing, Near, Walker, sought_of, with_walker};
use crate::index::rows::{Slot, View};

/// Breadth at which every node must find itself. No search is narrower, and a broader one visits whatever a narrower one
/// does.
pub const LEAST_BREADTH: usize = 16;
/// Breadth that suffices for almost every node to find itself.
const NARROW: usize = 4;

/// The nodes that are to be taken out, a bit each.
struct Leaving(Vec<u64>);

impl Leaving {
    fn of(nodes: &[Slot], places: usize) -> Self {
        let mut bits = vec![0_u64; places.div_ceil(64)];
        for node in nodes {
            if let Some(word) = bits.get_mut(*node as usize / 64) {
                *word |= 1 << (node % 64);
            }
        }
        Self(bits)
    }

    fn has(&self, node: Slot) -> bool {
        self.0.get(node as usize / 64).is_some_and(|word| word >> (node % 64) & 1 == 1)
    }
}

impl Graph {
    /// Takes nodes out, whose rows are gone or now hold other codes, and links the nodes that led to them to those that
    /// they led to. Rows that stood behind them have to be put in anew.
    pub fn take_out(&self, view: &View, nodes: &[Slot]) {
        let _shape = self.shape.write().unwrap_or_else(PoisonError::into_inner);
        let map = self.links.map();
        let nodes: Vec<Slot> = nodes.iter().copied().filter(|node| map.is(*node, LINKED)).collect();
        if nodes.is_empty() {
            return;
        }
        let leaving = Leaving::of(&nodes, map.places().len());
        for node in map.places().filter(|node| map.is(*node, LINKED) && !leaving.has(*node)) {
            for level in 0..=level(node) {
                relink(view, &map, node, level, &leaving);
            }
        }
        for node in &nodes {
            (0..=level(*node)).for_each(|level| map.set(*node, level, &[]));
            if map.is(*node, HAS_TWINS) {
                self.twins_mut().take_all(*node);
            }
            map.mark(*node, LINKED | HAS_TWINS, false);
        }
        self.linked.fetch_sub(nodes.len(), Ordering::Relaxed);
        if self.links.entry().is_some_and(|(entry, _)| leaving.has(entry)) {
            let left = map.places().filter(|node| map.is(*node, LINKED));
            self.links.enter_at(left.max_by_key(|node| level(*node)));
        }
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<Slot> {
        let map = self.links.map();
        map.places().filter(|node| map.is(*node, LINKED)).collect()
    }

    /// The rows that stand behind a node.
    #[must_use]
    pub fn behind(&self, node: Slot) -> Vec<Slot> {
        self.twins().of(node).collect()
    }

    /// The nodes that this one leads to.
    #[must_use]
    pub fn led_to(&self, node: Slot) -> Vec<Slot> {
        self.links.map().links(node, 0).collect()
    }

    /// Takes a row from behind the node with the same codes. Returns whether it stood there.
    pub fn take_twin(&self, slot: Slot) -> bool {
        let mut twins = self.twins_mut();
        let known = twins.is_twin(slot);
        if let Some(node) = twins.take(slot) {
            self.links.map().mark(node, HAS_TWINS, false);
        }
        known
    }

    /// Takes all rows from behind a node.
    pub fn take_twins(&self, node: Slot) -> Vec<Slot> {
        let map = self.links.map();
        if !map.is(node, HAS_TWINS) {
            return Vec::new();
        }
        let mut twins = self.twins_mut();
        map.mark(node, HAS_TWINS, false);
        twins.take_all(node)
    }

    /// Makes a node find itself, with one more link if need be. Returns whether it does.
    pub fn ensure_found(&self, view: &View, slot: Slot) -> bool {
        let _shape = self.shape.read().unwrap_or_else(PoisonError::into_inner);
        let map = self.links.map();
        if !map.is(slot, LINKED) || view.id(slot).is_none() {
            return true;
        }
        with_walker(|walker| {
            self.finds_itself(walker, &map, view, slot, NARROW)
                || self.finds_itself(walker, &map, view, slot, LEAST_BREADTH)
                || {
                    let near: Vec<Near> = walker.found().collect();
                    lead_to(&map, view, slot, &near)
                        && self.finds_itself(walker, &map, view, slot, LEAST_BREADTH)
                }
        })
    }

    fn finds_itself(&self, walker: &mut Walker, map: &Map, view: &View, slot: Slot, breadth: usize) -> bool {
        let (Some(sought), Some(entry)) = (sought_of(view, slot), self.links.entry()) else { return false };
        let mut comparing = Comparing::new(view, sought);
        let from = walker.descend(map, &mut comparing, entry, 0);
        walker.search(map, &mut comparing, &[from], 0, breadth);
        walker.found().any(|near| near.slot == slot)
    }
}

/// Replaces the links of a node to leaving ones by links to where those led. Its other links stay.
fn relink(view: &View, map: &Map, node: Slot, level: u32, leaving: &Leaving) {
    let before: Vec<Slot> = map.links(node, level).collect();
    if !before.iter().any(|link| leaving.has(*link)) {
        return;
    }
    let (gone, stayed): (Vec<Slot>, Vec<Slot>) = before.into_iter().partition(|link| leaving.has(*link));
    let known = |link: &Slot| *link == node || leaving.has(*link) || stayed.contains(link);
    let mut further: Vec<Slot> =
        gone.iter().flat_map(|gone| map.links(*gone, level)).filter(|link| !known(link)).collect();
    further.sort_unstable();
    further.dedup();
    let Some(sought) = sought_of(view, node) else { return };
    let mut further = nearest(view, sought, &further);
    further.retain(|near| !near.dead);
    further.sort_unstable_by(by_cosine);
    let most = if level == 0 { BASE_LINKS } else { LINKS };
    let kept = select(view, &nearest(view, sought, &stayed), &further, most);
    let kept: Vec<Slot> = kept.iter().map(|near| near.slot).collect();
    map.set(node, level, &kept);
}

/// Leads the nodes at which a search for `slot` ends to it: the search then meets it.
fn lead_to(map: &Map, view: &View, slot: Slot, near: &[Near]) -> bool {
    let others: Vec<Near> = near.iter().copied().filter(|near| near.slot != slot).collect();
    if let Some(_turn) = map.lock(slot).filter(|_| map.links(slot, 0).next().is_none()) {
        let links: Vec<Slot> = select(view, &[], &others, LINKS).iter().map(|near| near.slot).collect();
        map.set(slot, 0, &links);
    }
    others.iter().any(|near| {
        let Some(_turn) = map.lock(near.slot) else { return false };
        if map.push(near.slot, 0, slot) {
            return true;
        }
        // The one that most others lead to misses the link least.
        let list: Vec<Slot> = map.links(near.slot, 0).collect();
        let spare = list.iter().copied().max_by_key(|link| map.leading_to(*link));
        let Some(spare) = spare.filter(|link| map.leading_to(*link) > FEW + 1) else { return false };
        let links: Vec<Slot> = list.into_iter().map(|link| if link == spare { slot } else { link }).collect();
        map.set(near.slot, 0, &links);
        true
    })
}

const _: () = assert!(NONE as usize > super::walk::MOST_NODES);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::index::rows::Rows;
    use crate::types::ClipId;

    /// Near-duplicates, clusters and far points.
    fn rows(count: i64) -> Rows {
        let (mut rng, mut rows) = (StdRng::seed_from_u64(12), Rows::new(32));
        for id in 0..count {
            let (centre, spread) = match id % 3 {
                0 => (1, 0.01),
                1 => (id % 40, 0.3),
                _ => (id, 0.0),
            };
            let mut of_centre = StdRng::seed_from_u64(centre.cast_unsigned());
            let values: Vec<f32> = (0..32)
                .map(|_| of_centre.random_range(-1.0_f32..1.0) + spread * rng.random_range(-1.0_f32..1.0))
                .collect();
            let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            rows.insert(ClipId(id), &values.iter().map(|value| value / length).collect::<Vec<_>>());
        }
        rows
    }

    #[test]
    fn threads_insert_and_search_side_by_side_and_what_is_taken_out_is_gone() {
        let rows = rows(3000);
        let (view, graph) = (rows.view(), Graph::new(0));
        std::thread::scope(|scope| {
            for first in 0..4 {
                let graph = &graph;
                scope.spawn(move || {
                    for slot in (first..3000).step_by(4) {
                        graph.insert(view, slot, &mut Vec::new());
                        let near = graph.candidates(view, view.values(slot), 16, 16);
                        assert!(near.iter().all(|slot| *slot < 3000));
                    }
                });
            }
        });
        let nodes = graph.nodes();
        let stands = |slot: &Slot| graph.has(*slot) || graph.take_twin(*slot);
        assert_eq!((nodes.len(), (0..3000).filter(stands).count()), (graph.len(), 3000));
        assert_eq!(nodes.iter().filter(|node| !graph.ensure_found(view, **node)).count(), 0);
        // A second look changes nothing: each was given its link.
        let found =
            |node: &&Slot| graph.candidates(view, view.values(**node), LEAST_BREADTH, 64).contains(node);
        assert_eq!(nodes.iter().filter(|node| !found(node)).count(), 0);

        let (gone, left): (Vec<Slot>, Vec<Slot>) = nodes.iter().partition(|node| **node % 2 == 0);
        graph.take_out(view, &gone);
        assert_eq!((graph.nodes(), graph.len()), (left.clone(), left.len()));
        let map = graph.links.map();
        for node in &left {
            let links = (0..=level(*node)).flat_map(|level| map.links(*node, level));
            assert!(links.into_iter().all(|link| link % 2 == 1), "a link to a node that is gone");
        }
        assert_eq!(left.iter().filter(|node| !graph.ensure_found(view, **node)).count(), 0);
        graph.take_out(view, &left);
        assert!(graph.nodes().is_empty() && graph.candidates(view, view.values(0), 64, 64).is_empty());
    }
}
