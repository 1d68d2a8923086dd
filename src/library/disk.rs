//! Watches whether the disk of the data folder accepts writes. While it does not, background work waits
//! instead of failing, and resumes by itself once there is room.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::active::Claim;
use super::{Library, LibraryError};
use crate::store::{AssetRecord, StorageFull, StoreError};
use crate::types::AssetId;

/// How often to check free space, which costs the disk nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often to try a write while the disk refuses.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// The same, if writing failed again soon after it resumed.
const RELAPSE_WAIT: Duration = Duration::from_secs(2);
const RELAPSE_WITHIN: Duration = Duration::from_secs(10);
/// How long a successful trial write counts on a file system that reports no free inodes.
const TRIED_HOLDS: Duration = Duration::from_secs(30);
/// A disk that does not answer for this long counts as not writable.
const PATIENCE: Duration = Duration::from_secs(5);
/// Size of a trial write; more than any file system stores inside an inode.
const TRIED_BYTES: usize = 64 << 10;
/// Free space that uploads must leave so that assets can still be deleted: one part in this many of the disk,
/// up to the maximum below.
const RESERVE_SHARE: u64 = 64;
const MOST_RESERVE_BYTES: u64 = 16 << 20;

/// Free space of a file system.
#[derive(Debug, Clone, Copy)]
struct Room {
    free_bytes: u64,
    reserve_bytes: u64,
    free_inodes: bool,
    read_only: bool,
}

impl Room {
    /// Reads the free space. Blocking.
    fn of(folder: &Path) -> std::io::Result<Self> {
        let disk = rustix::fs::statvfs(folder)?;
        // Some blocks are reserved for the superuser.
        let free = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
        let reserve_bytes =
            (disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_SHARE).min(MOST_RESERVE_BYTES);
        Ok(Self {
            free_bytes: free.saturating_mul(disk.f_frsize),
            reserve_bytes,
            // A file system that does not count inodes reports a total of 0.
            free_inodes: disk.f_files == 0 || disk.f_ffree > 0,
            read_only: disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }

    /// Whether too little is left. A disk that was full must have the whole reserve again.
    const fn is_short(&self, was_full: bool) -> bool {
        self.free_bytes < if was_full { self.reserve_bytes } else { self.reserve_bytes / 2 }
    }

    /// Whether only a trial write can tell: some file systems report no free inodes although they take files.
    const fn is_doubtful(&self) -> bool {
        self.read_only || !self.free_inodes
    }
}

/// Whether the disk of a data folder accepts writes.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    refusal: watch::Sender<Option<StorageFull>>,
    /// Values of the last check.
    free_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
    /// Set if the start could not write what must be written before anything else.
    start_owed: AtomicBool,
    /// Abandoned assets whose removal failed because the disk was full.
    unwanted: Mutex<Vec<(Claim, AssetRecord)>>,
    went_on: Mutex<Option<Instant>>,
    /// When the last trial write succeeded.
    tried: Mutex<Option<Instant>>,
}

impl Disk {
    /// Checks the disk of a folder. Blocking.
    pub(super) fn of(folder: &Path) -> Self {
        let disk = Self {
            folder: folder.to_owned(),
            refusal: watch::Sender::new(None),
            free_bytes: AtomicU64::new(u64::MAX),
            reserve_bytes: AtomicU64::new(0),
            start_owed: AtomicBool::new(false),
            unwanted: Mutex::default(),
            went_on: Mutex::new(None),
            tried: Mutex::new(None),
        };
        if let Ok(room) = Room::of(folder) {
            disk.note(&room);
            if room.is_short(false) {
                disk.refuse(StorageFull::NoSpace);
            } else if room.is_doubtful() {
                let tried = try_to_write(&folder.join("tmp"));
                tried
                    .err()
                    .and_then(|error| StorageFull::of_io(&error))
                    .into_iter()
                    .for_each(|full| disk.refuse(full));
            }
        }
        disk
    }

    fn note(&self, room: &Room) {
        self.free_bytes.store(room.free_bytes, Ordering::Relaxed);
        self.reserve_bytes.store(room.reserve_bytes, Ordering::Relaxed);
        metrics::gauge!("triptych_disk_free_bytes").set(room.free_bytes as f64);
    }

    /// Why the disk refuses writes, if it does.
    pub(super) fn refusal(&self) -> Option<StorageFull> {
        *self.refusal.borrow()
    }

    /// From now on, background writers wait.
    pub(super) fn refuse(&self, why: StorageFull) {
        let began = self.refusal.send_if_modified(|now| now.replace(why).is_none());
        if began {
            metrics::gauge!("triptych_disk_writable").set(0.0);
            tracing::warn!(why = %why, "disk full: writing is paused");
        }
    }

