//! Assets in SQLite.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use super::lanes;
use super::page::List;
use super::rows::{choice, columns_of, signed, unsigned};
use super::{
    SqliteStore, begin, blob, bump_sequence, damaged, error_columns, from_json, id_list, now_unix_ms,
    standing, to_json,
};
use crate::store::{
    AssetOutcome, AssetRecord, AssetState, AssetStore, Damage, DeletedAsset, NewAsset, StoreError, Totals,
    changed_ns, mtime_ns,
};
use crate::types::{AssetId, ClipId};

pub(super) fn record(row: &SqliteRow) -> Result<AssetRecord, StoreError> {
    let id: &str = row.try_get("id")?;
    let state: &str = row.try_get("state")?;
    let kind: Option<&str> = row.try_get("kind")?;
    let metadata = row.try_get("metadata").ok().and_then(|text| from_json(text).ok());
    let damage: Option<&str> = row.try_get("damage")?;
    let damage = damage.and_then(Damage::from_name);
    let metadata_damage = metadata.is_none().then_some(Damage::Metadata);
    check_outcome(row, kind)?;
    Ok(AssetRecord {
        id: id.parse().map_err(|_| damaged("asset id", id))?,
        sha256: row.try_get("sha256")?,
        name: row.try_get("name")?,
        path: row.try_get("path")?,
        owned: row.try_get("owned")?,
        size_bytes: unsigned(row, "size_bytes")?,
        kind: kind.map(|k| k.parse().map_err(|_| damaged("asset kind", k))).transpose()?,
        duration_secs: row.try_get("duration_secs")?,
        width: row.try_get("width")?,
        height: row.try_get("height")?,
        state: AssetState::from_name(state).ok_or_else(|| damaged("asset state", state))?,
        error: error_columns(row)?,
        metadata: metadata.unwrap_or_else(|| serde_json::json!({})),
        clips: unsigned(row, "clips")?,
        created_unix_ms: row.try_get("created_unix_ms")?,
        updated_unix_ms: row.try_get("updated_unix_ms")?,
        file_mtime_ns: row.try_get("file_mtime_ns")?,
        damage: damage.or(metadata_damage),
        choice: choice(row)?,
        tracks: row
            .try_get::<Option<&str>, _>("tracks")?
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default(),
    })
}

/// Compares the indexing outcome in a row with its checksum.
fn check_outcome(row: &SqliteRow, kind: Option<&str>) -> Result<(), StoreError> {
    let Some(wanted) = row.try_get::<Option<i64>, _>("outcome_crc")? else { return Ok(()) };
    let (width, height) = (row.try_get("width")?, row.try_get("height")?);
    if wanted == blob::outcome_checksum(kind, row.try_get("duration_secs")?, width, height) {
        return Ok(());
    }
    Err(damaged("asset", "its checksum is wrong"))
}

async fn in_tx(tx: &mut Transaction<'_, Sqlite>, id: &str) -> Result<AssetRecord, StoreError> {
    let row = sqlx::query("SELECT * FROM assets WHERE id = ?")
        .bind(id)
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::NotFound("asset"))?;
    record(&row)
}

pub async fn begin_asset(store: &SqliteStore, new: &NewAsset) -> Result<(AssetRecord, bool), StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let known: Option<(String, String)> =
        sqlx::query_as("SELECT id, state FROM assets WHERE sha256 = ? AND model = ? AND segmentation = ?")
            .bind(&new.sha256)
            .bind(&*new.model.0)
            .bind(&new.segmentation)
            .fetch_optional(&mut *tx)
            .await?;
    let now = now_unix_ms();
    let id = match known {
        Some((id, state))
            if matches!(AssetState::from_name(&state), Some(AssetState::Ready | AssetState::Partial)) =>
        {
            return Ok((in_tx(&mut tx, &id).await?, false));
        }
        Some((id, _)) => {
            drop_clips(&mut tx, &id).await?;
            id
        }
        None => new.given.map_or_else(AssetId::generate, |(id, _)| id).to_string(),
    };
    let created = new.given.map_or(now, |(_, created)| created);
    let stamp = |file| if new.owned { mtime_ns(&file) } else { changed_ns(&file) };
    let file_mtime_ns = std::fs::metadata(&new.path).ok().map(stamp);
    sqlx::query(
        "INSERT INTO assets (id, sha256, model, segmentation, name, path, owned, size_bytes, state, metadata,
                             created_unix_ms, updated_unix_ms, file_mtime_ns, checked_unix_ms, video_track,
                             audio_track)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'indexing', ?9, ?11, ?10, ?12, ?10, ?13, ?14)
         ON CONFLICT (id) DO UPDATE SET name = ?5, path = ?6, owned = ?7, size_bytes = ?8, state = 'indexing',
             metadata = ?9, updated_unix_ms = ?10, outcome_crc = NULL, error_code = NULL, error_message = NULL,
             file_mtime_ns = ?12, checked_unix_ms = ?10, damage = NULL, tracks = NULL",
    )
    .bind(&id)
    .bind(&new.sha256)
    .bind(&*new.model.0)
    .bind(&new.segmentation)
    .bind(&new.name)
    .bind(&new.path)
    .bind(new.owned)
    .bind(signed(new.size_bytes))
    .bind(to_json(&new.metadata))
    .bind(now)
    .bind(created)
    .bind(file_mtime_ns)
    .bind(new.choice.video)
    .bind(new.choice.audio)
    .execute(&mut *tx)
    .await?;
    let record = in_tx(&mut tx, &id).await?;
    tx.commit().await?;
    Ok((record, true))
}

