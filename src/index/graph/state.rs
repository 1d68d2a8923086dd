//! What the graph engine knows of rows and nodes, and what is left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use super::build::Graph;
use crate::index::Beside;
use crate::index::breadth::MeasuredRecall;
use crate::index::rows::{SharedRows, Slot, View};

/// Rows that are put in at a time.
pub const BATCH: usize = 1024;
/// Nodes without rows that are taken out together: each time costs a walk over all links.
const MOST_DEAD: usize = 256;
/// Or this share of the nodes: 1 / `DEAD_SHARE`.
const DEAD_SHARE: usize = 50;
/// Most of them at a time: searches compare all that they led to until that is checked.
const DEAD_BATCH: usize = 512;
/// All nodes are checked again after as many changes as this share of them: 1 / `CHECK_SHARE`.
const CHECK_SHARE: usize = 4;

/// The scan answers when this share of the nodes went or moved since all were checked: 1 / `SHAKEN_SHARE`.
const SHAKEN_SHARE: usize = 50;

/// The engine's parts that its threads share.
pub struct Shared {
    pub rows: Arc<SharedRows>,
    pub graph_from: usize,
    /// Taken before the lock of the rows.
    state: RwLock<State>,
    pub working: Mutex<bool>,
    pub idle: Condvar,
    stop: AtomicBool,
}

impl Shared {
    pub fn new(rows: Arc<SharedRows>, graph_from: usize) -> Self {
        Self {
            rows,
            graph_from,
            state: RwLock::default(),
            working: Mutex::new(false),
            idle: Condvar::new(),
            stop: AtomicBool::new(false),
        }
    }

    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn generation(&self) -> u64 {
        self.rows.read(|rows| rows.view().generation)
    }

    pub fn live(&self) -> usize {
        self.rows.read(|rows| rows.view().live)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A graph has to be begun.
    Begin,
    /// Too few rows are left for a graph.
    Drop,
    /// Rows of the beginning have to be put in.
    First,
    /// Written rows have to be put in, and nodes taken out.
    Batch,
    /// Every node has to be checked.
    Check,
}

#[derive(Default)]
pub struct State {
    graph: Option<Arc<Graph>>,
    /// Whether it answers searches.
    ready: bool,
    /// Rows of the beginning that are not in yet.
    waiting: Vec<Slot>,
    /// Written rows that are not in yet.
    fresh: BTreeSet<Slot>,
    /// Nodes that may not find themselves any more.
    doubtful: BTreeSet<Slot>,
    /// Nodes that do not find themselves.
    lost: BTreeSet<Slot>,
    /// All three, ascending: what every search compares. It may hold more until the next batch has ended.
    beside: Arc<Vec<Slot>>,
    /// Fresh rows that are being put in; true if they were written meanwhile.
    in_hand: BTreeMap<Slot, bool>,
    /// Nodes whose rows were removed.
    dead: BTreeSet<Slot>,
    /// Changes since all nodes were checked.
    changes: Changes,
    recalls: Arc<Vec<MeasuredRecall>>,
    /// Size at which the graph proved useless. The next attempt waits until the size has doubled.
    useless_at: usize,
}

/// What may have led searches astray.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes {
    /// Rows that were put in.
    put_in: usize,
    /// Nodes that were taken out, or whose rows hold other codes than those by which they are linked.
    shaken: usize,
}

/// The graph and what is scanned beside it, at one moment.
pub struct Pinned {
    pub graph: Arc<Graph>,
    pub beside: Arc<Vec<Slot>>,
    pub recalls: Arc<Vec<MeasuredRecall>>,
}

/// Rows to put in and nodes to take out together.
#[derive(Default)]
pub struct Batch {
    pub fresh: Vec<Slot>,
    pub dead: Vec<Slot>,
    pub doubtful: Vec<Slot>,
}

impl State {
    pub fn is_ready(&self) -> bool {
        self.ready && !self.is_shaken()
    }

    /// Whether so many nodes went or moved that others may be missed: the scan answers until all have been checked.
    fn is_shaken(&self) -> bool {
        let nodes = self.graph.as_ref().map_or(0, |graph| graph.len());
        self.changes.shaken > nodes / SHAKEN_SHARE
    }

