//! Access control: keys and their roles, delays after wrong keys, the audit log of changes.

mod audit;
mod caller;
mod error;
mod file;
mod host;
mod key;
mod keys;
mod wrong;

use std::fmt;
use std::path::PathBuf;

pub use audit::{AuditConfig, AuditLog};
pub use caller::{Caller, Found, Holder, KnownKey};
pub use error::AccessError;
pub use file::KeyFile;
pub use host::{Host, HostName, allowed_name};
pub use key::{KeyRecord, MAX_NAME_CHARS, NewKey, Rate, Role};
pub use keys::Keys;
pub use wrong::{WrongAnswer, WrongKeys, network_of};

/// Settings for access control and the audit log.
#[derive(Debug, Clone, Default)]
pub struct AccessConfig {
    /// Data folder with the keys; `None`: there is no keys file.
    pub data_dir: Option<PathBuf>,
    /// The key of the command line, an admin key.
    pub fixed_key: Option<String>,
    /// The audit log; `None`: off.
    pub audit: Option<AuditConfig>,
}

/// Everything that decides on access, for the lifetime of a server.
#[derive(Default)]
pub struct Access {
    /// The keys.
    pub keys: Keys,
    /// Addresses that sent wrong keys.
    pub wrong: WrongKeys,
    /// The audit log, if there is one.
    pub audit: Option<AuditLog>,
}

impl Access {
    /// Reads the keys of a data folder.
    ///
    /// # Errors
    /// [`AccessError`] if the keys cannot be read: serving without them would let anybody in.
    pub fn open(config: AccessConfig) -> Result<Self, AccessError> {
        let keys = Keys::open(config.data_dir.as_deref(), config.fixed_key.as_deref())?;
        Ok(Self { keys, wrong: WrongKeys::default(), audit: config.audit.map(AuditLog::new) })
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("key_required", &self.keys.required()).finish_non_exhaustive()
    }
}
