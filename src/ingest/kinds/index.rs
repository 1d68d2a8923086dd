//! Jobs that index files: of a folder, a manifest, a list or a bucket.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::Ingest;
use super::{Kind, Plan};
use crate::collection::{LibraryError, blocking, utf8};
use crate::files::{AllowedRoots, FileError, open_resolved};
use crate::formats::{NameSays, name_says};
use crate::jobs::{LeftOut, ListError, ManifestError, ManifestItem, NameFilter, Place};
use crate::model::Priority;
use crate::outbound::bucket::BucketUrl;
use crate::store::{AssetState, JobItem, JobKind, JobRecord, NewItem, WorkError, WorkState};
use crate::types::{TrackChoice, WatchId};

/// Maximum number of files per job.
const MAX_FILES: usize = 1_000_000;

/// The source of a job's files.
#[derive(Debug, Clone)]
pub enum JobSource {
    /// A folder or a single file.
    Folder {
        /// A path beneath an allowed root.
        path: PathBuf,
        /// Whether subfolders are included.
        recursive: bool,
        /// Which of its files to index.
        filter: NameFilter,
        /// The tracks to read from each file.
        choice: TrackChoice,
    },
    /// A JSONL file that lists the files.
    Manifest {
        /// A path beneath an allowed root.
        path: PathBuf,
        /// The tracks to read from each file that has no choice of its own.
        choice: TrackChoice,
    },
    /// The files or URLs themselves.
    Files(Vec<ManifestItem>),
    /// The objects of a bucket, or of a folder in it.
    Bucket {
        /// An allowed `s3://bucket/folder`.
        place: String,
        /// Which of its objects to index.
        filter: NameFilter,
        /// The tracks to read from each object.
        choice: TrackChoice,
    },
}

/// What to index, and the metadata that each asset gets.
pub(crate) struct IndexRequest {
    pub(crate) source: JobSource,
    pub(crate) metadata: Value,
}

/// The kind of job that indexes files.
pub(crate) struct Index;

impl Kind for Index {
    const KIND: JobKind = JobKind::Index;
    type Request = IndexRequest;

    async fn plan(ingest: &Ingest, request: IndexRequest) -> Result<Plan, LibraryError> {
        let IndexRequest { source, metadata } = request;
        let data = &ingest.collection.data;
        let path = match &source {
            JobSource::Folder { path, .. } | JobSource::Manifest { path, .. } => {
                Some(data.allowed_path(path)?)
            }
            JobSource::Files(_) | JobSource::Bucket { .. } => None,
        };
        if let (JobSource::Folder { .. }, Some(path)) = (&source, &path) {
            let meta = tokio::fs::metadata(path).await?;
            if !meta.is_dir() && !meta.is_file() {
                let kind = FileError::Kind(path.display().to_string(), "a folder or a regular file");
                return Err(LibraryError::File(kind));
            }
        }
        let mut shown = path.as_deref().map(utf8).transpose()?;
        let items = if let JobSource::Bucket { place, filter, choice } = &source {
            let place = data.sources.buckets.check(place)?;
            shown = Some(place.to_string());
            objects_of(ingest, &place, filter, *choice, &metadata).await?
        } else {
            let (roots, metadata) = (data.roots.clone(), metadata.clone());
            blocking(move || items_of(source, path.as_deref(), &roots, &metadata)).await?
        };
        if items.iter().any(|item| matches!(Place::of(&item.path), Place::Url(_))) {
            data.sources.outbound.require_on()?;
        }
        Ok(Plan { request: json!({ "type": Self::KIND, "path": shown, "metadata": metadata }), items })
    }

    async fn run(
        ingest: &Ingest,
        job: &JobRecord,
        item: &mut JobItem,
        cancel: &CancellationToken,
    ) -> Result<(), LibraryError> {
        // The guard keeps a fetched file until it has been moved to its place.
        let (source, _upload) = ingest.source_of(item, cancel).await?;
        let report = ingest.ingest_until(source, Priority::Bulk, cancel).await?;
        item.asset = Some(report.asset.id);
        // Only media indexed by this job count towards its rate, including those indexed before a crash.
        if report.new || report.asset.created_unix_ms >= job.created_unix_ms {
            item.clips = report.asset.clips;
            item.media_secs = report.asset.duration_secs;
        }
        item.state =
            if report.asset.state == AssetState::Failed { WorkState::Failed } else { WorkState::Done };
        item.error = report.asset.error;
        Ok(())
    }
}

impl Index {
    /// The request of a job that a watch starts, as stored.
    pub(crate) fn request_of_watch(watch: WatchId, path: &str, metadata: &Value) -> Value {
        json!({ "type": Self::KIND, "path": path, "metadata": metadata, "watch": watch })
    }
}

