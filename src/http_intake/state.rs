//! State shared by all handlers.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::FromRef;
use tokio_util::sync::CancellationToken;

use super::admission::weigh::Admission;
use super::bodies::budget::Budget;
use super::config::HttpConfig;
use crate::http_kit::error::ApiError;
use crate::http_kit::secret::MediaSecret;
use crate::http_kit::thumbnails::ThumbnailCache;
use crate::library::{Library, LibraryError, Models};

/// The running server; cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

/// The state of one request: the library that was serving when it arrived, until it ends, even if another
/// model is promoted meanwhile.
#[derive(Clone)]
pub struct AppState {
    pub library: Arc<Library>,
    shared: Arc<Shared>,
}

/// The same for all requests.
pub struct Shared {
    /// The loaded models and the serving one.
    pub models: Arc<Models>,
    /// Limits and addresses of the HTTP server.
    pub config: HttpConfig,
    /// When the server started.
    pub started: Instant,
    /// Who is taken on.
    pub admission: Arc<Admission>,
    /// Memory and disk budget of request bodies.
    pub bodies: Budget,
    /// Stands in for the key where a browser loads media.
    pub media_secret: MediaSecret,
    /// Cache of recent thumbnails.
    pub thumbnails: Arc<ThumbnailCache>,
    /// The OpenAPI document, rendered once.
    pub openapi: Bytes,
    /// Fires when the server goes down: event streams end.
    pub stop: CancellationToken,
}

impl std::ops::Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl FromRef<Server> for AppState {
    fn from_ref(server: &Server) -> Self {
        Self { library: server.0.models.serving(), shared: Arc::clone(&server.0) }
    }
}

impl AppState {
    /// The state of a request for the model that it names; unchanged if it names none.
    pub fn of_model(self, model: Option<&str>) -> Result<Self, ApiError> {
        let Some(model) = model else { return Ok(self) };
        let library = self.models.named(model).map_err(|error: LibraryError| ApiError::from(error))?;
        Ok(Self { library, ..self })
    }
}

impl Server {
    /// A server that starts now.
    pub fn new(models: Arc<Models>, config: HttpConfig, openapi: Bytes, stop: CancellationToken) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // One more than there are workers is kept on the way.
        let towers = models.serving().embedder().towers.clips_in_flight().saturating_sub(1);
        let admission = Admission::new(config.max_in_flight, cores.max(towers));
        let bodies = Budget::new(config.max_body_memory_bytes, config.spool_bytes());
        let thumbnails = Arc::new(ThumbnailCache::default());
        let cache = Arc::clone(&thumbnails);
        models.serving().data().on_removal(move |id| cache.forget(id));
        Self(Arc::new(Shared {
            models,
            config,
            started: Instant::now(),
            admission,
            bodies,
            media_secret: MediaSecret::generate(),
            thumbnails,
            openapi,
            stop,
        }))
    }
}

impl Server {
    /// Limits and addresses of the HTTP server.
    pub fn config(&self) -> &HttpConfig {
        &self.0.config
    }

    /// Memory and disk budget of request bodies.
    pub fn bodies(&self) -> &Budget {
        &self.0.bodies
    }
}
