//! Keeps a store in shape over the years: copies, bulk deletion, freeing space, retention rules.

use std::path::Path;

use async_trait::async_trait;

use super::StoreError;
use crate::types::{AssetId, ClipId};

/// Disk space of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSpace {
    /// Size of the store's files in bytes.
    pub file_bytes: u64,
    /// Bytes of them that are free pages.
    pub free_bytes: u64,
    /// Whether free pages can be released step by step; otherwise only a rewrite frees them.
    pub releases: bool,
}

/// What was deleted with an asset.
#[derive(Debug, Clone)]
pub struct DeletedAsset {
    /// Id of the asset.
    pub id: AssetId,
    /// Ids of its clips.
    pub clips: Vec<ClipId>,
    /// Path of its upload, to be removed; `None` for a file indexed by path.
    pub owned_path: Option<String>,
}

/// A retention rule as stored; the store does not interpret its filter.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionRule {
    /// Unique name of the rule.
    pub name: String,
    /// Filter of the assets, as JSON.
    pub filter: serde_json::Value,
    /// Maximum age in seconds.
    pub older_than_secs: u64,
    /// What the age is counted from.
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

/// The part of a store for its upkeep.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Writes the state of one moment, between two transactions, to a new file. Readers and the writer
    /// continue meanwhile.
    async fn copy_to(&self, to: &Path) -> Result<(), StoreError>;
    /// Deletes assets with their clips and vectors in one transaction; missing ones are left out.
    async fn delete_assets(&self, ids: &[AssetId]) -> Result<Vec<DeletedAsset>, StoreError>;
    /// Sets the paths of uploads to this folder, wherever they were before; returns how many changed.
    async fn adopt_uploads(&self, kept: &Path) -> Result<u64, StoreError>;
    /// The disk space of the store.
    async fn space(&self) -> Result<StoreSpace, StoreError>;
    /// Frees up to `pages` unused pages in one short transaction.
    async fn release_pages(&self, pages: u32) -> Result<(), StoreError>;
    /// Rewrites the store without its free pages. For a while, this needs room for two copies, and writers
    /// wait until it is done.
    async fn rewrite(&self) -> Result<(), StoreError>;
    /// Writes something durably, only to see whether that works.
    async fn try_write(&self) -> Result<(), StoreError>;
    /// Moves the write-ahead log into the database file, as far as readers allow (a checkpoint).
    async fn checkpoint(&self) -> Result<(), StoreError>;

    /// The retention rules, in order.
    async fn retention_rules(&self) -> Result<Vec<RetentionRule>, StoreError>;
    /// Replaces all retention rules.
    async fn set_retention_rules(&self, rules: &[RetentionRule]) -> Result<(), StoreError>;
    /// Starts a run of the rules.
    async fn begin_retention_run(&self) -> Result<RetentionRun, StoreError>;
    /// Records the progress of a run.
    async fn note_retention_run(&self, run: &RetentionRun) -> Result<(), StoreError>;
    /// Runs, newest first.
    async fn retention_runs(&self, limit: u32) -> Result<Vec<RetentionRun>, StoreError>;
}
