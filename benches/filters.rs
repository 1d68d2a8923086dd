//! A search whose filter keeps 1 % of 100,000 clips, from the filter as JSON means it to named hits,
//! against the exact scan over just those clips, their ids given.
//!
//! Times are of the processor, of one thread, the kinds interleaved. `cargo bench --bench filters`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use cpu_time::ProcessTime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use triptych::catalog::{Catalog, ClipEntry, Filter, Selection};
use triptych::index::{ClipFilter, IndexSet, SearchParams};
use triptych::search::{Comparable, Corpus, QueryPart, SearchRequest, run};
use triptych::store::{AssetRecord, AssetState, SqliteStore};
use triptych::types::{AssetId, AssetKind, ClipId, Embedding, Modality, ModelId, Space, TimeSpan, Track};

const DIM: usize = 256;
const CLIPS: usize = 100_000;
const ROUNDS: usize = 200;

fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    for clips_per_asset in [1, 20, 500] {
        compare(clips_per_asset);
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
        duration_secs: n as f64,
        width: 64,
        height: 64,
        state: AssetState::Ready,
        error: None,
        metadata: json!({"shelf": n % 100, "tags": ["a", format!("t{}", n % 7)], "title": format!("film {n}")}),
        clips: 0,
        created_unix_ms: n as i64 * 60_000,
        updated_unix_ms: 0,
    }
}

fn filled(clips_per_asset: usize, rng: &mut StdRng) -> (Corpus, tempfile::TempDir) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (model, space) = (ModelId("bench".into()), Space::new("coarse"));
    let index = runtime.block_on(async {
        let store = SqliteStore::open(dir.path(), &model).await.unwrap();
        IndexSet::open(&dir.path().join("index"), &model, &[(Track::Video, space.clone(), DIM)], &store).await
    });
    let (index, catalog) = (index.unwrap(), Catalog::default());
    for n in 0..CLIPS / clips_per_asset {
        let record = record(n);
        catalog.put_asset(&record);
        let clip = |at: usize| ClipEntry {
            id: ClipId((n * clips_per_asset + at) as i64 + 1),
            span: TimeSpan::new(at as f64 * 3.2, at as f64 * 3.2 + 3.2).unwrap(),
            agreement: None,
        };
        let clips: Vec<ClipEntry> = (0..clips_per_asset).map(clip).collect();
        catalog.add_clips(record.id, &clips);
        for clip in clips {
            index.upsert(clip.id, &[(Track::Video, space.clone(), vector(rng))]).unwrap();
        }
    }
    let corpus = Corpus {
        catalog: Arc::new(catalog),
        index: Arc::new(index),
        comparable: Arc::new(Comparable::new([&space], |_, _| true)),
        backgrounds: Arc::default(),
    };
    (corpus, dir)
}

fn compare(clips_per_asset: usize) {
    let mut rng = StdRng::seed_from_u64(5);
    let (corpus, _dir) = filled(clips_per_asset, &mut rng);
    let space = Space::new("coarse");
    for (name, filter) in [
        ("one value of a key", json!({"must": [{"key": "metadata.shelf", "eq": 17}]})),
        (
            "a range, and tags left out",
            json!({
            "must": [{"key": "duration_secs", "lt": CLIPS / clips_per_asset / 14}],
            "must_not": [{"key": "metadata.tags", "in": ["t0", "t1", "t2", "t3", "t4", "t5"]}]}),
        ),
    ] {
        let filter: Filter = serde_json::from_value(filter).unwrap();
        let selection = corpus.catalog.select(&filter);
        let Selection::Only(ids) = &*selection else { panic!("the filter keeps too much") };
        let only = ClipFilter::Only(ids.clone());
        let other = record(1);
        let mut secs = [0.0; 3];
        for _ in 0..ROUNDS {
            let query = vector(&mut rng);
            let mut clock = |kind: usize, work: &mut dyn FnMut()| {
                let begun = ProcessTime::now();
                work();
                secs[kind] += begun.elapsed().as_secs_f64();
            };
            clock(0, &mut || {
                let params = SearchParams { exact: true, ..SearchParams::default() };
                black_box(
                    corpus.index.search(Track::Video, &space, &query, 10, params, Some(&only)).unwrap(),
                );
            });
            let vectors = BTreeMap::from([(space.clone(), query.clone())]);
            let part = QueryPart { modality: Modality::Text, vectors, weight: 1.0, words: 0 };
            let request = SearchRequest { filter: filter.clone(), ..SearchRequest::new(vec![part]) };
            // A change makes the catalog forget what the filter kept.
            corpus.catalog.put_asset(&other);
            for kind in [1, 2] {
                clock(kind, &mut || assert_eq!(black_box(run(&corpus, &request).unwrap()).hits.len(), 10));
            }
        }
        let [exact, first, again] = secs.map(|secs| secs * 1e6 / ROUNDS as f64);
        println!(
            "{CLIPS} clips, {clips_per_asset} an asset, {name}, keeps {}: exact f32 scan of these {exact:.0} us; whole \
             search {first:.0} us ({:.2} of it) with a new filter, {again:.0} us ({:.2}) with one asked before",
            ids.len(),
            first / exact,
            again / exact
        );
    }
}
