//! Copies user settings (jobs and the like) from one model's store to another's.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Sqlite, Transaction};

use super::{DATABASE, SqliteStore, StoreError, begin};

/// Tables derived from media, or about the store itself. All others hold user settings.
const DERIVED: [&str; 6] = ["library", "spaces", "assets", "clips", "vectors", "_sqlx_migrations"];

/// Tables of user settings, including those added by migrations.
async fn tables(connection: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )
    .fetch_all(connection)
    .await?;
    Ok(names.into_iter().filter(|name| !DERIVED.contains(&name.as_str())).collect())
}

pub async fn clear(store: &SqliteStore) -> Result<(), StoreError> {
    let mut writer = store.writer().await?;
    replace(&mut writer, false).await
}

pub async fn adopt(store: &SqliteStore, from: &Path) -> Result<(), StoreError> {
    let mut writer = store.writer().await?;
    let path = from.join(DATABASE);
    let path = path
        .to_str()
        .ok_or_else(|| StoreError::Database("the path of the data folder must be UTF-8".into()))?;
    // Not inside a transaction, in which SQLite cannot attach.
    sqlx::query("ATTACH DATABASE ? AS before").bind(path).execute(&mut *writer).await?;
    let copied = replace(&mut writer, true).await;
    let detached = sqlx::query("DETACH DATABASE before").execute(&mut *writer).await;
    copied?;
    detached?;
    Ok(())
}

/// Deletes the rows of user settings and, with `copy`, copies those of `before`.
async fn replace(writer: &mut SqliteConnection, copy: bool) -> Result<(), StoreError> {
    // Rows may be copied before the rows that they refer to, which even deferred checks do not accept; and
    // inside a transaction, checks cannot be turned off.
    sqlx::query("PRAGMA foreign_keys = OFF").execute(&mut *writer).await?;
    let replaced = replace_unchecked(writer, copy).await;
    sqlx::query("PRAGMA foreign_keys = ON").execute(&mut *writer).await?;
    replaced
}

async fn replace_unchecked(writer: &mut SqliteConnection, copy: bool) -> Result<(), StoreError> {
    let tables = tables(writer).await?;
    let mut tx = begin(writer).await?;
    for table in &tables {
        sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM main.\"{table}\""))).execute(&mut *tx).await?;
        if copy {
            let copy = format!("INSERT INTO main.\"{table}\" SELECT * FROM before.\"{table}\"");
            sqlx::query(sqlx::AssertSqlSafe(copy)).execute(&mut *tx).await?;
        }
    }
    drop_astray(&mut tx).await?;
    if copy {
        // Whatever the other store has acknowledged, this one has now too.
        sqlx::query(
            "UPDATE main.library SET acknowledged = MAX(acknowledged, (SELECT acknowledged FROM before.library))",
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(tx.commit().await?)
}

/// Deletes rows that refer to something missing here, such as an asset that this model could not accept under
/// the same id.
async fn drop_astray(tx: &mut Transaction<'_, Sqlite>) -> Result<(), StoreError> {
    loop {
        let astray: Vec<(String, Option<i64>)> =
            sqlx::query_as("SELECT \"table\", \"rowid\" FROM pragma_foreign_key_check")
                .fetch_all(&mut **tx)
                .await?;
        if astray.is_empty() {
            return Ok(());
        }
        for (table, row) in astray {
            let row = row.ok_or_else(|| StoreError::Database(format!("rows of {table} would be lost")))?;
            let drop = format!("DELETE FROM main.\"{table}\" WHERE rowid = ?");
            sqlx::query(sqlx::AssertSqlSafe(drop)).bind(row).execute(&mut **tx).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{EmbeddedStore, JobKind, JobStore, NewItem, Store};
    use crate::types::ModelId;

    #[tokio::test]
    async fn work_goes_over_whole_and_the_sealed_store_takes_no_more() {
        let (old_dir, new_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let model = |name: &str| ModelId(Arc::from(name));
        let old = SqliteStore::open(old_dir.path(), &model("old")).await.unwrap();
        let new = SqliteStore::open(new_dir.path(), &model("new")).await.unwrap();
        let items: Vec<_> = (0..3).map(|n| NewItem::new(format!("/{n}"), serde_json::json!({}))).collect();
        let request = serde_json::json!({});
        let stale = new.create_job(JobKind::Index, &request, &items[..1], Some("key")).await.unwrap();
        let job = old.create_job(JobKind::Index, &request, &items, Some("key")).await.unwrap();
        old.claim_item().await.unwrap().unwrap();

        old.seal(true).await;
        assert_eq!(old.claim_item().await.unwrap_err().code(), "switching_models");
        assert_eq!(old.job(job.id).await.unwrap().items_total, 3);
        let promised = old.acknowledged().await.unwrap();
        new.adopt_work(old_dir.path()).await.unwrap();
        assert!(promised > 0 && new.acknowledged().await.unwrap() >= promised);
        assert_eq!(
            new.list_jobs(None, None, 10).await.unwrap().iter().map(|job| job.id).collect::<Vec<_>>(),
            [job.id]
        );
        assert_eq!(new.job(stale.id).await.unwrap_err().code(), "not_found");
        assert_eq!(new.requeue_running().await.unwrap(), 1);
        // The key is known, numbers continue, and deleting parents still deletes their children.
        assert_eq!(new.create_job(JobKind::Index, &request, &items, Some("key")).await.unwrap().id, job.id);
        let next = new.create_job(JobKind::Index, &request, &items, None).await.unwrap();
        assert_ne!(next.id, job.id);
        new.clear_work().await.unwrap();
        assert!(new.list_jobs(None, None, 10).await.unwrap().is_empty());
        assert!(new.claim_item().await.unwrap().is_none());
        old.seal(false).await;
        assert!(old.claim_item().await.unwrap().is_some());
    }
}
