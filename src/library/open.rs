//! Opens a data folder: takes the lock, opens the store, cleans up after a crash, loads the indexes.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, RwLock, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::opened_store::{adopt_uploads, make_private_folder, open_store};
use super::tracks::{agreement, agreement_space, members_of, segmentation};
use super::{
    Library, LibraryConfig, LibraryError, active, calibrate, checks, content, health, jobs, standing, upkeep,
    witness, worker,
};
use crate::backup::{Keeper, KeeperConfig};
use crate::catalog::Catalog;
use crate::embed::Embedder;
use crate::files::{AllowedRoots, Disk, Quarantine, Uploads, measure};
use crate::index::IndexSet;
use crate::ledger::Ledger;
use crate::outbound::Sources;
use crate::search::{Backgrounds, Comparable};
use crate::store::{AssetState, FolderLock, Store};
use crate::types::{ClipId, Space, Track};
use crate::webhooks::Webhooks;

/// How often to check for changes to save.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);
/// Under steady load, the indexes are saved nevertheless after this long.
const SNAPSHOT_AT_LATEST: Duration = Duration::from_secs(900);
/// How many changes of assets a model beside may lag behind; beyond it, it compares everything.
const CHANGES: usize = 1024;

/// What the models of one data folder share.
pub(super) struct Common {
    pub(super) lock: Arc<FolderLock>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) uploads: Arc<Uploads>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) disk: Arc<Disk>,
    pub(super) webhooks: Arc<Webhooks>,
}

impl Library {
    /// Opens or creates the data folder: takes its lock, migrates, compares the store with the ledger,
    /// reconciles after a crash (drops clips of unfinished assets, clears out files that no asset owns),
    /// loads or rebuilds the indexes. [`Library::start_workers`] resumes unfinished work.
    ///
    /// # Errors
    /// [`LibraryError::StoreBehind`] or [`LibraryError::StoreUnreadable`] if the store has lost what was
    /// acknowledged and the configuration does not allow rebuilding it; others.
    pub async fn open(config: LibraryConfig, embedder: Embedder) -> Result<Arc<Self>, LibraryError> {
        let folder = config.data_dir.clone();
        Self::open_in(&config, &folder, embedder).await
    }

    /// Like `open`, with the store and the indexes in `folder`, within the data folder.
    pub(super) async fn open_in(
        config: &LibraryConfig,
        folder: &Path,
        embedder: Embedder,
    ) -> Result<Arc<Self>, LibraryError> {
        Self::open_locked(config, folder, embedder).await.map_err(LibraryError::at_start)
    }

    async fn open_locked(
        config: &LibraryConfig,
        folder: &Path,
        embedder: Embedder,
    ) -> Result<Arc<Self>, LibraryError> {
        make_private_folder(&config.data_dir)?;
        let lock = Arc::new(FolderLock::take(&config.data_dir)?);
        let data_dir = config.data_dir.canonicalize()?;
        let quarantine = Quarantine::of(&data_dir);
        let disk = Arc::new(Disk::of(&config.data_dir));
        let opened = witness::open_store(config, &data_dir, folder, &embedder, &quarantine, &disk).await?;
        let witness::Opened { store, uploads, ledger } = opened;
        let keeper =
            KeeperConfig { root: config.keep.snapshot_root.clone(), kept: config.keep.snapshots_kept };
        let keeper = Arc::new(Keeper::open(keeper, &config.sources, &config.data_dir)?);
        begin(store.as_ref(), &uploads, &disk).await?;
        measure(&data_dir);
        let webhooks = Arc::new(Webhooks::new(config.webhooks.clone()));
        let common = Common { lock, ledger, uploads, keeper, disk, webhooks };
        Self::assemble(config, folder, embedder, store, common, false).await
    }

    /// Opens another model's vectors beside this library: the same media, but none of the users' settings.
    pub(super) async fn open_beside(
        self: &Arc<Self>,
        folder: &Path,
        embedder: Embedder,
    ) -> Result<Arc<Self>, LibraryError> {
        let store: Arc<dyn Store> = Arc::new(open_store(folder, &embedder).await?);
        // Users' settings belong to the serving model's store; any here are from before a promotion.
        store.clear_work().await?;
        adopt_uploads(store.as_ref(), &self.uploads).await?;
        reconcile(store.as_ref()).await?;
        let common = Common {
            lock: Arc::clone(&self.lock),
            ledger: Arc::clone(&self.ledger),
            uploads: Arc::clone(&self.uploads),
            keeper: Arc::clone(&self.keeper),
            disk: Arc::clone(&self.disk),
            webhooks: Arc::clone(&self.webhooks),
        };
        Self::assemble(&self.config, folder, embedder, store, common, true).await
    }

