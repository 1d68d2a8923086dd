//! What an earlier run or a full disk left unfinished.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::active::Claim;
use super::{Accepting, Ingest};
use crate::collection::{LibraryError, adopt_uploads};
use crate::store::{AssetRecord, AssetState, StoreError};
use crate::types::AssetId;

/// How often to check whether the queue has room.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(200);

/// Abandoned assets whose removal failed because the disk was full.
#[derive(Debug, Default)]
pub(super) struct Unwanted(Mutex<Vec<(Claim, AssetRecord)>>);

impl Unwanted {
    fn all(&self) -> MutexGuard<'_, Vec<(Claim, AssetRecord)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an asset as soon as the disk allows.
    pub(super) fn push(&self, claim: Claim, record: AssetRecord) {
        self.all().push((claim, record));
    }

    /// Takes back an abandoned asset that is needed after all.
    pub(super) fn take(&self, _turn: &Accepting<'_>, id: AssetId) -> Option<(Claim, AssetRecord)> {
        let mut unwanted = self.all();
        let at = unwanted.iter().position(|(_, record)| record.id == id)?;
        Some(unwanted.swap_remove(at))
    }

    fn any(&self) -> Option<AssetId> {
        self.all().first().map(|(_, record)| record.id)
    }
}

/// What became of an asset that was to be indexed again.
pub(crate) enum Again {
    /// It is queued to be indexed again.
    Queued,
    /// It is gone, or being indexed anyway.
    NotNeeded,
    /// Its file cannot be read, or contains other bytes.
    Unreadable(Box<AssetRecord>, LibraryError),
}

impl Ingest {
    /// Whether the store accepts writes, as far as disk space is the reason.
    pub(crate) async fn try_store(&self) -> Result<(), LibraryError> {
        match self.collection.store.try_write().await {
            Err(full @ StoreError::StorageFull(_)) => Err(full.into()),
            // Whatever the error is, more room would not fix it.
            Err(error) => {
                tracing::debug!(%error, "could not test whether the store is writable");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Indexes an asset again under its id, in the background.
    pub(crate) async fn index_again(&self, id: AssetId) -> Result<Again, LibraryError> {
        let _turn = self.accept.turn().await;
        let record = match self.collection.store.asset(id).await {
            Err(StoreError::NotFound(_)) => return Ok(Again::NotNeeded),
            found => found?,
        };
        if self.active.by_id(id).is_some() {
            return Ok(Again::NotNeeded);
        }
        if let Err(error) = self.collection.open_content(&record).await {
            return Ok(Again::Unreadable(Box::new(record), error));
        }
        self.collection.drop_clips(id).await?;
        let record = AssetRecord { state: AssetState::Indexing, ..record };
        let claim = self.active.claim(id, &record.content_key(), &self.collection.life.stop);
        self.work.push(claim, record);
        Ok(Again::Queued)
    }

    /// Does the overdue writes, before anything else is written.
    pub(crate) async fn pay_debts(&self) -> Result<(), LibraryError> {
        if self.collection.data.disk.is_start_owed() {
            self.settle_start().await?;
            self.collection.data.disk.start_is_paid();
        }
        while let Some(id) = self.unwanted.any() {
            let turn = self.accept.turn().await;
            let Some((claim, record)) = self.unwanted.take(&turn, id) else { continue };
            match self.remove_accepted(&turn, &record).await {
                Ok(()) | Err(LibraryError::Store(StoreError::NotFound(_))) => drop(claim),
                Err(error) => {
                    self.unwanted.push(claim, record);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Brings the store up to the acknowledged state, after a startup that could not write. Nothing is being
    /// indexed yet.
    async fn settle_start(&self) -> Result<(), LibraryError> {
        adopt_uploads(self.collection.store.as_ref(), &self.collection.data.uploads).await?;
        self.collection.settle_ledger().await?;
        for asset in self.collection.store.unfinished_assets().await? {
            // A request may have claimed the asset in the meantime and be waiting for the disk.
            if self.active.by_id(asset.id).is_none() {
                self.collection.drop_clips(asset.id).await?;
            }
        }
        let requeued = self.collection.store.requeue_running().await?;
        tracing::info!(requeued, "completed the writes postponed at startup");
        Ok(())
    }
}

/// Queues assets that were accepted but not finished, as the queue has room.
pub(super) async fn resume(ingest: Arc<Ingest>) {
    // Only a writable disk guarantees that their clips are gone.
    if !ingest.collection.data.disk.writable(&ingest.collection.life.stop).await {
        return;
    }
    let unfinished = match ingest.collection.store.unfinished_assets().await {
        Ok(unfinished) => unfinished,
        Err(error) => {
            tracing::error!(%error, "could not read unfinished assets");
            return;
        }
    };
    for record in unfinished {
        while !ingest.work.has_room() && !ingest.collection.life.stop.is_cancelled() {
            tokio::time::sleep(ROOM_LOOK_EVERY).await;
        }
        let turn = ingest.accept.turn().await;
        // A job, or an upload of the same bytes, may have claimed it in the meantime.
        let taken = ingest.active.by_id(record.id).is_some();
        let state = ingest.collection.store.asset(record.id).await.map(|asset| asset.state);
        if !taken && matches!(state, Ok(AssetState::Indexing)) && !ingest.collection.life.stop.is_cancelled()
        {
            let claim = ingest.active.claim(record.id, &record.content_key(), &ingest.collection.life.stop);
            ingest.work.push(claim, record);
        }
        drop(turn);
    }
}
