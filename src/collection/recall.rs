//! Measures recall live: in quiet moments, it answers a few of the real queries again, exactly.
//!
//! Only searches without a filter are sampled: a filter that names clips is answered by the scan, which
//! misses nothing. Without real queries nothing is measured: stored vectors are no substitute for them. Only
//! the vector of a query is stored, in memory, until it is repeated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

use crate::index::{IndexError, IndexSet, Probed, SearchParams};
use crate::search::{SearchRequest, combined};
use crate::types::{Embedding, Space, Track};

/// Queries that may wait; of more, a random sample of this size.
const WAITING: usize = 16;
/// Time without a search after which the server counts as quiet.
const QUIET: Duration = Duration::from_millis(250);
/// A query to answer again.
#[derive(Debug)]
pub(crate) struct SampledQuery {
    /// Weak: an index that has stopped serving need not be measured.
    index: Weak<IndexSet>,
    pub(crate) target: Track,
    pub(crate) space: Space,
    query: Embedding,
    params: SearchParams,
}

impl SampledQuery {
    pub(crate) fn answer(&self) -> Result<Option<Probed>, IndexError> {
        let Some(index) = self.index.upgrade() else { return Ok(None) };
        index.probe(self.target, &self.space, &self.query, self.params)
    }
}

/// Samples the real queries.
#[derive(Debug)]
pub(crate) struct Sampler {
    waiting: Mutex<Waiting>,
    began: Instant,
    /// Time of the last search, in milliseconds since `began`.
    searched_ms: AtomicU64,
    pub(crate) wake: Notify,
}

#[derive(Debug)]
struct Waiting {
    on: bool,
    asked: Vec<SampledQuery>,
    /// Number of queries considered for the sample.
    offered: usize,
    rng: StdRng,
}

impl Default for Sampler {
    fn default() -> Self {
        let waiting =
            Waiting { on: false, asked: Vec::new(), offered: 0, rng: StdRng::seed_from_u64(WAITING as u64) };
        Self {
            waiting: Mutex::new(waiting),
            began: Instant::now(),
            searched_ms: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }
}

impl Sampler {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts sampling; returns whether it was off.
    pub(crate) fn switch_on(&self) -> bool {
        !std::mem::replace(&mut self.waiting().on, true)
    }

    /// Offers a search that was just answered in a space.
    pub(crate) fn offer(&self, index: &Arc<IndexSet>, request: &SearchRequest, space: &Space) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.searched_ms.store(now_ms, Ordering::Relaxed);
        if request.params.exact || !request.filter.is_empty() || !request.exclude_assets.is_empty() {
            return;
        }
        let mut targets = request.targets.clone();
        targets.sort_unstable();
        targets.dedup();
        for target in targets.into_iter().filter(|target| index.has_graph(*target, space)) {
            let Some(place) = self.waiting().place() else { continue };
            let Ok(query) = combined(&request.query, space) else { return };
            let (index, params) = (Arc::downgrade(index), request.params);
            self.waiting().put(place, SampledQuery { index, target, space: space.clone(), query, params });
            self.wake.notify_one();
        }
    }

    pub(crate) fn take(&self) -> Option<SampledQuery> {
        let mut waiting = self.waiting();
        let asked = waiting.asked.pop();
        waiting.offered = waiting.asked.len();
        asked
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let searched = Duration::from_millis(self.searched_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(searched) >= QUIET
    }
}

impl Waiting {
    /// The slot of the next query, as if all queries offered had been shuffled (reservoir sampling).
    fn place(&mut self) -> Option<usize> {
        if !self.on {
            return None;
        }
        self.offered += 1;
        let place =
            if self.offered <= WAITING { self.asked.len() } else { self.rng.random_range(0..self.offered) };
        (place < WAITING).then_some(place)
    }

