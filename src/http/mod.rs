//! The REST API and the page: a folder per resource, the and the route table.

mod about;
mod access;
mod assets;
mod jobs;
mod keeping;
mod router;
mod search;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use access::keys::{CreatedKey, KeyView};
pub use jobs::watches::default_watch;
pub use search::{HitView, SearchAnswer};

pub use crate::http_intake::config::{HttpConfig, SlowClients};
pub use crate::http_intake::guard::roles::TABLE as ROLES;

use crate::access::Access;
use crate::connections;
use crate::http_intake::state::Server;
use crate::library::Models;

/// How often it is written down when keys were last used.
const SAVE_USES_EVERY: Duration = Duration::from_secs(60);

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
    let access = Arc::clone(&config.access);
    let document = openapi().to_json().unwrap_or_default().into();
    let server = Server::new(models, config, document, stopping.clone());
    let uses = tokio::spawn(remember_uses(access, stopping.clone()));
    let (limits, pressure) = (server.config().connection_limits(), server.bodies().pressure());
    connections::run(listener, router::app(server), limits, pressure, stop, stopping).await;
    let _ = uses.await;
    Ok(())
}

/// Saves when keys were last used, periodically and at shutdown.
async fn remember_uses(access: Arc<Access>, stopping: CancellationToken) {
    let mut stopped = false;
    while !stopped {
        stopped = stopping.run_until_cancelled(tokio::time::sleep(SAVE_USES_EVERY)).await.is_none();
        let access = Arc::clone(&access);
        let _ = tokio::task::spawn_blocking(move || access.keys.save_last_used()).await;
    }
}

/// The OpenAPI document of the API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    router::api().into_openapi()
}
