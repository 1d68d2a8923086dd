//! Background work: a bounded queue of accepted uploads and the durable jobs, processed by a fixed number of
//! workers, each decoding one file at a time.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::active::Claim;
use super::{Ingest, kinds, metrics};
use crate::collection::LibraryError;
use crate::model::Priority;
use crate::store::{AssetRecord, JobItem, StoreError, WorkError, WorkState};
use crate::types::{AssetId, JobId, now_unix_ms};

/// Capacity of the queue of uploads. Queued uploads are durable already, so the bound protects the disk and
/// limits the wait, not memory.
const QUEUE_CAPACITY: usize = 1024;

/// How often to try an item if the fault is ours, not the file's.
const MAX_ATTEMPTS: u32 = 4;
/// Wait before the second try; each later wait is four times as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Wait a little more, so that the item is due by the store's clock too.
const CLOCK_SLACK: Duration = Duration::from_millis(20);
/// Wait after the store failed to return the next item.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// How often to try again to store an outcome; each wait is twice as long.
const STORE_TRIES: u32 = 4;
const STORE_FIRST_WAIT: Duration = Duration::from_millis(100);

/// The queue, and the running items.
#[derive(Debug, Default)]
pub(crate) struct Work {
    uploads: Mutex<VecDeque<(Claim, AssetRecord)>>,
    running: Mutex<HashMap<JobId, Vec<(i64, CancellationToken)>>>,
    pub(crate) wake: Notify,
}

impl Work {
    fn queue(&self) -> MutexGuard<'_, VecDeque<(Claim, AssetRecord)>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Vec<(i64, CancellationToken)>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue().len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.queued() < QUEUE_CAPACITY
    }

    /// Queues accepted bytes. The caller checked for room before accepting them; exceeding the bound slightly
    /// in a race is better than dropping accepted work.
    pub(crate) fn push(&self, claim: Claim, record: AssetRecord) {
        self.queue().push_back((claim, record));
        self.wake.notify_one();
    }

    fn pop(&self) -> Option<(Claim, AssetRecord)> {
        self.queue().pop_front()
    }

    /// Takes one asset out of the queue; `None` if it is not there.
    pub(crate) fn take(&self, id: AssetId) -> Option<(Claim, AssetRecord)> {
        let mut queue = self.queue();
        let at = queue.iter().position(|(claim, _)| claim.active.id == id)?;
        queue.remove(at)
    }

    /// Drops everything queued; the store still has it as unfinished.
    pub(crate) fn clear(&self) {
        self.queue().clear();
    }

    fn begin(&self, job: JobId, seq: i64, stop: &CancellationToken) -> CancellationToken {
        let token = stop.child_token();
        self.running().entry(job).or_default().push((seq, token.clone()));
        token
    }

    fn end(&self, job: JobId, seq: i64) {
        let mut running = self.running();
        if let Some(items) = running.get_mut(&job) {
            items.retain(|(other, _)| *other != seq);
            if items.is_empty() {
                running.remove(&job);
            }
        }
    }

    /// Cancels the running items of a job; returns whether there were any.
    pub(crate) fn cancel(&self, job: JobId) -> bool {
        let running = self.running();
        let items = running.get(&job);
        items.into_iter().flatten().for_each(|(_, token)| token.cancel());
        items.is_some()
    }
}

/// Runs one worker: uploads first, as users wait for them, then items of jobs.
pub(crate) async fn run(ingest: Arc<Ingest>) {
    while ingest.collection.data.disk.writable(&ingest.collection.life.stop).await {
        if let Some((claim, record)) = ingest.work.pop() {
            ingest.work.wake.notify_one();
            let id = record.id;
            guarded("upload", run_upload(&ingest, claim, record)).await;
            tracing::debug!(asset = %id, "upload done");
            continue;
        }
        match ingest.collection.store.claim_item().await {
            Ok(Some((job, item))) => {
                ingest.work.wake.notify_one();
                run_item(&ingest, job, item).await;
                continue;
            }
            Ok(None) => {}
            Err(StoreError::StorageFull(full)) => {
                ingest.collection.data.disk.refuse(full);
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "could not read the next item of a job");
                tokio::time::sleep(STORE_WAIT).await;
            }
        }
        tokio::select! {
            () = ingest.collection.life.stop.cancelled() => {}
            () = ingest.work.wake.notified() => {}
        }
    }
}

/// Contains a panic in one file, so that the worker survives.
async fn guarded<T>(what: &str, future: impl Future<Output = T>) -> Option<T> {
    let outcome = AssertUnwindSafe(future).catch_unwind().await;
    if outcome.is_err() {
        tracing::error!("a worker panicked on an {what}");
    }
    outcome.ok()
}

async fn run_upload(ingest: &Ingest, claim: Claim, record: AssetRecord) {
    let id = record.id;
    match ingest.embed_asset(claim, record, Priority::Bulk, &CancellationToken::new()).await {
        Ok(_) | Err(LibraryError::Cancelled | LibraryError::Stopping) => {}
        // It is removed or resumed once there is room.
        Err(error) if error.storage_full().is_some() => {}
        Err(error) => tracing::error!(asset = %id, %error, "could not index an upload"),
    }
}

