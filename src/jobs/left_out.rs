//! Why files become no items, or items that are skipped.

use std::io;

use crate::types::Deciding;

/// Why a file is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Stable error code in snake_case.
    pub code: &'static str,
    /// Human-readable message.
    pub reason: String,
}

impl LeftOut {
    pub(super) fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::new("path_unreadable", "this server has no permission to read it")
            }
            io::ErrorKind::NotFound => Self::new("path_missing", "it was removed before it could be read"),
            _ => Self::new(Deciding::Io.as_str(), "it could not be read"),
        }
    }

    /// Neither the name nor the first bytes are those of media.
    #[must_use]
    pub fn not_media() -> Self {
        Self::new("not_media", "neither its name nor its first bytes match a video, audio or image file")
    }

    /// The name begins with a dot.
    #[must_use]
    pub fn hidden() -> Self {
        Self::new("hidden", "hidden file: its name begins with a dot")
    }

    /// The name marks a file that is still being written.
    #[must_use]
    pub fn unfinished() -> Self {
        Self::new("unfinished", "its name marks a file that is still being written or downloaded")
    }
}
