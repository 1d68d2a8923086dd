//! Speed and recall of searches, against the obvious alternatives.
//!
//! Times are CPU times, so a busy machine changes them little.
//! `cargo bench --bench index`; `-- 1000 10000` picks sizes, `-- dim=512` another number of values, `-- own` leaves out
//! `hnsw_rs`, whose build takes longest, and `-- search` only times whole searches. `INDEX_KERNELS=avx2` measures what
//! a processor without newer instructions would do. `-- peers FOLDER 100000` is for `scripts/index_peers.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "index/peers.rs"]
mod peers;

use std::collections::{BTreeMap, HashSet};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cpu_time::ProcessTime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use triptych::catalog::Catalog;
use triptych::codes::kernels::{kernels, prefer};
use triptych::index::rows::Rows;
use triptych::index::{GraphEngine, HybridIndex, IndexSet, IndexSpec, SearchParams};
use triptych::search::{Comparable, Corpus, GroupBy, QueryPart, SearchRequest, run};
use triptych::sqlite::SqliteStore;
use triptych::store::{AssetStore, ClipStore, ClipVector, NewAsset, NewClip};
use triptych::types::{ClipId, Embedding, Modality, ModelId, Space, TimeSpan, Track};

const K: usize = 10;
const ROUNDS: usize = 10;
/// Queries of each kind.
const QUERIES: usize = 500;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let Ok(name) = std::env::var("INDEX_KERNELS") {
        assert!(prefer(&name), "this processor has no kernels {name}");
    }
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let dims: Vec<usize> = args.iter().filter_map(|arg| arg.strip_prefix("dim=")?.parse().ok()).collect();
    let dims = if dims.is_empty() { vec![256] } else { dims };
    let sizes: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    // Scans of large collections use all cores; here they are compared core by core.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    if let Some(at) = args.iter().position(|arg| arg == "peers") {
        return peers::serve(Path::new(&args[at + 1]), sizes[0], dims[0]);
    }
    println!("kernels: {}", kernels().name);
    if !has("search") {
        let sizes = if sizes.is_empty() { vec![1_000, 10_000, 100_000] } else { sizes };
        for (rows, dim) in sizes.iter().flat_map(|rows| dims.iter().map(move |dim| (*rows, *dim))) {
            compare(rows, dim, !has("own"));
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(whole_searches(10_000));
}

fn unit(values: Vec<f32>) -> Embedding {
    let dim = values.len();
    Embedding::new(values, dim).unwrap()
}

fn random(rng: &mut StdRng, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum::<f32>()).collect()
}

fn near(rng: &mut StdRng, centre: &[f32], spread: f32) -> Embedding {
    let scale = spread / (centre.len() as f32).sqrt();
    let noise = random(rng, centre.len());
    unit(centre.iter().zip(noise).map(|(c, n)| c + n * scale).collect())
}

struct Data {
    stored: Vec<Embedding>,
    /// Near stored vectors, and the same moved away from all of them, as texts are.
    queries: [Vec<Embedding>; 2],
}

fn data(rows: usize, dim: usize) -> Data {
    let mut rng = StdRng::seed_from_u64(rows as u64);
    let centres: Vec<_> = (0..(rows / 50).max(1)).map(|_| unit(random(&mut rng, dim))).collect();
    let stored: Vec<_> =
        (0..rows).map(|i| near(&mut rng, centres[i % centres.len()].as_slice(), 0.8)).collect();
    let gap = unit(random(&mut rng, dim));
    let plain: Vec<_> =
        (0..QUERIES).map(|i| near(&mut rng, stored[i * rows / QUERIES].as_slice(), 0.6)).collect();
    let moved =
        plain.iter().map(|q| unit(q.as_slice().iter().zip(gap.as_slice()).map(|(a, b)| a + b).collect()));
    let moved = moved.collect();
    Data { stored, queries: [plain, moved] }
}

/// What one writes without an index.
fn naive(stored: &[Vec<f32>], query: &[f32]) -> Vec<usize> {
    let mut scored: Vec<(f32, usize)> = stored
        .iter()
        .enumerate()
        .map(|(i, v)| (v.iter().zip(query).map(|(a, b)| a * b).sum::<f32>(), i))
        .collect();
    scored.select_nth_unstable_by(K, |a, b| b.0.total_cmp(&a.0));
    scored.truncate(K);
    scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().map(|(_, i)| i).collect()
}

fn positions(index: &HybridIndex, query: &Embedding, ef: Option<usize>, exact: bool) -> Vec<usize> {
    let found = index.search(query, K, SearchParams { ef, exact, recall_target: None }, None).unwrap();
    found.into_iter().map(|n| n.clip.0 as usize).collect()
}

