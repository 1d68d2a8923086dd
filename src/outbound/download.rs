//! A body being received, within its limits.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::OutboundError;

/// The body of an answer, chunk by chunk.
pub struct Download {
    host: String,
    size_bytes: Option<u64>,
    body: BoxStream<'static, Result<Bytes, OutboundError>>,
    received_bytes: u64,
    max_bytes: u64,
    idle_timeout: Duration,
    ends: Instant,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("host", &self.host).field("size_bytes", &self.size_bytes).finish()
    }
}

impl Download {
    pub(super) fn new(
        host: String,
        size_bytes: Option<u64>,
        body: BoxStream<'static, Result<Bytes, OutboundError>>,
        max_bytes: u64,
        idle_timeout: Duration,
        ends: Instant,
    ) -> Result<Self, OutboundError> {
        if size_bytes.is_some_and(|size| size > max_bytes) {
            return Err(OutboundError::TooLarge { max_bytes });
        }
        Ok(Self { host, size_bytes, body, received_bytes: 0, max_bytes, idle_timeout, ends })
    }

    /// The host that sends it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Size in bytes, if the host declared it.
    #[must_use]
    pub const fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`OutboundError`]; what was received before is then incomplete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OutboundError> {
        let patience = self.ends.min(Instant::now() + self.idle_timeout);
        match tokio::time::timeout_at(patience, self.body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(chunk)) => {
                let chunk = chunk?;
                self.received_bytes += chunk.len() as u64;
                if self.received_bytes > self.max_bytes {
                    return Err(OutboundError::TooLarge { max_bytes: self.max_bytes });
                }
                Ok(Some(chunk))
            }
            Err(_) if Instant::now() >= self.ends => {
                Err(OutboundError::timeout(&self.host, "the download took too long"))
            }
            Err(_) => Err(OutboundError::timeout(&self.host, "the download stalled for too long")),
        }
    }
}

/// The data of a body received over HTTP.
pub(super) fn body_of(host: String, body: Incoming) -> BoxStream<'static, Result<Bytes, OutboundError>> {
    let cut = move |error: hyper::Error| {
        let reason = if error.is_incomplete_message() {
            "the connection closed before the end of the answer".to_owned()
        } else {
            error.to_string()
        };
        OutboundError::failed(&host, reason)
    };
    body.into_data_stream().map(move |chunk| chunk.map_err(&cut)).boxed()
}
