//! Upkeep of a library: snapshots, retention, compaction, checks.

pub mod checks;
pub mod compactions;
pub mod retention;
pub mod snapshots;
