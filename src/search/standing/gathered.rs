//! The vectors that queries are compared with, read once for all queries that need the same ones.

use std::sync::Arc;

use super::StandingRoute;
use crate::catalog::AssetEntry;
use crate::search::Corpus;
use crate::search::background::Distributions;
use crate::search::lookup::SAMPLE;
use crate::types::{ClipId, Embedding, Space, Track};

/// Clips with their vectors in one space: one lane per target, each in the order of the clips.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) ids: Vec<ClipId>,
    pub(super) lanes: Vec<Vec<Option<Embedding>>>,
}

impl Gathered {
    /// `ids` must be ascending.
    fn new(corpus: &Corpus, ids: Vec<ClipId>, targets: &[Track], space: &Space) -> Self {
        let lane = |track: &Track| {
            let mut lane = vec![None; ids.len()];
            for (clip, vector) in corpus.index.vectors(*track, space, &ids) {
                if let Some(place) = ids.binary_search(&clip).ok().and_then(|at| lane.get_mut(at)) {
                    *place = Some(vector);
                }
            }
            lane
        };
        let lanes = targets.iter().map(lane).collect();
        Self { ids, lanes }
    }
}

/// Vectors read for the queries of one set of targets and one space.
struct Read {
    targets: Vec<Track>,
    space: Space,
    own: Arc<Gathered>,
    sample: Option<Arc<Gathered>>,
}

/// One asset to match. Its vectors are read once for all queries.
pub(super) struct Asking<'a> {
    pub(super) corpus: &'a Corpus,
    pub(super) distributions: Arc<Distributions>,
    pub(super) asset: &'a AssetEntry,
    read: Vec<Read>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(corpus: &'a Corpus, asset: &'a AssetEntry) -> Self {
        Self { corpus, distributions: corpus.backgrounds.now(), asset, read: Vec::new() }
    }

    fn place(&mut self, query: &StandingRoute) -> usize {
        let same = |read: &Read| read.targets == query.targets && read.space == query.space;
        if let Some(at) = self.read.iter().position(same) {
            return at;
        }
        let ids = self.asset.clips.iter().map(|clip| clip.id).collect();
        let own = Arc::new(Gathered::new(self.corpus, ids, &query.targets, &query.space));
        let (targets, space) = (query.targets.clone(), query.space.clone());
        self.read.push(Read { targets, space, own, sample: None });
        self.read.len() - 1
    }

    pub(super) fn own(&mut self, query: &StandingRoute) -> Arc<Gathered> {
        let at = self.place(query);
        Arc::clone(&self.read[at].own)
    }

    /// Clips sampled from the whole library, as a search samples them.
    pub(super) fn sample(&mut self, query: &StandingRoute) -> Arc<Gathered> {
        let at = self.place(query);
        let corpus = self.corpus;
        let made = self.read[at].sample.get_or_insert_with(|| {
            let of = |track: &Track| corpus.index.sample(*track, &query.space, SAMPLE);
            let mut ids: Vec<ClipId> = query.targets.iter().flat_map(of).map(|(clip, _)| clip).collect();
            ids.sort_unstable();
            ids.dedup();
            Arc::new(Gathered::new(corpus, ids, &query.targets, &query.space))
        });
        Arc::clone(made)
    }
}
