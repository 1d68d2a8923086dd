//! Gives back the space of deleted clips: pages of the store, rows of the indexes.

use std::sync::Arc;
use std::time::Instant;

use super::recovery::open_closed;
use super::{Collection, LibraryError, blocking};
use crate::backup::BackupError;
use crate::store::{EmbeddedStore, StoreSpace};

/// Pages freed per transaction: 4 MiB, a few milliseconds.
const PAGES_A_STEP: u32 = 256;
/// Automatic compaction starts if at least one part in this many, and this many bytes, are free.
const FREE_SHARE: u64 = 5;
const FREE_BYTES: u64 = 64 << 20;
/// Disk space of a rewrite, in sizes of the store besides the store itself: the copy, and the write-ahead
/// log.
const COPIES: u64 = 2;

/// The result of a compaction.
#[derive(Debug, Clone, Copy)]
pub struct Compaction {
    /// Whether the whole store was rewritten.
    pub rewritten: bool,
    /// Size of the store's files before compaction, in bytes.
    pub store_bytes_before: u64,
    /// The same after compaction, in bytes.
    pub store_bytes_after: u64,
    /// Memory of the indexes before compaction, in bytes.
    pub index_bytes_before: u64,
    /// The same after compaction; a search graph is rebuilt in the background if one is due.
    pub index_bytes_after: u64,
    /// Duration in seconds.
    pub secs: f64,
}

impl Collection {
    /// Gives back unused space. With `full`, the store is rewritten, which also brings related rows close
    /// together; writers wait meanwhile. A store of a version that could not free pages step by step is
    /// always rewritten.
    ///
    /// # Errors
    /// [`BackupError::Running`], [`BackupError::NoRoom`] and others.
    pub async fn compact(&self, full: bool) -> Result<Compaction, LibraryError> {
        let _turn = self.data.keeper.take_turn().await?;
        let began = Instant::now();
        let index_bytes_before = self.index_bytes();
        let index = Arc::clone(&self.searched.index);
        blocking(move || {
            index.compact();
            Ok(())
        })
        .await?;
        let before = self.store.space().await?;
        let rewritten = full || !before.releases;
        if rewritten {
            rewrite(self.store.as_ref(), &before, &self.folder).await?;
        } else {
            self.release_free(|| self.life.stop.is_cancelled()).await?;
        }
        Ok(Compaction {
            rewritten,
            store_bytes_before: before.file_bytes,
            store_bytes_after: self.store.space().await?.file_bytes,
            index_bytes_before,
            index_bytes_after: self.index_bytes(),
            secs: began.elapsed().as_secs_f64(),
        })
    }

    fn index_bytes(&self) -> u64 {
        self.searched.index.stats().iter().map(|index| index.bytes as u64).sum()
    }

    /// Frees pages step by step until none are left or `stop` says so.
    async fn release_free(&self, stop: impl Fn() -> bool) -> Result<(), LibraryError> {
        let mut last = u64::MAX;
        loop {
            let free = self.store.space().await?.free_bytes;
            if free == 0 || free >= last || stop() {
                break;
            }
            last = free;
            self.store.release_pages(PAGES_A_STEP).await?;
        }
        Ok(self.store.checkpoint().await?)
    }
}

async fn rewrite(
    store: &dyn EmbeddedStore,
    space: &StoreSpace,
    data_dir: &std::path::Path,
) -> Result<(), LibraryError> {
    let needed_bytes = space.file_bytes.saturating_sub(space.free_bytes).saturating_mul(COPIES);
    let disk = rustix::fs::statvfs(data_dir).map_err(std::io::Error::from)?;
    let room_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if room_bytes < needed_bytes {
        return Err(BackupError::NoRoom { needed_bytes, room_bytes }.into());
    }
    Ok(store.rewrite().await?)
}

/// Rewrites the store of a folder that no server has open; needs no model. Returns its size in bytes before
/// and after.
///
/// # Errors
/// [`BackupError::NoLibrary`], [`BackupError::NoRoom`], [`LibraryError::StoreBehind`] and others.
pub async fn compact_folder(data_dir: &std::path::Path) -> Result<(u64, u64), LibraryError> {
    let (store, _lock) = open_closed(data_dir).await?;
    let before = store.space().await?;
    rewrite(&store, &before, data_dir).await?;
    let after = store.space().await?.file_bytes;
    store.close().await?;
    Ok((before.file_bytes, after))
}

impl Collection {
    /// Gives back unused space if nobody is waiting and enough is free; `busy`: whether something else is at work.
    pub(crate) async fn compact_if_quiet(&self, busy: impl Fn() -> bool) -> Result<(), LibraryError> {
        let busy = || busy() || self.data.keeper.is_wanted() || self.life.stop.is_cancelled();
        let Some(_turn) = self.data.keeper.take_idle_turn() else { return Ok(()) };
        if busy() {
            return Ok(());
        }
        let index = Arc::clone(&self.searched.index);
        blocking(move || {
            index.compact_if_due();
            Ok(())
        })
        .await?;
        let space = self.store.space().await?;
        let due = space.free_bytes >= FREE_BYTES && space.free_bytes >= space.file_bytes / FREE_SHARE;
        if !due || !space.releases {
            return Ok(());
        }
        self.release_free(busy).await?;
        let after = self.store.space().await?.file_bytes;
        tracing::info!(before_bytes = space.file_bytes, after_bytes = after, "reclaimed free space");
        Ok(())
    }
}
