//! The REST API and the page.

mod assets;
mod changes;
mod checks;
mod compactions;
mod content;
mod data_uri;
mod deletions;
mod embeddings;
mod error;
mod evaluations;
mod extract;
mod form;
mod given;
mod guard;
mod health;
mod jobs;
mod middleware;
mod models;
mod openapi;
mod pages;
mod query;
mod retention;
mod router;
mod search;
mod server;
mod session;
mod snapshots;
mod standing;
mod state;
mod stats;
mod thumbnail;
mod timeline;
mod views;
mod watches;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use watches::default_watch;

use crate::library::Models;

/// How to serve.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Key every request must carry, if any.
    pub api_key: Option<String>,
    /// Host names under which the server may be asked where there is no key, besides `localhost`
    /// and IP addresses: a page on another site may otherwise rebind its name to this server.
    pub allowed_hosts: Vec<String>,
    /// Largest upload, bytes.
    pub max_upload_bytes: u64,
    /// Largest body of any other call (a query's file included), bytes.
    pub max_body_bytes: usize,
    /// Requests answered at once; more get 429.
    pub max_in_flight: usize,
    /// Connections open at once; more wait.
    pub max_connections: usize,
    /// Longest that the head of a request may take to arrive, and that a connection may idle.
    pub header_timeout: Duration,
    /// Longest silence within a body.
    pub body_timeout: Duration,
    /// Longest time for a query.
    pub query_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            allowed_hosts: Vec::new(),
            max_upload_bytes: 4 << 30,
            max_body_bytes: 64 << 20,
            max_in_flight: 256,
            max_connections: 1024,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(300),
        }
    }
}

/// Serves until `stop` resolves, then lets running requests finish.
///
/// # Errors
/// Input/output errors of the listener.
pub async fn serve(
    models: Arc<Models>,
    config: HttpConfig,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    models.serving().start_workers();
    let stopping = CancellationToken::new();
    let app = router::app(state::Server::new(models, config.clone(), stopping.clone()));
    server::run(listener, app, &config, stop, stopping).await;
    Ok(())
}

/// The OpenAPI document of the API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    router::api().into_openapi()
}
