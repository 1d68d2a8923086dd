//! Measures how well a library answers queries whose answers are known, with the search that serves users.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use utoipa::ToSchema;

use super::ask::{AskOptions, AskPart};
use super::{Collection, LibraryError};
use crate::catalog::Filter;
use crate::index::SearchParams;
use crate::model::Priority;
use crate::search::{GroupBy, HubCorrection, MAX_LIMIT, MAX_OFFSET, SearchRequest};
use crate::types::{AssetId, Modality, Space, Track, nfc};

/// Maximum number of pairs per evaluation.
pub const MAX_PAIRS: usize = 20_000;
/// Bootstrap samples behind a confidence interval.
const DRAWS: usize = 1000;

/// A text and the asset that it describes.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Text of the query.
    pub text: String,
    /// The asset that should be found.
    pub asset: AssetId,
}

/// A value with its 95 % confidence interval (bootstrap over the pairs).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Figure {
    /// The figure over all pairs.
    pub value: f64,
    /// Lower bound of the 95 % interval.
    pub low: f64,
    /// Upper bound of the 95 % interval.
    pub high: f64,
}

/// Search quality of one search method.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Measured {
    /// Track searched.
    pub target: Track,
    /// Embedding space.
    pub space: Space,
    /// `served`: with the index, as searches are answered; `exact`: comparing all vectors in f32.
    pub search: &'static str,
    /// Whether hub correction was used.
    pub hub_correction: HubCorrection,
    /// Search engine of the index: `exact-int8`, `graph` or `hnsw`.
    pub engine: String,
    /// Share of pairs whose asset ranks first.
    pub r_at_1: Figure,
    /// Share of pairs whose asset is among the first 5.
    pub r_at_5: Figure,
    /// Share of pairs whose asset is among the first 10.
    pub r_at_10: Figure,
    /// Median rank, from 1.
    pub median_rank: Figure,
    /// Mean of 1 / rank.
    pub mrr: Figure,
}

/// Results of an evaluation.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Evaluation {
    /// Number of pairs.
    pub pairs: usize,
    /// Number of candidate assets: those named in the pairs.
    pub gallery: usize,
    /// Number of pairs whose text has no word in the model's vocabulary; they rank last.
    pub unknown_texts: usize,
    /// One entry per target, space and search method.
    pub results: Vec<Measured>,
}

impl Collection {
    /// Resolves texts with names or ids of assets to pairs.
    ///
    /// # Errors
    /// [`LibraryError::UnknownAsset`], also if several assets have the name.
    pub fn resolve_pairs(&self, named: &[(String, String)]) -> Result<Vec<Pair>, LibraryError> {
        let mut names: HashMap<String, Vec<AssetId>> = HashMap::new();
        for asset in self.searched.catalog.assets() {
            let name = &*nfc(&asset.name);
            let stem = name.rsplit_once('.').map(|(stem, _)| stem).filter(|stem| !stem.is_empty());
            for known in stem.into_iter().chain([name]) {
                names.entry(known.to_owned()).or_default().push(asset.id);
            }
        }
        let resolve = |(text, name): &(String, String)| {
            let by_id = name.parse::<AssetId>().ok().filter(|id| self.searched.catalog.asset(*id).is_some());
            let asset = match (by_id, names.get(&*nfc(name)).map(Vec::as_slice)) {
                (Some(id), _) | (None, Some(&[id])) => id,
                (None, Some(_)) => {
                    return Err(LibraryError::UnknownAsset(name.clone(), "several assets are"));
                }
                (None, None) => return Err(LibraryError::UnknownAsset(name.clone(), "no asset is")),
            };
            Ok(Pair { text: text.clone(), asset })
        };
        named.iter().map(resolve).collect()
    }

