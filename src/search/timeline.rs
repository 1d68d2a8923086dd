//! Scores of every clip of one asset for a query.

use std::collections::HashMap;
use std::sync::Arc;

use super::found::Found;
use super::fused::without_doubles;
use super::lookup::Lookup;
use super::meaning::Assessment;
use super::run::{lookups, moments_of};
use super::{Corpus, Fuse, GroupBy, SearchError, SearchRequest, together};
use crate::catalog::{AssetEntry, Selection};
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
    /// Space of the score.
    pub space: Space,
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
    /// Space of the score.
    pub space: Space,
}

/// Scores of every clip of one asset for a query.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Clips in time order.
    pub clips: Vec<TimelineClip>,
    /// Moments, best first.
    pub moments: Vec<TimelineMoment>,
    /// Space of the scores; of several, that of the first target.
    pub space: Space,
    /// Spaces of the scores; each clip and moment names its own.
    pub spaces: Vec<Space>,
    /// Median score in the first space of clips sampled from the whole library.
    pub usual_score: Option<f32>,
}

/// Scores every clip of an asset. Only the query, targets, fusion and space of the request are used.
///
/// # Errors
/// [`SearchError`].
pub fn timeline(corpus: &Corpus, request: &SearchRequest, asset: AssetId) -> Result<Timeline, SearchError> {
    let looks = lookups(corpus, request, &Selection::All)?;
    let spaces: Vec<Space> = looks.iter().map(|look| look.space.clone()).collect();
    let mut usual_scores = Vec::with_capacity(looks.len());
    for look in &looks {
        usual_scores.push(look.usual_score()?);
    }
    let (mut clips, mut moments) = (Vec::new(), Vec::new());
    if let Some(asset) = corpus.catalog.asset(asset) {
        let usual: Vec<f32> = usual_scores.iter().map(|usual| usual.unwrap_or_default()).collect();
        let together = match request.fuse {
            Fuse::Mean if looks.len() > 1 => means(&asset, &looks)?,
            Fuse::Mean | Fuse::Best => None,
        };
        (clips, moments) = match together {
            Some(together) => together,
            None => bests(&asset, &looks, &usual)?,
        };
    }
    clips.sort_by(|a, b| a.1.span.start_secs.total_cmp(&b.1.span.start_secs).then(in_order(a, b)));
    let of_clip = |(look, found): (usize, Found)| TimelineClip {
        span: found.span,
        score: found.matched.score,
        confidence: found.confidence(),
        matched: found.matched.track,
        agreement: found.asset.clip(found.matched.clip).and_then(|clip| clip.agreement),
        space: spaces[look].clone(),
    };
    let of_moment = |(look, found): (usize, Found)| {
        let peak = found.asset.clip(found.matched.clip).map_or(found.span, |clip| clip.span);
        TimelineMoment {
            span: found.span,
            peak_secs: f64::midpoint(peak.start_secs, peak.end_secs),
            score: found.matched.score,
            confidence: found.confidence(),
            space: spaces[look].clone(),
        }
    };
    Ok(Timeline {
        clips: clips.into_iter().map(of_clip).collect(),
        moments: moments.into_iter().map(of_moment).collect(),
        space: spaces.first().cloned().unwrap_or_else(|| Space::new("")),
        spaces: spaces.clone(),
        usual_score: usual_scores.first().copied().flatten(),
    })
}

fn in_order(a: &(usize, Found), b: &(usize, Found)) -> std::cmp::Ordering {
    a.1.matched.clip.cmp(&b.1.matched.clip)
}

/// Clips and moments, each with the number of its space.
type Placed = (Vec<(usize, Found)>, Vec<(usize, Found)>);

/// Each clip in the space that is surest of it; where that is not known, in the first that has it.
fn bests(asset: &Arc<AssetEntry>, looks: &[Lookup<'_>], usual: &[f32]) -> Result<Placed, SearchError> {
    let ids: Vec<ClipId> = asset.clips.iter().map(|clip| clip.id).collect();
    let mut clips: HashMap<ClipId, (usize, Found)> = HashMap::new();
    let mut moments = Vec::new();
    for (at, (look, usual)) in looks.iter().zip(usual).enumerate() {
        let matches = look.scores(&ids)?;
        for (matched, assessment) in matches.iter().copied().zip(look.assess(&matches)?) {
            let Some(span) = asset.clip(matched.clip).map(|clip| clip.span) else { continue };
            let found = Found { asset: Arc::clone(asset), matched, span, assessment };
            let better = |known: &(usize, Found)| is_better(found.assessment, known.1.assessment);
            if clips.get(&matched.clip).is_none_or(better) {
                clips.insert(matched.clip, (at, found));
            }
        }
        let of_space = moments_of(asset, look, &Selection::All, *usual)?;
        moments.extend(of_space.into_iter().map(|found| (at, found)));
    }
    if looks.len() > 1 {
        // The sort is stable: moments that cannot be told stay in the order of the spaces.
        moments.sort_by(|a, b| super::fused::surest_first(&a.1, &b.1));
        moments = without_doubles(moments, GroupBy::Moment);
    }
    Ok((clips.into_values().collect(), moments))
}

fn is_better(new: Option<Assessment>, known: Option<Assessment>) -> bool {
    new.zip(known).is_some_and(|(new, known)| new.order(&known).is_gt())
}

/// Each clip by the mean over the spaces; `None` where confidence is not known.
fn means(asset: &Arc<AssetEntry>, looks: &[Lookup<'_>]) -> Result<Option<Placed>, SearchError> {
    let ids: Vec<ClipId> = asset.clips.iter().map(|clip| clip.id).collect();
    let Some(usual) = together::usual_excess(looks)? else { return Ok(None) };
    let (clips, moments) = (
        together::of_asset(asset, looks, GroupBy::Clip, &ids, usual)?,
        together::of_asset(asset, looks, GroupBy::Moment, &ids, usual)?,
    );
    Ok(clips.zip(moments))
}
