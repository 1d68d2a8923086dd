//! `triptych serve`: the REST API and the page.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;

use super::CliError;
use crate::config::{DataArgs, LimitArgs, ModelArgs, ServerArgs};
use crate::http::{self, HttpConfig};
use crate::library::Library;

/// Where and how to listen.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address and port; anything but loopback needs --api-key.
    #[arg(long, env = "TRIPTYCH_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Key that every request must carry as `Authorization: Bearer KEY`.
    #[arg(long, env = "TRIPTYCH_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Largest upload, bytes.
    #[arg(long, env = "TRIPTYCH_MAX_UPLOAD_BYTES", default_value_t = 4 << 30)]
    pub max_upload_bytes: u64,
    #[command(flatten)]
    server: ServerArgs,
}

impl ListenArgs {
    fn http_config(&self) -> HttpConfig {
        let server = &self.server;
        HttpConfig {
            api_key: self.api_key.clone(),
            allowed_hosts: server.allow_hosts.clone(),
            max_upload_bytes: self.max_upload_bytes,
            max_body_bytes: server.max_body_bytes,
            max_in_flight: server.max_in_flight,
            max_connections: server.max_connections,
            header_timeout: Duration::from_secs_f64(server.header_timeout_secs),
            body_timeout: Duration::from_secs_f64(server.body_timeout_secs),
            query_timeout: Duration::from_secs_f64(server.query_timeout_secs),
        }
    }
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    listen: ListenArgs,
    /// Folder whose files may be indexed by path; may be given more than once.
    #[arg(long = "allow-root", env = "TRIPTYCH_ALLOW_ROOTS", value_delimiter = ':')]
    allow_roots: Vec<PathBuf>,
}

/// Runs `serve` until Ctrl-C or SIGTERM.
pub async fn run(args: ServeArgs) -> Result<ExitCode, CliError> {
    let listener = bind(&args.listen).await?;
    let library = super::open_library(&args.model, &args.data, &args.limits, args.allow_roots).await?;
    serve_library(library, &args.listen, listener).await
}

/// Binds before the model loads, so that a taken port is told at once.
pub async fn bind(args: &ListenArgs) -> Result<TcpListener, CliError> {
    if !args.listen.ip().is_loopback() && args.api_key.is_none() {
        let message =
            format!("{} can be reached by others: set --api-key, or listen on 127.0.0.1", args.listen);
        return Err(CliError::input("api_key_required", message));
    }
    TcpListener::bind(args.listen).await.map_err(|error| {
        let message = format!("cannot listen on {}: {error}; choose another with --listen", args.listen);
        CliError::other("listen_failed", message)
    })
}

/// Serves an opened library until a signal, then stops cleanly.
pub async fn serve_library(
    library: Arc<Library>,
    args: &ListenArgs,
    listener: TcpListener,
) -> Result<ExitCode, CliError> {
    library.measure_recall(args.server.recall_probe_share);
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    std::io::stdout().flush()?;
    http::serve(Arc::clone(&library), args.http_config(), listener, stop_signal()).await?;
    // Running clips are finished, but a stuck decode must not hold the process.
    match tokio::time::timeout(Duration::from_secs(20), library.shutdown()).await {
        Ok(outcome) => outcome?,
        Err(_) => tracing::warn!("shutdown took too long; unfinished work goes on at the next start"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
