//! Decides which decodes may run: one pool for all children of the process.
//!
//! A decode first takes a [`Seat`] (limits the number of children), then, once its child has read the file's
//! header, [`Memory`] (limits their bytes). Interactive work goes first and waits only for a limited time;
//! bulk work waits as long as necessary, never takes the last seats and is never starved.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::oneshot;

use super::MediaError;

/// A bulk decode that has waited this long while no other one is running goes before interactive work.
const BULK_WAITS_AT_MOST: Duration = Duration::from_secs(2);
/// How often a decode that waits for memory checks whether its caller is still there.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Interactive decodes that may wait per seat. More are refused at once.
const WAITING_PER_WORKER: usize = 32;
/// Memory of a worker process before it has been granted any, in bytes.
pub const WORKER_BYTES: u64 = 16 << 20;

/// Class of a decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Work that a user waits for: queries, thumbnails, embeddings.
    Interactive,
    /// Files being indexed.
    Bulk,
}

impl Lane {
    const fn index(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Bulk => 1,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}

/// Limits of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most children at once.
    pub workers: usize,
    /// Memory of all children and of the server's raw frames for them, in bytes.
    pub memory_bytes: u64,
    /// Longest wait of an interactive decode for a seat, and then again for memory.
    pub wait: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory_bytes = (1 << 30).max(cores as u64 * (256 << 20));
        Self { workers: (cores * 2).max(4), memory_bytes, wait: Duration::from_secs(10) }
    }
}

impl PoolLimits {
    /// Seats that bulk decodes may take. A quarter of all, at least one, stays free of them.
    fn bulk_workers(&self) -> usize {
        (self.workers - (self.workers / 4).max(1).min(self.workers.saturating_sub(1))).max(1)
    }

    /// Maximum bytes of one lane. A single decode is charged no more than this, so that a file that needs
    /// more than the whole budget is decoded as the only one of its lane.
    fn memory_of(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Interactive => self.memory_bytes,
            Lane::Bulk => self.memory_bytes - self.memory_bytes / 4,
        }
    }
}

/// Hands out seats and memory to decodes.
#[derive(Debug)]
pub struct DecodePool {
    limits: PoolLimits,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: [usize; 2],
    waiting: [VecDeque<Waiter>; 2],
    reserved: [u64; 2],
    /// Decodes waiting for memory, by lane, in order of arrival.
    tickets: [VecDeque<(u64, Instant)>; 2],
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    seat: oneshot::Sender<Seat>,
}

/// The right to run one child at a time. Dropping it returns the seat.
#[derive(Debug)]
pub struct Seat {
    pool: Option<Arc<DecodePool>>,
    lane: Lane,
}

/// Memory reserved for one child. Dropping it returns the memory.
#[derive(Debug)]
pub struct Memory {
    pool: Arc<DecodePool>,
    lane: Lane,
    charged: u64,
    /// Bytes that the child may use. For a file larger than the budget, more than is charged.
    pub bytes: u64,
}

