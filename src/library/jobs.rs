//! Jobs of a library: started, cancelled, looked at.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Library, LibraryError};
use crate::jobs::{Baseline, JobView, now_unix_ms};
use crate::store::{JobRecord, Store, WorkState};
use crate::types::JobId;

/// Most files one job takes.
const MAX_FILES: usize = 1_000_000;

/// What jobs had done when this process began, so that a rate after a restart is not diluted by
/// the time the server was down.
#[derive(Debug, Default)]
pub(super) struct Baselines(Mutex<HashMap<JobId, Baseline>>);

impl Baselines {
    pub(super) async fn of_unfinished(store: &dyn Store) -> Result<Self, LibraryError> {
        let now = now_unix_ms();
        let jobs = store.list_jobs(1000).await?;
        let unfinished =
            jobs.iter().filter(|job| matches!(job.state, WorkState::Queued | WorkState::Running));
        Ok(Self(Mutex::new(unfinished.map(|job| (job.id, Baseline::of(job, now))).collect())))
    }

    fn get(&self, id: JobId) -> Option<Baseline> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
}

impl Library {
    /// Starts a durable job that indexes a folder (recursive) or one file.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn start_index_job(
        self: &Arc<Self>,
        folder: &Path,
        recursive: bool,
        metadata: serde_json::Value,
        idempotency_key: Option<&str>,
    ) -> Result<JobRecord, LibraryError> {
        if self.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let folder = self.allowed_path(folder)?;
        let request = serde_json::json!({
            "type": "index", "path": super::utf8(&folder)?, "recursive": recursive, "metadata": metadata,
        });
        let roots = self.roots.clone();
        let listed = super::blocking(move || {
            crate::jobs::list_media(&folder, recursive, MAX_FILES, |path| roots.holds(path)).map_err(
                |error| match error {
                    crate::jobs::ListError::TooMany(most) => LibraryError::TooManyFiles(most),
                    crate::jobs::ListError::Io(error) => LibraryError::Io(error),
                },
            )
        })
        .await?;
        let items: Vec<_> = listed.into_iter().map(|path| (path, metadata.clone())).collect();
        let job = self.store.create_job("index", &request, &items, idempotency_key).await?;
        self.start_workers();
        self.work.wake.notify_one();
        Ok(job)
    }

    /// Cancels a job; running items are stopped and leave nothing behind. Waits for them shortly.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn cancel_job(&self, id: JobId) -> Result<JobRecord, LibraryError> {
        self.store.cancel_job(id).await?;
        let began = Instant::now();
        while self.work.cancel(id) && began.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(self.store.job(id).await?)
    }

    /// A job as people see it.
    #[must_use]
    pub fn job_view(&self, job: &JobRecord) -> JobView {
        JobView::new(job, self.baselines.get(job.id))
    }
}
