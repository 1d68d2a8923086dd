//! Watches the disk of the data folder. While it refuses writes, background work waits instead of failing, and resumes
//! by itself once there is room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::library::active::Claim;
use crate::library::{Library, LibraryError, opened_store};
use crate::store::{AssetRecord, StorageFull, StoreError};
use crate::types::AssetId;

/// Write failures within a moment of each other lead to one check.
const TOGETHER: Duration = Duration::from_millis(100);

/// Abandoned assets whose removal failed because the disk was full.
#[derive(Debug, Default)]
pub(in crate::library) struct Unwanted(Mutex<Vec<(Claim, AssetRecord)>>);

impl Unwanted {
    fn all(&self) -> MutexGuard<'_, Vec<(Claim, AssetRecord)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an asset as soon as the disk allows.
    pub(in crate::library) fn push(&self, claim: Claim, record: AssetRecord) {
        self.all().push((claim, record));
    }

    /// Takes back an abandoned asset that is wanted after all. The caller holds the lock under which bytes
    /// are accepted.
    pub(in crate::library) fn take(&self, id: AssetId) -> Option<(Claim, AssetRecord)> {
        let mut unwanted = self.all();
        let at = unwanted.iter().position(|(_, record)| record.id == id)?;
        Some(unwanted.swap_remove(at))
    }

    fn any(&self) -> Option<AssetId> {
        self.all().first().map(|(_, record)| record.id)
    }
}

/// Watches the disk while the library is open.
pub(in crate::library) async fn keep_watch(library: Arc<Library>) {
    let mut met = StorageFull::watch();
    loop {
        let failed = tokio::select! {
            () = library.stop.cancelled() => return,
            () = tokio::time::sleep(library.disk.wait()) => false,
            // A write failed, here or elsewhere.
            changed = met.changed(), if library.disk.refusal().is_none() => {
                tokio::time::sleep(TOGETHER).await;
                changed.is_ok()
            }
        };
        if let Err(error) = library.disk.look(failed, library.try_store(), library.pay_debts()).await {
            tracing::error!(code = error.code(), %error, "could not catch up on work that the full disk had stopped");
        }
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

    async fn try_store(&self) -> Result<(), LibraryError> {
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
        if self.disk.is_start_owed() {
            self.settle_start().await?;
            self.disk.start_is_paid();
        }
        while let Some(id) = self.unwanted.any() {
            let _serial = self.accept_lock.lock().await;
            let Some((claim, record)) = self.unwanted.take(id) else { continue };
            match self.remove_accepted(&record).await {
                Ok(()) | Err(LibraryError::Store(StoreError::NotFound(_))) => drop(claim),
                Err(error) => {
                    self.unwanted.push(claim, record);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Brings the store up to what was acknowledged, after a start that could not write. Nothing is being
    /// indexed yet.
    async fn settle_start(&self) -> Result<(), LibraryError> {
        opened_store::adopt_uploads(self.store.as_ref(), &self.uploads).await?;
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
}
