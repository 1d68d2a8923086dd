//! Searches with a filter that keeps 1 % of 100,000 clips: from the filter to the ids of ten clips, and the
//! whole search with names and metadata. The baseline is the exact scan of only those clips, given their ids,
//! which returns ids.
//!
//! Times are CPU times of one thread, with interleaved kinds, as medians of the rounds. A change of the
//! catalog precedes the scan as well as a new filter, because it evicts the same caches for both.
//! `cargo bench --bench filters`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::hint::black_box;

use common::{film, library, space, vector};
use cpu_time::ProcessTime;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use triptych::catalog::{Filter, Selection};
use triptych::index::{ClipFilter, SearchParams};
use triptych::search::{Backgrounds, QueryPart, SearchRequest, run};
use triptych::types::{Modality, Track};

/// The binary's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CLIPS: usize = 100_000;
const ROUNDS: usize = 200;

fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    for clips_per_asset in [1, 20, 500] {
        compare(clips_per_asset);
    }
}

/// `rank` is a unique number for each asset, in no order.
fn metadata(n: usize, assets: usize) -> Value {
    json!({"shelf": n % 100, "tags": ["a", format!("t{}", n % 7)], "title": format!("film {n}"),
        "rank": n * 7919 % assets})
}

/// Of the first fourteenth of the assets, those of one tag in seven.
fn range(key: &str, assets: usize) -> Value {
    json!({
        "must": [{"key": key, "lt": assets / 14}],
        "must_not": [{"key": "metadata.tags", "in": ["t0", "t1", "t2", "t3", "t4", "t5"]}]})
}

fn compare(clips_per_asset: usize) {
    let mut rng = StdRng::seed_from_u64(5);
    let assets = CLIPS / clips_per_asset;
    let told = |n| metadata(n, assets);
    let (corpus, _, _dir) = library(CLIPS, clips_per_asset, told, Backgrounds::default(), &mut rng);
    let space = space();
    for (name, filter) in [
        ("one value of a key", json!({"must": [{"key": "metadata.shelf", "eq": 17}]})),
        ("a range in the order they came, and tags left out", range("duration_secs", assets)),
        ("a range in no order, and tags left out", range("metadata.rank", assets)),
    ] {
        let filter: Filter = serde_json::from_value(filter).unwrap();
        let selection = corpus.catalog.select(&filter);
        let Selection::Only(ids) = &*selection else { panic!("the filter keeps too much") };
        let only = ClipFilter::Only(ids.clone());
        let other = film(1, told(1));
        let mut secs: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let query = vector(&mut rng);
            let mut clock = |kind: usize, work: &mut dyn FnMut()| {
                let begun = ProcessTime::now();
                work();
                secs[kind].push(begun.elapsed().as_secs_f64());
            };
            corpus.catalog.put_asset(&other);
            clock(0, &mut || {
                let params = SearchParams { exact: true, ..SearchParams::default() };
                black_box(
                    corpus.index.search(Track::Video, &space, &query, 10, params, Some(&only)).unwrap(),
                );
            });
            corpus.catalog.put_asset(&other);
            clock(1, &mut || {
                let selection = corpus.catalog.select(&filter);
                let Selection::Only(ids) = &*selection else { panic!("the filter keeps too much") };
                let (params, only) = (SearchParams::default(), ClipFilter::Only(ids.clone()));
                black_box(
                    corpus.index.search(Track::Video, &space, &query, 10, params, Some(&only)).unwrap(),
                );
            });
            // Another query: its hits' names are not in the cache yet.
            let query = vector(&mut rng);
            let vectors = BTreeMap::from([(space.clone(), query.clone())]);
            let part = QueryPart::new(Modality::Text, vectors);
            let request = SearchRequest { filter: filter.clone(), ..SearchRequest::new(vec![part]) };
            // A change makes the catalog drop the cached result of the filter.
            corpus.catalog.put_asset(&other);
            for kind in [2, 3] {
                clock(kind, &mut || assert_eq!(black_box(run(&corpus, &request).unwrap()).hits.len(), 10));
            }
        }
        let [exact, ids_only, first, again] = secs.map(|mut secs| {
            secs.sort_by(f64::total_cmp);
            secs[ROUNDS / 2] * 1e6
        });
        println!(
            "{CLIPS} clips, {clips_per_asset} an asset, {name}, keeps {}: exact f32 scan of these {exact:.0} us; \
             filter to ids {ids_only:.0} us ({:.2} of it); whole search {first:.0} us ({:.2}) with a new filter, \
             {again:.0} us ({:.2}) once more",
            ids.len(),
            ids_only / exact,
            first / exact,
            again / exact
        );
    }
}
