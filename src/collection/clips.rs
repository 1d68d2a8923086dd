//! Changes of clips: store, catalog and indexes change together.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::tracks::agreement;
use super::{Collection, LibraryError, blocking};
use crate::catalog::ClipEntry;
use crate::embed::{ClipVectors, Vectors};
use crate::store::{ClipVector, DeletedAsset, NewClip};
use crate::types::{AssetId, ClipId, Track};

/// A change of clips takes it for reading, for both the store and the index. Saving the indexes, which must
/// see both changes or neither, takes it for writing.
#[derive(Debug, Default)]
pub(super) struct Gate(RwLock<()>);

impl Gate {
    async fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    async fn saving(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().await
    }
}

/// How long a change of clips took, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChangeSecs {
    /// Seconds spent in the store.
    pub(crate) store: f64,
    /// Seconds spent in the index.
    pub(crate) index: f64,
}

impl Collection {
    /// Commits clips of an asset, then makes them searchable.
    pub(crate) async fn add_clips(
        &self,
        asset: AssetId,
        clips: Vec<NewClip>,
    ) -> Result<ChangeSecs, LibraryError> {
        let _changing = self.gate.changing().await;
        let began = Instant::now();
        let ids = self.store.add_clips(asset, &clips).await?;
        let stored = Instant::now();
        let index = Arc::clone(&self.searched.index);
        let entry = |(id, clip): (&ClipId, &NewClip)| ClipEntry {
            id: *id,
            span: clip.span,
            agreement: clip.agreement,
        };
        // Before the vectors: the catalog must contain every clip that the index finds.
        self.searched.catalog.add_clips(asset, &ids.iter().zip(&clips).map(entry).collect::<Vec<_>>());
        blocking(move || {
            for (id, clip) in ids.into_iter().zip(&clips) {
                index.upsert(id, &clip.vectors)?;
            }
            Ok(())
        })
        .await?;
        Ok(ChangeSecs { store: (stored - began).as_secs_f64(), index: stored.elapsed().as_secs_f64() })
    }

    /// Replaces the damaged vectors of a clip.
    pub(crate) async fn mend_clip(&self, clip: ClipId, vectors: &[ClipVector]) -> Result<(), LibraryError> {
        let _changing = self.gate.changing().await;
        self.store.put_vectors(clip, vectors).await?;
        self.searched.index.upsert(clip, vectors)?;
        self.searched.index.mended(clip);
        Ok(())
    }

    /// Removes an asset with its clips and notifies the observers; returns the number of clips.
    pub(crate) async fn remove_asset(&self, id: AssetId) -> Result<usize, LibraryError> {
        let _changing = self.gate.changing().await;
        let clips = self.store.delete_asset(id).await?;
        self.searched.index.remove(&clips);
        self.removed(id);
        Ok(clips.len())
    }

    /// Removes assets with their clips in one transaction and notifies the observers.
    pub(crate) async fn remove_assets(&self, ids: &[AssetId]) -> Result<Vec<DeletedAsset>, LibraryError> {
        let _changing = self.gate.changing().await;
        let gone = self.store.delete_assets(ids).await?;
        let clips: Vec<ClipId> = gone.iter().flat_map(|asset| asset.clips.iter().copied()).collect();
        let index = Arc::clone(&self.searched.index);
        blocking(move || {
            index.remove(&clips);
            Ok(())
        })
        .await?;
        for asset in &gone {
            self.removed(asset.id);
        }
        Ok(gone)
    }

    /// An asset is gone from the store and the indexes.
    fn removed(&self, id: AssetId) {
        self.searched.catalog.remove_asset(id);
        self.life.tell(id);
        // A model beside repeats the deletions of the serving one.
        if self.life.serves() {
            self.data.removals.tell(id);
        }
    }

    /// Saves the indexes; returns the store's sequence number that they belong to.
    pub(crate) async fn save_indexes(&self) -> Result<Option<i64>, LibraryError> {
        let _saving = self.gate.saving().await;
        self.searched.index.snapshot(self.store.as_ref()).await?;
        Ok(self.store.sequence().await.ok())
    }

    pub(crate) fn new_clip(&self, clip: ClipVectors) -> NewClip {
        let of = |(track, vectors): (Track, Option<Vectors>)| {
            vectors.into_iter().flatten().map(move |(space, vector)| ClipVector { track, space, vector })
        };
        let vectors: Vec<_> = clip.tracks.into_iter().flat_map(of).collect();
        let space = self.agreement_space.as_ref();
        let agreement = space.and_then(|space| agreement(&vectors, space));
        NewClip { span: clip.span, vectors, agreement }
    }

    pub(crate) async fn drop_clips(&self, id: AssetId) -> Result<(), LibraryError> {
        let _changing = self.gate.changing().await;
        let clips = self.store.reset_asset(id).await?;
        self.searched.index.remove(&clips);
        self.searched.catalog.drop_clips(id);
        Ok(())
    }
}
