//! A match while it is ranked, before it becomes a hit.

use std::sync::Arc;

use super::SearchError;
use super::lookup::{Lookup, Match};
use super::meaning::Assessment;
use crate::catalog::AssetEntry;
use crate::types::TimeSpan;

/// A match with its asset and the span that the hit shows.
pub(super) struct Found {
    pub asset: Arc<AssetEntry>,
    pub matched: Match,
    pub span: TimeSpan,
    /// What its score means, once that is told.
    pub assessment: Option<Assessment>,
}

/// The best hits of one space, best first.
pub(super) struct Ranked {
    pub found: Vec<Found>,
    pub hub_corrected: bool,
}

impl Found {
    /// Confidence of the match; `None` without a distribution.
    pub fn confidence(&self) -> Option<f32> {
        self.assessment.map(|assessment| assessment.confidence)
    }
}

/// Tells what the scores of matches of one space mean.
pub(super) fn tell(look: &Lookup<'_>, found: &mut [Found]) -> Result<(), SearchError> {
    if found.iter().all(|found| found.assessment.is_some()) {
        return Ok(());
    }
    let matches: Vec<Match> = found.iter().map(|found| found.matched).collect();
    for (found, assessment) in found.iter_mut().zip(look.assess(&matches)?) {
        found.assessment = assessment;
    }
    Ok(())
}
