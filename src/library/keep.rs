//! Deletion of many assets at once.

use std::path::Path;
use std::sync::Arc;

use super::{Library, LibraryError};
use crate::catalog::Filter;
use crate::search::SearchError;
use crate::store::{DeletedAsset, StoreError};
use crate::types::{AssetId, ClipId};

/// What one transaction deletes at most, unless a single asset has more clips: it lasts some tens of
/// milliseconds, and between two of them whoever waits to write goes first.
const CLIPS_A_BATCH: usize = 512;
const ASSETS_A_BATCH: usize = 64;

/// What a deletion took away.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// Assets, in the order they went.
    pub assets: Vec<AssetId>,
    /// Clips that went with them.
    pub clips: u64,
}

impl Library {
    /// The assets that a filter keeps.
    ///
    /// # Errors
    /// [`SearchError::BadFilter`], also where the filter asks for what differs between an asset's clips.
    pub fn matching(&self, filter: &Filter) -> Result<Vec<AssetId>, LibraryError> {
        filter.check_of_assets().map_err(SearchError::BadFilter)?;
        Ok(self.catalog.select_assets(filter))
    }

    /// Clips of these assets, as far as they are there.
    #[must_use]
    pub fn clips_among(&self, ids: &[AssetId]) -> u64 {
        ids.iter().map(|id| self.clip_count(*id) as u64).sum()
    }

    fn clip_count(&self, id: AssetId) -> usize {
        self.catalog.asset(id).map_or(0, |asset| asset.clips.len())
    }

    /// Deletes assets, a few at a time; those that are gone by then are passed over. A running indexing
    /// of one is stopped first. Where it ends early, what is deleted stays deleted.
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

    /// Parts of a list that are each deleted in one transaction.
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

    /// Deletes those assets of a batch that nobody is indexing: what went, and the others.
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

    /// Removes an uploaded file that nobody needs any more; while a snapshot is taken, after that. The
    /// caller holds the lock under which bytes are taken in.
    pub(super) async fn remove_kept(&self, path: &Path) -> Result<(), LibraryError> {
        // They are the serving model's.
        if !self.serves() || !self.keeper.pins.lets_go(path) {
            return Ok(());
        }
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
