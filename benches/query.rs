//! A warm text query over 10,000 clips, at the client, over HTTP, with one caller; and the server's memory.
//! The baseline is what a script would do: store the vectors in an array of f32 and scan it.
//!
//! `cargo bench --bench query [-- CLIPS]`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use triptych::model::Bundle;
use triptych::sqlite::SqliteStore;
use triptych::store::{AssetOutcome, AssetState, AssetStore, ClipStore, ClipVector, NewAsset, NewClip};
use triptych::types::{AssetKind, Embedding, TimeSpan, Track};

type Failure = Box<dyn std::error::Error>;

const CLIPS_PER_ASSET: usize = 100;
const QUERIES: usize = 500;
const TEXTS: [&str; 5] = [
    "a red circle moving left",
    "blue square",
    "a green triangle",
    "yellow star moving up",
    "a white circle",
];

fn main() -> Result<(), Failure> {
    let clips = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(10_000);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/small-world");
    let folder = tempfile::tempdir()?;
    let empty = Server::start(&model, &folder.path().join("empty"))?;
    let before = empty.resident_bytes()?;
    drop(empty);

    let data = folder.path().join("data");
    let vectors = tokio::runtime::Runtime::new()?.block_on(fill(&model, &data, clips))?;
    let server = Server::start(&model, &data)?;
    let (mut served, mut inference, mut scanned) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..QUERIES + 50 {
        let (total, tower) = server.query(TEXTS[n % TEXTS.len()])?;
        let query = &vectors[n * 37 % vectors.len()];
        let began = Instant::now();
        std::hint::black_box(scan(&vectors, query, 10));
        if n >= 50 {
            served.push(total);
            inference.push(tower);
            scanned.push(began.elapsed().as_secs_f64());
        }
    }
    let after = server.resident_bytes()?;
    println!("{clips} clips, {QUERIES} warm text queries, one caller, top 10");
    report("over HTTP, all included", &mut served);
    report("  of it text tower", &mut inference);
    report("f32 scan alone, in process", &mut scanned);
    println!(
        "ratio of medians, whole answer over HTTP to the bare f32 scan: {:.2}",
        served[QUERIES / 2] / scanned[QUERIES / 2]
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "resident: {:.0} MiB with an empty library (the model included), {:.0} MiB with these clips",
        mib(before),
        mib(after)
    );
    Ok(())
}

fn report(what: &str, secs: &mut [f64]) {
    secs.sort_by(f64::total_cmp);
    let at = |share: f64| secs[((secs.len() - 1) as f64 * share) as usize] * 1e3;
    println!("{what:>28}: p50 {:.3} ms  p95 {:.3} ms  p99 {:.3} ms", at(0.5), at(0.95), at(0.99));
}

/// The ten best by a plain loop over f32, as a script with an array of vectors would.
fn scan(vectors: &[Vec<f32>], query: &[f32], k: usize) -> Vec<(f32, usize)> {
    let dot = |vector: &[f32]| vector.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
    let mut scores: Vec<(f32, usize)> =
        vectors.iter().enumerate().map(|(n, vector)| (dot(vector), n)).collect();
    scores.select_nth_unstable_by(k, |a, b| b.0.total_cmp(&a.0));
    scores.truncate(k);
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    scores
}

