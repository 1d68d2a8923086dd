//! The budget for request bodies: the number of their bytes in memory and on disk at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::http_kit::error::ApiError;

/// Shares grow by at least this much, so that not every packet changes the shared count.
const STEP_BYTES: u64 = 64 << 10;
/// Memory that parsing a JSON text may take, as a multiple of its length: `[0,0,…]` becomes 16 times as
/// large.
const PARSED_FACTOR: u64 = 16;

/// A count of bytes with a limit.
#[derive(Debug)]
struct Pool {
    used: AtomicU64,
    limit: u64,
    name: &'static str,
    /// Notified when a request was refused.
    pressure: Arc<Notify>,
}

impl Pool {
    fn take(&self, bytes: u64) -> Result<(), ApiError> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(before) => {
                self.show(before + bytes);
                Ok(())
            }
            Err(_) => Err(self.exhausted()),
        }
    }

    fn give_back(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.show(before - bytes);
    }

    fn show(&self, used: u64) {
        metrics::gauge!("triptych_http_body_bytes", "held_in" => self.name).set(used as f64);
    }

    fn exhausted(&self) -> ApiError {
        self.pressure.notify_one();
        let message = "request bodies already use all the space reserved for them; try again";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_bytes", message).retry_after(2)
    }
}

/// The budget of the process.
#[derive(Debug)]
pub struct Budget {
    memory: Arc<Pool>,
    disk: Arc<Pool>,
    /// Memory for parsing large JSON texts, in KiB.
    parsing: Arc<Semaphore>,
    parsing_kib: u32,
    pressure: Arc<Notify>,
}

/// The share of one body in a pool; released on drop.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    taken: u64,
    used: u64,
}

impl Share {
    /// Adds this many bytes to the share.
    ///
    /// # Errors
    /// `too_many_bytes`.
    pub fn grow(&mut self, bytes: u64) -> Result<(), ApiError> {
        self.hold(self.used + bytes)
    }

    /// Sets the share to this many bytes in all. A share never shrinks before it is dropped.
    ///
    /// # Errors
    /// `too_many_bytes`.
    pub fn hold(&mut self, bytes: u64) -> Result<(), ApiError> {
        if bytes > self.taken {
            let more = (bytes - self.taken).max(STEP_BYTES);
            self.pool.take(more)?;
            self.taken += more;
        }
        self.used = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.give_back(self.taken);
    }
}

impl Budget {
    /// A budget in bytes. The largest allowed body must fit.
    pub fn new(memory_bytes: u64, disk_bytes: u64) -> Self {
        let pressure = Arc::new(Notify::new());
        let pool = |limit, name| {
            Arc::new(Pool { used: AtomicU64::new(0), limit, name, pressure: Arc::clone(&pressure) })
        };
        let parsing_kib = u32::try_from(memory_bytes >> 10).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        Self {
            memory: pool(memory_bytes, "memory"),
            disk: pool(disk_bytes, "disk"),
            parsing: Arc::new(Semaphore::new(parsing_kib as usize)),
            parsing_kib,
            pressure,
        }
    }

    /// Is notified whenever a request was refused for lack of room.
    pub fn pressure(&self) -> Arc<Notify> {
        Arc::clone(&self.pressure)
    }

    /// Refuses a body of a declared length if there is no room for it now. Takes nothing: a client that only
    /// announces a length must not keep others from sending.
    ///
    /// # Errors
    /// `too_many_bytes`.
    pub fn check_room(&self, declared: u64) -> Result<(), ApiError> {
        let used = self.disk.used.load(Ordering::Acquire);
        if used.saturating_add(declared) > self.disk.limit { Err(self.disk.exhausted()) } else { Ok(()) }
    }

    /// An empty share of the memory.
    pub fn memory(&self) -> Share {
        Share { pool: Arc::clone(&self.memory), taken: 0, used: 0 }
    }

    /// An empty share of the disk.
    pub fn disk(&self) -> Share {
        Share { pool: Arc::clone(&self.disk), taken: 0, used: 0 }
    }

    /// Waits until there is memory to parse a large JSON text.
    pub async fn parsing(&self, json_bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = (json_bytes * PARSED_FACTOR) >> 10;
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).clamp(1, self.parsing_kib);
        Arc::clone(&self.parsing).acquire_many_owned(kib).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_in_steps_and_given_back() {
        let budget = Budget::new(3 * STEP_BYTES, 1 << 20);
        let mut first = budget.memory();
        first.grow(1).unwrap();
        first.grow(STEP_BYTES - 1).unwrap();
        assert_eq!(budget.memory.used.load(Ordering::Relaxed), STEP_BYTES);
        let mut second = budget.memory();
        second.grow(2 * STEP_BYTES).unwrap();
        assert!(first.grow(1).is_err());
        drop(second);
        first.grow(1).unwrap();
        drop(first);
        assert_eq!(budget.memory.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_length_is_checked_but_takes_nothing() {
        let budget = Budget::new(1 << 20, 1000);
        assert!(budget.check_room(1000).is_ok() && budget.check_room(1000).is_ok());
        assert!(budget.check_room(1001).is_err() && budget.check_room(u64::MAX).is_err());
    }

    #[tokio::test]
    async fn large_texts_are_parsed_one_after_the_other() {
        let budget = Budget::new(1 << 20, 1 << 30);
        let first = budget.parsing(1 << 30).await;
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), budget.parsing(1 << 20));
        assert!(waiting.await.is_err());
        drop(first);
        assert!(budget.parsing(1 << 20).await.is_some());
    }
}