/// The selected objects of a bucket, as items.
async fn objects_of(
    ingest: &Ingest,
    place: &BucketUrl,
    filter: &NameFilter,
    choice: TrackChoice,
    metadata: &Value,
) -> Result<Vec<NewItem>, LibraryError> {
    let bucket = ingest.collection.data.sources.buckets.open(&place.bucket)?;
    let mut listing = bucket.list(&place.key);
    let mut items = Vec::new();
    while let Some(object) = listing.next().await {
        let key = object?.key;
        let relative = key.strip_prefix(&place.key).unwrap_or(&key).trim_start_matches('/');
        if !filter.wants(relative.as_ref()) {
            continue;
        }
        if items.len() == MAX_FILES {
            return Err(LibraryError::TooManyFiles(MAX_FILES));
        }
        let left_out = left_out(relative);
        let path = BucketUrl { bucket: place.bucket.clone(), key }.to_string();
        items.push(NewItem { choice, ..found_item(path, left_out, metadata) });
    }
    Ok(items)
}

/// The items of a source whose `path` was resolved. Blocking.
fn items_of(
    source: JobSource,
    path: Option<&Path>,
    roots: &AllowedRoots,
    metadata: &Value,
) -> Result<Vec<NewItem>, LibraryError> {
    let files = match (source, path) {
        (JobSource::Folder { recursive, filter, choice, .. }, Some(folder)) => {
            let listed =
                crate::jobs::list_media(folder, recursive, &filter, MAX_FILES, |path| roots.holds(path));
            let listed = listed.map_err(list_error)?;
            let left_out = listed.left_out.into_iter().map(|(path, left_out)| (path, Some(left_out)));
            let all = listed.media.into_iter().map(|path| (path, None)).chain(left_out);
            let item = |(path, left_out)| NewItem { choice, ..found_item(path, left_out, metadata) };
            return Ok(all.map(item).collect());
        }
        (JobSource::Manifest { choice, .. }, Some(path)) => {
            let file = BufReader::new(open_resolved(path)?);
            let folder = path.parent().unwrap_or(path);
            let mut files = crate::jobs::read_manifest(file, folder, MAX_FILES).map_err(manifest_error)?;
            files.iter_mut().for_each(|file| file.choose(choice));
            files
        }
        (JobSource::Files(files), _) => files,
        (_, None) | (JobSource::Bucket { .. }, _) => Vec::new(),
    };
    let item = |file: ManifestItem| {
        let choice = file.choice();
        let path = file.path.or(file.url).unwrap_or_default();
        let metadata = merged(metadata, file.metadata);
        NewItem { name: file.name, choice, ..NewItem::new(path, metadata) }
    };
    Ok(files.into_iter().map(item).collect())
}

/// An item for a file that was found in a folder or bucket rather than named.
pub(crate) fn found_item(path: String, left_out: Option<LeftOut>, metadata: &Value) -> NewItem {
    // Only indexed files get the metadata.
    let metadata = if left_out.is_some() { Value::Object(serde_json::Map::new()) } else { metadata.clone() };
    let skipped = left_out.map(|left_out| WorkError::new(left_out.code, left_out.reason));
    NewItem { skipped, ..NewItem::new(path, metadata) }
}

/// Whether an object is left out regardless of its content, by its key relative to the folder. If the name
/// does not tell, the first bytes decide after the fetch.
fn left_out(relative: &str) -> Option<LeftOut> {
    if relative.split('/').any(|part| part.starts_with('.') && part != "..") {
        return Some(LeftOut::hidden());
    }
    let unfinished = name_says(relative.rsplit('/').next().unwrap_or(relative)) == NameSays::Unfinished;
    unfinished.then(LeftOut::unfinished)
}

fn merged(metadata: &Value, own: serde_json::Map<String, Value>) -> Value {
    let mut merged = metadata.as_object().cloned().unwrap_or_default();
    merged.extend(own);
    Value::Object(merged)
}

fn list_error(error: ListError) -> LibraryError {
    match error {
        ListError::TooMany(most) => LibraryError::TooManyFiles(most),
        ListError::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            LibraryError::File(FileError::Unreadable("the folder".to_owned()))
        }
        ListError::Io(error) => LibraryError::Io(error),
    }
}

fn manifest_error(error: ManifestError) -> LibraryError {
    match error {
        ManifestError::TooMany(most) => LibraryError::TooManyFiles(most),
        ManifestError::Io(error) => LibraryError::Io(error),
        ManifestError::Line { .. } => LibraryError::BadManifest(error.to_string()),
    }
}
