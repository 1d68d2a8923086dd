//! Snapshots: takes the whole library at one moment, stores it elsewhere, and restores it.
//!
//! ```text
//! snapshots/<id>/store.db       the store at one moment
//! snapshots/<id>/index/…        indexes of the same moment, calibration of confidence
//! snapshots/<id>/media.jsonl    the uploads it needs
//! snapshots/<id>/manifest.json  its contents, every file with size and SHA-256; written last
//! media/ab/<SHA-256>            uploads, shared by all snapshots
//! ```
//!
//! A folder without a manifest is not a snapshot: an interrupted snapshot is never mistaken for a whole one,
//! and the next snapshot removes it. `pins` explains why uploads deleted during a snapshot are not missed.

mod bucket;
mod create;
mod destination;
mod error;
mod folder;
mod keeper;
mod manifest;
mod pins;
mod place;
mod restore;
mod view;

#[cfg(test)]
pub(crate) use manifest::fuzzed;

pub use create::{SnapshotOptions, Source};
pub use error::BackupError;
pub use keeper::{KeeperConfig, SnapshotKeeper, Taking};
pub use pins::Pins;
pub use place::SnapshotPlace;
pub use restore::Restored;
pub use view::{SnapshotContents, SnapshotProblem, SnapshotProgress, SnapshotState, SnapshotView};

use crate::types::SnapshotId;
use destination::Destination;
use manifest::{MANIFEST, Manifest};

/// Every snapshot of a destination with its id and manifest, oldest first.
async fn read_manifests(
    destination: &dyn Destination,
) -> Result<Vec<(String, Result<Manifest, BackupError>)>, BackupError> {
    let mut found = Vec::new();
    for key in destination.list("snapshots/").await? {
        let id =
            key.strip_prefix("snapshots/").and_then(|rest| rest.strip_suffix(MANIFEST)?.strip_suffix('/'));
        let Some(id) = id.filter(|id| id.parse::<SnapshotId>().is_ok()) else { continue };
        match restore::manifest_of(destination, id).await {
            // Deleted in the meantime.
            Err(BackupError::NotFound(_)) => {}
            Err(error @ (BackupError::Damaged { .. } | BackupError::Format(_))) => {
                found.push((id.to_owned(), Err(error)));
            }
            Err(error) => return Err(error),
            Ok(manifest) => found.push((id.to_owned(), Ok(manifest))),
        }
    }
    Ok(found)
}

/// Every snapshot of a destination, newest first.
async fn list(destination: &dyn Destination) -> Result<Vec<SnapshotView>, BackupError> {
    let mut views = Vec::new();
    for (id, manifest) in read_manifests(destination).await? {
        match (manifest, id.parse()) {
            (Ok(manifest), _) => views.push(SnapshotView::ready(&manifest)),
            (Err(error), Ok(id)) => views.push(SnapshotView::damaged(id, &error)),
            (Err(_), Err(_)) => {}
        }
    }
    views.sort_unstable_by_key(|view| std::cmp::Reverse(view.id));
    Ok(views)
}
