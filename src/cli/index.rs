//! `triptych index`: indexes a folder, with progress.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, Doors, table};
use crate::config::{DataArgs, LimitArgs, ModelArgs, SourceArgs};
use crate::http_kit::advice::item_view;
use crate::jobs::{JobView, NameFilter};
use crate::library::{JobSource, Library};
use crate::store::{JobItem, JobRecord, WorkState};
use crate::types::{JobId, TrackChoice};

/// How often progress is shown, and how often in the first seconds: a short job ends at once.
const SHOW_EVERY: Duration = Duration::from_millis(200);
const SHOW_SHORT_EVERY: Duration = Duration::from_millis(20);
const SHORT_JOB: Duration = Duration::from_secs(5);

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
    /// A line of a manifest may choose its own.
    #[arg(long, value_name = "INDEX")]
    video_track: Option<u16>,
    /// Index of the audio track to read in each file; default: chosen automatically.
    #[arg(long, value_name = "INDEX")]
    audio_track: Option<u16>,
    /// Print the finished job and its items as JSON.
    #[arg(long)]
    json: bool,
}

/// Maximum number of files listed per section of the summary.
const MOST_LISTED: u64 = 100;
/// Items read per page.
const ITEMS_A_PAGE: u32 = 1000;

/// Runs `index`. The exit status is 0 even if some files failed (they are listed), and 2 if none was indexed.
pub async fn run(args: IndexArgs) -> Result<ExitCode, CliError> {
    let (source, roots) = source_of(&args)?;
    let mut sources = args.sources.sources(u64::MAX);
    if let JobSource::Bucket { place, .. } = &source {
        // The user of the command may read the bucket they name, with their own credentials.
        sources.buckets.allow.push(place.parse().map_err(crate::library::LibraryError::from)?);
    }
    let doors = Doors { allowed_roots: roots, sources, ..Doors::default() };
    let library = super::open_library(&args.model, &args.data, &args.limits, doors).await?;
    let job = library.start_index_job(source, serde_json::json!({}), None).await?;
    let job = follow(&library, job, !args.json).await?;
    let shown = if args.json {
        say_json(&library, &job).await
    } else {
        summary(&library, &job).await.map(|text| say!("{text}"))
    };
    library.collection().calibrate_if_due().await?;
    library.shutdown().await?;
    shown?;
    Ok(ExitCode::from(if job.state == WorkState::Failed { 2 } else { 0 }))
}

/// The source to index, and the folders in which its files may be.
fn source_of(args: &IndexArgs) -> Result<(JobSource, Vec<PathBuf>), CliError> {
    let resolve = |path: &PathBuf| {
        path.canonicalize()
            .map_err(|error| CliError::input("path_missing", format!("{}: {error}", path.display())))
    };
    let choice = TrackChoice { video: args.video_track, audio: args.audio_track };
    if let Some(manifest) = &args.manifest {
        // The user of the command may read any file that the manifest names.
        return Ok((JobSource::Manifest { path: resolve(manifest)?, choice }, vec![PathBuf::from("/")]));
    }
    let Some(folder) = &args.folder else {
        return Err(CliError::input("missing_field", "expected a folder or --manifest FILE"));
    };
    let filter = NameFilter::new(&args.include, &args.exclude)
        .map_err(|reason| CliError::input("invalid_value", reason))?;
    if let Some(place) = folder.to_str().filter(|text| text.starts_with("s3://")) {
        return Ok((JobSource::Bucket { place: place.to_owned(), filter, choice }, Vec::new()));
    }
    let path = resolve(folder)?;
    // A single file is allowed through its folder.
    let root =
        if path.is_file() { path.parent().map_or_else(|| path.clone(), PathBuf::from) } else { path.clone() };
    Ok((JobSource::Folder { path, recursive: !args.flat, filter, choice }, vec![root]))
}

/// Follows a job with a progress bar; Ctrl-C cancels the job, and finished items stay indexed.
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
        let now = library.ingest().job(job.id).await.map_err(crate::library::LibraryError::from)?;
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
        let pause = if begun.elapsed() < SHORT_JOB { SHOW_SHORT_EVERY } else { SHOW_EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut interrupted, if !cancelled => {
                cancelled = true;
                library.ingest().cancel_job(job.id).await?;
            }
        }
    }
}

/// Prints the job and its items as one JSON object, page by page: a job may have a million items.
async fn say_json(library: &Library, job: &JobRecord) -> Result<(), CliError> {
    let indented =
        |value: &serde_json::Value, by: &str| format!("{value:#}").replace('\n', &format!("\n{by}"));
    say!("{{\n  \"items\": [");
    let mut items = Items::of(library, job, None);
    let mut waiting = items.next().await?;
    while let Some(item) = waiting {
        waiting = items.next().await?;
        let item = serde_json::json!(item_view(&item));
        say!("    {}{}", indented(&item, "    "), if waiting.is_some() { "," } else { "" });
    }
    say!("  ],\n  \"job\": {}\n}}", indented(&serde_json::json!(JobView::from(job)), "  "));
    Ok(())
}

/// The items of a job, one after another, read page by page.
struct Items<'a> {
    library: &'a Library,
    job: JobId,
    state: Option<WorkState>,
    after: i64,
    page: std::vec::IntoIter<JobItem>,
    at_end: bool,
}

impl<'a> Items<'a> {
    fn of(library: &'a Library, job: &JobRecord, state: Option<WorkState>) -> Self {
        Self { library, job: job.id, state, after: -1, page: Vec::new().into_iter(), at_end: false }
    }

    async fn next(&mut self) -> Result<Option<JobItem>, CliError> {
        if self.page.len() == 0 && !self.at_end {
            let page =
                self.library.ingest().job_items(self.job, self.state, self.after, ITEMS_A_PAGE).await?;
            self.at_end = page.len() < ITEMS_A_PAGE as usize;
            self.after = page.last().map_or(self.after, |item| item.seq);
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

async fn summary(library: &Library, job: &JobRecord) -> Result<String, CliError> {
    let view = JobView::from(job);
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
    for (state, what, count) in [
        (WorkState::Failed, "failed", view.items_failed),
        (WorkState::Done, "partial", view.items_partial),
        (WorkState::Skipped, "skipped", view.items_skipped),
    ] {
        if count == 0 {
            continue;
        }
        text += &format!("\n{count} {what}:");
        let mut items = Items::of(library, job, Some(state));
        let mut listed = 0;
        while listed < MOST_LISTED.min(count)
            && let Some(item) = items.next().await?
        {
            let Some(error) = item_view(&item).error else { continue };
            text += &format!("\n{what}: {} [{}] {}", table::printable(&item.path), error.code, error.message);
            listed += 1;
        }
        if count > MOST_LISTED {
            text += &format!("\n… and {} more; --json lists all", count - MOST_LISTED);
        }
    }
    Ok(text)
}
