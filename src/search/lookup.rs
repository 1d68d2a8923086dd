//! One query against the indexes of its targets.

use std::collections::HashMap;
use std::sync::Arc;

use super::background::{Distributions, Lane};
use super::bank::Bank;
use super::query::Combined;
use super::{Fuse, SearchError};
use crate::index::{ClipFilter, IndexError, IndexSet, Neighbour, SearchParams};
use crate::types::{ClipId, Modality, Space, Track};

/// Number of clips a query is compared with to learn what it scores on unrelated ones.
pub const SAMPLE: usize = 256;

/// A clip with the track that matched best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// The clip.
    pub clip: ClipId,
    /// Its score.
    pub score: f32,
    /// Track with the best score.
    pub track: Track,
}

/// One query against the indexes of its targets.
pub struct Lookup<'a> {
    /// Indexes.
    pub index: &'a IndexSet,
    /// Tracks looked at, each once.
    pub targets: Vec<Track>,
    /// How the tracks make one score.
    pub fuse: Fuse,
    /// Embedding space.
    pub space: Space,
    /// What is looked for.
    pub query: Combined,
    /// Index parameters.
    pub params: SearchParams,
    /// Which clips count.
    pub filter: Option<ClipFilter>,
    /// What scores mean.
    pub meaning: Meaning,
}

/// What the scores of a query mean.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// Distributions to compare with; None where the query has several parts or the tracks one mean,
    /// whose scores no distribution is of.
    pub distributions: Option<Arc<Distributions>>,
    /// What the query is made of.
    pub query: Modality,
    /// Known words of a text.
    pub words: usize,
}

impl Lookup<'_> {
    /// How sure it is that a score is no accident.
    pub fn confidence(&self, score: f32, track: Track) -> Option<f32> {
        self.meaning.distributions.as_ref()?.confidence(&self.lane(track), score, self.targets.len())
    }

    /// Queries that could be sent instead of this one.
    pub fn bank(&self, track: Track) -> Option<&Bank> {
        self.meaning.distributions.as_ref()?.banks.get(&self.lane(track)).map(Arc::as_ref)
    }

    fn lane(&self, track: Track) -> Lane {
        let Meaning { query, words, .. } = self.meaning;
        Lane { query, words, space: self.space.clone(), target: track }
    }

    /// The k best clips, best first; fewer only where there are no more.
    pub fn best(&self, k: usize) -> Result<Vec<Match>, SearchError> {
        match self.fuse {
            Fuse::Mean if self.targets.len() > 1 => self.best_of_means(k),
            _ => Ok(merge(self.lists(k)?, k)),
        }
    }

    /// Scores of these clips, in no promised order; those without a vector on any target are left out.
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

    /// The median score of clips from all over the library: what is not meant scores so.
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

    /// Threshold algorithm (Fagin, Lotem and Naor 2001): what is in none of the lists so far scores at
    /// most the mean of their ends, so once k clips score more than that, they are the best.
    fn best_of_means(&self, k: usize) -> Result<Vec<Match>, SearchError> {
        let mut depth = k.max(16);
        loop {
            let lists = self.lists(depth)?;
            let mut clips: Vec<ClipId> =
                lists.iter().flat_map(|(_, list)| list.iter().map(|found| found.clip)).collect();
            clips.sort_unstable();
            clips.dedup();
            let ends = lists.iter().map(|(_, list)| match list.last() {
                // A clip that lacks the track counts 0 there.
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

/// Best first, ties by clip id.
pub fn sort(matches: &mut [Match]) {
    matches.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.clip.cmp(&b.clip)));
}

/// A clip's better track counts; on a tie the earlier target.
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

/// A clip's mean score over all requested tracks, 0 for one it lacks; its best track is the one that matched.
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
