//! Jobs of a library: starts, pauses, resumes, cancels, retries and lists them.

use std::collections::{BTreeMap, HashMap};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::Value;

use super::Ingest;
use crate::collection::{LibraryError, blocking, utf8};
use crate::files::{AllowedRoots, FileError, open_resolved};
use crate::jobs::{JobBaseline, JobView, LeftOut, ListError, ManifestError, ManifestItem, NameFilter, Place};
use crate::ledger::WorkKind;
use crate::media::{NameSays, name_says};
use crate::outbound::bucket::BucketUrl;
use crate::store::{JobItem, JobRecord, NewItem, Store, StoreError, WorkState};
use crate::types::{JobId, TrackChoice, now_unix_ms};
use crate::webhooks::Webhook;

/// Maximum number of files per job.
const MAX_FILES: usize = 1_000_000;

/// Where the files of a job come from.
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
    Manifest(PathBuf),
    /// The files or URLs themselves.
    Files(Vec<ManifestItem>),
    /// The objects of a bucket, or of a folder in it.
    Bucket {
        /// An allowed `s3://bucket/folder`.
        place: String,
        /// Which of its objects to index.
        filter: NameFilter,
    },
}

/// Progress of jobs when this process started, so that the time that the server was down does not lower the
/// rates.
#[derive(Debug, Default)]
pub(crate) struct Baselines(Mutex<HashMap<JobId, JobBaseline>>);

impl Baselines {
    pub(crate) async fn of_unfinished(store: &dyn Store) -> Result<Self, LibraryError> {
        let baselines = Self::default();
        baselines.refresh(store).await?;
        Ok(baselines)
    }

    /// Sets the baselines of all unfinished jobs to their present progress.
    pub(crate) async fn refresh(&self, store: &dyn Store) -> Result<(), LibraryError> {
        for id in store.unended_jobs().await? {
            match store.job(id).await {
                Ok(job) => self.set(&job),
                // The store reports it; the other jobs must not suffer.
                Err(StoreError::DamagedRow(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Measures the rates of this job from now on.
    fn set(&self, job: &JobRecord) {
        let baseline = JobBaseline::of(job, now_unix_ms());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(job.id, baseline);
    }

    fn get(&self, id: JobId) -> Option<JobBaseline> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
}

impl Ingest {
    /// Stores a job that indexes files, with a webhook that reports its end. Also returns the webhook, if the job is
    /// new.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub(crate) async fn start_index_job(
        &self,
        source: JobSource,
        metadata: Value,
        idempotency_key: Option<&str>,
        webhook: Option<&Webhook>,
    ) -> Result<(JobRecord, Option<Webhook>), LibraryError> {
        if self.collection.life.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let webhook = webhook.map(|asked| self.collection.data.webhooks.checked(asked)).transpose()?;
        let path = match &source {
            JobSource::Folder { path, .. } | JobSource::Manifest(path) => {
                Some(self.collection.data.allowed_path(path)?)
            }
            JobSource::Files(_) | JobSource::Bucket { .. } => None,
        };
        if let (JobSource::Folder { .. }, Some(path)) = (&source, &path) {
            let meta = tokio::fs::metadata(path).await?;
            if !meta.is_dir() && !meta.is_file() {
                return Err(LibraryError::File(FileError::Kind(
                    path.display().to_string(),
                    "a folder or a regular file",
                )));
            }
        }
        let mut shown = path.as_deref().map(utf8).transpose()?;
        let items = if let JobSource::Bucket { place, filter } = &source {
            let place = self.collection.data.sources.buckets.check(place)?;
            shown = Some(place.to_string());
            self.objects_of(&place, filter, &metadata).await?
        } else {
            let (roots, metadata) = (self.collection.data.roots.clone(), metadata.clone());
            blocking(move || items_of(source, path.as_deref(), &roots, &metadata)).await?
        };
        if items.iter().any(|item| matches!(Place::of(&item.path), Place::Url(_))) {
            self.collection.data.sources.outbound.require_on()?;
        }
        let request = serde_json::json!({ "type": "index", "path": shown, "metadata": metadata });
        let (job, given) = match webhook {
            None => {
                (self.collection.store.create_job("index", &request, &items, idempotency_key).await?, None)
            }
            Some((webhook, given)) => {
                let made = self.collection.store.create_job_with_webhook(
                    "index",
                    &request,
                    &items,
                    idempotency_key,
                    &webhook,
                );
                let (job, new) = made.await?;
                (job, new.then_some(given))
            }
        };
        self.work.wake.notify_one();
        self.collection.note_work(WorkKind::Job, job.id, true).await?;
        Ok((job, given))
    }

    /// The selected objects of a bucket, as items.
    async fn objects_of(
        &self,
        place: &BucketUrl,
        filter: &NameFilter,
        metadata: &Value,
    ) -> Result<Vec<NewItem>, LibraryError> {
        let bucket = self.collection.data.sources.buckets.open(&place.bucket)?;
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
            items.push(item_of(path, left_out, metadata));
        }
        Ok(items)
    }

    /// Cancels a job; running items stop and leave nothing behind. Waits briefly for them.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn cancel_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        self.collection.store.cancel_job(id).await?;
        let began = Instant::now();
        while self.work.cancel(id) && began.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.collection.note_work(WorkKind::Job, id, false).await?;
        Ok(self.collection.store.job(id).await?)
    }

    /// Pauses an unfinished job: running items finish, and no new ones start, even after a restart. A job in
    /// any other state does not change.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn pause_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        let job = self.collection.store.pause_job(id, true).await?;
        self.collection.note_work(WorkKind::Job, id, true).await?;
        Ok(job)
    }

    /// Resumes a paused job. A job in any other state does not change.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn resume_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        let paused = self.collection.store.job(id).await?.state == WorkState::Paused;
        let job = self.collection.store.pause_job(id, false).await?;
        if paused {
            self.baselines.set(&job);
            self.work.wake.notify_one();
        }
        self.collection.note_work(WorkKind::Job, id, true).await?;
        Ok(job)
    }

