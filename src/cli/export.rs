//! `triptych export`: writes all vectors of a library to a Parquet file.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::CliError;
use crate::config::DataArgs;
use crate::library::{ExportReport, ExportWanted};
use crate::types::{Space, Track};

/// Flags of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Parquet file to write, or - for standard output. An existing file is replaced once the new one is complete.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// Export only vectors of this embedding space.
    #[arg(long)]
    space: Option<String>,
    /// Export only vectors of this track.
    #[arg(long, value_enum)]
    track: Option<ExportTrack>,
}

/// Tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportTrack {
    /// Video tracks and pictures.
    Video,
    /// Audio tracks.
    Audio,
}

/// Runs `export`. The model is not needed; while a server has the folder open, `GET /v1/export` gives the
/// same file.
pub async fn run(args: ExportArgs) -> Result<ExitCode, CliError> {
    let track = args.track.map(|track| match track {
        ExportTrack::Video => Track::Video,
        ExportTrack::Audio => Track::Audio,
    });
    let wanted = ExportWanted { space: args.space.as_deref().map(Space::new), track };
    let report = if args.out == Path::new("-") {
        crate::library::export_folder(&args.data.data, wanted, std::io::stdout()).await?
    } else {
        let folder = args.out.parent().filter(|parent| !parent.as_os_str().is_empty());
        let file = tempfile::Builder::new()
            .prefix(".triptych-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        let out = std::io::BufWriter::new(file.reopen()?);
        let report = crate::library::export_folder(&args.data.data, wanted, out).await?;
        file.as_file().sync_all()?;
        file.persist(&args.out).map_err(|error| error.error)?;
        report
    };
    eprintln!("{}", text(&report));
    Ok(ExitCode::SUCCESS)
}

fn text(report: &ExportReport) -> String {
    let mut text = format!("{} vectors of {} clips, of model {}", report.vectors, report.clips, report.model);
    if report.left_out > 0 {
        text += &format!(
            "; {} damaged vectors were left out; repair them with `triptych check --repair`",
            report.left_out
        );
    }
    text
}
