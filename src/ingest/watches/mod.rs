//! Watched folders: polled, so they work on any file system; files that are new or changed and have stopped
//! growing become an ordinary job.

mod changes;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};

use self::changes::{GONE_LOOKS, changes};
use super::Ingest;
use super::kinds::{Index, Kind, found_item};
use crate::collection::{Collection, LibraryError, blocking, utf8};
use crate::files::FileError;
use crate::jobs::{LeftOut, ListError, NameFilter, SeenFile, examine_seen, list_seen};
use crate::ledger::WorkKind;
use crate::store::{
    JobRecord, NewItem, StoreError, WatchRecord, WatchSpec, WatchedFile, WorkError, WorkState,
};
use crate::types::{AssetId, Deciding, WatchId};

/// Maximum number of watches per library.
const MAX_WATCHES: usize = 100;
/// Maximum number of files in a watched folder; a poll needs about 150 bytes for each.
const MAX_FILES: usize = 200_000;
/// Maximum number of files per job; the rest comes with the next one.
const JOB_FILES: u32 = 100_000;
/// Files compared per page.
const PAGE: u32 = 1000;
/// How often to check whether a job has ended.
const JOB_EVERY: Duration = Duration::from_secs(1);
/// Longest sleep between two polls.
const IDLE: Duration = Duration::from_secs(60);

/// The watched folders of a library.
pub struct Watches {
    collection: Arc<Collection>,
    ingest: Arc<Ingest>,
    /// Held while a folder is checked and watched: two concurrent requests must not both find it unwatched.
    turn: Mutex<()>,
    /// Wakes the watcher because a watched folder is due for a poll.
    wake: Notify,
}

impl Watches {
    /// The watched folders, whose files go to `ingest`.
    pub(crate) fn new(ingest: Arc<Ingest>) -> Self {
        let collection = Arc::clone(&ingest.collection);
        Self { collection, ingest, turn: Mutex::new(()), wake: Notify::new() }
    }

    /// Polls the folders until the collection's work is stopped.
    pub(crate) fn start(self: &Arc<Self>) {
        self.collection.life.tasks.spawn(keep_watching(Arc::clone(self)));
    }

