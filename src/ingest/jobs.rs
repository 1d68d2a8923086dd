//! Jobs of a library: starts, pauses, resumes, cancels, retries and lists them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Ingest;
use super::kinds::{Kind, Plan};
use crate::collection::LibraryError;
use crate::jobs::{JobBaseline, JobView};
use crate::ledger::WorkKind;
use crate::store::{JobItem, JobRecord, Store, StoreError, WorkState};
use crate::types::{JobId, now_unix_ms};
use crate::webhooks::Webhook;

/// How long cancelling waits for running items, and how often it looks.
const CANCEL_WAIT: Duration = Duration::from_secs(2);
const CANCEL_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Progress of jobs when this process started, so that the time that the server was down does not lower the
/// rates.
#[derive(Debug, Default)]
pub(crate) struct Baselines(Mutex<HashMap<JobId, JobBaseline>>);

impl Baselines {
    pub(crate) async fn of_unfinished(store: &dyn Store) -> Result<Self, LibraryError> {
        let baselines = Self::default();
        baselines.refresh(store).await?;
        Ok(baselines)
    }

    /// Sets the baselines of all unfinished jobs to their present progress.
    pub(crate) async fn refresh(&self, store: &dyn Store) -> Result<(), LibraryError> {
        for id in store.unended_jobs().await? {
            match store.job(id).await {
                Ok(job) => self.set(&job),
                // The store reports it; the other jobs must not suffer.
                Err(StoreError::DamagedRow(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Measures the rates of this job from now on.
    fn set(&self, job: &JobRecord) {
        let baseline = JobBaseline::of(job, now_unix_ms());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(job.id, baseline);
    }

    fn get(&self, id: JobId) -> Option<JobBaseline> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
}

impl Ingest {
    /// Stores a job, with a webhook that reports its end. Also returns the webhook, if the job is new.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub(crate) async fn start_job<K: Kind>(
        &self,
        request: K::Request,
        idempotency_key: Option<&str>,
        webhook: Option<&Webhook>,
    ) -> Result<(JobRecord, Option<Webhook>), LibraryError> {
        if self.collection.life.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let webhook = webhook.map(|asked| self.collection.data.webhooks.checked(asked)).transpose()?;
        let Plan { request, items } = K::plan(self, request).await?;
        let store = &self.collection.store;
        let (job, given) = match webhook {
            None => (store.create_job(K::KIND, &request, &items, idempotency_key).await?, None),
            Some((webhook, given)) => {
                let made =
                    store.create_job_with_webhook(K::KIND, &request, &items, idempotency_key, &webhook);
                let (job, new) = made.await?;
                (job, new.then_some(given))
            }
        };
        self.work.wake.notify_one();
        self.collection.note_work(WorkKind::Job, job.id, true).await?;
        Ok((job, given))
    }

    /// Cancels a job; running items stop, and their partial results are removed. Waits briefly for them.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn cancel_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        self.collection.store.cancel_job(id).await?;
        let began = Instant::now();
        while self.work.cancel(id) && began.elapsed() < CANCEL_WAIT {
            tokio::time::sleep(CANCEL_LOOK_EVERY).await;
        }
        self.collection.note_work(WorkKind::Job, id, false).await?;
        Ok(self.collection.store.job(id).await?)
    }

    /// Pauses an unfinished job: running items finish, and no new ones start, even after a restart. A job in
    /// any other state does not change.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn pause_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        let job = self.collection.store.pause_job(id, true).await?;
        self.collection.note_work(WorkKind::Job, id, true).await?;
        Ok(job)
    }

    /// Resumes a paused job. A job in any other state does not change.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn resume_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        let paused = self.collection.store.job(id).await?.state == WorkState::Paused;
        let job = self.collection.store.pause_job(id, false).await?;
        if paused {
            self.baselines.set(&job);
            self.work.wake.notify_one();
        }
        self.collection.note_work(WorkKind::Job, id, true).await?;
        Ok(job)
    }

    /// Queues the failed items of a job again. A cancelled job does not change.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub(crate) async fn retry_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        let (job, queued) = self.collection.store.retry_failed(id).await?;
        if queued > 0 {
            self.baselines.set(&job);
            self.work.wake.notify_one();
            self.collection.note_work(WorkKind::Job, id, true).await?;
        }
        Ok(job)
    }

    /// Jobs, newest first, of one state or of all; `after` is the last id of the previous page.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn jobs(
        &self,
        state: Option<WorkState>,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRecord>, LibraryError> {
        Ok(self.collection.store.list_jobs(state, after, limit).await?)
    }

    /// Looks up one job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job(&self, id: JobId) -> Result<JobRecord, StoreError> {
        self.collection.store.job(id).await
    }

    /// Number of jobs per state; states without jobs are left out.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn job_counts(&self) -> Result<BTreeMap<WorkState, u64>, LibraryError> {
        Ok(self.collection.store.job_counts().await?)
    }

    /// Items of a job after `after_seq` (exclusive; -1 for all), of one state or of all.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn job_items(
        &self,
        id: JobId,
        state: Option<WorkState>,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<JobItem>, LibraryError> {
        Ok(self.collection.store.job_items(id, state, after_seq, limit).await?)
    }

    /// A job as the API shows it.
    #[must_use]
    pub fn job_view(&self, job: &JobRecord) -> JobView {
        JobView::new(job, self.baselines.get(job.id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::sqlite::SqliteStore;
    use crate::store::{JobKind, JobStore, NewItem};
    use crate::types::ModelId;

    #[tokio::test]
    async fn rates_are_counted_from_the_start_for_every_job_that_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), &ModelId("m".into())).await.unwrap();
        let item = [NewItem::new("/f".into(), serde_json::json!({}))];
        let oldest = store.create_job(JobKind::Index, &Value::Null, &item, None).await.unwrap().id;
        for _ in 0..1000 {
            store.create_job(JobKind::Index, &Value::Null, &[], None).await.unwrap();
        }
        let ended = store.list_jobs(None, None, 1).await.unwrap()[0].id;
        let baselines = Baselines::of_unfinished(&store).await.unwrap();
        assert!(baselines.get(oldest).is_some());
        assert!(baselines.get(ended).is_none());
    }
}
