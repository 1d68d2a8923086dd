//! Copies of a store, bulk deletion and compaction, beside writers and readers. Prints the figures of
//! docs/measurements/upkeep.md: `cargo test --test store_upkeep -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use triptych::sqlite::{SqliteStore, StoreCopy};
use triptych::store::{
    AssetStore, ClipStore, ClipVector, EmbeddedStore, NewAsset, NewClip, RetentionRule, RetentionStore, Store,
};
use triptych::types::{AssetId, ClipId, Embedding, ModelId, Space, TimeSpan, Track};

fn model() -> ModelId {
    ModelId("m".into())
}

fn clip(n: usize, dim: usize) -> NewClip {
    let vector = |lane: usize| {
        Embedding::new((0..dim).map(|i| ((n * 4 + lane) * dim + i) as f32 % 97.0 - 48.5).collect(), dim)
            .unwrap()
    };
    NewClip {
        span: TimeSpan::new(n as f64, n as f64 + 1.0).unwrap(),
        vectors: vec![
            ClipVector::new(Track::Video, Space::new("fine"), vector(0)),
            ClipVector::new(Track::Audio, Space::new("fine"), vector(1)),
        ],
        agreement: Some(0.5),
    }
}

async fn asset(store: &SqliteStore, n: usize, clips: usize, dim: usize) -> AssetId {
    let sha256 = format!("{n:064x}");
    let new = NewAsset {
        given: None,
        choice: Default::default(),
        path: format!("/old/uploads/{}/{sha256}-0011aabb", &sha256[..2]),
        sha256,
        model: model(),
        segmentation: "w".into(),
        name: format!("{n}.mp4"),
        owned: n.is_multiple_of(2),
        size_bytes: 5,
        metadata: serde_json::json!({}),
    };
    let id = store.begin_asset(new).await.unwrap().0.id;
    let clips: Vec<_> = (0..clips).map(|at| clip(at, dim)).collect();
    store.add_clips(id, &clips).await.unwrap();
    id
}

async fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, &model()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_of_one_moment_between_two_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&dir.path().join("data")).await);
    asset(&store, 0, 200, 64).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        async move {
            for n in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return n - 1;
                }
                asset(&store, n, 3, 64).await;
            }
            0
        }
    });
    let mut last = 0;
    for n in 0..5 {
        let path = dir.path().join(format!("copy-{n}.db"));
        store.copy_to(&path).await.unwrap();
        let mut copy = StoreCopy::open(&path).await.unwrap();
        let facts = copy.facts().await.unwrap();
        assert_eq!(facts.model, model());
        // An asset's clips come in one transaction, and every transaction counts.
        assert_eq!(facts.clips % 3, 200 % 3);
        assert_eq!(facts.sequence as u64, 1 + (facts.clips - 200) / 3);
        assert!(facts.assets >= last);
        last = facts.assets;
        let assets = copy.assets(0, 1_000_000).await.unwrap();
        assert_eq!(assets.len() as u64, facts.assets);
        assert_eq!(assets.iter().filter(|asset| !asset.owned).count() as u64, facts.by_path);
        assert!(store.copy_to(&path).await.is_err(), "nothing is written over");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0);
}

#[tokio::test]
async fn assets_go_together_and_their_space_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(asset(&store, n, 50, 512).await);
    }
    let before = store.space().await.unwrap();
    assert!(before.releases, "a new store gives back little by little");
    let sequence = store.sequence().await.unwrap();
    let missing = AssetId::generate();
    let gone = store.delete_assets(&[ids[0], missing, ids[1]]).await.unwrap();
    assert_eq!(gone.iter().map(|asset| asset.id).collect::<Vec<_>>(), [ids[0], ids[1]]);
    assert_eq!(gone[0].clips, (1..=50).map(ClipId).collect::<Vec<_>>());
    assert!(gone[0].owned_path.as_deref().unwrap().ends_with("-0011aabb") && gone[1].owned_path.is_none());
    assert!(store.sequence().await.unwrap() > sequence);
    store.delete_assets(&ids[2..30]).await.unwrap();
    assert_eq!(store.totals().await.unwrap().assets, 10);
    assert_eq!(store.vector_census(Track::Video, &Space::new("fine")).await.unwrap().clips, 500);

    let free = store.space().await.unwrap().free_bytes;
    assert!(free > 0);
    store.release_pages(8).await.unwrap();
    let some = store.space().await.unwrap().free_bytes;
    assert!(some < free && some > 0, "{some} of {free}");
    while store.space().await.unwrap().free_bytes > 0 {
        store.release_pages(64).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    store.rewrite().await.unwrap();
    let after = store.space().await.unwrap();
    assert!(after.file_bytes * 2 < before.file_bytes, "{before:?} {after:?}");
    let (good, bad) = store.scan_vectors(Track::Audio, &Space::new("fine"), ClipId(0), 9999).await.unwrap();
    assert_eq!((good.len(), bad.len()), (500, 0));

    // Our own copies are looked for where the folder is now; the user's files stay where they were.
    assert_eq!(store.adopt_uploads(Path::new("/new/uploads")).await.unwrap(), 5);
    assert_eq!(store.adopt_uploads(Path::new("/new/uploads")).await.unwrap(), 0);
    let own = store.asset(ids[30]).await.unwrap();
    assert_eq!(own.path, format!("/new/uploads/00/{}-0011aabb", own.sha256));
    assert!(store.asset(ids[31]).await.unwrap().path.starts_with("/old/"));
    store.close().await.unwrap();
    let store = SqliteStore::open_locked(dir.path(), None).await.unwrap();
    assert_eq!(store.totals().await.unwrap().assets, 10);
}

