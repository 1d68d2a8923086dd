//! A bank of queries that could be asked of a library.

use std::collections::HashSet;

use crate::types::{AssetId, ClipId, Embedding};

/// One query of a bank.
#[derive(Debug, Clone, PartialEq)]
pub struct BankQuery {
    /// Its vector.
    pub vector: Embedding,
    /// The asset it was taken from, whose clips are no answers to it.
    pub own: Option<AssetId>,
}

/// Queries that could be asked, and the clips that come first for them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bank {
    /// The queries.
    pub queries: Vec<BankQuery>,
    /// The best clip of each.
    pub hubs: HashSet<ClipId>,
}
