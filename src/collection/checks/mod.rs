//! Looks for damage in the store and in the bytes of uploads, and repairs what those bytes allow.

mod report;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::recovery::{adopt_uploads, open_closed};
use super::{LibraryError, blocking, content};
use crate::files::Uploads;
use crate::store::{AssetRecord, DamagedVectors, EmbeddedStore, Store, StoreError};
use crate::types::{ClipId, now_unix_ms};

pub(crate) use report::Shared;
pub use report::{CheckReport, CheckState, DamagedAsset};

/// Assets read from the store at a time.
const PAGE: u32 = 1000;
/// Options for a check.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Read the bytes of every upload.
    pub bytes: bool,
    /// Recompute damaged vectors from the files.
    pub repair: bool,
}

/// The check that runs, and the damage found so far.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) report: Shared,
    /// Clips with damaged vectors, by the last check.
    clips: Mutex<BTreeSet<ClipId>>,
}

impl Checker {
    /// Clips with damaged vectors, by the last check.
    pub(crate) fn damaged_clips(&self) -> BTreeSet<ClipId> {
        self.clips().clone()
    }

    pub(crate) fn clips(&self) -> std::sync::MutexGuard<'_, BTreeSet<ClipId>> {
        self.clips.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts of known damage.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, utoipa::ToSchema)]
pub struct DamageCounts {
    /// Number of rows of the store that cannot be read.
    pub rows: u64,
    /// Number of clips with damaged or missing vectors.
    pub clips: u64,
    /// Number of damaged or missing uploads.
    pub assets: u64,
}

pub(crate) fn begun(options: CheckOptions) -> CheckReport {
    let started_unix_ms = now_unix_ms();
    CheckReport {
        state: CheckState::Running,
        repair: options.repair,
        started_unix_ms,
        ..CheckReport::default()
    }
}

pub(crate) fn end(report: &Shared, outcome: &Result<(), LibraryError>) {
    report.change(|report| {
        report.ended_unix_ms = now_unix_ms();
        report.state = if outcome.is_ok() { CheckState::Done } else { CheckState::Failed };
        report.error = outcome.as_ref().err().map(|error| error.code().to_owned());
    });
}

/// Checks the database: the file, every row, every vector. If the file is too damaged for a part of this, the
/// report says so, and the rest is checked.
pub(crate) async fn check_store(
    store: &dyn EmbeddedStore,
    report: &Shared,
) -> Result<DamagedVectors, LibraryError> {
    let mut problems = store.integrity().await?;
    let unread = |problems: &mut Vec<String>, error: StoreError| match error {
        StoreError::Database(problem) | StoreError::Malformed(problem) | StoreError::DamagedRow(problem) => {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
            Ok(())
        }
        error => Err(error),
    };
    if let Err(error) = store.read_all_rows().await {
        unread(&mut problems, error)?;
    }
    let vectors = match store.check_vectors().await {
        Ok(vectors) => vectors,
        Err(error) => {
            unread(&mut problems, error)?;
            DamagedVectors::default()
        }
    };
    report.rows(store.damaged_rows());
    report.change(|report| {
        report.database_problems = problems;
        report.damaged_clips = vectors.clips.len() as u64;
    });
    Ok(vectors)
}

/// Reads the bytes of every upload and compares them with their hash.
pub(crate) async fn check_bytes(
    store: &dyn Store,
    report: &Shared,
    stop: &CancellationToken,
) -> Result<(), LibraryError> {
    let mut after = None;
    loop {
        let page = store.list_assets(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        for asset in page.into_iter().filter(|asset| asset.owned) {
            check_asset(store, report, &asset, 0, stop).await?;
        }
    }
}

pub(crate) async fn check_asset(
    store: &dyn Store,
    report: &Shared,
    asset: &AssetRecord,
    bytes_per_sec: u64,
    stop: &CancellationToken,
) -> Result<(), LibraryError> {
    let (read, stopped) = (asset.clone(), stop.clone());
    let read = blocking(move || content::read_whole(&read, bytes_per_sec, &stopped)).await?;
    let Some(read) = read else { return Err(LibraryError::Stopping) };
    // The asset was deleted or uploaded again during the read, so the file may have changed.
    match store.asset(asset.id).await {
        Ok(now) if now.path == asset.path => {}
        Ok(_) | Err(StoreError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if let Some(damage) = read.note.damage {
        if asset.damage != Some(damage) {
            tracing::error!(asset = %asset.id, damage = damage.as_str(), "an upload is damaged");
        }
        report.damaged(asset, damage);
    }
    report.change(|report| {
        report.assets_checked += 1;
        report.bytes_checked += read.size_bytes;
    });
    match store.note_content(&[read.note]).await {
        // The report has it.
        Err(StoreError::StorageFull(_) | StoreError::Sealed) => Ok(()),
        noted => Ok(noted?),
    }
}

/// Updates the paths of uploads: in a folder that was copied, they are those of another one.
async fn find_uploads(store: &dyn EmbeddedStore, data_dir: &Path) -> Result<(), LibraryError> {
    let uploads = Uploads::of(data_dir)?;
    let Err(error) = adopt_uploads(store, &uploads).await else { return Ok(()) };
    // The check reports damage, and a disk that takes no write does no harm where nothing has moved.
    let paths = store.owned_paths().await.unwrap_or_default();
    let moved = paths.iter().any(|path| !Path::new(path).starts_with(uploads.kept_folder()));
    if moved && error.storage_full().is_some() { Err(error) } else { Ok(()) }
}

/// Checks the store of a folder that no server has open. Needs no model and repairs nothing.
///
/// # Errors
/// [`LibraryError::Backup`] if there is none, [`LibraryError::StoreBehind`] and others.
pub async fn check_folder(data_dir: &Path, bytes: bool) -> Result<CheckReport, LibraryError> {
    let (store, _lock) = open_closed(data_dir).await?;
    let report = Shared::default();
    let options = CheckOptions { bytes, repair: false };
    report.change(|report| *report = begun(options));
    let checked = async {
        check_store(&store, &report).await?;
        if bytes {
            find_uploads(&store, data_dir).await?;
            check_bytes(&store, &report, &CancellationToken::new()).await
        } else {
            Ok(())
        }
    };
    let outcome = checked.await;
    end(&report, &outcome);
    store.close().await?;
    outcome?;
    Ok(report.now())
}