type Engine<'a> = (String, Box<dyn Fn(&Embedding) -> Vec<usize> + 'a>);

fn index_of(stored: &[Embedding], engine: GraphEngine, graph_from: usize) -> HybridIndex {
    let mut rows = Rows::new(stored[0].dim());
    for (i, vector) in stored.iter().enumerate() {
        rows.insert(ClipId(i as i64), vector.as_slice());
    }
    HybridIndex::with_graph(rows, engine, graph_from)
}

/// An index with a graph, and the CPU seconds of building it. Searches of any breadth use the graph.
fn built(stored: &[Embedding], engine: GraphEngine) -> (HybridIndex, f64) {
    let begun = ProcessTime::now();
    let index = index_of(stored, engine, 1);
    index.wait_for_graph();
    (index, begun.elapsed().as_secs_f64())
}

/// Queries of one thread, in blocks, one engine after another, so that all see the same machine.
fn compare(rows: usize, dim: usize, with_hnsw_rs: bool) {
    let data = data(rows, dim);
    let plain: Vec<Vec<f32>> = data.stored.iter().map(|v| v.as_slice().to_vec()).collect();
    let scan = index_of(&data.stored, GraphEngine::Own, usize::MAX);
    let mut graphs = vec![("own", GraphEngine::Own)];
    graphs.extend(with_hnsw_rs.then_some(("hnsw-rs", GraphEngine::HnswRs)));
    let graphs: Vec<_> =
        graphs.into_iter().map(|(name, engine)| (name, built(&data.stored, engine))).collect();
    println!(
        "\n{rows} x {dim}: rows {:.0} MB, of which f32 {:.0} MB",
        mb(&scan),
        (rows * dim * 4) as f64 / 1e6
    );
    for (name, (graph, secs)) in &graphs {
        println!(
            "graph {name}: built in {secs:.1} CPU s, {:.0} MB beside the rows, {:?} scanned beside it",
            mb(graph) - mb(&scan),
            graph.scanned_beside_graph(),
        );
    }
    let mut engines: Vec<Engine<'_>> = vec![
        ("naive f32 scan".into(), Box::new(|q| naive(&plain, q.as_slice()))),
        ("our f32 scan (exact: true)".into(), Box::new(|q| positions(&scan, q, None, true))),
        ("our int8 scan + proof".into(), Box::new(|q| positions(&scan, q, None, false))),
    ];
    for (name, (graph, _)) in &graphs {
        for ef in [64, 16, 32, 128] {
            let search = move |q: &Embedding| positions(graph, q, Some(ef), false);
            engines.push((format!("graph {name}, ef {ef}"), Box::new(search)));
        }
    }
    let truth: Vec<Vec<HashSet<usize>>> = data
        .queries
        .iter()
        .map(|queries| {
            queries.iter().map(|q| positions(&scan, q, None, true).into_iter().collect()).collect()
        })
        .collect();
    report(&data, &engines, &truth);
}

fn mb(index: &HybridIndex) -> f64 {
    index.memory_bytes() as f64 / 1e6
}

