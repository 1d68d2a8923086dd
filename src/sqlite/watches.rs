//! Watched folders and their files in SQLite.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};

use super::rows::{columns_of, signed, unsigned};
use super::{SqliteStore, begin, damaged, error_columns, now_unix_ms};
use crate::store::{StoreError, WatchRecord, WatchSpec, WatchStore, WatchedFile, WorkError};
use crate::types::{AssetId, JobId, WatchId};

const FILES_PER_INSERT: usize = 200;
/// Selects watches with the number of their existing files.
const SELECT: &str = "SELECT w.*, (SELECT COUNT(*) FROM watch_files AS f
    WHERE f.watch = w.n AND f.missing_looks = 0) AS files FROM watches AS w";

pub(super) fn record(row: &SqliteRow) -> Result<WatchRecord, StoreError> {
    let id: &str = row.try_get("id")?;
    let spec: &str = row.try_get("spec")?;
    let job: Option<&str> = row.try_get("job")?;
    Ok(WatchRecord {
        id: id.parse().map_err(|_| damaged("watch id", id))?,
        spec: serde_json::from_str::<WatchSpec>(spec).map_err(|_| damaged("watch", spec))?,
        files: unsigned(row, "files")?,
        job: job.map(|id| id.parse().map_err(|_| damaged("job id", id))).transpose()?,
        settled_unix_ms: row.try_get("settled_unix_ms")?,
        jobs_made: unsigned(row, "jobs_made")?,
        last_look_unix_ms: row.try_get("last_look_unix_ms")?,
        error: error_columns(row)?,
        created_unix_ms: row.try_get("created_unix_ms")?,
    })
}

pub(super) fn file(row: &SqliteRow) -> Result<WatchedFile, StoreError> {
    let asset: Option<&str> = row.try_get("asset")?;
    let taken_size: Option<i64> = row.try_get("taken_size_bytes")?;
    let taken_mtime: Option<i64> = row.try_get("taken_mtime_ns")?;
    Ok(WatchedFile {
        path: row.try_get("path")?,
        size_bytes: unsigned(row, "size_bytes")?,
        mtime_ns: row.try_get("mtime_ns")?,
        stable: row.try_get("stable")?,
        missing_looks: row.try_get("missing_looks")?,
        taken: taken_size.map(|size| u64::try_from(size).unwrap_or(0)).zip(taken_mtime),
        asset: asset.map(|id| id.parse().map_err(|_| damaged("asset id", id))).transpose()?,
    })
}

/// Row number of a watch.
async fn number(tx: &mut Transaction<'_, Sqlite>, id: WatchId) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT n FROM watches WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::NotFound("watch"))
}

