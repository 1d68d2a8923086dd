//! Standing queries and their matches in SQLite.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use super::page::List;
use super::rows::unsigned;
use super::{SqliteStore, begin, damaged, error_columns, from_json, now_unix_ms, to_json, webhooks};
use crate::store::{
    MatchRecord, NewMatch, NewStanding, PendingAsset, PendingEnd, Settled, StandingChange, StandingRecord,
    StandingStore, StandingVectors, StoreError,
};
use crate::types::{AssetId, MatchId, ModelId, Space, StandingId};

/// SELECT for a standing query with all its small columns, plus those named.
macro_rules! select {
    ($besides:literal, $rest:literal) => {
        concat!(
            "SELECT q.id, q.name, q.spec, q.enabled, q.error_code, q.error_message, q.created_unix_ms,
                 q.updated_unix_ms, (SELECT url FROM webhooks WHERE owner = q.id) AS webhook_url,
                 (SELECT COUNT(*) FROM standing_matches WHERE query = q.n) AS matches",
            $besides,
            " FROM standing_queries AS q ",
            $rest
        )
    };
}

fn record(row: &SqliteRow) -> Result<StandingRecord, StoreError> {
    let id: &str = row.try_get("id")?;
    Ok(StandingRecord {
        id: id.parse().map_err(|_| damaged("standing query id", id))?,
        name: row.try_get("name")?,
        spec: from_json(row.try_get("spec")?)?,
        enabled: row.try_get("enabled")?,
        error: error_columns(row)?,
        webhook_url: row.try_get("webhook_url")?,
        matches: unsigned(row, "matches")?,
        created_unix_ms: row.try_get("created_unix_ms")?,
        updated_unix_ms: row.try_get("updated_unix_ms")?,
    })
}

pub(super) fn with_vectors(row: &SqliteRow) -> Result<StandingVectors, StoreError> {
    let (model, crc): (&str, i64) = (row.try_get("model")?, row.try_get("crc")?);
    let vectors: &[u8] = row.try_get("vectors")?;
    let whole = checksum(vectors) == crc;
    let vectors = whole.then(|| vectors.to_vec());
    Ok(StandingVectors { record: record(row)?, model: ModelId(model.into()), vectors })
}

pub(super) fn match_record(row: &SqliteRow) -> Result<MatchRecord, StoreError> {
    let (id, asset): (&str, &str) = (row.try_get("id")?, row.try_get("asset")?);
    let moments: &str = row.try_get("moments")?;
    Ok(MatchRecord {
        id: id.parse().map_err(|_| damaged("match id", id))?,
        asset: asset.parse().map_err(|_| damaged("asset id", asset))?,
        asset_name: row.try_get("asset_name")?,
        space: Space::new(row.try_get("space")?),
        moments: serde_json::from_str(moments).map_err(|_| damaged("match", moments))?,
        matched_unix_ms: row.try_get("matched_unix_ms")?,
    })
}

fn checksum(vectors: &[u8]) -> i64 {
    i64::from(crc32fast::hash(vectors))
}

/// The transaction that makes an asset searchable must call this: then standing queries are matched against
/// it even if the process ends right after.
pub(super) async fn note_searchable(
    tx: &mut Transaction<'_, Sqlite>,
    asset: AssetId,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO standing_pending (asset)
         SELECT ? WHERE EXISTS (SELECT 1 FROM standing_queries WHERE enabled = 1)",
    )
    .bind(asset.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn in_tx(tx: &mut Transaction<'_, Sqlite>, id: StandingId) -> Result<StandingRecord, StoreError> {
    let row = sqlx::query(select!("", "WHERE q.id = ?"))
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::NotFound("standing query"))?;
    record(&row)
}

