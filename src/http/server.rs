//! The accept loop: bounded connections, slow clients dropped, a graceful end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::add_extension::AddExtension;

use super::HttpConfig;
use super::client::PeerAddr;

/// How long running requests may take to end once the server stops.
const GRACE: Duration = Duration::from_secs(15);
/// How long a peer may leave sent data unacknowledged, or its window closed.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves until `stop` resolves; `stopping` then tells the long-running responses.
pub async fn run(
    listener: TcpListener,
    app: Router,
    config: &HttpConfig,
    stop: impl Future<Output = ()> + Send,
    stopping: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(config.max_connections.max(1)));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    // Also the longest that a kept-alive connection may idle.
    http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_buf_size(64 << 10);
    tokio::pin!(stop);
    loop {
        // At the cap new connections wait in the kernel's backlog.
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: a pause lets some close.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        set_options(&stream);
        let service = TowerToHyperService::new(AddExtension::new(app.clone(), PeerAddr(peer)));
        let connection = graceful.watcher().watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            let open = metrics::gauge!("triptych_http_connections");
            open.increment(1);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            open.decrement(1);
            drop(permit);
        });
    }
    drop(listener);
    stopping.cancel();
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut off");
    }
}

fn set_options(stream: &TcpStream) {
    let timeout = u32::try_from(PEER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, timeout)?));
    if let Err(error) = set {
        tracing::debug!(%error, "a socket option could not be set");
    }
}
