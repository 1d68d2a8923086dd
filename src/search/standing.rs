//! Reverse search: matches one asset against all standing queries.
//!
//! The asset's vectors are read once. Then each query costs one dot product per clip and track, and only
//! queries that match are examined further.

use std::collections::HashMap;
use std::sync::Arc;

use super::background::{Distributions, Lane, MOST_WORDS};
use super::lookup::{Match, SAMPLE};
use super::moments::{Window, moments};
use super::plan::{Comparable, plan};
use super::query::{Combined, modalities};
use super::{Corpus, Fuse, QueryPart, SearchError, SearchRequest};
use crate::catalog::{AssetEntry, ClipEntry, Filter};
use crate::index::exact::score;
use crate::store::MatchedMoment;
use crate::types::{AssetId, ClipId, Embedding, PerTrack, Space, Track};

/// Most moments stored per match.
const MAX_MOMENTS: usize = 100;

/// The minimum that a clip must reach to match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Least {
    /// At least this confidence.
    Confidence(f32),
    /// At least this score.
    Score(f32),
}

/// A standing query, prepared for matching against assets.
#[derive(Debug, Clone)]
pub struct Standing {
    targets: Vec<Track>,
    fuse: Fuse,
    space: Space,
    query: Combined,
    filter: Filter,
    exclude_assets: Vec<AssetId>,
    least: Least,
    /// The distribution lane of each target; empty if confidence is undefined for the query.
    lanes: Vec<Lane>,
}

/// Result of matching an asset against a standing query.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The asset matches with these moments, best first.
    Matches(Vec<MatchedMoment>),
    /// The asset does not match.
    No,
    /// The query needs a confidence, and its scores are not calibrated yet.
    Unknown,
}

impl Standing {
    /// Prepares a search as a standing query. Only the query, targets, fusion, filter, space and excluded
    /// assets of the request are used.
    ///
    /// # Errors
    /// [`SearchError`], as for a search; [`SearchError::BadRequest`] if `least` is a confidence and it is
    /// undefined.
    pub fn new(comparable: &Comparable, request: SearchRequest, least: Least) -> Result<Self, SearchError> {
        request.filter.check()?;
        let mut targets = request.targets;
        targets.sort_unstable();
        targets.dedup();
        let space = plan(comparable, &modalities(&request.query), &targets, request.space.as_ref())?;
        let lane = |part: &QueryPart, target: &Track| Lane {
            query: part.modality,
            words: part.words.min(MOST_WORDS),
            space: space.clone(),
            target: *target,
        };
        let lanes = match request.query.as_slice() {
            [part] if request.fuse == Fuse::Best || targets.len() < 2 => {
                targets.iter().map(|target| lane(part, target)).collect()
            }
            _ => Vec::new(),
        };
        let standing = Self {
            query: Combined::new(&request.query, &space)?,
            targets,
            fuse: request.fuse,
            space,
            filter: request.filter,
            exclude_assets: request.exclude_assets,
            least,
            lanes,
        };
        standing.with_least(least)
    }

    /// The same query with another minimum.
    ///
    /// # Errors
    /// [`SearchError::BadRequest`] if `least` is a confidence and it is undefined.
    pub fn with_least(self, least: Least) -> Result<Self, SearchError> {
        if matches!(least, Least::Confidence(_)) && self.lanes.is_empty() {
            let message = "confidence needs a single query part, and one target or `fuse: best`; send `min_score` instead";
            return Err(SearchError::bad("min_confidence", message));
        }
        Ok(Self { least, ..self })
    }

    /// Space of the scores.
    #[must_use]
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// Whether the query needs no confidence, or its confidence is calibrated on all targets.
    #[must_use]
    pub fn is_tellable(&self, corpus: &Corpus) -> bool {
        let distributions = corpus.backgrounds.now();
        let told = |track: &Track| self.confidence(&distributions, 1.0, *track).is_some();
        matches!(self.least, Least::Score(_)) || self.targets.iter().all(told)
    }

    fn confidence(&self, distributions: &Distributions, score: f32, track: Track) -> Option<f32> {
        let lane = self.lanes.iter().find(|lane| lane.target == track)?;
        distributions.confidence(lane, score, self.targets.len())
    }

    fn is_enough(&self, distributions: &Distributions, found: &Match) -> bool {
        match self.least {
            Least::Score(least) => found.score >= least,
            Least::Confidence(least) => self
                .confidence(distributions, found.score, found.track)
                .is_some_and(|confidence| confidence >= least),
        }
    }

