//! What keeps a store in shape over the years: copies of it, deletion in bulk, space given back,
//! rules of retention.

use std::path::Path;

use async_trait::async_trait;

use super::StoreError;
use crate::types::{AssetId, ClipId};

/// Room on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSpace {
    /// Bytes of the store's files.
    pub file_bytes: u64,
    /// Bytes of it that hold nothing any more.
    pub free_bytes: u64,
    /// Whether they can be given back little by little; else only by rewriting the store.
    pub releases: bool,
}

/// What went with an asset.
#[derive(Debug, Clone)]
pub struct DeletedAsset {
    /// Id of the asset.
    pub id: AssetId,
    /// Its clips.
    pub clips: Vec<ClipId>,
    /// Our own copy of its bytes, which nobody needs any more.
    pub owned_path: Option<String>,
}

/// A rule of retention as stored; what its filter means is for the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionRule {
    /// Unique name of the rule.
    pub name: String,
    /// Which assets.
    pub filter: serde_json::Value,
    /// How old they get, seconds.
    pub older_than_secs: u64,
    /// What their age is counted from.
    pub by: String,
}

/// One time that the rules were applied.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionRun {
    /// Rises from run to run.
    pub n: i64,
    /// Unix milliseconds.
    pub started_unix_ms: i64,
    /// Unix milliseconds; 0 while it runs, and for ever where the process ended before it.
    pub ended_unix_ms: i64,
    /// Number of assets deleted.
    pub assets: u64,
    /// Number of clips deleted with them.
    pub clips: u64,
    /// Assets deleted by each rule, a JSON object.
    pub by_rule: serde_json::Value,
}

/// The part of a store that is about keeping it.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Writes everything as it is at one moment, between two transactions, to a new file. Readers and
    /// the writer go on meanwhile.
    async fn copy_to(&self, to: &Path) -> Result<(), StoreError>;
    /// Deletes assets with their clips and vectors in one transaction; those that are not there are left out.
    async fn delete_assets(&self, ids: &[AssetId]) -> Result<Vec<DeletedAsset>, StoreError>;
    /// Notes that our own copies lie beneath this folder, wherever they lay before; how many moved.
    async fn adopt_uploads(&self, kept: &Path) -> Result<u64, StoreError>;
    /// Room on disk.
    async fn space(&self) -> Result<StoreSpace, StoreError>;
    /// Gives back up to `pages` of what holds nothing, in one short transaction.
    async fn release_pages(&self, pages: u32) -> Result<(), StoreError>;
    /// Rewrites the store without its free pages. Needs room for a copy, twice for a while, and whoever writes waits
    /// until it is done.
    async fn rewrite(&self) -> Result<(), StoreError>;
    /// Writes something, durably, only to see whether that can be done.
    async fn try_write(&self) -> Result<(), StoreError>;
    /// Moves what is written to the log only into the file, as far as readers let it.
    async fn checkpoint(&self) -> Result<(), StoreError>;

    /// The rules of retention, in their order.
    async fn retention_rules(&self) -> Result<Vec<RetentionRule>, StoreError>;
    /// Puts these rules in the place of all others.
    async fn set_retention_rules(&self, rules: &[RetentionRule]) -> Result<(), StoreError>;
    /// Begins a run of the rules.
    async fn begin_retention_run(&self) -> Result<RetentionRun, StoreError>;
    /// Notes how far a run has come.
    async fn note_retention_run(&self, run: &RetentionRun) -> Result<(), StoreError>;
    /// Runs, newest first.
    async fn retention_runs(&self, limit: u32) -> Result<Vec<RetentionRun>, StoreError>;
}
