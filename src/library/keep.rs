//! Deletes many assets at once.

use std::path::Path;
use std::sync::Arc;

use super::{Library, LibraryError};
use crate::catalog::Filter;
use crate::search::SearchError;
use crate::store::{DeletedAsset, StoreError};
use crate::types::{AssetId, ClipId};

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

impl Library {
    /// The assets that match a filter.
    ///
    /// # Errors
    /// [`SearchError::BadFilter`], also if the filter has conditions on clips.
    pub fn matching(&self, filter: &Filter) -> Result<Vec<AssetId>, LibraryError> {
        filter.check_of_assets().map_err(SearchError::BadFilter)?;
        Ok(self.catalog.select_assets(filter))
    }

    /// Number of clips of those of these assets that exist.
    #[must_use]
    pub fn clips_among(&self, ids: &[AssetId]) -> u64 {
        ids.iter().map(|id| self.clip_count(*id) as u64).sum()
    }

    fn clip_count(&self, id: AssetId) -> usize {
        self.catalog.asset(id).map_or(0, |asset| asset.clips.len())
    }

    /// Deletes assets, a few per transaction, and skips those that no longer exist. Indexing that is still
    /// running is stopped first. If it ends early, the deletions made so far stay.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn delete_assets(&self, ids: &[AssetId]) -> Result<Deletion, LibraryError> {
        let mut deletion = Deletion::default();
        for batch in self.batches(ids) {
            if self.stop.is_cancelled() {
                return Err(LibraryError::Stopping);
            }
            self.delete_batch(batch, &mut deletion).await?;
        }
        Ok(deletion)
    }

    /// Splits a list into parts that are each deleted in one transaction.
    pub(super) fn batches<'a>(&self, ids: &'a [AssetId]) -> Vec<&'a [AssetId]> {
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

    pub(super) async fn delete_batch(
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
        let _serial = self.accept_lock.lock().await;
        let (busy, idle): (Vec<AssetId>, Vec<AssetId>) =
            ids.iter().partition(|id| self.active.by_id(**id).is_some());
        let gate = self.commit_gate.read().await;
        let gone = self.store.delete_assets(&idle).await?;
        let clips: Vec<ClipId> = gone.iter().flat_map(|asset| asset.clips.iter().copied()).collect();
        let index = Arc::clone(&self.index);
        super::blocking(move || {
            index.remove(&clips);
            Ok(())
        })
        .await?;
        for asset in &gone {
            self.catalog.remove_asset(asset.id);
            self.tell(asset.id);
        }
        drop(gate);
        let entries = gone.iter().map(|asset| (asset.id, asset.owned_path.as_deref().map(Path::new)));
        let ticket = self.note_gone(entries).await?;
        self.noted(ticket).await?;
        if self.serves() {
            super::metrics::deleted(
                gone.len() as u64,
                gone.iter().map(|asset| asset.clips.len() as u64).sum(),
            );
        }
        for path in gone.iter().filter_map(|asset| asset.owned_path.as_deref()) {
            self.remove_kept(path.as_ref()).await?;
        }
        Ok((gone, busy))
    }

    /// Removes an uploaded file that no row needs any more; during a snapshot, puts the removal off. The
    /// caller holds the lock under which bytes are accepted.
    pub(super) async fn remove_kept(&self, path: &Path) -> Result<(), LibraryError> {
        // Uploads belong to the serving model.
        if !self.serves() || !self.keeper.pins.lets_go(path) {
            return Ok(());
        }
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
