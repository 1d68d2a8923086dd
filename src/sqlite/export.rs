//! Reads clips and vectors in bulk, in one transaction on a separate connection.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Row};

use super::blob;
use super::lanes;
use super::{SqliteStore, damaged};
use crate::store::{ClipCursor, ClipVector, ExportedClip, StoreError};
use crate::types::{AssetId, ClipId, Space};

/// See [`ClipCursor`].
struct Cursor {
    /// In a read transaction: with a write-ahead log, it sees one state and blocks nobody.
    connection: SqliteConnection,
    model: String,
    spaces: HashMap<i64, Space>,
    asset: Option<String>,
    after: i64,
    left_out: u64,
}

pub async fn open(
    store: &SqliteStore,
    asset: Option<AssetId>,
    after: ClipId,
) -> Result<Box<dyn ClipCursor>, StoreError> {
    let mut connection = store.reader_options().connect().await?;
    sqlx::query("BEGIN").execute(&mut connection).await?;
    let model: Option<String> =
        sqlx::query_scalar("SELECT model FROM library WHERE one = 1").fetch_optional(&mut connection).await?;
    let spaces: Vec<(i64, String)> =
        sqlx::query_as("SELECT idx, name FROM spaces").fetch_all(&mut connection).await?;
    Ok(Box::new(Cursor {
        connection,
        model: model.unwrap_or_default(),
        spaces: spaces.into_iter().map(|(index, name)| (index, Space::new(&name))).collect(),
        asset: asset.map(|id| id.to_string()),
        after: after.0,
        left_out: 0,
    }))
}

macro_rules! select {
    ($of:literal) => {
        concat!(
            "SELECT clips.id, assets.id AS asset_id, clips.asset, start_secs, end_secs, agreement, clips.crc,
                 assets.name, assets.sha256, assets.kind
             FROM clips JOIN assets ON assets.n = clips.asset
             WHERE clips.id > ?1 AND assets.state IN ('ready', 'partial') ",
            $of,
            " ORDER BY clips.id LIMIT ?2"
        )
    };
}

const OF_ALL: &str = select!("AND ?3 IS NULL");
/// Uses the index of an asset's clips: one statement for both cases would walk over every clip of the
/// library.
pub(super) const OF_ASSET: &str = select!("AND clips.asset = (SELECT n FROM assets WHERE id = ?3)");

#[async_trait]
impl ClipCursor for Cursor {
    async fn next(&mut self, limit: u32) -> Result<Vec<ExportedClip>, StoreError> {
        let mut found: Vec<ExportedClip> = Vec::new();
        loop {
            let wanted = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(limit));
            let rows = sqlx::query(if self.asset.is_some() { OF_ASSET } else { OF_ALL })
                .bind(self.after)
                .bind(wanted)
                .bind(self.asset.as_deref())
                .fetch_all(&mut self.connection)
                .await?;
            for row in &rows {
                match exported(row) {
                    Ok(clip) => found.push(clip),
                    Err(StoreError::DamagedRow(_)) => self.left_out += 1,
                    Err(error) => return Err(error),
                }
            }
            if let Some(last) = rows.last() {
                self.after = last.try_get("id")?;
            }
            // Other rows take the places of damaged ones.
            if rows.len() < wanted as usize || found.len() >= limit as usize {
                self.add_vectors(&mut found).await?;
                return Ok(found);
            }
        }
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn left_out(&self) -> u64 {
        self.left_out
    }
}

fn exported(row: &sqlx::sqlite::SqliteRow) -> Result<ExportedClip, StoreError> {
    let kind: Option<&str> = row.try_get("kind")?;
    Ok(ExportedClip {
        clip: blob::record(row)?,
        asset_name: row.try_get("name")?,
        asset_sha256: row.try_get("sha256")?,
        asset_kind: kind.map(|kind| kind.parse().map_err(|_| damaged("asset kind", kind))).transpose()?,
        vectors: Vec::new(),
    })
}

impl Cursor {
    async fn add_vectors(&mut self, clips: &mut [ExportedClip]) -> Result<(), StoreError> {
        // Ids are usually consecutive, and so are the rows of their vectors.
        for run in clips.chunk_by_mut(|a, b| a.clip.id.0 + 1 == b.clip.id.0) {
            let (Some(first), Some(last)) = (run.first().map(|c| c.clip.id), run.last().map(|c| c.clip.id))
            else {
                continue;
            };
            let rows = sqlx::query("SELECT id, crc, data FROM vectors WHERE id >= ? AND id < ? ORDER BY id")
                .bind(lanes::row_id(first, 0))
                .bind(lanes::row_id(last, lanes::LANES))
                .fetch_all(&mut self.connection)
                .await?;
            for row in &rows {
                let id: i64 = row.try_get("id")?;
                let at = usize::try_from(id / lanes::LANES - first.0).unwrap_or(usize::MAX);
                match (run.get_mut(at), self.named(id, row)) {
                    (Some(clip), Some(vector)) => clip.vectors.push(vector),
                    _ => self.left_out += 1,
                }
            }
        }
        Ok(())
    }

