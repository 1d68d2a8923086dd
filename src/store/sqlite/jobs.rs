//! The durable job queue in SQLite.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};

use super::page::List;
use super::rows::{choice, unsigned};
use super::{SqliteStore, begin, damaged, error_columns, from_json, now_unix_ms, to_json, webhooks};
use crate::store::ended::{ALL_FAILED, NO_MEDIA};
use crate::store::{JobItem, JobRecord, NewItem, NewWebhook, StoreError, WorkState};
use crate::types::JobId;

const ITEMS_PER_INSERT: usize = 200;
const READ_AT_ONCE: u32 = 4096;

// Lists of one state and of all states have separate statements: `? IS NULL OR state = ?` could not use an
// index.
pub(super) const PAGE: &str = "SELECT * FROM jobs WHERE n < ?1 ORDER BY n DESC LIMIT ?2";
pub(super) const PAGE_OF_STATE: &str =
    "SELECT * FROM jobs WHERE state = ?3 AND n < ?1 ORDER BY n DESC LIMIT ?2";
pub(super) const COUNTS: &str = "SELECT state, COUNT(*) FROM jobs GROUP BY state";
const ITEMS: &str = "SELECT * FROM job_items WHERE job = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
/// INDEXED BY: otherwise SQLite walks over the whole job by its key.
pub(super) const ITEMS_OF_STATE: &str = "SELECT * FROM job_items INDEXED BY job_items_state
     WHERE job = ?1 AND state = ?4 AND seq > ?2 ORDER BY seq LIMIT ?3";
/// Claims the next item. CROSS JOIN and INDEXED BY make SQLite keep this order, active jobs first.
pub(super) const CLAIM: &str = "UPDATE job_items SET state = 'running'
     WHERE (job, seq) = (
         SELECT i.job, i.seq FROM jobs AS j INDEXED BY jobs_live
         CROSS JOIN job_items AS i INDEXED BY job_items_queued
         ON i.job = j.n AND i.state = 'queued' AND i.not_before_unix_ms <= ?
         WHERE j.state IN ('queued', 'running') ORDER BY j.n, i.seq LIMIT 1)
     RETURNING *";

