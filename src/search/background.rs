//! Meaning of a query's best score: how often a query about something absent from the library scores as high.
//!
//! Queries do not say whether the library contains their subject. So the library has a bank of plausible
//! queries (for texts: what the model itself would say about clips of this library; for sounds and pictures:
//! the library's own). For each of them, the clips that it describes are put aside: those for which no query
//! of the bank scores much higher. The best score among the remaining clips is what the query would score if
//! its subject were absent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::SearchError;
use super::bank::{Bank, BankQuery};
use crate::catalog::Catalog;
use crate::index::{IndexSet, Neighbour, SearchParams};
use crate::types::{AssetId, ClipId, Modality, Space, Track};

/// A query also describes a clip if it scores within this margin of the clip's best query. See
/// docs/search.md.
const DESCRIBES: f32 = 0.025;
/// Best clips considered per query of a bank.
const DEPTH: usize = 64;
/// Fewest queries that make a distribution.
const LEAST_QUERIES: usize = 12;
/// Texts with more known words are treated as having this many.
pub const MOST_WORDS: usize = 3;

/// Identifies a distribution: the queries and vectors it applies to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lane {
    /// Modality of the queries.
    pub query: Modality,
    /// Known words of a text, 1 to [`MOST_WORDS`]; 0 for other modalities. Longer texts score higher.
    pub words: usize,
    /// Embedding space.
    pub space: Space,
    /// Track that is searched.
    pub target: Track,
}

/// Result of running a bank of queries against a library.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Background {
    /// The best scores, ascending; empty if there are too few.
    pub scores: Vec<f32>,
    /// The clips that rank first for a query of the bank, other than clips of the query's own asset.
    pub hubs: HashSet<ClipId>,
}

/// Runs a bank of queries and returns the best score of each, ascending, after putting aside the clips that
/// it describes. Empty if there are too few. `same_track` means that the queries are vectors of the searched
/// track: a query's score for its own asset then counts for nothing.
///
/// # Errors
/// [`SearchError`].
pub fn background(
    catalog: &Catalog,
    index: &IndexSet,
    space: &Space,
    target: Track,
    bank: &[BankQuery],
    same_track: bool,
) -> Result<Background, SearchError> {
    let params = SearchParams::default();
    let mut tops = Vec::with_capacity(bank.len());
    for query in bank {
        tops.push(index.search(target, space, &query.vector, DEPTH, params, None)?);
    }
    let mut clips: Vec<ClipId> = tops.iter().flatten().map(|found| found.clip).collect();
    clips.sort_unstable();
    clips.dedup();
    let owners: HashMap<ClipId, AssetId> =
        catalog.owners(clips.iter().copied()).into_iter().map(|(clip, asset)| (clip, asset.id)).collect();
    let own =
        |query: &BankQuery, clip: ClipId| query.own.is_some() && query.own == owners.get(&clip).copied();
    // The highest score of any query of the bank, for each clip.
    let mut most: HashMap<ClipId, f32> = HashMap::with_capacity(clips.len());
    for query in bank {
        for found in index.scores(target, space, &query.vector, &clips)? {
            if !(same_track && own(query, found.clip)) {
                let most = most.entry(found.clip).or_insert(found.score);
                *most = most.max(found.score);
            }
        }
    }
    let mut scores = Vec::with_capacity(bank.len());
    for (query, top) in bank.iter().zip(&tops) {
        let foreign = || top.iter().filter(|found| !own(query, found.clip));
        let described =
            |clip: ClipId, score: f32| most.get(&clip).is_some_and(|most| score >= most - DESCRIBES);
        let left = foreign().find(|found| !described(found.clip, found.score));
        // If it describes all of them, the remaining clips score no more than the last one.
        scores.extend(left.or(foreign().next_back()).map(|found| found.score));
    }
    if scores.len() < LEAST_QUERIES {
        return Ok(Background::default());
    }
    scores.sort_unstable_by(f32::total_cmp);
    let best = |(query, top): (&BankQuery, &Vec<Neighbour>)| {
        top.iter().map(|found| found.clip).find(|clip| !own(query, *clip))
    };
    let hubs = bank.iter().zip(&tops).filter_map(best).collect();
    Ok(Background { scores, hubs })
}

/// Share of a distribution below a score, interpolated between neighbouring values. Never quite 0 or 1, since
/// users can ask more than a bank contains.
#[must_use]
pub fn share_below(sorted: &[f32], score: f32) -> f32 {
    let count = sorted.len() as f32;
    let below = sorted.partition_point(|value| *value < score);
    let part = match (below.checked_sub(1).and_then(|at| sorted.get(at)), sorted.get(below)) {
        (Some(low), Some(high)) if high > low => (score - low) / (high - low),
        _ => 0.0,
    };
    (below as f32 + part + 0.5).min(count + 0.5) / (count + 1.0)
}

/// All distributions of a library.
#[derive(Debug, Default)]
pub struct Backgrounds(RwLock<Arc<Distributions>>);

/// The distributions at one moment, with the banks they came from.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Distributions {
    /// Number of clips in the library when they were measured.
    pub clips: usize,
    /// Best scores by lane, ascending.
    pub lanes: BTreeMap<Lane, Vec<f32>>,
    /// The queries they were measured with.
    pub banks: BTreeMap<Lane, Arc<Bank>>,
}

impl Backgrounds {
    /// The current distributions.
    #[must_use]
    pub fn now(&self) -> Arc<Distributions> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces all distributions.
    pub fn replace(&self, distributions: Distributions) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(distributions);
    }
}

impl Distributions {
    /// Confidence of a score: the share of queries about something absent whose best answer scores lower.
    /// With several tracks the best of them counts, so an absent thing had as many chances. `None` if there
    /// is no distribution.
    #[must_use]
    pub fn confidence(&self, lane: &Lane, score: f32, tracks: usize) -> Option<f32> {
        let sorted = self.lanes.get(lane)?;
        Some(share_below(sorted, score).powi(i32::try_from(tracks).unwrap_or(1)))
    }

    /// How far a score lies above the median of a distribution, in units of the distance from its median to
    /// its ninth decile.
    #[must_use]
    pub fn excess(&self, lane: &Lane, score: f32) -> Option<f32> {
        let sorted = self.lanes.get(lane)?;
        let at = |share: f32| sorted.get(((sorted.len() - 1) as f32 * share).round() as usize).copied();
        let (median, high) = (at(0.5)?, at(0.9)?);
        Some((score - median) / (high - median).max(f32::EPSILON))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_share_rises_evenly_and_stays_within_its_ends() {
        let sorted = [0.1, 0.2, 0.4];
        assert!((share_below(&sorted, -1.0) - 0.125).abs() < 1e-6);
        assert!((share_below(&sorted, 0.3) - (2.0 + 0.5 + 0.5) / 4.0).abs() < 1e-6);
        assert!((share_below(&sorted, 9.0) - 0.875).abs() < 1e-6);
        let scores: Vec<f32> = (-10..20).map(|n| n as f32 / 20.0).collect();
        assert!(scores.is_sorted_by(|a, b| share_below(&sorted, *a) <= share_below(&sorted, *b)));
        assert!(share_below(&[0.5, 0.5, 0.5], 0.5) < share_below(&[0.5, 0.5, 0.5], 0.51));
    }
}
