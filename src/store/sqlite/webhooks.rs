//! Webhooks and the outbox.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use super::assets::unsigned;
use super::page::List;
use super::{SqliteStore, begin, damaged, id_list, jobs, now_unix_ms};
use crate::store::{
    Attempt, DeliveryRecord, DeliveryState, DueDelivery, JobRecord, NewItem, NewWebhook, StoreError,
    WebhookStore,
};
use crate::types::{DeliveryId, rfc3339_millis};

const PAGE: &str = "SELECT d.*, w.owner, w.url FROM deliveries AS d JOIN webhooks AS w ON w.n = d.webhook
     WHERE d.id < ?1 ORDER BY d.id DESC LIMIT ?2";
pub(super) const PAGE_OF_STATE: &str =
    "SELECT d.*, w.owner, w.url FROM deliveries AS d JOIN webhooks AS w ON w.n = d.webhook
     WHERE d.state = ?3 AND d.id < ?1 ORDER BY d.id DESC LIMIT ?2";

/// Notes where the end of a job, or the matches of a standing query, are to be told.
pub(super) async fn add(
    tx: &mut Transaction<'_, Sqlite>,
    owner: &str,
    webhook: &NewWebhook,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO webhooks (owner, url, host, secret) VALUES (?, ?, ?, ?)")
        .bind(owner)
        .bind(&webhook.url)
        .bind(&webhook.host)
        .bind(&webhook.secret)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub(super) async fn remove(tx: &mut Transaction<'_, Sqlite>, owner: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM webhooks WHERE owner = ?").bind(owner).execute(&mut **tx).await?;
    Ok(())
}

/// Puts what an owner's webhook is to be told into the outbox; nothing where it has none.
pub(super) async fn tell(
    tx: &mut Transaction<'_, Sqlite>,
    owner: &str,
    event: &str,
    body: &str,
) -> Result<(), StoreError> {
    let now = now_unix_ms();
    sqlx::query(
        "INSERT INTO deliveries (id, webhook, event, body, state, next_unix_ms, created_unix_ms)
         SELECT ?1, n, ?2, ?3, 'pending', ?4, ?4 FROM webhooks WHERE owner = ?5",
    )
    .bind(DeliveryId::generate().to_string())
    .bind(event)
    .bind(body)
    .bind(now)
    .bind(owner)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Puts the end of a job into the outbox.
pub(super) async fn tell_end(tx: &mut Transaction<'_, Sqlite>, job: &JobRecord) -> Result<(), StoreError> {
    let event = format!("job.{}", job.state.as_str());
    let stamp = |ms: i64| (ms > 0).then(|| rfc3339_millis(ms));
    let error = job.error.as_ref();
    let body = serde_json::json!({
        "type": event,
        "timestamp": rfc3339_millis(job.ended_unix_ms),
        "data": {
            "id": job.id,
            "type": job.kind,
            "state": job.state,
            "path": job.request["path"],
            "metadata": job.request["metadata"],
            "items_total": job.items_total,
            "items_done": job.items_done,
            "items_failed": job.items_failed,
            "items_skipped": job.items_skipped,
            "items_partial": job.items_partial,
            "clips": job.clips,
            "media_secs": job.media_secs,
            "error": error.map(|(code, message)| serde_json::json!({ "code": code, "message": message })),
            "created_at": rfc3339_millis(job.created_unix_ms),
            "started_at": stamp(job.started_unix_ms),
            "ended_at": stamp(job.ended_unix_ms),
        },
    });
    tell(tx, &job.id.to_string(), &event, &body.to_string()).await
}

fn id_of(row: &SqliteRow) -> Result<DeliveryId, StoreError> {
    let id: &str = row.try_get("id")?;
    id.parse().map_err(|_| damaged("delivery id", id))
}

fn attempts_of(row: &SqliteRow) -> Result<u32, StoreError> {
    Ok(u32::try_from(unsigned(row, "attempts")?).unwrap_or(u32::MAX))
}

fn due(row: &SqliteRow) -> Result<DueDelivery, StoreError> {
    let (url, host, secret) = (row.try_get("url")?, row.try_get("host")?, row.try_get("secret")?);
    Ok(DueDelivery {
        id: id_of(row)?,
        webhook: NewWebhook { url, host, secret },
        body: row.try_get("body")?,
        attempts: attempts_of(row)?,
    })
}

pub(super) fn record(row: &SqliteRow) -> Result<DeliveryRecord, StoreError> {
    let state: &str = row.try_get("state")?;
    let status: Option<i64> = row.try_get("status")?;
    Ok(DeliveryRecord {
        id: id_of(row)?,
        event: row.try_get("event")?,
        owner: row.try_get("owner")?,
        url: row.try_get("url")?,
        state: DeliveryState::from_name(state).ok_or_else(|| damaged("delivery state", state))?,
        attempts: attempts_of(row)?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        error: row.try_get("error")?,
        created_unix_ms: row.try_get("created_unix_ms")?,
        next_unix_ms: row.try_get("next_unix_ms")?,
        ended_unix_ms: row.try_get("ended_unix_ms")?,
    })
}

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn create_job_with_webhook(
        &self,
        kind: &str,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
        webhook: &NewWebhook,
    ) -> Result<(JobRecord, bool), StoreError> {
        jobs::create(self, kind, request, items, idempotency_key, Some(webhook)).await
    }

    async fn due_deliveries(
        &self,
        busy_hosts: &[String],
        under_way: &[DeliveryId],
        limit: u32,
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.id, w.url, w.host, w.secret, d.body, d.attempts
             FROM deliveries AS d JOIN webhooks AS w ON w.n = d.webhook
             WHERE d.state = 'pending' AND d.next_unix_ms <= ?1
                 AND w.host NOT IN (SELECT value FROM json_each(?2))
                 AND d.id NOT IN (SELECT value FROM json_each(?3))
             ORDER BY d.next_unix_ms, d.n LIMIT ?4",
        )
        .bind(now_unix_ms())
        .bind(serde_json::json!(busy_hosts).to_string())
        .bind(id_list(under_way, true))
        .bind(limit)
        .fetch_all(&self.readers())
        .await?;
        Ok(self.readable("deliveries", &rows, due))
    }

    async fn note_attempt(&self, id: DeliveryId, attempt: &Attempt) -> Result<(), StoreError> {
        let ended = if attempt.state == DeliveryState::Pending { 0 } else { now_unix_ms() };
        let mut writer = self.writer().await?;
        sqlx::query(
            "UPDATE deliveries SET state = ?2, attempts = attempts + 1, next_unix_ms = ?3, status = ?4,
                 error = ?5, ended_unix_ms = ?6 WHERE id = ?1",
        )
        .bind(id.to_string())
        .bind(attempt.state.as_str())
        .bind(attempt.next_unix_ms)
        .bind(attempt.status)
        .bind(&attempt.error)
        .bind(ended)
        .execute(&mut *writer)
        .await?;
        Ok(())
    }

    async fn deliveries(
        &self,
        state: Option<DeliveryState>,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        // Ids are time-ordered; `n` sorts after every one of them.
        let after = after.map_or_else(|| "n".to_owned(), |id| id.to_string());
        let readers = self.readers();
        let sql = match state {
            None => PAGE,
            Some(_) => PAGE_OF_STATE,
        };
        let list = List { table: "deliveries", cursor: "id", read: record };
        self.page(list, after, limit, |after: String, limit| {
            let rows = sqlx::query(sql).bind(after).bind(limit);
            match state {
                None => rows,
                Some(state) => rows.bind(state.as_str()),
            }
            .fetch_all(&readers)
        })
        .await
    }

    async fn retry_delivery(&self, id: DeliveryId) -> Result<DeliveryRecord, StoreError> {
        let mut writer = self.writer().await?;
        let mut tx = begin(&mut writer).await?;
        sqlx::query(
            "UPDATE deliveries SET state = 'pending', attempts = 0, next_unix_ms = ?2, ended_unix_ms = 0
             WHERE id = ?1",
        )
        .bind(id.to_string())
        .bind(now_unix_ms())
        .execute(&mut *tx)
        .await?;
        let row = sqlx::query(
            "SELECT d.*, w.owner, w.url FROM deliveries AS d JOIN webhooks AS w ON w.n = d.webhook WHERE d.id = ?",
        )
        .bind(id.to_string())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(StoreError::NotFound("delivery"))?;
        let record = record(&row)?;
        drop(row);
        tx.commit().await?;
        Ok(record)
    }

    async fn prune_deliveries(&self, ended_before_unix_ms: i64) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        let gone = sqlx::query("DELETE FROM deliveries WHERE state <> 'pending' AND ended_unix_ms < ?")
            .bind(ended_before_unix_ms)
            .execute(&mut *writer)
            .await?;
        Ok(gone.rows_affected())
    }
}
