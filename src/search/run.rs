//! From a request to hits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::plan::{Comparable, plan};
use super::{GroupBy, Hit, SearchError, SearchRequest, SearchResponse};
use crate::index::{ClipFilter, IndexError, IndexSet, Neighbour, SearchParams};
use crate::store::{AssetRecord, ClipRecord, Store};
use crate::types::{AssetId, ClipId, Embedding, Space, Track};

/// Most hits of one page.
pub const MAX_LIMIT: usize = 1000;
/// Most hits skipped.
pub const MAX_OFFSET: usize = 1000;
/// Vectors from which on a search leaves the async threads; below, the way there takes longer than
/// the scan.
const BLOCKING_FROM: usize = 4096;
/// Clips fetched per asset wanted, to begin with.
const CLIPS_PER_ASSET: usize = 4;

/// Answers a request. The query's vectors may be of more spaces than the search uses.
///
/// # Errors
/// [`SearchError`].
pub async fn run(
    store: &dyn Store,
    index: &Arc<IndexSet>,
    comparable: &Comparable,
    request: &SearchRequest,
) -> Result<SearchResponse, SearchError> {
    check_page(request)?;
    let modality = request.query.modality;
    let space = plan(comparable, modality, &request.targets, request.space.as_ref())?;
    let query = request.query.vectors.get(&space).ok_or_else(|| SearchError::BadSpace(space.clone()))?;
    let mut look = Lookup {
        index,
        targets: request.targets.clone(),
        space: space.clone(),
        query: query.clone(),
        params: request.params,
        filter: filter(store, request).await?.map(Arc::new),
        index_secs: 0.0,
    };
    let wanted = request.offset + request.limit;
    let mut ranked = match request.group_by {
        GroupBy::Clip => clips(store, &mut look, wanted).await?,
        GroupBy::Asset => assets(store, &mut look, wanted).await?,
    };
    ranked.truncate(wanted);
    let page = ranked.split_off(request.offset.min(ranked.len()));
    let hits = describe(store, page, request.offset, &space).await?;
    Ok(SearchResponse { hits, space, index_secs: look.index_secs })
}

fn check_page(request: &SearchRequest) -> Result<(), SearchError> {
    if !(1..=MAX_LIMIT).contains(&request.limit) {
        return Err(SearchError::BadRequest(format!("`limit` must be 1 to {MAX_LIMIT}")));
    }
    if request.offset > MAX_OFFSET {
        return Err(SearchError::BadRequest(format!("`offset` must be 0 to {MAX_OFFSET}")));
    }
    Ok(())
}

async fn filter(store: &dyn Store, request: &SearchRequest) -> Result<Option<ClipFilter>, SearchError> {
    if !request.assets.is_empty() {
        let allowed: Vec<AssetId> =
            request.assets.iter().copied().filter(|id| request.exclude_asset != Some(*id)).collect();
        let clips = if allowed.is_empty() { Vec::new() } else { store.clips_of_assets(&allowed).await? };
        return Ok(Some(ClipFilter::Only(clips.into_iter().collect())));
    }
    let Some(excluded) = request.exclude_asset else { return Ok(None) };
    Ok(Some(ClipFilter::Except(store.clips_of_assets(&[excluded]).await?.into_iter().collect())))
}

/// A clip with the track that matched best.
#[derive(Debug, Clone, Copy)]
struct Match {
    clip: ClipId,
    score: f32,
    track: Track,
}

/// One query against the indexes of its targets.
struct Lookup<'a> {
    index: &'a Arc<IndexSet>,
    targets: Vec<Track>,
    space: Space,
    query: Embedding,
    params: SearchParams,
    filter: Option<Arc<ClipFilter>>,
    index_secs: f64,
}

