//! Ranks hits of several spaces together. Their cosines have no common scale, so confidence decides, which is
//! measured by space; without a calibration, the spaces take turns.

use std::collections::HashSet;

use super::found::{Found, Ranked};
use super::lookup::Lookup;
use super::{FusedBy, GroupBy};

/// Share of the shorter of two moments that both cover if they are the same moment.
const SAME_MOMENT: f64 = 0.5;

/// The hits of all lists, best first, each with the number of its list.
pub(super) fn fuse(
    looks: &[Lookup<'_>],
    lists: Vec<Ranked>,
    group_by: GroupBy,
) -> (Vec<(usize, Found)>, Option<FusedBy>) {
    let mut all: Vec<Candidate> = Vec::new();
    for (look, list) in lists.into_iter().enumerate() {
        all.extend((0..).zip(list.found).map(|(rank, found)| Candidate { look, rank, found }));
    }
    if looks.len() < 2 {
        return (all.into_iter().map(Candidate::parts).collect(), None);
    }
    let meant = |candidate: &Candidate| {
        let (look, found) = (&looks[candidate.look], &candidate.found);
        let excess = look.excess(found.matched.score, found.matched.track)?;
        Some((found.confidence(look)?, excess))
    };
    let calibrated = all.iter().all(|candidate| meant(candidate).is_some());
    if calibrated {
        let key = |candidate: &Candidate| meant(candidate).unwrap_or((0.0, 0.0));
        all.sort_by(|a, b| {
            let (a, b) = (key(a), key(b));
            b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
        });
    } else {
        all.sort_by_key(|candidate| (candidate.rank, candidate.look));
    }
    let fused_by = if calibrated { FusedBy::Confidence } else { FusedBy::Rank };
    (without_doubles(all, group_by), Some(fused_by))
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

/// Keeps the best hit of each clip, asset or moment.
fn without_doubles(all: Vec<Candidate>, group_by: GroupBy) -> Vec<(usize, Found)> {
    let (mut clips, mut assets) = (HashSet::new(), HashSet::new());
    let mut kept: Vec<(usize, Found)> = Vec::new();
    for candidate in all {
        let found = &candidate.found;
        let is_new = match group_by {
            GroupBy::Clip => clips.insert(found.matched.clip),
            GroupBy::Asset => assets.insert(found.asset.id),
            GroupBy::Moment => !kept.iter().any(|(_, better)| is_same_moment(better, found)),
        };
        if is_new {
            kept.push(candidate.parts());
        }
    }
    kept
}

fn is_same_moment(better: &Found, found: &Found) -> bool {
    let (a, b) = (better.span, found.span);
    let common = a.end_secs.min(b.end_secs) - a.start_secs.max(b.start_secs);
    better.asset.id == found.asset.id && common > SAME_MOMENT * a.duration_secs().min(b.duration_secs())
}
