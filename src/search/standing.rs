//! Reverse search: matches one asset against all standing queries.
//!
//! The asset's vectors are read once. Then each query costs one dot product per clip and track, and only
//! queries that match are examined further.

mod gathered;

use std::collections::HashMap;
use std::sync::Arc;

use self::gathered::{Asking, Gathered};
use super::background::Distributions;
use super::fused::is_same_time;
use super::lookup::Match;
use super::meaning::{Assessment, Meaning};
use super::moments::{Window, moments};
use super::plan::{Comparable, Route};
use super::query::Combined;
use super::run::{chances, routes_of};
use super::{Corpus, Fuse, SearchError, SearchRequest, together};
use crate::catalog::{AssetEntry, ClipEntry, Filter};
use crate::index::exact::score;
use crate::store::MatchedMoment;
use crate::types::{AssetId, ClipId, Space, TimeSpan, Track};

/// Most moments stored per match.
const MAX_MOMENTS: usize = 100;

/// The minimum that a clip must reach to match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Minimum {
    /// At least this confidence.
    Confidence(f32),
    /// At least this score.
    Score(f32),
}

/// A standing query, prepared for matching against assets.
#[derive(Debug, Clone)]
pub struct Standing {
    /// One for each space that the targets need.
    routes: Vec<StandingRoute>,
    fuse: Fuse,
    filter: Filter,
    exclude_assets: Vec<AssetId>,
    minimum: Minimum,
}

/// The query in one space.
#[derive(Debug, Clone)]
struct StandingRoute {
    space: Space,
    targets: Vec<Track>,
    takes_means: bool,
    query: Combined,
    meaning: Meaning,
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
    /// [`SearchError`], as for a search; [`SearchError::BadRequest`] if `minimum` is a confidence and it is
    /// undefined.
    pub fn new(
        comparable: &Comparable,
        request: SearchRequest,
        minimum: Minimum,
    ) -> Result<Self, SearchError> {
        request.filter.check()?;
        let routes = routes_of(comparable, &request)?;
        let chances = chances(&routes, request.fuse);
        let asked = |Route { space, targets }: Route| {
            Ok(StandingRoute {
                query: Combined::new(&request.query, &space)?,
                meaning: Meaning::new(&request.query, &space, chances),
                takes_means: request.fuse == Fuse::Mean && targets.len() > 1,
                space,
                targets,
            })
        };
        let standing = Self {
            routes: routes.into_iter().map(asked).collect::<Result<_, SearchError>>()?,
            fuse: request.fuse,
            filter: request.filter,
            exclude_assets: request.exclude_assets,
            minimum,
        };
        standing.with_minimum(minimum)
    }

    /// The same query with another minimum.
    ///
    /// # Errors
    /// [`SearchError::BadRequest`] if `minimum` is a score and there are several, of no common scale.
    pub fn with_minimum(self, minimum: Minimum) -> Result<Self, SearchError> {
        if matches!(minimum, Minimum::Score(_)) && self.routes.len() > 1 {
            let message = "this model compares the query with its targets in different spaces, whose scores have no \
                           common scale; send `min_confidence`, or name one target";
            return Err(SearchError::bad("min_score", message));
        }
        Ok(Self { minimum, ..self })
    }

    /// Space of the scores; of several, that of the first target.
    #[must_use]
    pub fn space(&self) -> Option<&Space> {
        self.routes.first().map(|route| &route.space)
    }

    /// Space in which a track is compared.
    #[must_use]
    pub fn space_of(&self, track: Track) -> Option<&Space> {
        let found = self.routes.iter().find(|route| route.targets.contains(&track));
        found.map(|route| &route.space).or_else(|| self.space())
    }

    /// Whether the query needs no confidence, or its confidence is calibrated on all targets.
    #[must_use]
    pub fn is_calibrated(&self, corpus: &Corpus) -> bool {
        let distributions = corpus.backgrounds.now();
        let assessed = |route: &StandingRoute| {
            route.targets.iter().all(|track| route.meaning.can_assess(&distributions, *track))
        };
        matches!(self.minimum, Minimum::Score(_)) || self.routes.iter().all(assessed)
    }

    fn is_enough(&self, score: f32, confidence: Option<f32>) -> bool {
        match self.minimum {
            Minimum::Score(minimum) => score >= minimum,
            Minimum::Confidence(minimum) => confidence.is_some_and(|confidence| confidence >= minimum),
        }
    }

