#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::*;
use crate::types::*;

pub(super) fn model(name: &str) -> ModelId {
    ModelId(name.into())
}

pub(super) async fn open(dir: &TempDir) -> SqliteStore {
    SqliteStore::open(dir.path(), &model("m1")).await.unwrap()
}

fn new_asset(sha: &str) -> NewAsset {
    NewAsset {
        given: None,
        sha256: sha.into(),
        model: model("m1"),
        segmentation: "w3.2/s3.2".into(),
        choice: Default::default(),
        name: format!("{sha}.mp4"),
        path: format!("/media/{sha}"),
        owned: false,
        size_bytes: 7,
        metadata: json!({"tag": sha}),
    }
}

fn vector(seed: usize, dim: usize) -> Embedding {
    let values = (0..dim).map(|i| ((seed * 31 + i * 7 + 1) as f32 * 0.37).sin() + 0.01).collect();
    Embedding::new(values, dim).unwrap()
}

fn clip(at: usize) -> NewClip {
    let (fine, coarse) = (Space::new("fine"), Space::new("coarse"));
    NewClip {
        span: TimeSpan::new(at as f64, at as f64 + 1.0).unwrap(),
        vectors: vec![
            ClipVector::new(Track::Video, fine.clone(), vector(at * 4, 16)),
            ClipVector::new(Track::Video, coarse.clone(), vector(at * 4 + 1, 8)),
            ClipVector::new(Track::Audio, fine, vector(at * 4 + 2, 16)),
            ClipVector::new(Track::Audio, coarse, vector(at * 4 + 3, 8)),
        ],
        agreement: None,
    }
}

fn ready() -> AssetOutcome {
    AssetOutcome {
        state: AssetState::Ready,
        kind: Some(AssetKind::Video),
        duration_secs: 6.0,
        width: 64,
        height: 48,
        error: None,
        tracks: Vec::new(),
    }
}

pub(super) async fn asset_with(store: &SqliteStore, sha: &str, clips: usize) -> (AssetRecord, Vec<ClipId>) {
    let (asset, new) = store.begin_asset(new_asset(sha)).await.unwrap();
    assert!(new);
    let clips: Vec<NewClip> = (0..clips).map(clip).collect();
    let ids = store.add_clips(asset.id, &clips).await.unwrap();
    (store.finish_asset(asset.id, ready()).await.unwrap(), ids)
}

#[tokio::test]
async fn clips_and_vectors_survive_a_drop_without_close() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let (asset, ids) = asset_with(&store, "a", 3).await;
    assert_eq!((asset.clips, asset.state, asset.kind), (3, AssetState::Ready, Some(AssetKind::Video)));
    let sequence = store.sequence().await.unwrap();
    drop(store);

    let store = open(&dir).await;
    assert_eq!(store.sequence().await.unwrap(), sequence);
    assert_eq!(store.totals().await.unwrap(), Totals { assets: 1, clips: 3, media_secs: 6.0 });
    let clips = store.clips_of(asset.id).await.unwrap();
    assert_eq!(clips.iter().map(|c| c.id).collect::<Vec<_>>(), ids);
    for (at, id) in ids.iter().enumerate() {
        let mut found = store.clip_vectors(*id).await.unwrap();
        let mut put = clip(at).vectors;
        found.sort_by_key(|one| (one.track as u8, one.space.clone()));
        put.sort_by_key(|one| (one.track as u8, one.space.clone()));
        assert_eq!(found, put);
    }
    let (vectors, bad) = store.scan_vectors(Track::Audio, &Space::new("fine"), ClipId(0), 2).await.unwrap();
    assert_eq!(vectors.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[..2]);
    assert_eq!(vectors[1].1, clip(1).vectors[2].vector);
    assert!(bad.is_empty());
    let (rest, _) = store.scan_vectors(Track::Audio, &Space::new("fine"), ids[1], 9).await.unwrap();
    assert_eq!(rest.len(), 1);
    let census = store.vector_census(Track::Audio, &Space::new("fine")).await.unwrap();
    assert_eq!((census.clips, census.sum_of_ids), (3, ids.iter().map(|id| id.0).sum()));
    assert_eq!(
        store.vector_census(Track::Audio, &Space::new("other")).await.unwrap(),
        VectorCensus::default()
    );
}

