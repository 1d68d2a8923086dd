//! The store in one SQLite file: one writing connection, a pool of readers, WAL, `synchronous=FULL`.

mod assets;
mod blob;
mod clips;
mod copy;
mod hand_over;
mod jobs;
#[cfg(test)]
mod outbox_tests;
mod retention;
mod standing;
#[cfg(test)]
mod tests;
mod upkeep;
mod watches;
mod webhooks;

use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Row, Sqlite, Transaction};
use tokio::sync::{Mutex, MutexGuard};

pub use copy::{CopiedAsset, CopyFacts, StoreCopy};

use super::lock::FolderLock;
use super::{
    AssetOutcome, AssetRecord, ClipRecord, JobItem, JobRecord, NewAsset, NewClip, NewItem, Store, StoreError,
    WatchRecord, WatchSpec, WatchedFile,
};
use crate::types::{AssetId, ClipId, Embedding, JobId, ModelId, Space, Track, WatchId};

/// Larger than SQLite's default: four vectors of 2 KB share a page instead of one, so the file is
/// 20 % smaller and scans nearly twice as fast (docs/index.md).
const PAGE_BYTES: u32 = 16_384;
/// The store's file in the data folder.
pub const DATABASE: &str = "triptych.db";
/// Readers side by side; each is a thread of its own.
const READERS: u32 = 4;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Database(format!("the database cannot be brought to this version: {error}"))
    }
}

/// [`Store`] in `<data folder>/triptych.db`.
///
/// All writes go through one connection, one after another, so SQLite never answers "busy";
/// readers work beside it on their own snapshots.
pub struct SqliteStore {
    writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
    file: PathBuf,
    /// How a reader is opened.
    reading: SqliteConnectOptions,
    spaces: RwLock<Vec<(Space, i64)>>,
    sealed: AtomicBool,
    _lock: Option<FolderLock>,
}

impl SqliteStore {
    /// Opens or creates the store of a data folder, takes the folder's lock, brings the schema up
    /// to date.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::OtherModel`] if it holds clips of another model,
    /// [`StoreError::Database`].
    pub async fn open(data_dir: &Path, model: &ModelId) -> Result<Self, StoreError> {
        let lock = FolderLock::take(data_dir)?;
        Self::open_for(data_dir, Some(model), Some(lock)).await
    }

    /// Opens a store, whatever its model where none is named, in a folder whose lock the caller holds.
    ///
    /// # Errors
    /// As [`open`](Self::open), but [`StoreError::Locked`].
    pub async fn open_locked(folder: &Path, model: Option<&ModelId>) -> Result<Self, StoreError> {
        Self::open_for(folder, model, None).await
    }

    async fn open_for(
        data_dir: &Path,
        model: Option<&ModelId>,
        lock: Option<FolderLock>,
    ) -> Result<Self, StoreError> {
        let file = data_dir.join(DATABASE);
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        // Only a new file takes it; an old one takes it when it is written anew.
        let writing = options.clone().create_if_missing(true).auto_vacuum(SqliteAutoVacuum::Incremental);
        let mut writer = SqliteConnection::connect_with(&writing).await?;
        sqlx::migrate!("migrations/sqlite").run(&mut writer).await?;
        if let Some(model) = model {
            claim_model(&mut writer, model).await?;
        }
        let reading = options.read_only(true);
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(reading.clone()).await?;
        let spaces = RwLock::new(Vec::new());
        let sealed = AtomicBool::new(false);
        let writer = Mutex::new(writer);
        let store = Self { writer, readers, file, reading, spaces, sealed, _lock: lock };
        let known = sqlx::query("SELECT idx, name FROM spaces").fetch_all(&store.readers).await?;
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
        self.readers.close().await;
        Ok(self.writer.into_inner().close().await?)
    }

    async fn writer(&self) -> Result<MutexGuard<'_, SqliteConnection>, StoreError> {
        let writer = self.writer.lock().await;
        // Only now: whoever sealed it has had the writer to itself.
        if self.sealed.load(Ordering::Acquire) { Err(StoreError::Sealed) } else { Ok(writer) }
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

/// Starts a write transaction that holds the write lock from its first statement on.
async fn begin(connection: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>, StoreError> {
    Ok(connection.begin_with("BEGIN IMMEDIATE").await?)
}

async fn claim_model(writer: &mut SqliteConnection, model: &ModelId) -> Result<(), StoreError> {
    let mut tx = begin(writer).await?;
    let found: Option<String> =
        sqlx::query_scalar("SELECT model FROM library WHERE one = 1").fetch_optional(&mut *tx).await?;
    if let Some(found) = found.filter(|found| **found != *model.0) {
        let clips: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM clips)").fetch_one(&mut *tx).await?;
        if clips {
            return Err(StoreError::OtherModel { found, wanted: model.to_string() });
        }
    }
    sqlx::query(
        "INSERT INTO library (one, model, sequence) VALUES (1, ?1, 0)
         ON CONFLICT (one) DO UPDATE SET model = ?1 WHERE model <> ?1",
    )
    .bind(&*model.0)
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

/// To be called by every transaction that adds or drops clips.
async fn bump_sequence(tx: &mut Transaction<'_, Sqlite>) -> Result<(), StoreError> {
    sqlx::query("UPDATE library SET sequence = sequence + 1 WHERE one = 1").execute(&mut **tx).await?;
    Ok(())
}

fn now_unix_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

fn to_json(value: &serde_json::Value) -> String {
    value.to_string()
}

fn from_json(text: &str) -> Result<serde_json::Value, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Database(format!("a stored JSON text is damaged: {error}")))
}

fn damaged(what: &str, value: &str) -> StoreError {
    StoreError::Database(format!("a stored {what} is damaged: {}", value.escape_debug()))
}

/// Ids as a JSON array, the one list type SQLite can take as a parameter.
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
    async fn vector_census(&self, track: Track, space: &Space) -> Result<(u64, i64), StoreError> {
        clips::census(self, track, space).await
    }
    async fn sequence(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT sequence FROM library WHERE one = 1").fetch_one(&self.readers).await?)
    }
    async fn acknowledged(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT acknowledged FROM library WHERE one = 1")
            .fetch_one(&self.readers)
            .await?)
    }
    async fn totals(&self) -> Result<(u64, u64, f64), StoreError> {
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
    async fn list_jobs(&self, limit: u32) -> Result<Vec<JobRecord>, StoreError> {
        jobs::list(self, limit).await
    }
    async fn job_items(&self, id: JobId, after_seq: i64, limit: u32) -> Result<Vec<JobItem>, StoreError> {
        jobs::items(self, id, after_seq, limit).await
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