fn report(data: &Data, engines: &[Engine<'_>], truth: &[Vec<HashSet<usize>>]) {
    let mut secs = vec![0.0; engines.len()];
    let mut recalls = vec![[0.0; 2]; engines.len()];
    let count = data.queries[0].len();
    for round in 0..ROUNDS {
        for (e, (_, search)) in engines.iter().enumerate() {
            for (kind, queries) in data.queries.iter().enumerate() {
                let mine = (round..count).step_by(ROUNDS);
                let begun = ProcessTime::now();
                let found: Vec<_> = mine.clone().map(|q| black_box(search(&queries[q]))).collect();
                secs[e] += begun.elapsed().as_secs_f64();
                for (q, found) in mine.zip(found) {
                    recalls[e][kind] += found.iter().filter(|i| truth[kind][q].contains(i)).count() as f64;
                }
            }
        }
    }
    println!(
        "{:30} {:>10} {:>12} {:>10} {:>10} {:>9}",
        "", "CPU us", "per CPU s", "recall@10", "shifted", "x naive"
    );
    for (((name, _), secs_one), recall) in engines.iter().zip(&secs).zip(&recalls) {
        let per_query = secs_one / (2 * count) as f64;
        let [plain, shifted] = recall.map(|hits| hits / (count * K) as f64);
        let ratio = secs[0] / secs_one;
        println!(
            "{name:30} {:>10.1} {:>12.0} {plain:>10.4} {shifted:>10.4} {ratio:>9.1}",
            per_query * 1e6,
            1.0 / per_query
        );
    }
    println!(
        "scan: {:.2} ns a row; at this size our graph at ef 64 takes {:.2} of the scan's time on one core",
        secs[2] / (2 * count) as f64 * 1e9 / data.stored.len() as f64,
        secs[3] / secs[2]
    );
}

/// The whole way of a text query but for the tower: plan, index, names and metadata of ten hits.
async fn whole_searches(clips: usize) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = ModelId("bench".into());
    let store = SqliteStore::open(dir.path(), &model).await.unwrap();
    let (fine, coarse) = (Space::new("fine"), Space::new("coarse"));
    let members: Vec<IndexSpec> = Track::ALL
        .into_iter()
        .flat_map(|t| [IndexSpec::new(t, fine.clone(), 512), IndexSpec::new(t, coarse.clone(), 256)])
        .collect();
    let mut rng = StdRng::seed_from_u64(1);
    let mut write_secs = 0.0;
    for n in 0..clips / 20 {
        let new = NewAsset {
            given: None,
            sha256: n.to_string(),
            model: model.clone(),
            segmentation: "w3.2/s3.2".into(),
            name: format!("film {n}.mp4"),
            path: format!("/media/film {n}.mp4"),
            owned: false,
            size_bytes: 1,
            metadata: serde_json::json!({"year": 2000 + n % 25, "tags": ["a", "b"]}),
            choice: Default::default(),
        };
        let asset = store.begin_asset(new).await.unwrap().0.id;
        let part: Vec<NewClip> = (0..20)
            .map(|at| NewClip {
                span: TimeSpan::new(f64::from(at) * 3.2, f64::from(at + 1) * 3.2).unwrap(),
                vectors: members
                    .iter()
                    .map(|one| ClipVector::new(one.track, one.space.clone(), unit(random(&mut rng, one.dim))))
                    .collect(),
                agreement: None,
            })
            .collect();
        let begun = Instant::now();
        store.add_clips(asset, &part).await.unwrap();
        write_secs += begun.elapsed().as_secs_f64();
    }
    println!("\nstore: {:.0} clips/s committed in transactions of 20", clips as f64 / write_secs);
    let folder = dir.path().join("index");
    let begun = Instant::now();
    let index = IndexSet::open(&folder, &model, &members, &store).await.unwrap();
    let rebuilt = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    index.snapshot(&store).await.unwrap();
    let saved = begun.elapsed().as_secs_f64();
    drop(index);
    let (begun, cpu) = (Instant::now(), ProcessTime::now());
    let index = IndexSet::open(&folder, &model, &members, &store).await.unwrap();
    let (loaded, loaded_cpu) = (begun.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
    let held: usize = index.stats().iter().map(|index| index.bytes).sum();
    println!(
        "{clips} clips, {} indexes: rebuilt from the store in {rebuilt:.2} s, snapshots written in {saved:.2} s, \
         loaded in {loaded:.2} s ({loaded_cpu:.2} CPU s); {:.0} MB",
        members.len(),
        held as f64 / 1e6
    );
    let comparable = Comparable::new([&fine, &coarse], |m, s| *s == coarse || m != Modality::Text);
    let corpus = Corpus {
        catalog: Arc::new(Catalog::load(&store).await.unwrap()),
        index: Arc::new(index),
        comparable: Arc::new(comparable),
        backgrounds: Arc::default(),
    };
    for (name, targets, group_by) in [
        ("video", vec![Track::Video], GroupBy::Clip),
        ("video and audio", Track::ALL.to_vec(), GroupBy::Clip),
        ("video, by moment", vec![Track::Video], GroupBy::Moment),
        ("video, by asset", vec![Track::Video], GroupBy::Asset),
    ] {
        let mut times = Vec::new();
        let mut cpu_secs = 0.0;
        for _ in 0..400 {
            let vectors = BTreeMap::from([(coarse.clone(), unit(random(&mut rng, 256)))]);
            let part = QueryPart::new(Modality::Text, vectors);
            let request =
                SearchRequest { targets: targets.clone(), group_by, ..SearchRequest::new(vec![part]) };
            let (begun, cpu) = (Instant::now(), ProcessTime::now());
            let response = run(&corpus, &request).unwrap();
            cpu_secs += cpu.elapsed().as_secs_f64();
            times.push((begun.elapsed().as_secs_f64() * 1e3, response.index_secs * 1e3));
            assert_eq!(response.hits.len(), K);
        }
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (p50, p99) = (times[200].0, times[396].0);
        let index_ms = times.iter().map(|(_, index)| index).sum::<f64>() / 400.0;
        println!(
            "text-like query to {name:16}: p50 {p50:.2} ms, p99 {p99:.2} ms, in the index {index_ms:.2} ms; {:.2} CPU ms",
            cpu_secs * 1e3 / 400.0
        );
    }
}