#[tokio::test]
async fn the_same_bytes_are_one_asset_per_model_and_segmentation() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let (first, ids) = asset_with(&store, "a", 2).await;
    let (again, new) = store.begin_asset(new_asset("a")).await.unwrap();
    assert_eq!((again.id, new, again.clips), (first.id, false, 2));
    let (other, new) =
        store.begin_asset(NewAsset { segmentation: "w3.2/s1.6".into(), ..new_asset("a") }).await.unwrap();
    assert!(new && other.id != first.id);

    let failed = AssetOutcome { state: AssetState::Failed, error: Some(WorkError::new("x", "y")), ..ready() };
    assert_eq!(store.finish_asset(first.id, failed).await.unwrap().error, Some(WorkError::new("x", "y")));
    let before = store.sequence().await.unwrap();
    let (reset, new) = store.begin_asset(NewAsset { name: "b".into(), ..new_asset("a") }).await.unwrap();
    assert_eq!((reset.id, new, reset.clips, reset.state), (first.id, true, 0, AssetState::Indexing));
    assert_eq!((reset.name.as_str(), reset.error), ("b", None));
    assert!(store.sequence().await.unwrap() > before);
    assert!(store.clips(&ids).await.unwrap().is_empty());
    let unfinished = store.unfinished_assets().await.unwrap();
    assert_eq!(unfinished.iter().map(|a| a.id).collect::<Vec<_>>(), [first.id, other.id]);
    let reused = store.add_clips(first.id, &[clip(0)]).await.unwrap();
    assert!(reused[0] > ids[1], "a clip id must never come back");
    assert_eq!(store.reset_asset(first.id).await.unwrap(), reused);
}

#[tokio::test]
async fn agreements_are_noted_where_a_clip_has_both_tracks() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let (asset, ids) = asset_with(&store, "a", 3).await;
    let silent = NewClip { vectors: clip(7).vectors[..2].to_vec(), ..clip(7) };
    let known = NewClip { agreement: Some(0.25), ..clip(8) };
    store.add_clips(asset.id, &[silent, known]).await.unwrap();
    assert_eq!(store.clips_without_agreement(ClipId(0), 100).await.unwrap(), ids);
    assert_eq!(store.clips_without_agreement(ids[0], 1).await.unwrap(), ids[1..2]);
    store.set_agreements(&[(ids[0], -0.5), (ids[2], 1.0)]).await.unwrap();
    assert_eq!(store.clips_without_agreement(ClipId(0), 100).await.unwrap(), ids[1..2]);
    let found = store.scan_clips(ClipId(0), 100).await.unwrap();
    let agreements: Vec<_> = found.iter().map(|clip| clip.agreement).collect();
    assert_eq!(agreements, [Some(-0.5), None, Some(1.0), None, Some(0.25)]);
}

#[tokio::test]
async fn deleting_an_asset_takes_clips_and_vectors() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let (a, a_ids) = asset_with(&store, "a", 3).await;
    let (b, b_ids) = asset_with(&store, "b", 2).await;
    store.add_clips(a.id, &[clip(9)]).await.unwrap();
    assert_eq!(store.scan_clips(ClipId(0), 100).await.unwrap().len(), 6);
    let gone = store.delete_asset(a.id).await.unwrap();
    assert_eq!(gone.len(), 4);
    assert!(matches!(store.asset(a.id).await, Err(StoreError::NotFound("asset"))));
    assert!(matches!(store.delete_asset(a.id).await, Err(StoreError::NotFound("asset"))));
    assert!(matches!(store.clip_vectors(a_ids[0]).await, Err(StoreError::NotFound("clip"))));
    let (left, _) = store.scan_vectors(Track::Video, &Space::new("fine"), ClipId(0), 100).await.unwrap();
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), b_ids);
    let rows: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM vectors").fetch_one(&store.readers()).await.unwrap();
    assert_eq!(rows, 8);
    assert!(matches!(store.add_clips(a.id, &[clip(0)]).await, Err(StoreError::NotFound("asset"))));
    let found = store.assets(&[a.id, b.id]).await.unwrap();
    assert_eq!(found.iter().map(|asset| asset.id).collect::<Vec<_>>(), [b.id]);
}

#[tokio::test]
async fn a_damaged_vector_is_reported_and_not_returned() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let (_, ids) = asset_with(&store, "a", 40).await;
    let lane = lanes::lane(Track::Video, store.space_index(&Space::new("fine")).unwrap());
    for (n, id) in ids.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        let mut data: Vec<u8> = sqlx::query_scalar("SELECT data FROM vectors WHERE id = ?")
            .bind(lanes::row_id(*id, lane))
            .fetch_one(&store.readers())
            .await
            .unwrap();
        data[n % 64] ^= 1 << (n % 8);
        let mut writer = store.writer().await.unwrap();
        sqlx::query("UPDATE vectors SET data = ? WHERE id = ?")
            .bind(data)
            .bind(lanes::row_id(*id, lane))
            .execute(&mut *writer)
            .await
            .unwrap();
    }
    let (good, bad) = store.scan_vectors(Track::Video, &Space::new("fine"), ClipId(0), 100).await.unwrap();
    assert_eq!(bad, ids.iter().copied().step_by(2).collect::<Vec<_>>());
    assert_eq!(good.len(), 20);
    assert!(matches!(store.clip_vectors(ids[0]).await, Err(StoreError::DamagedVector(id)) if id == ids[0].0));
    assert_eq!(store.scan_vectors(Track::Video, &Space::new("coarse"), ClipId(0), 100).await.unwrap().1, []);
}