    /// Calls [`refuse`](Self::refuse) if the error says that the disk is full; returns whether it does.
    pub(super) fn refuses(&self, error: &LibraryError) -> bool {
        let full = error.storage_full();
        full.into_iter().for_each(|full| self.refuse(full));
        full.is_some()
    }

    fn go_on(&self) {
        if self.refusal.send_replace(None).is_some() {
            metrics::gauge!("triptych_disk_writable").set(1.0);
            tracing::info!("disk space is available again: writing resumes");
        }
        *lock(&self.went_on) = Some(Instant::now());
    }

    /// Waits until the disk accepts writes; false if cancelled first.
    pub(super) async fn writable(&self, stop: &CancellationToken) -> bool {
        let mut refusal = self.refusal.subscribe();
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            waited = refusal.wait_for(Option::is_none) => waited.is_ok(),
        }
    }

    /// Refuses early what would not fit.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), StorageFull> {
        let free = self.free_bytes.load(Ordering::Relaxed);
        let needed = bytes.saturating_add(self.reserve_bytes.load(Ordering::Relaxed));
        let refused = self.refusal().or_else(|| (needed > free).then_some(StorageFull::NoSpace));
        refused.map_or(Ok(()), |full| {
            metrics::counter!("triptych_storage_full_total").increment(1);
            Err(full)
        })
    }

    /// Writes what the start owes as soon as the disk allows.
    pub(super) fn owe_start(&self, why: StorageFull) {
        self.start_owed.store(true, Ordering::Release);
        self.refuse(why);
    }

    /// Removes an asset as soon as the disk allows.
    pub(super) fn owe_removal(&self, claim: Claim, record: AssetRecord) {
        lock(&self.unwanted).push((claim, record));
    }

    /// Takes back an abandoned asset that is wanted after all. The caller holds the lock under which bytes
    /// are accepted.
    pub(super) fn take_unwanted(&self, id: AssetId) -> Option<(Claim, AssetRecord)> {
        let mut unwanted = lock(&self.unwanted);
        let at = unwanted.iter().position(|(_, record)| record.id == id)?;
        Some(unwanted.swap_remove(at))
    }

    fn was_tried_lately(&self) -> bool {
        lock(&self.tried).is_some_and(|at| at.elapsed() < TRIED_HOLDS)
    }

    fn note_try(&self, good: bool) {
        *lock(&self.tried) = good.then(Instant::now);
    }

    fn any_unwanted(&self) -> Option<AssetId> {
        lock(&self.unwanted).first().map(|(_, record)| record.id)
    }

    fn wait(&self) -> Duration {
        if self.refusal().is_none() {
            return LOOK_EVERY;
        }
        let relapsed = lock(&self.went_on).is_some_and(|at| at.elapsed() < RELAPSE_WITHIN);
        if relapsed { RELAPSE_WAIT } else { TRY_EVERY }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes and syncs a small file, then removes it. Blocking.
fn try_to_write(folder: &Path) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".room-").tempfile_in(folder)?;
    file.write_all(&[0x5a; TRIED_BYTES])?;
    file.as_file().sync_all()
}

/// Watches the disk while the library is open.
pub(super) async fn keep_watch(library: Arc<Library>) {
    let mut met = StorageFull::watch();
    loop {
        let failed = tokio::select! {
            () = library.stop.cancelled() => return,
            () = tokio::time::sleep(library.disk.wait()) => false,
            // A write failed, here or elsewhere. Failures within a moment of each other lead to one check.
            changed = met.changed(), if library.disk.refusal().is_none() => {
                tokio::time::sleep(TRY_EVERY / 5).await;
                changed.is_ok()
            }
        };
        library.look_at_disk(failed).await;
        met.borrow_and_update();
    }
}

impl Library {
    /// Refuses early what would leave too little room on the disk.
    ///
    /// # Errors
    /// [`StoreError::StorageFull`].
    pub fn check_disk(&self, bytes: u64) -> Result<(), LibraryError> {
        Ok(self.disk.check_room(bytes).map_err(StoreError::from)?)
    }

