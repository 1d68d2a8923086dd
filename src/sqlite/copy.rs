//! Reads a copy of a store without opening it as a store: takes no lock and writes nothing.

use std::collections::HashSet;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};

use super::rows::unsigned;
use crate::store::StoreError;
use crate::types::ModelId;

/// Contents of a copy.
#[derive(Debug, Clone)]
pub struct CopyFacts {
    /// Model of the vectors.
    pub model: ModelId,
    /// The sequence, which changes with every change of clips.
    pub sequence: i64,
    /// Number of assets.
    pub assets: u64,
    /// Number of clips.
    pub clips: u64,
    /// Duration of the media in seconds.
    pub media_secs: f64,
    /// Number of assets indexed by path.
    pub by_path: u64,
}

/// An asset of a copy.
#[derive(Debug, Clone)]
pub struct CopiedAsset {
    /// Number of its row, `assets.n`.
    pub n: i64,
    /// SHA-256 of the content in lower-case hex.
    pub sha256: String,
    /// Path of the bytes when the copy was made.
    pub path: String,
    /// Whether the file was an upload.
    pub owned: bool,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// A copy made by [`EmbeddedStore::copy_to`](crate::store::EmbeddedStore::copy_to).
#[derive(Debug)]
pub struct StoreCopy(SqliteConnection);

impl StoreCopy {
    /// Opens a copy for reading.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
        Ok(Self(options.connect().await?))
    }

    /// Opens a copy with the write-ahead log beside it.
    pub(crate) async fn open_with_log(path: &Path) -> Result<Self, StoreError> {
        Ok(Self(SqliteConnectOptions::new().filename(path).read_only(true).connect().await?))
    }

    /// The count of acknowledged changes; 0 if there is none.
    pub(crate) async fn acknowledged(&mut self) -> Result<i64, StoreError> {
        if !self.has("library", "acknowledged").await? {
            return Ok(0);
        }
        let counted = sqlx::query_scalar("SELECT acknowledged FROM library WHERE one = 1");
        Ok(counted.fetch_optional(&mut self.0).await?.unwrap_or(0))
    }

    /// Ids of its assets; none if it has no table of them.
    pub(crate) async fn asset_ids(&mut self) -> Result<HashSet<String>, StoreError> {
        if !self.has("assets", "id").await? {
            return Ok(HashSet::new());
        }
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM assets").fetch_all(&mut self.0).await?;
        Ok(ids.into_iter().collect())
    }

    async fn has(&mut self, table: &str, column: &str) -> Result<bool, StoreError> {
        let found = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?) WHERE name = ?)";
        Ok(sqlx::query_scalar(found).bind(table).bind(column).fetch_one(&mut self.0).await?)
    }

    /// Reads what the copy contains.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn facts(&mut self) -> Result<CopyFacts, StoreError> {
        let row = sqlx::query(
            "SELECT model, sequence, (SELECT COUNT(*) FROM clips) AS clips, (SELECT COUNT(*) FROM assets) AS assets,
                    (SELECT COUNT(*) FROM assets WHERE owned = 0) AS by_path,
                    (SELECT COALESCE(SUM(duration_secs), 0.0) FROM assets WHERE state IN ('ready', 'partial')) AS secs
             FROM library WHERE one = 1",
        )
        .fetch_one(&mut self.0)
        .await?;
        Ok(CopyFacts {
            model: ModelId(row.try_get::<&str, _>("model")?.into()),
            sequence: row.try_get("sequence")?,
            assets: unsigned(&row, "assets")?,
            clips: unsigned(&row, "clips")?,
            media_secs: row.try_get("secs")?,
            by_path: unsigned(&row, "by_path")?,
        })
    }

    /// Assets after row `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn assets(&mut self, after: i64, limit: u32) -> Result<Vec<CopiedAsset>, StoreError> {
        let rows = sqlx::query(
            "SELECT n, sha256, path, owned, size_bytes FROM assets WHERE n > ? ORDER BY n LIMIT ?",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&mut self.0)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(CopiedAsset {
                    n: row.try_get("n")?,
                    sha256: row.try_get("sha256")?,
                    path: row.try_get("path")?,
                    owned: row.try_get("owned")?,
                    size_bytes: unsigned(row, "size_bytes")?,
                })
            })
            .collect()
    }

    /// Closes the file.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.0.close().await?)
    }
}
