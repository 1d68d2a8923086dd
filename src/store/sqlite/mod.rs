//! The store in one SQLite file: one writing connection, a pool of readers, WAL, `synchronous=FULL`.

mod assets;
mod blob;
mod checks;
mod clips;
mod connect;
mod copy;
mod export;
mod hand_over;
mod jobs;
mod lanes;
#[cfg(test)]
mod list_tests;
mod outbox;
#[cfg(test)]
mod outbox_tests;
mod page;
mod retention;
mod rows;
mod standing;
#[cfg(test)]
mod tests;
mod upkeep;
mod watches;
mod webhooks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use sqlx::{Connection, Row, Sqlite, Transaction};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

pub use copy::{CopiedAsset, CopyFacts, StoreCopy};

use connect::{Opener, Readers};

use super::lock::FolderLock;
use super::{
    AssetOutcome, AssetRecord, ClipCursor, ClipRecord, JobItem, JobRecord, NewAsset, NewClip, NewItem,
    StorageFull, Store, StoreError, Totals, VectorCensus, WatchRecord, WatchSpec, WatchedFile, WorkState,
};
use crate::types::{AssetId, ClipId, Embedding, JobId, ModelId, Space, Track, WatchId, now_unix_ms};

/// Name of the database file in the data folder.
pub const DATABASE: &str = "triptych.db";
/// All files of a store, the database last.
pub const FILES: [&str; 3] = ["triptych.db-wal", "triptych.db-shm", DATABASE];
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // Damaged pages, and a file that is not a database.
        const MALFORMED: [i32; 2] = [11, 26];
        let code = error.as_database_error().and_then(sqlite_code);
        if code.is_some_and(|code| MALFORMED.contains(&(code & 0xff))) {
            return Self::Malformed(error.to_string());
        }
        let full = match &error {
            sqlx::Error::Database(_) => code.and_then(StorageFull::of_sqlite),
            sqlx::Error::Io(inner) => StorageFull::of_io(inner),
            _ => None,
        };
        full.map_or_else(|| Self::Database(error.to_string()), Self::StorageFull)
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            error => Self::Database(format!("cannot migrate the database to this version: {error}")),
        }
    }
}

/// SQLite's extended result code.
fn sqlite_code(error: &dyn DatabaseError) -> Option<i32> {
    error.code()?.parse().ok()
}

/// [`Store`] in `<data folder>/triptych.db`.
///
/// All writes go through one connection, one after another, so SQLite never answers "busy"; readers run in
/// parallel, each on its own state of the database.
pub struct SqliteStore {
    /// `None` until the database can be opened for writing.
    writer: Mutex<Option<SqliteConnection>>,
    readers: RwLock<Readers>,
    opener: Opener,
    file: PathBuf,
    spaces: RwLock<Vec<(Space, i64)>>,
    sealed: AtomicBool,
    damaged: checks::Damaged,
    _lock: Option<FolderLock>,
}

impl SqliteStore {
    /// Opens or creates the store of a data folder: takes the folder's lock and migrates the schema.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::OtherModel`] if it holds clips of another model,
    /// [`StoreError::Database`].
    pub async fn open(data_dir: &Path, model: &ModelId) -> Result<Self, StoreError> {
        let lock = FolderLock::take(data_dir)?;
        Self::open_for(data_dir, Some(model), Some(lock)).await
    }

    /// Opens a store in a folder whose lock the caller holds; without `model`, whatever its model. An
    /// existing store that cannot be written now is opened for reading until it can.
    ///
    /// # Errors
    /// Like [`open`](Self::open), except [`StoreError::Locked`].
    pub async fn open_locked(folder: &Path, model: Option<&ModelId>) -> Result<Self, StoreError> {
        Self::open_for(folder, model, None).await
    }

    async fn open_for(
        data_dir: &Path,
        model: Option<&ModelId>,
        lock: Option<FolderLock>,
    ) -> Result<Self, StoreError> {
        let file = data_dir.join(DATABASE);
        let opener = Opener::new(file.clone(), model);
        let (writer, readers) = match opener.writer().await {
            Ok(writer) => (Some(writer), opener.readers().await?),
            Err(StoreError::StorageFull(refused)) if file.is_file() => {
                (None, opener.readers_alone(refused).await?)
            }
            Err(error) => return Err(error),
        };
        let store = Self {
            writer: Mutex::new(writer),
            readers: RwLock::new(readers),
            opener,
            file,
            spaces: RwLock::default(),
            sealed: AtomicBool::new(false),
            damaged: checks::Damaged::default(),
            _lock: lock,
        };
        let known = sqlx::query("SELECT idx, name FROM spaces").fetch_all(&store.readers()).await?;
        for row in known {
            store.remember_space(Space::new(row.try_get("name")?), row.try_get("idx")?);
        }
        Ok(store)
    }

