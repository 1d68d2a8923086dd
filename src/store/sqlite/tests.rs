#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::{AssetState, WorkState};
use crate::types::{AssetKind, TimeSpan};

fn model(name: &str) -> ModelId {
    ModelId(name.into())
}

async fn open(dir: &TempDir) -> SqliteStore {
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
            (Track::Video, fine.clone(), vector(at * 4, 16)),
            (Track::Video, coarse.clone(), vector(at * 4 + 1, 8)),
            (Track::Audio, fine, vector(at * 4 + 2, 16)),
            (Track::Audio, coarse, vector(at * 4 + 3, 8)),
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

async fn asset_with(store: &SqliteStore, sha: &str, clips: usize) -> (AssetRecord, Vec<ClipId>) {
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
        found.sort_by_key(|(t, s, _)| (*t as u8, s.clone()));
        put.sort_by_key(|(t, s, _)| (*t as u8, s.clone()));
        assert_eq!(found, put);
    }
    let (vectors, bad) = store.scan_vectors(Track::Audio, &Space::new("fine"), ClipId(0), 2).await.unwrap();
    assert_eq!(vectors.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[..2]);
    assert_eq!(vectors[1].1, clip(1).vectors[2].2);
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

    let failed = AssetOutcome { state: AssetState::Failed, error: Some(("x".into(), "y".into())), ..ready() };
    assert_eq!(store.finish_asset(first.id, failed).await.unwrap().error, Some(("x".into(), "y".into())));
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
        clip.vectors.retain(|(track, ..)| tracks.contains(track));
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

fn items(n: usize) -> Vec<NewItem> {
    (0..n).map(|i| NewItem::new(format!("/f{i}"), json!({ "i": i }))).collect()
}

#[tokio::test]
async fn jobs_are_claimed_in_order_counted_once_and_end_with_their_last_item() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let request = json!({"path": "/x"});
    let first = store.create_job("index", &request, &items(300), Some("key")).await.unwrap();
    let same = store.create_job("index", &request, &items(2), Some("key")).await.unwrap();
    assert_eq!((same.id, same.items_total), (first.id, 300));
    let second = store.create_job("index", &request, &items(1), None).await.unwrap();
    assert_eq!(
        store.list_jobs(None, None, 9).await.unwrap().iter().map(|j| j.id).collect::<Vec<_>>(),
        [second.id, first.id]
    );
    let (asset, _) = asset_with(&store, "a", 1).await;

    for seq in 0..300 {
        let (job, mut item) = store.claim_item().await.unwrap().unwrap();
        assert_eq!((job, item.seq, item.state), (first.id, seq, WorkState::Running));
        assert_eq!(item.metadata, json!({ "i": seq }));
        item.state = if seq == 5 { WorkState::Failed } else { WorkState::Done };
        (item.asset, item.clips, item.media_secs) = (Some(asset.id), 2, 6.4);
        let now = store.finish_item(job, &item).await.unwrap();
        let again = store.finish_item(job, &item).await.unwrap();
        assert_eq!((again.items_done, again.clips), (now.items_done, now.clips), "counted twice");
        assert_eq!(now.state, if seq == 299 { WorkState::Done } else { WorkState::Running });
    }
    let done = store.job(first.id).await.unwrap();
    assert_eq!((done.items_done, done.items_failed, done.clips), (299, 1, 600));
    assert!((done.media_secs - 1920.0).abs() < 1e-6 && done.ended_unix_ms >= done.started_unix_ms);
    let page = store.job_items(first.id, None, 4, 2).await.unwrap();
    assert_eq!(
        page.iter().map(|i| (i.seq, i.state)).collect::<Vec<_>>(),
        [(5, WorkState::Failed), (6, WorkState::Done)]
    );

    let (job, mut item) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(job, second.id);
    item.state = WorkState::Failed;
    let failed = store.finish_item(job, &item).await.unwrap();
    assert_eq!((failed.state, failed.error.unwrap().0.as_str()), (WorkState::Failed, "all_items_failed"));
    assert!(store.claim_item().await.unwrap().is_none());
    let left_out =
        NewItem { skipped: Some(("hidden".into(), "x".into())), ..NewItem::new("/.h".into(), json!({})) };
    let nothing = store.create_job("index", &request, std::slice::from_ref(&left_out), None).await.unwrap();
    assert_eq!((nothing.state, nothing.items_total, nothing.items_skipped), (WorkState::Failed, 1, 1));
    assert_eq!(nothing.error.unwrap().0, "no_media");
    let some = store.create_job("index", &request, &[items(1), vec![left_out]].concat(), None).await.unwrap();
    let (job, mut item) = store.claim_item().await.unwrap().unwrap();
    (item.state, item.error) = (WorkState::Done, Some(("truncated".into(), "x".into())));
    let ended = store.finish_item(job, &item).await.unwrap();
    assert_eq!((ended.id, ended.state), (some.id, WorkState::Done));
    assert_eq!((ended.items_done, ended.items_skipped, ended.items_partial), (1, 1, 1));
    let told = &store.job_items(some.id, None, 0, 9).await.unwrap()[0];
    assert_eq!((told.state, told.error.as_ref().unwrap().0.as_str()), (WorkState::Skipped, "hidden"));
}