    async fn assemble(
        config: &LibraryConfig,
        folder: &Path,
        embedder: Embedder,
        store: Arc<dyn Store>,
        common: Common,
        beside: bool,
    ) -> Result<Arc<Self>, LibraryError> {
        let bundle = Arc::clone(embedder.bundle());
        let members: Vec<_> = Track::ALL
            .into_iter()
            .flat_map(|track| {
                members_of(&bundle, track).into_iter().map(move |(space, dim)| (track, space, dim))
            })
            .collect();
        let index_dir = folder.join("index");
        let index = IndexSet::open(&index_dir, bundle.id(), &members, store.as_ref()).await?;
        let backgrounds = Arc::new(Backgrounds::default());
        backgrounds.replace(calibrate::load(&index_dir, &bundle.id().to_string()));
        let agreement_space = agreement_space(&bundle);
        if let Some(space) = &agreement_space {
            match note_agreements(store.as_ref(), space).await {
                // The next start that can will do it.
                Err(error) if common.disk.refuses(&error) => {}
                noted => noted?,
            }
        }
        let catalog = Catalog::load(store.as_ref()).await?;
        let baselines = jobs::Baselines::of_unfinished(store.as_ref()).await?;
        let comparable =
            Comparable::new(bundle.spaces().iter().map(|(space, _)| space), |modality, space| {
                bundle.has(modality, space)
            });
        let standing = standing::StandingQueries::load(store.as_ref(), &bundle, &comparable).await?;
        Ok(Arc::new(Self {
            config: config.clone(),
            folder: folder.to_owned(),
            segmentation: segmentation(&embedder),
            comparable: Arc::new(comparable),
            agreement_space,
            backgrounds,
            recall: Arc::default(),
            index_dir,
            catalog: Arc::new(catalog),
            embedder,
            store,
            index: Arc::new(index),
            roots: AllowedRoots::new(&config.allowed_roots)?,
            sources: Arc::new(Sources::new(config.sources.clone())?),
            lock: common.lock,
            ledger: common.ledger,
            uploads: common.uploads,
            disk: common.disk,
            verified: content::Verified::default(),
            checker: checks::Checker::default(),
            pulse: health::Pulse::default(),
            beside: AtomicBool::new(beside),
            changes: broadcast::Sender::new(CHANGES),
            active: active::ActiveSet::default(),
            work: worker::Work::default(),
            accept_lock: Mutex::new(()),
            commit_gate: RwLock::new(()),
            baselines,
            standing: Arc::new(standing),
            webhooks: common.webhooks,
            keeper: common.keeper,
            unwanted: upkeep::disk::Unwanted::default(),
            retention_turn: Mutex::new(()),
            watch_wake: Notify::new(),
            started: Once::new(),
            serving: Once::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// A working library over the same store and indexes, after this one was stopped.
    pub(super) fn revived(&self) -> Arc<Self> {
        Arc::new(Self {
            config: self.config.clone(),
            folder: self.folder.clone(),
            segmentation: self.segmentation.clone(),
            comparable: Arc::clone(&self.comparable),
            agreement_space: self.agreement_space.clone(),
            backgrounds: Arc::clone(&self.backgrounds),
            index_dir: self.index_dir.clone(),
            catalog: Arc::clone(&self.catalog),
            embedder: self.embedder.clone(),
            store: Arc::clone(&self.store),
            index: Arc::clone(&self.index),
            roots: self.roots.clone(),
            sources: Arc::clone(&self.sources),
            lock: Arc::clone(&self.lock),
            ledger: Arc::clone(&self.ledger),
            uploads: Arc::clone(&self.uploads),
            disk: Arc::clone(&self.disk),
            verified: content::Verified::default(),
            checker: checks::Checker::default(),
            pulse: health::Pulse::default(),
            beside: AtomicBool::new(false),
            changes: self.changes.clone(),
            active: active::ActiveSet::default(),
            work: worker::Work::default(),
            accept_lock: Mutex::new(()),
            commit_gate: RwLock::new(()),
            baselines: jobs::Baselines::default(),
            standing: Arc::clone(&self.standing),
            webhooks: Arc::clone(&self.webhooks),
            recall: Arc::default(),
            keeper: Arc::clone(&self.keeper),
            unwanted: upkeep::disk::Unwanted::default(),
            retention_turn: Mutex::new(()),
            watch_wake: Notify::new(),
            started: Once::new(),
            serving: Once::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }
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

/// Does the first writes of a start; if the disk refuses, puts them off.
async fn begin(store: &dyn Store, uploads: &Uploads, disk: &Disk) -> Result<(), LibraryError> {
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

/// Brings the store to what was acknowledged. Nothing else runs yet.
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

/// Queues assets that were accepted but not finished, as the queue has room.
pub(super) async fn resume_unfinished(library: Arc<Library>) {
    // Only a writable disk guarantees that their clips are gone.
    if !library.disk.writable(&library.stop).await {
        return;
    }
    let unfinished = match library.store.unfinished_assets().await {
        Ok(unfinished) => unfinished,
        Err(error) => {
            tracing::error!(%error, "could not read unfinished assets");
            return;
        }
    };
    for record in unfinished {
        while !library.work.has_room() && !library.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let serial = library.accept_lock.lock().await;
        // A job, or an upload of the same bytes, may have claimed it in the meantime.
        let taken = library.active.by_id(record.id).is_some();
        let state = library.store.asset(record.id).await.map(|asset| asset.state);
        if !taken && matches!(state, Ok(AssetState::Indexing)) && !library.stop.is_cancelled() {
            let claim = library.active.claim(record.id, &record.content_key(), &library.stop);
            library.work.push(claim, record);
        }
        drop(serial);
    }
}

/// Saves the indexes when nothing is being indexed, so that the next start need not rebuild them.
pub(super) async fn snapshot_when_idle(library: Arc<Library>) {
    let mut written = library.store.sequence().await.ok();
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = library.stop.cancelled() => return,
            () = tokio::time::sleep(SNAPSHOT_EVERY) => {}
        }
        if !library.disk.writable(&library.stop).await {
            return;
        }
        let idle = library.active.len() == 0;
        let sequence = library.store.sequence().await.ok();
        if sequence == written || !(idle || last.elapsed() > SNAPSHOT_AT_LATEST) {
            continue;
        }
        let _gate = library.commit_gate.write().await;
        match library.index.snapshot(library.store.as_ref()).await {
            Ok(()) => {
                written = library.store.sequence().await.ok();
                last = Instant::now();
            }
            Err(error) => {
                let error = LibraryError::from(error);
                if !library.disk.refuses(&error) {
                    tracing::error!(%error, "could not save an index");
                }
            }
        }
    }
}