/// Lists every searchable asset as pending for this query.
async fn backfill(tx: &mut Transaction<'_, Sqlite>, id: StandingId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO standing_pending (asset, query)
         SELECT a.id, q.n FROM assets AS a JOIN standing_queries AS q ON q.id = ?
         WHERE a.state IN ('ready', 'partial') ORDER BY a.n",
    )
    .bind(id.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Stores a match and queues its delivery; false if it is known, or its query is disabled or gone.
async fn add_match(
    tx: &mut Transaction<'_, Sqlite>,
    asset: &str,
    found: &NewMatch,
) -> Result<bool, StoreError> {
    let query = found.query.to_string();
    let moments =
        serde_json::to_string(&found.moments).map_err(|error| StoreError::Database(error.to_string()))?;
    let added = sqlx::query(
        "INSERT INTO standing_matches (id, query, asset, space, moments, matched_unix_ms)
         SELECT ?1, q.n, a.id, ?4, ?5, ?6 FROM standing_queries AS q JOIN assets AS a ON a.id = ?3
         WHERE q.id = ?2 AND q.enabled = 1
         ON CONFLICT (query, asset) DO NOTHING",
    )
    .bind(found.id.to_string())
    .bind(&query)
    .bind(asset)
    .bind(found.space.as_str())
    .bind(moments)
    .bind(now_unix_ms())
    .execute(&mut **tx)
    .await?;
    if added.rows_affected() == 0 {
        return Ok(false);
    }
    webhooks::tell(tx, &query, "query.matched", &found.body).await?;
    Ok(true)
}

#[async_trait]
impl StandingStore for SqliteStore {
    async fn create_standing(&self, new: &NewStanding) -> Result<StandingRecord, StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let now = now_unix_ms();
        sqlx::query(
            "INSERT INTO standing_queries (id, name, spec, enabled, created_unix_ms, updated_unix_ms, model, crc,
                 vectors, source) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9)",
        )
        .bind(new.id.to_string())
        .bind(&new.name)
        .bind(to_json(&new.spec))
        .bind(new.enabled)
        .bind(now)
        .bind(&*new.model.0)
        .bind(checksum(&new.vectors))
        .bind(&new.vectors)
        .bind(&new.source)
        .execute(&mut *tx)
        .await?;
        if let Some(webhook) = &new.webhook {
            webhooks::add(&mut tx, &new.id.to_string(), webhook).await?;
        }
        if new.backfill {
            backfill(&mut tx, new.id).await?;
        }
        let record = in_tx(&mut tx, new.id).await?;
        tx.commit().await?;
        Ok(record)
    }

    async fn standing(&self, id: StandingId) -> Result<StandingRecord, StoreError> {
        let row = sqlx::query(select!("", "WHERE q.id = ?"))
            .bind(id.to_string())
            .fetch_optional(&self.readers())
            .await?
            .ok_or(StoreError::NotFound("standing query"))?;
        record(&row)
    }

    async fn list_standing(
        &self,
        after: Option<StandingId>,
        limit: u32,
    ) -> Result<Vec<StandingRecord>, StoreError> {
        let readers = self.readers();
        let list = List { table: "standing_queries", cursor: "id", read: record };
        self.page(list, before(after), limit, |after: String, limit| {
            sqlx::query(select!("", "WHERE q.id < ? ORDER BY q.id DESC LIMIT ?"))
                .bind(after)
                .bind(limit)
                .fetch_all(&readers)
        })
        .await
    }

    async fn standing_vectors(
        &self,
        after: Option<StandingId>,
        limit: u32,
    ) -> Result<Vec<StandingVectors>, StoreError> {
        let sql = select!(", q.model, q.crc, q.vectors", "WHERE q.id < ? ORDER BY q.id DESC LIMIT ?");
        let rows = sqlx::query(sql).bind(before(after)).bind(limit).fetch_all(&self.readers()).await?;
        Ok(self.readable("standing_queries", &rows, with_vectors))
    }

    async fn standing_source(&self, id: StandingId) -> Result<String, StoreError> {
        sqlx::query_scalar("SELECT source FROM standing_queries WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers())
            .await?
            .ok_or(StoreError::NotFound("standing query"))
    }

    async fn set_standing_vectors(
        &self,
        id: StandingId,
        model: &ModelId,
        vectors: &[u8],
    ) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query(
            "UPDATE standing_queries SET model = ?2, crc = ?3, vectors = ?4, error_code = NULL, error_message = NULL
             WHERE id = ?1",
        )
        .bind(id.to_string())
        .bind(&*model.0)
        .bind(checksum(vectors))
        .bind(vectors)
        .execute(&mut *writer)
        .await?;
        Ok(())
    }

    async fn set_standing_error(&self, id: StandingId, code: &str, message: &str) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query("UPDATE standing_queries SET error_code = ?2, error_message = ?3 WHERE id = ?1")
            .bind(id.to_string())
            .bind(code)
            .bind(message)
            .execute(&mut *writer)
            .await?;
        Ok(())
    }

    async fn update_standing(
        &self,
        id: StandingId,
        change: &StandingChange,
    ) -> Result<StandingRecord, StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        sqlx::query(
            "UPDATE standing_queries SET name = COALESCE(?2, name), spec = COALESCE(?3, spec),
                 enabled = COALESCE(?4, enabled), updated_unix_ms = ?5 WHERE id = ?1",
        )
        .bind(id.to_string())
        .bind(&change.name)
        .bind(change.spec.as_ref().map(to_json))
        .bind(change.enabled)
        .bind(now_unix_ms())
        .execute(&mut *tx)
        .await?;
        let record = in_tx(&mut tx, id).await?;
        if change.backfill {
            backfill(&mut tx, id).await?;
        }
        tx.commit().await?;
        Ok(record)
    }

    async fn delete_standing(&self, id: StandingId) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let gone = sqlx::query("DELETE FROM standing_queries WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        if gone.rows_affected() == 0 {
            return Err(StoreError::NotFound("standing query"));
        }
        webhooks::remove(&mut tx, &id.to_string()).await?;
        Ok(tx.commit().await?)
    }

    async fn standing_matches(
        &self,
        id: StandingId,
        after: Option<MatchId>,
        limit: u32,
    ) -> Result<Vec<MatchRecord>, StoreError> {
        let query: i64 = sqlx::query_scalar("SELECT n FROM standing_queries WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers())
            .await?
            .ok_or(StoreError::NotFound("standing query"))?;
        // A match deleted with its asset still has a position in the order.
        let after = after.map_or_else(|| "n".to_owned(), |id| id.to_string());
        let readers = self.readers();
        let list = List { table: "standing_matches", cursor: "id", read: match_record };
        self.page(list, after, limit, |after: String, limit| {
            sqlx::query(
                "SELECT m.id, m.asset, a.name AS asset_name, m.space, m.moments, m.matched_unix_ms
                 FROM standing_matches AS m JOIN assets AS a ON a.id = m.asset
                 WHERE m.query = ?1 AND m.id < ?2 ORDER BY m.id DESC LIMIT ?3",
            )
            .bind(query)
            .bind(after)
            .bind(limit)
            .fetch_all(&readers)
        })
        .await
    }

    async fn pending_assets(&self, limit: u32) -> Result<Vec<PendingAsset>, StoreError> {
        let rows = sqlx::query(
            "SELECT p.n, p.asset, q.id AS query FROM standing_pending AS p
             LEFT JOIN standing_queries AS q ON q.n = p.query WHERE p.waits = 0 ORDER BY p.n LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.readers())
        .await?;
        let pending = |row: &SqliteRow| {
            let (asset, query): (&str, Option<&str>) = (row.try_get("asset")?, row.try_get("query")?);
            Ok(PendingAsset {
                ticket: row.try_get("n")?,
                asset: asset.parse().map_err(|_| damaged("asset id", asset))?,
                query: query
                    .map(|id| id.parse().map_err(|_| damaged("standing query id", id)))
                    .transpose()?,
            })
        };
        Ok(self.readable("standing_pending", &rows, pending))
    }

    async fn settle(&self, settled: &[Settled]) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let mut added = 0;
        for one in settled {
            let asset = one.asset.to_string();
            for found in &one.matches {
                added += u64::from(add_match(&mut tx, &asset, found).await?);
            }
            let change = match one.end {
                PendingEnd::Done => "DELETE FROM standing_pending WHERE n = ?",
                PendingEnd::Waits => "UPDATE standing_pending SET waits = 1 WHERE n = ?",
                PendingEnd::Stays => continue,
            };
            sqlx::query(change).bind(one.ticket).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(added)
    }

    async fn wake_pending(&self) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        let woken = sqlx::query("UPDATE standing_pending SET waits = 0 WHERE waits = 1")
            .execute(&mut *writer)
            .await?;
        Ok(woken.rows_affected())
    }
}

/// Ids are time-ordered, so a page can continue after a deleted one; `t` sorts after every id.
fn before(after: Option<StandingId>) -> String {
    after.map_or_else(|| "t".to_owned(), |id| id.to_string())
}
