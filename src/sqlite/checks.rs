//! Finds, records and repairs damage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::lanes;
use super::rows::signed;
use super::{
    SqliteStore, assets, begin, blob, bump_sequence, clips, items, job_records, retention, standing, watches,
    webhooks,
};
use crate::store::{
    AssetFacts, AssetRecord, Checks, ClipVector, ContentNote, Damage, DamagedRow, DamagedVectors, StoreError,
};
use crate::types::{AssetId, ClipId};

/// Rows read at a time.
const PAGE: i64 = 4096;
/// Damaged rows remembered; beyond it, only the fact that there are more.
const MOST_NOTED: usize = 10_000;

/// A table, the statement that selects its rows after a row number, and the function that reads one of them.
struct Reading {
    table: &'static str,
    /// Selects the rows after one, in order, with their number as `row_n`.
    select: &'static str,
    read: fn(&SqliteRow) -> Result<(), StoreError>,
}

const READS: &[Reading] = &[
    Reading {
        table: "assets",
        select: "SELECT n AS row_n, * FROM assets WHERE n > ? ORDER BY n LIMIT ?",
        read: whole_asset,
    },
    Reading {
        table: "clips",
        select: "SELECT c.id AS row_n, c.id, (SELECT id FROM assets WHERE n = c.asset) AS asset_id, asset, start_secs, end_secs,
             agreement, crc FROM clips AS c WHERE c.id > ? ORDER BY c.id LIMIT ?",
        read: |row| blob::record(row).map(drop),
    },
    Reading {
        table: "jobs",
        select: "SELECT n AS row_n, * FROM jobs WHERE n > ? ORDER BY n LIMIT ?",
        read: |row| job_records::job_record(row).map(drop),
    },
    Reading {
        table: "watches",
        select: "SELECT n AS row_n, *, 0 AS files FROM watches WHERE n > ? ORDER BY n LIMIT ?",
        read: |row| watches::record(row).map(drop),
    },
    Reading {
        table: "standing_queries",
        select: "SELECT n AS row_n, *, NULL AS webhook_url, 0 AS matches FROM standing_queries WHERE n > ? ORDER BY n LIMIT ?",
        read: |row| standing::with_vectors(row).map(drop),
    },
    Reading {
        table: "standing_matches",
        select: "SELECT n AS row_n, *, '' AS asset_name FROM standing_matches WHERE n > ? ORDER BY n LIMIT ?",
        read: |row| standing::match_record(row).map(drop),
    },
    Reading {
        table: "deliveries",
        select: "SELECT n AS row_n, *, '' AS owner, '' AS url FROM deliveries WHERE n > ? ORDER BY n LIMIT ?",
        read: |row| webhooks::record(row).map(drop),
    },
    Reading {
        table: "retention_rules",
        select: "SELECT position AS row_n, position AS n, * FROM retention_rules WHERE position > ? ORDER BY position LIMIT ?",
        read: |row| retention::rule(row).map(drop),
    },
    Reading {
        table: "retention_runs",
        select: "SELECT n AS row_n, * FROM retention_runs WHERE n > ? ORDER BY n LIMIT ?",
        read: |row| retention::run(row).map(drop),
    },
];