#[tokio::test]
async fn an_older_store_gives_back_once_it_is_written_anew() {
    use sqlx::{ConnectOptions, Connection};
    let dir = tempfile::tempdir().unwrap();
    let file = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(dir.path().join("triptych.db"))
        .page_size(16_384)
        .create_if_missing(true);
    let mut older = file.connect().await.unwrap();
    sqlx::query("CREATE TABLE before (a)").execute(&mut older).await.unwrap();
    older.close().await.unwrap();
    let store = open(dir.path()).await;
    let id = asset(&store, 0, 500, 512).await;
    asset(&store, 1, 10, 512).await;
    store.delete_assets(&[id]).await.unwrap();
    let before = store.space().await.unwrap();
    assert!(!before.releases && before.free_bytes > 0, "{before:?}");
    // Asked for nevertheless it does no harm.
    store.release_pages(64).await.unwrap();
    assert_eq!(store.space().await.unwrap().free_bytes, before.free_bytes);
    store.rewrite().await.unwrap();
    let after = store.space().await.unwrap();
    assert!(after.releases && after.free_bytes == 0 && after.file_bytes < before.file_bytes, "{after:?}");
    store.close().await.unwrap();
    let store = open(dir.path()).await;
    assert!(store.space().await.unwrap().releases);
    assert_eq!(store.vector_census(Track::Video, &Space::new("fine")).await.unwrap().clips, 10);
}

#[tokio::test]
async fn rules_and_runs_of_retention_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let rule = |name: &str| RetentionRule {
        name: name.into(),
        filter: serde_json::json!({"must": [{"key": "name", "eq": name}]}),
        older_than_secs: 5,
        by: "created".into(),
    };
    store.set_retention_rules(&[rule("a"), rule("b"), rule("c")]).await.unwrap();
    store.set_retention_rules(&[rule("c"), rule("a")]).await.unwrap();
    let mut run = store.begin_retention_run().await.unwrap();
    (run.assets, run.clips, run.by_rule) = (2, 9, serde_json::json!({"a": 2}));
    store.note_retention_run(&run).await.unwrap();
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(store.retention_rules().await.unwrap(), [rule("c"), rule("a")]);
    // Cut off: it has no end.
    assert_eq!(store.retention_runs(9).await.unwrap(), [run.clone()]);
    let next = store.begin_retention_run().await.unwrap();
    assert!(next.n > run.n && store.retention_runs(1).await.unwrap() == [next]);
}

/// Longest time that something took which was done over and over meanwhile.
fn longest<F>(
    stop: &Arc<AtomicBool>,
    mut once: impl FnMut(usize) -> F + Send + 'static,
) -> tokio::task::JoinHandle<Duration>
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let began = Instant::now();
            once(n).await;
            longest = longest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        longest
    })
}

/// Runs some upkeep beside a writer and a reader and prints how long it took and how long they waited.
async fn measured<T>(what: &str, store: &Arc<SqliteStore>, upkeep: impl Future<Output = T>) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let spare = asset(store, 1_000_000 + what.len(), 0, 768).await;
    let (writes, reads) = (Arc::clone(store), Arc::clone(store));
    let writer = longest(&stop, move |n| {
        let store = Arc::clone(&writes);
        async move { drop(store.add_clips(spare, &[clip(n, 768)]).await.unwrap()) }
    });
    let reader = longest(&stop, move |_| {
        let store = Arc::clone(&reads);
        async move { drop(store.list_assets(None, 50).await.unwrap()) }
    });
    let began = Instant::now();
    let done = upkeep.await;
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (writer, reader) = (writer.await.unwrap(), reader.await.unwrap());
    let space = store.space().await.unwrap();
    println!(
        "{what}: {:.2} s; a writer waited at most {:.0} ms, a reader {:.0} ms; file {} MB, free {} MB",
        took.as_secs_f64(),
        writer.as_secs_f64() * 1e3,
        reader.as_secs_f64() * 1e3,
        space.file_bytes >> 20,
        space.free_bytes >> 20
    );
    done
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; prints the figures of docs/measurements/upkeep.md"]
async fn upkeep_of_a_hundred_thousand_clips() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Arc::new(open(&dir.path().join("data")).await);
    let mut ids = Vec::new();
    for n in 0..2000 {
        ids.push(asset(&store, n, 50, 768).await);
    }
    let copy = dir.path().join("copy.db");
    measured("copy of 100,000 clips", &store, async { store.copy_to(&copy).await.unwrap() }).await;
    std::fs::remove_file(&copy).unwrap();
    measured("deletion of 50,000 clips, ten assets a transaction", &store, async {
        // Every other asset: what goes lies all over the file.
        let half: Vec<_> = ids.iter().copied().step_by(2).collect();
        for batch in half.chunks(10) {
            store.delete_assets(batch).await.unwrap();
        }
    })
    .await;
    measured("half of the free pages given back, 256 a transaction", &store, async {
        let half = store.space().await.unwrap().free_bytes / 2;
        while store.space().await.unwrap().free_bytes > half {
            store.release_pages(256).await.unwrap();
        }
        store.checkpoint().await.unwrap();
    })
    .await;
    measured("written anew", &store, async { store.rewrite().await.unwrap() }).await;
    let big = asset(&store, 5_000_000, 27_000, 768).await;
    measured("deletion of one asset of 27,000 clips", &store, async {
        store.delete_assets(&[big]).await.unwrap();
    })
    .await;
}