impl Lookup<'_> {
    /// The k best clips; fewer only where there are no more.
    async fn best(&mut self, k: usize) -> Result<Vec<Match>, SearchError> {
        let begun = Instant::now();
        let vectors: usize = self.targets.iter().map(|track| self.index.len(*track, &self.space)).sum();
        let (index, space, query) = (self.index.clone(), self.space.clone(), self.query.clone());
        let (targets, params, filter) = (self.targets.clone(), self.params, self.filter.clone());
        let search = move || {
            let one = |track: &Track| -> Result<(Track, Vec<Neighbour>), IndexError> {
                Ok((*track, index.search(*track, &space, &query, k, params, filter.as_deref())?))
            };
            Ok(merge(targets.iter().map(one).collect::<Result<Vec<_>, IndexError>>()?, k))
        };
        let found: Result<_, IndexError> = if vectors < BLOCKING_FROM {
            search()
        } else {
            tokio::task::spawn_blocking(search)
                .await
                .map_err(|error| SearchError::CutOff(error.to_string()))?
        };
        self.index_secs += begun.elapsed().as_secs_f64();
        Ok(found?)
    }
}

/// A clip's better track counts; on a tie the earlier target. Best first, ties by clip id.
fn merge(found: Vec<(Track, Vec<Neighbour>)>, k: usize) -> Vec<Match> {
    let mut best: HashMap<ClipId, Match> = HashMap::with_capacity(k.min(4096));
    for (track, neighbours) in found {
        for Neighbour { clip, score } in neighbours {
            let new = Match { clip, score, track };
            best.entry(clip)
                .and_modify(|old| *old = if score > old.score { new } else { *old })
                .or_insert(new);
        }
    }
    let mut ranked: Vec<Match> = best.into_values().collect();
    ranked.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.clip.cmp(&b.clip)));
    ranked.truncate(k);
    ranked
}

type Ranked = Vec<(Match, ClipRecord)>;

/// Matches with their clips, in order; clips deleted meanwhile are left out.
async fn with_clips(store: &dyn Store, matches: &[Match]) -> Result<Ranked, SearchError> {
    let ids: Vec<ClipId> = matches.iter().map(|m| m.clip).collect();
    let mut records: HashMap<ClipId, ClipRecord> =
        store.clips(&ids).await?.into_iter().map(|clip| (clip.id, clip)).collect();
    Ok(matches.iter().filter_map(|m| Some((*m, records.remove(&m.clip)?))).collect())
}

async fn clips(store: &dyn Store, look: &mut Lookup<'_>, wanted: usize) -> Result<Ranked, SearchError> {
    let mut k = wanted;
    loop {
        let matches = look.best(k).await?;
        let ranked = with_clips(store, &matches).await?;
        if ranked.len() >= wanted || matches.len() < k {
            return Ok(ranked);
        }
        k = k.saturating_mul(2);
    }
}

/// The best clip of each asset; fetches more clips until there are assets enough or no more clips.
async fn assets(store: &dyn Store, look: &mut Lookup<'_>, wanted: usize) -> Result<Ranked, SearchError> {
    let mut k = wanted.saturating_mul(CLIPS_PER_ASSET);
    loop {
        let matches = look.best(k).await?;
        let mut ranked = with_clips(store, &matches).await?;
        let mut seen = HashSet::new();
        ranked.retain(|(_, clip)| seen.insert(clip.asset));
        if ranked.len() >= wanted || matches.len() < k {
            return Ok(ranked);
        }
        k = k.saturating_mul(4);
    }
}

async fn describe(
    store: &dyn Store,
    page: Ranked,
    offset: usize,
    space: &Space,
) -> Result<Vec<Hit>, SearchError> {
    let mut ids: Vec<AssetId> = page.iter().map(|(_, clip)| clip.asset).collect();
    ids.sort_unstable();
    ids.dedup();
    let assets: HashMap<AssetId, AssetRecord> = if ids.is_empty() {
        HashMap::new()
    } else {
        store.assets(&ids).await?.into_iter().map(|asset| (asset.id, asset)).collect()
    };
    let known = page.iter().filter_map(|(found, clip)| Some((found, clip, assets.get(&clip.asset)?)));
    let hit = |(n, (found, clip, asset)): (usize, (&Match, &ClipRecord, &AssetRecord))| Hit {
        rank: offset + n + 1,
        asset_id: asset.id,
        asset_name: asset.name.clone(),
        asset_kind: asset.kind,
        span: clip.span,
        score: found.score,
        space: space.clone(),
        matched: found.track,
        metadata: asset.metadata.clone(),
    };
    Ok(known.enumerate().map(hit).collect())
}
