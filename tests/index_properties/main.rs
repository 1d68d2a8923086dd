//! What every index promises, held on the data that breaks indexes: duplicates, near-duplicates,
//! far points, filters, and changes while others search.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod changing;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use triptych::index::rows::Rows;
use triptych::index::{ClipFilter, GraphEngine, HybridIndex, Neighbour, SearchParams};
use triptych::types::{ClipId, Embedding};

const EXACT: SearchParams = SearchParams { ef: None, exact: true, recall_target: None };

const USUAL: SearchParams = SearchParams { ef: None, exact: false, recall_target: None };

fn unit(values: Vec<f32>) -> Embedding {
    let dim = values.len();
    Embedding::new(values, dim).unwrap()
}

fn random(rng: &mut StdRng, dim: usize) -> Vec<f32> {
    // A sum of uniforms is near enough to a normal deviate.
    (0..dim).map(|_| (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum::<f32>()).collect()
}

fn near(rng: &mut StdRng, centre: &Embedding, spread: f32) -> Embedding {
    let noise = random(rng, centre.dim());
    let scale = spread / (centre.dim() as f32).sqrt();
    unit(centre.as_slice().iter().zip(noise).map(|(c, n)| c + n * scale).collect())
}

/// `n` vectors around `clusters` centres.
fn clustered(rng: &mut StdRng, n: usize, clusters: usize, dim: usize) -> Vec<Embedding> {
    let centres: Vec<_> = (0..clusters).map(|_| unit(random(rng, dim))).collect();
    (0..n).map(|i| near(rng, &centres[i % clusters], 0.6)).collect()
}

/// The engines that search what is too large to scan, with their names.
const GRAPHS: [(GraphEngine, &str); 2] = [(GraphEngine::Own, "graph"), (GraphEngine::HnswRs, "hnsw")];

fn index_of<'a>(
    engine: GraphEngine,
    dim: usize,
    graph_from: usize,
    vectors: impl IntoIterator<Item = (ClipId, &'a Embedding)>,
) -> HybridIndex {
    let mut rows = Rows::new(dim);
    for (id, vector) in vectors {
        rows.insert(id, vector.as_slice());
    }
    let index = HybridIndex::with_graph(rows, engine, graph_from);
    index.wait_for_graph();
    index
}

fn numbered(vectors: &[Embedding]) -> impl Iterator<Item = (ClipId, &Embedding)> {
    (1..).map(ClipId).zip(vectors)
}

fn recall(found: &[Neighbour], truth: &[Neighbour]) -> f64 {
    let truth: HashSet<_> = truth.iter().map(|n| n.clip).collect();
    found.iter().filter(|n| truth.contains(&n.clip)).count() as f64 / truth.len() as f64
}

/// The slow twin: every cosine in f64, sorted.
fn naive(
    all: &BTreeMap<ClipId, Embedding>,
    query: &Embedding,
    k: usize,
    filter: Option<&ClipFilter>,
) -> Vec<(ClipId, f64)> {
    let mut scored: Vec<(ClipId, f64)> = all
        .iter()
        .filter(|(id, _)| match filter {
            Some(ClipFilter::Only(ids)) => ids.contains(id),
            Some(ClipFilter::Except(ids)) => !ids.contains(id),
            None => true,
        })
        .map(|(id, v)| {
            let dot =
                v.as_slice().iter().zip(query.as_slice()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (*id, dot)
        })
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored.truncate(k);
    scored
}

/// Same scores in the same order; ids may differ only where f32 cannot tell scores apart.
fn assert_same(
    found: &[Neighbour],
    want: &[(ClipId, f64)],
    all: &BTreeMap<ClipId, Embedding>,
    query: &Embedding,
) {
    assert_eq!(found.len(), want.len());
    for (found, want) in found.iter().zip(want) {
        assert!((f64::from(found.score) - want.1).abs() < 1e-5, "{found:?} instead of {want:?}");
        assert!((found.score - all[&found.clip].cosine(query)).abs() < 1e-5, "{found:?} has another score");
    }
    let ids: HashSet<_> = found.iter().map(|n| n.clip).collect();
    assert_eq!(ids.len(), found.len(), "a clip came twice");
    for pair in found.windows(2) {
        let ordered =
            pair[0].score > pair[1].score || (pair[0].score == pair[1].score && pair[0].clip < pair[1].clip);
        assert!(ordered, "{pair:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(i64, u64),
    Remove(i64),
    Search(u64, usize, Option<(bool, Vec<i64>)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let filter = proptest::option::of((any::<bool>(), vec(0_i64..60, 0..20)));
    let step = prop_oneof![
        // Few seeds: many exact duplicates.
        5 => (0_i64..60, 0_u64..40).prop_map(|(id, seed)| Step::Put(id, seed)),
        2 => (0_i64..60).prop_map(Step::Remove),
        3 => (0_u64..45, 0_usize..70, filter).prop_map(|(seed, k, f)| Step::Search(seed, k, f)),
    ];
    vec(step, 1..120)
}

fn seeded(seed: u64, dim: usize) -> Embedding {
    let mut rng = StdRng::seed_from_u64(seed);
    let centre = unit(random(&mut StdRng::seed_from_u64(seed % 5), dim));
    near(&mut rng, &centre, 0.02)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is put, replaced, removed and asked: the scan gives the naive answer, exactly.
    #[test]
    fn scans_equal_their_slow_twin(steps in steps(), dim in 1_usize..140) {
        let index = HybridIndex::with_rows(Rows::new(dim), usize::MAX);
        let mut all = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(id, seed) => {
                    let vector = seeded(seed, dim);
                    index.upsert(ClipId(id), &vector).unwrap();
                    all.insert(ClipId(id), vector);
                }
                Step::Remove(id) => {
                    prop_assert_eq!(index.remove(ClipId(id)), all.remove(&ClipId(id)).is_some());
                }
                Step::Search(seed, k, filter) => {
                    let query = seeded(seed, dim);
                    let filter = filter.map(|(only, ids)| {
                        let ids = ids.into_iter().map(ClipId).collect();
                        if only { ClipFilter::Only(ids) } else { ClipFilter::Except(ids) }
                    });
                    let want = naive(&all, &query, k, filter.as_ref());
                    for params in [USUAL, EXACT] {
                        let found = index.search(&query, k, params, filter.as_ref()).unwrap();
                        assert_same(&found, &want, &all, &query);
                    }
                }
            }
            prop_assert_eq!(index.len(), all.len());
        }
    }
}

/// A library as it comes: 2,000 clips of one still scene, exact duplicates, clusters, and points
/// far from everything, which graphs lose.
fn hard_library(rng: &mut StdRng) -> Vec<Embedding> {
    let dim = 64;
    let still = unit(random(rng, dim));
    let mut all: Vec<_> = (0..2000).map(|_| near(rng, &still, 0.01)).collect();
    all.extend(clustered(rng, 2800, 40, dim));
    all.extend((0..200).map(|_| unit(random(rng, dim))));
    let doubles: Vec<_> = (0..500).map(|i| all[i * 9].clone()).collect();
    all.extend(doubles);
    all
}

fn finds_itself(index: &HybridIndex, id: ClipId, vector: &Embedding, params: SearchParams) -> bool {
    let found = index.search(vector, 10, params, None).unwrap();
    // More than ten equal vectors may stand before it; then all ten are as near as itself.
    found.iter().any(|n| n.clip == id)
        || (found.len() == 10 && found[9].score >= vector.cosine(vector) - 1e-6)
}

#[test]
fn every_stored_clip_finds_itself_among_near_duplicates() {
    GRAPHS.into_iter().for_each(all_find_themselves_with);
}

fn all_find_themselves_with((engine, name): (GraphEngine, &str)) {
    let mut rng = StdRng::seed_from_u64(5);
    let all = hard_library(&mut rng);
    let index = index_of(engine, 64, 1000, numbered(&all));
    assert_eq!(index.engine(), name);
    eprintln!("(unreachable, new) vectors scanned beside {name}: {:?}", index.scanned_beside_graph());
    for ef in [None, Some(1), Some(80), Some(usize::MAX)] {
        let params = SearchParams { ef, ..USUAL };
        let lost = numbered(&all).filter(|(id, v)| !finds_itself(&index, *id, v, params)).count();
        assert_eq!(lost, 0, "of {} with ef {ef:?}", all.len());
    }

    // And still after changes: new clips before the next graph, removed ones, replaced ones.
    let mut live: BTreeMap<ClipId, Embedding> = numbered(&all).map(|(id, v)| (id, v.clone())).collect();
    for n in 0..900_i64 {
        let gone = ClipId(n * 5 + 1);
        assert!(index.remove(gone));
        live.remove(&gone);
        let (put, vector) = (ClipId(n * 7 + 2), near(&mut rng, &all[n as usize * 3], 0.3));
        index.upsert(put, &vector).unwrap();
        live.insert(put, vector);
    }
    for round in 0..2 {
        let lost = live.iter().filter(|(id, v)| !finds_itself(&index, **id, v, USUAL)).count();
        assert_eq!(lost, 0, "of {} after changes, round {round}", live.len());
        index.wait_for_graph();
    }
    assert_eq!(index.len(), live.len());
}

#[test]
fn the_graph_recalls_what_the_scan_finds() {
    GRAPHS.into_iter().for_each(recalls_with);
}

fn recalls_with((engine, of): (GraphEngine, &str)) {
    let mut rng = StdRng::seed_from_u64(6);
    let dim = 96;
    let all = clustered(&mut rng, 6000, 60, dim);
    let index = index_of(engine, dim, 1000, numbered(&all));
    assert_eq!(index.engine(), of);
    let gap = unit(random(&mut rng, dim));
    let shifted = |v: &Embedding| unit(v.as_slice().iter().zip(gap.as_slice()).map(|(a, b)| a + b).collect());
    for (name, shift, least) in [("stored-like", false, 0.98), ("shifted like text", true, 0.95)] {
        let mut sum = 0.0;
        for n in 0..200 {
            let near = near(&mut rng, &all[n * 29], 0.4);
            let query = if shift { shifted(&near) } else { near };
            let truth = index.search(&query, 10, EXACT, None).unwrap();
            let found = index.search(&query, 10, USUAL, None).unwrap();
            assert!(found.len() == 10 && found.is_sorted_by(|a, b| a.score >= b.score));
            sum += recall(&found, &truth);
        }
        eprintln!("recall@10 of {of}, {name} queries: {:.4}", sum / 200.0);
        assert!(sum / 200.0 >= least, "{of}, {name}: {}", sum / 200.0);
    }
}

#[test]
fn filters_are_exact_and_removed_clips_never_come_back() {
    GRAPHS.into_iter().for_each(filters_with);
}

fn filters_with((engine, _): (GraphEngine, &str)) {
    let mut rng = StdRng::seed_from_u64(7);
    let all = clustered(&mut rng, 5000, 20, 48);
    let index = index_of(engine, 48, 1000, numbered(&all));
    let live: BTreeMap<_, _> = numbered(&all).map(|(id, v)| (id, v.clone())).collect();
    for share in [2_i64, 50, 1000, 4999] {
        let ids: Vec<_> = live.keys().copied().filter(|id| id.0 % share == 0).collect();
        let only = ClipFilter::Only(ids.clone());
        let found = index.search(&all[3], 20, USUAL, Some(&only)).unwrap();
        assert_same(&found, &naive(&live, &all[3], 20, Some(&only)), &live, &all[3]);
        let except = ClipFilter::Except(ids.clone());
        let found = index.search(&all[3], 20, USUAL, Some(&except)).unwrap();
        assert!(found.len() == 20 && found.iter().all(|n| !ids.contains(&n.clip)));
    }
    let nothing = ClipFilter::Only(vec![ClipId(-1)]);
    assert!(index.search(&all[3], 5, USUAL, Some(&nothing)).unwrap().is_empty());
    assert_eq!(index.search(&all[3], 100_000, USUAL, None).unwrap().len(), 5000);

    // The whole neighbourhood of a query goes: the rest is still found in full.
    for id in live.keys().filter(|id| (id.0 - 1) % 20 == 3) {
        assert!(index.remove(*id) && !index.remove(*id));
    }
    let found = index.search(&all[3], 100, USUAL, None).unwrap();
    assert!(found.len() == 100 && found.iter().all(|n| (n.clip.0 - 1) % 20 != 3));
    for id in live.keys() {
        index.remove(*id);
    }
    assert!(index.is_empty() && index.search(&all[3], 5, USUAL, None).unwrap().is_empty());
    assert!(index.search(&unit(vec![1.0; 47]), 5, USUAL, None).is_err());
    assert!(index.upsert(ClipId(1), &unit(vec![1.0; 47])).is_err());
}

#[test]
fn the_same_rows_give_the_same_answers() {
    GRAPHS.into_iter().for_each(same_answers_with);
}

fn same_answers_with((engine, _): (GraphEngine, &str)) {
    let mut rng = StdRng::seed_from_u64(8);
    let all = clustered(&mut rng, 3000, 30, 32);
    let index = || index_of(engine, 32, 1000, numbered(&all));
    let (one, two) = (index(), index());
    for query in all.iter().step_by(50) {
        let answer = one.search(query, 15, USUAL, None).unwrap();
        assert_eq!(answer, two.search(query, 15, USUAL, None).unwrap());
        assert_eq!(answer, one.search(query, 15, USUAL, None).unwrap());
    }
}