async fn run_item(ingest: &Arc<Ingest>, job: JobId, mut item: JobItem) {
    let cancel = ingest.work.begin(job, item.seq, &ingest.collection.life.stop);
    let ended = loop {
        let ended = guarded("item", try_item(ingest, job, &mut item, &cancel)).await;
        match &ended {
            Some(Err(error)) if ingest.collection.data.disk.refuses(error) => {
                if !ingest.collection.data.disk.writable(&cancel).await {
                    break Some(Err(LibraryError::Cancelled));
                }
            }
            _ => break ended,
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(LibraryError::Stopping)) => item.state = WorkState::Queued,
        Some(Err(_)) if ingest.collection.life.stop.is_cancelled() => item.state = WorkState::Queued,
        Some(Err(LibraryError::Cancelled)) => item.state = WorkState::Cancelled,
        Some(Err(LibraryError::LeftOut(left_out))) => {
            item.state = WorkState::Skipped;
            item.error = Some(WorkError::new(left_out.code, left_out.reason));
        }
        Some(Err(error)) => {
            tracing::warn!(%job, seq = item.seq, code = error.code(), %error, "an item of a job failed");
            fail(&mut item, error.code(), error.user_message());
        }
        None => fail(&mut item, "internal", "the server failed on this file".to_owned()),
    }
    let wait = put_off(&mut item);
    finish(ingest, job, &item).await;
    ingest.work.end(job, item.seq);
    if let Some(wait) = wait {
        wake_later(ingest, wait);
    }
    metrics::item_ended(item.state.as_str());
}

fn fail(item: &mut JobItem, code: &'static str, message: String) {
    item.state = WorkState::Failed;
    item.error = Some(WorkError::new(code, message));
}

/// Queues an item again if its failure may pass; returns how long it must wait.
fn put_off(item: &mut JobItem) -> Option<Duration> {
    let passing = item.error.as_ref().is_some_and(|error| error.code.is_passing());
    let passing = passing && item.state == WorkState::Failed;
    item.not_before_unix_ms = 0;
    if !passing || item.attempts + 1 >= MAX_ATTEMPTS {
        return None;
    }
    let wait = FIRST_WAIT * 4_u32.pow(item.attempts);
    item.attempts += 1;
    item.state = WorkState::Queued;
    item.not_before_unix_ms = now_unix_ms() + i64::try_from(wait.as_millis()).unwrap_or(0);
    Some(wait)
}

fn wake_later(ingest: &Arc<Ingest>, wait: Duration) {
    let waker = Arc::clone(ingest);
    ingest.collection.life.tasks.spawn(async move {
        tokio::select! {
            () = waker.collection.life.stop.cancelled() => {}
            () = tokio::time::sleep(wait + CLOCK_SLACK) => waker.work.wake.notify_one(),
        }
    });
}

async fn try_item(
    ingest: &Ingest,
    job: JobId,
    item: &mut JobItem,
    cancel: &CancellationToken,
) -> Result<(), LibraryError> {
    item.error = None;
    let record = ingest.collection.store.job(job).await?;
    if record.state == WorkState::Cancelled {
        return Err(LibraryError::Cancelled);
    }
    kinds::run(ingest, &record, item, cancel).await
}

/// Stores the outcome of an item. If that fails, the item stays `running` and the next start takes it again.
async fn finish(ingest: &Ingest, job: JobId, item: &JobItem) {
    let mut attempt = 0_u32;
    loop {
        match ingest.collection.store.finish_item(job, item).await {
            Ok(_) => return,
            Err(StoreError::StorageFull(full)) => {
                ingest.collection.data.disk.refuse(full);
                if !ingest.collection.data.disk.writable(&ingest.collection.life.stop).await {
                    return;
                }
            }
            Err(error) if attempt == STORE_TRIES => {
                tracing::error!(%job, seq = item.seq, %error, "could not store the outcome of a job's item");
                return;
            }
            Err(_) => {
                tokio::time::sleep(STORE_FIRST_WAIT * 2_u32.pow(attempt)).await;
                attempt += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_four_times_in_all() {
        let mut item = JobItem {
            seq: 0,
            path: "/a".into(),
            name: None,
            metadata: serde_json::json!({}),
            state: WorkState::Failed,
            asset: None,
            clips: 0,
            media_secs: 0.0,
            error: Some(WorkError::new("io", "for now")),
            attempts: 0,
            not_before_unix_ms: 0,
            choice: Default::default(),
        };
        for secs in [1, 4, 16] {
            item.state = WorkState::Failed;
            let now = now_unix_ms();
            assert_eq!(put_off(&mut item), Some(Duration::from_secs(secs)));
            assert_eq!(item.state, WorkState::Queued);
            assert!(item.not_before_unix_ms >= now + 1000 * secs as i64);
        }
        item.state = WorkState::Failed;
        assert_eq!(put_off(&mut item), None);
        assert_eq!((item.state, item.attempts, item.not_before_unix_ms), (WorkState::Failed, 3, 0));
        for (code, state) in [("corrupt_media", WorkState::Failed), ("io", WorkState::Done)] {
            (item.attempts, item.state) = (0, state);
            item.error = Some(WorkError::new(code, ""));
            assert_eq!((put_off(&mut item), item.state), (None, state), "{code}");
        }
    }
}
