//! Errors of snapshots and compaction.

use crate::files::Shortfall;
use crate::store::{StorageFull, StoreError};
use crate::types::Deciding;

/// Why a snapshot could not be taken, read or restored, or the store not be compacted.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No place for snapshots is configured.
    #[error("snapshots are off")]
    Off,
    /// A snapshot or compaction is already running.
    #[error(
        "a snapshot is being taken or deleted, or the store is being compacted; try again when that has finished"
    )]
    Running,
    /// Another process is working in the same place.
    #[error(
        "another process is changing the snapshots in this folder or bucket; try again when it has finished"
    )]
    Locked,
    /// No snapshot has this id.
    #[error("snapshot {0} was not found")]
    NotFound(String),
    /// A file of a snapshot does not match its checksum.
    #[error("the snapshot is damaged: {file} {reason}")]
    Damaged {
        /// Path of the damaged file in the snapshot.
        file: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Written by a newer version.
    #[error("the snapshot has format {0}, which this version cannot read; use a newer version")]
    Format(u64),
    /// The folder to restore to is not empty.
    #[error("expected an empty or new folder to restore to; {0} is not empty")]
    NotEmpty(String),
    /// Not enough disk space to rewrite the store.
    #[error("rewriting the store needs {needed_bytes} bytes of free disk space; only {room_bytes} are free")]
    NoRoom {
        /// Free bytes needed during the rewrite.
        needed_bytes: u64,
        /// Free bytes on the disk of the store.
        room_bytes: u64,
    },
    /// The folder does not contain a library.
    #[error("{0} does not contain a library")]
    NoLibrary(String),
    /// The store lacks changes that the ledger records as acknowledged.
    #[error("the store has lost acknowledged changes: {0}")]
    StoreBehind(Shortfall),
    /// Cancelled by a user or by a shutdown.
    #[error("the snapshot was cancelled")]
    Cancelled,
    /// The destination of snapshots failed.
    #[error("{0}")]
    Destination(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Input or output on the data folder failed.
    #[error("cannot read or write the data folder: {0}")]
    Io(std::io::Error),
}

impl From<std::io::Error> for BackupError {
    fn from(error: std::io::Error) -> Self {
        StorageFull::of_io(&error).map_or(Self::Io(error), |full| Self::Store(full.into()))
    }
}

impl BackupError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Off => "snapshots_off",
            Self::Running => "snapshot_running",
            Self::Locked => "snapshots_locked",
            Self::NotFound(_) => "not_found",
            Self::Damaged { .. } => "snapshot_damaged",
            Self::Format(_) => "snapshot_format",
            Self::NotEmpty(_) => "data_folder_not_empty",
            Self::NoRoom { .. } => "not_enough_room",
            Self::NoLibrary(_) => "no_library",
            Self::StoreBehind(_) => "store_behind",
            Self::Cancelled => "cancelled",
            Self::Destination(_) => "destination_failed",
            Self::Store(error) => error.code(),
            Self::Io(_) => Deciding::Io.as_str(),
        }
    }

    /// The message for API clients, which must not learn the paths on the server's disks.
    pub(crate) fn without_paths(&self) -> String {
        match self {
            Self::Destination(_) => {
                "cannot read or write the snapshot folder or bucket; the server's log has details".to_owned()
            }
            Self::Store(StoreError::StorageFull(_) | StoreError::Sealed) => self.to_string(),
            Self::Store(_) => "the store failed; the server's log has details".to_owned(),
            Self::Io(_) => "cannot read or write the data folder; the server's log has details".to_owned(),
            other => other.to_string(),
        }
    }

    pub(super) fn damaged(file: impl Into<String>, reason: &'static str) -> Self {
        Self::Damaged { file: file.into(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_learn_no_paths() {
        let path = "/srv/snapshots/tmp/snp_1.db";
        for error in [
            BackupError::Destination(path.to_owned()),
            BackupError::Io(std::io::Error::other(path)),
            BackupError::Store(StoreError::Database(path.to_owned())),
            BackupError::Store(StoreError::Malformed(path.to_owned())),
            BackupError::Store(StoreError::DamagedRow(path.to_owned())),
            BackupError::Store(StoreError::Locked(path.to_owned())),
        ] {
            let told = error.without_paths();
            assert!(!told.contains("/srv") && told.contains("log"), "{told}");
        }
        let full = BackupError::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!((full.code(), full.without_paths()), (StorageFull::CODE, full.to_string()));
    }
}