#[async_trait]
impl WatchStore for SqliteStore {
    async fn create_watch(&self, spec: &WatchSpec) -> Result<WatchRecord, StoreError> {
        let id = WatchId::generate();
        let spec = serde_json::to_string(spec).map_err(|error| StoreError::Database(error.to_string()))?;
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        sqlx::query("INSERT INTO watches (id, spec, created_unix_ms) VALUES (?, ?, ?)")
            .bind(id.to_string())
            .bind(spec)
            .bind(now_unix_ms())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        drop(writer);
        self.watch(id).await
    }
    async fn watch(&self, id: WatchId) -> Result<WatchRecord, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE w.id = ?")))
            .bind(id.to_string())
            .fetch_optional(&self.readers())
            .await?
            .ok_or(StoreError::NotFound("watch"))?;
        record(&row)
    }
    async fn list_watches(&self) -> Result<Vec<WatchRecord>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY w.n DESC")))
            .fetch_all(&self.readers())
            .await?;
        Ok(self.readable("watches", &rows, record))
    }
    async fn delete_watch(&self, id: WatchId) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let n = number(&mut tx, id).await?;
        sqlx::query("DELETE FROM watches WHERE n = ?").bind(n).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
    async fn note_look(&self, id: WatchId, error: Option<&WorkError>) -> Result<(), StoreError> {
        let (code, message) = columns_of(error);
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        sqlx::query(
            "UPDATE watches SET last_look_unix_ms = ?2, error_code = ?3, error_message = ?4 WHERE id = ?1",
        )
        .bind(id.to_string())
        .bind(now_unix_ms())
        .bind(code)
        .bind(message)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
    async fn watch_files(
        &self,
        id: WatchId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<WatchedFile>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM watch_files WHERE watch = (SELECT n FROM watches WHERE id = ?) AND path > ?
             ORDER BY path LIMIT ?",
        )
        .bind(id.to_string())
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers())
        .await?;
        Ok(self.readable("watch_files", &rows, file))
    }
    async fn watch_files_named(&self, id: WatchId, paths: &[String]) -> Result<Vec<WatchedFile>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM watch_files WHERE watch = (SELECT n FROM watches WHERE id = ?)
                 AND path IN (SELECT value FROM json_each(?))",
        )
        .bind(id.to_string())
        .bind(serde_json::json!(paths).to_string())
        .fetch_all(&self.readers())
        .await?;
        Ok(self.readable("watch_files", &rows, file))
    }
    async fn watch_files_gone(
        &self,
        id: WatchId,
        looks: u32,
        limit: u32,
    ) -> Result<Vec<WatchedFile>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM watch_files WHERE watch = (SELECT n FROM watches WHERE id = ?) AND missing_looks >= ?
             ORDER BY path LIMIT ?",
        )
        .bind(id.to_string())
        .bind(looks)
        .bind(limit)
        .fetch_all(&self.readers())
        .await?;
        Ok(self.readable("watch_files", &rows, file))
    }
    async fn watch_files_ready(&self, id: WatchId, limit: u32) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT path FROM watch_files WHERE watch = (SELECT n FROM watches WHERE id = ?)
                 AND stable AND missing_looks = 0
                 AND (taken_size_bytes IS NOT size_bytes OR taken_mtime_ns IS NOT mtime_ns
                      -- Changed without another size or time.
                      OR asset IN (SELECT id FROM assets WHERE damage = 'changed' AND owned = 0))
             ORDER BY path LIMIT ?",
        )
        .bind(id.to_string())
        .bind(limit)
        .fetch_all(&self.readers())
        .await?)
    }
    async fn put_watch_files(&self, id: WatchId, files: &[WatchedFile]) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let n = number(&mut tx, id).await?;
        for part in files.chunks(FILES_PER_INSERT) {
            let mut insert = QueryBuilder::new(
                "INSERT OR REPLACE INTO watch_files (watch, path, size_bytes, mtime_ns, stable, missing_looks,
                     taken_size_bytes, taken_mtime_ns, asset) ",
            );
            insert.push_values(part, |mut values, file| {
                values
                    .push_bind(n)
                    .push_bind(&file.path)
                    .push_bind(signed(file.size_bytes))
                    .push_bind(file.mtime_ns)
                    .push_bind(file.stable)
                    .push_bind(file.missing_looks)
                    .push_bind(file.taken.map(|(size, _)| signed(size)))
                    .push_bind(file.taken.map(|(_, mtime)| mtime))
                    .push_bind(file.asset.map(|asset| asset.to_string()));
            });
            insert.build().execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
    async fn drop_watch_file(&self, id: WatchId, path: &str) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let n = number(&mut tx, id).await?;
        sqlx::query("DELETE FROM watch_files WHERE watch = ? AND path = ?")
            .bind(n)
            .bind(path)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
    async fn begin_watch_job(&self, id: WatchId, job: JobId) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let n = number(&mut tx, id).await?;
        sqlx::query(
            "UPDATE watches SET job = ?2, jobs_made = jobs_made + 1, settled_unix_ms = 0 WHERE n = ?1",
        )
        .bind(n)
        .bind(job.to_string())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE watch_files SET taken_size_bytes = size_bytes, taken_mtime_ns = mtime_ns WHERE watch = ?1
                 AND path IN (SELECT path FROM job_items WHERE job = (SELECT n FROM jobs WHERE id = ?2))",
        )
        .bind(n)
        .bind(job.to_string())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
    async fn settle_watch(&self, id: WatchId, ended_unix_ms: i64) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        sqlx::query("UPDATE watches SET settled_unix_ms = ? WHERE id = ?")
            .bind(ended_unix_ms)
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
    async fn asset_has_other_file(
        &self,
        asset: AssetId,
        id: WatchId,
        path: &str,
    ) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM watch_files WHERE asset = ?1
                 AND NOT (path = ?3 AND watch = (SELECT n FROM watches WHERE id = ?2)))",
        )
        .bind(asset.to_string())
        .bind(id.to_string())
        .bind(path)
        .fetch_one(&self.readers())
        .await?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{JobKind, JobStore, NewItem};
    use crate::types::{ModelId, TrackChoice};

    fn spec() -> WatchSpec {
        WatchSpec {
            path: "/in".into(),
            recursive: true,
            include: Vec::new(),
            exclude: vec!["*.tmp".into()],
            metadata: json!({"a": 1}),
            poll_secs: 5,
            delete_missing: false,
            choice: TrackChoice { video: None, audio: Some(3) },
        }
    }

    fn seen(path: &str, stable: bool) -> WatchedFile {
        let path = path.to_owned();
        WatchedFile { path, size_bytes: 5, mtime_ns: 7, stable, missing_looks: 0, taken: None, asset: None }
    }

    #[tokio::test]
    async fn a_watch_and_its_files_are_kept() {
        let dir = TempDir::new().unwrap();
        let store = SqliteStore::open(dir.path(), &ModelId("m".into())).await.unwrap();
        let watch = store.create_watch(&spec()).await.unwrap();
        let other = store.create_watch(&spec()).await.unwrap();
        assert_eq!((watch.spec, watch.files, watch.job), (spec(), 0, None));
        store
            .put_watch_files(watch.id, &[seen("/in/b", true), seen("/in/a", true), seen("/in/c", false)])
            .await
            .unwrap();
        let gone = WatchedFile { missing_looks: 3, asset: Some(AssetId::generate()), ..seen("/in/d", true) };
        store.put_watch_files(watch.id, std::slice::from_ref(&gone)).await.unwrap();
        assert_eq!(
            store.watch_files(watch.id, "/in/a", 2).await.unwrap(),
            [seen("/in/b", true), seen("/in/c", false)]
        );
        assert_eq!(store.watch_files_ready(watch.id, 9).await.unwrap(), ["/in/a", "/in/b"]);
        assert_eq!(store.watch_files_gone(watch.id, 3, 9).await.unwrap(), std::slice::from_ref(&gone));
        assert_eq!(store.watch(watch.id).await.unwrap().files, 3);

        let items = ["/in/a"].map(|path| NewItem::new(path.into(), json!({})));
        let job = store.create_job(JobKind::Index, &json!({}), &items, None).await.unwrap().id;
        store.begin_watch_job(watch.id, job).await.unwrap();
        assert_eq!(store.watch_files_ready(watch.id, 9).await.unwrap(), ["/in/b"]);
        let now = store.watch(watch.id).await.unwrap();
        assert_eq!((now.job, now.jobs_made), (Some(job), 1));
        store.settle_watch(watch.id, 77).await.unwrap();
        store.note_look(watch.id, Some(&WorkError::new("io", "x"))).await.unwrap();
        let now = store.watch(watch.id).await.unwrap();
        assert_eq!((now.settled_unix_ms, now.error.unwrap().code), (77, "io".into()));

        let asset = gone.asset.unwrap();
        assert!(!store.asset_has_other_file(asset, watch.id, "/in/d").await.unwrap());
        assert!(store.asset_has_other_file(asset, other.id, "/in/d").await.unwrap());
        store.drop_watch_file(watch.id, "/in/d").await.unwrap();
        assert!(!store.asset_has_other_file(asset, other.id, "/in/d").await.unwrap());
        let named = ["/in/a".to_owned(), "/in/x".to_owned()];
        assert_eq!(store.watch_files_named(watch.id, &named).await.unwrap()[0].taken, Some((5, 7)));

        store.delete_watch(watch.id).await.unwrap();
        assert!(matches!(store.delete_watch(watch.id).await, Err(StoreError::NotFound("watch"))));
        assert!(store.watch_files(watch.id, "", 9).await.unwrap().is_empty());
        assert_eq!(store.list_watches().await.unwrap().len(), 1);
    }
}
