//! Clips and their vectors in SQLite.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};

use super::blob;
use super::lanes::{self, MAX_SPACES};
use super::{SqliteStore, begin, bump_sequence, export, id_list, now_unix_ms};
use crate::store::{ClipCursor, ClipRecord, ClipStore, ClipVector, NewClip, StoreError, VectorCensus};
use crate::types::{AssetId, ClipId, Embedding, Space, TimeSpan, Track};

/// Rows per INSERT: enough to make the round trip to SQLite's thread cheap.
const ROWS_PER_INSERT: usize = 64;

#[tracing::instrument(level = "debug", name = "store_clips", skip_all)]
pub async fn add(store: &SqliteStore, asset: AssetId, clips: &[NewClip]) -> Result<Vec<ClipId>, StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let asset: i64 = sqlx::query_scalar("SELECT n FROM assets WHERE id = ?")
        .bind(asset.to_string())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(StoreError::NotFound("asset"))?;
    if clips.is_empty() {
        return Ok(Vec::new());
    }
    let mut new_spaces = Vec::new();
    let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'clips'")
        .fetch_optional(&mut *tx)
        .await?;
    let ids: Vec<ClipId> = (last.unwrap_or(0) + 1..).take(clips.len()).map(ClipId).collect();
    let mut rows = Vec::new();
    let mut masks = Vec::with_capacity(clips.len());
    for (clip, id) in clips.iter().zip(&ids) {
        let mut mask = 0;
        for ClipVector { track, space, vector } in &clip.vectors {
            let lane = lanes::lane(*track, space_index(store, &mut tx, space, &mut new_spaces).await?);
            mask |= lanes::lane_mask([lane]);
            rows.push((lanes::row_id(*id, lane), vector));
        }
        masks.push(mask);
    }
    insert_clips(&mut tx, asset, clips, &ids, &masks).await?;
    insert_vectors(&mut tx, &rows).await?;
    sqlx::query("UPDATE assets SET clips = clips + ?, updated_unix_ms = ? WHERE n = ?")
        .bind(i64::try_from(clips.len()).unwrap_or(i64::MAX))
        .bind(now_unix_ms())
        .bind(asset)
        .execute(&mut *tx)
        .await?;
    bump_sequence(&mut tx).await?;
    tx.commit().await?;
    // Only after the commit: a rolled-back transaction takes its new spaces with it.
    for (space, index) in new_spaces {
        store.remember_space(space, index);
    }
    Ok(ids)
}

/// The number of a space, assigned on first use.
async fn space_index(
    store: &SqliteStore,
    tx: &mut Transaction<'_, Sqlite>,
    space: &Space,
    new: &mut Vec<(Space, i64)>,
) -> Result<i64, StoreError> {
    if let Some(index) = store.space_index(space) {
        return Ok(index);
    }
    if let Some((_, index)) = new.iter().find(|(known, _)| known == space) {
        return Ok(*index);
    }
    let index: i64 =
        sqlx::query_scalar("SELECT COALESCE(MAX(idx) + 1, 0) FROM spaces").fetch_one(&mut **tx).await?;
    if index >= MAX_SPACES {
        return Err(StoreError::Database(format!("a library can have at most {MAX_SPACES} spaces")));
    }
    sqlx::query("INSERT INTO spaces (idx, name) VALUES (?, ?)")
        .bind(index)
        .bind(space.as_str())
        .execute(&mut **tx)
        .await?;
    new.push((space.clone(), index));
    Ok(index)
}

async fn insert_clips(
    tx: &mut Transaction<'_, Sqlite>,
    asset: i64,
    clips: &[NewClip],
    ids: &[ClipId],
    masks: &[i64],
) -> Result<(), StoreError> {
    let rows: Vec<_> = clips.iter().zip(ids).zip(masks).collect();
    for part in rows.chunks(ROWS_PER_INSERT) {
        let mut insert =
            QueryBuilder::new("INSERT INTO clips (id, asset, start_secs, end_secs, lanes, agreement, crc) ");
        insert.push_values(part, |mut values, ((clip, id), mask)| {
            values.push_bind(id.0).push_bind(asset);
            values.push_bind(clip.span.start_secs).push_bind(clip.span.end_secs).push_bind(**mask);
            values.push_bind(clip.agreement);
            values.push_bind(blob::clip_checksum(**id, asset, &clip.span, clip.agreement));
        });
        insert.build().execute(&mut **tx).await?;
    }
    Ok(())
}

