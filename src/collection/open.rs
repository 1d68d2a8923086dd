//! Opens a collection: brings the store up to date, loads or rebuilds the indexes and the catalog.

use std::path::Path;
use std::sync::Arc;

use super::clips::Gate;
use super::content::Verified;
use super::life::Life;
use super::recovery::open_model_store;
use super::tracks::{agreement, agreement_space, members_of};
use super::{Collection, DataFolder, LibraryConfig, LibraryError, adopt_uploads, blocking, calibrate};
use crate::catalog::Catalog;
use crate::embed::Embedder;
use crate::files::{Disk, LOST_AND_FOUND, Quarantine, Uploads, measure, move_away};
use crate::index::{IndexSet, IndexSpec};
use crate::own_files;
use crate::search::{Backgrounds, Comparable, Corpus};
use crate::store::{EmbeddedStore, Store};
use crate::types::{ClipId, Space, Track};

impl Collection {
    /// Opens or creates the data folder with its serving model, with the store and indexes in `folder`: takes
    /// its lock, migrates, compares the store with the ledger, reconciles after a crash (drops clips of
    /// unfinished assets, clears out files that no asset owns), loads or rebuilds the indexes.
    ///
    /// # Errors
    /// [`LibraryError::StoreBehind`] or [`LibraryError::StoreUnreadable`] if the store has lost acknowledged
    /// changes and the configuration does not allow rebuilding it; others.
    pub(crate) async fn open(
        config: &LibraryConfig,
        folder: &Path,
        embedder: Embedder,
    ) -> Result<Arc<Self>, LibraryError> {
        let (data, store) = DataFolder::open(config, folder, &embedder).await?;
        begin(store.as_ref(), &data.uploads, &data.disk).await?;
        measure(&config.data_dir.canonicalize()?);
        let opened = Self::assemble(folder, embedder, store, data, false).await?;
        // Before the first answer about the health of the uploads.
        if let Err(error) = opened.compare_uploads().await
            && !opened.data.disk.refuses(&error)
        {
            tracing::warn!(%error, "could not record which uploads are missing");
        }
        Ok(opened)
    }

    /// Opens another model's vectors beside this collection: the same media, but none of the users' settings.
    pub(crate) async fn open_beside(
        &self,
        folder: &Path,
        embedder: Embedder,
    ) -> Result<Arc<Self>, LibraryError> {
        own_files::check_store(&self.data.config.data_dir, folder)?;
        let store: Arc<dyn EmbeddedStore> = Arc::new(open_model_store(folder, &embedder).await?);
        // Users' settings belong to the serving model's store; any here are from before a promotion.
        store.clear_work().await?;
        adopt_uploads(store.as_ref(), &self.data.uploads).await?;
        reconcile(store.as_ref()).await?;
        Self::assemble(folder, embedder, store, Arc::clone(&self.data), true).await
    }

    async fn assemble(
        folder: &Path,
        embedder: Embedder,
        store: Arc<dyn EmbeddedStore>,
        data: Arc<DataFolder>,
        beside: bool,
    ) -> Result<Arc<Self>, LibraryError> {
        let bundle = Arc::clone(embedder.bundle());
        let members: Vec<_> = Track::ALL
            .into_iter()
            .flat_map(|track| {
                members_of(&bundle, track)
                    .into_iter()
                    .map(move |(space, dim)| IndexSpec::new(track, space, dim))
            })
            .collect();
        let index_dir = super::index_dir(folder);
        clear_index(&data, &index_dir).await?;
        let graph = data.config.graph;
        let index = IndexSet::open_with_graph(
            graph,
            graph.pays_from(),
            &index_dir,
            bundle.id(),
            &members,
            store.as_ref(),
        )
        .await?;
        let backgrounds = Arc::new(Backgrounds::default());
        backgrounds.replace(calibrate::load(&index_dir, &bundle.id().to_string()));
        let agreement_space = agreement_space(&bundle);
        if let Some(space) = &agreement_space {
            match note_agreements(store.as_ref(), space).await {
                // The next start that can will do it.
                Err(error) if data.disk.refuses(&error) => {}
                noted => noted?,
            }
        }
        let catalog = Catalog::load(store.as_ref()).await?;
        let comparable =
            Comparable::new(bundle.spaces().iter().map(|(space, _)| space), |modality, space| {
                bundle.has(modality, space)
            });
        let searched = Corpus {
            catalog: Arc::new(catalog),
            index: Arc::new(index),
            comparable: Arc::new(comparable),
            backgrounds,
        };
        Ok(Arc::new(Self {
            data,
            embedder,
            store,
            searched,
            folder: folder.to_owned(),
            agreement_space,
            gate: Gate::default(),
            verified: Verified::default(),
            recall: Arc::default(),
            life: Life::new(beside),
        }))
    }

    /// The same store and indexes for new work, after the work on this one was stopped.
    pub(crate) fn revived(&self) -> Arc<Self> {
        Arc::new(Self {
            data: Arc::clone(&self.data),
            embedder: self.embedder.clone(),
            store: Arc::clone(&self.store),
            searched: self.searched.clone(),
            folder: self.folder.clone(),
            agreement_space: self.agreement_space.clone(),
            gate: Gate::default(),
            verified: Verified::default(),
            recall: Arc::default(),
            life: self.life.revived(),
        })
    }
}

/// Moves anything but index files out of the way of those to be written.
async fn clear_index(data: &DataFolder, index_dir: &Path) -> Result<(), LibraryError> {
    let data_dir = data.config.data_dir.canonicalize()?;
    let index_dir = match index_dir.canonicalize() {
        Ok(index_dir) => index_dir,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    blocking(move || {
        let quarantine = Quarantine::of(&data_dir);
        if !index_dir.is_dir() {
            move_away(&quarantine, &index_dir, "it is not a folder of indexes");
            return Ok(());
        }
        for entry in std::fs::read_dir(&index_dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_file() && entry.file_name() != LOST_AND_FOUND {
                move_away(&quarantine, &entry.path(), "it is not an index file");
            }
        }
        Ok(())
    })
    .await
}

/// Computes the missing agreements of clips stored by an earlier version.
async fn note_agreements(store: &dyn Store, space: &Space) -> Result<(), LibraryError> {
    let mut after = ClipId(0);
    loop {
        let clips = store.clips_without_agreement(after, 1000).await?;
        let Some(last) = clips.last() else { return Ok(()) };
        after = *last;
        let mut found = Vec::with_capacity(clips.len());
        for clip in clips {
            // The opening of the index reports damaged vectors.
            let vectors = store.clip_vectors(clip).await.unwrap_or_default();
            found.extend(agreement(&vectors, space).map(|agreement| (clip, agreement)));
        }
        store.set_agreements(&found).await?;
    }
}

/// Does the first writes at startup; postpones them if the disk refuses.
async fn begin(store: &dyn EmbeddedStore, uploads: &Uploads, disk: &Disk) -> Result<(), LibraryError> {
    let begun = async {
        adopt_uploads(store, uploads).await?;
        reconcile(store).await
    };
    match begun.await {
        Err(error) => match error.storage_full() {
            Some(full) => {
                disk.owe_start(full);
                Ok(())
            }
            None => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

/// Brings the store up to the acknowledged state. Nothing else runs yet.
async fn reconcile(store: &dyn Store) -> Result<(), LibraryError> {
    for asset in store.unfinished_assets().await? {
        store.reset_asset(asset.id).await?;
    }
    let requeued = store.requeue_running().await?;
    if requeued > 0 {
        tracing::info!(requeued, "resuming unfinished items of jobs");
    }
    Ok(())
}
