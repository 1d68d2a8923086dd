//! Watches whether the disk of the data folder accepts writes. While it does not, background work waits
//! instead of failing, and resumes by itself once there is room.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ballast::Ballast;
use crate::store::{StorageFull, TellsFull};

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
/// The part of the reserve that a file protects from other programs.
const BALLAST_SHARE: u64 = 2;
/// The ballast is taken while at least this many reserves are free.
const ROOM_FOR_BALLAST: u64 = 4;

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

    /// Holds space in reserve as soon as there is plenty. Blocking.
    fn hold(&self, ballast: &Ballast) {
        let plenty = self.free_bytes >= self.reserve_bytes.saturating_mul(ROOM_FOR_BALLAST);
        if !plenty || self.is_doubtful() {
            return;
        }
        if let Err(error) = ballast.take(self.reserve_bytes / BALLAST_SHARE) {
            tracing::debug!(%error, "could not reserve disk space");
        }
    }

    /// Whether only a trial write can tell: some file systems report no free inodes although they take files.
    const fn is_doubtful(&self) -> bool {
        self.read_only || !self.free_inodes
    }
}

/// Whether the disk of a data folder accepts writes.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    ballast: Arc<Ballast>,
    refusal: watch::Sender<Option<StorageFull>>,
    /// Values of the last check.
    free_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
    /// Set if startup could not do the writes that must precede all others.
    start_owed: AtomicBool,
    went_on: Mutex<Option<Instant>>,
    /// When the last trial write succeeded.
    tried: Mutex<Option<Instant>>,
}

