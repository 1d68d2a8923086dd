//! How the database is opened, for writing and for reading, also where the disk takes no more bytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use super::begin;
use crate::store::{StorageFull, StoreError};
use crate::types::ModelId;

/// Larger than SQLite's default: four vectors of 2 KB share a page instead of one, so the file is
/// 20 % smaller and scans nearly twice as fast (docs/measurements/index.md).
const PAGE_BYTES: u32 = 16_384;
/// Readers side by side; each is a thread of its own.
const READERS: u32 = 4;
/// One process has the folder, so the connections share the index of the log in memory instead of in a
/// file beside the database: that file could not be made on a full disk, not even for reading.
const VFS: &str = "unix-excl";
/// SQLite could not open a file.
const CANTOPEN: i32 = 14;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

/// Opens connections to one database.
#[derive(Debug)]
pub(super) struct Opener {
    file: PathBuf,
    options: SqliteConnectOptions,
    model: Option<ModelId>,
}

/// The connections that read.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pub(super) pool: SqlitePool,
    /// They see the file as it is now and no change of it: nothing could be opened for writing.
    pub(super) frozen: bool,
    /// How one more is opened.
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
            .busy_timeout(Duration::from_secs(10));
        Self { file, options, model: model.cloned() }
    }

    /// A connection that writes, to a database of this version and of this model.
    pub(super) async fn writer(&self) -> Result<SqliteConnection, StoreError> {
        let mut writing = self.options.clone().create_if_missing(true);
        // Only a new file takes it; an old one takes it when it is rewritten. To say it to a file that has it already
        // would be a write, which a full disk refuses.
        if !self.file.exists() {
            writing = writing.auto_vacuum(SqliteAutoVacuum::Incremental);
        }
        let mut writer = SqliteConnection::connect_with(&writing).await.map_err(not_opened)?;
        MIGRATOR.run_direct(None, &mut writer, false).await?;
        if let Some(model) = &self.model {
            claim_model(&mut writer, model).await?;
        }
        Ok(writer)
    }

    /// Connections that read beside a writer.
    pub(super) async fn readers(&self) -> Result<Readers, StoreError> {
        self.pool(self.options.clone().read_only(true), false).await
    }

    /// Connections that read where there is no writer: `refused` says why.
    pub(super) async fn readers_alone(&self, refused: StorageFull) -> Result<Readers, StoreError> {
        let readers = match self.readers().await {
            Ok(readers) => readers,
            // A log that holds something cannot be passed over: what it holds was acknowledged.
            Err(_) if has_log(&self.file) => return Err(refused.into()),
            // Not the kind above, whose locks need the log.
            Err(_) => {
                let alone = SqliteConnectOptions::new().filename(&self.file).read_only(true).immutable(true);
                self.pool(alone, true).await?
            }
        };
        let version: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&readers.pool)
            .await
            .map_err(|_| refused)?;
        // An older schema cannot be brought to this version now.
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
        // Nothing of the file is looked at before the first query.
        sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1").fetch_optional(&pool).await?;
        Ok(Readers { pool, frozen, options })
    }
}

fn has_log(file: &Path) -> bool {
    std::fs::metadata(file.with_extension("db-wal")).is_ok_and(|log| log.len() > 0)
}

/// A file that is there and cannot be opened for writing: no inode for the log beside it.
fn not_opened(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(super::sqlite_code);
    match code {
        Some(code) if code & 0xff == CANTOPEN => StorageFull::WriteFailed.into(),
        _ => error.into(),
    }
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
