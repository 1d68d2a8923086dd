//! Rows of jobs and of their items.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use super::rows::{choice, unsigned};
use super::{damaged, error_columns, from_json};
use crate::store::{JobItem, JobKind, JobRecord, StoreError, WorkState};
use crate::types::JobId;

pub(super) fn job_record(row: &SqliteRow) -> Result<JobRecord, StoreError> {
    let id: &str = row.try_get("id")?;
    Ok(JobRecord {
        id: id.parse().map_err(|_| damaged("job id", id))?,
        kind: kind(row)?,
        request: from_json(row.try_get("request")?)?,
        state: state(row)?,
        items_total: unsigned(row, "items_total")?,
        items_done: unsigned(row, "items_done")?,
        items_failed: unsigned(row, "items_failed")?,
        items_skipped: unsigned(row, "items_skipped")?,
        items_partial: unsigned(row, "items_partial")?,
        clips: unsigned(row, "clips")?,
        media_secs: row.try_get("media_secs")?,
        error: error_columns(row)?,
        created_unix_ms: row.try_get("created_unix_ms")?,
        started_unix_ms: row.try_get("started_unix_ms")?,
        ended_unix_ms: row.try_get("ended_unix_ms")?,
    })
}

pub(super) fn item_record(row: &SqliteRow) -> Result<JobItem, StoreError> {
    let asset: Option<&str> = row.try_get("asset")?;
    Ok(JobItem {
        seq: row.try_get("seq")?,
        path: row.try_get("path")?,
        name: row.try_get("name")?,
        metadata: from_json(row.try_get("metadata")?)?,
        state: state(row)?,
        asset: asset.map(|id| id.parse().map_err(|_| damaged("asset id", id))).transpose()?,
        clips: unsigned(row, "clips")?,
        media_secs: row.try_get("media_secs")?,
        error: error_columns(row)?,
        attempts: u32::try_from(unsigned(row, "attempts")?).unwrap_or(u32::MAX),
        not_before_unix_ms: row.try_get("not_before_unix_ms")?,
        choice: choice(row)?,
    })
}

fn kind(row: &SqliteRow) -> Result<JobKind, StoreError> {
    let name: &str = row.try_get("kind")?;
    JobKind::from_name(name).ok_or_else(|| damaged("kind of job", name))
}

fn state(row: &SqliteRow) -> Result<WorkState, StoreError> {
    let name: &str = row.try_get("state")?;
    WorkState::from_name(name).ok_or_else(|| damaged("work state", name))
}

pub(super) async fn in_tx(tx: &mut Transaction<'_, Sqlite>, n: i64) -> Result<JobRecord, StoreError> {
    job_record(&sqlx::query("SELECT * FROM jobs WHERE n = ?").bind(n).fetch_one(&mut **tx).await?)
}

/// Row number of a job.
pub(super) async fn number(tx: &mut Transaction<'_, Sqlite>, id: JobId) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT n FROM jobs WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::NotFound("job"))
}
