//! Scores of every clip of one asset for a query.

use std::collections::HashMap;

use super::lookup::Match;
use super::moments::{Window, moments};
use super::run::lookup;
use super::{Corpus, SearchError, SearchRequest};
use crate::catalog::Selection;
use crate::types::{AssetId, ClipId, Space, TimeSpan, Track};

/// One clip of a timeline.
#[derive(Debug, Clone)]
pub struct TimelineClip {
    /// Time span within the asset.
    pub span: TimeSpan,
    /// Score of the clip.
    pub score: f32,
    /// Confidence of the score; `None` if it cannot be computed.
    pub confidence: Option<f32>,
    /// Track with the best score.
    pub matched: Track,
    /// Cosine between the clip's own sound and picture; `None` if it lacks one of them.
    pub agreement: Option<f32>,
}

/// One moment of a timeline.
#[derive(Debug, Clone)]
pub struct TimelineMoment {
    /// Time span within the asset.
    pub span: TimeSpan,
    /// Middle of the best clip, in seconds.
    pub peak_secs: f64,
    /// Score of the best clip.
    pub score: f32,
    /// Confidence of the score; `None` if it cannot be computed.
    pub confidence: Option<f32>,
}

/// Scores of every clip of one asset for a query.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Clips in time order.
    pub clips: Vec<TimelineClip>,
    /// Moments, best first.
    pub moments: Vec<TimelineMoment>,
    /// Space of the scores.
    pub space: Space,
    /// Median score of clips sampled from the whole library.
    pub usual_score: Option<f32>,
}

/// Scores every clip of an asset. Only the query, targets, fusion and space of the request are used.
///
/// # Errors
/// [`SearchError`].
pub fn timeline(corpus: &Corpus, request: &SearchRequest, asset: AssetId) -> Result<Timeline, SearchError> {
    let look = lookup(corpus, request, &Selection::All)?;
    let usual_score = look.usual_score()?;
    let Some(asset) = corpus.catalog.asset(asset) else {
        return Ok(Timeline { clips: Vec::new(), moments: Vec::new(), space: look.space, usual_score });
    };
    let ids: Vec<ClipId> = asset.clips.iter().map(|clip| clip.id).collect();
    let known = |found: &Match| asset.clip(found.clip).map(|clip| (*found, *clip));
    let mut scored: Vec<_> = look.scores(&ids)?.iter().filter_map(known).collect();
    scored.sort_by(|a, b| a.1.span.start_secs.total_cmp(&b.1.span.start_secs).then(a.0.clip.cmp(&b.0.clip)));
    let windows =
        scored.iter().map(|(found, clip)| Window { clip: clip.id, span: clip.span, score: found.score });
    let found = moments(windows.collect(), usual_score.unwrap_or(0.0));
    let of_clip = |(found, clip): (Match, crate::catalog::ClipEntry)| TimelineClip {
        span: clip.span,
        score: found.score,
        confidence: look.confidence(found.score, found.track),
        matched: found.track,
        agreement: clip.agreement,
    };
    let tracks: HashMap<ClipId, Track> = scored.iter().map(|(found, clip)| (clip.id, found.track)).collect();
    let of_moment = |moment: super::moments::Moment| TimelineMoment {
        confidence: tracks
            .get(&moment.peak.clip)
            .and_then(|track| look.confidence(moment.peak.score, *track)),
        span: moment.span,
        peak_secs: f64::midpoint(moment.peak.span.start_secs, moment.peak.span.end_secs),
        score: moment.peak.score,
    };
    let moments = found.into_iter().map(of_moment).collect();
    Ok(Timeline {
        clips: scored.into_iter().map(of_clip).collect(),
        moments,
        space: look.space.clone(),
        usual_score,
    })
}