/// Clips in clusters, as the clips of films are; the coarse video vectors.
async fn fill(model: &Path, data: &Path, clips: usize) -> Result<Vec<Vec<f32>>, Failure> {
    let bundle = Bundle::open(model)?;
    std::fs::create_dir_all(data)?;
    let store = SqliteStore::open(data, bundle.id()).await?;
    let mut rng = SmallRng::seed_from_u64(7);
    let mut coarse = Vec::with_capacity(clips);
    for asset in 0..clips.div_ceil(CLIPS_PER_ASSET) {
        let (record, _) = store.begin_asset(new_asset(&bundle, asset)).await?;
        let centres: Vec<Vec<f32>> = bundle.spaces().iter().map(|(_, dim)| noise(&mut rng, *dim)).collect();
        let mut batch = Vec::new();
        for clip in 0..CLIPS_PER_ASSET.min(clips - asset * CLIPS_PER_ASSET) {
            let mut vectors = Vec::new();
            for ((space, dim), centre) in bundle.spaces().iter().zip(&centres) {
                for track in Track::ALL {
                    let values: Vec<f32> =
                        noise(&mut rng, *dim).iter().zip(centre).map(|(n, c)| c + 0.6 * n).collect();
                    let vector = Embedding::new(values, *dim)?;
                    if track == Track::Video && bundle.spaces().last().is_some_and(|(last, _)| last == space)
                    {
                        coarse.push(vector.as_slice().to_vec());
                    }
                    vectors.push(ClipVector::new(track, space.clone(), vector));
                }
            }
            let start = clip as f64 * 3.2;
            batch.push(NewClip { span: TimeSpan::new(start, start + 3.2)?, vectors, agreement: None });
        }
        store.add_clips(record.id, &batch).await?;
        let outcome = AssetOutcome {
            state: AssetState::Ready,
            kind: Some(AssetKind::Video),
            duration_secs: batch.len() as f64 * 3.2,
            width: 640,
            height: 360,
            error: None,
            tracks: Vec::new(),
        };
        store.finish_asset(record.id, outcome).await?;
    }
    Ok(coarse)
}

fn new_asset(bundle: &Bundle, n: usize) -> NewAsset {
    NewAsset {
        given: None,
        sha256: format!("{n:064x}"),
        model: bundle.id().clone(),
        segmentation: "bench".to_owned(),
        name: format!("film-{n}.mp4"),
        path: format!("/nowhere/film-{n}.mp4"),
        owned: false,
        size_bytes: 1,
        metadata: json!({}),
        choice: Default::default(),
    }
}

fn noise(rng: &mut SmallRng, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| rng.random::<f32>() + rng.random::<f32>() - 1.0).collect()
}

struct Server {
    child: Child,
    url: String,
    client: reqwest::blocking::Client,
}

impl Server {
    fn start(model: &Path, data: &Path) -> Result<Self, Failure> {
        let native = std::env::var_os("TRIPTYCH_NATIVE_DIR").map(PathBuf::from);
        let native = native.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".triptych/native"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_triptych"))
            .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--model"])
            .arg(model)
            .arg("--data")
            .arg(data)
            .env("TRIPTYCH_NATIVE_DIR", native)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let line = BufReader::new(output).lines().next().ok_or("the server did not start")??;
        let url = line.strip_prefix("listening on ").ok_or(line.clone())?.to_owned();
        let client = reqwest::blocking::Client::builder().tcp_nodelay(true).build()?;
        let server = Self { child, url, client };
        while !server.client.get(format!("{}/readyz", server.url)).send().is_ok_and(|r| r.status() == 200) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Seconds at the client, and those of them inside the text tower.
    fn query(&self, text: &str) -> Result<(f64, f64), Failure> {
        let body = json!({"query": {"text": text}, "limit": 10});
        let began = Instant::now();
        let response =
            self.client.post(format!("{}/v1/search", self.url)).json(&body).send()?.error_for_status()?;
        let tower = response.headers()["x-inference-time-ms"].to_str()?.parse::<f64>()? / 1e3;
        let answer: serde_json::Value = response.json()?;
        let secs = began.elapsed().as_secs_f64();
        let hits = answer["data"].as_array().map_or(0, Vec::len);
        if hits == 10 { Ok((secs, tower)) } else { Err(format!("{hits} hits instead of 10").into()) }
    }

    fn resident_bytes(&self) -> Result<u64, Failure> {
        let stats: serde_json::Value = self.client.get(format!("{}/v1/stats", self.url)).send()?.json()?;
        stats["resident_bytes"].as_u64().ok_or_else(|| "no resident_bytes".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
