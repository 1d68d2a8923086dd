//! Hub correction: query-bank normalisation by dynamic inverted softmax (Bogolin et al. 2022).
//!
//! Some clips, called hubs, rank first for many unrelated queries. If the best answer to a query is a hub,
//! the candidates are reranked by how much higher the query scores on each than the queries of a bank do.
//! Only the order changes: scores stay cosines.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::SearchError;
use super::bank::Bank;
use super::found::Found;
use super::lookup::Lookup;
use crate::types::{AssetId, ClipId, Track};

/// Number of best hits that are reranked. Later hits stay in the order of their scores, whichever page is
/// requested.
pub const CANDIDATES: usize = 200;
/// Inverse temperature of the softmax, as in the paper.
const SHARPNESS: f64 = 20.0;

/// Whether to correct for hubs: clips that score high for every query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HubCorrection {
    /// By score alone.
    #[default]
    Off,
    /// By dynamic inverted softmax.
    Dis,
}

/// Logarithm of each clip's mean sharpened score over the queries of the bank, without those that were taken
/// from the clip's own asset.
fn pull(
    bank: &Bank,
    look: &Lookup<'_>,
    track: Track,
    owners: &HashMap<ClipId, AssetId>,
) -> Result<HashMap<ClipId, f64>, SearchError> {
    let clips: Vec<ClipId> = owners.keys().copied().collect();
    let mut sums: HashMap<ClipId, (f64, u32)> = HashMap::with_capacity(clips.len());
    for query in &bank.queries {
        for found in look.index.scores(track, &look.space, &query.vector, &clips)? {
            if query.own.is_none() || query.own != owners.get(&found.clip).copied() {
                let (sum, count) = sums.entry(found.clip).or_default();
                *sum += (SHARPNESS * f64::from(found.score)).exp();
                *count += 1;
            }
        }
    }
    Ok(sums.into_iter().map(|(clip, (sum, count))| (clip, (sum / f64::from(count)).ln())).collect())
}

/// Reranks the best hits if the first one is a hub. Returns whether it did.
pub(super) fn correct(look: &Lookup<'_>, ranked: &mut [Found]) -> Result<bool, SearchError> {
    let Some(best) = ranked.first().map(|found| found.matched) else { return Ok(false) };
    let is_hub = look.bank(best.track).is_some_and(|bank| bank.hubs.contains(&best.clip));
    if !is_hub {
        return Ok(false);
    }
    let mut pulls: HashMap<(Track, ClipId), f64> = HashMap::with_capacity(ranked.len());
    for track in &look.targets {
        let of_track = ranked.iter().filter(|found| found.matched.track == *track);
        let owners: HashMap<ClipId, AssetId> =
            of_track.map(|found| (found.matched.clip, found.asset.id)).collect();
        if owners.is_empty() {
            continue;
        }
        // Without a bank for each track, their clips cannot be compared.
        let Some(bank) = look.bank(*track) else { return Ok(false) };
        pulls.extend(
            pull(bank, look, *track, &owners)?.into_iter().map(|(clip, pull)| ((*track, clip), pull)),
        );
    }
    let value = |found: &Found| {
        let matched = found.matched;
        let pull = pulls.get(&(matched.track, matched.clip))?;
        Some(SHARPNESS * f64::from(matched.score) - pull)
    };
    // A clip without a pull (all queries of the bank come from its own asset) cannot be compared.
    if ranked.iter().any(|found| value(found).is_none()) {
        return Ok(false);
    }
    let worth = |found: &Found| value(found).unwrap_or(f64::NEG_INFINITY);
    // The sort is stable: equal clips stay in the order of their scores.
    ranked.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
    Ok(true)
}
