//! What the scores of a query mean: confidence, of one part on one track, and of several together.

use super::QueryPart;
use super::background::{Distributions, Lane, MOST_WORDS};
use crate::types::{Embedding, Modality, Space, Track};

/// Confidences this close to 0 or 1 count as this; the odds of 0 and 1 are not finite.
const LEAST_ODDS: f32 = 1e-6;

/// What one score means, or several together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assessment {
    /// Share of queries about absent things whose best answer scores lower.
    pub confidence: f32,
    /// How far the score lies above what absent things score, in spreads of those. It tells scores apart that
    /// all have the highest confidence.
    pub excess: f32,
}

impl Assessment {
    /// Order by confidence, ascending; ties by excess.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.confidence.total_cmp(&other.confidence).then(self.excess.total_cmp(&other.excess))
    }

    /// The weighted mean of several, by their log odds (a logarithmic opinion pool): equal ones give the same
    /// again, and doubt about one cannot be outvoted by certainty about another. A negative weight says what
    /// should not be there: it takes away where that is likelier than not, and adds nothing otherwise. `None`
    /// without a positive weight.
    pub fn pooled(weighted: &[(f32, Self)]) -> Option<Self> {
        if let [(_, only)] = weighted {
            return Some(*only);
        }
        let total: f32 = weighted.iter().map(|(weight, _)| weight.max(0.0)).sum();
        let (mut odds, mut excess) = (0.0, 0.0);
        for (weight, assessment) in weighted {
            let share = weight / total;
            let log_odds = log_odds(assessment.confidence);
            odds += share * if *weight > 0.0 { log_odds } else { log_odds.max(0.0) };
            excess += share * assessment.excess;
        }
        (total > 0.0).then(|| Self { confidence: 1.0 / (1.0 + (-odds).exp()), excess })
    }
}

fn log_odds(confidence: f32) -> f32 {
    let confidence = confidence.clamp(LEAST_ODDS, 1.0 - LEAST_ODDS);
    (confidence / (1.0 - confidence)).ln()
}

/// One part of a query: what its scores are assessed with.
#[derive(Debug, Clone)]
pub struct MeantPart {
    /// The part's own vector.
    pub vector: Embedding,
    query: Modality,
    words: usize,
    weight: f32,
    understood: f32,
}

/// The parts of a query in one space.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// All parts.
    pub parts: Vec<MeantPart>,
    space: Space,
    /// Number of tracks among which the best answer is taken, in whichever space.
    chances: usize,
}

impl Meaning {
    /// Parts that have a vector in the space; `chances` is the number of tracks among which the best answer is
    /// taken.
    pub fn new(parts: &[QueryPart], space: &Space, chances: usize) -> Self {
        let meant = |part: &QueryPart| {
            Some(MeantPart {
                vector: part.vectors.get(space)?.clone(),
                query: part.modality,
                words: part.words.min(MOST_WORDS),
                weight: part.weight,
                understood: part.understood.get(space).copied().unwrap_or(1.0),
            })
        };
        Self { parts: parts.iter().filter_map(meant).collect(), space: space.clone(), chances }
    }

    /// The distribution of the only part's scores; `None` for several parts.
    pub fn lane(&self, track: Track) -> Option<Lane> {
        match self.parts.as_slice() {
            [part] => Some(self.lane_of(part, track)),
            _ => None,
        }
    }

    fn lane_of(&self, part: &MeantPart, track: Track) -> Lane {
        Lane { query: part.query, words: part.words, space: self.space.clone(), target: track }
    }

    /// Whether there is a distribution to assess scores on a track with.
    pub fn can_assess(&self, distributions: &Distributions, track: Track) -> bool {
        self.parts.iter().all(|part| distributions.lanes.contains_key(&self.lane_of(part, track)))
    }

    /// What scores on these tracks mean: `scores` gives that of a part, by its place, on a track. `None`
    /// without a distribution for each of them.
    pub fn assess(
        &self,
        distributions: &Distributions,
        tracks: &[Track],
        scores: impl Fn(usize, Track) -> f32,
    ) -> Option<Assessment> {
        let mut weighted = Vec::with_capacity(self.parts.len() * tracks.len());
        for (at, part) in self.parts.iter().enumerate() {
            for track in tracks {
                let (lane, score) = (self.lane_of(part, *track), scores(at, *track));
                let confidence = distributions.confidence(&lane, score, self.chances)? * part.understood;
                weighted.push((
                    part.weight,
                    Assessment { confidence, excess: distributions.excess(&lane, score)? },
                ));
            }
        }
        Assessment::pooled(&weighted)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn pooled(weighted: &[(f32, f32)]) -> f32 {
        let assessment = |(weight, confidence): &(f32, f32)| {
            (*weight, Assessment { confidence: *confidence, excess: 2.0 * confidence - 1.0 })
        };
        Assessment::pooled(&weighted.iter().map(assessment).collect::<Vec<_>>()).unwrap().confidence
    }

    #[test]
    fn parts_that_agree_are_as_sure_as_each() {
        for confidence in [0.05, 0.5, 0.9, 0.99] {
            assert!((pooled(&[(1.0, confidence), (3.0, confidence)]) - confidence).abs() < 1e-5);
            assert!((pooled(&[(7.0, confidence)]) - confidence).abs() < f32::EPSILON);
        }
    }

    #[test]
    fn doubt_about_one_part_is_not_outvoted() {
        assert!(pooled(&[(1.0, 0.99), (1.0, 0.2)]) < 0.9);
        assert!(pooled(&[(1.0, 0.99), (1.0, 0.0)]) < 0.05);
        assert!(pooled(&[(9.0, 0.99), (1.0, 0.2)]) > 0.9, "a part of little weight says little");
        let rising: Vec<f32> = (1..10).map(|n| pooled(&[(1.0, 0.7), (2.0, n as f32 / 10.0)])).collect();
        assert!(rising.is_sorted());
    }

    #[test]
    fn what_should_not_be_there_only_takes_away() {
        let alone = pooled(&[(1.0, 0.95)]);
        assert!((pooled(&[(1.0, 0.95), (-1.0, 0.1)]) - alone).abs() < 1e-5);
        assert!((pooled(&[(1.0, 0.3), (-1000.0, 0.0)]) - 0.3).abs() < 1e-5);
        assert!(pooled(&[(1.0, 0.95), (-1.0, 0.97)]) < 0.5);
        assert!(pooled(&[(1.0, 0.95), (-0.1, 0.97)]) > 0.9);
        assert_eq!(Assessment::pooled(&[(-1.0, Assessment { confidence: 0.5, excess: 0.0 }); 2]), None);
    }
}
