//! Opening a data folder: lock, store, what a crash left behind, indexes.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Library, LibraryConfig, LibraryError, active, calibrate, jobs, paths, standing, uploads, worker,
};
use crate::catalog::Catalog;
use crate::embed::Embedder;
use crate::index::IndexSet;
use crate::model::Bundle;
use crate::search::{Backgrounds, Comparable};
use crate::store::{AssetState, SqliteStore, Store};
use crate::types::{ClipId, Embedding, Space, Track};

/// How often changes are looked for.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);
/// Under steady load a snapshot is written nevertheless after this long.
const SNAPSHOT_AT_LATEST: Duration = Duration::from_secs(900);

impl Library {
    /// Opens or creates the data folder: takes its lock, migrates, reconciles after a crash
    /// (clips of unfinished assets are dropped, orphaned uploads removed), loads or rebuilds the
    /// indexes. Unfinished work goes on with [`Library::start_workers`].
    ///
    /// # Errors
    /// [`LibraryError`].
    pub async fn open(config: LibraryConfig, embedder: Embedder) -> Result<Arc<Self>, LibraryError> {
        let roots = paths::AllowedRoots::new(&config.allowed_roots)?;
        make_private_folder(&config.data_dir)?;
        let bundle = Arc::clone(embedder.bundle());
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.data_dir, bundle.id()).await?);
        // Only now: the store holds the folder's lock, so nobody else's uploads are in it.
        let uploads = Arc::new(uploads::Uploads::open(&config.data_dir)?);
        reconcile(store.as_ref(), &uploads).await?;
        let members: Vec<_> = Track::ALL
            .into_iter()
            .flat_map(|track| {
                members_of(&bundle, track).into_iter().map(move |(space, dim)| (track, space, dim))
            })
            .collect();
        let index_dir = config.data_dir.join("index");
        let index = IndexSet::open(&index_dir, bundle.id(), &members, store.as_ref()).await?;
        let backgrounds = Arc::new(Backgrounds::default());
        backgrounds.replace(calibrate::load(&index_dir, &bundle.id().to_string()));
        let agreement_space = agreement_space(&bundle);
        if let Some(space) = &agreement_space {
            note_agreements(store.as_ref(), space).await?;
        }
        let catalog = Catalog::load(store.as_ref()).await?;
        let baselines = jobs::Baselines::of_unfinished(store.as_ref()).await?;
        let comparable =
            Comparable::new(bundle.spaces().iter().map(|(space, _)| space), |modality, space| {
                bundle.has(modality, space)
            });
        let standing = standing::StandingQueries::load(store.as_ref(), &bundle, &comparable).await?;
        Ok(Arc::new(Self {
            segmentation: segmentation(&embedder),
            comparable: Arc::new(comparable),
            agreement_space,
            backgrounds,
            index_dir,
            catalog: Arc::new(catalog),
            embedder,
            store,
            index: Arc::new(index),
            roots,
            uploads,
            ingest_workers: config.ingest_workers,
            active: active::ActiveSet::default(),
            work: worker::Work::default(),
            accept_lock: Mutex::new(()),
            commit_gate: RwLock::new(()),
            baselines,
            standing: Arc::new(standing),
            webhooks: config.webhooks,
            started: Once::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }
}

/// The spaces (with their lengths) a track has vectors in. A picture's vectors are on the video track.
pub(super) fn members_of(bundle: &Bundle, track: Track) -> Vec<(Space, usize)> {
    use crate::types::Modality;
    let serves = |space: &Space| {
        bundle.has(track.modality(), space) || (track == Track::Video && bundle.has(Modality::Image, space))
    };
    bundle.spaces().iter().filter(|(space, _)| serves(space)).cloned().collect()
}

/// The finest space that sound and picture share: where it is told how well a clip's own two agree.
fn agreement_space(bundle: &Bundle) -> Option<Space> {
    let serves = |space: &Space| Track::ALL.iter().all(|track| bundle.has(track.modality(), space));
    bundle.spaces().iter().map(|(space, _)| space).find(|space| serves(space)).cloned()
}

/// Notes the agreements of clips from before they were noted.
async fn note_agreements(store: &dyn Store, space: &Space) -> Result<(), LibraryError> {
    let mut after = ClipId(0);
    loop {
        let clips = store.clips_without_agreement(after, 1000).await?;
        let Some(last) = clips.last() else { return Ok(()) };
        after = *last;
        let mut found = Vec::with_capacity(clips.len());
        for clip in clips {
            // A damaged vector is reported where the index is opened.
            let vectors = store.clip_vectors(clip).await.unwrap_or_default();
            found.extend(agreement(&vectors, space).map(|agreement| (clip, agreement)));
        }
        store.set_agreements(&found).await?;
    }
}

/// Cosine of a clip's own sound and picture.
pub(super) fn agreement(vectors: &[(Track, Space, Embedding)], space: &Space) -> Option<f32> {
    let of = |track| vectors.iter().find(|(t, s, _)| *t == track && s == space).map(|(.., vector)| vector);
    Some(of(Track::Video)?.cosine(of(Track::Audio)?))
}

/// How assets are cut is part of their identity.
fn segmentation(embedder: &Embedder) -> String {
    let spec = embedder.bundle().clip_spec(embedder.stride_secs);
    let window = if spec.fps > 0.0 { spec.frames as f64 / spec.fps } else { 0.0 };
    format!("w{window}/s{}", spec.stride_secs)
}

fn make_private_folder(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Brings store and disk to what was acknowledged. Nothing else runs yet.
async fn reconcile(store: &dyn Store, uploads: &Arc<uploads::Uploads>) -> Result<(), LibraryError> {
    for asset in store.unfinished_assets().await? {
        store.reset_asset(asset.id).await?;
    }
    let requeued = store.requeue_running().await?;
    if requeued > 0 {
        tracing::info!(requeued, "unfinished items of jobs go on");
    }
    let owned = owned_paths(store).await?;
    let uploads = Arc::clone(uploads);
    let removed = super::blocking(move || Ok(uploads.remove_orphans(&owned)?)).await?;
    if removed > 0 {
        tracing::info!(removed, "uploads that were never acknowledged are removed");
    }
    Ok(())
}

async fn owned_paths(store: &dyn Store) -> Result<HashSet<PathBuf>, LibraryError> {
    let mut owned = HashSet::new();
    let mut after = None;
    loop {
        let page = store.list_assets(after, 1000).await?;
        let Some(last) = page.last() else { return Ok(owned) };
        after = Some(last.id);
        for asset in page.into_iter().filter(|asset| asset.owned) {
            let path = PathBuf::from(asset.path);
            if !path.exists() {
                tracing::warn!(asset = %asset.id, "the bytes of an uploaded asset are missing from the data folder");
            }
            owned.insert(path);
        }
    }
}

/// Queues what was accepted but not finished, as room comes.
pub(super) async fn resume_unfinished(library: Arc<Library>) {
    let unfinished = match library.store.unfinished_assets().await {
        Ok(unfinished) => unfinished,
        Err(error) => {
            tracing::error!(%error, "unfinished assets could not be read");
            return;
        }
    };
    for record in unfinished {
        while !library.work.has_room() && !library.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let serial = library.accept_lock.lock().await;
        // A job, or a person who sends the same bytes, may have taken it up meanwhile.
        let taken = library.active.by_id(record.id).is_some();
        let state = library.store.asset(record.id).await.map(|asset| asset.state);
        if !taken && matches!(state, Ok(AssetState::Indexing)) && !library.stop.is_cancelled() {
            let claim = library.active.claim(record.id, &record.sha256, &library.stop);
            library.work.push(claim, record);
        }
        drop(serial);
    }
}

/// Writes snapshots when nothing is being indexed, so that the next start need not rebuild.
pub(super) async fn snapshot_when_idle(library: Arc<Library>) {
    let mut written = library.store.sequence().await.ok();
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = library.stop.cancelled() => return,
            () = tokio::time::sleep(SNAPSHOT_EVERY) => {}
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
            Err(error) => tracing::error!(%error, "an index snapshot could not be written"),
        }
    }
}
