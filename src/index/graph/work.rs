//! The work in the background: one thread an engine, at low priority, while there is something to do.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::build::Graph;
use super::repair::LEAST_BREADTH;
use super::state::{BATCH, Batch, Due, Shared};
use crate::index::breadth::measure;
use crate::index::rows::{Slot, View};

/// Rows of the beginning that are put in, or nodes that are checked, with one view.
const STRETCH: usize = 4096;
/// Size from which the beginning is shared among threads. Below, the same rows always give the same graph.
const SHARED_FROM: usize = 50_000;
/// Fresh rows from which writers help to put rows in: every search compares them.
const MOST_FRESH: usize = 1024;
/// Rows that a writer then puts in for each that it writes.
const HELP: usize = 4;
/// Largest share of nodes that do not find themselves. With more, the graph does not pay.
const MOST_LOST: f64 = 0.2;
/// Breadths at which recall is measured, for `recall_target`.
const MEASURED_BREADTHS: [usize; 9] = [LEAST_BREADTH, 24, 32, 48, 64, 96, 128, 256, 512];
/// The only source of randomness for the order of insertion.
const SEED: u64 = 0x7472_6970;

impl Shared {
    /// Starts the thread if there is something to do and none is at it.
    pub fn work_if_due(self: &Arc<Self>) {
        if self.due().is_none() {
            return;
        }
        {
            let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *working, true) {
                return;
            }
        }
        let shared = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("triptych-graph".into()).spawn(move || shared.work());
        if let Err(error) = spawned {
            tracing::error!(%error, "could not start a thread to keep a search graph; scanning instead");
            self.end_work();
        }
    }

    fn due(&self) -> Option<Due> {
        let live = self.live();
        self.read(|state| state.due(live, self.graph_from)).filter(|_| !self.is_stopped())
    }

    /// Waits until nothing is being done and nothing is due.
    pub fn settle(self: &Arc<Self>) {
        loop {
            let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
            while *working {
                working = self.idle.wait(working).unwrap_or_else(PoisonError::into_inner);
            }
            drop(working);
            if self.due().is_none() {
                return;
            }
            self.work_if_due();
            std::thread::yield_now();
        }
    }

    fn end_work(&self) {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.idle.notify_all();
    }

    fn work(self: &Arc<Self>) {
        // One engine at a time, at low priority: the towers need the cores more.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        if let Err(error) = rustix::process::nice(10) {
            tracing::debug!(%error, "could not lower the priority of the graph's thread");
        }
        while let Some(due) = self.due() {
            let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            if catch_unwind(AssertUnwindSafe(|| self.step(due))).is_err() {
                let live = self.live();
                tracing::error!(rows = live, "work on a search graph failed; scanning instead");
                drop(self.write(|state| state.give_up(live)));
            }
            drop(turn);
        }
        self.end_work();
        // What became due since the last look found the thread still marked as working.
        self.work_if_due();
    }

    fn step(&self, due: Due) {
        match due {
            Due::Begin => self.begin(),
            Due::Drop => drop(self.write(super::state::State::forget)),
            Due::First => self.put_in_first(),
            Due::Batch => {
                let batch = self.write(|state| state.take_batch(BATCH, false));
                self.put_in(&batch);
            }
            Due::Check => self.check_all(),
        }
    }

    fn begin(&self) {
        self.write(|state| {
            // Within the lock: a row that is written from now on is told of later.
            let view = self.rows.view();
            let mut slots: Vec<Slot> = view.live_slots().map(|(slot, _)| slot).collect();
            // Neighbouring clips arrive together. Inserted in that order, they would link mostly among themselves.
            slots.shuffle(&mut StdRng::seed_from_u64(SEED));
            state.begin(Graph::new(view.generation), slots);
        });
    }

    fn put_in_first(&self) {
        let Some(graph) = self.read(super::state::State::graph) else { return };
        let slots = self.write(|state| state.take_first(STRETCH));
        let view = self.rows.view();
        if view.generation != graph.generation() {
            return drop(self.write(|state| state.begin_anew(view.generation)));
        }
        self.each(&view, &slots, |slot| graph.insert(&view, slot, &mut Vec::new()));
        // Removed meanwhile, before they were nodes.
        self.write(|state| {
            let now = self.rows.view();
            let gone = slots.iter().filter(|slot| now.id(**slot).is_none());
            gone.for_each(|slot| state.note_removed(*slot, now.generation));
        });
    }

    /// Does something for each slot, in order on this thread or shared among several.
    fn each(&self, view: &View, slots: &[Slot], one: impl Fn(Slot) + Sync) {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if view.live < SHARED_FROM { 1 } else { (cores / 2).max(1) };
        let next = AtomicUsize::new(0);
        let some = || {
            while let Some(slot) =
                slots.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !self.is_stopped())
            {
                one(*slot);
            }
        };
        if threads == 1 {
            return some();
        }
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(some))));
    }

    /// Lets a writer put some rows in if too many wait, so that their number stays bounded.
    pub fn lend_a_hand(&self) {
        let queued = self.read(|state| if state.is_ready() { state.queued() } else { 0 });
        if queued <= MOST_FRESH {
            return;
        }
        let batch = self.write(|state| match state.take_batch(HELP, true) {
            // Only rows whose nodes have to be taken out first, which pays for many at a time.
            batch if batch.fresh.is_empty() && queued > 4 * MOST_FRESH => state.take_batch(BATCH, false),
            batch => batch,
        });
        if !batch.fresh.is_empty() {
            self.put_in(&batch);
        }
    }

    fn put_in(&self, batch: &Batch) {
        let Some(graph) = self.read(super::state::State::graph) else { return };
        let view = self.rows.view();
        if view.generation != graph.generation() {
            return drop(self.write(|state| state.begin_anew(view.generation)));
        }
        let moved = batch.fresh.iter().copied().filter(|slot| graph.has(*slot));
        let leaving: BTreeSet<Slot> = moved.chain(batch.dead.iter().copied()).collect();
        let mut doubtful: BTreeSet<Slot> = batch.doubtful.iter().copied().collect();
        if !leaving.is_empty() {
            // What depends on them is scanned before they go.
            doubtful.extend(self.write(|state| state.note_leaving(&leaving)));
            graph.take_out(&view, &leaving.into_iter().collect::<Vec<_>>());
        }
        let (mut lonely, mut lost) = (Vec::new(), Vec::new());
        for slot in &batch.fresh {
            if self.is_stopped() {
                return;
            }
            graph.insert(&view, *slot, &mut lonely);
            lost.extend(lonely.drain(..).chain([*slot]).filter(|slot| !graph.ensure_found(&view, *slot)));
        }
        doubtful.extend(lost.drain(..).chain(batch.fresh.iter().copied()));
        lost.extend(doubtful.iter().filter(|slot| !graph.ensure_found(&view, **slot)));
        let doubtful: Vec<Slot> = doubtful.into_iter().collect();
        self.write(|state| {
            let now = self.rows.view();
            state.end_batch(&graph, batch, &doubtful, &lost, &now);
        });
    }

    fn check_all(&self) {
        let Some((graph, changes)) = self.read(|state| state.graph().map(|graph| (graph, state.changes())))
        else {
            return;
        };
        let nodes = graph.nodes();
        for some in nodes.chunks(STRETCH) {
            let (view, lost) = (self.rows.view(), Mutex::new(Vec::new()));
            if view.generation != graph.generation() || self.is_stopped() {
                return drop(self.write(|state| state.begin_anew(view.generation)));
            }
            self.each(&view, some, |slot| {
                if !graph.ensure_found(&view, slot) {
                    lost.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
                }
            });
            let lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.write(|state| state.note_checked(&graph, some, &lost));
        }
        let (lost, of) = (self.read(super::state::State::lost), nodes.len());
        if lost as f64 > of as f64 * MOST_LOST {
            tracing::warn!(
                lost,
                of,
                "too many vectors are unreachable in the search graph; scanning instead"
            );
            let live = self.live();
            return drop(self.write(|state| state.give_up(live)));
        }
        let (view, beside) = (self.rows.view(), self.read(super::state::State::beside));
        let recalls = measure(&view, &MEASURED_BREADTHS, |query, breadth| {
            graph.nearest(&view, &beside, query, 10, breadth, &[])
        });
        if self.write(|state| state.end_check(&graph, changes, recalls)) {
            tracing::info!(rows = of, lost, "search graph ready");
        }
    }
}
