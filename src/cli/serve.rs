//! `triptych serve`: serves the REST API and the page.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::{TcpListener, TcpSocket};

use super::{CliError, Doors};
use crate::access::Access;
use crate::config::{
    AccessArgs, DataArgs, KeepArgs, LimitArgs, ModelArgs, ServerArgs, SourceArgs, WebhookArgs,
};
use crate::http::{self, HttpConfig, SlowClients};
use crate::library::{Library, LibraryError, Models};

/// How long running clips may take to finish at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// Where and how to listen.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address and port to listen on; any address other than loopback requires an API key (--api-key, or `triptych
    /// key create`).
    #[arg(long, env = "TRIPTYCH_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    #[command(flatten)]
    access: AccessArgs,
    /// Maximum size of an upload, in bytes.
    #[arg(long, env = "TRIPTYCH_MAX_UPLOAD_BYTES", default_value_t = 4 << 30)]
    pub max_upload_bytes: u64,
    #[command(flatten)]
    server: ServerArgs,
}

impl ListenArgs {
    fn http_config(&self, access: Access) -> HttpConfig {
        let server = &self.server;
        HttpConfig {
            access: Arc::new(access),
            trusted_proxies: self.access.trusted_proxies.clone(),
            secure_cookie: self.access.secure_cookie,
            allowed_hosts: server.allow_hosts.clone(),
            max_upload_bytes: self.max_upload_bytes,
            max_body_bytes: server.max_body_bytes,
            max_in_flight: server.max_in_flight,
            max_connections: server.max_connections,
            max_connections_per_address: server.max_connections_per_address,
            max_body_memory_bytes: server.max_body_memory_bytes,
            max_body_disk_bytes: server.max_body_disk_bytes,
            slow: SlowClients {
                header_timeout: Duration::from_secs_f64(server.header_timeout_secs),
                idle_timeout: Duration::from_secs_f64(server.idle_timeout_secs),
                body_timeout: Duration::from_secs_f64(server.body_timeout_secs),
                min_bytes_per_sec: f64::from(server.min_bytes_per_sec),
            },
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
    #[command(flatten)]
    webhooks: WebhookArgs,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    keep: KeepArgs,
    /// Allow files in this folder to be indexed by path; repeatable.
    #[arg(long = "allow-root", env = "TRIPTYCH_ALLOW_ROOTS", value_delimiter = ':')]
    allow_roots: Vec<PathBuf>,
    /// Additional model bundle to load. It embeds the same assets; requests select it by name; repeatable.
    #[arg(long = "also-model", env = "TRIPTYCH_ALSO_MODELS", value_delimiter = ':')]
    also_models: Vec<PathBuf>,
    /// Allow model bundles in this folder to be loaded while the server runs (POST /v1/models); repeatable.
    #[arg(long = "model-root", env = "TRIPTYCH_MODEL_ROOTS", value_delimiter = ':')]
    model_roots: Vec<PathBuf>,
    /// If the store has lost acknowledged data, set it aside and index everything again from the uploaded files and
    /// from the names and metadata in the ledger. An intact store is left unchanged.
    #[arg(long, env = "TRIPTYCH_REBUILD_FROM_UPLOADS")]
    rebuild_from_uploads: bool,
    /// Watch this folder and index new and changed files. Implies --allow-root for it; repeatable.
    #[arg(long = "watch", env = "TRIPTYCH_WATCH", value_delimiter = ':', value_name = "FOLDER")]
    watch: Vec<PathBuf>,
}

/// Runs `serve` until Ctrl-C or SIGTERM.
pub async fn run(args: ServeArgs) -> Result<ExitCode, CliError> {
    let door = Door::open(&args.listen, &args.data.data)?;
    let doors = Doors {
        allowed_roots: args.allow_roots.iter().chain(&args.watch).cloned().collect(),
        model_roots: args.model_roots,
        webhooks: args.webhooks.door()?,
        sources: args.sources.sources(args.listen.max_upload_bytes),
        keep: args.keep.config(),
        rebuild_from_uploads: args.rebuild_from_uploads,
        recall_probe_share: args.listen.server.recall_probe_share,
        graph: args.listen.server.graph,
    };
    let config = super::models_config(&args.model, &args.data, &args.limits, doors)?;
    let models = Models::open(config, &args.model.model).await?;
    for bundle in args.also_models {
        match models.load_resolved(bundle.canonicalize()?, false).await {
            // Loaded since an earlier start.
            Ok(_) | Err(LibraryError::ModelLoaded(_)) => {}
            Err(error) if error.storage_full().is_some() => {
                tracing::warn!(%error, bundle = %bundle.display(), "could not load an additional model");
            }
            Err(error) => return Err(error.into()),
        }
    }
    for folder in &args.watch {
        watch(&models.serving(), folder).await?;
    }
    serve_models(models, &args.listen, door).await
}

/// Watches a folder with the default options; an existing watch does not change.
async fn watch(library: &Arc<Library>, folder: &Path) -> Result<(), CliError> {
    let path = folder.canonicalize()?;
    let Some(path) = path.to_str().map(str::to_owned) else {
        return Err(CliError::input("path_kind", format!("{}: expected a path in UTF-8", folder.display())));
    };
    match library.watches().create(http::default_watch(path)).await {
        Ok(_) | Err(LibraryError::WatchExists(_)) => Ok(()),
        Err(error) if error.storage_full().is_some() => {
            tracing::warn!(%error, folder = %folder.display(), "a folder is not watched");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Connections that the kernel queues before they are accepted. A client that finds the queue full retries
/// only after a second. Linux limits this to net.core.somaxconn, 4096 by default.
const BACKLOG: u32 = 4096;

/// The listening socket, and who may send requests.
pub struct Door {
    listener: TcpListener,
    access: Access,
}

impl Door {
    /// Reads the keys and binds before the model is loaded, so that a port in use is reported at once.
    pub fn open(args: &ListenArgs, data_dir: &Path) -> Result<Self, CliError> {
        let access = Access::open(args.access.config(data_dir))?;
        if !args.listen.ip().is_loopback() && !access.keys.required() {
            let message = format!(
                "{} is reachable from other hosts, so an API key is required: create one with `triptych key create --data {}`, set --api-key, or listen on 127.0.0.1",
                args.listen,
                data_dir.display()
            );
            return Err(CliError::input("api_key_required", message));
        }
        let listening = || {
            let socket = if args.listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(args.listen)?;
            socket.listen(BACKLOG)
        };
        let listener = listening().map_err(|error: std::io::Error| {
            let message =
                format!("cannot listen on {}: {error}; choose another address with --listen", args.listen);
            CliError::other("listen_failed", message)
        })?;
        Ok(Self { listener, access })
    }
}

/// Serves the opened models until a signal, then stops cleanly.
pub async fn serve_models(models: Arc<Models>, args: &ListenArgs, door: Door) -> Result<ExitCode, CliError> {
    let address = door.listener.local_addr()?;
    say!("listening on http://{address}");
    std::io::stdout().flush()?;
    http::serve(Arc::clone(&models), args.http_config(door.access), door.listener, stop_signal()).await?;
    // Running clips may finish, but a stuck decode must not block the exit.
    match tokio::time::timeout(SHUTDOWN_TIMEOUT, models.shutdown()).await {
        Ok(outcome) => outcome?,
        Err(_) => tracing::warn!("shutdown took too long; unfinished work continues at the next startup"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Resolves when the process gets a signal to stop, even one between this call and the first poll.
fn stop_signal() -> impl Future<Output = ()> + Send + 'static {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        match signals {
            [Ok(mut interrupt), Ok(mut terminate)] => tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            },
            // Without a handler, the kernel ends the process.
            _ => std::future::pending().await,
        }
    }
}
