//! Errors of reading or changing keys.

use crate::types::{Deciding, KeyId};

/// Why keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The keys file is damaged.
    #[error(
        "cannot read the keys in {path}: {what}. Restore a copy of the file, or delete it and keys.lock to start without keys"
    )]
    Damaged {
        /// Path of the keys file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The keys file is missing although keys were created.
    #[error(
        "{0} is missing, but keys were created. Restore the file, or delete keys.lock to start without keys"
    )]
    Missing(String),
    /// Another process is changing the keys and has held the lock too long.
    #[error("another process is using {0}; try again when it has finished")]
    Locked(String),
    /// No key has this id.
    #[error("no key has the id {0}")]
    Unknown(KeyId),
    /// The limit of active keys is reached.
    #[error("the limit of {0} active keys is reached; revoke some first")]
    TooMany(usize),
    /// The server was started without a data folder.
    #[error("this server has no data folder to store keys in")]
    Off,
    /// A field of a new key is invalid.
    #[error("`{field}` {message}")]
    BadField {
        /// Name of the field.
        field: &'static str,
        /// The expected and the given value.
        message: String,
    },
    /// Input or output on the data folder failed.
    #[error("cannot read or write the keys file: {0}")]
    Io(#[from] std::io::Error),
}

impl AccessError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "keys_damaged",
            Self::Missing(_) => "keys_missing",
            Self::Locked(_) => "keys_locked",
            Self::Unknown(_) => "not_found",
            Self::TooMany(_) => "too_many_keys",
            Self::Off => "keys_off",
            Self::BadField { .. } => "invalid_value",
            Self::Io(_) => Deciding::Io.as_str(),
        }
    }

    pub(super) fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self::BadField { field, message: message.into() }
    }
}
