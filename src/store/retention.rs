//! Retention rules and their runs, as stored.

use async_trait::async_trait;

use super::StoreError;

/// A retention rule as stored; the store does not interpret its filter.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionRule {
    /// Unique name of the rule.
    pub name: String,
    /// Filter of the assets, as JSON.
    pub filter: serde_json::Value,
    /// Maximum age in seconds.
    pub older_than_secs: u64,
    /// Start of the age.
    pub by: String,
}

/// A run of the retention rules.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionRun {
    /// Number of the run; rises from run to run.
    pub n: i64,
    /// When it started, in Unix milliseconds.
    pub started_unix_ms: i64,
    /// When it ended, in Unix milliseconds; 0 while it runs, and forever if the process ended first.
    pub ended_unix_ms: i64,
    /// Number of assets deleted.
    pub assets: u64,
    /// Number of clips deleted with them.
    pub clips: u64,
    /// Number of assets deleted per rule, a JSON object.
    pub by_rule: serde_json::Value,
}

/// Retention rules and their runs.
#[async_trait]
pub trait RetentionStore: Send + Sync {
    /// The retention rules, in order.
    async fn retention_rules(&self) -> Result<Vec<RetentionRule>, StoreError>;
    /// Replaces all retention rules.
    async fn set_retention_rules(&self, rules: &[RetentionRule]) -> Result<(), StoreError>;
    /// Starts a run of the rules.
    async fn begin_retention_run(&self) -> Result<RetentionRun, StoreError>;
    /// Records the progress of a run.
    async fn note_retention_run(&self, run: &RetentionRun) -> Result<(), StoreError>;
    /// At most `limit` runs that deleted something, newest first.
    async fn retention_runs(&self, limit: u32) -> Result<Vec<RetentionRun>, StoreError>;
}
