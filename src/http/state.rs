//! What every handler can reach.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::HttpConfig;
use super::error::ApiError;
use super::session::MediaSecret;
use super::thumbnail::ThumbnailCache;
use crate::library::Library;

/// Shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// Behind [`AppState`].
pub struct Shared {
    /// The library.
    pub library: Arc<Library>,
    /// How to serve.
    pub config: HttpConfig,
    /// When the server came up.
    pub started: Instant,
    /// Permits of requests in flight.
    pub in_flight: Arc<Semaphore>,
    /// Stands in for the key where a browser loads media.
    pub media_secret: MediaSecret,
    /// Thumbnails made lately.
    pub thumbnails: ThumbnailCache,
    /// The OpenAPI document, rendered once.
    pub openapi: Bytes,
    /// Fires when the server goes down: event streams end.
    pub stop: CancellationToken,
}

impl std::ops::Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// The state of a server that starts now.
    pub fn new(library: Arc<Library>, config: HttpConfig, stop: CancellationToken) -> Self {
        let in_flight = Arc::new(Semaphore::new(config.max_in_flight.max(1)));
        Self(Arc::new(Shared {
            library,
            config,
            started: Instant::now(),
            in_flight,
            media_secret: MediaSecret::generate(),
            thumbnails: ThumbnailCache::default(),
            openapi: Bytes::from(super::openapi().to_json().unwrap_or_default()),
            stop,
        }))
    }
}

/// Runs a change to its end even where the client goes away in between.
pub async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        // The panic itself was printed by the hook; the client gets the usual 500.
        Err(_) => Err(ApiError::of_status(axum::http::StatusCode::INTERNAL_SERVER_ERROR)),
    }
}