pub async fn finish(
    store: &SqliteStore,
    id: AssetId,
    outcome: &AssetOutcome,
) -> Result<AssetRecord, StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let (code, message) = columns_of(outcome.error.as_ref());
    sqlx::query(
        "UPDATE assets SET state = ?2, kind = ?3, duration_secs = ?4, width = ?5, height = ?6, error_code = ?7,
             error_message = ?8, updated_unix_ms = ?9, outcome_crc = ?10, tracks = ?11 WHERE id = ?1",
    )
    .bind(id.to_string())
    .bind(outcome.state.as_str())
    .bind(outcome.kind.map(crate::types::AssetKind::as_str))
    .bind(outcome.duration_secs)
    .bind(outcome.width)
    .bind(outcome.height)
    .bind(code)
    .bind(message)
    .bind(now_unix_ms())
    .bind(blob::outcome_checksum(
        outcome.kind.map(crate::types::AssetKind::as_str),
        outcome.duration_secs,
        outcome.width,
        outcome.height,
    ))
    .bind(serde_json::to_string(&outcome.tracks).ok())
    .execute(&mut *tx)
    .await?;
    let record = in_tx(&mut tx, &id.to_string()).await?;
    if matches!(record.state, AssetState::Ready | AssetState::Partial) {
        standing::note_searchable(&mut tx, id).await?;
    }
    tx.commit().await?;
    Ok(record)
}

/// Maximum number of paths of one asset that are returned.
const MOST_PATHS: u32 = 64;

/// Drops an asset's clips with their vectors; returns the clips' ids.
pub(super) async fn drop_clips(
    tx: &mut Transaction<'_, Sqlite>,
    id: &str,
) -> Result<Vec<ClipId>, StoreError> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM clips WHERE asset = (SELECT n FROM assets WHERE id = ?) ORDER BY id",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // Each clip owns a range of row ids, and an asset's clips usually have consecutive ids.
    for run in ids.chunk_by(|a, b| a + 1 == *b) {
        sqlx::query("DELETE FROM vectors WHERE id >= ? AND id < ?")
            .bind(run[0] * lanes::LANES)
            .bind((run[run.len() - 1] + 1) * lanes::LANES)
            .execute(&mut **tx)
            .await?;
    }
    sqlx::query("DELETE FROM clips WHERE asset = (SELECT n FROM assets WHERE id = ?)")
        .bind(id)
        .execute(&mut **tx)
        .await?;
    sqlx::query("UPDATE assets SET clips = 0 WHERE id = ?").bind(id).execute(&mut **tx).await?;
    bump_sequence(tx).await?;
    Ok(ids.into_iter().map(ClipId).collect())
}

pub(super) const TOTALS: &str = "SELECT COUNT(*) AS assets, (SELECT COUNT(*) FROM clips) AS clips,
         COALESCE(SUM(duration_secs) FILTER (WHERE state IN ('ready', 'partial')), 0.0) AS secs FROM assets";