#[tokio::test]
async fn one_process_and_one_model_per_folder() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let Err(StoreError::Locked(why)) = SqliteStore::open(dir.path(), &model("m1")).await else {
        panic!("opened twice")
    };
    assert!(why.contains(&format!("process {}", std::process::id())), "{why}");
    store.close().await.unwrap();
    // Nothing is stored yet, so the folder may change its model.
    let store = SqliteStore::open(dir.path(), &model("m0")).await.unwrap();
    store.close().await.unwrap();
    let store = open(&dir).await;
    asset_with(&store, "a", 1).await;
    store.close().await.unwrap();
    let Err(StoreError::OtherModel { found, wanted }) = SqliteStore::open(dir.path(), &model("m2")).await
    else {
        panic!("another model's clips were opened")
    };
    assert_eq!((found.as_str(), wanted.as_str()), ("m1", "m2"));
    assert_eq!(open(&dir).await.totals().await.unwrap().clips, 1);
}

#[tokio::test]
async fn a_thousand_assets_page_newest_first() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let mut ids = Vec::new();
    for n in 0..1000 {
        ids.push(store.begin_asset(new_asset(&format!("{n:04}"))).await.unwrap().0.id);
    }
    ids.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_assets(after, 64).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.iter().map(|a| a.id));
    }
    assert_eq!(seen, ids);
    // The page continues after a deleted asset.
    store.delete_asset(ids[10]).await.unwrap();
    assert_eq!(store.list_assets(Some(ids[10]), 1).await.unwrap()[0].id, ids[11]);
    let every = store.assets(&ids).await.unwrap();
    assert_eq!(every.len(), 999);
}

#[tokio::test]
async fn tracks_of_clips_are_told_without_their_vectors() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let (asset, _) = store.begin_asset(new_asset("a")).await.unwrap();
    let of = |tracks: &[Track], at: usize| {
        let mut clip = clip(at);
        clip.vectors.retain(|one| tracks.contains(&one.track));
        clip
    };
    let clips = [of(&Track::ALL, 0), of(&[Track::Audio], 1), of(&[Track::Video], 2), of(&[], 3)];
    store.add_clips(asset.id, &clips).await.unwrap();
    {
        // Vectors that cannot be read still name their tracks.
        let mut writer = store.writer().await.unwrap();
        sqlx::query("UPDATE vectors SET data = x'00'").execute(&mut *writer).await.unwrap();
    }
    let found = store.clips_with_tracks(asset.id).await.unwrap();
    let tracks: Vec<_> =
        found.iter().map(|(clip, tracks)| (clip.span.start_secs, tracks.as_slice())).collect();
    let (both, sound, picture) = (&Track::ALL[..], &[Track::Audio][..], &[Track::Video][..]);
    assert_eq!(tracks, [(0.0, both), (1.0, sound), (2.0, picture), (3.0, &[][..])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_side_by_side_never_see_busy() {
    let dir = TempDir::new().unwrap();
    let store = std::sync::Arc::new(open(&dir).await);
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let asset = store.begin_asset(new_asset(&format!("w{n}"))).await.unwrap().0;
                for at in 0..10 {
                    store.add_clips(asset.id, &[clip(at)]).await.unwrap();
                    store.clips_of(asset.id).await.unwrap();
                }
                store.finish_asset(asset.id, ready()).await.unwrap().clips
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 10);
    }
    assert_eq!(store.totals().await.unwrap(), Totals { assets: 8, clips: 80, media_secs: 48.0 });
}

/// SQLite ends a transaction by itself if there is no room, but the driver still counts it.
#[tokio::test]
async fn a_store_that_was_full_takes_changes_again() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let asset = store.begin_asset(new_asset("full")).await.unwrap().0.id;
    let many: Vec<_> = (0..2000).map(clip).collect();
    for round in 0..3 {
        // Allow no more pages than there are. A connection that stays open gets room again.
        sqlx::query("PRAGMA max_page_count = 1").execute(&mut *store.writer().await.unwrap()).await.unwrap();
        let full = store.add_clips(asset, &many).await.unwrap_err();
        assert_eq!(full.code(), "storage_full");
        assert!(store.sequence().await.is_ok(), "reads go on");
        let mut writer = store.writer().await.unwrap();
        sqlx::query("PRAGMA max_page_count = 1000000").execute(&mut *writer).await.unwrap();
        drop(writer);
        assert!(store.clips_of(asset).await.unwrap().is_empty(), "{round}: all or nothing");
        store.add_clips(asset, &many[..3]).await.unwrap();
        crate::store::Store::try_write(&store).await.unwrap();
        assert_eq!(store.reset_asset(asset).await.unwrap().len(), 3);
    }
    assert!(crate::store::EmbeddedStore::integrity(&store).await.unwrap().is_empty());
}
