//! Made-up queries for calibration and hub correction.

use std::collections::HashSet;

use crate::types::{AssetId, ClipId, Embedding};

/// One query of a bank.
#[derive(Debug, Clone, PartialEq)]
pub struct BankQuery {
    /// Embedding of the query.
    pub vector: Embedding,
    /// Asset that the query was taken from. Its clips do not count as answers.
    pub own: Option<AssetId>,
}

/// Queries of one lane, and the clips that rank first for them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bank {
    /// All queries of the bank.
    pub queries: Vec<BankQuery>,
    /// The best clip of each query.
    pub hubs: HashSet<ClipId>,
}
