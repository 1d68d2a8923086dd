//! Works through the outbox: a few deliveries at a time, fewer to one host, each retried for about a day.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Deliver, Webhooks, headers};
use crate::files::Disk;
use crate::store::{Attempt, DeliveryState, DueDelivery, Store, StoreError};
use crate::types::{DeliveryId, now_unix_ms};

/// Maximum number of concurrent deliveries, in total and to one host.
const AT_ONCE: usize = 16;
const AT_ONCE_TO_A_HOST: usize = 2;
/// How often to check for webhooks that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time limit for the receiver's answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Waits after the first, second and later failed attempts, in seconds; after the last one, the delivery has
/// failed. About a day in all.
const WAITS_SECS: [u64; 11] = [1, 5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 28_800];
/// Each wait varies randomly by up to this share, so that deliveries that failed together are not retried
/// together.
const JITTER: f64 = 0.1;
/// How long deliveries stay listed, and how often to remove old ones.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// Longest stored error message, in characters.
const MAX_ERROR_CHARS: usize = 500;

/// Running deliveries and their hosts, by task.
type UnderWay = HashMap<tokio::task::Id, (DeliveryId, String)>;

/// Sends the webhooks of one store.
#[derive(Clone)]
pub struct Sender {
    /// The webhooks' settings.
    pub webhooks: Arc<Webhooks>,
    /// The store with the outbox.
    pub store: Arc<dyn Store>,
    /// The disk, on which the outcomes are noted.
    pub disk: Arc<Disk>,
    /// Cancelled to stop the sender.
    pub stop: CancellationToken,
}

impl Sender {
    /// Sends webhooks until stopped. Deliveries running at shutdown are sent again at the next start.
    pub async fn run(self) {
        let Some(door) = self.webhooks.door.clone() else { return };
        let mut sending = JoinSet::new();
        let mut under_way: UnderWay = HashMap::new();
        let mut pruned: Option<Instant> = None;
        while self.disk.writable(&self.stop).await {
            self.webhooks.looked_unix_ms.store(now_unix_ms(), Ordering::Relaxed);
            if pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
                pruned = Some(Instant::now());
                prune(self.store.as_ref()).await;
            }
            match due(self.store.as_ref(), &under_way).await {
                Ok(due) => {
                    for delivery in due {
                        let what = (delivery.id, delivery.webhook.host.clone());
                        let (door, sender) = (Arc::clone(&door), self.clone());
                        let task = sending.spawn(async move { sender.send(door.as_ref(), delivery).await });
                        under_way.insert(task.id(), what);
                    }
                }
                Err(error) => tracing::error!(%error, "could not read the webhooks that are due"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Some(ended) = sending.join_next_with_id() => {
                    under_way.remove(&ended.map_or_else(|error| error.id(), |(task, ())| task));
                }
            }
        }
    }

    async fn send(&self, door: &dyn Deliver, delivery: DueDelivery) {
        let timestamp_secs = now_unix_ms() / 1000;
        let webhook = &delivery.webhook;
        let answer = match headers(&webhook.secret, &delivery.id.to_string(), timestamp_secs, &delivery.body)
        {
            Ok(headers) => {
                door.post(&webhook.url, headers, Bytes::from(delivery.body.clone()), TIMEOUT).await
            }
            Err(error) => Err(error.to_string()),
        };
        let attempt = attempt(delivery.attempts, answer, now_unix_ms());
        let outcome = match attempt.state {
            DeliveryState::Delivered => "delivered",
            DeliveryState::Pending => "put_off",
            DeliveryState::Failed => "failed",
        };
        metrics::counter!("triptych_webhook_deliveries_total", "outcome" => outcome).increment(1);
        if attempt.state == DeliveryState::Failed {
            let (host, error) = (webhook.host.as_str(), attempt.error.as_deref().unwrap_or_default());
            tracing::warn!(delivery = %delivery.id, host, error, "gave up on a webhook");
        }
        // It counts as running until then: without the record it would be sent again.
        let note = || self.store.note_attempt(delivery.id, &attempt);
        if let Err(error) = self.disk.once_there_is_room(&self.stop, note).await {
            tracing::error!(delivery = %delivery.id, %error, "could not store the outcome of a webhook");
        }
    }
}

