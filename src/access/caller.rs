//! Who sends a request, once the key was found.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::{KeyRecord, Role};
use crate::types::{KeyId, now_unix_ms};

/// Name of the command line's key in the audit log.
const FIXED_NAME: &str = "--api-key";

/// Identifies a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The key of the command line.
    Fixed,
    /// A key of the keys file.
    Key(KeyId),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed => f.write_str("fixed"),
            Self::Key(id) => id.fmt(f),
        }
    }
}

impl std::str::FromStr for Holder {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "fixed" { Ok(Self::Fixed) } else { text.parse().map(Self::Key).map_err(|_| ()) }
    }
}

/// A key of the keys file, in the memory of a running server.
pub struct KnownKey {
    /// Role, limits and hash of the key, as stored.
    pub record: KeyRecord,
    limiter: Option<DefaultDirectRateLimiter>,
    used_unix_ms: AtomicI64,
}

impl KnownKey {
    pub(super) fn new(record: KeyRecord, used_unix_ms: i64) -> Self {
        let quota = record
            .rate
            .and_then(|rate| Quota::with_period(rate.period()).map(|quota| quota.allow_burst(rate.burst())));
        Self { record, limiter: quota.map(RateLimiter::direct), used_unix_ms: AtomicI64::new(used_unix_ms) }
    }

    /// When it was last used, in Unix milliseconds; `None` if never.
    #[must_use]
    pub fn last_used_unix_ms(&self) -> Option<i64> {
        Some(self.used_unix_ms.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

/// The sender of a request, after its key was found.
#[derive(Clone)]
pub struct Caller {
    /// `None`: the key of the command line.
    pub(super) known: Option<Arc<KnownKey>>,
}

impl Caller {
    /// Which key it has.
    #[must_use]
    pub fn holder(&self) -> Holder {
        self.known.as_ref().map_or(Holder::Fixed, |known| Holder::Key(known.record.id))
    }

    /// Name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        self.known.as_ref().map_or(FIXED_NAME, |known| &known.record.name)
    }

    /// Role of the key.
    #[must_use]
    pub fn role(&self) -> Role {
        self.known.as_ref().map_or(Role::Admin, |known| known.record.role)
    }

    /// When the key expires, in Unix milliseconds; `None`: never.
    #[must_use]
    pub fn expires_unix_ms(&self) -> Option<i64> {
        self.known.as_ref().and_then(|known| known.record.expires_unix_ms)
    }

    /// Counts a use of the key.
    ///
    /// # Errors
    /// How long to wait, if the key has reached its rate limit.
    pub fn take_turn(&self) -> Result<(), Duration> {
        let Some(known) = &self.known else { return Ok(()) };
        known.used_unix_ms.store(now_unix_ms(), Ordering::Relaxed);
        let Some(limiter) = &known.limiter else { return Ok(()) };
        limiter.check().map_err(|early| early.wait_time_from(DefaultClock::default().now()))
    }
}

/// The result of looking for a key.
pub enum Found {
    /// The key is active.
    Caller(Caller),
    /// The key has expired.
    Expired,
    /// The key was revoked.
    Revoked,
    /// There is no such key.
    Unknown,
}

impl Found {
    /// The rights of a key of the keys file.
    pub(super) fn key(known: Arc<KnownKey>) -> Self {
        if known.record.revoked_unix_ms.is_some() {
            Self::Revoked
        } else if known.record.has_expired(now_unix_ms()) {
            Self::Expired
        } else {
            Self::Caller(Caller { known: Some(known) })
        }
    }
}