    fn about(&self, asking: &mut Asking<'_>) -> Verdict {
        let asset = asking.asset;
        let by_clip = self.filter.of_clips();
        let passes = |clip: &ClipEntry| self.filter.is_empty() || asset.passes(&self.filter, clip);
        if self.exclude_assets.contains(&asset.id) || !(by_clip || asset.clips.first().is_some_and(passes)) {
            return Verdict::No;
        }
        let own = asking.own(self);
        let mut scored = self.scores(&own);
        if by_clip {
            scored.retain(|found| asset.clip(found.clip).is_some_and(passes));
        }
        // The best match of each track stands for the others: if any of the track is enough, so is the best.
        let mut tops = PerTrack::<Option<Match>>::default();
        for found in &scored {
            let top = &mut tops[found.track];
            if top.is_none_or(|top| found.score > top.score) {
                *top = Some(*found);
            }
        }
        let distributions = Arc::clone(&asking.distributions);
        if let Some(top) = tops.values().flatten().find(|top| self.is_enough(&distributions, top)) {
            let usual = self.usual_score(&asking.sample(self));
            return Verdict::Matches(self.moments(&distributions, asset, &scored, top, usual));
        }
        let untold = |top: &Match| self.confidence(&distributions, top.score, top.track).is_none();
        let by_confidence = matches!(self.least, Least::Confidence(_));
        if by_confidence && tops.values().flatten().any(untold) { Verdict::Unknown } else { Verdict::No }
    }

    /// Median score of clips sampled from the whole library.
    fn usual_score(&self, sample: &Gathered) -> f32 {
        let mut scores: Vec<f32> = self.scores(sample).into_iter().map(|found| found.score).collect();
        scores.sort_unstable_by(f32::total_cmp);
        scores.get(scores.len() / 2).copied().unwrap_or(0.0)
    }

    /// Scores of clips. Clips without a vector on any target are left out.
    fn scores(&self, clips: &Gathered) -> Vec<Match> {
        let share = if self.fuse == Fuse::Mean { 1.0 / self.targets.len() as f32 } else { 1.0 };
        let mut scored = Vec::with_capacity(clips.ids.len());
        for (n, clip) in clips.ids.iter().enumerate() {
            let mut best: Option<Match> = None;
            let mut sum = 0.0;
            for (track, lane) in self.targets.iter().zip(&clips.lanes) {
                let Some(vector) = lane.get(n).and_then(Option::as_ref) else { continue };
                let score = score(self.query.vector.as_slice(), vector.as_slice()) * self.query.scale;
                sum += score * share;
                if best.is_none_or(|best| score > best.score) {
                    best = Some(Match { clip: *clip, score, track: *track });
                }
            }
            let fused =
                |best: Match| if self.fuse == Fuse::Mean { Match { score: sum, ..best } } else { best };
            scored.extend(best.map(fused));
        }
        scored
    }

    /// The moments that reach the minimum, found as a search by moments does; `top` is a clip that reaches
    /// it.
    fn moments(
        &self,
        distributions: &Distributions,
        asset: &AssetEntry,
        scored: &[Match],
        top: &Match,
        usual: f32,
    ) -> Vec<MatchedMoment> {
        let by_clip: HashMap<ClipId, &Match> = scored.iter().map(|found| (found.clip, found)).collect();
        let window = |found: &Match| {
            let span = asset.clip(found.clip)?.span;
            Some(Window { clip: found.clip, span, score: found.score })
        };
        let windows: Vec<Window> = scored.iter().filter_map(window).collect();
        let alone = windows.iter().find(|window| window.clip == top.clip).copied();
        let view = |span: crate::types::TimeSpan, peak: &Window, found: &Match| MatchedMoment {
            start_secs: span.start_secs,
            end_secs: span.end_secs,
            peak_secs: f64::midpoint(peak.span.start_secs, peak.span.end_secs),
            score: found.score,
            confidence: self.confidence(distributions, found.score, found.track),
            matched: found.track,
        };
        let mut kept: Vec<MatchedMoment> = moments(windows, usual)
            .into_iter()
            .filter_map(|moment| Some((moment, *by_clip.get(&moment.peak.clip)?)))
            .filter(|(_, found)| self.is_enough(distributions, found))
            .take(MAX_MOMENTS)
            .map(|(moment, found)| view(moment.span, &moment.peak, found))
            .collect();
        if kept.is_empty() {
            // With two tracks, the lower score can have the higher confidence, and its clip can lie in
            // another clip's moment.
            kept.extend(alone.map(|window| view(window.span, &window, top)));
        }
        kept
    }
}

/// Clips with their vectors in one space: one lane per target, each in the order of the clips.
#[derive(Debug)]
struct Gathered {
    ids: Vec<ClipId>,
    lanes: Vec<Vec<Option<Embedding>>>,
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
struct Asking<'a> {
    corpus: &'a Corpus,
    distributions: Arc<Distributions>,
    asset: &'a AssetEntry,
    read: Vec<Read>,
}

impl Asking<'_> {
    fn place(&mut self, query: &Standing) -> usize {
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

    fn own(&mut self, query: &Standing) -> Arc<Gathered> {
        let at = self.place(query);
        Arc::clone(&self.read[at].own)
    }

    /// Clips sampled from the whole library, as a search samples them.
    fn sample(&mut self, query: &Standing) -> Arc<Gathered> {
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

/// Matches an asset against each of these queries, in their order. CPU-bound.
pub fn ask<'a>(
    corpus: &Corpus,
    asset: &AssetEntry,
    queries: impl IntoIterator<Item = &'a Standing>,
) -> Vec<Verdict> {
    let distributions = corpus.backgrounds.now();
    let mut asking = Asking { corpus, distributions, asset, read: Vec::new() };
    queries.into_iter().map(|query| query.about(&mut asking)).collect()
}