    fn named(&self, id: i64, row: &sqlx::sqlite::SqliteRow) -> Option<ClipVector> {
        let (track, space) = lanes::of_lane(id % lanes::LANES)?;
        Some(ClipVector { track, space: self.spaces.get(&space)?.clone(), vector: blob::of_row(row)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{AssetOutcome, AssetState, AssetStore, ClipStore, NewAsset, NewClip};
    use crate::types::{Embedding, ModelId, TimeSpan, Track};

    async fn asset(store: &SqliteStore, sha: &str, clips: usize) -> AssetId {
        let new = NewAsset {
            given: None,
            sha256: sha.to_owned(),
            model: ModelId("m".into()),
            segmentation: "w".into(),
            choice: Default::default(),
            name: format!("{sha}.mp4"),
            path: format!("/{sha}"),
            owned: false,
            size_bytes: 1,
            metadata: serde_json::json!({}),
        };
        let id = store.begin_asset(new).await.unwrap().0.id;
        let vector = |n: usize| Embedding::new(vec![n as f32 + 1.0, 1.0], 2).unwrap();
        let clip = |n: usize| NewClip {
            span: TimeSpan { start_secs: n as f64, end_secs: n as f64 + 1.0 },
            vectors: vec![
                ClipVector::new(Track::Video, Space::new("fine"), vector(n)),
                ClipVector::new(Track::Audio, Space::new("fine"), vector(0)),
            ],
            agreement: None,
        };
        store.add_clips(id, &(0..clips).map(clip).collect::<Vec<_>>()).await.unwrap();
        id
    }

    async fn finish(store: &SqliteStore, id: AssetId) {
        let outcome = AssetOutcome {
            state: AssetState::Ready,
            kind: None,
            duration_secs: 1.0,
            width: 0,
            height: 0,
            error: None,
            tracks: Vec::new(),
        };
        store.finish_asset(id, outcome).await.unwrap();
    }

    #[tokio::test]
    async fn an_export_is_of_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), &ModelId("m".into())).await.unwrap();
        let a = asset(&store, "a", 5).await;
        let unfinished = asset(&store, "b", 3).await;
        let c = asset(&store, "c", 2).await;
        finish(&store, a).await;
        finish(&store, c).await;
        let mut cursor = store.export(None, ClipId(0)).await.unwrap();
        let first = cursor.next(4).await.unwrap();
        assert_eq!(first.len(), 4);
        // Deleted, added or finished since then: not visible.
        store.delete_asset(a).await.unwrap();
        finish(&store, unfinished).await;
        let late = asset(&store, "d", 2).await;
        finish(&store, late).await;
        let mut all = first;
        loop {
            let page = cursor.next(4).await.unwrap();
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        let of: Vec<_> =
            all.iter().map(|clip| (clip.clip.asset, clip.clip.span.start_secs as usize)).collect();
        assert_eq!(of, [(a, 0), (a, 1), (a, 2), (a, 3), (a, 4), (c, 0), (c, 1)]);
        assert!(all.iter().all(|clip| clip.vectors.len() == 2 && clip.vectors[0].track == Track::Video));
        assert_eq!((cursor.model(), cursor.left_out()), ("m", 0));
        drop(cursor);
        let mut one = store.export(Some(c), all[5].clip.id).await.unwrap();
        assert_eq!(one.next(9).await.unwrap().len(), 1);
        assert_eq!(store.export(None, ClipId(0)).await.unwrap().next(99).await.unwrap().len(), 7);
    }

    #[tokio::test]
    async fn a_damaged_clip_does_not_end_a_page_early() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), &ModelId("m".into())).await.unwrap();
        let (a, b) = (asset(&store, "a", 9).await, asset(&store, "b", 2).await);
        finish(&store, a).await;
        finish(&store, b).await;
        {
            let mut writer = store.writer().await.unwrap();
            sqlx::query("UPDATE clips SET crc = 1 WHERE id IN (2, 3)").execute(&mut *writer).await.unwrap();
        }
        let mut cursor = store.export(Some(a), ClipId(0)).await.unwrap();
        let first = cursor.next(4).await.unwrap();
        assert_eq!(first.iter().map(|found| found.clip.id.0).collect::<Vec<_>>(), [1, 4, 5, 6]);
        assert!(first.iter().all(|found| found.vectors.len() == 2));
        assert_eq!(cursor.next(4).await.unwrap().len(), 3);
        assert_eq!((cursor.next(4).await.unwrap().len(), cursor.left_out()), (0, 2));
    }
}
