//! What a check found.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use crate::store::{AssetRecord, Damage, DamagedRow};
use crate::types::AssetId;

/// Entries of each list of a report; the counts beside them are of all.
const MOST_LISTED: usize = 1000;

/// Where a check is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// None was asked for since the start.
    #[default]
    None,
    /// It runs.
    Running,
    /// It has ended.
    Done,
    /// It could not be ended; `error` says why.
    Failed,
}

/// An asset that is damaged, or that could not be repaired.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DamagedAsset {
    /// Which.
    pub id: AssetId,
    /// Name shown to people.
    pub name: String,
    /// `missing`, `changed`, `metadata`, or the code of what kept it from being repaired.
    pub problem: String,
}

impl DamagedAsset {
    pub(super) fn new(asset: &AssetRecord, problem: impl Into<String>) -> Self {
        Self { id: asset.id, name: asset.name.clone(), problem: problem.into() }
    }
}

/// What a check found, as far as it has come.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct CheckReport {
    /// Where it is.
    pub state: CheckState,
    /// Whether damaged vectors are made anew.
    pub repair: bool,
    /// Unix milliseconds; 0: not yet.
    pub started_unix_ms: i64,
    /// Unix milliseconds; 0: not yet.
    pub ended_unix_ms: i64,
    /// What SQLite finds wrong with the database; nothing where it is whole.
    pub database_problems: Vec<String>,
    /// Rows that cannot be read; the first thousand.
    pub damaged_rows: Vec<DamagedRow>,
    /// Clips with vectors that are damaged or gone.
    pub damaged_clips: u64,
    /// And of those the ones that were made anew.
    pub repaired_clips: u64,
    /// Uploads whose bytes were read.
    pub assets_checked: u64,
    /// Their bytes.
    pub bytes_checked: u64,
    /// Uploads that are damaged or gone; the first thousand.
    pub damaged_assets: Vec<DamagedAsset>,
    /// How many there are in all.
    pub damaged_assets_total: u64,
    /// Assets that are indexed anew, since they lack clips.
    pub reindexed_assets: u64,
    /// Assets that could not be repaired, and why; the first thousand.
    pub unrepaired_assets: Vec<DamagedAsset>,
    /// Why the check failed.
    pub error: Option<String>,
}

impl CheckReport {
    /// Whether something is damaged still.
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

/// The report of the check that runs, or of the last one.
#[derive(Debug, Default)]
pub(in crate::library) struct Shared(Mutex<CheckReport>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, CheckReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::library) fn now(&self) -> CheckReport {
        self.lock().clone()
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut CheckReport) -> T) -> T {
        change(&mut self.lock())
    }

    pub(super) fn damaged(&self, asset: &AssetRecord, damage: Damage) {
        self.change(|report| {
            report.damaged_assets_total += 1;
            if report.damaged_assets.len() < MOST_LISTED {
                report.damaged_assets.push(DamagedAsset::new(asset, damage.as_str()));
            }
        });
    }

    pub(super) fn rows(&self, mut rows: Vec<DamagedRow>) {
        rows.truncate(MOST_LISTED);
        self.change(|report| report.damaged_rows = rows);
    }

    pub(super) fn unrepaired(&self, asset: DamagedAsset) {
        self.change(|report| {
            if report.unrepaired_assets.len() < MOST_LISTED {
                report.unrepaired_assets.push(asset);
            }
        });
    }
}
