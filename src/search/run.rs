//! Runs a search request.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::found::{Found, Ranked, tell};
use super::fused::fuse;
use super::hubs::{CANDIDATES, HubCorrection, correct};
use super::lookup::{Lookup, Match};
use super::meaning::Meaning;
use super::moments::{Window, moments};
use super::plan::{Route, routes};
use super::query::{Combined, modalities};
use super::together;
use super::{
    Comparable, Corpus, Fuse, FusedBy, GroupBy, Hit, MATCHES_FROM, QueryPart, SearchError, SearchRequest,
    SearchResponse,
};
use crate::catalog::{AssetEntry, Catalog, Selection};
use crate::index::ClipFilter;
use crate::types::{AssetId, ClipId, Space};

/// Most hits of one page.
pub const MAX_LIMIT: usize = 1000;
/// Most hits that can be skipped.
pub const MAX_OFFSET: usize = 1000;
/// Clips fetched at first for each asset or moment wanted.
const CLIPS_PER_GROUP: usize = 4;

/// Answers a request. The query may have vectors of more spaces than the search uses. CPU-bound: call it from
/// a blocking thread for large collections.
///
/// # Errors
/// [`SearchError`].
pub fn run(corpus: &Corpus, request: &SearchRequest) -> Result<SearchResponse, SearchError> {
    check_page(request)?;
    let begun = Instant::now();
    let catalog = &corpus.catalog;
    let selection = catalog.select(&request.filter);
    let looks = lookups(corpus, request, &selection)?;
    let wanted = request.offset + request.limit;
    let Answer { mut ranked, fused_by, hub_corrected } = answer(catalog, &looks, request, &selection)?;
    let no_match = no_match(&ranked, request.min_confidence);
    if let Some(least) = request.min_confidence {
        // Where confidence is not known, nothing reaches the minimum.
        let reaches = |found: &Found| found.confidence().is_some_and(|confidence| confidence >= least);
        ranked.retain(|(_, found)| reaches(found));
    }
    let no_match = no_match || ranked.is_empty();
    ranked.truncate(wanted);
    let page = ranked.split_off(request.offset.min(ranked.len()));
    let hits = (request.offset + 1..).zip(page).map(|(rank, (look, found))| hit(rank, found, &looks[look]));
    let hits = hits.collect();
    let spaces: Vec<Space> = looks.iter().map(|look| look.space.clone()).collect();
    let space = spaces.first().cloned().unwrap_or_else(|| Space::new(""));
    let index_secs = begun.elapsed().as_secs_f64();
    let ignored_words = ignored(&request.query);
    Ok(SearchResponse { hits, no_match, space, spaces, fused_by, ignored_words, hub_corrected, index_secs })
}

/// All hits found, best first, each with the number of its space.
struct Answer {
    ranked: Vec<(usize, Found)>,
    fused_by: Option<FusedBy>,
    hub_corrected: bool,
}

