//! What every engine promises, held for each in the same way. A new engine is one more line in `ENGINES`.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::exact::{Scan, Scope, scan_f32, score};
use super::graph::OwnGraph;
use super::hnsw::HnswRs;
use super::rows::{Rows, SharedRows, Slot, View};
use super::{Neighbour, SearchParams, VectorIndex};
use crate::types::{ClipId, Embedding};

type Make = fn(Arc<SharedRows>) -> Box<dyn VectorIndex>;

const ENGINES: &[Make] =
    &[|_| Box::new(Scan), |rows| Box::new(HnswRs::new(rows, 100)), |rows| Box::new(OwnGraph::new(rows, 100))];

const DIM: usize = 24;
const USUAL: SearchParams = SearchParams { ef: None, exact: false, recall_target: None };
const ALL: Scope<'_> = Scope::AllBut(&[]);

fn unit(rng: &mut StdRng) -> Embedding {
    Embedding::new((0..DIM).map(|_| rng.random_range(-1.0_f32..1.0)).collect(), DIM).unwrap()
}

/// Rows in which every third vector is near another.
fn vectors(seed: u64, count: usize) -> Vec<Embedding> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all: Vec<Embedding> = Vec::new();
    for n in 0..count {
        let vector = if n % 3 == 2 {
            let moved = all[n / 2].as_slice().iter().map(|v| v + rng.random_range(-0.05_f32..0.05));
            Embedding::new(moved.collect(), DIM).unwrap()
        } else {
            unit(&mut rng)
        };
        all.push(vector);
    }
    all
}

/// An engine over rows that are changed as an index changes them, and the plain list of what is in them.
struct Tried {
    rows: Arc<SharedRows>,
    engine: Box<dyn VectorIndex>,
    live: BTreeMap<ClipId, Embedding>,
}

impl Tried {
    fn new(make: Make, vectors: &[Embedding]) -> Self {
        let mut rows = Rows::new(DIM);
        let live: BTreeMap<ClipId, Embedding> = (1..).map(ClipId).zip(vectors.iter().cloned()).collect();
        for (clip, vector) in &live {
            rows.insert(*clip, vector.as_slice());
        }
        let rows = SharedRows::new(rows);
        let engine = make(Arc::clone(&rows));
        engine.settle();
        assert!(engine.is_ready(), "{}", engine.name());
        Self { rows, engine, live }
    }

    fn put(&mut self, clip: i64, vector: &Embedding) -> Slot {
        let clip = ClipId(clip);
        let (slot, replaced) = self.rows.write(|rows| {
            let replaced = rows.slot(clip).is_some();
            (rows.insert(clip, vector.as_slice()), replaced)
        });
        self.engine.insert(slot, replaced);
        self.live.insert(clip, vector.clone());
        slot
    }

    fn remove(&mut self, clip: i64) -> Slot {
        let slot = self.rows.write(|rows| rows.remove(ClipId(clip))).unwrap();
        self.engine.remove(slot);
        self.live.remove(&ClipId(clip));
        slot
    }

    /// What the engine answers in this view, or the scan if the engine leaves it to that. Checks what holds of every
    /// answer.
    fn ask(&self, view: &View, query: &Embedding, k: usize, scope: Scope<'_>) -> Vec<Neighbour> {
        let query = query.as_slice();
        let answered = self.engine.search(view, query, k, USUAL, scope);
        assert!(answered.is_some() || !self.engine.is_exact(), "the last engine must answer");
        let truth = scan_f32(view, query, k, scope);
        let found = answered.unwrap_or_else(|| truth.clone());
        assert_eq!(found.len(), truth.len(), "{} found too few", self.engine.name());
        let in_order = |pair: &[Neighbour]| (pair[1].score, pair[0].clip) <= (pair[0].score, pair[1].clip);
        assert!(found.windows(2).all(in_order));
        assert_eq!(
            found.iter().map(|hit| hit.clip).collect::<HashSet<_>>().len(),
            found.len(),
            "a clip twice"
        );
        let slots: HashMap<ClipId, Slot> = view.live_slots().map(|(slot, clip)| (clip, slot)).collect();
        for hit in &found {
            let own = score(query, view.values(slots[&hit.clip]));
            assert_eq!(hit.score, own, "{} scores {:?} otherwise than f32", self.engine.name(), hit.clip);
        }
        if self.engine.is_exact() {
            assert_eq!(found, truth);
        }
        found
    }

    fn all_find_themselves(&self) {
        let view = self.rows.view();
        for (clip, vector) in &self.live {
            let query = vector.as_slice();
            let own = self.engine.search(&view, query, 5, USUAL, ALL);
            let found = own.unwrap_or_else(|| scan_f32(&view, query, 5, ALL));
            // Equal vectors may stand before it.
            let found = found.iter().any(|hit| hit.clip == *clip) || found[4].score >= 1.0 - 1e-6;
            assert!(found, "{} lost {clip:?}", self.engine.name());
        }
    }
}

