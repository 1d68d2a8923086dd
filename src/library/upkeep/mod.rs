//! Keeps an open library in order: the disk, the indexes, the calibration, snapshots, retention, checks.

mod calibration;
mod checks;
mod clock;
mod compaction;
mod disk;
mod health;
mod indexes;
mod recall;
mod repair;
mod retention;
mod snapshots;

use std::sync::Arc;

use tokio::sync::Mutex;

pub use health::{PartHealth, PartState};
pub use retention::{RetentionReport, Rule, RuleCount};

use crate::collection::{Checker, Collection};
use crate::ingest::Ingest;
use crate::webhooks::Sender;
use health::Pulse;

/// The upkeep of a library.
pub struct Upkeep {
    collection: Arc<Collection>,
    ingest: Arc<Ingest>,
    /// Retention rules are changed and applied one at a time.
    retention_turn: Mutex<()>,
    checker: Checker,
    pulse: Pulse,
}

impl Upkeep {
    pub(super) fn new(ingest: Arc<Ingest>) -> Arc<Self> {
        let collection = Arc::clone(&ingest.collection);
        Arc::new(Self {
            collection,
            ingest,
            retention_turn: Mutex::new(()),
            checker: Checker::default(),
            pulse: Pulse::default(),
        })
    }

    /// Starts what every loaded model needs.
    pub(super) fn start(self: &Arc<Self>) {
        let tasks = &self.collection.life.tasks;
        tasks.spawn(indexes::save_when_idle(Arc::clone(self)));
        tasks.spawn(calibration::keep_up(Arc::clone(self)));
    }

    /// Starts what only the serving model does.
    pub(super) fn start_serving(self: &Arc<Self>) {
        let tasks = &self.collection.life.tasks;
        tasks.spawn(checks::keep_comparing(Arc::clone(self)));
        tasks.spawn(checks::keep_reading(Arc::clone(self)));
        tasks.spawn(disk::keep_watch(Arc::clone(self)));
        let share = self.collection.data.config.recall_probe_share;
        if share > 0.0 && self.collection.recall.switch_on() {
            tasks.spawn(recall::keep_measuring(Arc::clone(self), share.min(1.0)));
        }
        let sender = Sender {
            webhooks: Arc::clone(&self.collection.data.webhooks),
            store: self.collection.store.clone(),
            disk: Arc::clone(&self.collection.data.disk),
            stop: self.collection.life.stop.clone(),
        };
        tasks.spawn(sender.run());
        tasks.spawn(clock::take_by_the_clock(Arc::clone(self)));
        tasks.spawn(retention::keep_up(Arc::clone(self)));
        tasks.spawn(compaction::keep_up(Arc::clone(self)));
    }
}
