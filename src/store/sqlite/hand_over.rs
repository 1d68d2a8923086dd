//! What people set up (jobs and the like) from one model's store to another's.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;

use super::{DATABASE, SqliteStore, StoreError, begin};

/// What a model made of media, and what a store knows of itself. All else is people's.
const DERIVED: [&str; 6] = ["library", "spaces", "assets", "clips", "vectors", "_sqlx_migrations"];

/// Tables of people's, whatever migrations have added.
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
    let path =
        path.to_str().ok_or_else(|| StoreError::Database("the data folder's path is no text".into()))?;
    // Not inside a transaction: SQLite attaches nothing there.
    sqlx::query("ATTACH DATABASE ? AS before").bind(path).execute(&mut *writer).await?;
    let copied = replace(&mut writer, true).await;
    let detached = sqlx::query("DETACH DATABASE before").execute(&mut *writer).await;
    copied?;
    detached?;
    Ok(())
}

/// Drops people's tables' rows, and copies those of `before`.
async fn replace(writer: &mut SqliteConnection, copy: bool) -> Result<(), StoreError> {
    // A deferred check does not see parents that come after their children; and inside a transaction
    // checks cannot be turned off.
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
    let astray = sqlx::query("PRAGMA main.foreign_key_check").fetch_optional(&mut *tx).await?;
    if astray.is_some() {
        return Err(StoreError::Database("rows would lose what they belong to".into()));
    }
    Ok(tx.commit().await?)
}
