//! A match while it is ranked, before it becomes a hit.

use std::sync::Arc;

use super::lookup::{Lookup, Match};
use crate::catalog::AssetEntry;
use crate::types::TimeSpan;

/// A match with its asset and the span that the hit shows.
pub(super) struct Found {
    pub asset: Arc<AssetEntry>,
    pub matched: Match,
    pub span: TimeSpan,
}

/// The best hits of one space, best first.
pub(super) struct Ranked {
    pub found: Vec<Found>,
    pub hub_corrected: bool,
}

impl Found {
    /// Confidence of the match; `None` without a distribution.
    pub fn confidence(&self, look: &Lookup<'_>) -> Option<f32> {
        look.confidence(self.matched.score, self.matched.track)
    }
}