    /// Closes all connections and moves the write-ahead log into the database file.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn close(self) -> Result<(), StoreError> {
        self.readers().close().await;
        match self.writer.into_inner() {
            Some(writer) => Ok(writer.close().await?),
            None => Ok(()),
        }
    }

    /// The pool of readers.
    fn readers(&self) -> SqlitePool {
        self.readers.read().unwrap_or_else(std::sync::PoisonError::into_inner).pool.clone()
    }

    /// How to open another reader.
    fn reader_options(&self) -> SqliteConnectOptions {
        self.readers.read().unwrap_or_else(std::sync::PoisonError::into_inner).options.clone()
    }

    async fn writer(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, StoreError> {
        let mut slot = self.writer.lock().await;
        // Check only with the lock: sealing waits for the writer before it returns.
        if self.sealed.load(Ordering::Acquire) {
            return Err(StoreError::Sealed);
        }
        if let Some(writer) = slot.as_mut() {
            // The ping waits until the connection's thread has rolled back an abandoned transaction.
            let answers = writer.ping().await.is_ok();
            // On a full disk, SQLite ends a transaction by itself, but the driver still counts it: no
            // transaction can begin on such a connection.
            if !answers || writer.is_in_transaction() {
                let broken = slot.take();
                if let Some(Err(error)) =
                    futures::future::OptionFuture::from(broken.map(Connection::close)).await
                {
                    tracing::debug!(%error, "an abandoned connection was not closed cleanly");
                }
            }
        }
        if slot.is_none() {
            *slot = Some(self.opener.writer().await?);
            self.thaw().await?;
        }
        MutexGuard::try_map(slot, Option::as_mut)
            .map_err(|_| StoreError::Database("the writing connection is closed".to_owned()))
    }

    /// Replaces readers of a frozen file by readers that see changes.
    async fn thaw(&self) -> Result<(), StoreError> {
        let frozen = self.readers.read().unwrap_or_else(std::sync::PoisonError::into_inner).frozen;
        if frozen {
            let readers = self.opener.readers().await?;
            let before = {
                let mut now = self.readers.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                std::mem::replace(&mut *now, readers)
            };
            tokio::spawn(async move { before.pool.close().await });
        }
        Ok(())
    }

    fn space_index(&self, space: &Space) -> Option<i64> {
        let spaces = self.spaces.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        spaces.iter().find(|(name, _)| name == space).map(|(_, index)| *index)
    }

    fn space_name(&self, index: i64) -> Option<Space> {
        let spaces = self.spaces.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        spaces.iter().find(|(_, known)| *known == index).map(|(name, _)| name.clone())
    }

    fn remember_space(&self, space: Space, index: i64) {
        let mut spaces = self.spaces.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !spaces.iter().any(|(name, _)| *name == space) {
            spaces.push((space, index));
        }
    }
}

/// Begins a write transaction that takes the write lock at once.
async fn begin(connection: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>, StoreError> {
    Ok(connection.begin_with("BEGIN IMMEDIATE").await?)
}

/// Every transaction that adds or drops clips must call this.
async fn bump_sequence(tx: &mut Transaction<'_, Sqlite>) -> Result<(), StoreError> {
    sqlx::query("UPDATE library SET sequence = sequence + 1 WHERE one = 1").execute(&mut **tx).await?;
    Ok(())
}

fn to_json(value: &serde_json::Value) -> String {
    value.to_string()
}

fn from_json(text: &str) -> Result<serde_json::Value, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::DamagedRow(format!("JSON text is damaged: {error}")))
}

fn damaged(what: &str, value: &str) -> StoreError {
    StoreError::DamagedRow(format!("{what} is damaged: {}", value.escape_debug()))
}

