//! A data folder with what all its models share: the uploads, the ledger, the disk, and the ways to other hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::LibraryError;
use super::recovery::{Opened, make_private_folder, open_store};
use super::removals::Removals;
use crate::backup::{KeeperConfig, SnapshotKeeper};
use crate::embed::Embedder;
use crate::files::{AllowedRoots, Disk, Quarantine, Upload, UploadWriter, Uploads};
use crate::formats::{HEAD_BYTES, NameSays, head_is_media, name_says};
use crate::index::GraphEngine;
use crate::jobs::{LeftOut, Place};
use crate::ledger::Ledger;
use crate::outbound::bucket::BucketUrl;
use crate::outbound::{Download, OutboundError, Sources, SourcesConfig};
use crate::own_files;
use crate::store::{EmbeddedStore, FolderLock, StoreError};
use crate::types::AssetId;
use crate::webhooks::{Deliver, Webhooks};

/// How to open a library.
#[derive(Debug, Clone)]
pub struct LibraryConfig {
    /// The data folder (store, uploads, index files); created if absent.
    pub data_dir: PathBuf,
    /// Folders whose files may be indexed by path.
    pub allowed_roots: Vec<PathBuf>,
    /// Number of files decoded in parallel.
    pub ingest_workers: usize,
    /// Sends webhooks; `None`: webhooks are off.
    pub webhooks: Option<Arc<dyn Deliver>>,
    /// Settings for snapshots, retention and compaction.
    pub keep: KeepConfig,
    /// Hosts and buckets that files may be fetched from.
    pub sources: SourcesConfig,
    /// If the store has lost acknowledged changes, index again from the uploads and the ledger.
    pub rebuild_from_uploads: bool,
    /// Where clients read the content of an asset, as webhooks tell it.
    pub content_url: fn(AssetId) -> String,
    /// Largest share of one core for measuring recall; 0: off.
    pub recall_probe_share: f64,
    /// The engine that searches large indexes.
    pub graph: GraphEngine,
}

/// Upkeep of an open library.
#[derive(Debug, Clone, Default)]
pub struct KeepConfig {
    /// Where snapshots are stored, a folder or `s3://bucket/folder`; `None`: snapshots are off.
    pub snapshot_root: Option<String>,
    /// How often to take a scheduled snapshot; `None`: never.
    pub snapshot_every: Option<Duration>,
    /// Number of scheduled snapshots to keep.
    pub snapshots_kept: usize,
    /// How often to apply the retention rules; `None`: only on request.
    pub retention_every: Option<Duration>,
    /// How often to check whether there is space to reclaim; `None`: only on request.
    pub compact_every: Option<Duration>,
    /// How fast to reread the bytes of uploads in the background; 0: not at all.
    pub check_bytes_per_sec: u64,
}

/// An opened data folder. All models in it share it.
pub struct DataFolder {
    pub(crate) config: LibraryConfig,
    /// Held while any of its models is open.
    _lock: FolderLock,
    /// The second record of what was acknowledged.
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) keeper: SnapshotKeeper,
    pub(crate) roots: AllowedRoots,
    pub(crate) sources: Sources,
    pub(crate) webhooks: Arc<Webhooks>,
    pub(super) removals: Removals,
}

impl DataFolder {
    /// Opens or creates the data folder with the store of its serving model, in `folder`: takes the lock,
    /// migrates, compares the store with the ledger.
    pub(super) async fn open(
        config: &LibraryConfig,
        folder: &Path,
        embedder: &Embedder,
    ) -> Result<(Arc<Self>, Arc<dyn EmbeddedStore>), LibraryError> {
        make_private_folder(&config.data_dir)?;
        // Before anything is moved or written: a link would lead elsewhere.
        own_files::check(&config.data_dir, folder)?;
        let lock = FolderLock::take(&config.data_dir)?;
        let data_dir = config.data_dir.canonicalize()?;
        let quarantine = Quarantine::of(&data_dir);
        let disk = Arc::new(Disk::of(&config.data_dir));
        let rebuild_wanted = config.rebuild_from_uploads;
        // Quarantined files are named relative to the resolved folder.
        let folder = data_dir.join(folder.strip_prefix(&config.data_dir).unwrap_or(folder));
        let opened = open_store(rebuild_wanted, &data_dir, &folder, embedder, &quarantine, &disk).await?;
        let Opened { store, uploads, ledger } = opened;
        let keeper =
            KeeperConfig { root: config.keep.snapshot_root.clone(), kept: config.keep.snapshots_kept };
        let data = Self {
            keeper: SnapshotKeeper::open(keeper, &config.sources, &config.data_dir)?,
            roots: AllowedRoots::new(&config.allowed_roots)?,
            sources: Sources::new(config.sources.clone())?,
            webhooks: Arc::new(Webhooks::new(config.webhooks.clone())),
            removals: Removals::default(),
            config: config.clone(),
            _lock: lock,
            ledger,
            uploads,
            disk,
        };
        Ok((Arc::new(data), store))
    }

