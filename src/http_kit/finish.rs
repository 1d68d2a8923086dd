//! Work that outlives its caller.
//!
//! The rule: a request that changes something runs to its end, with its permit and its entry in the audit
//! log, even if its client disconnects; a request that only reads stops there. The role of a request tells
//! whether it changes something. `access/guard` applies the rule to every request, so handlers need no code
//! for it.

use axum::http::StatusCode;
use tracing::Instrument;

use super::error::ApiError;

/// Runs work to its end even if nobody waits for it any more.
///
/// # Errors
/// 500 if the work panicked.
pub async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, ApiError> {
    // The hook has printed the panic.
    let panicked = |_| ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR);
    tokio::spawn(work.in_current_span()).await.map_err(panicked)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn work_ends_though_nobody_waits_for_it() {
        let (proceed, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let work = {
            let (proceed, ended) = (Arc::clone(&proceed), Arc::clone(&ended));
            async move {
                proceed.notified().await;
                ended.notify_one();
            }
        };
        let waited = tokio::time::timeout(Duration::from_millis(20), to_the_end(work)).await;
        assert!(waited.is_err(), "it waits for the work");
        proceed.notify_one();
        tokio::time::timeout(Duration::from_secs(5), ended.notified()).await.unwrap();
    }

    #[tokio::test]
    async fn what_panics_is_an_error() {
        assert_eq!(to_the_end(async { 7 }).await.unwrap(), 7);
        let failed = to_the_end(async { panic!("of the test") }).await;
        assert_eq!(failed.map(|(): ()| ()).unwrap_err().code(), "internal");
    }
}
