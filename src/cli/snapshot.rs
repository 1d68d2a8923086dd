//! `triptych snapshot`: backups without a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};

use super::{CliError, table};
use crate::config::SourceArgs;
use crate::library::{Restored, SnapshotOptions, SnapshotPlace, SnapshotState, SnapshotView};
use crate::types::SnapshotId;

/// What to do with snapshots.
#[derive(Debug, Args)]
pub struct SnapshotCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take a snapshot of a data folder that no server has open (on a running server, use POST /v1/snapshots).
    Create(CreateArgs),
    /// List snapshots, newest first.
    List(ListArgs),
    /// Verify a snapshot by reading every byte and checking it against the manifest.
    Verify(OneArgs),
    /// Restore a snapshot to a new data folder.
    Restore(RestoreArgs),
    /// Delete a snapshot and the media that no other snapshot needs.
    Delete(OneArgs),
}

/// Where snapshots are.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Folder of the snapshots, or s3://BUCKET/FOLDER.
    #[arg(long, env = "TRIPTYCH_SNAPSHOT_ROOT")]
    snapshot_root: Option<String>,
    #[command(flatten)]
    sources: SourceArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Data folder.
    #[arg(long, env = "TRIPTYCH_DATA", default_value = "data")]
    data: PathBuf,
    /// Also read the media copied by earlier snapshots, and replace damaged copies.
    #[arg(long)]
    recheck: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
struct OneArgs {
    /// Id of the snapshot, or path of its folder.
    snapshot: String,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
struct RestoreArgs {
    /// Id of the snapshot, or path of its folder.
    snapshot: String,
    /// Data folder to restore to; must be empty or not exist.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
}

impl PlaceArgs {
    fn open(&self) -> Result<SnapshotPlace, CliError> {
        match &self.snapshot_root {
            Some(root) => Ok(SnapshotPlace::open(root, &self.sources.sources(u64::MAX))?),
            None => Err(CliError::input(
                "missing_field",
                "expected the folder of the snapshots; name it with --snapshot-root",
            )),
        }
    }

    /// Finds the snapshot that an id or a path names, and its destination.
    fn find(&self, named: &str) -> Result<(SnapshotPlace, SnapshotId), CliError> {
        match named.parse() {
            Ok(id) => Ok((self.open()?, id)),
            Err(_) => Ok(SnapshotPlace::of_folder(Path::new(named))?),
        }
    }
}

/// Runs `snapshot`.
pub async fn run(command: SnapshotCommand) -> Result<ExitCode, CliError> {
    match command.action {
        Action::Create(args) => create(args).await,
        Action::List(args) => list(args).await,
        Action::Verify(args) => verify(args).await,
        Action::Restore(args) => restore(args).await,
        Action::Delete(args) => {
            let (place, id) = args.place.find(&args.snapshot)?;
            place.delete(id).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn create(args: CreateArgs) -> Result<ExitCode, CliError> {
    let options = SnapshotOptions { scheduled: false, recheck: args.recheck };
    let view = args.place.open()?.create(&args.data, options).await?;
    if args.place.json {
        say!("{:#}", serde_json::json!(view));
    } else {
        say!("{}", rows(&[view]));
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> Result<ExitCode, CliError> {
    let views = args.place.open()?.list().await?;
    if args.place.json {
        say!("{:#}", serde_json::json!({ "object": "list", "data": views }));
    } else {
        say!("{}", rows(&views));
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(views: &[SnapshotView]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["snapshot", "taken", "assets", "clips", "bytes", "copied", ""]);
    for view in views {
        let mut row = vec![view.id.to_string(), view.created_at.clone().unwrap_or_default()];
        if let Some(contents) = &view.contents {
            row.push(contents.assets.to_string());
            row.push(contents.clips.to_string());
            row.push((contents.file_bytes + contents.media_bytes).to_string());
            row.push((contents.file_bytes + contents.copied_bytes).to_string());
        }
        if view.state == SnapshotState::Damaged {
            row.resize(6, String::new());
            row.push("damaged".to_owned());
        }
        table.add_row(row);
    }
    table.to_string()
}

async fn verify(args: OneArgs) -> Result<ExitCode, CliError> {
    let (place, id) = args.place.find(&args.snapshot)?;
    let wrong = place.verify(id).await?;
    if args.place.json {
        let problems: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        say!("{:#}", serde_json::json!({ "id": id, "whole": wrong.is_empty(), "problems": problems }));
    } else if wrong.is_empty() {
        say!("{id} is intact");
    }
    let Some(first) = wrong.first() else { return Ok(ExitCode::SUCCESS) };
    let others: Vec<String> = wrong.iter().skip(1).map(|error| format!("\n{error}")).collect();
    Err(CliError::other(first.code(), format!("{first}{}", others.concat())))
}

async fn restore(args: RestoreArgs) -> Result<ExitCode, CliError> {
    let (place, id) = args.place.find(&args.snapshot)?;
    let restored = place.restore(id, &args.data).await?;
    if args.place.json {
        say!("{:#}", serde_json::json!(restored));
    } else {
        say!("{}", summary(&restored, &args.data));
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(restored: &Restored, data: &Path) -> String {
    let mut text = format!(
        "{} contains {} assets with {} clips and {} uploaded files, {} bytes",
        data.display(),
        restored.assets,
        restored.clips,
        restored.media_files,
        restored.bytes
    );
    if restored.lacking > 0 {
        text +=
            &format!("\n{} uploads were missing or damaged when the snapshot was taken", restored.lacking);
    }
    if restored.missing_by_path > 0 {
        text += &format!("\n{} files indexed by path are missing:", restored.missing_by_path);
        for path in &restored.missing_paths {
            text += &format!("\n  {}", table::printable(path));
        }
    }
    text + "\nAPI keys are not part of a snapshot: copy keys.json and keys.lock from the old data folder, or create new keys \
            with `triptych key create`"
}