/// Ids as a JSON array, the only kind of list that SQLite accepts as a parameter.
fn id_list<T: std::fmt::Display>(ids: impl IntoIterator<Item = T>, quoted: bool) -> String {
    let mut text = String::from("[");
    for (i, id) in ids.into_iter().enumerate() {
        use std::fmt::Write;
        let comma = if i == 0 { "" } else { "," };
        let quote = if quoted { "\"" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{quote}{id}{quote}");
    }
    text.push(']');
    text
}

fn error_columns(row: &sqlx::sqlite::SqliteRow) -> Result<Option<(String, String)>, StoreError> {
    let code: Option<String> = row.try_get("error_code")?;
    let message: Option<String> = row.try_get("error_message")?;
    Ok(code.map(|code| (code, message.unwrap_or_default())))
}

#[async_trait]
impl Store for SqliteStore {
    async fn begin_asset(&self, new: NewAsset) -> Result<(AssetRecord, bool), StoreError> {
        assets::begin_asset(self, &new).await
    }
    async fn add_clips(&self, asset: AssetId, clips: &[NewClip]) -> Result<Vec<ClipId>, StoreError> {
        clips::add(self, asset, clips).await
    }
    async fn finish_asset(&self, asset: AssetId, outcome: AssetOutcome) -> Result<AssetRecord, StoreError> {
        assets::finish(self, asset, &outcome).await
    }
    async fn asset(&self, id: AssetId) -> Result<AssetRecord, StoreError> {
        assets::get(self, id).await
    }
    async fn assets(&self, ids: &[AssetId]) -> Result<Vec<AssetRecord>, StoreError> {
        assets::get_many(self, ids).await
    }
    async fn list_assets(&self, after: Option<AssetId>, limit: u32) -> Result<Vec<AssetRecord>, StoreError> {
        assets::list(self, after, limit).await
    }
    async fn assets_at(&self, path: &str) -> Result<Vec<AssetRecord>, StoreError> {
        assets::at_path(self, path).await
    }
    async fn asset_paths(&self, id: AssetId) -> Result<Vec<String>, StoreError> {
        assets::paths_of(self, id).await
    }
    async fn unfinished_assets(&self) -> Result<Vec<AssetRecord>, StoreError> {
        assets::unfinished(self).await
    }
    async fn describe_assets(&self, records: &[AssetRecord]) -> Result<Vec<AssetRecord>, StoreError> {
        assets::describe(self, records).await
    }
    async fn delete_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError> {
        assets::delete(self, id).await
    }
    async fn reset_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError> {
        assets::reset(self, id).await
    }
    async fn clips_of(&self, asset: AssetId) -> Result<Vec<ClipRecord>, StoreError> {
        clips::of_asset(self, asset).await
    }
    async fn clips_with_tracks(&self, asset: AssetId) -> Result<Vec<(ClipRecord, Vec<Track>)>, StoreError> {
        clips::with_tracks(self, asset).await
    }
    async fn clips(&self, ids: &[ClipId]) -> Result<Vec<ClipRecord>, StoreError> {
        clips::by_id(self, ids).await
    }
    async fn scan_clips(&self, after: ClipId, limit: u32) -> Result<Vec<ClipRecord>, StoreError> {
        clips::scan_records(self, after, limit).await
    }
    async fn clips_without_agreement(&self, after: ClipId, limit: u32) -> Result<Vec<ClipId>, StoreError> {
        clips::without_agreement(self, after, limit).await
    }
    async fn set_agreements(&self, agreements: &[(ClipId, f32)]) -> Result<(), StoreError> {
        clips::set_agreements(self, agreements).await
    }
    async fn clip_vectors(&self, id: ClipId) -> Result<Vec<(Track, Space, Embedding)>, StoreError> {
        clips::vectors(self, id).await
    }
    async fn scan_vectors(
        &self,
        track: Track,
        space: &Space,
        after: ClipId,
        limit: u32,
    ) -> Result<(Vec<(ClipId, Embedding)>, Vec<ClipId>), StoreError> {
        clips::scan(self, track, space, after, limit).await
    }
    async fn export(&self, asset: Option<AssetId>, after: ClipId) -> Result<Box<dyn ClipCursor>, StoreError> {
        export::open(self, asset, after).await
    }
    async fn vector_census(&self, track: Track, space: &Space) -> Result<VectorCensus, StoreError> {
        clips::census(self, track, space).await
    }
    async fn sequence(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT sequence FROM library WHERE one = 1")
            .fetch_one(&self.readers())
            .await?)
    }
    async fn acknowledged(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT acknowledged FROM library WHERE one = 1")
            .fetch_one(&self.readers())
            .await?)
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        assets::totals(self).await
    }
    async fn create_job(
        &self,
        kind: &str,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
    ) -> Result<JobRecord, StoreError> {
        Ok(jobs::create(self, kind, request, items, idempotency_key, None).await?.0)
    }
    async fn job(&self, id: JobId) -> Result<JobRecord, StoreError> {
        jobs::get(self, id).await
    }
    async fn list_jobs(
        &self,
        state: Option<WorkState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRecord>, StoreError> {
        jobs::list(self, state, after, limit).await
    }
    async fn job_counts(&self) -> Result<BTreeMap<WorkState, u64>, StoreError> {
        jobs::counts(self).await
    }
    async fn job_items(
        &self,
        id: JobId,
        state: Option<WorkState>,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JobItem>, StoreError> {
        jobs::items(self, id, state, after_seq, limit).await
    }
    async fn claim_item(&self) -> Result<Option<(JobId, JobItem)>, StoreError> {
        jobs::claim(self).await
    }
    async fn finish_item(&self, job: JobId, item: &JobItem) -> Result<JobRecord, StoreError> {
        jobs::finish_item(self, job, item).await
    }
    async fn unended_jobs(&self) -> Result<Vec<JobId>, StoreError> {
        jobs::unended(self).await
    }
    async fn cancel_job(&self, id: JobId) -> Result<JobRecord, StoreError> {
        jobs::cancel(self, id).await
    }
    async fn pause_job(&self, id: JobId, paused: bool) -> Result<JobRecord, StoreError> {
        jobs::pause(self, id, paused).await
    }
    async fn retry_failed(&self, id: JobId) -> Result<(JobRecord, u64), StoreError> {
        jobs::retry_failed(self, id).await
    }
    async fn requeue_running(&self) -> Result<u64, StoreError> {
        jobs::requeue_running(self).await
    }
    async fn seal(&self, sealed: bool) {
        let _writer = self.writer.lock().await;
        self.sealed.store(sealed, Ordering::Release);
    }
    async fn clear_work(&self) -> Result<(), StoreError> {
        hand_over::clear(self).await
    }
    async fn adopt_work(&self, from: &Path) -> Result<(), StoreError> {
        hand_over::adopt(self, from).await
    }
    async fn create_watch(&self, spec: &WatchSpec) -> Result<WatchRecord, StoreError> {
        watches::create(self, spec).await
    }
    async fn watch(&self, id: WatchId) -> Result<WatchRecord, StoreError> {
        watches::get(self, id).await
    }
    async fn list_watches(&self) -> Result<Vec<WatchRecord>, StoreError> {
        watches::list(self).await
    }
    async fn delete_watch(&self, id: WatchId) -> Result<(), StoreError> {
        watches::delete(self, id).await
    }
    async fn note_look(&self, id: WatchId, error: Option<&(String, String)>) -> Result<(), StoreError> {
        watches::note_look(self, id, error).await
    }
    async fn watch_files(
        &self,
        id: WatchId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<WatchedFile>, StoreError> {
        watches::files(self, id, after, limit).await
    }
    async fn watch_files_named(&self, id: WatchId, paths: &[String]) -> Result<Vec<WatchedFile>, StoreError> {
        watches::files_named(self, id, paths).await
    }
    async fn watch_files_gone(
        &self,
        id: WatchId,
        looks: u32,
        limit: u32,
    ) -> Result<Vec<WatchedFile>, StoreError> {
        watches::files_gone(self, id, looks, limit).await
    }
    async fn watch_files_ready(&self, id: WatchId, limit: u32) -> Result<Vec<String>, StoreError> {
        watches::files_ready(self, id, limit).await
    }
    async fn put_watch_files(&self, id: WatchId, files: &[WatchedFile]) -> Result<(), StoreError> {
        watches::put_files(self, id, files).await
    }
    async fn drop_watch_file(&self, id: WatchId, path: &str) -> Result<(), StoreError> {
        watches::drop_file(self, id, path).await
    }
    async fn begin_watch_job(&self, id: WatchId, job: JobId) -> Result<(), StoreError> {
        watches::begin_job(self, id, job).await
    }
    async fn settle_watch(&self, id: WatchId, ended_unix_ms: i64) -> Result<(), StoreError> {
        watches::settle(self, id, ended_unix_ms).await
    }
    async fn asset_has_other_file(
        &self,
        asset: AssetId,
        id: WatchId,
        path: &str,
    ) -> Result<bool, StoreError> {
        watches::asset_has_other_file(self, asset, id, path).await
    }
}