pub(super) fn job_record(row: &SqliteRow) -> Result<JobRecord, StoreError> {
    let id: &str = row.try_get("id")?;
    Ok(JobRecord {
        id: id.parse().map_err(|_| damaged("job id", id))?,
        kind: row.try_get("kind")?,
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

fn item_record(row: &SqliteRow) -> Result<JobItem, StoreError> {
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

fn state(row: &SqliteRow) -> Result<WorkState, StoreError> {
    let name: &str = row.try_get("state")?;
    WorkState::from_name(name).ok_or_else(|| damaged("work state", name))
}

async fn in_tx(tx: &mut Transaction<'_, Sqlite>, n: i64) -> Result<JobRecord, StoreError> {
    job_record(&sqlx::query("SELECT * FROM jobs WHERE n = ?").bind(n).fetch_one(&mut **tx).await?)
}

/// Row number of a job.
async fn number(tx: &mut Transaction<'_, Sqlite>, id: JobId) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT n FROM jobs WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::NotFound("job"))
}

pub async fn unended(store: &SqliteStore) -> Result<Vec<JobId>, StoreError> {
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM jobs WHERE state IN ('queued', 'running', 'paused') ORDER BY n")
            .fetch_all(&store.readers())
            .await?;
    ids.iter().map(|id| id.parse().map_err(|_| damaged("job id", id))).collect()
}

pub async fn create(
    store: &SqliteStore,
    kind: &str,
    request: &serde_json::Value,
    items: &[NewItem],
    idempotency_key: Option<&str>,
    webhook: Option<&NewWebhook>,
) -> Result<(JobRecord, bool), StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    if let Some(key) = idempotency_key {
        let known: Option<i64> = sqlx::query_scalar("SELECT n FROM jobs WHERE idempotency_key = ?")
            .bind(key)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(n) = known {
            return Ok((in_tx(&mut tx, n).await?, false));
        }
    }
    let now = now_unix_ms();
    let skipped = items.iter().filter(|item| item.skipped.is_some()).count();
    let nothing = skipped == items.len();
    let (state, ended) = if nothing { (WorkState::Failed, now) } else { (WorkState::Queued, 0) };
    let (code, message) = nothing.then_some(NO_MEDIA).unzip();
    let n: i64 = sqlx::query_scalar(
        "INSERT INTO jobs (id, kind, request, state, items_total, items_skipped, error_code, error_message,
             created_unix_ms, ended_unix_ms, idempotency_key)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING n",
    )
    .bind(JobId::generate().to_string())
    .bind(kind)
    .bind(to_json(request))
    .bind(state.as_str())
    .bind(i64::try_from(items.len()).unwrap_or(i64::MAX))
    .bind(i64::try_from(skipped).unwrap_or(i64::MAX))
    .bind(code)
    .bind(message)
    .bind(now)
    .bind(ended)
    .bind(idempotency_key)
    .fetch_one(&mut *tx)
    .await?;
    let numbered: Vec<_> = (0_i64..).zip(items).collect();
    for part in numbered.chunks(ITEMS_PER_INSERT) {
        let mut insert = QueryBuilder::new(
            "INSERT INTO job_items (job, seq, path, name, metadata, state, error_code, error_message, video_track,
                 audio_track) ",
        );
        insert.push_values(part, |mut values, (seq, item)| {
            let state = if item.skipped.is_some() { WorkState::Skipped } else { WorkState::Queued };
            let (code, message) = item.skipped.as_ref().map(|(c, m)| (c.as_str(), m.as_str())).unzip();
            values
                .push_bind(n)
                .push_bind(*seq)
                .push_bind(&item.path)
                .push_bind(&item.name)
                .push_bind(to_json(&item.metadata))
                .push_bind(state.as_str())
                .push_bind(code)
                .push_bind(message)
                .push_bind(item.choice.video)
                .push_bind(item.choice.audio);
        });
        insert.build().execute(&mut *tx).await?;
    }
    let record = in_tx(&mut tx, n).await?;
    if let Some(webhook) = webhook {
        webhooks::add(&mut tx, &record.id.to_string(), webhook).await?;
    }
    if record.state.has_ended() {
        webhooks::tell_end(&mut tx, &record).await?;
    }
    tx.commit().await?;
    Ok((record, true))
}

pub async fn get(store: &SqliteStore, id: JobId) -> Result<JobRecord, StoreError> {
    let row = sqlx::query("SELECT * FROM jobs WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(&store.readers())
        .await?
        .ok_or(StoreError::NotFound("job"))?;
    job_record(&row)
}

pub async fn list(
    store: &SqliteStore,
    state: Option<WorkState>,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<JobRecord>, StoreError> {
    let readers = store.readers();
    let after = match after {
        None => i64::MAX,
        // Ids are time-ordered, so the position of a deleted job is still known.
        Some(id) => {
            sqlx::query_scalar(
                "SELECT COALESCE((SELECT n FROM jobs WHERE id = ?1),
                    (SELECT n + 1 FROM jobs WHERE id < ?1 ORDER BY id DESC LIMIT 1), 0)",
            )
            .bind(id.to_string())
            .fetch_one(&readers)
            .await?
        }
    };
    let sql = match state {
        None => PAGE,
        Some(_) => PAGE_OF_STATE,
    };
    store
        .page(List { table: "jobs", cursor: "n", read: job_record }, after, limit, |after: i64, limit| {
            let rows = sqlx::query(sql).bind(after).bind(limit);
            match state {
                None => rows,
                Some(state) => rows.bind(state.as_str()),
            }
            .fetch_all(&readers)
        })
        .await
}

pub async fn counts(store: &SqliteStore) -> Result<BTreeMap<WorkState, u64>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(COUNTS).fetch_all(&store.readers()).await?;
    let known = |(name, count): (String, i64)| {
        Some((WorkState::from_name(&name)?, u64::try_from(count).unwrap_or(0)))
    };
    // Reading the job reports a damaged state.
    Ok(rows.into_iter().filter_map(known).collect())
}

pub async fn items(
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
    let sql = match state {
        None => ITEMS,
        Some(_) => ITEMS_OF_STATE,
    };
    let list = List { table: "job_items", cursor: "seq", read: item_record };
    store
        .page(list, after_seq, limit, |after: i64, limit| {
            let rows = sqlx::query(sql).bind(n).bind(after).bind(limit);
            match state {
                None => rows,
                Some(state) => rows.bind(state.as_str()),
            }
            .fetch_all(&readers)
        })
        .await
}

/// Reads the items of all jobs, so that damaged ones are noted.
pub(super) async fn read_all_items(store: &SqliteStore) -> Result<(), StoreError> {
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM jobs ORDER BY n").fetch_all(&store.readers()).await?;
    for id in ids.iter().filter_map(|id| id.parse::<JobId>().ok()) {
        let mut after = -1;
        while let Some(last) = items(store, id, None, after, READ_AT_ONCE).await?.last() {
            after = last.seq;
        }
    }
    Ok(())
}

pub async fn claim(store: &SqliteStore) -> Result<Option<(JobId, JobItem)>, StoreError> {
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
             attempts = 0, not_before_unix_ms = 0, error_code = 'damaged_row', error_message = ?3
         WHERE job = ?1 AND seq = ?2",
    )
    .bind(job)
    .bind(seq)
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

pub async fn finish_item(store: &SqliteStore, job: JobId, item: &JobItem) -> Result<JobRecord, StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let n = number(&mut tx, job).await?;
    let (code, message) = item.error.as_ref().map(|(c, m)| (c.as_str(), m.as_str())).unzip();
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
    .bind(ALL_FAILED.0)
    .bind(ALL_FAILED.1)
    .bind(NO_MEDIA.0)
    .bind(NO_MEDIA.1)
    .execute(&mut **tx)
    .await?;
    if ended.rows_affected() > 0 {
        let job = in_tx(tx, n).await?;
        webhooks::tell_end(tx, &job).await?;
    }
    Ok(())
}

