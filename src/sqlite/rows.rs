//! Columns that several tables share, read and written in the same way.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{StoreError, WorkError};
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

pub(super) fn to_json(value: &serde_json::Value) -> String {
    value.to_string()
}

pub(super) fn from_json(text: &str) -> Result<serde_json::Value, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::DamagedRow(format!("JSON text is damaged: {error}")))
}

pub(super) fn damaged(what: &str, value: &str) -> StoreError {
    StoreError::DamagedRow(format!("{what} is damaged: {}", value.escape_debug()))
}

/// Ids as a JSON array, the only kind of list that SQLite accepts as a parameter.
pub(super) fn id_list<T: std::fmt::Display>(ids: impl IntoIterator<Item = T>, quoted: bool) -> String {
    let mut text = String::from("[");
    for (i, id) in ids.into_iter().enumerate() {
        use std::fmt::Write;
        let comma = if i == 0 { "" } else { "," };
        let quote = if quoted { "\"" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{quote}{id}{quote}");
    }
    text.push(']');
    text
}

pub(super) fn error_columns(row: &SqliteRow) -> Result<Option<WorkError>, StoreError> {
    let code: Option<String> = row.try_get("error_code")?;
    let message: Option<String> = row.try_get("error_message")?;
    Ok(code.map(|code| WorkError::new(code, message.unwrap_or_default())))
}

/// Code and message as columns.
pub(super) fn columns_of(error: Option<&WorkError>) -> (Option<&str>, Option<&str>) {
    error.map(|error| (error.code.as_str(), error.message.as_str())).unzip()
}