    /// The watched folders.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn list(&self) -> Result<Vec<WatchRecord>, LibraryError> {
        Ok(self.collection.store.list_watches().await?)
    }

    /// Looks up one watched folder.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn find(&self, id: WatchId) -> Result<WatchRecord, LibraryError> {
        Ok(self.collection.store.watch(id).await?)
    }

    /// Watches a folder beneath an allowed root, durably.
    ///
    /// # Errors
    /// [`LibraryError`]; [`LibraryError::WatchExists`] if the folder is already watched.
    pub async fn create(&self, mut spec: WatchSpec) -> Result<WatchRecord, LibraryError> {
        let path = self.collection.data.allowed_path(Path::new(&spec.path))?;
        if !path.is_dir() {
            return Err(LibraryError::File(FileError::Kind(spec.path, "a folder")));
        }
        spec.path = utf8(&path)?;
        let _turn = self.turn.lock().await;
        let watches = self.collection.store.list_watches().await?;
        if let Some(known) = watches.iter().find(|watch| watch.spec.path == spec.path) {
            return Err(LibraryError::WatchExists(known.id));
        }
        if watches.len() >= MAX_WATCHES {
            return Err(LibraryError::TooManyWatches(MAX_WATCHES));
        }
        let watch = self.collection.store.create_watch(&spec).await?;
        self.wake.notify_one();
        self.collection.note_work(WorkKind::Watch, watch.id, true).await?;
        Ok(watch)
    }

    /// Ends a watch. Its assets and a running job stay.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn delete(&self, id: WatchId) -> Result<(), LibraryError> {
        self.collection.store.delete_watch(id).await?;
        self.collection.note_work(WorkKind::Watch, id, false).await
    }

    /// Polls the folder once and acts on the result.
    async fn look(&self, watch: &WatchRecord) -> Result<(), LibraryError> {
        let seen = self.compare(watch).await;
        let error = match &seen {
            Ok(note) => note.clone(),
            Err(error) => Some(WorkError::new(error.code(), error.user_message())),
        };
        // Write only news: a folder at rest costs the disk nothing.
        if error.is_some() || watch.error.is_some() || watch.last_look_unix_ms == 0 {
            self.collection.store.note_look(watch.id, error.as_ref()).await?;
        }
        seen?;
        self.tend(watch).await
    }

    /// Compares the folder with the last poll; returns a note for the user, if any.
    async fn compare(&self, watch: &WatchRecord) -> Result<Option<WorkError>, LibraryError> {
        let spec = &watch.spec;
        let root = self.collection.data.allowed_path(Path::new(&spec.path))?;
        let filter = NameFilter::new(&spec.include, &spec.exclude).map_err(LibraryError::BadManifest)?;
        let (roots, recursive) = (self.collection.data.roots.clone(), spec.recursive);
        let listed = blocking(move || {
            list_seen(&root, recursive, &filter, MAX_FILES, |path| roots.holds(path)).map_err(|error| {
                match error {
                    ListError::TooMany(most) => LibraryError::TooManyFiles(most),
                    ListError::Io(error) => LibraryError::Io(error),
                }
            })
        });
        let (seen, mut whole) = listed.await?;
        let mut note = None;
        if !whole {
            let message = "a subfolder cannot be read; no file is treated as deleted until it can";
            note = Some(WorkError::new(Deciding::Io.as_str(), message));
        }
        if seen.is_empty() && watch.files > 0 {
            // The disk may only be unmounted.
            whole = false;
            let message = "the folder is now empty; its files are not treated as deleted";
            note = Some(WorkError::new("folder_empty", message));
        }
        self.write_changes(watch.id, &seen, whole).await?;
        Ok(note)
    }

    async fn write_changes(&self, id: WatchId, seen: &[SeenFile], whole: bool) -> Result<(), LibraryError> {
        let mut after = String::new();
        let mut rest = seen;
        loop {
            let known = self.collection.store.watch_files(id, &after, PAGE).await?;
            let last_page = known.len() < PAGE as usize;
            let here = match known.last() {
                Some(last) if !last_page => {
                    after.clone_from(&last.path);
                    rest.partition_point(|file| file.path <= after)
                }
                _ => rest.len(),
            };
            let (page, later) = rest.split_at(here);
            for changes in changes(known, page, whole).chunks(PAGE as usize) {
                self.collection.store.put_watch_files(id, changes).await?;
            }
            rest = later;
            if last_page || self.collection.life.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Records the results of the newest job, removes assets of files that are gone, and starts the next job.
    async fn tend(&self, watch: &WatchRecord) -> Result<(), LibraryError> {
        let watch = &self.collection.store.watch(watch.id).await?;
        if let Some(job) = watch.job {
            let job = self.collection.store.job(job).await?;
            if !job.state.has_ended() || job.ended_unix_ms == 0 {
                return Ok(());
            }
            if job.ended_unix_ms != watch.settled_unix_ms {
                self.settle(watch, &job).await?;
            }
        }
        if watch.spec.delete_missing {
            self.remove_gone(watch).await?;
        }
        self.start_watch_job(watch).await
    }

    /// Records the results of an ended job. Removes the assets that the same paths had before.
    async fn settle(&self, watch: &WatchRecord, job: &JobRecord) -> Result<(), LibraryError> {
        let mut after = -1;
        loop {
            let items = self.collection.store.job_items(job.id, None, after, PAGE).await?;
            let Some(last) = items.last() else { break };
            after = last.seq;
            let ended =
                items.into_iter().filter(|item| item.state.has_ended() && item.state != WorkState::Cancelled);
            let made: HashMap<String, Option<AssetId>> =
                ended.map(|item| (item.path, item.asset.filter(|_| item.state == WorkState::Done))).collect();
            let paths: Vec<String> = made.keys().cloned().collect();
            let mut first_time = Vec::new();
            for mut file in self.collection.store.watch_files_named(watch.id, &paths).await? {
                let new = made.get(&file.path).copied().flatten();
                if new.is_none() && !self.is_replaced(&file).await? {
                    continue;
                }
                let before = std::mem::replace(&mut file.asset, new);
                match before {
                    _ if before == new => {}
                    None => first_time.push(file),
                    Some(old) => {
                        self.retire(old, watch.id, &file.path).await?;
                        self.collection.store.put_watch_files(watch.id, &[file]).await?;
                    }
                }
            }
            self.collection.store.put_watch_files(watch.id, &first_time).await?;
        }
        Ok(self.collection.store.settle_watch(watch.id, job.ended_unix_ms).await?)
    }

    /// Whether a watched file is known to have replaced the one that its asset was indexed from.
    async fn is_replaced(&self, file: &WatchedFile) -> Result<bool, LibraryError> {
        let Some(asset) = file.asset else { return Ok(false) };
        match self.collection.store.asset(asset).await {
            Err(StoreError::NotFound(_)) => Ok(true),
            asset => {
                let asset = asset?;
                Ok(asset.path == file.path
                    && matches!(
                        self.collection.open_content(&asset).await,
                        Err(LibraryError::ContentDamaged { .. })
                    ))
            }
        }
    }

    async fn remove_gone(&self, watch: &WatchRecord) -> Result<(), LibraryError> {
        loop {
            let gone = self.collection.store.watch_files_gone(watch.id, GONE_LOOKS, PAGE).await?;
            if gone.is_empty() || self.collection.life.stop.is_cancelled() {
                return Ok(());
            }
            for file in gone {
                if let Some(asset) = file.asset {
                    self.retire(asset, watch.id, &file.path).await?;
                }
                self.collection.store.drop_watch_file(watch.id, &file.path).await?;
            }
        }
    }

    /// Deletes the asset of a watched file, unless it has another source: another watched file, an upload, or
    /// a file elsewhere with the same bytes.
    async fn retire(&self, asset: AssetId, watch: WatchId, path: &str) -> Result<(), LibraryError> {
        let record = match self.collection.store.asset(asset).await {
            Err(StoreError::NotFound(_)) => return Ok(()),
            found => found?,
        };
        let elsewhere = record.path != path && tokio::fs::try_exists(&record.path).await?;
        if record.owned || elsewhere || self.collection.store.asset_has_other_file(asset, watch, path).await?
        {
            return Ok(());
        }
        match self.ingest.delete_asset(asset).await {
            Err(LibraryError::Store(StoreError::NotFound(_))) => Ok(()),
            outcome => outcome,
        }
    }

    async fn start_watch_job(&self, watch: &WatchRecord) -> Result<(), LibraryError> {
        let ready = self.collection.store.watch_files_ready(watch.id, JOB_FILES).await?;
        if ready.is_empty() {
            return Ok(());
        }
        let (spec, roots) = (&watch.spec, self.collection.data.roots.clone());
        let examined = blocking(move || {
            let inside = |path: &Path| roots.holds(path);
            Ok(ready.into_iter().map(|path| (examine_seen(&path, &inside).err(), path)).collect::<Vec<_>>())
        });
        let examined = examined.await?;
        if self.left_out_before(watch.id, &examined).await? {
            return Ok(());
        }
        let (choice, metadata) = (spec.choice, &spec.metadata);
        let item = |(left_out, path)| NewItem { choice, ..found_item(path, left_out, metadata) };
        let items: Vec<NewItem> = examined.into_iter().map(item).collect();
        let request = Index::request_of_watch(watch.id, &spec.path, &spec.metadata);
        // After a crash before the job is recorded, the same key returns the same job rather than a second
        // one. No request can send a key with a space.
        let key = format!("{} {}", watch.id, watch.jobs_made);
        let job = self.collection.store.create_job(Index::KIND, &request, &items, Some(&key)).await?;
        self.collection.store.begin_watch_job(watch.id, job.id).await?;
        tracing::info!(watch = %watch.id, job = %job.id, files = job.items_total, "indexing new files");
        self.ingest.work.wake.notify_one();
        self.wake.notify_one();
        Ok(())
    }

    /// Whether all these files were left out by an earlier job and have changed but are still not media (a
    /// log, say): they are recorded, and reported only once.
    async fn left_out_before(
        &self,
        id: WatchId,
        examined: &[(Option<LeftOut>, String)],
    ) -> Result<bool, LibraryError> {
        if examined.iter().any(|(left_out, _)| left_out.is_none()) {
            return Ok(false);
        }
        let paths: Vec<String> = examined.iter().map(|(_, path)| path.clone()).collect();
        let mut files = self.collection.store.watch_files_named(id, &paths).await?;
        if files.iter().any(|file| file.taken.is_none() || file.asset.is_some()) {
            return Ok(false);
        }
        files.iter_mut().for_each(|file| file.taken = Some((file.size_bytes, file.mtime_ns)));
        self.collection.store.put_watch_files(id, &files).await?;
        Ok(true)
    }

    /// Whether the newest job of a watch still runs, or its results are not recorded yet.
    async fn is_unsettled(&self, watch: &WatchRecord) -> bool {
        let Some(job) = watch.job else { return false };
        self.collection.store.job(job).await.is_ok_and(|job| job.ended_unix_ms != watch.settled_unix_ms)
    }
}

/// Polls the watched folders while the library is open.
async fn keep_watching(watches: Arc<Watches>) {
    let mut due: HashMap<WatchId, Instant> = HashMap::new();
    while watches.collection.data.disk.writable(&watches.collection.life.stop).await {
        let known = match watches.collection.store.list_watches().await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(%error, "could not read the list of watched folders");
                Vec::new()
            }
        };
        due.retain(|id, _| known.iter().any(|watch| watch.id == *id));
        let mut wait = IDLE;
        for watch in &known {
            let at = due.entry(watch.id).or_insert_with(Instant::now);
            let outcome = if *at <= Instant::now() {
                *at = Instant::now() + Duration::from_secs(watch.spec.poll_secs);
                watches.look(watch).await
            } else if watches.is_unsettled(watch).await {
                wait = wait.min(JOB_EVERY);
                watches.tend(watch).await
            } else {
                Ok(())
            };
            // Log it once; the watch itself shows that it continues.
            let told = |error: &LibraryError| {
                watch.error.as_ref().is_some_and(|told| told.code == error.code().into())
            };
            if let Some(error) =
                outcome.err().filter(|error| !watches.collection.data.disk.refuses(error) && !told(error))
            {
                tracing::warn!(watch = %watch.id, folder = ?watch.spec.path, %error, "could not scan a watched folder");
            }
            wait = wait.min(at.saturating_duration_since(Instant::now()));
        }
        tokio::select! {
            () = watches.collection.life.stop.cancelled() => return,
            () = watches.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
