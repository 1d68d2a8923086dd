//! Webhooks in SQLite, and adding to their outbox.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use super::page::ByState;
use super::rows::unsigned;
use super::{damaged, now_unix_ms};
use crate::store::{
    DeliveryRecord, DeliveryState, DueDelivery, JobRecord, NewWebhook, StoreError, WebhookBody, ended,
};
use crate::types::DeliveryId;

pub(super) const PAGE: ByState = ByState {
    all: "SELECT d.*, w.owner, w.url FROM deliveries AS d JOIN webhooks AS w ON w.n = d.webhook
         WHERE d.id < ?1 ORDER BY d.id DESC LIMIT ?2",
    of_state: "SELECT d.*, w.owner, w.url FROM deliveries AS d JOIN webhooks AS w ON w.n = d.webhook
         WHERE d.state = ?3 AND d.id < ?1 ORDER BY d.id DESC LIMIT ?2",
};

/// Adds the webhook for the end of a job, or for the matches of a standing query.
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

/// Adds a delivery to the outbox of an owner's webhook; nothing if the owner has none.
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

/// Adds the end of a job to the outbox.
pub(super) async fn tell_end(tx: &mut Transaction<'_, Sqlite>, job: &JobRecord) -> Result<(), StoreError> {
    let WebhookBody { event, body } = ended(job);
    tell(tx, &job.id.to_string(), &event, &body).await
}

fn id_of(row: &SqliteRow) -> Result<DeliveryId, StoreError> {
    let id: &str = row.try_get("id")?;
    id.parse().map_err(|_| damaged("delivery id", id))
}

fn attempts_of(row: &SqliteRow) -> Result<u32, StoreError> {
    Ok(u32::try_from(unsigned(row, "attempts")?).unwrap_or(u32::MAX))
}

pub(super) fn due(row: &SqliteRow) -> Result<DueDelivery, StoreError> {
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