fn each(check: impl Fn(Make)) {
    ENGINES.iter().for_each(|make| check(*make));
}

#[test]
fn what_is_stored_is_found_and_most_of_what_is_near() {
    each(|make| {
        let tried = Tried::new(make, &vectors(1, 900));
        tried.all_find_themselves();
        let (view, mut found, mut wanted) = (tried.rows.view(), 0, 0);
        for query in vectors(2, 60) {
            let own = tried.engine.search(&view, query.as_slice(), 10, USUAL, ALL);
            assert!(own.is_some(), "{} leaves a plain search to the scan", tried.engine.name());
            let truth = scan_f32(&view, query.as_slice(), 10, ALL);
            let answer = tried.ask(&view, &query, 10, ALL);
            found += answer.iter().filter(|hit| truth.contains(hit)).count();
            wanted += truth.len();
        }
        let recall = found as f64 / wanted as f64;
        assert!(recall > 0.95, "{} recalls {recall}", tried.engine.name());
        assert_eq!(tried.ask(&view, &vectors(2, 1)[0], 5_000, ALL).len(), 900, "all, if more are wanted");
    });
}

#[test]
fn writes_are_found_at_once_and_removed_clips_never_come_back() {
    each(|make| {
        let mut tried = Tried::new(make, &vectors(3, 600));
        let new = vectors(4, 120);
        for (clip, vector) in (500..).zip(&new) {
            // Replaces the first hundred, and adds the rest.
            tried.put(clip, vector);
        }
        for clip in 1..200 {
            tried.remove(clip);
        }
        // Their slots are used again, for others.
        let slots: Vec<Slot> =
            (2_000..2_100).zip(vectors(5, 100)).map(|(clip, vector)| tried.put(clip, &vector)).collect();
        assert!(slots.iter().all(|slot| *slot < 200));
        for _ in 0..2 {
            tried.all_find_themselves();
            let view = tried.rows.view();
            // What was removed is asked for, too.
            for query in vectors(3, 600).iter().step_by(12) {
                let found = tried.ask(&view, query, 8, ALL);
                assert!(found.iter().all(|hit| tried.live.contains_key(&hit.clip)), "{found:?}");
            }
            // Again, once the engine has sorted the changes in.
            tried.engine.settle();
        }
    });
}

#[test]
fn a_scope_is_kept() {
    each(|make| {
        let tried = Tried::new(make, &vectors(6, 700));
        let view = tried.rows.view();
        for share in [2, 7, 350] {
            let slots: Vec<Slot> = (0..700).filter(|slot| slot % share == 0).collect();
            let named: HashSet<ClipId> = slots.iter().filter_map(|slot| view.id(*slot)).collect();
            for query in vectors(7, 20) {
                let only = tried.ask(&view, &query, 12, Scope::Only(&slots));
                assert!(only.iter().all(|hit| named.contains(&hit.clip)));
                let others = tried.ask(&view, &query, 12, Scope::AllBut(&slots));
                assert!(others.iter().all(|hit| !named.contains(&hit.clip)));
            }
        }
        assert!(tried.ask(&view, &vectors(7, 1)[0], 3, Scope::Only(&[])).is_empty());
    });
}

#[test]
fn a_view_answers_as_it_was_and_rows_may_be_replaced() {
    each(|make| {
        let mut tried = Tried::new(make, &vectors(8, 500));
        let before = tried.rows.view();
        for (clip, vector) in (400..).zip(vectors(9, 1_400)) {
            tried.put(clip, &vector);
        }
        // `ask` compares with the view: newer rows and replaced vectors must not show.
        vectors(10, 40).iter().for_each(|query| drop(tried.ask(&before, query, 9, ALL)));
        tried.engine.settle();
        vectors(10, 40).iter().for_each(|query| drop(tried.ask(&before, query, 9, ALL)));
        // As a compaction does: other slots for the same clips, the last first.
        let view = tried.rows.view();
        let mut rows = Rows::succeeding(&view);
        for (clip, vector) in tried.live.iter().rev() {
            rows.insert(*clip, vector.as_slice());
        }
        tried.rows.write(|now| *now = rows);
        for _ in 0..2 {
            // Before the engine knows, and after.
            tried.all_find_themselves();
            vectors(10, 40).iter().for_each(|query| drop(tried.ask(&view, query, 9, ALL)));
            tried.engine.restart();
        }
        tried.engine.settle();
        assert!(tried.engine.is_ready());
        tried.all_find_themselves();
    });
}

#[test]
fn memory_is_accounted() {
    each(|make| {
        let (small, large) = (Tried::new(make, &vectors(11, 300)), Tried::new(make, &vectors(11, 900)));
        let bytes = |tried: &Tried| tried.engine.memory_bytes();
        let grows = bytes(&large) > bytes(&small) && bytes(&small) > 300 * DIM;
        assert!(grows || large.engine.is_exact(), "{}: {}", large.engine.name(), bytes(&large));
    });
}