    pub fn pin(&self, generation: u64) -> Option<Pinned> {
        let graph =
            self.graph.as_ref().filter(|graph| self.is_ready() && graph.generation() == generation)?;
        let (beside, recalls) = (Arc::clone(&self.beside), Arc::clone(&self.recalls));
        Some(Pinned { graph: Arc::clone(graph), beside, recalls })
    }

    pub fn graph(&self) -> Option<Arc<Graph>> {
        self.graph.clone()
    }

    pub fn scanned_beside(&self) -> Beside {
        Beside { unreachable: self.lost.len() + self.doubtful.len(), new: self.fresh.len() }
    }

    pub fn memory_bytes(&self) -> usize {
        let sets = self.waiting.capacity()
            + self.beside.capacity()
            + 4 * (self.fresh.len()
                + self.doubtful.len()
                + self.lost.len()
                + self.in_hand.len()
                + self.dead.len());
        self.graph.as_ref().map_or(0, |graph| graph.memory_bytes()) + sets * size_of::<Slot>()
    }

    /// Forgets a graph of other rows, and returns it.
    pub fn begin_anew(&mut self, generation: u64) -> Option<Arc<Graph>> {
        let other = self.graph.as_ref().is_some_and(|graph| graph.generation() != generation);
        if other { self.forget() } else { None }
    }

    pub fn forget(&mut self) -> Option<Arc<Graph>> {
        let useless_at = self.useless_at;
        std::mem::replace(self, Self { useless_at, ..Self::default() }).graph
    }

    pub fn give_up(&mut self, live: usize) -> Option<Arc<Graph>> {
        self.useless_at = live;
        self.forget()
    }

    /// Takes in a row that was written, wherever its slot was before.
    pub fn note_written(&mut self, slot: Slot, generation: u64) {
        drop(self.begin_anew(generation));
        let Some(graph) = self.graph.clone() else { return };
        if let Some(again) = self.in_hand.get_mut(&slot) {
            *again = true;
        }
        self.dead.remove(&slot);
        self.lost.remove(&slot);
        graph.take_twin(slot);
        // What the node led to, and what stood behind it, must not depend on it any more: its codes are others now.
        let behind = graph.take_twins(slot);
        let led_to = graph.led_to(slot);
        self.changes.shaken += usize::from(graph.has(slot));
        self.fresh.extend(behind.iter().copied().chain([slot]));
        self.doubtful.extend(&led_to);
        for slot in behind.into_iter().chain(led_to).chain([slot]) {
            self.scan_beside(slot);
        }
    }

    fn scan_beside(&mut self, slot: Slot) {
        if let Err(at) = self.beside.binary_search(&slot) {
            Arc::make_mut(&mut self.beside).insert(at, slot);
        }
    }

    pub fn note_removed(&mut self, slot: Slot, generation: u64) {
        drop(self.begin_anew(generation));
        let Some(graph) = self.graph.clone() else { return };
        self.fresh.remove(&slot);
        self.doubtful.remove(&slot);
        self.lost.remove(&slot);
        if !graph.take_twin(slot) && graph.has(slot) {
            self.dead.insert(slot);
        }
    }

    /// What to do next with `live` rows, if anything.
    pub fn due(&self, live: usize, graph_from: usize) -> Option<Due> {
        let Some(graph) = &self.graph else {
            return (live >= graph_from && live >= self.useless_at.saturating_mul(2)).then_some(Due::Begin);
        };
        if live < graph_from / 2 {
            return Some(Due::Drop);
        }
        if !self.waiting.is_empty() {
            return Some(Due::First);
        }
        let nodes = graph.len();
        let new = self.fresh.iter().any(|slot| !self.in_hand.contains_key(slot));
        if new || !self.doubtful.is_empty() || self.dead.len() > MOST_DEAD.max(nodes / DEAD_SHARE) {
            return Some(Due::Batch);
        }
        (!self.is_ready() || self.changes.put_in > nodes / CHECK_SHARE).then_some(Due::Check)
    }

    pub fn begin(&mut self, graph: Graph, waiting: Vec<Slot>) {
        self.graph = Some(Arc::new(graph));
        self.waiting = waiting;
    }

    /// Takes rows of the beginning.
    pub fn take_first(&mut self, most: usize) -> Vec<Slot> {
        self.waiting.split_off(self.waiting.len().saturating_sub(most))
    }

    /// How many fresh rows nobody has in hand.
    pub fn queued(&self) -> usize {
        self.fresh.len() - self.in_hand.len().min(self.fresh.len())
    }