#[tokio::test]
async fn items_that_were_put_off_wait_for_their_time() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let job = store.create_job("index", &json!({}), &items(2), None).await.unwrap().id;
    let (_, mut item) = store.claim_item().await.unwrap().unwrap();
    (item.state, item.attempts) = (WorkState::Queued, 1);
    item.not_before_unix_ms = i64::MAX;
    item.error = Some(("io".into(), "for now".into()));
    assert_eq!(store.finish_item(job, &item).await.unwrap().state, WorkState::Running);
    let (_, mut other) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(other.seq, 1, "another one is taken meanwhile");
    other.state = WorkState::Done;
    assert_eq!(store.finish_item(job, &other).await.unwrap().state, WorkState::Running);
    assert!(store.claim_item().await.unwrap().is_none());
    // After a start, the time already waited is unknown.
    drop(store);
    let store = open(&dir).await;
    assert_eq!(store.requeue_running().await.unwrap(), 0);
    let (_, mut again) = store.claim_item().await.unwrap().unwrap();
    assert_eq!((again.seq, again.attempts), (0, 1));
    again.state = WorkState::Failed;
    let ended = store.finish_item(job, &again).await.unwrap();
    assert_eq!((ended.state, ended.items_done, ended.items_failed), (WorkState::Done, 1, 1));

    let (retried, count) = store.retry_failed(job).await.unwrap();
    assert_eq!(
        (retried.state, retried.items_failed, retried.ended_unix_ms, count),
        (WorkState::Running, 0, 0, 1)
    );
    let (_, mut last) = store.claim_item().await.unwrap().unwrap();
    assert_eq!((last.seq, last.attempts, last.error.is_none()), (0, 0, true));
    last.state = WorkState::Done;
    let ended = store.finish_item(job, &last).await.unwrap();
    assert_eq!((ended.state, ended.items_done, ended.items_failed), (WorkState::Done, 2, 0));
    assert_eq!(store.retry_failed(job).await.unwrap().1, 0);
}

#[tokio::test]
async fn a_paused_job_lets_others_by() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let first = store.create_job("index", &json!({}), &items(2), None).await.unwrap().id;
    let second = store.create_job("index", &json!({}), &items(1), None).await.unwrap().id;
    let (job, mut running) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(job, first);
    assert_eq!(store.pause_job(first, true).await.unwrap().state, WorkState::Paused);
    assert_eq!(store.claim_item().await.unwrap().unwrap().0, second);
    assert!(store.claim_item().await.unwrap().is_none());
    // Running items finish, and the job stays paused over a restart.
    running.state = WorkState::Done;
    assert_eq!(store.finish_item(first, &running).await.unwrap().state, WorkState::Paused);
    drop(store);
    let store = open(&dir).await;
    store.requeue_running().await.unwrap();
    let (job, mut other) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(job, second);
    other.state = WorkState::Done;
    assert_eq!(store.finish_item(second, &other).await.unwrap().state, WorkState::Done);
    assert_eq!(store.pause_job(second, true).await.unwrap().state, WorkState::Done, "it has ended");
    assert_eq!(store.pause_job(first, false).await.unwrap().state, WorkState::Running);
    let (_, mut last) = store.claim_item().await.unwrap().unwrap();
    assert_eq!(store.pause_job(first, true).await.unwrap().state, WorkState::Paused);
    last.state = WorkState::Done;
    assert_eq!(store.finish_item(first, &last).await.unwrap().state, WorkState::Done, "nothing is left");
    let third = store.create_job("index", &json!({}), &items(1), None).await.unwrap().id;
    assert_eq!(store.pause_job(third, true).await.unwrap().state, WorkState::Paused);
    let cancelled = store.cancel_job(third).await.unwrap();
    assert!(cancelled.state == WorkState::Cancelled && cancelled.ended_unix_ms > 0);
}

#[tokio::test]
async fn cancelled_and_crashed_jobs_settle() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let job = store.create_job("index", &json!({}), &items(4), None).await.unwrap().id;
    let (_, mut a) = store.claim_item().await.unwrap().unwrap();
    let (_, mut b) = store.claim_item().await.unwrap().unwrap();
    let cancelled = store.cancel_job(job).await.unwrap();
    assert_eq!((cancelled.state, cancelled.ended_unix_ms), (WorkState::Cancelled, 0));
    assert!(store.claim_item().await.unwrap().is_none());
    a.state = WorkState::Done;
    assert_eq!(store.finish_item(job, &a).await.unwrap().ended_unix_ms, 0);
    // Handed back to a cancelled job: nobody may claim it again.
    b.state = WorkState::Queued;
    let ended = store.finish_item(job, &b).await.unwrap();
    assert_eq!((ended.state, ended.items_done), (WorkState::Cancelled, 1));
    assert!(ended.ended_unix_ms > 0);
    assert!(store.claim_item().await.unwrap().is_none());

    let live = store.create_job("index", &json!({}), &items(2), None).await.unwrap().id;
    let gone = store.create_job("index", &json!({}), &items(1), None).await.unwrap().id;
    for _ in 0..3 {
        store.claim_item().await.unwrap().unwrap();
    }
    store.cancel_job(gone).await.unwrap();
    drop(store);
    let store = open(&dir).await;
    assert_eq!(store.requeue_running().await.unwrap(), 2);
    assert_eq!(store.job(gone).await.unwrap().state, WorkState::Cancelled);
    assert!(store.job(gone).await.unwrap().ended_unix_ms > 0);
    assert_eq!(store.claim_item().await.unwrap().unwrap().0, live);
    assert!(matches!(store.cancel_job(JobId::generate()).await, Err(StoreError::NotFound("job"))));
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
        crate::store::Upkeep::try_write(&store).await.unwrap();
        assert_eq!(store.reset_asset(asset).await.unwrap().len(), 3);
    }
    assert!(crate::store::Checks::integrity(&store).await.unwrap().is_empty());
}