    fn put(&mut self, place: usize, asked: SampledQuery) {
        match self.asked.get_mut(place) {
            Some(old) => *old = asked,
            None => self.asked.push(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::Filter;
    use crate::index::{GraphEngine, IndexSpec};
    use crate::search::QueryPart;
    use crate::sqlite::SqliteStore;
    use crate::store::ClipVector;
    use crate::types::{AssetId, ClipId, Modality, ModelId};

    const DIM: usize = 128;
    const CLIPS: usize = 1200;
    const PROBES: usize = 100;

    /// Number of values that vary independently: all of them in noise, few in structured data.
    #[derive(Clone, Copy)]
    struct Free(usize);

    fn vector(free: Free, rng: &mut StdRng) -> Embedding {
        let mut values: Vec<f32> = (0..free.0).map(|_| rng.random_range(-1.0_f32..1.0)).collect();
        values.resize(DIM, 0.0);
        Embedding::new(values, DIM).unwrap()
    }

    fn request(free: Free, rng: &mut StdRng) -> SearchRequest {
        let vectors = BTreeMap::from([(Space::new("s"), vector(free, rng))]);
        let part = QueryPart { words: 1, ..QueryPart::new(Modality::Text, vectors) };
        // A graph search raises this to its minimum.
        let params = SearchParams { ef: Some(1), ..SearchParams::default() };
        SearchRequest { params, ..SearchRequest::new(vec![part]) }
    }

    async fn index_of(free: Free, graph_from: usize) -> (Arc<IndexSet>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelId("m".into());
        let store = SqliteStore::open(dir.path(), &model).await.unwrap();
        let (members, graph) = ([IndexSpec::new(Track::Video, Space::new("s"), DIM)], GraphEngine::default());
        let opened =
            IndexSet::open_with_graph(graph, graph_from, &dir.path().join("i"), &model, &members, &store)
                .await;
        let index = opened.unwrap();
        let mut rng = StdRng::seed_from_u64(3);
        for id in 1..=CLIPS {
            let vector = vector(free, &mut rng);
            index
                .upsert(ClipId(id as i64), &[ClipVector::new(Track::Video, Space::new("s"), vector)])
                .unwrap();
        }
        index.wait_for_graphs();
        (Arc::new(index), dir)
    }

    fn drain(sampler: &Sampler) -> usize {
        let mut answered = 0;
        while let Some(asked) = sampler.take() {
            answered += usize::from(asked.answer().unwrap().is_some());
        }
        answered
    }

    #[tokio::test]
    async fn a_graph_that_misses_is_told_from_one_that_does_not() {
        let space = Space::new("s");
        let mut shares = Vec::new();
        // A narrow search gets lost in noise, which has no structure for a graph to follow.
        for free in [Free(DIM), Free(3)] {
            let (index, _dir) = index_of(free, CLIPS).await;
            let (sampler, mut rng) = (Sampler::default(), StdRng::seed_from_u64(4));
            assert!(sampler.switch_on() && !sampler.switch_on());
            for _ in 0..PROBES {
                sampler.offer(&index, &request(free, &mut rng), &space);
                assert_eq!(drain(&sampler), 1);
            }
            let recall = index.recall(Track::Video, &space).unwrap();
            assert_eq!((recall.exact, recall.probes), (false, PROBES));
            shares.push(recall.at_10.unwrap());
        }
        let [noise, structure] = shares[..] else { unreachable!() };
        assert!(noise < 0.99 && structure > 0.99, "{noise} {structure}");
    }

    #[tokio::test]
    async fn what_the_scan_answers_is_not_probed_and_filters_are_left_out() {
        let (exact, _dir) = index_of(Free(3), usize::MAX).await;
        let (sampler, space) = (Sampler::default(), Space::new("s"));
        let mut rng = StdRng::seed_from_u64(4);
        let asked = request(Free(3), &mut rng);
        assert!(sampler.switch_on());
        sampler.offer(&exact, &asked, &space);
        assert_eq!(drain(&sampler), 0);
        let recall = exact.recall(Track::Video, &space).unwrap();
        assert_eq!((recall.exact, recall.at_10, recall.probes), (true, Some(1.0), 0));

        let (graph, _dir) = index_of(Free(3), CLIPS).await;
        let off = Sampler::default();
        off.offer(&graph, &asked, &space);
        assert_eq!(drain(&off), 0, "sampled before it was switched on");
        let filter = Filter { asset_ids: vec![AssetId::generate()], ..Filter::default() };
        let by_hand = SearchParams { exact: true, ..SearchParams::default() };
        for left_out in [
            SearchRequest { filter, ..asked.clone() },
            SearchRequest { exclude_assets: vec![AssetId::generate()], ..asked.clone() },
            SearchRequest { params: by_hand, ..asked.clone() },
        ] {
            sampler.offer(&graph, &left_out, &space);
            assert_eq!(drain(&sampler), 0, "{left_out:?}");
        }
        // Any number of queries leaves a bounded number waiting; a dropped index is not measured.
        for _ in 0..10 * WAITING {
            sampler.offer(&graph, &asked, &space);
        }
        assert_eq!(sampler.waiting().asked.len(), WAITING);
        drop(graph);
        assert_eq!(drain(&sampler), 0);
    }
}
