//! Columns that several tables share, read and written in the same way.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::StoreError;
use crate::types::TrackChoice;

pub(super) fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The chosen tracks of an asset or an item.
pub(super) fn choice(row: &SqliteRow) -> Result<TrackChoice, StoreError> {
    let column = |name| row.try_get::<Option<u16>, _>(name);
    Ok(TrackChoice { video: column("video_track")?, audio: column("audio_track")? })
}
