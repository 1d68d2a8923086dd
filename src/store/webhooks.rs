//! Webhooks and the outbox of deliveries, as stored.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{JobRecord, NewItem, StoreError};
use crate::types::DeliveryId;

/// Where something is to be told.
#[derive(Clone)]
pub struct NewWebhook {
    /// Address.
    pub url: String,
    /// Host and port of it: what a bound on simultaneous deliveries counts by.
    pub host: String,
    /// Signs what is sent.
    pub secret: String,
}

/// Neither the secret nor the path, which may be one, gets into a log.
impl fmt::Debug for NewWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWebhook").field("host", &self.host).finish_non_exhaustive()
    }
}

/// State of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// To be sent, or sent again.
    Pending,
    /// The receiver took it.
    Delivered,
    /// Given up.
    Failed,
}

impl DeliveryState {
    const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The name used in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// A delivery whose time has come, with all it takes to send it.
#[derive(Clone)]
pub struct DueDelivery {
    /// Its id, the same at every attempt.
    pub id: DeliveryId,
    /// URL of the receiver.
    pub webhook: NewWebhook,
    /// What is sent.
    pub body: String,
    /// Number of attempts so far.
    pub attempts: u32,
}

impl fmt::Debug for DueDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DueDelivery")
            .field("id", &self.id)
            .field("webhook", &self.webhook)
            .finish_non_exhaustive()
    }
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// `Pending`: it is tried again.
    pub state: DeliveryState,
    /// Time of the next attempt.
    pub next_unix_ms: i64,
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// Why it did not take it.
    pub error: Option<String>,
}

/// A delivery for display.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Id.
    pub id: DeliveryId,
    /// What it tells: `job.done` and its like.
    pub event: String,
    /// Of which job or standing query.
    pub owner: String,
    /// URL of the receiver.
    pub url: String,
    /// State.
    pub state: DeliveryState,
    /// Number of attempts so far.
    pub attempts: u32,
    /// What the receiver answered last.
    pub status: Option<u16>,
    /// Why it did not take it.
    pub error: Option<String>,
    /// Unix milliseconds.
    pub created_unix_ms: i64,
    /// Next attempt, Unix milliseconds.
    pub next_unix_ms: i64,
    /// Unix milliseconds; 0 until it ended.
    pub ended_unix_ms: i64,
}

/// The outbox.
#[async_trait]
pub trait WebhookStore {
    /// As [`create_job`](super::Store::create_job), and a webhook reports its end; whether the job is new (else the
    /// webhook of the one made before stays).
    async fn create_job_with_webhook(
        &self,
        kind: &str,
        request: &serde_json::Value,
        items: &[NewItem],
        idempotency_key: Option<&str>,
        webhook: &NewWebhook,
    ) -> Result<(JobRecord, bool), StoreError>;
    /// Pending deliveries that are due, those that waited longest first: none to these hosts, none of
    /// these.
    async fn due_deliveries(
        &self,
        busy_hosts: &[String],
        under_way: &[DeliveryId],
        limit: u32,
    ) -> Result<Vec<DueDelivery>, StoreError>;
    /// Notes how an attempt ended. A delivery that is gone changes nothing.
    async fn note_attempt(&self, id: DeliveryId, attempt: &Attempt) -> Result<(), StoreError>;
    /// Deliveries newest first; `after` = last id of the previous page.
    async fn deliveries(
        &self,
        state: Option<DeliveryState>,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError>;
    /// Makes a delivery pending again, whatever its state, with all its attempts before it.
    async fn retry_delivery(&self, id: DeliveryId) -> Result<DeliveryRecord, StoreError>;
    /// Drops what ended before a time; how many.
    async fn prune_deliveries(&self, ended_before_unix_ms: i64) -> Result<u64, StoreError>;
}
