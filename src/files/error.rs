//! Why a file was refused or could not be read or written.

use crate::types::Deciding;

/// Why a file was refused or could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A path outside the allowed roots.
    #[error("{0} is not in an allowed folder")]
    NotAllowed(String),
    /// A folder or file that is not there.
    #[error("{0}: no such file or folder")]
    Missing(String),
    /// A path of another kind than expected.
    #[error("expected {1}, but {0} is not")]
    Kind(String, &'static str),
    /// A path that this process may not read.
    #[error("cannot read {0}: permission denied")]
    Unreadable(String),
    /// A file that was written to while it was read.
    #[error("the file changed while it was read")]
    Changed,
    /// An upload larger than the server takes.
    #[error("the file is larger than {max_bytes} bytes")]
    TooLarge {
        /// Maximum size in bytes.
        max_bytes: u64,
    },
    /// The system reported another error.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl FileError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAllowed(_) => "path_not_allowed",
            Self::Missing(_) => "path_missing",
            Self::Kind(..) => "path_kind",
            Self::Unreadable(_) => "path_unreadable",
            Self::Changed => Deciding::ContentDamaged.as_str(),
            Self::TooLarge { .. } => "payload_too_large",
            Self::Io(_) => Deciding::Io.as_str(),
        }
    }
}
