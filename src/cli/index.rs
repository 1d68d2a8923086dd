//! `triptych index`: a folder into the library, with progress.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, Doors, table};
use crate::config::{DataArgs, LimitArgs, ModelArgs, SourceArgs};
use crate::jobs::{JobView, NameFilter};
use crate::library::{JobSource, Library};
use crate::store::{JobItem, JobRecord, WorkState};
use crate::types::TrackChoice;

/// Flags of `index`.
#[derive(Debug, Args)]
pub struct IndexArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    sources: SourceArgs,
    /// Folder of video, audio and image files, or s3://BUCKET/FOLDER.
    #[arg(required_unless_present = "manifest")]
    folder: Option<PathBuf>,
    /// Do not descend into subfolders.
    #[arg(long, conflicts_with = "manifest")]
    flat: bool,
    /// Index only files that match this pattern, such as `*.mp4` or `2024/**`; repeatable.
    #[arg(long, value_name = "GLOB", conflicts_with = "manifest")]
    include: Vec<String>,
    /// Skip files that match this pattern; repeatable.
    #[arg(long, value_name = "GLOB", conflicts_with = "manifest")]
    exclude: Vec<String>,
    /// Index the files listed in this JSONL file instead of a folder: one {"path" or "url": …, "metadata": {…}} per
    /// line.
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    manifest: Option<PathBuf>,
    /// Index of the video track to read in each file, as listed in the asset's tracks; default: chosen automatically.
    #[arg(long, value_name = "INDEX", conflicts_with = "manifest")]
    video_track: Option<u16>,
    /// Index of the audio track to read in each file; default: chosen automatically.
    #[arg(long, value_name = "INDEX", conflicts_with = "manifest")]
    audio_track: Option<u16>,
    /// Print the finished job and its items as JSON.
    #[arg(long)]
    json: bool,
}

/// Most files that the summary lists of a kind.
const MOST_LISTED: usize = 100;

/// Runs `index`. Exit status 0 also where some files failed: they are listed; 2 where none was indexed.
pub async fn run(args: IndexArgs) -> Result<ExitCode, CliError> {
    let (source, roots) = source_of(&args)?;
    let mut sources = args.sources.sources(u64::MAX);
    if let JobSource::Bucket { place, .. } = &source {
        // Whoever runs the command may read what they name, with the key they have.
        sources.buckets.allow.push(place.parse().map_err(crate::library::LibraryError::from)?);
    }
    let doors = Doors { allowed_roots: roots, sources, ..Doors::default() };
    let library = super::open_library(&args.model, &args.data, &args.limits, doors).await?;
    let job = library.start_index_job(source, serde_json::json!({}), None).await?;
    let job = follow(&library, job, !args.json).await?;
    let items =
        library.store().job_items(job.id, -1, u32::MAX).await.map_err(crate::library::LibraryError::from)?;
    library.calibrate_if_due().await?;
    library.shutdown().await?;
    let view = JobView::from(&job);
    if args.json {
        let items: Vec<_> = items.iter().map(crate::jobs::ItemView::from).collect();
        say!("{:#}", serde_json::json!({ "job": view, "items": items }));
    } else {
        say!("{}", summary(&view, &items));
    }
    Ok(ExitCode::from(if job.state == WorkState::Failed { 2 } else { 0 }))
}

/// What to index, and beneath which folders it may lie.
fn source_of(args: &IndexArgs) -> Result<(JobSource, Vec<PathBuf>), CliError> {
    let resolve = |path: &PathBuf| {
        path.canonicalize()
            .map_err(|error| CliError::input("path_missing", format!("{}: {error}", path.display())))
    };
    if let Some(manifest) = &args.manifest {
        // Whoever runs the command may read what they name, wherever it lies.
        return Ok((JobSource::Manifest(resolve(manifest)?), vec![PathBuf::from("/")]));
    }
    let Some(folder) = &args.folder else {
        return Err(CliError::input("missing_field", "expected a folder or --manifest FILE"));
    };
    let filter = NameFilter::new(&args.include, &args.exclude)
        .map_err(|reason| CliError::input("invalid_value", reason))?;
    let choice = TrackChoice { video: args.video_track, audio: args.audio_track };
    if let Some(place) = folder.to_str().filter(|text| text.starts_with("s3://")) {
        if !choice.is_open() {
            let message = "tracks can be chosen of files and folders, or in a manifest; not of a bucket";
            return Err(CliError::input("invalid_value", message));
        }
        return Ok((JobSource::Bucket { place: place.to_owned(), filter }, Vec::new()));
    }
    let path = resolve(folder)?;
    // One file is allowed by its folder.
    let root =
        if path.is_file() { path.parent().map_or_else(|| path.clone(), PathBuf::from) } else { path.clone() };
    Ok((JobSource::Folder { path, recursive: !args.flat, filter, choice }, vec![root]))
}

/// Waits for a job with a progress bar; Ctrl-C cancels it and keeps what is done.
pub async fn follow(library: &Arc<Library>, job: JobRecord, bar: bool) -> Result<JobRecord, CliError> {
    let progress = if bar { ProgressBar::new(job.items_total) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} files  {msg}")
        .map_err(|error| CliError::other("internal", error.to_string()))?;
    progress.set_style(style);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut cancelled = false;
    let begun = Instant::now();
    loop {
        let now = library.store().job(job.id).await.map_err(crate::library::LibraryError::from)?;
        let view = JobView::from(&now);
        progress.set_position(now.items_done + now.items_failed + now.items_skipped);
        progress.set_message(format!(
            "{} clips  {:.1} h of media/h  ETA {}  failed {}  skipped {}",
            now.clips,
            view.hours_of_media_per_hour,
            view.eta_secs.map_or_else(|| "-".to_owned(), table::clock),
            now.items_failed,
            now.items_skipped
        ));
        if now.state.has_ended() {
            progress.finish_and_clear();
            return Ok(now);
        }
        let pause = if begun.elapsed() < Duration::from_secs(5) { 20 } else { 200 };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            _ = &mut interrupted, if !cancelled => {
                cancelled = true;
                library.cancel_job(job.id).await?;
            }
        }
    }
}

fn summary(view: &JobView, items: &[JobItem]) -> String {
    let mut text = format!(
        "{} of {} files indexed, {} clips, {} of media, {:.1} hours of media per hour",
        view.items_done,
        view.items_total,
        view.clips,
        table::clock(view.media_secs),
        view.hours_of_media_per_hour
    );
    if let Some(error) = &view.error {
        text += &format!("\nerror[{}]: {}", error.code, error.message);
    }
    for (state, what) in
        [(WorkState::Failed, "failed"), (WorkState::Done, "partial"), (WorkState::Skipped, "skipped")]
    {
        let told = items.iter().filter(|item| item.state == state);
        let told: Vec<_> = told.filter_map(|item| Some((&item.path, item.error.as_ref()?))).collect();
        if !told.is_empty() {
            text += &format!("\n{} {what}:", told.len());
        }
        for (path, (code, message)) in told.iter().take(MOST_LISTED) {
            text += &format!("\n{what}: {} [{code}] {message}", table::printable(path));
        }
        if told.len() > MOST_LISTED {
            text += &format!("\n… and {} more; --json lists all", told.len() - MOST_LISTED);
        }
    }
    text
}
