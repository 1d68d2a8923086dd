//! A graph over the codes of one frozen view.
//!
//! `hnsw_rs` cannot delete, does not guarantee that every point can be reached, and panics on hostile
//! vectors. So it only ever sees our own codes; equal codes share one node; a graph never changes after it is
//! built; and every node that a search for its own codes does not find is put in `orphans`, which every
//! search also scans. This keeps the promise that every stored clip finds itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use hnsw_rs::prelude::{Distance, Hnsw};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::codes::kernels::{Kernels, flat, kernels};
use crate::codes::quantize::quantize;
use crate::index::breadth::MeasuredRecall;
use crate::index::rows::{Slot, View};

/// Links per node and layer; twice as many in the lowest layer.
const LINKS: usize = 16;
/// Breadth of the search that finds the links of a new node.
const BUILD_BREADTH: usize = 200;
const LAYERS: usize = 16;
/// Breadth at which every node must find itself. No search is narrower, and a broader search visits every
/// node that a narrower one does.
pub const LEAST_BREADTH: usize = 48;
/// Largest share of orphans. With more, the graph does not pay.
const MOST_ORPHANS: f64 = 0.2;
/// The only source of randomness for insertion order and levels, so the same rows give the same graph.
const SEED: u64 = 0x7472_6970;

/// Bytes after a node's codes: the inverse of their Euclidean norm, as f64.
const TAIL: usize = 8;

