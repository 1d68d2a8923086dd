//! The cost of standing queries: matching all of them against one new asset, compared with as many ordinary
//! searches of the whole library, the alternative without them.
//!
//! Times are CPU times of one thread. `cargo bench --bench standing`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::hint::black_box;

use common::{library, space, vector};
use cpu_time::ProcessTime;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use triptych::search::{
    Backgrounds, Distributions, Lane, Minimum, QueryPart, SearchRequest, Standing, Verdict, ask, run,
};
use triptych::types::{Modality, Track};

const CLIPS: usize = 20_000;
const CLIPS_PER_ASSET: usize = 20;
const QUERIES: usize = 10_000;
const SEARCHES: usize = 200;

fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let shelf = |n: usize| json!({"shelf": n % 2});
    let (corpus, assets, _dir) = library(CLIPS, CLIPS_PER_ASSET, shelf, backgrounds(), &mut rng);
    for (name, filter) in [
        ("no filter", json!({})),
        ("a filter that keeps a half", json!({"must": [{"key": "metadata.shelf", "eq": 0}]})),
    ] {
        let requests: Vec<SearchRequest> = (0..QUERIES)
            .map(|_| {
                let vectors = BTreeMap::from([(space(), vector(&mut rng))]);
                let part = QueryPart { words: 3, ..QueryPart::new(Modality::Text, vectors) };
                let filter = serde_json::from_value(filter.clone()).unwrap();
                SearchRequest { filter, ..SearchRequest::new(vec![part]) }
            })
            .collect();
        let standing: Vec<Standing> = requests
            .iter()
            .map(|request| {
                Standing::new(&corpus.comparable, request.clone(), Minimum::Confidence(0.9)).unwrap()
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

/// A calibration of the library, so that every query has confidence.
fn backgrounds() -> Backgrounds {
    let backgrounds = Backgrounds::default();
    let lane = Lane { query: Modality::Text, words: 3, space: space(), target: Track::Video };
    let scores = (0..96).map(|n| 0.18 + n as f32 * 0.001).collect();
    backgrounds.replace(Distributions {
        clips: CLIPS,
        lanes: BTreeMap::from([(lane, scores)]),
        banks: BTreeMap::default(),
    });
    backgrounds
}
