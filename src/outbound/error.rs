//! Errors of requests to other hosts.

use crate::types::Deciding;
use std::error::Error;

/// Why another host was not reached, or did not answer as expected. Messages name the host, never the whole
/// URL: the rest of it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// No host is allowed at all.
    #[error("fetching from other hosts is off")]
    UrlsDisabled,
    /// No bucket is allowed at all.
    #[error("reading buckets is off")]
    BucketsDisabled,
    /// The rules refuse the URL, host, port or address.
    #[error("{0}")]
    NotAllowed(String),
    /// The bucket or prefix is not allowed.
    #[error("the bucket `{0}` is not allowed on this server")]
    BucketNotAllowed(String),
    /// The host could not be reached, or the connection closed before the end of the answer; a retry may
    /// help.
    #[error("{host}: {reason}")]
    Failed {
        /// Name of the host.
        host: String,
        /// What happened, as text.
        reason: String,
    },
    /// The host gave an unexpected answer; a retry gives the same.
    #[error("{host} {reason}")]
    Refused {
        /// Name of the host.
        host: String,
        /// The host's answer, as text.
        reason: String,
    },
    /// The file is larger than allowed.
    #[error("the file is larger than {max_bytes} bytes")]
    TooLarge {
        /// Largest size in bytes.
        max_bytes: u64,
    },
    /// The host was too slow; a retry may help.
    #[error("{host}: {reason}")]
    Timeout {
        /// Name of the host.
        host: String,
        /// Which limit was exceeded.
        reason: String,
    },
}

/// Longest reason, in characters. It may quote what the other host sent.
const MAX_REASON_CHARS: usize = 300;

fn cut(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(MAX_REASON_CHARS) {
        reason.truncate(end);
        reason.push('…');
        reason.shrink_to_fit();
    }
    reason
}

impl OutboundError {
    /// Stable error code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UrlsDisabled => "urls_disabled",
            Self::BucketsDisabled => "buckets_disabled",
            Self::NotAllowed(_) => "url_not_allowed",
            Self::BucketNotAllowed(_) => "bucket_not_allowed",
            Self::Failed { .. } => Deciding::UrlFailed.as_str(),
            Self::Refused { .. } => "url_refused",
            Self::TooLarge { .. } => "url_too_large",
            Self::Timeout { .. } => Deciding::UrlTimeout.as_str(),
        }
    }

    pub(super) fn failed(host: &str, reason: impl Into<String>) -> Self {
        Self::Failed { host: host.to_owned(), reason: cut(reason.into()) }
    }

    pub(super) fn refused(host: &str, reason: impl Into<String>) -> Self {
        Self::Refused { host: host.to_owned(), reason: cut(reason.into()) }
    }

    pub(super) fn timeout(host: &str, reason: impl Into<String>) -> Self {
        Self::Timeout { host: host.to_owned(), reason: cut(reason.into()) }
    }

    /// Our own error inside another library's error or, if there is none, a failure with the innermost
    /// reason.
    pub(super) fn within(host: &str, error: &(dyn Error + 'static)) -> Self {
        let mut innermost: &(dyn Error + 'static) = error;
        loop {
            if let Some(ours) = innermost.downcast_ref::<Self>() {
                return ours.clone();
            }
            // `source` of an I/O error skips the error that it was made from.
            let hidden = innermost.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let next = match hidden {
                Some(inner) => Some(inner as &(dyn Error + 'static)),
                None => innermost.source(),
            };
            match next {
                Some(inner) => innermost = inner,
                None => return Self::failed(host, innermost.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_host_sent_is_cut() {
        let long = "ä".repeat(5 << 20);
        for error in [
            OutboundError::failed("host", long.as_str()),
            OutboundError::refused("host", long.as_str()),
            OutboundError::timeout("host", long.as_str()),
            OutboundError::within("host", &std::io::Error::other(long.as_str())),
        ] {
            let text = error.to_string();
            assert!(text.starts_with("host") && text.ends_with('…') && text.len() < 1000, "{}", text.len());
        }
        assert_eq!(OutboundError::failed("host", "gone").to_string(), "host: gone");
    }
}