    fn about(&self, asking: &mut Asking<'_>) -> Verdict {
        let asset = asking.asset;
        let by_clip = self.filter.of_clips();
        let passes = |clip: &ClipEntry| self.filter.is_empty() || asset.passes(&self.filter, clip);
        if self.exclude_assets.contains(&asset.id) || !(by_clip || asset.clips.first().is_some_and(passes)) {
            return Verdict::No;
        }
        if self.fuse == Fuse::Mean && self.routes.len() > 1 {
            return self.by_mean(asking);
        }
        let (mut all, mut is_unknown) = (Vec::new(), false);
        for route in &self.routes {
            match self.in_space(route, asking) {
                Verdict::Matches(moments) => all.extend(moments),
                Verdict::Unknown => is_unknown = true,
                Verdict::No => {}
            }
        }
        if all.is_empty() {
            return if is_unknown { Verdict::Unknown } else { Verdict::No };
        }
        if self.routes.len() > 1 {
            all = surest_moments(all);
        }
        Verdict::Matches(all)
    }

    /// Scores of an asset's clips that pass the filter.
    fn passing(&self, asset: &AssetEntry, mut scored: Vec<Match>) -> Vec<Match> {
        if self.filter.of_clips() {
            let passes = |clip: &ClipEntry| asset.passes(&self.filter, clip);
            scored.retain(|found| asset.clip(found.clip).is_some_and(passes));
        }
        scored
    }

    fn in_space(&self, route: &StandingRoute, asking: &mut Asking<'_>) -> Verdict {
        let asset = asking.asset;
        let own = asking.own(route);
        let scored = self.passing(asset, route.scores(&own));
        let distributions = Arc::clone(&asking.distributions);
        let confidence =
            |found: &Match| route.assess(&distributions, &own, found).map(|assessment| assessment.confidence);
        let tops = self.tops(route, &scored);
        if let Some(top) = tops.iter().find(|top| self.is_enough(top.score, confidence(top))) {
            let usual = route.usual_score(&asking.sample(route));
            return Verdict::Matches(self.moments(&confidence, asset, &scored, top, usual));
        }
        let by_confidence = matches!(self.minimum, Minimum::Confidence(_));
        let is_untold = |top: &Match| confidence(top).is_none();
        if by_confidence && tops.iter().any(is_untold) { Verdict::Unknown } else { Verdict::No }
    }

    /// The matches of which one reaches the minimum if any does. The best of each track stands for the others,
    /// except where confidence takes several scores.
    fn tops(&self, route: &StandingRoute, scored: &[Match]) -> Vec<Match> {
        let mut best: Vec<Match> = scored.to_vec();
        best.sort_by(|a, b| b.score.total_cmp(&a.score));
        if matches!(self.minimum, Minimum::Score(_)) || !(route.takes_means || route.meaning.parts.len() > 1)
        {
            let mut seen = Vec::new();
            best.retain(|found| {
                let is_first = !seen.contains(&found.track);
                seen.push(found.track);
                is_first
            });
        }
        best
    }

    /// The mean over several spaces.
    fn by_mean(&self, asking: &mut Asking<'_>) -> Verdict {
        let (asset, distributions) = (asking.asset, Arc::clone(&asking.distributions));
        let (mut spaces, mut usual) = (Vec::new(), Vec::new());
        for route in &self.routes {
            let own = asking.own(route);
            let assessed = |found: Match| Some((found, route.assess(&distributions, &own, &found)?));
            let clips: Option<Vec<_>> =
                self.passing(asset, route.scores(&own)).into_iter().map(assessed).collect();
            let usual_score = route.usual_score(&asking.sample(route));
            let of = |score: f32| route.meaning.assess(&distributions, &route.targets, |_, _| score);
            let weight = route.targets.len() as f32;
            let (Some(clips), Some(missing), Some(usually)) = (clips, of(0.0), of(usual_score)) else {
                return Verdict::Unknown;
            };
            spaces.push(together::Said { clips, missing, weight });
            usual.push((weight, usually));
        }
        let clips = together::pooled(asset, &spaces);
        let is_enough =
            |clip: &together::Pooled| self.is_enough(clip.matched.score, Some(clip.assessment.confidence));
        let Some(top) = clips.first().filter(|top| is_enough(top)) else { return Verdict::No };
        let usual = Assessment::pooled(&usual).map_or(0.0, |usual| usual.excess);
        let view = |span: TimeSpan, clip: &together::Pooled| {
            let peak = asset.clip(clip.matched.clip).map_or(span, |clip| clip.span);
            matched_moment(span, peak, &clip.matched, Some(clip.assessment.confidence))
        };
        let found = together::moments_of(asset, &spaces, &clips, usual);
        let reaching = found.iter().filter(|(_, clip)| is_enough(clip)).take(MAX_MOMENTS);
        let mut kept: Vec<MatchedMoment> = reaching.map(|(span, clip)| view(*span, clip)).collect();
        if kept.is_empty() {
            // The surest clip lies in the moment of another one.
            kept.extend(asset.clip(top.matched.clip).map(|clip| view(clip.span, top)));
        }
        Verdict::Matches(surest_moments(kept))
    }

