//! Why could not take a snapshot, read or put back.

use crate::store::{StorageFull, StoreError};

/// Why could not take a snapshot, read or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No place for snapshots was named.
    #[error("snapshots are off; start the server with --snapshot-root FOLDER (or s3://BUCKET/FOLDER)")]
    Off,
    /// One thing at a time.
    #[error(
        "a snapshot is being taken or deleted, or the store is being compacted; try again when that has finished"
    )]
    Running,
    /// Another process works in the same place.
    #[error(
        "another process is changing the snapshots in this folder or bucket; try again when it has finished"
    )]
    Locked,
    /// Nothing of that id.
    #[error("snapshot {0} was not found")]
    NotFound(String),
    /// A file of a snapshot does not match its checksum.
    #[error("the snapshot is damaged: {file} {reason}")]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Written by a later version.
    #[error("the snapshot has format {0}, which this version cannot read; use a newer version")]
    Format(u64),
    /// Something is where the library is to be restored to.
    #[error("expected an empty or new folder to restore to; {0} is not empty")]
    NotEmpty(String),
    /// Not enough disk space to rewrite the store.
    #[error("rewriting the store needs {needed_bytes} bytes of free disk space; only {room_bytes} are free")]
    NoRoom {
        /// Needed for a while.
        needed_bytes: u64,
        /// Free.
        room_bytes: u64,
    },
    /// A folder without a library.
    #[error("{0} does not contain a library")]
    NoLibrary(String),
    /// Stopped by a user or by the end of the process.
    #[error("the snapshot was cancelled")]
    Cancelled,
    /// The place where snapshots are kept failed.
    #[error("{0}")]
    Destination(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Input/output on the data folder.
    #[error("cannot read or write the data folder: {0}")]
    Io(std::io::Error),
}

impl From<std::io::Error> for BackupError {
    fn from(error: std::io::Error) -> Self {
        StorageFull::of_io(&error).map_or(Self::Io(error), |full| Self::Store(full.into()))
    }
}

impl BackupError {
    /// Stable code.
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
            Self::Cancelled => "cancelled",
            Self::Destination(_) => "destination_failed",
            Self::Store(error) => error.code(),
            Self::Io(_) => "io",
        }
    }

    /// For whoever may ask the server: what lies where on its disks is no concern of theirs.
    pub(super) fn without_paths(&self) -> String {
        match self {
            Self::Destination(_) => {
                "cannot read or write the snapshot folder or bucket; the server's log has details".to_owned()
            }
            Self::Io(_) => "cannot read or write the data folder; the server's log has details".to_owned(),
            other => other.to_string(),
        }
    }

    pub(super) fn damaged(file: impl Into<String>, reason: &'static str) -> Self {
        Self::Damaged { file: file.into(), reason }
    }
}