/// Rows that could not be read.
#[derive(Debug, Default)]
pub(super) struct Damaged(Mutex<BTreeMap<(&'static str, String), String>>);

impl Damaged {
    fn note(&self, row: DamagedRow) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < MOST_NOTED && !noted.contains_key(&(row.table, row.key.clone())) {
            metrics::counter!("triptych_damaged_rows_total", "table" => row.table).increment(1);
            tracing::error!(
                table = row.table,
                key = row.key,
                problem = row.problem,
                "left out a damaged row of the store"
            );
            noted.insert((row.table, row.key), row.problem);
        }
    }

    fn mended(&self, table: &'static str, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(table, key.to_owned()));
    }
}

/// The key of a row, as far as it can be read.
fn key_of(row: &SqliteRow) -> String {
    let number = |column| row.try_get::<i64, _>(column).ok().map(|n| n.to_string());
    let text = |column| row.try_get::<String, _>(column).ok();
    text("id")
        .or_else(|| number("n"))
        .or_else(|| number("id"))
        .or_else(|| number("seq"))
        .unwrap_or_else(|| "?".to_owned())
}

impl SqliteStore {
    /// The readable rows. A damaged one is recorded and left out, so that the others are not affected.
    pub(super) fn readable<T>(
        &self,
        table: &'static str,
        rows: &[SqliteRow],
        read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
    ) -> Vec<T> {
        rows.iter()
            .filter_map(|row| read(row).map_err(|error| self.note_row(table, key_of(row), &error)).ok())
            .collect()
    }

    pub(super) fn note_row(&self, table: &'static str, key: String, error: &StoreError) {
        self.damaged.note(DamagedRow { table, key, problem: error.to_string() });
    }
}

#[async_trait]
impl Checks for SqliteStore {
    async fn note_content(&self, notes: &[ContentNote]) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        for note in notes {
            sqlx::query(
                "UPDATE assets SET file_mtime_ns = COALESCE(?2, file_mtime_ns),
                     checked_unix_ms = COALESCE(?3, checked_unix_ms), damage = ?4 WHERE id = ?1",
            )
            .bind(note.id.to_string())
            .bind(note.mtime_ns)
            .bind(note.checked_unix_ms)
            .bind(note.damage.map(Damage::as_str))
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    async fn mend_asset(&self, facts: &AssetFacts) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query(
            "UPDATE assets SET sha256 = ?2, size_bytes = ?3, name = ?4, metadata = ?5, created_unix_ms = ?6,
                 path = ?7, owned = ?8 WHERE id = ?1",
        )
        .bind(facts.id.to_string())
        .bind(&facts.sha256)
        .bind(signed(facts.size_bytes))
        .bind(&facts.name)
        .bind(super::to_json(&facts.metadata))
        .bind(facts.created_unix_ms)
        .bind(&facts.path)
        .bind(facts.owned)
        .execute(&mut *writer)
        .await?;
        self.damaged.mended("assets", &facts.id.to_string());
        Ok(())
    }

    async fn unchecked_assets(
        &self,
        before_unix_ms: i64,
        limit: u32,
    ) -> Result<Vec<AssetRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM assets WHERE checked_unix_ms < ? AND owned = 1 ORDER BY checked_unix_ms LIMIT ?",
        )
        .bind(before_unix_ms)
        .bind(limit)
        .fetch_all(&self.readers())
        .await?;
        Ok(self.readable("assets", &rows, assets::record))
    }

    async fn damaged_assets(&self, limit: u32) -> Result<(Vec<AssetRecord>, u64), StoreError> {
        let rows =
            sqlx::query("SELECT * FROM assets WHERE damage IS NOT NULL AND owned = 1 ORDER BY n LIMIT ?")
                .bind(limit)
                .fetch_all(&self.readers())
                .await?;
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM assets WHERE damage IS NOT NULL AND owned = 1")
                .fetch_one(&self.readers())
                .await?;
        Ok((self.readable("assets", &rows, assets::record), u64::try_from(count).unwrap_or(0)))
    }

    async fn owned_paths(&self) -> Result<Vec<String>, StoreError> {
        // Read as bytes: damaged text may not be valid text any more.
        let paths: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT CAST(path AS BLOB) FROM assets WHERE owned IS NOT 0 ORDER BY n")
                .fetch_all(&self.readers())
                .await?;
        Ok(paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect())
    }

    fn damaged_rows(&self) -> Vec<DamagedRow> {
        let noted = self.damaged.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |((table, key), problem): (&(&'static str, String), &String)| DamagedRow {
            table,
            key: key.clone(),
            problem: problem.clone(),
        };
        noted.iter().map(row).collect()
    }

    async fn read_all_rows(&self) -> Result<(), StoreError> {
        for Reading { table, select, read } in READS {
            let mut after = i64::MIN;
            loop {
                let rows = sqlx::query(*select).bind(after).bind(PAGE).fetch_all(&self.readers()).await?;
                let Some(last) = rows.last() else { break };
                after = last.try_get("row_n")?;
                self.readable(table, &rows, read);
            }
        }
        items::read_all_items(self).await
    }

    async fn check_vectors(&self) -> Result<DamagedVectors, StoreError> {
        let (mut bad, mut seen): (BTreeSet<i64>, BTreeMap<i64, i64>) = Default::default();
        let mut after = i64::MIN;
        loop {
            let rows = sqlx::query("SELECT id, crc, data FROM vectors WHERE id > ? ORDER BY id LIMIT ?")
                .bind(after)
                .bind(PAGE)
                .fetch_all(&self.readers())
                .await?;
            let Some(last) = rows.last() else { break };
            after = last.try_get("id")?;
            for row in &rows {
                let id: i64 = row.try_get("id")?;
                *seen.entry(id.div_euclid(lanes::LANES)).or_default() |=
                    lanes::lane_mask([id.rem_euclid(lanes::LANES)]);
                if blob::of_row(row).is_none() {
                    bad.insert(id.div_euclid(lanes::LANES));
                }
            }
        }
        let lanes: Vec<(i64, i64)> =
            sqlx::query_as("SELECT id, lanes FROM clips ORDER BY id").fetch_all(&self.readers()).await?;
        bad.extend(
            lanes
                .iter()
                .filter(|(id, lanes)| seen.get(id).copied().unwrap_or(0) != *lanes)
                .map(|(id, _)| *id),
        );
        let known: BTreeSet<i64> = lanes.iter().map(|(id, _)| *id).collect();
        bad.retain(|id| known.contains(id));
        let lacking: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM assets AS a WHERE state IN ('ready', 'partial')
                 AND clips <> (SELECT COUNT(*) FROM clips WHERE asset = a.n) ORDER BY n",
        )
        .fetch_all(&self.readers())
        .await?;
        let assets = lacking.iter().filter_map(|id| id.parse::<AssetId>().ok()).collect();
        Ok(DamagedVectors { clips: bad.into_iter().map(ClipId).collect(), assets })
    }

    async fn put_vectors(&self, clip: ClipId, vectors: &[ClipVector]) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        sqlx::query("DELETE FROM vectors WHERE id >= ? AND id < ?")
            .bind(lanes::row_id(clip, 0))
            .bind(lanes::row_id(clip, lanes::LANES))
            .execute(&mut *tx)
            .await?;
        let mut rows = Vec::with_capacity(vectors.len());
        let mut mask = 0;
        for ClipVector { track, space, vector } in vectors {
            let space = self.space_index(space).ok_or(StoreError::NotFound("space"))?;
            let lane = lanes::lane(*track, space);
            mask |= lanes::lane_mask([lane]);
            rows.push((lanes::row_id(clip, lane), vector));
        }
        clips::insert_vectors(&mut tx, &rows).await?;
        sqlx::query("UPDATE clips SET lanes = ? WHERE id = ?")
            .bind(mask)
            .bind(clip.0)
            .execute(&mut *tx)
            .await?;
        bump_sequence(&mut tx).await?;
        tx.commit().await?;
        self.damaged.mended("vectors", &clip.0.to_string());
        Ok(())
    }
}

/// An asset whose metadata cannot be read is shown without them, and counts as damaged.
fn whole_asset(row: &SqliteRow) -> Result<(), StoreError> {
    assets::record(row)?;
    super::from_json(row.try_get("metadata")?).map(drop)
}
