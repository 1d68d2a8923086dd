//! Ranks hits of several spaces together. Their cosines have no common scale, so confidence decides, which is
//! measured by space; without a calibration, the spaces take turns.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::found::{Found, Ranked};
use super::{FusedBy, GroupBy};
use crate::types::TimeSpan;

/// Share of the shorter of two moments that both cover if they are the same moment.
const SAME_MOMENT: f64 = 0.5;

/// The hits of all lists, best first, each with the number of its list.
pub(super) fn fuse(lists: Vec<Ranked>, group_by: GroupBy) -> (Vec<(usize, Found)>, Option<FusedBy>) {
    let several = lists.len() > 1;
    let mut all: Vec<Candidate> = Vec::new();
    for (look, list) in lists.into_iter().enumerate() {
        all.extend((0..).zip(list.found).map(|(rank, found)| Candidate { look, rank, found }));
    }
    if !several {
        return (all.into_iter().map(Candidate::parts).collect(), None);
    }
    let calibrated = all.iter().all(|candidate| candidate.found.assessment.is_some());
    if calibrated {
        all.sort_by(|a, b| surest_first(&a.found, &b.found));
    } else {
        all.sort_by_key(|candidate| (candidate.rank, candidate.look));
    }
    let fused_by = if calibrated { FusedBy::Confidence } else { FusedBy::Rank };
    (without_doubles(all.into_iter().map(Candidate::parts), group_by), Some(fused_by))
}

struct Candidate {
    look: usize,
    rank: usize,
    found: Found,
}

impl Candidate {
    fn parts(self) -> (usize, Found) {
        (self.look, self.found)
    }
}

/// Order of hits whose scores have no common scale; those without a meaning come last.
pub(super) fn surest_first(a: &Found, b: &Found) -> Ordering {
    match (a.assessment, b.assessment) {
        (Some(a), Some(b)) => b.order(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Keeps the best hit of each clip, asset or moment.
pub(super) fn without_doubles(
    all: impl IntoIterator<Item = (usize, Found)>,
    group_by: GroupBy,
) -> Vec<(usize, Found)> {
    let (mut clips, mut assets) = (HashSet::new(), HashSet::new());
    let mut kept: Vec<(usize, Found)> = Vec::new();
    for (look, found) in all {
        let is_new = match group_by {
            GroupBy::Clip => clips.insert(found.matched.clip),
            GroupBy::Asset => assets.insert(found.asset.id),
            GroupBy::Moment => !kept.iter().any(|(_, better)| is_same_moment(better, &found)),
        };
        if is_new {
            kept.push((look, found));
        }
    }
    kept
}

fn is_same_moment(better: &Found, found: &Found) -> bool {
    better.asset.id == found.asset.id && is_same_time(better.span, found.span)
}

/// Whether moments of one asset are the same, found twice.
pub(super) fn is_same_time(a: TimeSpan, b: TimeSpan) -> bool {
    let common = a.end_secs.min(b.end_secs) - a.start_secs.max(b.start_secs);
    common > SAME_MOMENT * a.duration_secs().min(b.duration_secs())
}
