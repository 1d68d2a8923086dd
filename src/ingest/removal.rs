//! Deletes assets, one or many at once.

use std::path::Path;
use std::sync::Arc;

use super::{Accepting, Expected, Ingest, metrics};
use crate::catalog::Filter;
use crate::collection::{LibraryError, blocking};
use crate::search::SearchError;
use crate::store::{AssetRecord, DeletedAsset, StoreError};
use crate::types::AssetId;

/// Maximum numbers of clips and assets that one transaction deletes, unless a single asset has more clips. A
/// transaction takes some tens of milliseconds, and waiting writers go first between two of them.
const CLIPS_A_BATCH: usize = 512;
const ASSETS_A_BATCH: usize = 64;

/// The result of a deletion.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// Deleted assets, in order of deletion.
    pub assets: Vec<AssetId>,
    /// Number of clips deleted with them.
    pub clips: u64,
}

impl Ingest {
    /// Deletes an asset from store, index and (if owned) disk; stops its indexing first if it is running.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn delete_asset(&self, id: AssetId) -> Result<(), LibraryError> {
        self.delete_expected(id, &Expected::Any).await
    }

    /// Like [`Self::delete_asset`], if the asset is in an expected state.
    ///
    /// # Errors
    /// [`LibraryError::OtherVersion`]; others.
    pub async fn delete_expected(&self, id: AssetId, expected: &Expected) -> Result<(), LibraryError> {
        let record = self.collection.store.asset(id).await?;
        expected.check(&record)?;
        let mut still = expected;
        if let Some(active) = self.active.by_id(id) {
            if let Some(refusal) = self.collection.data.disk.refusal() {
                // The indexing waits for the disk, and so would the deletion.
                return Err(StoreError::from(refusal).into());
            }
            active.cancel.cancel();
            drop(self.work.take(id));
            active.done.cancelled().await;
            // What was just stopped has changed by that alone.
            still = &Expected::Any;
        }
        match self.remove_asset(&record, still).await {
            // The stopped indexing removed it itself.
            Err(LibraryError::Store(StoreError::NotFound(_))) => Ok(()),
            outcome => outcome,
        }
    }

    pub(super) async fn remove_asset(
        &self,
        record: &AssetRecord,
        expected: &Expected,
    ) -> Result<(), LibraryError> {
        let turn = self.accept.turn().await;
        if *expected != Expected::Any {
            expected.check(&self.collection.store.asset(record.id).await?)?;
        }
        self.remove_accepted(&turn, record).await
    }

    /// Like `remove_asset`, in a turn that was taken.
    pub(super) async fn remove_accepted(
        &self,
        turn: &Accepting<'_>,
        record: &AssetRecord,
    ) -> Result<(), LibraryError> {
        self.make_room_to_delete().await?;
        let clips = self.collection.remove_asset(record.id).await?;
        let path = record.owned.then(|| Path::new(&record.path));
        let ticket = self.collection.note_gone([(record.id, path)]).await?;
        self.collection.noted(ticket).await?;
        if self.collection.life.serves() {
            metrics::deleted(1, clips as u64);
        }
        if record.owned {
            self.remove_kept(turn, record.path.as_ref()).await?;
        }
        Ok(())
    }

    /// A deletion writes to the store and the ledger before it frees anything.
    async fn make_room_to_delete(&self) -> Result<(), LibraryError> {
        let disk = Arc::clone(&self.collection.data.disk);
        blocking(move || {
            disk.make_room_to_delete();
            Ok(())
        })
        .await
    }

    /// The assets that match a filter.
    ///
    /// # Errors
    /// [`SearchError::BadFilter`], also if the filter has conditions on clips.
    pub fn matching(&self, filter: &Filter) -> Result<Vec<AssetId>, LibraryError> {
        filter.check_of_assets().map_err(SearchError::BadFilter)?;
        Ok(self.collection.searched.catalog.select_assets(filter))
    }

    /// Number of clips of those of these assets that exist.
    #[must_use]
    pub fn clips_among(&self, ids: &[AssetId]) -> u64 {
        ids.iter().map(|id| self.clip_count(*id) as u64).sum()
    }

    fn clip_count(&self, id: AssetId) -> usize {
        self.collection.searched.catalog.asset(id).map_or(0, |asset| asset.clips.len())
    }

    /// Deletes assets, a few per transaction, and skips those that no longer exist. Indexing that is still
    /// running is stopped first. If it ends early, the deletions made so far stay.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn delete_assets(&self, ids: &[AssetId]) -> Result<Deletion, LibraryError> {
        let mut deletion = Deletion::default();
        for batch in self.batches(ids) {
            if self.collection.life.stop.is_cancelled() {
                return Err(LibraryError::Stopping);
            }
            self.delete_batch(batch, &mut deletion).await?;
        }
        Ok(deletion)
    }

    /// Splits a list into parts that are each deleted in one transaction.
    pub(crate) fn batches<'a>(&self, ids: &'a [AssetId]) -> Vec<&'a [AssetId]> {
        let (mut batches, mut rest) = (Vec::new(), ids);
        while !rest.is_empty() {
            let mut clips = 0;
            let fits = |id: &&AssetId| {
                clips += self.clip_count(**id);
                clips <= CLIPS_A_BATCH
            };
            let count = rest.iter().take(ASSETS_A_BATCH).take_while(fits).count().max(1);
            let (batch, after) = rest.split_at(count);
            batches.push(batch);
            rest = after;
        }
        batches
    }

    pub(crate) async fn delete_batch(
        &self,
        ids: &[AssetId],
        deletion: &mut Deletion,
    ) -> Result<(), LibraryError> {
        let (gone, busy) = self.delete_idle(ids).await?;
        for asset in gone {
            deletion.assets.push(asset.id);
            deletion.clips += asset.clips.len() as u64;
        }
        for id in busy {
            let clips = self.clip_count(id) as u64;
            match self.delete_asset(id).await {
                Ok(()) => {
                    deletion.assets.push(id);
                    deletion.clips += clips;
                }
                Err(LibraryError::Store(StoreError::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes those assets of a batch that are not being indexed; returns the deleted ones and the others.
    async fn delete_idle(&self, ids: &[AssetId]) -> Result<(Vec<DeletedAsset>, Vec<AssetId>), LibraryError> {
        let turn = self.accept.turn().await;
        let (busy, idle): (Vec<AssetId>, Vec<AssetId>) =
            ids.iter().partition(|id| self.active.by_id(**id).is_some());
        self.make_room_to_delete().await?;
        let gone = self.collection.remove_assets(&idle).await?;
        let entries = gone.iter().map(|asset| (asset.id, asset.owned_path.as_deref().map(Path::new)));
        let ticket = self.collection.note_gone(entries).await?;
        self.collection.noted(ticket).await?;
        if self.collection.life.serves() {
            metrics::deleted(gone.len() as u64, gone.iter().map(|asset| asset.clips.len() as u64).sum());
        }
        for path in gone.iter().filter_map(|asset| asset.owned_path.as_deref()) {
            self.remove_kept(&turn, path.as_ref()).await?;
        }
        Ok((gone, busy))
    }

    /// Removes an uploaded file that no row needs any more; during a snapshot, puts the removal off.
    pub(super) async fn remove_kept(&self, _turn: &Accepting<'_>, path: &Path) -> Result<(), LibraryError> {
        // Uploads belong to the serving model.
        if !self.collection.life.serves() || !self.collection.data.keeper.pins.lets_go(path) {
            return Ok(());
        }
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes the files whose removal was put off for a snapshot.
    pub(crate) async fn remove_put_off(&self) {
        let _turn = self.accept.turn().await;
        for path in self.collection.data.keeper.pins.due() {
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::error!(%error, path = %path.display(), "could not remove a deleted upload");
                }
                _ => {}
            }
        }
    }
}
