//! A clip the store has acknowledged is there after `kill -9`, whatever it was doing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use triptych::sqlite::SqliteStore;
use triptych::store::{AssetStore, ClipStore, ClipVector, NewAsset, NewClip};
use triptych::types::{AssetId, ClipId, Embedding, ModelId, Space, TimeSpan, Track};

const CHILD_FOLDER: &str = "TRIPTYCH_TEST_CRASH_FOLDER";

fn model() -> ModelId {
    ModelId("m".into())
}

fn clip(n: usize) -> NewClip {
    let values = (0..512).map(|i| ((n * 512 + i) as f32).sin() + 1.5).collect();
    let vector = Embedding::new(values, 512).unwrap();
    NewClip {
        span: TimeSpan::new(n as f64, n as f64 + 1.0).unwrap(),
        vectors: vec![ClipVector::new(Track::Video, Space::new("fine"), vector)],
        agreement: None,
    }
}

/// The child: writes clips for ever and says which ones are acknowledged.
#[tokio::test]
async fn write_until_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = SqliteStore::open(Path::new(&folder), &model()).await.unwrap();
    let new = NewAsset {
        given: None,
        sha256: AssetId::generate().to_string(),
        model: model(),
        segmentation: "w".into(),
        name: "n".into(),
        path: "p".into(),
        owned: false,
        size_bytes: 1,
        metadata: serde_json::Value::Null,
        choice: Default::default(),
    };
    let asset = store.begin_asset(new).await.unwrap().0.id;
    for n in (0..).step_by(3) {
        let ids = store.add_clips(asset, &[clip(n), clip(n + 1), clip(n + 2)]).await.unwrap();
        for (id, n) in ids.iter().zip(n..) {
            println!("acknowledged {} {n}", id.0);
        }
    }
}

#[tokio::test]
async fn acknowledged_clips_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(ClipId, usize)> = Vec::new();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--nocapture"])
            .env(CHILD_FOLDER, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut heard = 0;
        for line in lines.by_ref() {
            let Some(rest) = line.split("acknowledged ").nth(1) else { continue };
            let (id, n) = rest.split_once(' ').unwrap();
            acknowledged.push((ClipId(id.parse().unwrap()), n.parse().unwrap()));
            heard += 1;
            if heard == 60 + round * 31 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(heard >= 60, "the child wrote only {heard} clips");

        let store = SqliteStore::open(dir.path(), &model()).await.unwrap();
        let (found, damaged) =
            store.scan_vectors(Track::Video, &Space::new("fine"), ClipId(0), 1_000_000).await.unwrap();
        assert!(damaged.is_empty());
        for (id, n) in &acknowledged {
            let at = found.binary_search_by_key(id, |(id, _)| *id).expect("an acknowledged clip is gone");
            assert_eq!(found[at].1, clip(*n).vectors[0].vector);
        }
        // Transactions are whole: clips come in threes, and each has its vector.
        assert_eq!(found.len() % 3, 0);
        assert_eq!(store.totals().await.unwrap().clips, found.len() as u64);
        assert_eq!(store.unfinished_assets().await.unwrap().len() as i32, round + 1);
        store.close().await.unwrap();
    }
}
