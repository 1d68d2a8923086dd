//! The command line, one file per command. Each is a thin shell around the library.

#[macro_use]
mod out;

mod check;
mod compact;
pub mod decode_worker;
mod demo;
mod doctor;
mod embed;
mod eval;
mod export;
mod index;
mod key;
mod model;
mod quarantine;
mod query;
mod search;
mod serve;
mod snapshot;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::access::AccessError;
use crate::config::{DataArgs, LimitArgs, ModelArgs};
use crate::embed::{EmbedError, Embedder};
use crate::index::GraphEngine;
use crate::library::{
    BackupError, Deliver, KeepConfig, Library, LibraryConfig, LibraryError, Models, ModelsConfig,
    OpenEmbedder, SourcesConfig,
};
use crate::media::{Decoder, DecoderConfig, MediaError};
use crate::model::{Bundle, ModelError, Towers};
use crate::native::{NativeError, NativeParts};
use crate::outbound::OutboundError;
use crate::telemetry::Verbosity;
use tokio::signal::unix::SignalKind;

/// Search video by text, sound, image or another clip.
#[derive(Debug, Parser)]
#[command(name = "triptych", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the REST API and the web page.
    Serve(Box<serve::ServeArgs>),
    /// Index a bundle's sample clips, run two queries and serve the web page.
    Demo(demo::DemoArgs),
    /// Index a folder of video, audio and image files.
    Index(index::IndexArgs),
    /// Search the library.
    Search(search::SearchArgs),
    /// Measure search quality with texts whose correct answers are known.
    Eval(eval::EvalArgs),
    /// Print the embedding vectors of a text or a file.
    Embed(embed::EmbedArgs),
    /// Export all vectors of the library to a Parquet file.
    Export(export::ExportArgs),
    /// Verify or show a model bundle.
    Model(model::ModelCommand),
    /// Create, list, verify, restore and delete snapshots of a library.
    Snapshot(snapshot::SnapshotCommand),
    /// Create, list and revoke the API keys of a data folder.
    Key(key::KeyCommand),
    /// Check the store and the uploaded files for damage; with --repair, recompute damaged vectors.
    Check(check::CheckArgs),
    /// Rewrite the store to reclaim the space of deleted clips.
    Compact(compact::CompactArgs),
    /// List or empty the quarantine, which contains files that the server does not recognise.
    Quarantine(quarantine::QuarantineCommand),
    /// Show which native libraries and programs are installed, their versions, and what is missing.
    Doctor(doctor::DoctorArgs),
}

/// Exit status if an operator must decide what happens to the data folder.
const EXIT_DATA_LOST: u8 = 4;

/// Advice about a store that lost data, to append to the error's text.
const RESTORE_NEWER: &str = ". Restore a snapshot (`triptych snapshot restore`), restore the newer database, or start with --rebuild-from-uploads to index everything again from the uploaded files and from the names and metadata in the ledger";
const RESTORE: &str = ". Restore a snapshot (`triptych snapshot restore`), or start with --rebuild-from-uploads to index everything again from the uploaded files and from the names and metadata in the ledger";

/// A failed command: a message for the user; an error code and an exit status for scripts.
#[derive(Debug)]
pub struct CliError {
    /// Stable error code in snake_case, the same as in the HTTP API.
    pub code: &'static str,
    /// What went wrong and what to do.
    pub message: String,
    /// Exit status of the process: 2 invalid input, 3 missing or damaged model or native part, 4 the store
    /// has lost acknowledged changes, 1 anything else.
    pub exit: u8,
}

impl CliError {
    /// An error in the user's input.
    #[must_use]
    pub fn input(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), exit: 2 }
    }
    /// Any other failure.
    #[must_use]
    pub fn other(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), exit: 1 }
    }
}