fn answer(
    catalog: &Catalog,
    looks: &[Lookup<'_>],
    request: &SearchRequest,
    selection: &Selection,
) -> Result<Answer, SearchError> {
    if looks.len() > 1
        && request.fuse == Fuse::Mean
        && let Some(ranked) = together::ranked(catalog, looks, request, selection)?
    {
        return Ok(Answer { ranked, fused_by: Some(FusedBy::Confidence), hub_corrected: false });
    }
    let mut lists = Vec::with_capacity(looks.len());
    for look in looks {
        lists.push(ranked(catalog, look, request, selection)?);
    }
    let hub_corrected = lists.iter().any(|list| list.hub_corrected);
    let (ranked, fused_by) = fuse(lists, request.group_by);
    Ok(Answer { ranked, fused_by, hub_corrected })
}

/// Words that the model left out of the query's texts, each once.
fn ignored(query: &[QueryPart]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.iter().flat_map(|part| &part.ignored) {
        if !words.contains(word) {
            words.push(word.clone());
        }
    }
    words
}

fn ranked(
    catalog: &Catalog,
    look: &Lookup<'_>,
    request: &SearchRequest,
    selection: &Selection,
) -> Result<Ranked, SearchError> {
    let wanted = request.offset + request.limit;
    let corrects = request.hub_correction == HubCorrection::Dis;
    // With several parts or tracks, a lower score can have the higher confidence.
    let deeper = corrects || request.min_confidence.is_some();
    let fetched = if deeper { wanted.max(CANDIDATES) } else { wanted };
    let mut found = match request.group_by {
        GroupBy::Clip => clips(catalog, look, fetched)?,
        GroupBy::Moment => by_moment(catalog, look, selection, fetched)?,
        GroupBy::Asset => by_asset(catalog, look, fetched)?,
    };
    let candidates = found.len().min(CANDIDATES);
    let hub_corrected = corrects && correct(look, &mut found[..candidates])?;
    tell(look, &mut found)?;
    Ok(Ranked { found, hub_corrected })
}

/// Whether no hit has enough confidence. If confidence cannot be computed, the hits count as matches.
fn no_match(ranked: &[(usize, Found)], least: Option<f32>) -> bool {
    let wanted = least.unwrap_or(MATCHES_FROM);
    // With two tracks, the lower score can have the higher confidence.
    let unsure = |found: &Found| found.confidence().is_some_and(|confidence| confidence < wanted);
    ranked.iter().all(|(_, found)| unsure(found))
}

fn check_page(request: &SearchRequest) -> Result<(), SearchError> {
    if !(1..=MAX_LIMIT).contains(&request.limit) {
        return Err(SearchError::bad("limit", format!("`limit` must be from 1 to {MAX_LIMIT}")));
    }
    let has_bank = request.query.len() == 1 && (request.fuse == Fuse::Best || request.targets.len() < 2);
    if request.hub_correction != HubCorrection::Off && !has_bank {
        let message = "`hub_correction` needs a single query part, and one target or `fuse: best`";
        return Err(SearchError::bad("params.hub_correction", message));
    }
    if request.offset > MAX_OFFSET {
        return Err(SearchError::bad("offset", format!("`offset` must be from 0 to {MAX_OFFSET}")));
    }
    Ok(())
}

/// Prepares the query of a request for lookups among the selected clips, one for each space that its targets
/// need.
pub(super) fn lookups<'a>(
    corpus: &'a Corpus,
    request: &SearchRequest,
    selection: &Selection,
) -> Result<Vec<Lookup<'a>>, SearchError> {
    let routes = routes_of(&corpus.comparable, request)?;
    let chances = chances(&routes, request.fuse);
    routes.into_iter().map(|route| lookup_in(corpus, request, selection, route, chances)).collect()
}

/// The spaces that a request needs, with their targets.
pub(super) fn routes_of(comparable: &Comparable, request: &SearchRequest) -> Result<Vec<Route>, SearchError> {
    let mut targets = request.targets.clone();
    targets.sort_unstable();
    targets.dedup();
    let usable = |space: &Space| request.query.iter().all(|part| part.vectors.contains_key(space));
    routes(comparable, &modalities(&request.query), &targets, request.space.as_ref(), &usable)
}

/// Number of tracks among which the best answer is taken. A mean takes none of them alone.
pub(super) fn chances(routes: &[Route], fuse: Fuse) -> usize {
    match fuse {
        Fuse::Best => routes.iter().map(|route| route.targets.len()).sum(),
        Fuse::Mean => 1,
    }
}

fn lookup_in<'a>(
    corpus: &'a Corpus,
    request: &SearchRequest,
    selection: &Selection,
    Route { space, targets }: Route,
    chances: usize,
) -> Result<Lookup<'a>, SearchError> {
    Ok(Lookup {
        index: &corpus.index,
        meaning: Meaning::new(&request.query, &space, chances),
        distributions: corpus.backgrounds.now(),
        targets,
        fuse: request.fuse,
        query: Combined::new(&request.query, &space)?,
        space,
        params: request.params,
        filter: filter(&corpus.catalog, selection, &request.exclude_assets),
    })
}

fn filter(catalog: &Catalog, selection: &Selection, excluded: &[AssetId]) -> Option<ClipFilter> {
    let mut gone: Vec<ClipId> = excluded
        .iter()
        .filter_map(|id| catalog.asset(*id))
        .flat_map(|asset| asset.clips.iter().map(|clip| clip.id).collect::<Vec<_>>())
        .collect();
    gone.sort_unstable();
    match selection {
        Selection::All if gone.is_empty() => None,
        Selection::All => Some(ClipFilter::Except(gone)),
        Selection::Only(ids) if gone.is_empty() => Some(ClipFilter::Only(ids.clone())),
        Selection::Only(ids) => {
            let stays = |id: &ClipId| gone.binary_search(id).is_err();
            Some(ClipFilter::Only(ids.iter().copied().filter(stays).collect()))
        }
        Selection::Except(ids) => Some(ClipFilter::Except([ids.as_slice(), &gone].concat())),
    }
}

