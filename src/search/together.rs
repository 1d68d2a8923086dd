//! `fuse: mean` over several spaces: what is seen and what is heard at the same time, pooled by confidence.
//!
//! Cosines of two spaces have no mean. So each space tells how sure it is of a clip, or, where sound has clips of
//! its own, of the clip of the same asset that shares most of its time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::found::Found;
use super::fused::{surest_first, without_doubles};
use super::lookup::{Lookup, Match};
use super::meaning::Assessment;
use super::moments::{Window, moments};
use super::{GroupBy, SearchError, SearchRequest};
use crate::catalog::{AssetEntry, Catalog, Selection};
use crate::types::{ClipId, TimeSpan};

/// Clips fetched at first from each space for each hit wanted.
const CLIPS_PER_HIT: usize = 4;

/// What one space says about the clips of an asset.
pub(super) struct Said {
    /// Its clips, each with what its score means.
    pub clips: Vec<(Match, Assessment)>,
    /// What it says about a clip that has nothing to compare.
    pub missing: Assessment,
    /// How much it counts: the number of tracks that it compares.
    pub weight: f32,
}

/// A clip of an asset, as all spaces together score it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pooled {
    /// The clip in the space that is surest of it.
    pub matched: Match,
    /// Number of that space.
    pub look: usize,
    /// All spaces together.
    pub assessment: Assessment,
}

/// The clips of one space by the beginning of their spans.
struct InTime {
    clips: Vec<(TimeSpan, Assessment)>,
    by_id: HashMap<ClipId, Assessment>,
    longest_secs: f64,
}

impl InTime {
    fn new(asset: &AssetEntry, said: &Said) -> Self {
        let timed =
            |(found, assessment): &(Match, Assessment)| Some((asset.clip(found.clip)?.span, *assessment));
        let mut clips: Vec<(TimeSpan, Assessment)> = said.clips.iter().filter_map(timed).collect();
        clips.sort_by(|a, b| a.0.start_secs.total_cmp(&b.0.start_secs));
        let longest_secs = clips.iter().map(|(span, _)| span.duration_secs()).fold(0.0, f64::max);
        let by_id = said.clips.iter().map(|(found, assessment)| (found.clip, *assessment)).collect();
        Self { clips, by_id, longest_secs }
    }

    /// What the space says about a clip, or else about the time of it.
    fn about(&self, clip: ClipId, span: TimeSpan) -> Option<Assessment> {
        if let Some(own) = self.by_id.get(&clip) {
            return Some(*own);
        }
        let end = self.clips.partition_point(|(other, _)| other.start_secs < span.end_secs);
        let begun = span.start_secs - self.longest_secs;
        let near = self.clips.iter().take(end).rev().take_while(|(other, _)| other.start_secs >= begun);
        let shared =
            |other: TimeSpan| other.end_secs.min(span.end_secs) - other.start_secs.max(span.start_secs);
        let best =
            near.map(|(other, assessment)| (shared(*other), assessment)).filter(|(secs, _)| *secs > 0.0);
        best.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, assessment)| *assessment)
    }
}

/// The clips of an asset that at least one space knows, each once.
pub(super) fn pooled(asset: &AssetEntry, spaces: &[Said]) -> Vec<Pooled> {
    let in_time: Vec<InTime> = spaces.iter().map(|said| InTime::new(asset, said)).collect();
    let mut best: HashMap<ClipId, Pooled> = HashMap::new();
    let mut owns: HashMap<ClipId, Assessment> = HashMap::new();
    for (look, said) in spaces.iter().enumerate() {
        for (matched, own) in &said.clips {
            let Some(span) = asset.clip(matched.clip).map(|clip| clip.span) else { continue };
            if owns.get(&matched.clip).is_some_and(|other| other.order(own).is_ge()) {
                continue;
            }
            owns.insert(matched.clip, *own);
            let weighted: Vec<(f32, Assessment)> = spaces
                .iter()
                .zip(&in_time)
                .map(|(said, in_time)| {
                    (said.weight, in_time.about(matched.clip, span).unwrap_or(said.missing))
                })
                .collect();
            if let Some(assessment) = Assessment::pooled(&weighted) {
                best.insert(matched.clip, Pooled { matched: *matched, look, assessment });
            }
        }
    }
    let mut all: Vec<Pooled> = best.into_values().collect();
    all.sort_by(|a, b| b.assessment.order(&a.assessment).then(a.matched.clip.cmp(&b.matched.clip)));
    all
}

/// The moments of pooled clips, each with its best clip. `usual` is the excess of unrelated clips.
pub(super) fn moments_of(
    asset: &AssetEntry,
    spaces: &[Said],
    clips: &[Pooled],
    usual: f32,
) -> Vec<(TimeSpan, Pooled)> {
    // One space's clips cover its time once. Those of another one count where it has none.
    let first = spaces.iter().find(|said| !said.clips.is_empty());
    let leading = first.map(|said| InTime::new(asset, said));
    let window = |clip: &Pooled| {
        let (id, span) = (clip.matched.clip, asset.clip(clip.matched.clip)?.span);
        let leads =
            leading.as_ref().is_none_or(|of| of.by_id.contains_key(&id) || of.about(id, span).is_none());
        leads.then_some(Window { clip: id, span, score: clip.assessment.excess })
    };
    let by_id: HashMap<ClipId, &Pooled> = clips.iter().map(|clip| (clip.matched.clip, clip)).collect();
    let found = moments(clips.iter().filter_map(window).collect(), usual);
    let peak = |moment: super::moments::Moment| Some((moment.span, **by_id.get(&moment.peak.clip)?));
    found.into_iter().filter_map(peak).collect()
}

