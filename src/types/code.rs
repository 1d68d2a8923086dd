//! Stable codes of errors, as they are stored with an asset, an item or a watch.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! deciding {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        /// Codes by which something is decided. Errors take their text from here, so a renamed one still decides.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Deciding {
            $($(#[$doc])* $name,)+
        }

        impl Deciding {
            const ALL: &[Self] = &[$(Self::$name,)+];

            /// The code in snake_case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

deciding! {
    /// Reading or writing a file failed.
    Io = "io";
    /// The database failed.
    StoreFailed = "store_failed";
    /// The disk accepts no more bytes.
    StorageFull = "storage_full";
    /// An index failed.
    IndexFailed = "index_failed";
    /// Something that runs only once at a time is running.
    Busy = "busy";
    /// Too much work is queued.
    Overloaded = "overloaded";
    /// A tower failed.
    TowerFailed = "tower_failed";
    /// The decode worker failed.
    DecodeWorkerFailed = "decode_worker_failed";
    /// The decode worker was killed from outside.
    DecodeWorkerKilled = "decode_worker_killed";
    /// A download failed.
    UrlFailed = "url_failed";
    /// A download took too long.
    UrlTimeout = "url_timeout";
    /// The bytes of a file are not those that were indexed; it may have been modified meanwhile.
    ContentDamaged = "content_damaged";
    /// Decoding took too long.
    DecodeTimeout = "decode_timeout";
    /// Decoding needs too much memory.
    DecodeLimit = "decode_limit";
    /// A small file unfolds to too much work.
    WorkLimit = "work_limit";
}

/// The stable code of an error, in snake_case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorCode(Cow<'static, str>);

impl ErrorCode {
    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, if something is decided by it.
    #[must_use]
    pub fn deciding(&self) -> Option<Deciding> {
        Deciding::ALL.iter().copied().find(|known| known.as_str() == self.0)
    }

    /// Whether the code means a passing fault: the server's, not the file's, so a later retry may succeed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.deciding().is_some_and(|code| match code {
            Deciding::Io
            | Deciding::StoreFailed
            | Deciding::StorageFull
            | Deciding::IndexFailed
            | Deciding::Busy
            | Deciding::Overloaded
            | Deciding::TowerFailed
            | Deciding::DecodeWorkerFailed
            | Deciding::DecodeWorkerKilled
            | Deciding::UrlFailed
            | Deciding::UrlTimeout
            | Deciding::ContentDamaged => true,
            Deciding::DecodeTimeout | Deciding::DecodeLimit | Deciding::WorkLimit => false,
        })
    }
}

impl From<&'static str> for ErrorCode {
    fn from(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }
}

/// Codes are stored as text.
impl From<String> for ErrorCode {
    fn from(code: String) -> Self {
        Self(Cow::Owned(code))
    }
}

impl From<ErrorCode> for Cow<'static, str> {
    fn from(code: ErrorCode) -> Self {
        code.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_code_decides_what_it_decided_before() {
        for known in Deciding::ALL {
            let stored = ErrorCode::from(known.as_str().to_owned());
            assert_eq!(stored.deciding(), Some(*known));
            assert_eq!(stored, ErrorCode::from(known.as_str()));
            assert_eq!(serde_json::to_value(&stored).unwrap(), known.as_str());
        }
        for other in ["", "corrupt_media", "no_media", "IO"] {
            let stored = ErrorCode::from(other);
            assert!(stored.deciding().is_none() && !stored.is_passing(), "{other}");
        }
    }
}
