//! Items of jobs in SQLite: claimed, finished, and the end of a job with its last item.

use sqlx::{Row, Sqlite, Transaction};

use super::job_records::{in_tx, item_record, number};
use super::page::{ByState, List};
use super::rows::columns_of;
use super::{SqliteStore, begin, damaged, now_unix_ms, webhooks};
use crate::store::{JobItem, JobRecord, StoreError, WorkState};
use crate::types::JobId;

const READ_AT_ONCE: u32 = 4096;

/// INDEXED BY: otherwise SQLite walks over the whole job by its key.
pub(super) const PAGE: ByState = ByState {
    all: "SELECT * FROM job_items WHERE job = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    of_state: "SELECT * FROM job_items INDEXED BY job_items_state
         WHERE job = ?1 AND state = ?4 AND seq > ?2 ORDER BY seq LIMIT ?3",
};
/// Claims the next item. CROSS JOIN and INDEXED BY make SQLite keep this order, active jobs first.
pub(super) const CLAIM: &str = "UPDATE job_items SET state = 'running'
     WHERE (job, seq) = (
         SELECT i.job, i.seq FROM jobs AS j INDEXED BY jobs_live
         CROSS JOIN job_items AS i INDEXED BY job_items_queued
         ON i.job = j.n AND i.state = 'queued' AND i.not_before_unix_ms <= ?
         WHERE j.state IN ('queued', 'running') ORDER BY j.n, i.seq LIMIT 1)
     RETURNING *";

pub(super) async fn list(
    store: &SqliteStore,
    id: JobId,
    state: Option<WorkState>,
    after_seq: i64,
    limit: u32,
) -> Result<Vec<JobItem>, StoreError> {
    let readers = store.readers();
    let n: i64 = sqlx::query_scalar("SELECT n FROM jobs WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(&readers)
        .await?
        .ok_or(StoreError::NotFound("job"))?;
    let list = List { table: "job_items", cursor: "seq", read: item_record };
    store
        .page(list, after_seq, limit, |after: i64, limit| {
            PAGE.query(state.map(WorkState::as_str), |rows| rows.bind(n).bind(after).bind(limit))
                .fetch_all(&readers)
        })
        .await
}

/// Reads the items of all jobs, to record damaged ones.
pub(super) async fn read_all_items(store: &SqliteStore) -> Result<(), StoreError> {
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM jobs ORDER BY n").fetch_all(&store.readers()).await?;
    for id in ids.iter().filter_map(|id| id.parse::<JobId>().ok()) {
        let mut after = -1;
        while let Some(last) = list(store, id, None, after, READ_AT_ONCE).await?.last() {
            after = last.seq;
        }
    }
    Ok(())
}

pub(super) async fn claim(store: &SqliteStore) -> Result<Option<(JobId, JobItem)>, StoreError> {
    loop {
        match claim_next(store).await {
            // The item has failed; the others must not wait for it.
            Err(StoreError::DamagedRow(_)) => {}
            claimed => return claimed,
        }
    }
}

/// Fails an item that cannot be read: otherwise it would be the next one forever.
async fn fail_damaged(
    mut tx: Transaction<'_, Sqlite>,
    job: i64,
    seq: i64,
    error: &StoreError,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE job_items SET state = 'failed', asset = NULL, metadata = '{}', clips = 0, media_secs = 0,
             attempts = 0, not_before_unix_ms = 0, error_code = ?3, error_message = ?4
         WHERE job = ?1 AND seq = ?2",
    )
    .bind(job)
    .bind(seq)
    .bind(StoreError::DAMAGED_ROW)
    .bind(error.to_string())
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE jobs SET items_failed = items_failed + 1 WHERE n = ?")
        .bind(job)
        .execute(&mut *tx)
        .await?;
    end_if_last(&mut tx, job).await?;
    Ok(tx.commit().await?)
}

async fn claim_next(store: &SqliteStore) -> Result<Option<(JobId, JobItem)>, StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let row = sqlx::query(CLAIM).bind(now_unix_ms()).fetch_optional(&mut *tx).await?;
    let Some(row) = row else { return Ok(None) };
    let (job, seq) = (row.try_get::<i64, _>("job")?, row.try_get::<i64, _>("seq")?);
    let item = match item_record(&row) {
        Ok(item) => item,
        Err(error) => {
            drop(row);
            store.note_row("job_items", format!("{job}/{seq}"), &error);
            fail_damaged(tx, job, seq, &error).await?;
            return Err(StoreError::DamagedRow(error.to_string()));
        }
    };
    let id: String = sqlx::query_scalar(
        "UPDATE jobs SET state = 'running',
             started_unix_ms = CASE started_unix_ms WHEN 0 THEN ? ELSE started_unix_ms END
         WHERE n = ? RETURNING id",
    )
    .bind(now_unix_ms())
    .bind(job)
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Some((id.parse().map_err(|_| damaged("job id", &id))?, item)))
}

async fn open_items(tx: &mut Transaction<'_, Sqlite>, n: i64) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM job_items WHERE job = ?1 AND state = 'queued')
             OR EXISTS (SELECT 1 FROM job_items WHERE job = ?1 AND state = 'running')",
    )
    .bind(n)
    .fetch_one(&mut **tx)
    .await?)
}

