//! The durable job queue in SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::items::{self, settle_cancelled};
use super::job_records::{in_tx, job_record, number};
use super::page::{ByState, List};
use super::rows::columns_of;
use super::{SqliteStore, begin, damaged, now_unix_ms, to_json, webhooks};
use crate::store::{JobItem, JobKind, JobRecord, JobStore, NewItem, NewWebhook, StoreError, WorkState};
use crate::types::JobId;

const ITEMS_PER_INSERT: usize = 200;

pub(super) const PAGE: ByState = ByState {
    all: "SELECT * FROM jobs WHERE n < ?1 ORDER BY n DESC LIMIT ?2",
    of_state: "SELECT * FROM jobs WHERE state = ?3 AND n < ?1 ORDER BY n DESC LIMIT ?2",
};
pub(super) const COUNTS: &str = "SELECT state, COUNT(*) FROM jobs GROUP BY state";

pub async fn create(
    store: &SqliteStore,
    kind: JobKind,
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
    let n = insert_job(&mut tx, kind, request, items, idempotency_key).await?;
    insert_items(&mut tx, n, items).await?;
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

/// Adds the row of a new job, which has ended if it has nothing to do; returns its number.
async fn insert_job(
    tx: &mut Transaction<'_, Sqlite>,
    kind: JobKind,
    request: &serde_json::Value,
    items: &[NewItem],
    idempotency_key: Option<&str>,
) -> Result<i64, StoreError> {
    let now = now_unix_ms();
    let skipped = items.iter().filter(|item| item.skipped.is_some()).count();
    let nothing = skipped == items.len();
    let (state, ended) = if nothing { (WorkState::Failed, now) } else { (WorkState::Queued, 0) };
    let (code, message) = nothing.then(|| (kind.nothing_found().code, kind.nothing_found().message)).unzip();
    let n = sqlx::query_scalar(
        "INSERT INTO jobs (id, kind, request, state, items_total, items_skipped, error_code, error_message,
             created_unix_ms, ended_unix_ms, idempotency_key)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING n",
    )
    .bind(JobId::generate().to_string())
    .bind(kind.as_str())
    .bind(to_json(request))
    .bind(state.as_str())
    .bind(i64::try_from(items.len()).unwrap_or(i64::MAX))
    .bind(i64::try_from(skipped).unwrap_or(i64::MAX))
    .bind(code)
    .bind(message)
    .bind(now)
    .bind(ended)
    .bind(idempotency_key)
    .fetch_one(&mut **tx)
    .await?;
    Ok(n)
}

async fn insert_items(tx: &mut Transaction<'_, Sqlite>, n: i64, items: &[NewItem]) -> Result<(), StoreError> {
    let numbered: Vec<_> = (0_i64..).zip(items).collect();
    for part in numbered.chunks(ITEMS_PER_INSERT) {
        let mut insert = QueryBuilder::new(
            "INSERT INTO job_items (job, seq, path, name, metadata, state, error_code, error_message, video_track,
                 audio_track) ",
        );
        insert.push_values(part, |mut values, (seq, item)| {
            let state = if item.skipped.is_some() { WorkState::Skipped } else { WorkState::Queued };
            let (code, message) = columns_of(item.skipped.as_ref());
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
        insert.build().execute(&mut **tx).await?;
    }
    Ok(())
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn create_job(
        &self,
        kind: JobKind,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
    ) -> Result<JobRecord, StoreError> {
        Ok(create(self, kind, request, items, idempotency_key, None).await?.0)
    }
    async fn create_job_with_webhook(
        &self,
        kind: JobKind,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
        webhook: &NewWebhook,
    ) -> Result<(JobRecord, bool), StoreError> {
        create(self, kind, request, items, idempotency_key, Some(webhook)).await
    }
    async fn job(&self, id: JobId) -> Result<JobRecord, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers())
            .await?
            .ok_or(StoreError::NotFound("job"))?;
        job_record(&row)
    }
    async fn list_jobs(
        &self,
        state: Option<WorkState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRecord>, StoreError> {
        let readers = self.readers();
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
        let list = List { table: "jobs", cursor: "n", read: job_record };
        self.page(list, after, limit, |after: i64, limit| {
            PAGE.query(state.map(WorkState::as_str), |rows| rows.bind(after).bind(limit)).fetch_all(&readers)
        })
        .await
    }
    async fn job_counts(&self) -> Result<BTreeMap<WorkState, u64>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(COUNTS).fetch_all(&self.readers()).await?;
        let known = |(name, count): (String, i64)| {
            Some((WorkState::from_name(&name)?, u64::try_from(count).unwrap_or(0)))
        };
        // Reading the job reports a damaged state.
        Ok(rows.into_iter().filter_map(known).collect())
    }
    async fn job_items(
        &self,
        id: JobId,
        state: Option<WorkState>,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JobItem>, StoreError> {
        items::list(self, id, state, after_seq, limit).await
    }
    async fn claim_item(&self) -> Result<Option<(JobId, JobItem)>, StoreError> {
        items::claim(self).await
    }
    async fn finish_item(&self, job: JobId, item: &JobItem) -> Result<JobRecord, StoreError> {
        items::finish(self, job, item).await
    }
    async fn unended_jobs(&self) -> Result<Vec<JobId>, StoreError> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM jobs WHERE state IN ('queued', 'running', 'paused') ORDER BY n",
        )
        .fetch_all(&self.readers())
        .await?;
        ids.iter().map(|id| id.parse().map_err(|_| damaged("job id", id))).collect()
    }
    async fn cancel_job(&self, id: JobId) -> Result<JobRecord, StoreError> {
        let mut writer = self.writer().await?;
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
    async fn pause_job(&self, id: JobId, paused: bool) -> Result<JobRecord, StoreError> {
        let mut writer = self.writer().await?;
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
    async fn retry_failed(&self, id: JobId) -> Result<(JobRecord, u64), StoreError> {
        let mut writer = self.writer().await?;
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
    async fn requeue_running(&self) -> Result<u64, StoreError> {
        items::requeue_running(self).await
    }
}
