//! One query against the indexes of its targets.

use std::collections::HashMap;
use std::sync::Arc;

use super::background::Distributions;
use super::bank::Bank;
use super::meaning::{Assessment, Meaning};
use super::query::Combined;
use super::{Fuse, SearchError};
use crate::index::{ClipFilter, IndexError, IndexSet, Neighbour, SearchParams};
use crate::types::{ClipId, Space, Track};

/// Number of clips sampled to find out how a query scores on unrelated clips.
pub const SAMPLE: usize = 256;

/// A clip with its score and the track that matched best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Id of the clip.
    pub clip: ClipId,
    /// Cosine times the scale of the query; with [`Fuse::Mean`], the mean over the tracks.
    pub score: f32,
    /// Track with the best score.
    pub track: Track,
}

/// One query against the indexes of its targets.
pub struct Lookup<'a> {
    /// The indexes to search.
    pub index: &'a IndexSet,
    /// Tracks to search, without duplicates.
    pub targets: Vec<Track>,
    /// How the scores of several tracks are combined.
    pub fuse: Fuse,
    /// Embedding space.
    pub space: Space,
    /// The query's vector and scale.
    pub query: Combined,
    /// Options of the index search.
    pub params: SearchParams,
    /// The clips to search; `None` means all.
    pub filter: Option<ClipFilter>,
    /// What the scores of the query's parts mean.
    pub meaning: Meaning,
    /// Distributions to compare with.
    pub distributions: Arc<Distributions>,
}

