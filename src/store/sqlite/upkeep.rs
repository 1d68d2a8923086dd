//! Copies, bulk deletion and freeing space in SQLite.

use std::path::Path;

use async_trait::async_trait;
use sqlx::{ConnectOptions, Connection, Row};

use super::connect::not_opened;
use super::{SqliteStore, assets, begin, retention};
use crate::store::{DeletedAsset, RetentionRule, RetentionRun, StoreError, StoreSpace, Upkeep};
use crate::types::AssetId;

/// Length of `ab/<64 hex digits>-<8 hex digits>`, the end of every upload's path.
const KEPT_NAME_CHARS: i64 = 2 + 1 + 64 + 1 + 8;

#[async_trait]
impl Upkeep for SqliteStore {
    async fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        // The system says why there can be no new file; SQLite does not. It takes an empty one.
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

    async fn delete_assets(&self, ids: &[AssetId]) -> Result<Vec<DeletedAsset>, StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let mut gone = Vec::with_capacity(ids.len());
        for id in ids {
            let name = id.to_string();
            let found = sqlx::query("SELECT path, owned FROM assets WHERE id = ?")
                .bind(&name)
                .fetch_optional(&mut *tx)
                .await?;
            let Some(row) = found else { continue };
            let owned: bool = row.try_get("owned")?;
            let owned_path = if owned { Some(row.try_get("path")?) } else { None };
            let clips = assets::drop_clips(&mut tx, &name).await?;
            sqlx::query("DELETE FROM assets WHERE id = ?").bind(&name).execute(&mut *tx).await?;
            gone.push(DeletedAsset { id: *id, clips, owned_path });
        }
        tx.commit().await?;
        Ok(gone)
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

    async fn try_write(&self) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query("UPDATE library SET tries = tries + 1 WHERE one = 1").execute(&mut *writer).await?;
        Ok(())
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *writer).await?;
        Ok(())
    }

    async fn retention_rules(&self) -> Result<Vec<RetentionRule>, StoreError> {
        retention::rules(self).await
    }
    async fn set_retention_rules(&self, rules: &[RetentionRule]) -> Result<(), StoreError> {
        retention::set_rules(self, rules).await
    }
    async fn begin_retention_run(&self) -> Result<RetentionRun, StoreError> {
        retention::begin_run(self).await
    }
    async fn note_retention_run(&self, run: &RetentionRun) -> Result<(), StoreError> {
        retention::note_run(self, run).await
    }
    async fn retention_runs(&self, limit: u32) -> Result<Vec<RetentionRun>, StoreError> {
        retention::runs(self, limit).await
    }
}
