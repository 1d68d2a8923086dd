//! The other way round: one asset, and every query that waits for something like it.
//!
//! An asset's vectors are read once; then each query costs one dot product a clip, and only one that
//! matches is looked at more closely.

use std::collections::HashMap;
use std::sync::Arc;

use super::background::{Distributions, MOST_WORDS};
use super::lookup::{Lookup, Match, Meaning};
use super::moments::{Window, moments};
use super::plan::{Comparable, plan};
use super::query::{Combined, modalities};
use super::{Corpus, Fuse, SearchError, SearchRequest};
use crate::catalog::{AssetEntry, Filter};
use crate::index::exact::score;
use crate::store::MatchedMoment;
use crate::types::{AssetId, ClipId, Embedding, Modality, Space, Track};

/// Most moments kept of a match.
const MAX_MOMENTS: usize = 100;

/// What a clip needs to be a match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Least {
    /// At least this confidence.
    Confidence(f32),
    /// At least this score.
    Score(f32),
}

/// A query that is asked about every asset that comes.
#[derive(Debug, Clone)]
pub struct Standing {
    targets: Vec<Track>,
    fuse: Fuse,
    space: Space,
    query: Combined,
    modality: Modality,
    words: usize,
    filter: Filter,
    exclude_assets: Vec<AssetId>,
    least: Least,
    /// Whether confidence can be told of it at all.
    tellable: bool,
}

/// What an asset is to a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It matches; these moments, best first.
    Matches(Vec<MatchedMoment>),
    /// It does not.
    No,
    /// It cannot be told what its scores mean.
    Unknown,
}

impl Standing {
    /// Of a search: the query, the targets, how they are fused, the filter, the space and the assets left
    /// out count.
    ///
    /// # Errors
    /// [`SearchError`], as a search; [`SearchError::BadRequest`] where confidence is needed and cannot be told.
    pub fn new(comparable: &Comparable, request: SearchRequest, least: Least) -> Result<Self, SearchError> {
        request.filter.check()?;
        let mut targets = request.targets;
        targets.sort_unstable();
        targets.dedup();
        let space = plan(comparable, &modalities(&request.query), &targets, request.space.as_ref())?;
        let tellable = request.query.len() == 1 && (request.fuse == Fuse::Best || targets.len() < 2);
        let first = request.query.first();
        let standing = Self {
            query: Combined::new(&request.query, &space)?,
            modality: first.map_or(Modality::Text, |part| part.modality),
            words: first.map_or(0, |part| part.words.min(MOST_WORDS)),
            targets,
            fuse: request.fuse,
            space,
            filter: request.filter,
            exclude_assets: request.exclude_assets,
            least,
            tellable,
        };
        standing.with_least(least)
    }

    /// The same with another threshold.
    ///
    /// # Errors
    /// [`SearchError::BadRequest`] where confidence is needed and cannot be told.
    pub fn with_least(self, least: Least) -> Result<Self, SearchError> {
        if matches!(least, Least::Confidence(_)) && !self.tellable {
            let message = "confidence can be told of one query part and of tracks that are not fused; \
                           give `min_score` instead";
            return Err(SearchError::BadRequest(message.into()));
        }
        Ok(Self { least, ..self })
    }

    /// Space of its scores.
    #[must_use]
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// Whether it can be told now what its scores mean, if that is what it goes by.
    #[must_use]
    pub fn is_tellable(&self, corpus: &Corpus) -> bool {
        let look = self.lookup(corpus, &corpus.backgrounds.now());
        matches!(self.least, Least::Score(_))
            || self.targets.iter().all(|track| look.confidence(1.0, *track).is_some())
    }

