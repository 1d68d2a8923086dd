//! API keys: creation and stored form.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::AccessError;
use crate::types::{KeyId, now_unix_ms};

/// Prefix of every key, so that people and secret scanners recognise it.
const PREFIX: &str = "tk_";
/// Longest name of a key, in characters.
pub const MAX_NAME_CHARS: usize = 100;
/// Highest rate limit, in requests per second.
const MAX_PER_SEC: f64 = 1_000_000.0;

/// Role of a key. Each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read the server's metrics.
    Metrics,
    /// Search, embed, read the library.
    Read,
    /// Add, change and delete assets, jobs, standing queries, watches.
    Write,
    /// Everything: models, snapshots, retention, keys.
    Admin,
}

impl Role {
    /// All roles, the weakest first.
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Read, Self::Write, Self::Admin];

    /// The name used in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|role| role.as_str() == text);
        named.ok_or_else(|| format!("expected one of the roles metrics, read, write or admin, got `{text}`"))
    }
}

/// Rate limit of a key, stored in whole thousandths so that it is read exactly as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests per 1,000 seconds.
    per_1000_secs: u32,
    /// Number of requests that may come at once.
    burst: NonZeroU32,
}

impl Rate {
    /// A limit of this many requests per second, with at most `burst` at once.
    ///
    /// # Errors
    /// [`AccessError::BadField`].
    pub fn new(per_sec: f64, burst: Option<u32>) -> Result<Self, AccessError> {
        if !(0.001..=MAX_PER_SEC).contains(&per_sec) {
            let message = format!("must be from 0.001 to {MAX_PER_SEC} requests per second, got {per_sec}");
            return Err(AccessError::field("rate.per_sec", message));
        }
        let burst = burst.unwrap_or_else(|| per_sec.ceil() as u32);
        let burst = NonZeroU32::new(burst)
            .ok_or_else(|| AccessError::field("rate.burst", "must be at least 1, got 0"))?;
        Ok(Self { per_1000_secs: (per_sec * 1000.0).round() as u32, burst })
    }

    /// Average number of requests per second, from thousandths.
    #[must_use]
    pub fn per_sec(self) -> f64 {
        f64::from(self.per_1000_secs) / 1000.0
    }

    /// Number of requests that may come at once.
    #[must_use]
    pub const fn burst(self) -> NonZeroU32 {
        self.burst
    }

    /// Time between two requests at this rate.
    pub(super) fn period(self) -> Duration {
        Duration::from_secs(1000) / self.per_1000_secs.max(1)
    }
}

/// The stored record of a key; the key itself is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Id of the key.
    pub id: KeyId,
    /// Name of the key.
    pub name: String,
    /// Role of the key.
    pub role: Role,
    /// SHA-256 of the key. A fast hash is enough: unlike a password, 256 random bits cannot be guessed.
    #[serde(with = "hex")]
    pub(super) sha256: [u8; 32],
    /// When it was created, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// When it expires, in Unix milliseconds; `None`: never.
    pub expires_unix_ms: Option<i64>,
    /// When it was revoked, in Unix milliseconds; `None`: it was not.
    pub revoked_unix_ms: Option<i64>,
    /// Rate limit; `None`: unlimited.
    pub rate: Option<Rate>,
}

impl KeyRecord {
    /// Whether the key is neither revoked nor expired.
    #[must_use]
    pub fn works(&self, now_unix_ms: i64) -> bool {
        self.revoked_unix_ms.is_none() && !self.has_expired(now_unix_ms)
    }

    /// Whether the key has expired.
    #[must_use]
    pub fn has_expired(&self, now_unix_ms: i64) -> bool {
        self.expires_unix_ms.is_some_and(|at| at <= now_unix_ms)
    }
}

/// A key to create.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Name of the key.
    pub name: String,
    /// Role of the key.
    pub role: Role,
    /// When it expires, in Unix milliseconds; `None`: never.
    pub expires_unix_ms: Option<i64>,
    /// Rate limit; `None`: unlimited.
    pub rate: Option<Rate>,
}

impl NewKey {
    /// Parses an RFC 3339 date as an expiry time, in Unix milliseconds.
    ///
    /// # Errors
    /// [`AccessError::BadField`].
    pub fn expiry(text: &str) -> Result<i64, AccessError> {
        let date = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| {
            let message = format!("must be a date such as 2027-01-31T00:00:00Z, got `{text}`");
            AccessError::field("expires_at", message)
        })?;
        Ok(date.timestamp_millis())
    }

    /// Generates the key, to be shown once, and its record.
    pub(super) fn make(self) -> Result<(String, KeyRecord), AccessError> {
        let now = now_unix_ms();
        let chars = self.name.chars().count();
        if !(1..=MAX_NAME_CHARS).contains(&chars) || self.name.chars().any(char::is_control) {
            let message = format!("must be 1 to {MAX_NAME_CHARS} characters without control characters");
            return Err(AccessError::field("name", message));
        }
        if self.expires_unix_ms.is_some_and(|at| at <= now) {
            return Err(AccessError::field("expires_at", "must be in the future"));
        }
        let key = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
        let record = KeyRecord {
            id: KeyId::generate(),
            name: self.name,
            role: self.role,
            sha256: digest(key.as_bytes()),
            created_unix_ms: now,
            expires_unix_ms: self.expires_unix_ms,
            revoked_unix_ms: None,
            rate: self.rate,
        };
        Ok((key, record))
    }
}

/// The digest by which keys are compared: the time of the comparison reveals neither the key nor its length.
pub(super) fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_include_the_ones_before() {
        assert!(Role::Metrics < Role::Read && Role::Read < Role::Write && Role::Write < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn rates_are_what_was_asked_for() {
        let rate = Rate::new(0.5, None).unwrap();
        assert_eq!((rate.per_sec(), rate.burst().get(), rate.period()), (0.5, 1, Duration::from_secs(2)));
        assert_eq!(Rate::new(2.5, None).unwrap().burst().get(), 3);
        for (per_sec, burst) in [(0.0, None), (-1.0, None), (f64::NAN, None), (1e9, None), (1.0, Some(0))] {
            assert_eq!(Rate::new(per_sec, burst).unwrap_err().code(), "invalid_value", "{per_sec} {burst:?}");
        }
    }

    #[test]
    fn keys_are_random_and_only_their_hash_is_kept() {
        let new = |name: &str, expires_unix_ms| NewKey {
            name: name.to_owned(),
            role: Role::Read,
            expires_unix_ms,
            rate: None,
        };
        let (key, record) = new("ci", None).make().unwrap();
        assert!(key.starts_with("tk_") && key.len() == 67, "{key}");
        assert_eq!(record.sha256, digest(key.as_bytes()));
        assert!(!serde_json::to_string(&record).unwrap().contains(&key[3..]));
        assert_ne!(new("ci", None).make().unwrap().0, key);
        for (name, expires) in [("", None), ("a\nb", None), (&*"x".repeat(101), None), ("a", Some(1))] {
            assert_eq!(new(name, expires).make().unwrap_err().code(), "invalid_value", "{name:?}");
        }
    }
}