impl From<LibraryError> for CliError {
    fn from(error: LibraryError) -> Self {
        let error = match error {
            LibraryError::Embed(EmbedError::Model(error)) => return error.into(),
            LibraryError::Part { error, .. } => match *error {
                LibraryError::Embed(error) => return error.into(),
                error => error,
            },
            error => error,
        };
        let exit = match error {
            LibraryError::StoreBehind(_) | LibraryError::StoreUnreadable(_) => EXIT_DATA_LOST,
            LibraryError::BadField { .. } => 2,
            _ => 1,
        };
        let advice = match error {
            LibraryError::StoreBehind(_) => RESTORE_NEWER.to_owned(),
            LibraryError::StoreUnreadable(_) => RESTORE.to_owned(),
            _ => crate::http_kit::advice::advice(&error),
        };
        Self { code: error.code(), message: format!("{error}{advice}"), exit }
    }
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        let exit = match error {
            BackupError::NotFound(_) | BackupError::NotEmpty(_) | BackupError::NoLibrary(_) => 2,
            BackupError::StoreBehind(_) => EXIT_DATA_LOST,
            _ => 1,
        };
        let advice = if exit == EXIT_DATA_LOST { RESTORE_NEWER } else { "" };
        Self { code: error.code(), message: format!("{error}{advice}"), exit }
    }
}

impl From<AccessError> for CliError {
    fn from(error: AccessError) -> Self {
        if let AccessError::Io(error) = error {
            return LibraryError::from(error).into();
        }
        let exit =
            if matches!(error, AccessError::Unknown(_) | AccessError::BadField { .. }) { 2 } else { 1 };
        Self { code: error.code(), message: error.to_string(), exit }
    }
}

impl From<EmbedError> for CliError {
    fn from(error: EmbedError) -> Self {
        if let EmbedError::Media(error) = error {
            return error.into();
        }
        Self::input(error.code(), error.to_string())
    }
}

impl From<MediaError> for CliError {
    fn from(error: MediaError) -> Self {
        let exit = if error.is_ours() { 3 } else { 2 };
        let message =
            error.detail().map_or_else(|| error.to_string(), |detail| format!("{error} ({detail})"));
        Self { code: error.code(), message: message + crate::http_kit::advice::advice_on_media(&error), exit }
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        let message = format!("{error}{}", crate::http_kit::advice::advice_on_model(&error));
        Self { code: error.code(), message, exit: 3 }
    }
}

impl From<NativeError> for CliError {
    fn from(error: NativeError) -> Self {
        Self { code: error.code(), message: error.to_string(), exit: 3 }
    }
}

impl From<OutboundError> for CliError {
    fn from(error: OutboundError) -> Self {
        LibraryError::from(error).into()
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::other("io", error.to_string())
    }
}

