//! The REST API and the page.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::library::Library;

/// How to serve.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Key every request must carry, if any.
    pub api_key: Option<String>,
    /// Largest upload, bytes.
    pub max_upload_bytes: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { api_key: None, max_upload_bytes: 4 << 30 }
    }
}

/// Serves until `stop` resolves, then lets running requests finish.
///
/// # Errors
/// Input/output errors of the listener.
pub async fn serve(
    _library: Arc<Library>,
    _config: HttpConfig,
    _listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    stop.await;
    Ok(())
}
