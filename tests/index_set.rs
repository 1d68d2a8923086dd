//! The indexes are a cache of the store: an index file is used only if it is complete and up to date, and
//! committed clips are never missing after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use triptych::index::{IndexSet, IndexSpec, SearchParams};
use triptych::sqlite::SqliteStore;
use triptych::store::{AssetStore, ClipStore, ClipVector, NewAsset, NewClip};
use triptych::types::{AssetId, ClipId, Embedding, ModelId, Space, TimeSpan, Track};

fn model() -> ModelId {
    ModelId("m".into())
}

fn members() -> Vec<IndexSpec> {
    Track::ALL
        .into_iter()
        .flat_map(|track| {
            [
                IndexSpec::new(track, Space::new("fine"), 24),
                IndexSpec::new(track, Space::new("coarse é/.."), 8),
            ]
        })
        .collect()
}

fn vector(n: usize, dim: usize) -> Embedding {
    Embedding::new((0..dim).map(|i| ((n * 131 + i * 17) as f32).sin() + 0.1).collect(), dim).unwrap()
}

fn clip(n: usize) -> NewClip {
    let vectors = members()
        .into_iter()
        .enumerate()
        .map(|(i, one)| ClipVector::new(one.track, one.space, vector(n * 4 + i, one.dim)));
    NewClip {
        span: TimeSpan::new(n as f64, n as f64 + 1.0).unwrap(),
        vectors: vectors.collect(),
        agreement: None,
    }
}

async fn asset(store: &SqliteStore, name: &str) -> AssetId {
    let new = NewAsset {
        given: None,
        sha256: name.into(),
        model: model(),
        segmentation: "w".into(),
        name: name.into(),
        path: name.into(),
        owned: false,
        size_bytes: 1,
        metadata: serde_json::Value::Null,
        choice: Default::default(),
    };
    store.begin_asset(new).await.unwrap().0.id
}

async fn open(dir: &Path, store: &SqliteStore) -> IndexSet {
    IndexSet::open(&dir.join("index"), &model(), &members(), store).await.unwrap()
}

/// Every clip that the store has is found by its own vectors.
async fn assert_complete(set: &IndexSet, store: &SqliteStore, count: usize) {
    for IndexSpec { track, space, .. } in members() {
        let (all, _) = store.scan_vectors(track, &space, ClipId(0), 1_000_000).await.unwrap();
        assert_eq!((all.len(), set.len(track, &space)), (count, count));
        for (id, vector) in all {
            let found = set.search(track, &space, &vector, 1, SearchParams::default(), None).unwrap();
            assert_eq!(found[0].clip, id);
        }
    }
}

fn snapshots(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir.join("index")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn snapshots_are_used_only_when_whole_and_current() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), &model()).await.unwrap();
    let set = open(dir.path(), &store).await;
    assert!(set.is_empty());
    let asset = asset(&store, "a").await;
    let clips: Vec<_> = (0..40).map(clip).collect();
    let ids = store.add_clips(asset, &clips).await.unwrap();
    for (id, clip) in ids.iter().zip(&clips) {
        set.upsert(*id, &clip.vectors).unwrap();
    }
    set.snapshot(&store).await.unwrap();
    assert_eq!(snapshots(dir.path()).len(), 4);
    // An unchanged library is not written again.
    let kept = std::fs::metadata(&snapshots(dir.path())[0]).unwrap().modified().unwrap();
    set.snapshot(&store).await.unwrap();
    assert_eq!(std::fs::metadata(&snapshots(dir.path())[0]).unwrap().modified().unwrap(), kept);
    drop(set);
    assert_complete(&open(dir.path(), &store).await, &store, 40).await;

    // Loaded, not rebuilt: a snapshot of other vectors under the right stamp would be believed,
    // which is why it carries a checksum; one flipped byte and the store is read instead.
    for (n, path) in snapshots(dir.path()).iter().enumerate() {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() * n / 4 + 3;
        bytes[at] ^= 4;
        std::fs::write(path, bytes).unwrap();
    }
    assert_complete(&open(dir.path(), &store).await, &store, 40).await;

    // Committed after the snapshot, then a crash: the snapshot is stale.
    let set = open(dir.path(), &store).await;
    set.snapshot(&store).await.unwrap();
    store.add_clips(asset, &[clip(40)]).await.unwrap();
    drop(set);
    assert_complete(&open(dir.path(), &store).await, &store, 41).await;

    // Deleted assets stay gone.
    let set = open(dir.path(), &store).await;
    set.remove(&store.delete_asset(asset).await.unwrap());
    set.snapshot(&store).await.unwrap();
    assert!(set.is_empty() && open(dir.path(), &store).await.is_empty());
}

#[tokio::test]
async fn a_commit_the_index_has_not_seen_is_never_stamped_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), &model()).await.unwrap();
    let set = open(dir.path(), &store).await;
    let asset = asset(&store, "a").await;
    let ids = store.add_clips(asset, &[clip(0)]).await.unwrap();
    let error = set.snapshot(&store).await.unwrap_err();
    assert_eq!(error.code(), "snapshot_failed");
    assert!(snapshots(dir.path()).is_empty());
    set.upsert(ids[0], &clip(0).vectors).unwrap();
    set.snapshot(&store).await.unwrap();
    assert_eq!(snapshots(dir.path()).len(), 4);
    let unknown = [ClipVector::new(Track::Video, Space::new("other"), vector(0, 8))];
    assert_eq!(set.upsert(ids[0], &unknown).unwrap_err().code(), "no_such_index");
}

#[tokio::test]
async fn another_models_snapshot_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), &model()).await.unwrap();
    let set = open(dir.path(), &store).await;
    set.snapshot(&store).await.unwrap();
    let asset = asset(&store, "a").await;
    let ids = store.add_clips(asset, &[clip(0)]).await.unwrap();
    set.upsert(ids[0], &clip(0).vectors).unwrap();
    set.snapshot(&store).await.unwrap();
    let other = ModelId("n".into());
    let folder = dir.path().join("index");
    let set = IndexSet::open(&folder, &other, &members(), &store).await.unwrap();
    // Rebuilt from the store, which is the one to refuse another model.
    assert_eq!(set.len(Track::Video, &Space::new("fine")), 1);
    let narrower = [IndexSpec::new(Track::Video, Space::new("fine"), 12)];
    let set = IndexSet::open(&folder, &model(), &narrower, &store).await.unwrap();
    assert_eq!(set.damaged(), ids);
    assert!(set.is_empty());
}