    /// Queues the failed items of a job again. A cancelled job does not change.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub(crate) async fn retry_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        let (job, queued) = self.collection.store.retry_failed(id).await?;
        if queued > 0 {
            self.baselines.set(&job);
            self.work.wake.notify_one();
            self.collection.note_work(WorkKind::Job, id, true).await?;
        }
        Ok(job)
    }

    /// Jobs, newest first, of one state or of all; `after` is the last id of the previous page.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn jobs(
        &self,
        state: Option<WorkState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRecord>, LibraryError> {
        Ok(self.collection.store.list_jobs(state, after, limit).await?)
    }

    /// Looks up one job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job(&self, id: JobId) -> Result<JobRecord, StoreError> {
        self.collection.store.job(id).await
    }

    /// Number of jobs per state; states without jobs are left out.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn job_counts(&self) -> Result<BTreeMap<WorkState, u64>, LibraryError> {
        Ok(self.collection.store.job_counts().await?)
    }

    /// Items of a job after `after_seq` (exclusive; -1 for all), of one state or of all.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn job_items(
        &self,
        id: JobId,
        state: Option<WorkState>,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JobItem>, LibraryError> {
        Ok(self.collection.store.job_items(id, state, after_seq, limit).await?)
    }

    /// A job as the API shows it.
    #[must_use]
    pub fn job_view(&self, job: &JobRecord) -> JobView {
        JobView::new(job, self.baselines.get(job.id))
    }
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
            let item = |(path, left_out)| NewItem { choice, ..item_of(path, left_out, metadata) };
            return Ok(all.map(item).collect());
        }
        (JobSource::Manifest(_), Some(path)) => {
            let file = BufReader::new(open_resolved(path)?);
            let folder = path.parent().unwrap_or(path);
            crate::jobs::read_manifest(file, folder, MAX_FILES).map_err(manifest_error)?
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
pub(crate) fn item_of(path: String, left_out: Option<LeftOut>, metadata: &Value) -> NewItem {
    // Only indexed files get the metadata.
    let metadata = if left_out.is_some() { Value::Object(serde_json::Map::new()) } else { metadata.clone() };
    let skipped = left_out.map(|left_out| (left_out.code.to_owned(), left_out.reason));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;
    use crate::types::ModelId;

    #[tokio::test]
    async fn rates_are_counted_from_the_start_for_every_job_that_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), &ModelId("m".into())).await.unwrap();
        let item = [NewItem::new("/f".into(), serde_json::json!({}))];
        let oldest = store.create_job("index", &Value::Null, &item, None).await.unwrap().id;
        for _ in 0..1000 {
            store.create_job("index", &Value::Null, &[], None).await.unwrap();
        }
        let ended = store.list_jobs(None, None, 1).await.unwrap()[0].id;
        let baselines = Baselines::of_unfinished(&store).await.unwrap();
        assert!(baselines.get(oldest).is_some());
        assert!(baselines.get(ended).is_none());
    }
}
