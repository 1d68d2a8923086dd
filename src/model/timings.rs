//! Time that a request spent in the towers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sums the time that towers spent on one request or one asset; see `Towers::timed`.
#[derive(Debug, Default)]
pub struct Timings {
    queue_nanos: AtomicU64,
    inference_nanos: AtomicU64,
}

impl Timings {
    /// Total time that its inputs waited for a worker, in seconds.
    #[must_use]
    pub fn queue_secs(&self) -> f64 {
        secs(&self.queue_nanos)
    }

    /// Total time that workers spent on its inputs, in seconds; each input of a batch counts with its share.
    #[must_use]
    pub fn inference_secs(&self) -> f64 {
        secs(&self.inference_nanos)
    }

    pub(super) fn add(&self, queue_secs: f64, inference_secs: f64) {
        self.queue_nanos.fetch_add(nanos(queue_secs), Ordering::Relaxed);
        self.inference_nanos.fetch_add(nanos(inference_secs), Ordering::Relaxed);
    }
}

fn secs(nanos: &AtomicU64) -> f64 {
    nanos.load(Ordering::Relaxed) as f64 * 1e-9
}

fn nanos(secs: f64) -> u64 {
    (secs * 1e9) as u64
}
