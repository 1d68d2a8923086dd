//! Why another host was not reached, or did not answer as it should.

use std::error::Error;

/// Why another host was not reached, or did not answer as it should. Sentences name the host, never the whole
/// address: what follows the host may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// No host is allowed at all.
    #[error("fetching from other hosts is off; allow a host with --allow-url-host")]
    UrlsDisabled,
    /// No bucket is allowed at all.
    #[error("reading buckets is off; allow one with --allow-bucket")]
    BucketsDisabled,
    /// A URL, host, port or address that the rules refuse.
    #[error("{0}")]
    NotAllowed(String),
    /// A bucket or prefix that is not on the list.
    #[error("the bucket `{0}` is not allowed on this server")]
    BucketNotAllowed(String),
    /// The host could not be reached, or the connection closed before the end of the answer: may pass.
    #[error("{host}: {reason}")]
    Failed {
        /// Which host.
        host: String,
        /// What happened.
        reason: String,
    },
    /// The host gave another answer than expected; asking again gives the same.
    #[error("{host} {reason}")]
    Refused {
        /// Which host.
        host: String,
        /// What it answered.
        reason: String,
    },
    /// More bytes than are taken.
    #[error("the file is larger than {max_bytes} bytes")]
    TooLarge {
        /// The cap.
        max_bytes: u64,
    },
    /// Too slow: may pass.
    #[error("{host}: {reason}")]
    Timeout {
        /// Which host.
        host: String,
        /// Which cap was reached.
        reason: String,
    },
}

impl OutboundError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UrlsDisabled => "urls_disabled",
            Self::BucketsDisabled => "buckets_disabled",
            Self::NotAllowed(_) => "url_not_allowed",
            Self::BucketNotAllowed(_) => "bucket_not_allowed",
            Self::Failed { .. } => "url_failed",
            Self::Refused { .. } => "url_refused",
            Self::TooLarge { .. } => "url_too_large",
            Self::Timeout { .. } => "url_timeout",
        }
    }

    pub(super) fn failed(host: &str, reason: impl Into<String>) -> Self {
        Self::Failed { host: host.to_owned(), reason: reason.into() }
    }

    pub(super) fn refused(host: &str, reason: impl Into<String>) -> Self {
        Self::Refused { host: host.to_owned(), reason: reason.into() }
    }

    pub(super) fn timeout(host: &str, reason: impl Into<String>) -> Self {
        Self::Timeout { host: host.to_owned(), reason: reason.into() }
    }

    /// The error of ours inside another library's, or a failure with the innermost reason.
    pub(super) fn within(host: &str, error: &(dyn Error + 'static)) -> Self {
        let mut innermost: &(dyn Error + 'static) = error;
        loop {
            if let Some(ours) = innermost.downcast_ref::<Self>() {
                return ours.clone();
            }
            // An I/O error hides what it was made of from `source`.
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