impl Disk {
    /// Checks the disk of a folder. Blocking.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let disk = Self {
            folder: folder.to_owned(),
            ballast: Arc::new(Ballast::of(folder)),
            refusal: watch::Sender::new(None),
            free_bytes: AtomicU64::new(u64::MAX),
            reserve_bytes: AtomicU64::new(0),
            start_owed: AtomicBool::new(false),
            went_on: Mutex::new(None),
            tried: Mutex::new(None),
        };
        if let Ok(room) = Room::of(folder) {
            disk.note(&room);
            room.hold(&disk.ballast);
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
    #[must_use]
    pub fn refusal(&self) -> Option<StorageFull> {
        *self.refusal.borrow()
    }

    /// From now on, background writers wait.
    pub fn refuse(&self, why: StorageFull) {
        let began = self.refusal.send_if_modified(|now| now.replace(why).is_none());
        if began {
            metrics::gauge!("triptych_disk_writable").set(0.0);
            tracing::warn!(why = %why, "disk full: writing is paused");
        }
    }

    /// Calls [`refuse`](Self::refuse) if the error says that the disk is full; returns whether it does.
    pub fn refuses(&self, error: &impl TellsFull) -> bool {
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
    pub async fn writable(&self, stop: &CancellationToken) -> bool {
        let mut refusal = self.refusal.subscribe();
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            waited = refusal.wait_for(Option::is_none) => waited.is_ok(),
        }
    }

    /// Refuses early what would not fit.
    ///
    /// # Errors
    /// [`StorageFull`] if it refuses writes, or too little room would be left.
    pub fn check_room(&self, bytes: u64) -> Result<(), StorageFull> {
        let free = self.free_bytes.load(Ordering::Relaxed);
        let needed = bytes.saturating_add(self.reserve_bytes.load(Ordering::Relaxed));
        let refused = self.refusal().or_else(|| (needed > free).then_some(StorageFull::NoSpace));
        refused.map_or(Ok(()), |full| {
            metrics::counter!("triptych_storage_full_total").increment(1);
            Err(full)
        })
    }

    /// Releases the reserved space if the disk has none left, so that a deletion, which writes before it
    /// frees anything, is possible. Blocking.
    pub(crate) fn make_room_to_delete(&self) {
        let none_left = match (self.refusal(), Room::of(&self.folder)) {
            // A quota may leave less than the free space of the disk.
            (Some(StorageFull::Quota), _) => true,
            (_, Ok(room)) => room.free_bytes < room.reserve_bytes / BALLAST_SHARE,
            (_, Err(_)) => false,
        };
        if none_left && self.ballast.give_up() {
            tracing::warn!("the disk is full: released the reserved space so that assets can be deleted");
        }
    }

    /// Whether startup could not do the writes that must precede all others.
    pub(crate) fn is_start_owed(&self) -> bool {
        self.start_owed.load(Ordering::Acquire)
    }

    /// Records that the writes of startup are done.
    pub(crate) fn start_is_paid(&self) {
        self.start_owed.store(false, Ordering::Release);
    }

    /// Does the overdue writes of startup as soon as the disk allows.
    pub fn owe_start(&self, why: StorageFull) {
        self.start_owed.store(true, Ordering::Release);
        self.refuse(why);
    }

    fn was_tried_lately(&self) -> bool {
        lock(&self.tried).is_some_and(|at| at.elapsed() < TRIED_HOLDS)
    }

    fn note_try(&self, good: bool) {
        *lock(&self.tried) = good.then(Instant::now);
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

impl Disk {
    /// Checks free space, and tries a write if one failed before. `try_write` writes to the folder and to the
    /// store; `pay_debts` does the overdue writes, before anything else is written.
    ///
    /// # Errors
    /// The failure of the overdue writes, other than a full disk; new writes continue all the same.
    pub(crate) async fn look<E: TellsFull>(
        &self,
        failed: bool,
        try_write: impl Future<Output = Result<(), E>>,
        pay_debts: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let was_full = self.refusal().is_some();
        let folder = self.folder.clone();
        let ballast = (!was_full).then(|| Arc::clone(&self.ballast));
        let looked = tokio::task::spawn_blocking(move || {
            let room = Room::of(&folder).map_err(|error| full_of(&error))?;
            ballast.into_iter().for_each(|ballast| room.hold(&ballast));
            Ok(room)
        });
        let room = in_time(async { looked.await.unwrap_or(Err(StorageFull::WriteFailed)) }).await;
        let room = match room {
            Ok(room) => room,
            Err(full) => {
                self.refuse(full);
                return Ok(());
            }
        };
        self.note(&room);
        if room.is_short(was_full) {
            self.refuse(StorageFull::NoSpace);
            return Ok(());
        }
        let doubtful = room.is_doubtful() && !self.was_tried_lately();
        if !was_full && !failed && !doubtful {
            return Ok(());
        }
        let tried = async {
            let folder = self.folder.join("tmp");
            let tried = tokio::task::spawn_blocking(move || try_to_write(&folder)).await;
            tried.unwrap_or(Ok(())).map_err(|error| full_of(&error))?;
            try_write.await.map_err(|error| error.storage_full().unwrap_or(StorageFull::WriteFailed))
        };
        let tried = in_time(tried).await;
        self.note_try(tried.is_ok());
        match tried {
            Err(full) => self.refuse(full),
            Ok(()) if was_full => match pay_debts.await {
                Err(error) if error.storage_full().is_some() => {}
                paid => {
                    self.go_on();
                    return paid;
                }
            },
            Ok(()) => {}
        }
        Ok(())
    }

    /// How long to wait until the next check.
    pub(crate) fn wait(&self) -> Duration {
        if self.refusal().is_none() {
            return LOOK_EVERY;
        }
        let relapsed = lock(&self.went_on).is_some_and(|at| at.elapsed() < RELAPSE_WITHIN);
        if relapsed { RELAPSE_WAIT } else { TRY_EVERY }
    }

    /// Retries a write until the disk accepts it.
    ///
    /// # Errors
    /// Any other error of the write, or that the disk is full if cancelled first.
    pub async fn once_there_is_room<T, E: TellsFull, F: Future<Output = Result<T, E>>>(
        &self,
        cancel: &CancellationToken,
        mut work: impl FnMut() -> F,
    ) -> Result<T, E> {
        loop {
            match work().await {
                Err(error) if self.refuses(&error) => {
                    if !self.writable(cancel).await {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }
}

fn full_of(error: &std::io::Error) -> StorageFull {
    StorageFull::of_io(error).unwrap_or(StorageFull::WriteFailed)
}

/// Limits the time of a trial: a disk that does not answer counts as not writable.
async fn in_time<T>(work: impl Future<Output = Result<T, StorageFull>>) -> Result<T, StorageFull> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(StorageFull::WriteFailed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