#[async_trait]
impl AssetStore for SqliteStore {
    async fn begin_asset(&self, new: NewAsset) -> Result<(AssetRecord, bool), StoreError> {
        begin_asset(self, &new).await
    }
    async fn finish_asset(&self, asset: AssetId, outcome: AssetOutcome) -> Result<AssetRecord, StoreError> {
        finish(self, asset, &outcome).await
    }
    async fn asset(&self, id: AssetId) -> Result<AssetRecord, StoreError> {
        let row = sqlx::query("SELECT * FROM assets WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers())
            .await?
            .ok_or(StoreError::NotFound("asset"))?;
        record(&row)
    }
    async fn assets(&self, ids: &[AssetId]) -> Result<Vec<AssetRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM assets WHERE id IN (SELECT value FROM json_each(?))")
            .bind(id_list(ids, true))
            .fetch_all(&self.readers())
            .await?;
        Ok(self.readable("assets", &rows, record))
    }
    async fn list_assets(&self, after: Option<AssetId>, limit: u32) -> Result<Vec<AssetRecord>, StoreError> {
        // Ids are time-ordered, so a page can continue after a deleted asset; `b` sorts after every id.
        let after = after.map_or_else(|| "b".to_owned(), |id| id.to_string());
        let readers = self.readers();
        self.page(
            List { table: "assets", cursor: "id", read: record },
            after,
            limit,
            |after: String, limit| {
                sqlx::query("SELECT * FROM assets WHERE id < ? ORDER BY id DESC LIMIT ?")
                    .bind(after)
                    .bind(limit)
                    .fetch_all(&readers)
            },
        )
        .await
    }
    async fn assets_at(&self, path: &str) -> Result<Vec<AssetRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM assets WHERE path = ? AND owned = 0 ORDER BY n")
            .bind(path)
            .fetch_all(&self.readers())
            .await?;
        Ok(self.readable("assets", &rows, record))
    }
    async fn asset_paths(&self, id: AssetId) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT path FROM watch_files WHERE asset = ?1 AND missing_looks = 0
             UNION SELECT path FROM job_items WHERE asset = ?1 AND state = 'done' LIMIT ?2",
        )
        .bind(id.to_string())
        .bind(MOST_PATHS)
        .fetch_all(&self.readers())
        .await?)
    }
    async fn unfinished_assets(&self) -> Result<Vec<AssetRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM assets WHERE state = 'indexing' ORDER BY n")
            .fetch_all(&self.readers())
            .await?;
        Ok(self.readable("assets", &rows, record))
    }
    async fn describe_assets(&self, records: &[AssetRecord]) -> Result<Vec<AssetRecord>, StoreError> {
        let assets = records;
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let now = now_unix_ms();
        let mut described = Vec::with_capacity(assets.len());
        for asset in assets {
            let id = asset.id.to_string();
            sqlx::query(
                "UPDATE assets SET path = ?2, owned = ?3, name = ?4, metadata = ?5, updated_unix_ms = ?6 WHERE id = ?1",
            )
            .bind(&id)
            .bind(&asset.path)
            .bind(asset.owned)
            .bind(&asset.name)
            .bind(to_json(&asset.metadata))
            .bind(now)
            .execute(&mut *tx)
            .await?;
            described.push(in_tx(&mut tx, &id).await?);
        }
        tx.commit().await?;
        Ok(described)
    }
    async fn delete_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let gone = drop_clips(&mut tx, &id.to_string()).await?;
        let deleted =
            sqlx::query("DELETE FROM assets WHERE id = ?").bind(id.to_string()).execute(&mut *tx).await?;
        if deleted.rows_affected() == 0 {
            return Err(StoreError::NotFound("asset"));
        }
        tx.commit().await?;
        Ok(gone)
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
            let clips = drop_clips(&mut tx, &name).await?;
            sqlx::query("DELETE FROM assets WHERE id = ?").bind(&name).execute(&mut *tx).await?;
            gone.push(DeletedAsset { id: *id, clips, owned_path });
        }
        tx.commit().await?;
        Ok(gone)
    }
    async fn reset_asset(&self, id: AssetId) -> Result<Vec<ClipId>, StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        let gone = drop_clips(&mut tx, &id.to_string()).await?;
        let updated = sqlx::query("UPDATE assets SET state = 'indexing', updated_unix_ms = ? WHERE id = ?")
            .bind(now_unix_ms())
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        if updated.rows_affected() == 0 {
            return Err(StoreError::NotFound("asset"));
        }
        tx.commit().await?;
        Ok(gone)
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        let row = sqlx::query(TOTALS).fetch_one(&self.readers()).await?;
        Ok(Totals {
            assets: unsigned(&row, "assets")?,
            clips: unsigned(&row, "clips")?,
            media_secs: row.try_get("secs")?,
        })
    }
}