/// Deliveries that are due and may be sent now.
async fn due(store: &dyn Store, under_way: &UnderWay) -> Result<Vec<DueDelivery>, StoreError> {
    let mut to_host: HashMap<String, usize> = HashMap::new();
    under_way.values().for_each(|(_, host)| *to_host.entry(host.clone()).or_default() += 1);
    let mut ids: Vec<DeliveryId> = under_way.values().map(|(id, _)| *id).collect();
    let mut begun = Vec::new();
    while ids.len() < AT_ONCE {
        let busy: Vec<String> = to_host
            .iter()
            .filter(|(_, count)| **count >= AT_ONCE_TO_A_HOST)
            .map(|(host, _)| host.clone())
            .collect();
        let found =
            store.due_deliveries(&busy, &ids, u32::try_from(AT_ONCE - ids.len()).unwrap_or(1)).await?;
        if found.is_empty() {
            break;
        }
        for delivery in found {
            let count = to_host.entry(delivery.webhook.host.clone()).or_default();
            if *count < AT_ONCE_TO_A_HOST {
                *count += 1;
                ids.push(delivery.id);
                begun.push(delivery);
            }
        }
    }
    Ok(begun)
}

/// The outcome of an answer, after `before` failed attempts.
fn attempt(before: u32, answer: Result<u16, String>, now: i64) -> Attempt {
    let (status, error) = match answer {
        Ok(status @ 200..=299) => {
            let state = DeliveryState::Delivered;
            return Attempt { state, next_unix_ms: now, status: Some(status), error: None };
        }
        Ok(status) => (Some(status), format!("the receiver answered with status {status}")),
        Err(why) => (None, why.chars().take(MAX_ERROR_CHARS).collect()),
    };
    // 410 Gone means: no further deliveries.
    let wait = if status == Some(410) { None } else { WAITS_SECS.get(before as usize) };
    let jitter = rand::rng().random_range(1.0 - JITTER..1.0 + JITTER);
    let wait_ms = wait.map(|secs| (*secs as f64 * 1e3 * jitter) as i64);
    Attempt {
        state: if wait_ms.is_some() { DeliveryState::Pending } else { DeliveryState::Failed },
        next_unix_ms: now + wait_ms.unwrap_or(0),
        status,
        error: Some(error),
    }
}

async fn prune(store: &dyn Store) {
    let kept_ms = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    match store.prune_deliveries(now_unix_ms() - kept_ms).await {
        // The disk is full; the next run in an hour is early enough.
        Ok(_) | Err(StoreError::StorageFull(_)) => {}
        Err(error) => tracing::error!(%error, "could not delete old webhook deliveries"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_for_a_day() {
        let mut waited_ms = 0;
        for before in 0..WAITS_SECS.len() as u32 {
            let tried = attempt(before, Ok(500), 1000);
            assert_eq!((tried.state, tried.status), (DeliveryState::Pending, Some(500)));
            let secs = WAITS_SECS[before as usize] as f64;
            let wait_ms = tried.next_unix_ms - 1000;
            assert!((wait_ms as f64 - secs * 1e3).abs() <= secs * 1e2 + 1.0, "{before}: {wait_ms}");
            waited_ms += wait_ms;
        }
        assert!((75_000_000..100_000_000).contains(&waited_ms), "{waited_ms}");
        let last = attempt(WAITS_SECS.len() as u32, Err("no connection".into()), 1000);
        assert_eq!((last.state, last.error.as_deref()), (DeliveryState::Failed, Some("no connection")));
        assert_eq!(attempt(0, Ok(410), 0).state, DeliveryState::Failed);
        assert_eq!(attempt(3, Ok(204), 0).state, DeliveryState::Delivered);
        assert_eq!(attempt(0, Ok(302), 0).state, DeliveryState::Pending);
    }
}