    /// Searches with every pair's text among the assets that the pairs name; with hub correction, both with
    /// and without it. An asset that ties with the right one ranks before it.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn evaluate(
        &self,
        pairs: &[Pair],
        targets: &[Track],
        hub_correction: HubCorrection,
    ) -> Result<Evaluation, LibraryError> {
        let mut ways = vec![HubCorrection::Off];
        if hub_correction == HubCorrection::Dis {
            self.calibrate_if_due().await?;
            ways.push(HubCorrection::Dis);
        }
        let gallery: HashSet<AssetId> = pairs.iter().map(|pair| pair.asset).collect();
        let filter = Filter { asset_ids: gallery.iter().copied().collect(), ..Filter::default() };
        let mut texts = Vec::with_capacity(pairs.len());
        let timings = Arc::default();
        for pair in pairs {
            let part = [AskPart::text(pair.text.as_str(), "pairs")];
            texts.push(match self.embed_parts(&part, Priority::Bulk, &timings).await {
                Ok(parts) => Some(parts),
                Err(error) if error.is_about_unknown_words() => None,
                Err(LibraryError::Part { error, .. }) => return Err(*error),
                Err(error) => return Err(error),
            });
        }
        let mut results = Vec::new();
        for (target, space) in self.text_lanes(targets) {
            let kinds = ways.iter().flat_map(|way| [("served", false, *way), ("exact", true, *way)]);
            for (search, exact, hub_correction) in kinds {
                let options = AskOptions {
                    targets: vec![target],
                    space: Some(space.clone()),
                    filter: filter.clone(),
                    group_by: GroupBy::Asset,
                    limit: MAX_LIMIT,
                    params: SearchParams { exact, ..SearchParams::default() },
                    hub_correction,
                    ..AskOptions::default()
                };
                let options = options.checked(&[1.0])?;
                let mut ranks = Vec::with_capacity(pairs.len());
                for (pair, parts) in pairs.iter().zip(&texts) {
                    let Some(parts) = parts else {
                        ranks.push(gallery.len());
                        continue;
                    };
                    let request = options.request(parts.clone(), Vec::new());
                    ranks.push(self.rank_of(request, pair.asset, gallery.len()).await?);
                }
                let way = Way { target, space: &space, search, hub_correction };
                results.push(measured(&ranks, &way, self.engine_of(target, &space)));
            }
        }
        let unknown_texts = texts.iter().filter(|text| text.is_none()).count();
        Ok(Evaluation { pairs: pairs.len(), gallery: gallery.len(), unknown_texts, results })
    }

    fn text_lanes(&self, targets: &[Track]) -> Vec<(Track, Space)> {
        let bundle = self.embedder.bundle();
        let serves = |target: Track, space: &Space| {
            bundle.has(Modality::Text, space) && bundle.has(target.modality(), space)
        };
        let lanes = targets
            .iter()
            .flat_map(|target| bundle.spaces().iter().map(move |(space, _)| (*target, space.clone())));
        lanes.filter(|(target, space)| serves(*target, space)).collect()
    }

    fn engine_of(&self, target: Track, space: &Space) -> String {
        let engines = self.searched.index.stats();
        let found = engines.iter().find(|index| index.track == target && index.space == *space);
        found.map_or_else(String::new, |index| index.engine.to_owned())
    }

    /// Rank of an asset, from 1; `last` if it is not on the pages that a client can reach.
    async fn rank_of(
        &self,
        request: SearchRequest,
        asset: AssetId,
        last: usize,
    ) -> Result<usize, LibraryError> {
        let mut seen: Vec<(AssetId, f32)> = Vec::new();
        for offset in (0..=MAX_OFFSET).step_by(MAX_LIMIT) {
            let page = SearchRequest { offset, ..request.clone() };
            let hits = self.search(page).await?.hits;
            let full = hits.len() == MAX_LIMIT;
            seen.extend(hits.into_iter().map(|hit| (hit.asset_id, hit.score)));
            if let Some(at) = seen.iter().position(|(other, _)| *other == asset) {
                let (before, from) = seen.split_at(at);
                let own = from.first().map_or(0.0, |(_, score)| *score);
                let ties = from.iter().skip(1).filter(|(_, score)| *score == own);
                return Ok(before.len() + ties.count() + 1);
            }
            if !full {
                break;
            }
        }
        Ok(last)
    }
}

/// One way of searching, which gives one entry of the results.
struct Way<'a> {
    target: Track,
    space: &'a Space,
    search: &'static str,
    hub_correction: HubCorrection,
}

fn measured(ranks: &[usize], way: &Way<'_>, engine: String) -> Measured {
    let within = |k: usize| {
        move |ranks: &[usize]| ranks.iter().filter(|rank| **rank <= k).count() as f64 / ranks.len() as f64
    };
    Measured {
        target: way.target,
        space: way.space.clone(),
        search: way.search,
        hub_correction: way.hub_correction,
        engine,
        r_at_1: figure(ranks, within(1)),
        r_at_5: figure(ranks, within(5)),
        r_at_10: figure(ranks, within(10)),
        median_rank: figure(ranks, median),
        mrr: figure(ranks, |ranks| {
            ranks.iter().map(|rank| 1.0 / *rank as f64).sum::<f64>() / ranks.len() as f64
        }),
    }
}

fn median(ranks: &[usize]) -> f64 {
    let mut sorted = ranks.to_vec();
    sorted.sort_unstable();
    let at = |at: usize| sorted.get(at).copied().unwrap_or(0) as f64;
    f64::midpoint(at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2))
}

fn figure(ranks: &[usize], of: impl Fn(&[usize]) -> f64) -> Figure {
    if ranks.is_empty() {
        return Figure { value: 0.0, low: 0.0, high: 0.0 };
    }
    let mut rng = StdRng::seed_from_u64(ranks.len() as u64);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let draw: Vec<usize> = (0..ranks.len())
                .filter_map(|_| ranks.get(rng.random_range(0..ranks.len())).copied())
                .collect();
            of(&draw)
        })
        .collect();
    drawn.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| drawn.get((share * (DRAWS - 1) as f64) as usize).copied().unwrap_or(0.0);
    Figure { value: of(ranks), low: at(0.025), high: at(0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_they_say_and_lie_in_their_intervals() {
        let ranks: Vec<usize> = (0..200).map(|n| if n % 4 == 0 { 1 } else { n % 13 + 1 }).collect();
        let space = Space::new("s");
        let hub_correction = HubCorrection::Off;
        let way = Way { target: Track::Video, space: &space, search: "served", hub_correction };
        let measured = measured(&ranks, &way, String::new());
        let share = |k: usize| ranks.iter().filter(|rank| **rank <= k).count() as f64 / 200.0;
        assert_eq!((measured.r_at_1.value, measured.r_at_10.value), (share(1), share(10)));
        for figure in [measured.r_at_1, measured.r_at_5, measured.median_rank, measured.mrr] {
            assert!(figure.low <= figure.value && figure.value <= figure.high, "{figure:?}");
        }
        let width = measured.r_at_1.high - measured.r_at_1.low;
        assert!((0.08..0.2).contains(&width), "{width}");
        assert_eq!((median(&[3, 1, 2]), median(&[1, 2, 3, 10])), (2.0, 2.5));
    }
}
