//! The snapshots of an open library: one is taken at a time.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::create::{self, SnapshotOptions, Source};
use super::destination::{Destination, Turn};
use super::manifest::Manifest;
use super::pins::Pins;
use super::view::{Running, SnapshotView};
use super::{BackupError, list, place, read_manifests, restore};
use crate::outbound::SourcesConfig;
use crate::types::SnapshotId;

/// How long a caller waits for the lock if no snapshot is being taken.
const TURN_PATIENCE: Duration = Duration::from_secs(2);

/// Where snapshots are stored, and how many.
#[derive(Debug, Clone, Default)]
pub struct KeeperConfig {
    /// A folder or `s3://bucket/folder`; `None`: snapshots are off.
    pub root: Option<String>,
    /// Number of scheduled snapshots to keep.
    pub kept: usize,
}

/// The state of a library's snapshots.
pub struct SnapshotKeeper {
    config: KeeperConfig,
    /// Keeps uploads from removal while a snapshot is taken.
    pub pins: Arc<Pins>,
    /// Lets only one snapshot or compaction run at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    waiting: AtomicUsize,
    destination: Option<Arc<dyn Destination>>,
    /// The snapshot being taken, or the last one if it failed.
    current: Mutex<Option<Arc<Running>>>,
}

impl SnapshotKeeper {
    /// Opens the place for snapshots of a data folder.
    ///
    /// # Errors
    /// [`BackupError`] if there is none at this root.
    pub fn open(config: KeeperConfig, sources: &SourcesConfig, data_dir: &Path) -> Result<Self, BackupError> {
        let root = config.root.as_deref();
        if let Some(root) = root {
            place::refuse_within(root, data_dir)?;
        }
        let destination = root.map(|root| place::destination_at(root, sources)).transpose()?;
        Ok(Self {
            config,
            pins: Arc::default(),
            turn: Arc::default(),
            waiting: AtomicUsize::new(0),
            destination,
            current: Mutex::new(None),
        })
    }

    fn destination(&self) -> Result<&Arc<dyn Destination>, BackupError> {
        self.destination.as_ref().ok_or(BackupError::Off)
    }

    fn current(&self) -> Option<Arc<Running>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_current(&self, running: Option<Arc<Running>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }

