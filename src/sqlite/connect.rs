//! Opens the database for writing and for reading, even if the disk accepts no more bytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use super::begin;
use super::error::sqlite_code;
use crate::store::{StorageFull, StoreError};
use crate::types::ModelId;

/// How long a connection waits for a lock on the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Larger than SQLite's default: four vectors of 2 KB share a page instead of one, so the file is
/// 20 % smaller and scans nearly twice as fast (docs/measurements/index.md).
const PAGE_BYTES: u32 = 16_384;
/// Number of parallel readers; each is a thread of its own.
const READERS: u32 = 4;
/// Only one process uses the folder, so the connections share the index of the write-ahead log in memory
/// rather than in a file beside the database: on a full disk, that file could not be created, not even for
/// reading.
const VFS: &str = "unix-excl";
/// SQLite's result code for a file that it cannot open.
const CANTOPEN: i32 = 14;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

/// Opens connections to one database.
#[derive(Debug)]
pub(super) struct Opener {
    file: PathBuf,
    options: SqliteConnectOptions,
    model: Option<ModelId>,
}

/// The pool of reading connections.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pub(super) pool: SqlitePool,
    /// Whether they see only the present state of the file, because it could not be opened for writing.
    pub(super) frozen: bool,
    /// How to open another reading connection.
    pub(super) options: SqliteConnectOptions,
}

impl Opener {
    pub(super) fn new(file: PathBuf, model: Option<&ModelId>) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .vfs(VFS)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        Self { file, options, model: model.cloned() }
    }

    /// Opens a writing connection, after migrating the database and checking its model.
    pub(super) async fn writer(&self) -> Result<SqliteConnection, StoreError> {
        let mut writing = self.options.clone().create_if_missing(true);
        // Only a new file accepts this setting; an existing one gets it when it is rewritten. Repeating it
        // for a file that has it would be a write, which a full disk refuses.
        if !self.file.exists() {
            writing = writing.auto_vacuum(SqliteAutoVacuum::Incremental);
        }
        let mut writer =
            SqliteConnection::connect_with(&writing).await.map_err(|error| not_opened(&self.file, error))?;
        MIGRATOR.run_direct(None, &mut writer, false).await?;
        if let Some(model) = &self.model {
            claim_model(&mut writer, model).await?;
        }
        Ok(writer)
    }

    /// Opens readers beside a writer.
    pub(super) async fn readers(&self) -> Result<Readers, StoreError> {
        self.pool(self.options.clone().read_only(true), false).await
    }

    /// Opens readers without a writer; `refused` is the reason.
    pub(super) async fn readers_alone(&self, refused: StorageFull) -> Result<Readers, StoreError> {
        let readers = match self.readers().await {
            Ok(readers) => readers,
            // A log with content must not be ignored: it contains acknowledged changes.
            Err(_) if has_log(&self.file) => return Err(refused.into()),
            // Unlike the readers above, these need no locks, which would need the log.
            Err(_) => {
                let alone = SqliteConnectOptions::new().filename(&self.file).read_only(true).immutable(true);
                self.pool(alone, true).await?
            }
        };
        let version: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&readers.pool)
            .await
            .map_err(|_| refused)?;
        // An older schema cannot be migrated now.
        if version != MIGRATOR.iter().map(|migration| migration.version).max() {
            return Err(refused.into());
        }
        if let Some(model) = &self.model {
            let found: Option<String> = sqlx::query_scalar("SELECT model FROM library WHERE one = 1")
                .fetch_optional(&readers.pool)
                .await?;
            match found {
                Some(found) if *found == *model.0 => {}
                Some(found) => return Err(StoreError::OtherModel { found, wanted: model.to_string() }),
                None => return Err(refused.into()),
            }
        }
        Ok(readers)
    }

    async fn pool(&self, options: SqliteConnectOptions, frozen: bool) -> Result<Readers, StoreError> {
        let options = options.disable_statement_logging();
        let pool = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.clone()).await?;
        // SQLite looks at the file only on the first query.
        sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1").fetch_optional(&pool).await?;
        Ok(Readers { pool, frozen, options })
    }
}

fn has_log(file: &Path) -> bool {
    std::fs::metadata(file.with_extension("db-wal")).is_ok_and(|log| log.len() > 0)
}

/// SQLite gives no reason if it cannot open a file; there may be no inode for the log beside it.
pub(super) fn not_opened(file: &Path, error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(sqlite_code);
    let tried = code
        .filter(|code| code & 0xff == CANTOPEN)
        .map(|_| tempfile::NamedTempFile::new_in(file.parent().unwrap_or(file)));
    let full = tried.and_then(Result::err).and_then(|refused| StorageFull::of_io(&refused));
    full.map_or_else(|| error.into(), StoreError::StorageFull)
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