/// Runs the command line: every command except the decode worker.
#[must_use]
pub fn main() -> ExitCode {
    let matches = without_empty_variables(Cli::command()).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    // Only test builds have fail points.
    let _fail_points = crate::fail_points::has_failpoints().then(crate::fail_points::FailScenario::setup);
    let serves = matches!(cli.command, Command::Serve(_) | Command::Demo(_));
    crate::telemetry::init_logging(if serves { Verbosity::Notices } else { Verbosity::Warnings });
    if serves {
        // Before the data folder is opened, so that files quarantined at startup are counted too.
        let _ = crate::telemetry::metrics();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(async {
        // With a handler, a file that grows beyond `ulimit -f` gives an error; without one, the signal ends
        // the process.
        let _handler = tokio::signal::unix::signal(SignalKind::from_raw(libc::SIGXFSZ));
        match cli.command {
            Command::Serve(args) => serve::run(*args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Index(args) => index::run(args).await,
            Command::Search(args) => search::run(args).await,
            Command::Embed(args) => embed::run(args).await,
            Command::Eval(args) => eval::run(args).await,
            Command::Export(args) => export::run(args).await,
            Command::Model(command) => model::run(command).await,
            Command::Snapshot(command) => snapshot::run(command).await,
            Command::Key(command) => key::run(command),
            Command::Check(args) => check::run(args).await,
            Command::Compact(args) => compact::run(args).await,
            Command::Quarantine(command) => quarantine::run(command),
            Command::Doctor(args) => doctor::run(args).await,
        }
    });
    // A blocked reader thread must not keep a finished command alive.
    runtime.shutdown_background();
    crate::telemetry::flush();
    match outcome.and_then(|code| out::complete().map(|()| code)) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// Treats an environment variable that is set but empty like one that is not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let keep_if_said = |arg: clap::Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
    };
    command.mut_args(keep_if_said).mut_subcommands(without_empty_variables)
}

fn fail(error: &CliError) -> ExitCode {
    eprintln!("error[{}]: {}", error.code, error.message);
    ExitCode::from(error.exit)
}

/// Finds the native parts; returns a function that loads bundles with them.
fn embedder_opener(model: &ModelArgs, limits: &LimitArgs) -> Result<OpenEmbedder, CliError> {
    let native = NativeParts::find()?;
    let decoder = Decoder::new(DecoderConfig {
        worker_exe: crate::media::own_worker()?,
        ffmpeg: native.ffmpeg.clone(),
        limits: limits.limits(),
    });
    let (device, threads, stride_secs) = (model.device, model.thread_count(), model.stride_secs);
    let (own, dims, frames) = (model.model.clone(), model.dims.clone(), model.frames);
    let limit_bytes = crate::native::address_space_limit_bytes();
    let open = move |path: &std::path::Path| {
        ModelError::check_address_space(limit_bytes)?;
        let bundle = Bundle::open(path)?;
        // The lengths and numbers of frames are those of the configured model.
        let bundle = if *path == *own { bundle.cut(&dims)? } else { bundle };
        let bundle = match frames.filter(|_| *path == *own) {
            Some(frames) => bundle.with_frames(frames)?,
            None => bundle,
        };
        let towers = Towers::load(Arc::new(bundle), &native, device, threads)?;
        Ok(Embedder { towers, decoder: decoder.clone(), stride_secs })
    };
    Ok(Arc::new(move |path| open(path).map_err(|error: ModelError| error.explained(limit_bytes))))
}

/// Finds the native parts; loads and verifies the bundle.
fn open_embedder(model: &ModelArgs, limits: &LimitArgs) -> Result<Embedder, CliError> {
    Ok(embedder_opener(model, limits)?(&model.model)?)
}

/// Settings of a library besides model and data folder.
#[derive(Default)]
struct Doors {
    /// Folders whose files may be indexed by path.
    allowed_roots: Vec<PathBuf>,
    /// Folders whose bundles may be loaded at run time.
    model_roots: Vec<PathBuf>,
    /// Sends webhooks; `None`: webhooks are off.
    webhooks: Option<Arc<dyn Deliver>>,
    /// Hosts and buckets that files may be fetched from.
    sources: SourcesConfig,
    /// Settings for snapshots, retention and compaction.
    keep: KeepConfig,
    /// Whether to rebuild a store that has lost something.
    rebuild_from_uploads: bool,
    /// Largest share of one core for measuring recall.
    recall_probe_share: f64,
    /// The engine that searches large indexes.
    graph: GraphEngine,
}

fn models_config(
    model: &ModelArgs,
    data: &DataArgs,
    limits: &LimitArgs,
    doors: Doors,
) -> Result<ModelsConfig, CliError> {
    let ingest_workers = match data.ingest_workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let library = LibraryConfig {
        data_dir: data.data.clone(),
        allowed_roots: doors.allowed_roots,
        ingest_workers,
        webhooks: doors.webhooks,
        keep: doors.keep,
        rebuild_from_uploads: doors.rebuild_from_uploads,
        content_url: crate::http_kit::views::content_url,
        recall_probe_share: doors.recall_probe_share,
        graph: doors.graph,
        sources: doors.sources,
    };
    Ok(ModelsConfig { library, model_roots: doors.model_roots, open: embedder_opener(model, limits)? })
}

/// Opens the library of a data folder with its serving model.
async fn open_library(
    model: &ModelArgs,
    data: &DataArgs,
    limits: &LimitArgs,
    doors: Doors,
) -> Result<Arc<Library>, CliError> {
    let config = models_config(model, data, limits, doors)?;
    Ok(Models::open_alone(&config, &model.model).await?)
}
