//! Storage that accepts no more bytes: one error type for all of the server.

use std::io;
use std::sync::LazyLock;

use tokio::sync::watch;

use crate::types::Deciding;

/// Why storage accepts no more bytes. Data stored before is untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StorageFull {
    /// No free bytes, or no free inodes.
    #[error("the disk has no space left{}", ADVICE)]
    NoSpace,
    /// The user's or the project's quota is used up.
    #[error("the disk quota is used up{}", ADVICE)]
    Quota,
    /// The file system is mounted read-only.
    #[error("the file system is read-only{}", ADVICE)]
    ReadOnly,
    /// A file would exceed the limit of the process (`ulimit -f`) or of the file system.
    #[error("a file would exceed the maximum file size{}", ADVICE)]
    FileSize,
    /// The disk failed to write or to sync.
    #[error("the disk failed to write{}", ADVICE)]
    WriteFailed,
}

/// An error that may mean that storage accepts no more bytes.
pub trait TellsFull {
    /// The reason why storage accepts no more bytes, if that is the cause.
    fn storage_full(&self) -> Option<StorageFull>;
}

const ADVICE: &str =
    "; nothing was changed, searches continue, and writing resumes automatically once there is space";

/// Counts these errors; the watcher of the disk checks it after each one.
static MET: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

impl StorageFull {
    /// The error code of all variants.
    pub const CODE: &str = Deciding::StorageFull.as_str();

    /// Recognises this condition in an I/O error.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::StorageFull => Some(Self::NoSpace.met()),
            io::ErrorKind::QuotaExceeded => Some(Self::Quota.met()),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly.met()),
            io::ErrorKind::FileTooLarge => Some(Self::FileSize.met()),
            _ => None,
        }
    }

    /// Notifies the watcher of the disk.
    pub(crate) fn met(self) -> Self {
        metrics::counter!("triptych_storage_full_total").increment(1);
        MET.send_modify(|count| *count = count.wrapping_add(1));
        self
    }

    /// A receiver that changes whenever this error occurs anywhere in the process.
    #[must_use]
    pub fn watch() -> watch::Receiver<u64> {
        MET.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_means_no_room_is_one_kind() {
        // ENOSPC, EDQUOT, EROFS, EFBIG.
        for (errno, wanted) in [
            (28, StorageFull::NoSpace),
            (122, StorageFull::Quota),
            (30, StorageFull::ReadOnly),
            (27, StorageFull::FileSize),
        ] {
            assert_eq!(StorageFull::of_io(&io::Error::from_raw_os_error(errno)), Some(wanted));
        }
        assert_eq!(StorageFull::of_io(&io::Error::from_raw_os_error(13)), None, "no right to");
    }
}
