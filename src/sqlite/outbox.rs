//! The outbox for the sender of webhooks: due deliveries and their outcomes.

use async_trait::async_trait;

use super::page::List;
use super::webhooks::{PAGE, due, record};
use super::{SqliteStore, begin, id_list, now_unix_ms};
use crate::store::{Attempt, DeliveryRecord, DeliveryState, DueDelivery, StoreError, WebhookStore};
use crate::types::DeliveryId;

#[async_trait]
impl WebhookStore for SqliteStore {
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
        // Ids are time-ordered; `n` sorts after all of them.
        let after = after.map_or_else(|| "n".to_owned(), |id| id.to_string());
        let readers = self.readers();
        let list = List { table: "deliveries", cursor: "id", read: record };
        self.page(list, after, limit, |after: String, limit| {
            PAGE.query(state.map(DeliveryState::as_str), |rows| rows.bind(after).bind(limit))
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
