//! The findings of a check.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use crate::store::{AssetRecord, Damage, DamagedRow};
use crate::types::AssetId;

/// Entries per list of a report; the counts beside the lists are complete.
const MOST_LISTED: usize = 1000;

/// State of a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// None was requested since startup.
    #[default]
    None,
    /// The check is running.
    Running,
    /// The check has read everything.
    Done,
    /// It could not finish; `error` gives the reason.
    Failed,
}

/// An asset that is damaged, or that could not be repaired.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DamagedAsset {
    /// Id of the asset.
    pub id: AssetId,
    /// Display name.
    pub name: String,
    /// `missing`, `changed`, `metadata`, or the error code that prevented the repair.
    pub problem: String,
}

impl DamagedAsset {
    pub(crate) fn new(asset: &AssetRecord, problem: impl Into<String>) -> Self {
        Self { id: asset.id, name: asset.name.clone(), problem: problem.into() }
    }
}

/// Findings of a check so far.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct CheckReport {
    /// State of the check.
    pub state: CheckState,
    /// Whether damaged vectors are recomputed.
    pub repair: bool,
    /// Time in Unix milliseconds; 0 if not yet.
    pub started_unix_ms: i64,
    /// Time in Unix milliseconds; 0 if not yet.
    pub ended_unix_ms: i64,
    /// Problems that SQLite reports; empty if the database is intact.
    pub database_problems: Vec<String>,
    /// Rows of the store that cannot be read; the first 1000.
    pub damaged_rows: Vec<DamagedRow>,
    /// Number of clips with damaged or missing vectors.
    pub damaged_clips: u64,
    /// Number of clips with recomputed vectors.
    pub repaired_clips: u64,
    /// Number of uploads read.
    pub assets_checked: u64,
    /// Their size in bytes.
    pub bytes_checked: u64,
    /// Damaged or missing uploads; the first 1000.
    pub damaged_assets: Vec<DamagedAsset>,
    /// Total number of damaged or missing uploads.
    pub damaged_assets_total: u64,
    /// Number of assets indexed again because clips were missing.
    pub reindexed_assets: u64,
    /// Assets that could not be repaired, with the reason; the first 1000.
    pub unrepaired_assets: Vec<DamagedAsset>,
    /// Why the check failed.
    pub error: Option<String>,
}

impl CheckReport {
    /// Whether no damage remains.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.database_problems.is_empty()
            && self.damaged_rows.is_empty()
            && self.damaged_clips == self.repaired_clips
            && self.damaged_assets_total == 0
            && self.unrepaired_assets.is_empty()
            && self.state == CheckState::Done
    }
}

/// The report of the running check, or of the last one.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<CheckReport>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, CheckReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> CheckReport {
        self.lock().clone()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut CheckReport) -> T) -> T {
        change(&mut self.lock())
    }

    pub(crate) fn damaged(&self, asset: &AssetRecord, damage: Damage) {
        self.change(|report| {
            report.damaged_assets_total += 1;
            if report.damaged_assets.len() < MOST_LISTED {
                report.damaged_assets.push(DamagedAsset::new(asset, damage.as_str()));
            }
        });
    }

    pub(crate) fn rows(&self, mut rows: Vec<DamagedRow>) {
        rows.truncate(MOST_LISTED);
        self.change(|report| report.damaged_rows = rows);
    }

    pub(crate) fn unrepaired(&self, asset: DamagedAsset) {
        self.change(|report| {
            if report.unrepaired_assets.len() < MOST_LISTED {
                report.unrepaired_assets.push(asset);
            }
        });
    }
}
