//! How far a store falls short of the ledger.

/// How far a store falls short of what the server has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Number of acknowledged changes.
    pub acknowledged: i64,
    /// Number of changes that the store has.
    pub stored: i64,
    /// Number of acknowledged assets that the store lacks.
    pub missing_assets: usize,
}

impl std::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "it has {} of {} acknowledged changes and lacks {} acknowledged assets",
            self.stored, self.acknowledged, self.missing_assets
        )
    }
}