impl Lookup<'_> {
    /// What these matches mean, in their order; `None` without a distribution for each part and track that
    /// counts.
    pub fn assess(&self, matches: &[Match]) -> Result<Vec<Option<Assessment>>, SearchError> {
        let assess = |found: &Match, scores: &dyn Fn(usize, Track) -> f32| {
            let matched = [found.track];
            let tracks = if self.takes_means() { self.targets.as_slice() } else { &matched };
            self.meaning.assess(&self.distributions, tracks, scores)
        };
        if self.meaning.parts.len() == 1 && !self.takes_means() {
            return Ok(matches.iter().map(|found| assess(found, &|_, _| found.score)).collect());
        }
        let mut known: HashMap<(usize, Track, ClipId), f32> = HashMap::new();
        for track in &self.targets {
            let counts = |found: &&Match| self.takes_means() || found.track == *track;
            let clips: Vec<ClipId> = matches.iter().filter(counts).map(|found| found.clip).collect();
            for (part, meant) in self.meaning.parts.iter().enumerate() {
                let scores = self.index.scores(*track, &self.space, &meant.vector, &clips)?;
                known.extend(scores.into_iter().map(|found| ((part, *track, found.clip), found.score)));
            }
        }
        // A track that a clip lacks counts as 0, as it does in the mean.
        let score = |clip, part, track| known.get(&(part, track, clip)).copied().unwrap_or_default();
        Ok(matches.iter().map(|found| assess(found, &|part, track| score(found.clip, part, track))).collect())
    }

    /// What this one score on all targets means: for a clip that has none of them (0), and for the usual clip.
    pub fn assess_score(&self, score: f32) -> Option<Assessment> {
        self.meaning.assess(&self.distributions, &self.targets, |_, _| score)
    }

    const fn takes_means(&self) -> bool {
        matches!(self.fuse, Fuse::Mean) && self.targets.len() > 1
    }

    /// Bank of queries that are comparable to this one.
    pub fn bank(&self, track: Track) -> Option<&Bank> {
        self.distributions.banks.get(&self.meaning.lane(track)?).map(Arc::as_ref)
    }

    /// The k best clips, best first. Fewer only if no more exist.
    pub fn best(&self, k: usize) -> Result<Vec<Match>, SearchError> {
        if self.takes_means() { self.best_of_means(k) } else { Ok(merge(self.lists(k)?, k)) }
    }

    /// Scores of these clips, in no particular order. Clips without a vector on any target are left out.
    pub fn scores(&self, clips: &[ClipId]) -> Result<Vec<Match>, SearchError> {
        let scored = |track: &Track| -> Result<_, IndexError> {
            let found = self.index.scores(*track, &self.space, &self.query.vector, clips)?;
            Ok((*track, self.scaled(found)))
        };
        let lists = self.targets.iter().map(scored).collect::<Result<Vec<_>, _>>()?;
        Ok(if self.takes_means() { means(lists) } else { merge(lists, usize::MAX) })
    }

    /// Median score of clips sampled from the whole library, which is what unrelated clips score.
    pub fn usual_score(&self) -> Result<Option<f32>, SearchError> {
        let mut clips: Vec<ClipId> = Vec::new();
        for track in &self.targets {
            clips.extend(self.index.sample(*track, &self.space, SAMPLE).into_iter().map(|(clip, _)| clip));
        }
        clips.sort_unstable();
        clips.dedup();
        let mut scores: Vec<f32> = self.scores(&clips)?.into_iter().map(|found| found.score).collect();
        scores.sort_unstable_by(f32::total_cmp);
        Ok(scores.get(scores.len() / 2).copied())
    }

    fn scaled(&self, mut found: Vec<Neighbour>) -> Vec<Neighbour> {
        found.iter_mut().for_each(|neighbour| neighbour.score *= self.query.scale);
        found
    }

    fn lists(&self, k: usize) -> Result<Vec<(Track, Vec<Neighbour>)>, IndexError> {
        let one = |track: &Track| {
            let found = self.index.search(
                *track,
                &self.space,
                &self.query.vector,
                k,
                self.params,
                self.filter.as_ref(),
            )?;
            Ok((*track, self.scaled(found)))
        };
        self.targets.iter().map(one).collect()
    }

    /// Threshold algorithm (Fagin, Lotem and Naor 2001). A clip in none of the lists scores at most the mean
    /// of their last scores, so once k clips reach that mean, they are the best.
    fn best_of_means(&self, k: usize) -> Result<Vec<Match>, SearchError> {
        let mut depth = k.max(16);
        loop {
            let lists = self.lists(depth)?;
            let mut clips: Vec<ClipId> =
                lists.iter().flat_map(|(_, list)| list.iter().map(|found| found.clip)).collect();
            clips.sort_unstable();
            clips.dedup();
            let ends = lists.iter().map(|(_, list)| match list.last() {
                // A clip without the track counts as 0 there.
                Some(last) if list.len() >= depth => last.score.max(0.0),
                _ => 0.0,
            });
            let unseen_at_most = ends.sum::<f32>() / lists.len() as f32;
            let exhausted = lists.iter().all(|(_, list)| list.len() < depth);
            let mut found = self.scores(&clips)?;
            sort(&mut found);
            if exhausted || found.get(k.saturating_sub(1)).is_some_and(|last| last.score >= unseen_at_most) {
                found.truncate(k);
                return Ok(found);
            }
            depth = depth.saturating_mul(4);
        }
    }
}

/// Sorts by descending score, then by clip id.
pub fn sort(matches: &mut [Match]) {
    matches.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.clip.cmp(&b.clip)));
}

/// Merges the lists by the better track of each clip. On a tie the earlier target wins.
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
    sort(&mut ranked);
    ranked.truncate(k);
    ranked
}

/// A clip's mean score over all requested tracks, with 0 for a missing one. `track` is the one with the best
/// score.
fn means(lists: Vec<(Track, Vec<Neighbour>)>) -> Vec<Match> {
    let share = 1.0 / lists.len() as f32;
    let mut sums: HashMap<ClipId, (Match, f32)> = HashMap::new();
    for (track, neighbours) in lists {
        for Neighbour { clip, score } in neighbours {
            let new = Match { clip, score, track };
            let (best, sum) = sums.entry(clip).or_insert((new, 0.0));
            *sum += score * share;
            if score > best.score {
                *best = new;
            }
        }
    }
    sums.into_values().map(|(best, sum)| Match { score: sum, ..best }).collect()
}