    fn forget(&self, id: SnapshotId) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|running| running.id == id) {
            *current = None;
        }
    }

    /// Takes the lock that excludes other snapshots and compactions. Waits for one that is about to end; an
    /// automatic one makes room.
    ///
    /// # Errors
    /// [`BackupError::Running`].
    pub async fn take_turn(&self) -> Result<OwnedMutexGuard<()>, BackupError> {
        if self.current().is_some_and(|running| running.is_running()) {
            return Err(BackupError::Running);
        }
        let _waiting = Waiting::of(&self.waiting);
        let turn = tokio::time::timeout(TURN_PATIENCE, Arc::clone(&self.turn).lock_owned()).await;
        turn.map_err(|_| BackupError::Running)
    }

    /// Takes the lock only if it is free, for work that nobody requested.
    #[must_use]
    pub fn take_idle_turn(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    /// Whether a caller is waiting for the lock.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl SnapshotKeeper {
    /// Begins a snapshot: takes the locks, and shows it as running. [`SnapshotKeeper::take`] takes it, and
    /// [`SnapshotKeeper::end`] ends it.
    ///
    /// # Errors
    /// [`BackupError::Off`], [`BackupError::Running`] and others.
    pub async fn begin(
        &self,
        options: SnapshotOptions,
        cancel: CancellationToken,
    ) -> Result<Taking, BackupError> {
        let destination = Arc::clone(self.destination()?);
        let turn = self.take_turn().await?;
        let lock = destination.lock().await?;
        let running = Arc::new(Running::begin(options.scheduled, cancel));
        self.set_current(Some(Arc::clone(&running)));
        let done = running.done.clone().drop_guard();
        Ok(Taking {
            destination,
            running,
            options,
            began: Instant::now(),
            _lock: lock,
            _turn: turn,
            _done: done,
        })
    }

    /// Takes the snapshot. The caller holds a pin of the uploads.
    ///
    /// # Errors
    /// [`BackupError`]; the partial snapshot is removed.
    pub async fn take(&self, taking: &Taking, source: &Source) -> Result<Taken, BackupError> {
        let (destination, running) = (taking.destination.as_ref(), taking.running.as_ref());
        let made = create::create(source, destination, running, taking.options).await;
        if made.is_err() {
            create::remove_files(destination, running.id).await?;
        }
        made.map(Taken)
    }

    /// Ends a snapshot: publishes its outcome, and deletes scheduled snapshots beyond the number to keep.
    pub async fn end(&self, taking: Taking, outcome: Result<Taken, BackupError>) {
        let state = if outcome.is_ok() { "ready" } else { "failed" };
        metrics::counter!("triptych_snapshots_total", "state" => state).increment(1);
        let id = taking.running.id;
        match outcome {
            Ok(Taken(manifest)) => {
                let (assets, clips) = (manifest.assets, manifest.clips);
                let copied_bytes = manifest.copied_bytes + manifest.file_bytes();
                let secs = taking.began.elapsed().as_secs_f64();
                tracing::info!(%id, assets, clips, copied_bytes, secs, "took a snapshot");
                if taking.options.scheduled {
                    self.drop_old(taking.destination.as_ref()).await;
                }
                let Taking { _lock: lock, _turn: turn, _done: done, .. } = taking;
                drop(lock);
                drop(turn);
                // Only now: a client that sees this snapshot ready may start the next one.
                self.forget(id);
                drop(done);
            }
            Err(error) => {
                taking.running.fail(&error);
                tracing::error!(%id, code = error.code(), %error, "could not take a snapshot");
            }
        }
    }

    async fn drop_old(&self, destination: &dyn Destination) {
        let dropped = async {
            let mut scheduled: Vec<_> = read_manifests(destination).await?;
            scheduled.retain(|(_, manifest)| manifest.as_ref().is_ok_and(|manifest| manifest.scheduled));
            let surplus = scheduled.len().saturating_sub(self.config.kept.max(1));
            for (id, _) in scheduled.into_iter().take(surplus) {
                create::delete(destination, &id).await?;
                tracing::info!(id, "deleted an old snapshot");
            }
            Ok::<_, BackupError>(())
        };
        if let Err(error) = dropped.await {
            tracing::error!(code = error.code(), %error, "could not delete old snapshots");
        }
    }

    /// When the last scheduled snapshot was taken.
    pub async fn last_scheduled_unix_ms(&self) -> Option<i64> {
        let manifests = read_manifests(self.destination().ok()?.as_ref()).await.ok()?;
        let scheduled =
            manifests.into_iter().filter_map(|(_, manifest)| manifest.ok()).filter(|m| m.scheduled);
        scheduled.map(|manifest| manifest.created_unix_ms).max()
    }

    /// Snapshots, newest first, including the one being taken, or the last one if it failed.
    ///
    /// # Errors
    /// [`BackupError::Off`] and others.
    pub async fn list(&self) -> Result<Vec<SnapshotView>, BackupError> {
        let destination = self.destination()?;
        // Read this before the list: a snapshot that ends in between is reported as running once more.
        let current = self.current();
        let mut views = list(destination.as_ref()).await?;
        if let Some(running) = current {
            views.retain(|view| view.id != running.id);
            views.push(running.view());
            views.sort_unstable_by_key(|view| std::cmp::Reverse(view.id));
        }
        Ok(views)
    }

    /// Looks up one snapshot.
    ///
    /// # Errors
    /// [`BackupError::Off`], [`BackupError::NotFound`] and others.
    pub async fn find(&self, id: SnapshotId) -> Result<SnapshotView, BackupError> {
        let destination = self.destination()?;
        if let Some(running) = self.current().filter(|running| running.id == id) {
            return Ok(running.view());
        }
        match restore::manifest_of(destination.as_ref(), &id.to_string()).await {
            Ok(manifest) => Ok(SnapshotView::ready(&manifest)),
            Err(error @ (BackupError::Damaged { .. } | BackupError::Format(_))) => {
                Ok(SnapshotView::damaged(id, &error))
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a snapshot and the media that no other snapshot needs; stops one that is being taken.
    ///
    /// # Errors
    /// [`BackupError::Off`], [`BackupError::NotFound`], [`BackupError::Running`] and others.
    pub async fn delete(&self, id: SnapshotId) -> Result<(), BackupError> {
        let destination = Arc::clone(self.destination()?);
        if let Some(running) = self.current().filter(|running| running.id == id) {
            running.meter.cancel.cancel();
            running.done.cancelled().await;
            if self.current().is_some_and(|running| running.id == id) {
                self.forget(id);
                return Ok(());
            }
        }
        let _turn = self.take_turn().await?;
        let lock = destination.lock().await?;
        let deleted = create::delete(destination.as_ref(), &id.to_string()).await;
        drop(lock);
        deleted
    }
}

/// A snapshot that is being taken, with the locks that it holds.
pub struct Taking {
    destination: Arc<dyn Destination>,
    running: Arc<Running>,
    options: SnapshotOptions,
    began: Instant,
    // Dropped in this order: the locks are free before a waiting task learns of the end.
    _lock: Turn,
    _turn: OwnedMutexGuard<()>,
    /// Fires also on a panic.
    _done: DropGuard,
}

impl Taking {
    /// How it looks now.
    #[must_use]
    pub fn view(&self) -> SnapshotView {
        self.running.view()
    }
}

/// A snapshot that was taken.
pub struct Taken(Manifest);

/// Counts a waiting caller while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