/// Cancels the queued items of job `n` if the job is cancelled; returns how many.
async fn settle_cancelled(tx: &mut Transaction<'_, Sqlite>, n: i64) -> Result<u64, StoreError> {
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

pub async fn cancel(store: &SqliteStore, id: JobId) -> Result<JobRecord, StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let n = number(&mut tx, id).await?;
    let open = sqlx::query(
        "UPDATE jobs SET state = 'cancelled' WHERE n = ? AND state IN ('queued', 'running', 'paused')",
    )
    .bind(n)
    .execute(&mut *tx)
    .await?;
    if open.rows_affected() > 0 {
        settle_cancelled(&mut tx, n).await?;
    }
    let record = in_tx(&mut tx, n).await?;
    tx.commit().await?;
    Ok(record)
}

pub async fn pause(store: &SqliteStore, id: JobId, paused: bool) -> Result<JobRecord, StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let n = number(&mut tx, id).await?;
    let change = if paused {
        "UPDATE jobs SET state = 'paused' WHERE n = ? AND state IN ('queued', 'running')"
    } else {
        "UPDATE jobs SET state = CASE started_unix_ms WHEN 0 THEN 'queued' ELSE 'running' END
         WHERE n = ? AND state = 'paused'"
    };
    sqlx::query(change).bind(n).execute(&mut *tx).await?;
    let record = in_tx(&mut tx, n).await?;
    tx.commit().await?;
    Ok(record)
}

pub async fn retry_failed(store: &SqliteStore, id: JobId) -> Result<(JobRecord, u64), StoreError> {
    let mut writer = store.writer().await?;
    let mut tx = begin(&mut writer).await?;
    let n = number(&mut tx, id).await?;
    let failed = sqlx::query(
        "UPDATE job_items SET state = 'queued', asset = NULL, error_code = NULL, error_message = NULL,
             attempts = 0, not_before_unix_ms = 0
         WHERE job = ?1 AND state = 'failed'
             AND EXISTS (SELECT 1 FROM jobs WHERE n = ?1 AND state <> 'cancelled')",
    )
    .bind(n)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if failed > 0 {
        sqlx::query(
            "UPDATE jobs SET items_failed = items_failed - ?2, error_code = NULL, error_message = NULL,
                 ended_unix_ms = 0, state = CASE WHEN state IN ('done', 'failed') THEN 'running' ELSE state END
             WHERE n = ?1",
        )
        .bind(n)
        .bind(i64::try_from(failed).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await?;
    }
    let record = in_tx(&mut tx, n).await?;
    tx.commit().await?;
    Ok((record, failed))
}

pub async fn requeue_running(store: &SqliteStore) -> Result<u64, StoreError> {
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