    /// Takes work in hand: all kinds, or only rows that are no nodes yet.
    pub fn take_batch(&mut self, most: usize, only_new: bool) -> Batch {
        let Some(graph) = self.graph.clone() else { return Batch::default() };
        let free = |slot: &Slot| !(self.in_hand.contains_key(slot) || only_new && graph.has(*slot));
        let fresh: Vec<Slot> = self.fresh.iter().copied().filter(free).take(most).collect();
        self.in_hand.extend(fresh.iter().map(|slot| (*slot, false)));
        if only_new {
            return Batch { fresh, ..Batch::default() };
        }
        let moved = fresh.iter().any(|slot| graph.has(*slot));
        let enough = self.dead.len() > MOST_DEAD.max(graph.len() / DEAD_SHARE);
        let count = if moved || enough { DEAD_BATCH } else { 0 };
        let dead: Vec<Slot> = self.dead.iter().copied().take(count).collect();
        self.dead.retain(|node| dead.binary_search(node).is_err());
        Batch { fresh, dead, doubtful: self.doubtful.iter().copied().collect() }
    }

    /// Before nodes are taken out: rows that stand behind them have to be put in themselves, and nodes that they lead to
    /// have to be checked. Returns these.
    pub fn note_leaving(&mut self, leaving: &BTreeSet<Slot>) -> BTreeSet<Slot> {
        let Some(graph) = self.graph.clone() else { return BTreeSet::new() };
        let mut led_to: BTreeSet<Slot> = leaving.iter().flat_map(|node| graph.led_to(*node)).collect();
        led_to.retain(|node| !leaving.contains(node) && !self.dead.contains(node));
        self.fresh.extend(leaving.iter().flat_map(|node| graph.behind(*node)));
        self.doubtful.extend(&led_to);
        self.list_beside();
        led_to
    }

    /// Ends a batch of `graph`: its rows are in, and of the nodes that were checked, these do not find themselves.
    pub fn end_batch(
        &mut self,
        of: &Arc<Graph>,
        batch: &Batch,
        checked: &[Slot],
        lost: &[Slot],
        view: &View,
    ) {
        let Some(graph) = self.graph.clone().filter(|graph| Arc::ptr_eq(graph, of)) else { return };
        for slot in &batch.fresh {
            let again = self.in_hand.remove(slot).unwrap_or_default();
            if !again {
                self.fresh.remove(slot);
            }
            // Removed while it was put in.
            if !again && view.id(*slot).is_none() && !graph.take_twin(*slot) && graph.has(*slot) {
                self.dead.insert(*slot);
            }
        }
        for slot in checked {
            self.doubtful.remove(slot);
            self.lost.remove(slot);
        }
        self.lost.extend(lost.iter().filter(|slot| view.id(**slot).is_some()));
        self.changes.put_in += batch.fresh.len();
        self.changes.shaken += batch.dead.len();
        self.list_beside();
    }

    /// Ends a check of all nodes of `graph`. The graph answers from now on.
    pub fn end_check(&mut self, of: &Arc<Graph>, seen: Changes, recalls: Vec<MeasuredRecall>) -> bool {
        if !self.graph.as_ref().is_some_and(|graph| Arc::ptr_eq(graph, of)) {
            return false;
        }
        self.changes.put_in -= seen.put_in.min(self.changes.put_in);
        self.changes.shaken -= seen.shaken.min(self.changes.shaken);
        self.recalls = Arc::new(recalls);
        self.list_beside();
        !std::mem::replace(&mut self.ready, true)
    }

    /// Notes which of some checked nodes of `graph` do not find themselves.
    pub fn note_checked(&mut self, of: &Arc<Graph>, checked: &[Slot], lost: &[Slot]) {
        if self.graph.as_ref().is_some_and(|graph| Arc::ptr_eq(graph, of)) {
            for slot in checked {
                self.lost.remove(slot);
            }
            self.lost.extend(lost);
            self.list_beside();
        }
    }

    pub fn beside(&self) -> Arc<Vec<Slot>> {
        Arc::clone(&self.beside)
    }

    pub const fn changes(&self) -> Changes {
        self.changes
    }

    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    fn list_beside(&mut self) {
        let mut all: Vec<Slot> = self.fresh.iter().chain(&self.doubtful).chain(&self.lost).copied().collect();
        all.sort_unstable();
        all.dedup();
        self.beside = Arc::new(all);
    }
}