    /// The moments that reach the minimum, found as a search by moments does; `top` is a clip that reaches
    /// it.
    fn moments(
        &self,
        confidence: &dyn Fn(&Match) -> Option<f32>,
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
        let view = |span: TimeSpan, peak: &Window, found: &Match| {
            matched_moment(span, peak.span, found, confidence(found))
        };
        let mut kept: Vec<MatchedMoment> = moments(windows, usual)
            .into_iter()
            .filter_map(|moment| Some((moment, *by_clip.get(&moment.peak.clip)?)))
            .filter(|(_, found)| self.is_enough(found.score, confidence(found)))
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

fn matched_moment(span: TimeSpan, peak: TimeSpan, found: &Match, confidence: Option<f32>) -> MatchedMoment {
    MatchedMoment {
        start_secs: span.start_secs,
        end_secs: span.end_secs,
        peak_secs: f64::midpoint(peak.start_secs, peak.end_secs),
        score: found.score,
        confidence,
        matched: found.track,
    }
}

/// Moments of several spaces, surest first, each once.
fn surest_moments(mut all: Vec<MatchedMoment>) -> Vec<MatchedMoment> {
    let confidence = |moment: &MatchedMoment| moment.confidence.unwrap_or_default();
    all.sort_by(|a, b| confidence(b).total_cmp(&confidence(a)));
    let mut kept: Vec<MatchedMoment> = Vec::new();
    for moment in all {
        let span =
            |moment: &MatchedMoment| TimeSpan { start_secs: moment.start_secs, end_secs: moment.end_secs };
        if kept.len() < MAX_MOMENTS && !kept.iter().any(|better| is_same_time(span(better), span(&moment))) {
            kept.push(moment);
        }
    }
    kept
}

impl StandingRoute {
    /// Median score of clips sampled from the whole library.
    fn usual_score(&self, sample: &Gathered) -> f32 {
        let mut scores: Vec<f32> = self.scores(sample).into_iter().map(|found| found.score).collect();
        scores.sort_unstable_by(f32::total_cmp);
        scores.get(scores.len() / 2).copied().unwrap_or(0.0)
    }

    /// What a score means; `None` without a distribution.
    fn assess(&self, distributions: &Distributions, clips: &Gathered, found: &Match) -> Option<Assessment> {
        if self.meaning.parts.len() == 1 && !self.takes_means {
            return self.meaning.assess(distributions, &[found.track], |_, _| found.score);
        }
        let at = clips.ids.binary_search(&found.clip).ok()?;
        let of = |part: usize, track: Track| {
            let lane = self.targets.iter().position(|target| *target == track)?;
            let vector = clips.lanes.get(lane)?.get(at)?.as_ref()?;
            Some(score(self.meaning.parts.get(part)?.vector.as_slice(), vector.as_slice()))
        };
        let matched = [found.track];
        let tracks = if self.takes_means { self.targets.as_slice() } else { &matched };
        self.meaning.assess(distributions, tracks, |part, track| of(part, track).unwrap_or_default())
    }

    /// Scores of clips. Clips without a vector on any target are left out.
    fn scores(&self, clips: &Gathered) -> Vec<Match> {
        let share = if self.takes_means { 1.0 / self.targets.len() as f32 } else { 1.0 };
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
            let fused = |best: Match| if self.takes_means { Match { score: sum, ..best } } else { best };
            scored.extend(best.map(fused));
        }
        scored
    }
}

/// Matches an asset against each of these queries, in their order. CPU-bound.
pub fn ask<'a>(
    corpus: &Corpus,
    asset: &AssetEntry,
    queries: impl IntoIterator<Item = &'a Standing>,
) -> Vec<Verdict> {
    let mut asking = Asking::new(corpus, asset);
    queries.into_iter().map(|query| query.about(&mut asking)).collect()
}
