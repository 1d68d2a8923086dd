//! A match while it is ranked, before it becomes a hit.

use std::sync::Arc;

use super::lookup::Match;
use crate::catalog::AssetEntry;
use crate::types::TimeSpan;

/// A match with its asset and the span that the hit shows.
pub(super) struct Found {
    pub asset: Arc<AssetEntry>,
    pub matched: Match,
    pub span: TimeSpan,
}