impl DecodePool {
    /// A pool without running decodes.
    #[must_use]
    pub fn new(limits: PoolLimits) -> Arc<Self> {
        let limits = PoolLimits { workers: limits.workers.max(1), ..limits };
        Arc::new(Self { limits, state: Mutex::default(), freed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state consistent, so a panic elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a seat. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`MediaError::Overloaded`] for interactive work that has waited too long, or would wait behind too many.
    pub async fn seat(self: &Arc<Self>, lane: Lane) -> Result<Seat, MediaError> {
        let waiting = {
            let mut state = self.lock();
            state.forget_the_gone();
            let queue = &state.waiting[lane.index()];
            let full = queue.len() >= self.limits.workers * WAITING_PER_WORKER;
            if lane == Lane::Interactive && full {
                return Err(self.refuse("queue_full"));
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting[lane.index()].push_back(Waiter { since: Instant::now(), seat: sender });
            self.hand_out_seats(&mut state);
            receiver
        };
        let seat = match lane {
            Lane::Bulk => waiting.await,
            Lane::Interactive => match tokio::time::timeout(self.limits.wait, waiting).await {
                Ok(seat) => seat,
                Err(_) => return Err(self.refuse("no_worker")),
            },
        };
        // The sender lives in the pool, which outlives this call.
        seat.map_err(|_| MediaError::Worker("the decode pool is gone".into()))
    }

    fn refuse(&self, reason: &'static str) -> MediaError {
        counter!("triptych_decodes_refused_total", "reason" => reason).increment(1);
        MediaError::Overloaded { retry_after_secs: 2 }
    }

    fn hand_out_seats(self: &Arc<Self>, state: &mut State) {
        while let Some(lane) = self.next_lane(state) {
            let Some(waiter) = state.waiting[lane.index()].pop_front() else { break };
            state.running[lane.index()] += 1;
            let seat = Seat { pool: Some(Arc::clone(self)), lane };
            if let Err(mut unwanted) = waiter.seat.send(seat) {
                // Do not return the seat by dropping it, which would lock again.
                unwanted.pool = None;
                state.running[lane.index()] -= 1;
            }
        }
        state.tell();
    }

    /// The lane whose turn it is, if a seat is free and a caller waits.
    fn next_lane(&self, state: &State) -> Option<Lane> {
        let [interactive, bulk] = state.running;
        if interactive + bulk >= self.limits.workers {
            return None;
        }
        let bulk_since = state.waiting[1].front().map(|waiter| waiter.since);
        let starves = bulk == 0 && bulk_since.is_some_and(|since| since.elapsed() >= BULK_WAITS_AT_MOST);
        match (state.waiting[0].is_empty(), bulk_since) {
            (false, _) if !starves => Some(Lane::Interactive),
            (_, Some(_)) if bulk < self.limits.bulk_workers() => Some(Lane::Bulk),
            (false, _) => Some(Lane::Interactive),
            _ => None,
        }
    }

    /// Blocks this thread until this many bytes are free.
    ///
    /// # Errors
    /// [`MediaError::Overloaded`] for interactive work that has waited too long; [`MediaError::Worker`] once
    /// `gone` returns true.
    pub fn reserve(
        self: &Arc<Self>,
        lane: Lane,
        bytes: u64,
        gone: &mut dyn FnMut() -> bool,
    ) -> Result<Memory, MediaError> {
        let charged = bytes.min(self.limits.memory_of(lane));
        let began = Instant::now();
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.tickets[lane.index()].push_back((ticket, began));
        state.tell();
        let outcome = loop {
            if self.is_served(&state, lane, ticket, charged) {
                state.reserved[lane.index()] += charged;
                break Ok(());
            }
            if lane == Lane::Interactive && began.elapsed() >= self.limits.wait {
                break Err(self.refuse("no_memory"));
            }
            if gone() {
                break Err(MediaError::Worker("the caller no longer waits for the result".into()));
            }
            state = self.freed.wait_timeout(state, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.tickets[lane.index()].retain(|(of, _)| *of != ticket);
        state.tell();
        drop(state);
        // The next in line may be served now.
        self.freed.notify_all();
        outcome.map(|()| Memory { pool: Arc::clone(self), lane, charged, bytes })
    }

    fn is_served(&self, state: &State, lane: Lane, ticket: u64, bytes: u64) -> bool {
        if state.tickets[lane.index()].front().is_none_or(|(first, _)| *first != ticket) {
            return false;
        }
        let [interactive, bulk] = state.reserved;
        let starves = bulk == 0
            && state.tickets[1].front().is_some_and(|(_, since)| since.elapsed() >= BULK_WAITS_AT_MOST);
        let turn = match lane {
            Lane::Interactive => !starves,
            Lane::Bulk => starves || state.tickets[0].is_empty(),
        };
        let fits = interactive + bulk + bytes <= self.limits.memory_bytes;
        let within = lane == Lane::Interactive || bulk + bytes <= self.limits.memory_of(Lane::Bulk);
        turn && fits && within
    }
}

impl State {
    fn forget_the_gone(&mut self) {
        self.waiting.iter_mut().for_each(|queue| queue.retain(|waiter| !waiter.seat.is_closed()));
    }

    fn tell(&self) {
        for lane in [Lane::Interactive, Lane::Bulk] {
            let at = lane.index();
            let waiting = self.waiting[at].len() + self.tickets[at].len();
            gauge!("triptych_decodes_running", "lane" => lane.name()).set(self.running[at] as f64);
            gauge!("triptych_decodes_waiting", "lane" => lane.name()).set(waiting as f64);
        }
        let reserved = self.reserved.iter().sum::<u64>();
        gauge!("triptych_decode_memory_reserved_bytes").set(reserved as f64);
    }
}

impl Seat {
    /// For a child that needs hardly any memory. It cannot reserve any.
    #[must_use]
    pub const fn of_no_pool() -> Self {
        Self { pool: None, lane: Lane::Interactive }
    }

    /// Class of the decode.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// Waits for memory, as [`DecodePool::reserve`].
    ///
    /// # Errors
    /// As [`DecodePool::reserve`].
    pub fn reserve(&self, bytes: u64, gone: &mut dyn FnMut() -> bool) -> Result<Memory, MediaError> {
        match &self.pool {
            Some(pool) => pool.reserve(self.lane, bytes, gone),
            None => Err(MediaError::Worker("the decode pool is gone".into())),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        let mut state = pool.lock();
        state.running[self.lane.index()] -= 1;
        state.forget_the_gone();
        pool.hand_out_seats(&mut state);
    }
}

impl Memory {
    /// Returns memory that turned out to be unnecessary.
    pub fn shrink(&mut self, bytes: u64) {
        if bytes >= self.bytes {
            return;
        }
        self.bytes = bytes;
        self.give_back(self.charged.saturating_sub(bytes));
    }

    fn give_back(&mut self, bytes: u64) {
        let mut state = self.pool.lock();
        state.reserved[self.lane.index()] -= bytes;
        self.charged -= bytes;
        state.tell();
        drop(state);
        self.pool.freed.notify_all();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.give_back(self.charged);
    }
}

#[cfg(test)]
mod tests;
