//! Whether the disk of the data folder takes bytes. While it does not, work in the background waits instead
//! of failing; it goes on by itself once there is room.

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

/// How often free space is looked at, which costs the disk nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is tried to write while the disk refuses.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// And where writing failed again soon after it went on.
const RELAPSE_WAIT: Duration = Duration::from_secs(2);
const RELAPSE_WITHIN: Duration = Duration::from_secs(10);
/// How long it holds that a disk took bytes which says that it has no inodes.
const TRIED_HOLDS: Duration = Duration::from_secs(30);
/// A disk that does not answer for this long counts as not writable.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is written to try; more than any file system keeps inside an inode.
const TRIED_BYTES: usize = 64 << 10;
/// Free bytes that uploads leave alone, so that assets can still be deleted: this share of the disk, and at
/// most so many.
const RESERVE_SHARE: u64 = 64;
const MOST_RESERVE_BYTES: u64 = 16 << 20;

/// Free space.
#[derive(Debug, Clone, Copy)]
struct Room {
    free_bytes: u64,
    reserve_bytes: u64,
    free_inodes: bool,
    read_only: bool,
}

impl Room {
    /// Blocking.
    fn of(folder: &Path) -> std::io::Result<Self> {
        let disk = rustix::fs::statvfs(folder)?;
        // Some blocks are for the superuser alone.
        let free = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
        let reserve_bytes =
            (disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_SHARE).min(MOST_RESERVE_BYTES);
        Ok(Self {
            free_bytes: free.saturating_mul(disk.f_frsize),
            reserve_bytes,
            // A file system that does not count them has none at all.
            free_inodes: disk.f_files == 0 || disk.f_ffree > 0,
            read_only: disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }

    /// Whether too little is left. A disk that was full has to have the whole reserve again.
    const fn is_short(&self, was_full: bool) -> bool {
        self.free_bytes < if was_full { self.reserve_bytes } else { self.reserve_bytes / 2 }
    }

    /// Whether it is to be tried: not every file system counts its inodes as one would think.
    const fn is_doubtful(&self) -> bool {
        self.read_only || !self.free_inodes
    }
}

/// Whether the disk of a data folder takes bytes.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    refusal: watch::Sender<Option<StorageFull>>,
    /// As they were last looked at.
    free_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
    /// What a start has to write before anything else, and could not.
    start_owed: AtomicBool,
    /// Assets that nobody wants any more, and that could not be taken away.
    unwanted: Mutex<Vec<(Claim, AssetRecord)>>,
    went_on: Mutex<Option<Instant>>,
    /// When it last took what was written only to try.
    tried: Mutex<Option<Instant>>,
}

impl Disk {
    /// Looks at the disk of a folder. Blocking.
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

    /// Why it takes no bytes, if so.
    pub(super) fn refusal(&self) -> Option<StorageFull> {
        *self.refusal.borrow()
    }

    /// From now on whatever writes in the background waits.
    pub(super) fn refuse(&self, why: StorageFull) {
        let began = self.refusal.send_if_modified(|now| now.replace(why).is_none());
        if began {
            metrics::gauge!("triptych_disk_writable").set(0.0);
            tracing::warn!(why = %why, "disk full: writing is paused");
        }
    }

    /// As [`refuse`](Self::refuse), where an error says so; whether it does.
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

    /// Waits until it takes bytes; false where that is cut short.
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

    /// What a start has to write first is written as soon as that is possible.
    pub(super) fn owe_start(&self, why: StorageFull) {
        self.start_owed.store(true, Ordering::Release);
        self.refuse(why);
    }

    /// An asset is taken away as soon as that is possible.
    pub(super) fn owe_removal(&self, claim: Claim, record: AssetRecord) {
        lock(&self.unwanted).push((claim, record));
    }

    /// Somebody wants an asset after all. The caller holds the lock under which bytes are taken in.
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

/// Writes and syncs a small file. Blocking.
fn try_to_write(folder: &Path) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".room-").tempfile_in(folder)?;
    file.write_all(&[0x5a; TRIED_BYTES])?;
    file.as_file().sync_all()
}

/// Looks at the disk while the library is open.
pub(super) async fn keep_watch(library: Arc<Library>) {
    let mut met = StorageFull::watch();
    loop {
        let failed = tokio::select! {
            () = library.stop.cancelled() => return,
            () = tokio::time::sleep(library.disk.wait()) => false,
            // Somebody could not write, here or elsewhere. What comes within a moment is looked at once.
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

    /// Looks at free space; tries to write where that failed before.
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
            // Whatever else it is, no room would mend it.
            Err(error) => {
                tracing::debug!(%error, "could not test whether the store is writable");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Does what could not be written, before anything else is.
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

    /// Brings the store to what was acknowledged, after a start that could not write. Nothing is being
    /// indexed yet.
    async fn settle_start(&self) -> Result<(), LibraryError> {
        super::open::adopt_uploads(self.store.as_ref(), &self.uploads).await?;
        self.settle_ledger().await?;
        for asset in self.store.unfinished_assets().await? {
            // Somebody who asked for it in the meantime may be waiting for the disk.
            if self.active.by_id(asset.id).is_none() {
                self.drop_clips(asset.id).await?;
            }
        }
        let requeued = self.store.requeue_running().await?;
        tracing::info!(requeued, "wrote what could not be written at start");
        Ok(())
    }

    /// Does something that writes, again and again until the disk takes it.
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

/// A disk that cannot be tried, or does not answer in time, takes no bytes.
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
