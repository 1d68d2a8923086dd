//! Durable batch jobs: how their items are shown, and which files of a folder they contain.

mod left_out;
mod listing;
mod manifest;
mod names;
mod place;

use serde::Serialize;
use utoipa::ToSchema;

pub use left_out::LeftOut;
pub use listing::{ListError, Listing, SeenFile, examine_seen, list_media, list_seen};
pub use manifest::{ManifestError, ManifestItem, read_manifest};
pub use names::NameFilter;
pub use place::Place;

pub use crate::store::{JobBaseline, JobView, WorkError};

use crate::store::{JobItem, WorkState};
use crate::types::{AssetId, rfc3339_millis};

/// An item of a job.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ItemView {
    /// Position in the job, counted from 0.
    pub seq: i64,
    /// Path or URL of the file.
    pub path: String,
    /// State.
    pub state: WorkState,
    /// Id of the asset; null until there is one.
    pub asset_id: Option<AssetId>,
    /// Number of clips indexed.
    pub clips: u64,
    /// Duration of the media in seconds.
    pub media_secs: f64,
    /// Why it failed or was skipped, why only part of it could be read, or why it is retried; null otherwise.
    pub error: Option<WorkError>,
    /// Number of attempts that were postponed.
    pub attempts: u32,
    /// Time of the next attempt: RFC 3339, UTC; null unless it was postponed.
    pub next_attempt_at: Option<String>,
}

impl From<&JobItem> for ItemView {
    fn from(item: &JobItem) -> Self {
        Self {
            seq: item.seq,
            path: item.path.clone(),
            state: item.state,
            asset_id: item.asset,
            clips: item.clips,
            media_secs: item.media_secs,
            error: item.error.clone(),
            attempts: item.attempts,
            next_attempt_at: (item.state == WorkState::Queued && item.not_before_unix_ms > 0)
                .then(|| rfc3339_millis(item.not_before_unix_ms)),
        }
    }
}