/// 1 - cosine of two nodes.
struct CodeDistance(&'static Kernels);

impl Distance<i8> for CodeDistance {
    fn eval(&self, a: &[i8], b: &[i8]) -> f32 {
        let dot = self.0.dot_i8(a, b);
        // In f64: near-duplicates differ by less than f32 can resolve near 1.
        (1.0 - f64::from(dot) * inverse_norm(a) * inverse_norm(b)).max(0.0) as f32
    }
}

fn inverse_norm(node: &[i8]) -> f64 {
    let mut bytes = [0; TAIL];
    for (byte, code) in bytes.iter_mut().zip(&node[node.len() - TAIL..]) {
        *byte = code.cast_unsigned();
    }
    f64::from_ne_bytes(bytes)
}

fn write_node(codes: &[i8], node: &mut Vec<i8>) {
    let squares = kernels().dot_i8(codes, codes);
    let inverse = if squares > 0 { 1.0 / f64::from(squares).sqrt() } else { 0.0 };
    node.clear();
    node.extend_from_slice(codes);
    node.extend(inverse.to_ne_bytes().map(u8::cast_signed));
}

/// Why a build gave no graph.
#[derive(Debug, PartialEq, Eq)]
pub enum NoGraph {
    /// The build was stopped.
    Stopped,
    /// Too many nodes are unreachable.
    Useless {
        /// Nodes that no search finds.
        lost: usize,
        /// All nodes.
        of: usize,
    },
}

/// A built graph; see the module.
pub struct Graph {
    hnsw: Hnsw<'static, i8, CodeDistance>,
    /// Slots of each node; several if their codes are equal.
    nodes: Vec<Vec<Slot>>,
    /// Slots of nodes that a search does not find, ascending.
    orphans: Vec<Slot>,
    covered: usize,
    generation: u64,
    node_bytes: usize,
    /// In ascending order of breadth.
    recalls: Vec<MeasuredRecall>,
}

impl Graph {
    /// Builds a graph of all live rows of a view on this thread; takes minutes for 100,000 rows. Setting
    /// `stop` ends it early.
    ///
    /// # Errors
    /// [`NoGraph`].
    pub fn build(view: &View, stop: &AtomicBool) -> Result<Self, NoGraph> {
        let mut by_codes: HashMap<&[i8], usize> = HashMap::with_capacity(view.live);
        let mut nodes: Vec<Vec<Slot>> = Vec::with_capacity(view.live);
        for (slot, _) in view.live_slots() {
            let next = nodes.len();
            match *by_codes.entry(view.codes(slot)).or_insert(next) {
                node if node == next => nodes.push(vec![slot]),
                node => nodes[node].push(slot),
            }
        }
        drop(by_codes);
        // Neighbouring clips arrive together. Inserted in that order, they would link mostly among
        // themselves.
        nodes.shuffle(&mut StdRng::seed_from_u64(SEED));
        let distance = CodeDistance(kernels());
        let mut hnsw = Hnsw::new(LINKS, nodes.len().max(1), LAYERS, BUILD_BREADTH, distance);
        let mut payload = Vec::new();
        for (node, slots) in nodes.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(NoGraph::Stopped);
            }
            write_node(view.codes(slots[0]), &mut payload);
            hnsw.insert_slice((&payload, node));
        }
        hnsw.set_searching_mode(true);
        let mut graph = Self {
            hnsw,
            nodes,
            orphans: Vec::new(),
            covered: view.live,
            generation: view.generation,
            node_bytes: payload.len(),
            recalls: Vec::new(),
        };
        graph.find_orphans(view, stop)?;
        Ok(graph)
    }

    fn find_orphans(&mut self, view: &View, stop: &AtomicBool) -> Result<(), NoGraph> {
        let most = (self.nodes.len() as f64 * MOST_ORPHANS) as usize;
        let mut payload = Vec::new();
        let mut lost = 0;
        let mut orphans = Vec::new();
        for (node, slots) in self.nodes.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(NoGraph::Stopped);
            }
            write_node(view.codes(slots[0]), &mut payload);
            let found = self.hnsw.search(&payload, LEAST_BREADTH, LEAST_BREADTH);
            if !found.iter().any(|neighbour| neighbour.d_id == node) {
                lost += 1;
                orphans.extend_from_slice(slots);
            }
            if lost > most {
                return Err(NoGraph::Useless { lost, of: self.nodes.len() });
            }
        }
        orphans.sort_unstable();
        self.orphans = orphans;
        Ok(())
    }

    /// Slots near a query. Their rows may have changed since the graph was built. Orphans are not included:
    /// scan [`orphans`](Self::orphans) as well.
    #[must_use]
    pub fn candidates(&self, query: &[f32], breadth: usize) -> Vec<Slot> {
        let mut payload = Vec::new();
        write_node(flat(&quantize(query).lines), &mut payload);
        let breadth = breadth.max(LEAST_BREADTH);
        let found = self.hnsw.search(&payload, breadth, breadth);
        found.iter().flat_map(|neighbour| &self.nodes[neighbour.d_id]).copied().collect()
    }

    /// Stores measured recalls, in ascending order of breadth.
    pub fn note_recalls(&mut self, recalls: Vec<MeasuredRecall>) {
        self.recalls = recalls;
    }

    /// The measured recalls, in ascending order of breadth.
    #[must_use]
    pub fn recalls(&self) -> &[MeasuredRecall] {
        &self.recalls
    }

    /// Slots that every search must scan, ascending.
    #[must_use]
    pub fn orphans(&self) -> &[Slot] {
        &self.orphans
    }

    /// Generation of the rows that the graph was built from.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of rows that the graph was built from.
    #[must_use]
    pub const fn covered(&self) -> usize {
        self.covered
    }

    /// Approximate memory in bytes: codes, links (a shared pointer and its target each) and layer tables.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.nodes.len() * (self.node_bytes + 16 * 24 + 2 * LINKS * 40 + 96) + self.orphans.len() * 4
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::index::rows::Rows;
    use crate::types::ClipId;

    #[test]
    fn equal_codes_are_one_node_and_all_their_slots_come_back() {
        let mut rows = Rows::new(4);
        for id in 0..600 {
            let angle = (id % 200) as f32 * 0.03;
            rows.insert(ClipId(id), &[angle.sin(), angle.cos(), 0.0, 0.0]);
        }
        let graph = Graph::build(rows.view(), &AtomicBool::new(false)).ok().unwrap();
        assert!(graph.nodes.len() <= 200);
        for slot in 0..600 {
            let found = graph.candidates(rows.view().values(slot), 1);
            assert!(found.contains(&slot) || graph.orphans.contains(&slot));
        }
        assert!(matches!(Graph::build(rows.view(), &AtomicBool::new(true)), Err(NoGraph::Stopped)));
    }
}
