//! What standing queries cost: all of them asked about one new asset, against as many ordinary searches of
//! the whole library, which is what somebody without them would run after every asset.
//!
//! Times are of the processor, of one thread. `cargo bench --bench standing`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use cpu_time::ProcessTime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use triptych::catalog::{Catalog, ClipEntry};
use triptych::index::IndexSet;
use triptych::search::{
    Backgrounds, Comparable, Corpus, Distributions, Lane, Least, QueryPart, SearchRequest, Standing, Verdict,
    ask, run,
};
use triptych::store::{AssetRecord, AssetState, SqliteStore};
use triptych::types::{AssetId, AssetKind, ClipId, Embedding, Modality, ModelId, Space, TimeSpan, Track};

const DIM: usize = 256;
const CLIPS: usize = 20_000;
const CLIPS_PER_ASSET: usize = 20;
const QUERIES: usize = 10_000;
const SEARCHES: usize = 200;

fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let (corpus, assets, _dir) = filled(&mut rng);
    for (name, filter) in [
        ("no filter", json!({})),
        ("a filter that keeps a half", json!({"must": [{"key": "metadata.shelf", "eq": 0}]})),
    ] {
        let requests: Vec<SearchRequest> = (0..QUERIES)
            .map(|_| {
                let part = QueryPart {
                    modality: Modality::Text,
                    vectors: BTreeMap::from([(Space::new("coarse"), vector(&mut rng))]),
                    weight: 1.0,
                    words: 3,
                };
                let filter = serde_json::from_value(filter.clone()).unwrap();
                SearchRequest { filter, ..SearchRequest::new(vec![part]) }
            })
            .collect();
        let standing: Vec<Standing> = requests
            .iter()
            .map(|request| {
                Standing::new(&corpus.comparable, request.clone(), Least::Confidence(0.9)).unwrap()
            })
            .collect();
        let begun = ProcessTime::now();
        let mut fired = 0;
        for id in &assets[..20] {
            let asset = corpus.catalog.asset(*id).unwrap();
            let verdicts = ask(&corpus, &asset, &standing);
            fired += verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Matches(_))).count();
        }
        let asked = begun.elapsed().as_secs_f64() / 20.0;
        let begun = ProcessTime::now();
        for request in &requests[..SEARCHES] {
            black_box(run(&corpus, request).unwrap());
        }
        let searched = begun.elapsed().as_secs_f64() / SEARCHES as f64 * QUERIES as f64;
        println!(
            "{QUERIES} standing queries, an asset of {CLIPS_PER_ASSET} clips, {name}: {:.1} ms ({:.0} ns a query and \
             clip; {:.1} queries fired); as many searches of {CLIPS} clips: {:.1} s, {:.0} times as much",
            asked * 1e3,
            asked * 1e9 / (QUERIES * CLIPS_PER_ASSET) as f64,
            f64::from(fired as u32) / 20.0,
            searched,
            searched / asked
        );
    }
}

fn vector(rng: &mut StdRng) -> Embedding {
    let values = (0..DIM).map(|_| (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum()).collect();
    Embedding::new(values, DIM).unwrap()
}

fn record(n: usize) -> AssetRecord {
    AssetRecord {
        id: AssetId::generate(),
        sha256: String::new(),
        name: format!("film-{n}.mp4"),
        path: String::new(),
        owned: false,
        size_bytes: 1,
        kind: Some(AssetKind::Video),
        duration_secs: 64.0,
        width: 64,
        height: 64,
        state: AssetState::Ready,
        error: None,
        metadata: json!({"shelf": n % 2}),
        clips: 0,
        created_unix_ms: 0,
        updated_unix_ms: 0,
    }
}

/// A library, and what scores mean in it: confidence is told of every query.
fn filled(rng: &mut StdRng) -> (Corpus, Vec<AssetId>, tempfile::TempDir) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (model, space) = (ModelId("bench".into()), Space::new("coarse"));
    let index = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = SqliteStore::open(dir.path(), &model).await.unwrap();
        IndexSet::open(&dir.path().join("index"), &model, &[(Track::Video, space.clone(), DIM)], &store).await
    });
    let (index, catalog, mut assets) = (index.unwrap(), Catalog::default(), Vec::new());
    for n in 0..CLIPS / CLIPS_PER_ASSET {
        let record = record(n);
        catalog.put_asset(&record);
        assets.push(record.id);
        let clip = |at: usize| ClipEntry {
            id: ClipId((n * CLIPS_PER_ASSET + at) as i64 + 1),
            span: TimeSpan::new(at as f64 * 3.2, at as f64 * 3.2 + 3.2).unwrap(),
            agreement: None,
        };
        let clips: Vec<ClipEntry> = (0..CLIPS_PER_ASSET).map(clip).collect();
        catalog.add_clips(record.id, &clips);
        for clip in clips {
            index.upsert(clip.id, &[(Track::Video, space.clone(), vector(rng))]).unwrap();
        }
    }
    let backgrounds = Backgrounds::default();
    let lane = Lane { query: Modality::Text, words: 3, space: space.clone(), target: Track::Video };
    let scores = (0..96).map(|n| 0.18 + n as f32 * 0.001).collect();
    backgrounds.replace(Distributions {
        clips: CLIPS,
        lanes: BTreeMap::from([(lane, scores)]),
        banks: BTreeMap::default(),
    });
    let corpus = Corpus {
        catalog: Arc::new(catalog),
        index: Arc::new(index),
        comparable: Arc::new(Comparable::new([&space], |_, _| true)),
        backgrounds: Arc::new(backgrounds),
    };
    (corpus, assets, dir)
}