    fn lookup<'a>(&self, corpus: &'a Corpus, distributions: &Arc<Distributions>) -> Lookup<'a> {
        let distributions = self.tellable.then(|| Arc::clone(distributions));
        Lookup {
            index: &corpus.index,
            targets: self.targets.clone(),
            fuse: self.fuse,
            space: self.space.clone(),
            query: self.query.clone(),
            params: crate::index::SearchParams::default(),
            filter: None,
            meaning: Meaning { distributions, query: self.modality, words: self.words },
        }
    }

    fn is_enough(&self, look: &Lookup<'_>, found: &Match) -> bool {
        match self.least {
            Least::Score(least) => found.score >= least,
            Least::Confidence(least) => {
                look.confidence(found.score, found.track).is_some_and(|confidence| confidence >= least)
            }
        }
    }

    fn about(
        &self,
        corpus: &Corpus,
        distributions: &Arc<Distributions>,
        asset: &AssetEntry,
        own: &mut OwnVectors,
    ) -> Result<Verdict, SearchError> {
        if self.exclude_assets.contains(&asset.id) {
            return Ok(Verdict::No);
        }
        let scored = self.scores(corpus, asset, own);
        let look = self.lookup(corpus, distributions);
        // The best of each track stands for all: what is enough for another is enough for it.
        let mut tops: Vec<Match> = Vec::with_capacity(2);
        for found in &scored {
            match tops.iter_mut().find(|top| top.track == found.track) {
                Some(top) if found.score > top.score => *top = *found,
                Some(_) => {}
                None => tops.push(*found),
            }
        }
        if let Some(top) = tops.iter().find(|top| self.is_enough(&look, top)) {
            return Ok(Verdict::Matches(self.moments(&look, asset, &scored, top)?));
        }
        let by_confidence = matches!(self.least, Least::Confidence(_));
        let untold = |top: &Match| look.confidence(top.score, top.track).is_none();
        Ok(if by_confidence && tops.iter().any(untold) { Verdict::Unknown } else { Verdict::No })
    }

    /// Scores of the clips that the filter lets through.
    fn scores(&self, corpus: &Corpus, asset: &AssetEntry, own: &mut OwnVectors) -> Vec<Match> {
        let by_clip = self.filter.of_clips();
        let passes = |clip| self.filter.is_empty() || asset.passes(&self.filter, clip);
        if !by_clip && !asset.clips.first().is_some_and(passes) {
            return Vec::new();
        }
        let lanes: Vec<Arc<Lane>> =
            self.targets.iter().map(|track| own.lane(corpus, asset, *track, &self.space)).collect();
        let share = if self.fuse == Fuse::Mean { 1.0 / self.targets.len() as f32 } else { 1.0 };
        let mut scored = Vec::with_capacity(asset.clips.len());
        for (n, clip) in asset.clips.iter().enumerate() {
            if by_clip && !passes(clip) {
                continue;
            }
            let mut best: Option<Match> = None;
            let mut sum = 0.0;
            for (track, lane) in self.targets.iter().zip(&lanes) {
                let Some(vector) = lane.get(n).and_then(Option::as_ref) else { continue };
                let score = score(self.query.vector.as_slice(), vector.as_slice()) * self.query.scale;
                sum += score * share;
                if best.is_none_or(|best| score > best.score) {
                    best = Some(Match { clip: clip.id, score, track: *track });
                }
            }
            let fused =
                |best: Match| if self.fuse == Fuse::Mean { Match { score: sum, ..best } } else { best };
            scored.extend(best.map(fused));
        }
        scored
    }

    /// The moments that are enough, as a search by moments finds them; `top` is one clip that is.
    fn moments(
        &self,
        look: &Lookup<'_>,
        asset: &AssetEntry,
        scored: &[Match],
        top: &Match,
    ) -> Result<Vec<MatchedMoment>, SearchError> {
        let by_clip: HashMap<ClipId, &Match> = scored.iter().map(|found| (found.clip, found)).collect();
        let window = |found: &Match| {
            let span = asset.clip(found.clip)?.span;
            Some(Window { clip: found.clip, span, score: found.score })
        };
        let windows: Vec<Window> = scored.iter().filter_map(window).collect();
        let alone = windows.iter().find(|window| window.clip == top.clip).copied();
        let usual = look.usual_score()?.unwrap_or(0.0);
        let view = |span: crate::types::TimeSpan, peak: &Window, found: &Match| MatchedMoment {
            start_secs: span.start_secs,
            end_secs: span.end_secs,
            peak_secs: f64::midpoint(peak.span.start_secs, peak.span.end_secs),
            score: found.score,
            confidence: look.confidence(found.score, found.track),
            matched: found.track,
        };
        let mut kept: Vec<MatchedMoment> = moments(windows, usual)
            .into_iter()
            .filter_map(|moment| Some((moment, *by_clip.get(&moment.peak.clip)?)))
            .filter(|(_, found)| self.is_enough(look, found))
            .take(MAX_MOMENTS)
            .map(|(moment, found)| view(moment.span, &moment.peak, found))
            .collect();
        if kept.is_empty() {
            // Of two tracks the less good score may be the surer one, and its clip lie in another's moment.
            kept.extend(alone.map(|window| view(window.span, &window, top)));
        }
        Ok(kept)
    }
}

/// Vectors of an asset's clips in one space and track, in the order of its clips.
type Lane = Vec<Option<Embedding>>;

/// An asset's vectors, read as they are needed.
#[derive(Default)]
struct OwnVectors(Vec<(Track, Space, Arc<Lane>)>);

impl OwnVectors {
    fn lane(&mut self, corpus: &Corpus, asset: &AssetEntry, track: Track, space: &Space) -> Arc<Lane> {
        if let Some((_, _, lane)) = self.0.iter().find(|(t, s, _)| *t == track && s == space) {
            return Arc::clone(lane);
        }
        let ids: Vec<ClipId> = asset.clips.iter().map(|clip| clip.id).collect();
        let mut lane: Lane = vec![None; ids.len()];
        for (clip, vector) in corpus.index.vectors(track, space, &ids) {
            if let Some(place) = ids.binary_search(&clip).ok().and_then(|at| lane.get_mut(at)) {
                *place = Some(vector);
            }
        }
        let lane = Arc::new(lane);
        self.0.push((track, space.clone(), Arc::clone(&lane)));
        lane
    }
}

/// What an asset is to each of these queries, in their order. CPU-bound.
///
/// # Errors
/// [`SearchError`].
pub fn ask<'a>(
    corpus: &Corpus,
    asset: &AssetEntry,
    queries: impl IntoIterator<Item = &'a Standing>,
) -> Result<Vec<Verdict>, SearchError> {
    let distributions = corpus.backgrounds.now();
    let mut own = OwnVectors::default();
    queries.into_iter().map(|query| query.about(corpus, &distributions, asset, &mut own)).collect()
}