    /// Checks free space, and tries a write if one failed before.
    async fn look_at_disk(&self, failed: bool) {
        let was_full = self.disk.refusal().is_some();
        let folder = self.disk.folder.clone();
        let room = answer(super::blocking(move || Ok(Room::of(&folder)?))).await;
        let room = match room {
            Ok(room) => room,
            Err(full) => return self.disk.refuse(full),
        };
        self.disk.note(&room);
        if room.is_short(was_full) {
            return self.disk.refuse(StorageFull::NoSpace);
        }
        let doubtful = room.is_doubtful() && !self.disk.was_tried_lately();
        if !was_full && !failed && !doubtful {
            return;
        }
        let tried = answer(self.try_disk()).await;
        self.disk.note_try(tried.is_ok());
        match tried {
            Err(full) => self.disk.refuse(full),
            Ok(()) if was_full => match self.pay_debts().await {
                Ok(()) => self.disk.go_on(),
                Err(error) if error.storage_full().is_some() => {}
                Err(error) => {
                    tracing::error!(code = error.code(), %error, "could not catch up on work that the full disk had stopped");
                    self.disk.go_on();
                }
            },
            Ok(()) => {}
        }
    }

    async fn try_disk(&self) -> Result<(), LibraryError> {
        let folder = self.uploads.temporary_folder().to_owned();
        super::blocking(move || Ok(try_to_write(&folder)?)).await?;
        match self.store.try_write().await {
            Err(full @ StoreError::StorageFull(_)) => Err(full.into()),
            // Whatever the error is, more room would not fix it.
            Err(error) => {
                tracing::debug!(%error, "could not test whether the store is writable");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Does the overdue writes, before anything else is written.
    async fn pay_debts(&self) -> Result<(), LibraryError> {
        if self.disk.start_owed.load(Ordering::Acquire) {
            self.settle_start().await?;
            self.disk.start_owed.store(false, Ordering::Release);
        }
        while let Some(id) = self.disk.any_unwanted() {
            let _serial = self.accept_lock.lock().await;
            let Some((claim, record)) = self.disk.take_unwanted(id) else { continue };
            match self.remove_accepted(&record).await {
                Ok(()) | Err(LibraryError::Store(StoreError::NotFound(_))) => drop(claim),
                Err(error) => {
                    self.disk.owe_removal(claim, record);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Brings the store up to what was acknowledged, after a start that could not write. Nothing is being
    /// indexed yet.
    async fn settle_start(&self) -> Result<(), LibraryError> {
        super::opened_store::adopt_uploads(self.store.as_ref(), &self.uploads).await?;
        self.settle_ledger().await?;
        for asset in self.store.unfinished_assets().await? {
            // A request may have claimed the asset in the meantime and be waiting for the disk.
            if self.active.by_id(asset.id).is_none() {
                self.drop_clips(asset.id).await?;
            }
        }
        let requeued = self.store.requeue_running().await?;
        tracing::info!(requeued, "wrote what could not be written at start");
        Ok(())
    }

    /// Retries a write until the disk accepts it.
    pub(super) async fn once_there_is_room<T, F: Future<Output = Result<T, LibraryError>>>(
        &self,
        cancel: &CancellationToken,
        mut work: impl FnMut() -> F,
    ) -> Result<T, LibraryError> {
        loop {
            match work().await {
                Err(error) if self.disk.refuses(&error) => {
                    if !self.disk.writable(cancel).await {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }
}

/// Runs a trial with a time limit: a disk that fails or does not answer in time counts as not writable.
async fn answer<T>(work: impl Future<Output = Result<T, LibraryError>>) -> Result<T, StorageFull> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.storage_full().unwrap_or(StorageFull::WriteFailed)),
        Err(_) => Err(StorageFull::WriteFailed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(free_bytes: u64) -> Room {
        Room { free_bytes, reserve_bytes: 1000, free_inodes: true, read_only: false }
    }

    #[test]
    fn a_disk_that_was_full_has_to_have_the_whole_reserve_again() {
        let short = |free, was_full| room(free).is_short(was_full);
        assert!(short(499, false) && !short(500, false));
        assert!(short(999, true) && !short(1000, true));
        assert!(!room(0).is_doubtful() && Room { read_only: true, ..room(0) }.is_doubtful());
    }

    #[tokio::test]
    async fn work_waits_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::of(dir.path()));
        let stop = CancellationToken::new();
        disk.note(&room(5000));
        assert!(disk.check_room(4000).is_ok());
        assert_eq!(disk.check_room(4001), Err(StorageFull::NoSpace), "the reserve is left alone");
        assert!(disk.writable(&stop).await);

        disk.refuse(StorageFull::Quota);
        assert_eq!((disk.refusal(), disk.check_room(0)), (Some(StorageFull::Quota), Err(StorageFull::Quota)));
        let (waiting, stopped) = (Arc::clone(&disk), stop.clone());
        let waiter = tokio::spawn(async move { waiting.writable(&stopped).await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        disk.go_on();
        assert!(waiter.await.unwrap());
        disk.refuse(StorageFull::NoSpace);
        assert_eq!(disk.wait(), RELAPSE_WAIT, "what fails at once is not tried all the time");
        stop.cancel();
        assert!(!disk.writable(&stop).await);
    }
}
