//! `triptych quarantine`: lists or deletes the files that the server did not recognise.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::CliError;
use crate::files;

/// `triptych quarantine …`
#[derive(Debug, Args)]
pub struct QuarantineCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the files in quarantine with their sizes in bytes.
    List(Folder),
    /// Permanently delete the files in quarantine.
    Empty(Folder),
}

#[derive(Debug, Args)]
struct Folder {
    /// Data folder.
    #[arg(long, env = "TRIPTYCH_DATA", default_value = "data")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `quarantine`, even while a server runs.
pub fn run(command: QuarantineCommand) -> Result<ExitCode, CliError> {
    match command.action {
        Action::List(folder) => list(&folder)?,
        Action::Empty(folder) => {
            let (files, bytes) = files::empty_quarantine(&existing(&folder)?)?;
            if folder.json {
                say!("{}", serde_json::json!({ "files": files, "bytes": bytes }));
            } else {
                say!("{files} files ({bytes} bytes) deleted");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(folder: &Folder) -> Result<(), CliError> {
    let files = files::quarantined(&existing(folder)?)?;
    if folder.json {
        let listed = serde_json::to_string(&files).map_err(std::io::Error::other)?;
        say!("{listed}");
        return Ok(());
    }
    for file in &files {
        say!("{:>12}  {}", file.bytes, file.path.display());
    }
    say!("{} files in quarantine", files.len());
    Ok(())
}

fn existing(folder: &Folder) -> Result<PathBuf, CliError> {
    if folder.data.is_dir() {
        return Ok(folder.data.clone());
    }
    let message = format!("{}: expected a data folder; name it with --data", folder.data.display());
    Err(CliError::input("no_library", message))
}
