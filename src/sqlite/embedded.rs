//! Operations on the database file: copies, free space, its integrity check, and the hand-over to another
//! one.

use std::path::Path;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sqlx::{ConnectOptions, Connection};

use super::connect::not_opened;
use super::{SqliteStore, hand_over};
use crate::store::{EmbeddedStore, StoreError, StoreSpace};

/// Maximum number of lines read from SQLite's own check.
const MOST_PROBLEMS: u32 = 100;
/// Length of `ab/<64 hex digits>-<8 hex digits>`, the end of every upload's path.
const KEPT_NAME_CHARS: i64 = 2 + 1 + 64 + 1 + 8;

#[async_trait]
impl EmbeddedStore for SqliteStore {
    async fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        // The system gives a reason if it cannot create a file; SQLite does not. SQLite accepts an empty
        // file.
        tokio::fs::File::create_new(to).await.map_err(|error| StoreError::of_io(to, &error))?;
        let name = to
            .to_str()
            .ok_or_else(|| StoreError::Database(format!("{}: expected a path in UTF-8", to.display())))?;
        // Use a separate connection: the copy takes long, and searches share the others.
        let mut connection = self.reader_options().connect().await?;
        let copied = sqlx::query("VACUUM INTO ?").bind(name).execute(&mut connection).await;
        connection.close().await?;
        copied.map_err(|error| not_opened(to, error))?;
        Ok(())
    }
    async fn integrity(&self) -> Result<Vec<String>, StoreError> {
        // Use a separate connection: the check takes long, and searches share the others.
        let mut connection = self.reader_options().connect().await?;
        let statement = sqlx::AssertSqlSafe(format!("PRAGMA integrity_check({MOST_PROBLEMS})"));
        let found = sqlx::query_scalar(statement).fetch_all(&mut connection).await;
        let astray: Result<Vec<String>, _> = sqlx::query_scalar(
            "SELECT \"table\" || ' ' || COALESCE(\"rowid\", '?') || ' belongs to a row of ' || \"parent\" || ' that is not there'
             FROM pragma_foreign_key_check LIMIT 100",
        )
        .fetch_all(&mut connection)
        .await;
        connection.close().await?;
        let mut problems: Vec<String> = match found {
            Ok(lines) => lines,
            // The damage is so severe that the check itself fails.
            Err(error) => vec![error.to_string()],
        };
        problems.retain(|line| line != "ok");
        problems.extend(astray.unwrap_or_default());
        Ok(problems)
    }
    async fn space(&self) -> Result<StoreSpace, StoreError> {
        let mut reader = self.readers().acquire().await?;
        let mut pragma = async |name: &'static str| -> Result<u64, StoreError> {
            let value: i64 = sqlx::query_scalar(name).fetch_one(&mut *reader).await?;
            Ok(u64::try_from(value).unwrap_or(0))
        };
        let free_bytes = pragma("PRAGMA freelist_count").await? * pragma("PRAGMA page_size").await?;
        let releases = pragma("PRAGMA auto_vacuum").await? == 2;
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let log = self.file.with_extension("db-wal");
        Ok(StoreSpace { file_bytes: bytes(&self.file) + bytes(&log), free_bytes, releases })
    }
    async fn release_pages(&self, pages: u32) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        // A pragma accepts no parameters.
        let statement = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({pages})"));
        sqlx::query(statement).execute(&mut *writer).await?;
        Ok(())
    }
    async fn rewrite(&self) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        // From then on, pages can be freed step by step.
        sqlx::query("PRAGMA auto_vacuum = 2").execute(&mut *writer).await?;
        sqlx::query("VACUUM").execute(&mut *writer).await?;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *writer).await?;
        Ok(())
    }
    async fn checkpoint(&self) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *writer).await?;
        Ok(())
    }
    async fn adopt_uploads(&self, kept: &Path) -> Result<u64, StoreError> {
        let kept = kept
            .to_str()
            .ok_or_else(|| StoreError::Database(format!("{}: expected a path in UTF-8", kept.display())))?;
        let mut writer = self.writer().await?;
        let moved = sqlx::query(
            "UPDATE assets SET path = ?1 || '/' || substr(path, -?2)
             WHERE owned = 1 AND path <> ?1 || '/' || substr(path, -?2)",
        )
        .bind(kept)
        .bind(KEPT_NAME_CHARS)
        .execute(&mut *writer)
        .await?;
        Ok(moved.rows_affected())
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
}