fn hit(rank: usize, found: Found, look: &Lookup<'_>) -> Hit {
    let clip = found.asset.clip(found.matched.clip);
    let peak = clip.map_or(found.span, |clip| clip.span);
    Hit {
        rank,
        asset_id: found.asset.id,
        asset_name: found.asset.name.clone(),
        asset_kind: found.asset.kind,
        span: found.span,
        peak_secs: f64::midpoint(peak.start_secs, peak.end_secs),
        score: found.matched.score,
        confidence: found.confidence(),
        space: look.space.clone(),
        matched: found.matched.track,
        agreement: clip.and_then(|clip| clip.agreement),
        metadata: Arc::clone(&found.asset.metadata),
        damage: None,
    }
}

/// Matches with their assets, in the same order. Clips that were deleted since are left out.
fn with_assets(catalog: &Catalog, matches: &[Match]) -> Vec<Found> {
    let owners = catalog.owners(matches.iter().map(|found| found.clip));
    let mut matches = matches.iter();
    let found = |(clip, asset): (ClipId, Arc<AssetEntry>)| {
        let matched = *matches.by_ref().find(|matched| matched.clip == clip)?;
        let span = asset.clip(clip)?.span;
        Some(Found { asset, matched, span, assessment: None })
    };
    owners.into_iter().filter_map(found).collect()
}

fn clips(catalog: &Catalog, look: &Lookup<'_>, wanted: usize) -> Result<Vec<Found>, SearchError> {
    let mut k = wanted;
    loop {
        let matches = look.best(k)?;
        let ranked = with_assets(catalog, &matches);
        if ranked.len() >= wanted || matches.len() < k {
            return Ok(ranked);
        }
        k = k.saturating_mul(2);
    }
}

/// The best clip of each asset. Fetches more clips until there are enough assets or no more clips.
fn by_asset(catalog: &Catalog, look: &Lookup<'_>, wanted: usize) -> Result<Vec<Found>, SearchError> {
    let mut k = wanted.saturating_mul(CLIPS_PER_GROUP);
    loop {
        let matches = look.best(k)?;
        let mut ranked = with_assets(catalog, &matches);
        let mut seen = HashSet::new();
        ranked.retain(|found| seen.insert(found.asset.id));
        if ranked.len() >= wanted || matches.len() < k {
            return Ok(ranked);
        }
        k = k.saturating_mul(4);
    }
}

/// The best moments. All moments of the assets seen so far are known; a moment of another asset scores no
/// higher than the last clip fetched.
fn by_moment(
    catalog: &Catalog,
    look: &Lookup<'_>,
    selection: &Selection,
    wanted: usize,
) -> Result<Vec<Found>, SearchError> {
    let usual = look.usual_score()?.unwrap_or(0.0);
    let mut k = wanted.saturating_mul(CLIPS_PER_GROUP);
    let mut seen = HashSet::new();
    let mut ranked: Vec<Found> = Vec::new();
    loop {
        let matches = look.best(k)?;
        for (_, asset) in catalog.owners(matches.iter().map(|found| found.clip)) {
            if seen.insert(asset.id) {
                ranked.extend(moments_of(&asset, look, selection, usual)?);
            }
        }
        ranked.sort_by(|a, b| {
            let (a, b) = (&a.matched, &b.matched);
            b.score.total_cmp(&a.score).then(a.clip.cmp(&b.clip))
        });
        let floor = matches.last().map_or(f32::INFINITY, |last| last.score);
        let complete = ranked.partition_point(|found| found.matched.score >= floor);
        if complete >= wanted || matches.len() < k {
            return Ok(ranked);
        }
        k = k.saturating_mul(4);
    }
}

/// The moments of an asset, best first.
pub(super) fn moments_of(
    asset: &Arc<AssetEntry>,
    look: &Lookup<'_>,
    selection: &Selection,
    usual: f32,
) -> Result<Vec<Found>, SearchError> {
    let ids: Vec<ClipId> =
        asset.clips.iter().map(|clip| clip.id).filter(|clip| selection.has(*clip)).collect();
    let scores = look.scores(&ids)?;
    let window = |found: &Match| {
        let span = asset.clip(found.clip)?.span;
        Some(Window { clip: found.clip, span, score: found.score })
    };
    let found = moments(scores.iter().filter_map(window).collect(), usual);
    let named = found.into_iter().filter_map(|moment| {
        let matched = *scores.iter().find(|found| found.clip == moment.peak.clip)?;
        Some(Found { asset: Arc::clone(asset), matched, span: moment.span, assessment: None })
    });
    let mut named: Vec<Found> = named.collect();
    tell(look, &mut named)?;
    Ok(named)
}