async fn end_if_last(tx: &mut Transaction<'_, Sqlite>, n: i64) -> Result<(), StoreError> {
    if open_items(tx, n).await? {
        return Ok(());
    }
    let kind = in_tx(tx, n).await?.kind;
    let (all_failed, nothing_found) = (kind.all_failed(), kind.nothing_found());
    let ended = sqlx::query(
        "UPDATE jobs SET ended_unix_ms = ?2,
             error_code = CASE WHEN state = 'cancelled' OR items_done > 0 THEN error_code
                 WHEN items_failed > 0 THEN ?3 ELSE ?5 END,
             error_message = CASE WHEN state = 'cancelled' OR items_done > 0 THEN error_message
                 WHEN items_failed > 0 THEN ?4 ELSE ?6 END,
             state = CASE WHEN state = 'cancelled' THEN 'cancelled'
                 WHEN items_done = 0 THEN 'failed' ELSE 'done' END
         WHERE n = ?1 AND ended_unix_ms = 0",
    )
    .bind(n)
    .bind(now_unix_ms())
    .bind(all_failed.code)
    .bind(all_failed.message)
    .bind(nothing_found.code)
    .bind(nothing_found.message)
    .execute(&mut **tx)
    .await?;
    if ended.rows_affected() > 0 {
        let job = in_tx(tx, n).await?;
        webhooks::tell_end(tx, &job).await?;
    }
    Ok(())
}

/// Cancels the queued items of job `n` if the job is cancelled; returns how many.
pub(super) async fn settle_cancelled(tx: &mut Transaction<'_, Sqlite>, n: i64) -> Result<u64, StoreError> {
    let cancelled = sqlx::query(
        "UPDATE job_items SET state = 'cancelled' WHERE job = ?1 AND state = 'queued'
             AND EXISTS (SELECT 1 FROM jobs WHERE n = ?1 AND state = 'cancelled')",
    )
    .bind(n)
    .execute(&mut **tx)
    .await?;
    if cancelled.rows_affected() > 0 {
        end_if_last(tx, n).await?;
    }
    Ok(cancelled.rows_affected())
}

pub(super) async fn finish(store: &SqliteStore, job: JobId, item: &JobItem) -> Result<JobRecord, StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let n = number(&mut tx, job).await?;
    let (code, message) = columns_of(item.error.as_ref());
    let changed = sqlx::query(
        "UPDATE job_items SET state = ?3, asset = ?4, clips = ?5, media_secs = ?6, error_code = ?7, error_message = ?8,
             attempts = ?9, not_before_unix_ms = ?10
         WHERE job = ?1 AND seq = ?2 AND state IN ('queued', 'running')",
    )
    .bind(n)
    .bind(item.seq)
    .bind(item.state.as_str())
    .bind(item.asset.map(|id| id.to_string()))
    .bind(i64::try_from(item.clips).unwrap_or(i64::MAX))
    .bind(item.media_secs)
    .bind(code)
    .bind(message)
    .bind(item.attempts)
    .bind(item.not_before_unix_ms)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if changed > 0 && !matches!(item.state, WorkState::Queued | WorkState::Running) {
        sqlx::query(
            "UPDATE jobs SET items_done = items_done + ?2, items_failed = items_failed + ?3, clips = clips + ?4,
                 media_secs = media_secs + ?5, items_skipped = items_skipped + ?6,
                 items_partial = items_partial + ?7 WHERE n = ?1",
        )
        .bind(n)
        .bind(i64::from(item.state == WorkState::Done))
        .bind(i64::from(item.state == WorkState::Failed))
        .bind(i64::try_from(item.clips).unwrap_or(i64::MAX))
        .bind(item.media_secs)
        .bind(i64::from(item.state == WorkState::Skipped))
        .bind(i64::from(item.state == WorkState::Done && item.error.is_some()))
        .execute(&mut *tx)
        .await?;
        end_if_last(&mut tx, n).await?;
    } else if changed > 0 {
        // Handed back to a job that was cancelled in the meantime: nobody may claim it again.
        settle_cancelled(&mut tx, n).await?;
    }
    let record = in_tx(&mut tx, n).await?;
    tx.commit().await?;
    Ok(record)
}

pub(super) async fn requeue_running(store: &SqliteStore) -> Result<u64, StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let jobs: Vec<i64> = sqlx::query_scalar("SELECT DISTINCT job FROM job_items WHERE state = 'running'")
        .fetch_all(&mut *tx)
        .await?;
    sqlx::query(
        "UPDATE job_items SET not_before_unix_ms = 0 WHERE state = 'queued' AND not_before_unix_ms > 0",
    )
    .execute(&mut *tx)
    .await?;
    let mut requeued = sqlx::query("UPDATE job_items SET state = 'queued' WHERE state = 'running'")
        .execute(&mut *tx)
        .await?
        .rows_affected();
    for n in jobs {
        requeued -= settle_cancelled(&mut tx, n).await?;
    }
    tx.commit().await?;
    Ok(requeued)
}
