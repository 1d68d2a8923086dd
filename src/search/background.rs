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

/// A text also describes a clip if it scores within this margin of the clip's best text, in standard deviations
/// of the bank's scores, for 100 clips. See docs/search.md.
const TEXT_DESCRIBES: f32 = 0.35;
/// The same for other queries. They show one thing each, so few of them describe the same clip.
const MEDIA_DESCRIBES: f32 = 0.085;
/// The more clips there are, the closer the nearest ones lie that a query does not describe: the margin
/// shrinks with this power of their number.
const CROWDING: f32 = 0.1;
/// Best clips considered per query of a bank.
const DEPTH: usize = 64;
/// Fewest queries that make a distribution.
const LEAST_QUERIES: usize = 12;
/// Texts with more known words are treated as having this many.
pub const MOST_WORDS: usize = 4;

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

/// A bank of queries of one kind.
#[derive(Debug, Clone, Copy)]
pub struct QueryBank<'a> {
    /// Modality of the queries.
    pub modality: Modality,
    /// The queries.
    pub queries: &'a [BankQuery],
    /// Whether they are vectors of the searched track: a query's score for its own asset then counts for
    /// nothing.
    pub same_track: bool,
}

/// Runs a bank of queries and returns the best score of each, ascending, after putting aside the clips that
/// it describes. Where that makes too few, the scores of all other clips count, too; empty if these are too
/// few as well.
///
/// # Errors
/// [`SearchError`].
pub fn background(
    catalog: &Catalog,
    index: &IndexSet,
    space: &Space,
    target: Track,
    asked: QueryBank<'_>,
) -> Result<Background, SearchError> {
    let params = SearchParams::default();
    let bank = asked.queries;
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
    let mut spread = Spread::default();
    for query in bank {
        for found in index.scores(target, space, &query.vector, &clips)? {
            spread.add(found.score);
            if !(asked.same_track && own(query, found.clip)) {
                let most = most.entry(found.clip).or_insert(found.score);
                *most = most.max(found.score);
            }
        }
    }
    let margin = margin(asked.modality, spread.deviation(), clips.len());
    let described =
        |found: &Neighbour| most.get(&found.clip).is_some_and(|most| found.score >= most - margin);
    let mut scores = best_of_others(bank, &tops, own, described);
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

/// For each query, its best score among clips that it does not describe and that are not its own. Where that makes too
/// few, the scores of all other clips, too.
fn best_of_others(
    bank: &[BankQuery],
    tops: &[Vec<Neighbour>],
    own: impl Fn(&BankQuery, ClipId) -> bool,
    described: impl Fn(&Neighbour) -> bool,
) -> Vec<f32> {
    let (mut scores, mut others) = (Vec::with_capacity(bank.len()), Vec::new());
    for (query, top) in bank.iter().zip(tops) {
        let foreign = || top.iter().filter(|found| !own(query, found.clip));
        let mut left = foreign().filter(|found| !described(found)).map(|found| found.score);
        match left.next() {
            Some(best) => {
                scores.push(best);
                others.extend(left);
            }
            // It describes all of its best clips. Those after them score no more than the last one.
            None if top.len() == DEPTH => scores.extend(foreign().next_back().map(|found| found.score)),
            None => {}
        }
    }
    if scores.len() < LEAST_QUERIES {
        scores.append(&mut others);
    }
    scores
}

/// Within how much of a clip's best query another one describes it, too.
fn margin(modality: Modality, deviation: f32, clips: usize) -> f32 {
    let share = if modality == Modality::Text { TEXT_DESCRIBES } else { MEDIA_DESCRIBES };
    share * deviation * (100.0 / clips.max(1) as f32).powf(CROWDING)
}

/// Running standard deviation.
#[derive(Default)]
struct Spread {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Spread {
    fn add(&mut self, value: f32) {
        let value = f64::from(value);
        self.count += 1.0;
        self.sum += value;
        self.squares += value * value;
    }

    fn deviation(&self) -> f32 {
        let mean = self.sum / self.count.max(1.0);
        (self.squares / self.count.max(1.0) - mean * mean).max(0.0).sqrt() as f32
    }
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
    fn the_margin_follows_the_scale_of_the_scores_and_shrinks_with_the_library() {
        let mut spread = Spread::default();
        [0.1, 0.3, 0.1, 0.3].into_iter().for_each(|score| spread.add(score));
        assert!((spread.deviation() - 0.1).abs() < 1e-6);
        assert!((margin(Modality::Text, 0.1, 100) - 0.035).abs() < 1e-6);
        assert!(margin(Modality::Text, 0.1, 1000) < 0.03);
        assert!(margin(Modality::Audio, 0.1, 100) < 0.01);
        assert_eq!((margin(Modality::Text, 0.0, 0), Spread::default().deviation()), (0.0, 0.0));
    }

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
