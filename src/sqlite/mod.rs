//! The store in one SQLite file: one writing connection, a pool of readers, WAL, `synchronous=FULL`.

mod assets;
mod blob;
mod checks;
mod clips;
mod connect;
mod copy;
mod embedded;
mod error;
mod export;
mod hand_over;
mod items;
mod job_records;
#[cfg(test)]
mod job_tests;
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
mod watches;
mod webhooks;

use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use sqlx::{Connection, Row, Sqlite, Transaction};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

pub use copy::{CopiedAsset, CopyFacts, StoreCopy};

use self::connect::{Opener, Readers};
use self::rows::{damaged, error_columns, from_json, id_list, to_json};
use crate::store::{FolderLock, Store, StoreError};
use crate::types::{ModelId, Space, now_unix_ms};

/// Name of the database file in the data folder.
pub const DATABASE: &str = "triptych.db";
/// All files of a store, the database last.
pub const FILES: [&str; 3] = ["triptych.db-wal", "triptych.db-shm", DATABASE];

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
    /// [`StoreError::Locked`], [`StoreError::OtherModel`] if it contains clips of another model,
    /// [`StoreError::Database`].
    pub async fn open(data_dir: &Path, model: &ModelId) -> Result<Self, StoreError> {
        let lock = FolderLock::take(data_dir)?;
        Self::open_for(data_dir, Some(model), Some(lock)).await
    }

    /// Opens a store in a folder whose lock the caller holds; without `model`, of any model. An existing
    /// store that cannot be written now is opened for reading until it can.
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

#[async_trait]
impl Store for SqliteStore {
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
    async fn try_write(&self) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query("UPDATE library SET tries = tries + 1 WHERE one = 1").execute(&mut *writer).await?;
        Ok(())
    }
}