pub(super) async fn insert_vectors(
    tx: &mut Transaction<'_, Sqlite>,
    rows: &[(i64, &Embedding)],
) -> Result<(), StoreError> {
    for part in rows.chunks(ROWS_PER_INSERT) {
        let mut insert = QueryBuilder::new("INSERT INTO vectors (id, crc, data) ");
        insert.push_values(part, |mut values, (id, vector)| {
            let (data, crc) = blob::encode(*id, vector);
            values.push_bind(*id).push_bind(crc).push_bind(data);
        });
        insert.build().execute(&mut **tx).await?;
    }
    Ok(())
}

#[async_trait]
impl ClipStore for SqliteStore {
    async fn add_clips(&self, asset: AssetId, clips: &[NewClip]) -> Result<Vec<ClipId>, StoreError> {
        add(self, asset, clips).await
    }
    async fn clips_of(&self, asset: AssetId) -> Result<Vec<ClipRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT clips.id, assets.id AS asset_id, clips.asset, start_secs, end_secs, agreement, clips.crc
             FROM assets JOIN clips ON clips.asset = assets.n WHERE assets.id = ? ORDER BY start_secs, clips.id",
        )
        .bind(asset.to_string())
        .fetch_all(&self.readers())
        .await?;
        Ok(self.readable("clips", &rows, blob::record))
    }
    async fn clips_with_tracks(&self, asset: AssetId) -> Result<Vec<(ClipRecord, Vec<Track>)>, StoreError> {
        let rows = sqlx::query(
            "SELECT clips.id, assets.id AS asset_id, clips.asset, start_secs, end_secs, agreement, clips.crc, lanes
             FROM assets JOIN clips ON clips.asset = assets.n WHERE assets.id = ? ORDER BY start_secs, clips.id",
        )
        .bind(asset.to_string())
        .fetch_all(&self.readers())
        .await?;
        let read = |row: &SqliteRow| Ok((blob::record(row)?, lanes::tracks_of(row.try_get("lanes")?)));
        Ok(self.readable("clips", &rows, read))
    }
    async fn clips(&self, ids: &[ClipId]) -> Result<Vec<ClipRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT clips.id, assets.id AS asset_id, clips.asset, start_secs, end_secs, agreement, clips.crc
             FROM json_each(?) AS wanted JOIN clips ON clips.id = wanted.value JOIN assets ON assets.n = clips.asset
             ORDER BY clips.id",
        )
        .bind(id_list(ids.iter().map(|id| id.0), false))
        .fetch_all(&self.readers())
        .await?;
        Ok(self.readable("clips", &rows, blob::record))
    }
    async fn scan_clips(&self, after: ClipId, limit: u32) -> Result<Vec<ClipRecord>, StoreError> {
        let mut after = after.0;
        loop {
            let rows = sqlx::query(
                "SELECT clips.id, assets.id AS asset_id, clips.asset, start_secs, end_secs, agreement, clips.crc
                 FROM clips JOIN assets ON assets.n = clips.asset WHERE clips.id > ? ORDER BY clips.id LIMIT ?",
            )
            .bind(after)
            .bind(limit)
            .fetch_all(&self.readers())
            .await?;
            let clips = self.readable("clips", &rows, blob::record);
            // A page of only damaged rows is not the end.
            match rows.last() {
                Some(last) if clips.is_empty() => after = last.try_get("id")?,
                _ => return Ok(clips),
            }
        }
    }
    async fn clips_without_agreement(&self, after: ClipId, limit: u32) -> Result<Vec<ClipId>, StoreError> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM clips WHERE agreement IS NULL AND lanes & ? <> 0 AND lanes & ? <> 0
                     AND id > ? ORDER BY id LIMIT ?",
        )
        .bind(lanes::track_mask(Track::AGREEING[0]))
        .bind(lanes::track_mask(Track::AGREEING[1]))
        .bind(after.0)
        .bind(limit)
        .fetch_all(&self.readers())
        .await?;
        Ok(ids.into_iter().map(ClipId).collect())
    }
    async fn set_agreements(&self, agreements: &[(ClipId, f32)]) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        for (id, agreement) in agreements {
            let found: Option<(i64, f64, f64)> =
                sqlx::query_as("SELECT asset, start_secs, end_secs FROM clips WHERE id = ?")
                    .bind(id.0)
                    .fetch_optional(&mut *tx)
                    .await?;
            let Some((asset, start, end)) = found else { continue };
            // A damaged one does not change; reading it reports the damage.
            let Ok(span) = TimeSpan::new(start, end) else { continue };
            sqlx::query("UPDATE clips SET agreement = ?, crc = ? WHERE id = ?")
                .bind(agreement)
                .bind(blob::clip_checksum(*id, asset, &span, Some(*agreement)))
                .bind(id.0)
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }
    async fn clip_vectors(&self, id: ClipId) -> Result<Vec<ClipVector>, StoreError> {
        let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM clips WHERE id = ?)")
            .bind(id.0)
            .fetch_one(&self.readers())
            .await?;
        if !known {
            return Err(StoreError::NotFound("clip"));
        }
        let rows = sqlx::query("SELECT id, crc, data FROM vectors WHERE id >= ? AND id < ? ORDER BY id")
            .bind(lanes::row_id(id, 0))
            .bind(lanes::row_id(id, lanes::LANES))
            .fetch_all(&self.readers())
            .await?;
        rows.iter()
            .map(|row| {
                let row_id: i64 = row.try_get("id")?;
                let (track, space) = lanes::of_lane(row_id % lanes::LANES)
                    .and_then(|(track, space)| Some((track, self.space_name(space)?)))
                    .ok_or(StoreError::DamagedVector(id.0))?;
                let vector = blob::of_row(row).ok_or(StoreError::DamagedVector(id.0))?;
                Ok(ClipVector { track, space, vector })
            })
            .collect()
    }
    async fn scan_vectors(
        &self,
        track: Track,
        space: &Space,
        after: ClipId,
        limit: u32,
    ) -> Result<(Vec<(ClipId, Embedding)>, Vec<ClipId>), StoreError> {
        let Some(space) = self.space_index(space) else { return Ok(Default::default()) };
        let lane = lanes::lane(track, space);
        let rows =
            sqlx::query("SELECT id, crc, data FROM vectors WHERE id > ? AND id % ? = ? ORDER BY id LIMIT ?")
                .bind(lanes::row_id(ClipId(after.0.max(0)), lanes::LANES - 1))
                .bind(lanes::LANES)
                .bind(lane)
                .bind(limit)
                .fetch_all(&self.readers())
                .await?;
        let (mut good, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in &rows {
            let row_id: i64 = row.try_get("id")?;
            let clip = ClipId(row_id / lanes::LANES);
            match blob::of_row(row) {
                Some(vector) => good.push((clip, vector)),
                None => bad.push(clip),
            }
        }
        Ok((good, bad))
    }
    async fn export(&self, asset: Option<AssetId>, after: ClipId) -> Result<Box<dyn ClipCursor>, StoreError> {
        export::open(self, asset, after).await
    }
    async fn vector_census(&self, track: Track, space: &Space) -> Result<VectorCensus, StoreError> {
        let Some(space) = self.space_index(space) else { return Ok(VectorCensus::default()) };
        let (count, sum_of_ids): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(id), 0) FROM clips WHERE lanes & ? <> 0")
                .bind(lanes::lane_mask([lanes::lane(track, space)]))
                .fetch_one(&self.readers())
                .await?;
        Ok(VectorCensus { clips: u64::try_from(count).unwrap_or(0), sum_of_ids })
    }
}