/// The excess of unrelated clips; `None` without distributions.
pub(super) fn usual_excess(looks: &[Lookup<'_>]) -> Result<Option<f32>, SearchError> {
    let mut weighted = Vec::with_capacity(looks.len());
    for look in looks {
        let Some(assessment) = look.assess_score(look.usual_score()?.unwrap_or_default()) else {
            return Ok(None);
        };
        weighted.push((look.targets.len() as f32, assessment));
    }
    Ok(Assessment::pooled(&weighted).map(|assessment| assessment.excess))
}

/// What each space says about these clips of an asset; `None` without distributions.
pub(super) fn said(looks: &[Lookup<'_>], clips: &[ClipId]) -> Result<Option<Vec<Said>>, SearchError> {
    let mut spaces = Vec::with_capacity(looks.len());
    for look in looks {
        let matches = look.scores(clips)?;
        let assessed = look.assess(&matches)?;
        let clips: Option<Vec<_>> =
            matches.into_iter().zip(assessed).map(|(found, assessment)| Some((found, assessment?))).collect();
        let (Some(clips), Some(missing)) = (clips, look.assess_score(0.0)) else { return Ok(None) };
        spaces.push(Said { clips, missing, weight: look.targets.len() as f32 });
    }
    Ok(Some(spaces))
}

/// The best hits by the mean over several spaces, surest first, each with the number of its space; `None`
/// without distributions. Lists are read deeper until no unseen clip can be surer than the last hit.
pub(super) fn ranked(
    catalog: &Catalog,
    looks: &[Lookup<'_>],
    request: &SearchRequest,
    selection: &Selection,
) -> Result<Option<Vec<(usize, Found)>>, SearchError> {
    let Some(usual) = usual_excess(looks)? else { return Ok(None) };
    let wanted = request.offset + request.limit;
    let mut depth = wanted.saturating_mul(CLIPS_PER_HIT);
    let (mut seen, mut all) = (HashSet::new(), Vec::new());
    loop {
        let mut limits = Vec::with_capacity(looks.len());
        let mut exhausted = true;
        for look in looks {
            let best = look.best(depth)?;
            exhausted &= best.len() < depth;
            let last = best.last().filter(|_| best.len() >= depth).map(|last| last.score);
            limits.extend(
                look.assess_score(last.unwrap_or_default())
                    .map(|assessment| (look.targets.len() as f32, assessment)),
            );
            for (_, asset) in catalog.owners(best.iter().map(|found| found.clip)) {
                if seen.insert(asset.id) {
                    let ids: Vec<ClipId> =
                        asset.clips.iter().map(|clip| clip.id).filter(|clip| selection.has(*clip)).collect();
                    let Some(found) = of_asset(&asset, looks, request.group_by, &ids, usual)? else {
                        return Ok(None);
                    };
                    all.extend(found);
                }
            }
        }
        all.sort_by(|a: &(usize, Found), b| surest_first(&a.1, &b.1));
        let kept = without_doubles(std::mem::take(&mut all), request.group_by);
        let limit = Assessment::pooled(&limits);
        let reaches = |found: &Found| {
            found.assessment.zip(limit).is_none_or(|(assessment, limit)| assessment.order(&limit).is_ge())
        };
        if exhausted || kept.iter().take_while(|(_, found)| reaches(found)).count() >= wanted {
            return Ok(Some(kept));
        }
        all = kept;
        depth = depth.saturating_mul(4);
    }
}

/// Hits among these clips of an asset, each with the number of its space; `None` without distributions.
pub(super) fn of_asset(
    asset: &Arc<AssetEntry>,
    looks: &[Lookup<'_>],
    group_by: GroupBy,
    clips: &[ClipId],
    usual: f32,
) -> Result<Option<Vec<(usize, Found)>>, SearchError> {
    let Some(spaces) = said(looks, clips)? else { return Ok(None) };
    let clips = pooled(asset, &spaces);
    let found = |span: TimeSpan, clip: Pooled| {
        let Pooled { matched, look, assessment } = clip;
        (look, Found { asset: Arc::clone(asset), matched, span, assessment: Some(assessment) })
    };
    Ok(Some(match group_by {
        GroupBy::Moment => moments_of(asset, &spaces, &clips, usual)
            .into_iter()
            .map(|(span, clip)| found(span, clip))
            .collect(),
        GroupBy::Clip | GroupBy::Asset => clips
            .into_iter()
            .filter_map(|clip| Some(found(asset.clip(clip.matched.clip)?.span, clip)))
            .collect(),
    }))
}
