//! One query against the indexes of its targets.

use std::collections::HashMap;
use std::sync::Arc;

use super::background::{Distributions, Lane};
use super::bank::Bank;
use super::query::Combined;
use super::{Fuse, SearchError};
use crate::index::{ClipFilter, IndexError, IndexSet, Neighbour, SearchParams};
use crate::types::{ClipId, Modality, Space, Track};

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
    /// Data for turning scores into confidence.
    pub meaning: Meaning,
}

/// Which distributions apply to the scores of a query.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// Distributions to compare with; `None` if the query has several parts or the tracks are fused to a
    /// mean, since no distribution describes such scores.
    pub distributions: Option<Arc<Distributions>>,
    /// Modality of the query.
    pub query: Modality,
    /// Number of known words, if the query is a text.
    pub words: usize,
    /// Number of tracks among which the best answer is taken, in whichever space.
    pub chances: usize,
}

impl Lookup<'_> {
    /// Confidence of a score on a track; `None` without a distribution.
    pub fn confidence(&self, score: f32, track: Track) -> Option<f32> {
        self.meaning.distributions.as_ref()?.confidence(&self.lane(track), score, self.meaning.chances)
    }

    /// How far a score lies above what absent things score, in spreads of those; `None` without a
    /// distribution. It tells scores apart that all have the highest confidence.
    pub fn excess(&self, score: f32, track: Track) -> Option<f32> {
        self.meaning.distributions.as_ref()?.excess(&self.lane(track), score)
    }

    /// Bank of queries that are comparable to this one.
    pub fn bank(&self, track: Track) -> Option<&Bank> {
        self.meaning.distributions.as_ref()?.banks.get(&self.lane(track)).map(Arc::as_ref)
    }

    fn lane(&self, track: Track) -> Lane {
        let Meaning { query, words, .. } = self.meaning;
        Lane { query, words, space: self.space.clone(), target: track }
    }

    /// The k best clips, best first. Fewer only if no more exist.
    pub fn best(&self, k: usize) -> Result<Vec<Match>, SearchError> {
        match self.fuse {
            Fuse::Mean if self.targets.len() > 1 => self.best_of_means(k),
            _ => Ok(merge(self.lists(k)?, k)),
        }
    }

    /// Scores of these clips, in no particular order. Clips without a vector on any target are left out.
    pub fn scores(&self, clips: &[ClipId]) -> Result<Vec<Match>, SearchError> {
        let scored = |track: &Track| -> Result<_, IndexError> {
            let found = self.index.scores(*track, &self.space, &self.query.vector, clips)?;
            Ok((*track, self.scaled(found)))
        };
        let lists = self.targets.iter().map(scored).collect::<Result<Vec<_>, _>>()?;
        Ok(match self.fuse {
            Fuse::Mean if self.targets.len() > 1 => means(lists),
            _ => merge(lists, usize::MAX),
        })
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
