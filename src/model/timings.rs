//! Where the time of a request went.

use std::sync::atomic::{AtomicU64, Ordering};

/// Adds up what towers spent on the work of one request or one asset; see `Towers::timed`.
#[derive(Debug, Default)]
pub struct Timings {
    queue_nanos: AtomicU64,
    inference_nanos: AtomicU64,
}

impl Timings {
    /// Seconds its inputs waited for a worker, added up.
    #[must_use]
    pub fn queue_secs(&self) -> f64 {
        secs(&self.queue_nanos)
    }

    /// Seconds of a worker spent on its inputs, added up; of a batch, each input bears its share.
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
