//! Webhooks and the outbox of deliveries, as stored.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::types::DeliveryId;

/// A webhook to store.
#[derive(Clone)]
pub struct NewWebhook {
    /// URL of the receiver.
    pub url: String,
    /// Host and port of the URL; concurrent deliveries are limited per host.
    pub host: String,
    /// Secret that signs deliveries.
    pub secret: String,
}

/// Keeps the secret, and the path, which may be one, out of logs.
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
    /// Given up after the last attempt, or refused with 410.
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

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// A due delivery, with everything needed to send it.
#[derive(Clone)]
pub struct DueDelivery {
    /// Id of the delivery, the same for every attempt.
    pub id: DeliveryId,
    /// The webhook of the receiver.
    pub webhook: NewWebhook,
    /// Body to send.
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

/// The outcome of an attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// State of the delivery from now on; `Pending`: it is retried.
    pub state: DeliveryState,
    /// Time of the next attempt, in Unix milliseconds.
    pub next_unix_ms: i64,
    /// Status that the receiver answered, if it did.
    pub status: Option<u16>,
    /// Why the attempt failed.
    pub error: Option<String>,
}

/// A delivery for display.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Id of the delivery.
    pub id: DeliveryId,
    /// Event that it reports, such as `job.done`.
    pub event: String,
    /// Id of the job or standing query.
    pub owner: String,
    /// URL of the receiver.
    pub url: String,
    /// State of the delivery.
    pub state: DeliveryState,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Status that the receiver last answered, if it did.
    pub status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was created, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// Time of the next attempt, in Unix milliseconds.
    pub next_unix_ms: i64,
    /// When it ended, in Unix milliseconds; 0 until then.
    pub ended_unix_ms: i64,
}

/// Webhook deliveries to be sent.
#[async_trait]
pub trait WebhookStore {
    /// Due pending deliveries, the longest due first; leaves out those to `busy_hosts` and those `under_way`.
    async fn due_deliveries(
        &self,
        busy_hosts: &[String],
        under_way: &[DeliveryId],
        limit: u32,
    ) -> Result<Vec<DueDelivery>, StoreError>;
    /// Records the outcome of an attempt. A deleted delivery changes nothing.
    async fn note_attempt(&self, id: DeliveryId, attempt: &Attempt) -> Result<(), StoreError>;
    /// Deliveries, newest first; `after` is the last id of the previous page.
    async fn deliveries(
        &self,
        state: Option<DeliveryState>,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError>;
    /// Makes a delivery pending again from any state, with its full number of attempts.
    async fn retry_delivery(&self, id: DeliveryId) -> Result<DeliveryRecord, StoreError>;
    /// Deletes deliveries that ended before a time; returns how many.
    async fn prune_deliveries(&self, ended_before_unix_ms: i64) -> Result<u64, StoreError>;
}