    /// From now on, calls `observer` with each asset that is removed by any caller. It is called while the
    /// collection is locked: it must be quick and must not remove assets itself.
    pub fn on_removal(&self, observer: impl Fn(AssetId) + Send + Sync + 'static) {
        self.removals.observe(observer);
    }

    /// Checks that a user's path is below an allowed root; returns it with all links resolved, to be opened
    /// with [`crate::files::open_resolved`].
    ///
    /// # Errors
    /// [`FileError::NotAllowed`], [`FileError::Missing`].
    pub fn allowed_path(&self, path: &Path) -> Result<PathBuf, LibraryError> {
        Ok(self.roots.resolve(path)?)
    }

    /// Starts receiving an upload of at most `max_bytes`.
    pub fn begin_upload(&self, max_bytes: u64) -> UploadWriter {
        // While the disk refuses writes, only query files are received here, no uploads.
        if self.disk.refusal().is_some() {
            return UploadWriter::elsewhere(max_bytes);
        }
        UploadWriter::new(&self.uploads, max_bytes)
    }

    /// Refuses early what would leave too little room on the disk.
    ///
    /// # Errors
    /// [`StoreError::StorageFull`].
    pub fn check_disk(&self, bytes: u64) -> Result<(), LibraryError> {
        Ok(self.disk.check_room(bytes).map_err(StoreError::from)?)
    }

    /// Fetches a URL to a temporary, synced file, to be ingested like an upload.
    ///
    /// # Errors
    /// [`LibraryError::Outbound`], [`LibraryError::Io`].
    pub async fn fetch_url(&self, url: &str) -> Result<Upload, LibraryError> {
        let outbound = &self.sources.outbound;
        let url = outbound.check(url)?;
        self.receive(outbound.get(&url, self.sources.max_fetch_bytes).await?, None).await
    }

    pub(crate) async fn fetch_object(&self, place: &str) -> Result<Upload, LibraryError> {
        let BucketUrl { bucket, key } = self.sources.buckets.check_object(place)?;
        let bucket = self.sources.buckets.open(&bucket)?;
        // Found in a listing, not named by a user: its name or its first bytes must be those of media.
        let name = Place::Object(place).name();
        let unsaid = (name_says(&name) != NameSays::Media).then_some(name.as_str());
        self.receive(bucket.get(&key, self.sources.max_fetch_bytes).await?, unsaid).await
    }

    /// Receives a file. If the name does not tell the type, reads only the first bytes unless they are media.
    async fn receive(&self, mut download: Download, unsaid: Option<&str>) -> Result<Upload, LibraryError> {
        let max_bytes = self.sources.max_fetch_bytes;
        self.check_disk(0)?;
        let mut head = Vec::new();
        if let Some(name) = unsaid {
            while head.len() < HEAD_BYTES
                && let Some(bytes) = download.next().await?
            {
                head.extend_from_slice(&bytes);
            }
            if !head_is_media(name, head.get(..HEAD_BYTES).unwrap_or(&head)) {
                return Err(LibraryError::LeftOut(LeftOut::not_media()));
            }
        }
        let mut writer = self.begin_upload(max_bytes);
        writer.write(&head).await?;
        while let Some(bytes) = download.next().await? {
            writer.write(&bytes).await?;
        }
        let upload = writer.finish().await?;
        if upload.content.size_bytes == 0 {
            let (host, reason) = (download.host().to_owned(), "sent an empty file".to_owned());
            return Err(OutboundError::Refused { host, reason }.into());
        }
        Ok(upload)
    }
}
