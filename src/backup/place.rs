//! A destination of snapshots, used while no library is open.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::bucket::InBucket;
use super::destination::{Destination, Meter};
use super::folder::Folder;
use super::view::{Running, SnapshotView};
use super::{BackupError, Restored, SnapshotOptions, create, list, restore};
use crate::files::{Registry, shortfall_of};
use crate::ledger::Ledger;
use crate::outbound::SourcesConfig;
use crate::own_files;
use crate::sqlite::{DATABASE, SqliteStore};
use crate::store::{EmbeddedStore, FolderLock, StoreError};
use crate::types::SnapshotId;

/// Opens the destination that a setting names, creating a folder if absent.
pub(super) fn destination_at(
    root: &str,
    sources: &SourcesConfig,
) -> Result<Arc<dyn Destination>, BackupError> {
    if root.starts_with("s3://") {
        return Ok(Arc::new(InBucket::open(root, sources)?));
    }
    Ok(Arc::new(Folder::make(Path::new(root))?))
}

/// Refuses a folder in the data folder: it would be lost together with the data, and the data folder contains
/// only the server's own files.
pub(super) fn refuse_within(root: &str, data_dir: &Path) -> Result<(), BackupError> {
    if root.starts_with("s3://") {
        return Ok(());
    }
    let (root, data_dir) = (std::path::absolute(root)?, std::path::absolute(data_dir)?);
    let real = |path: &Path| {
        let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
        match there {
            Some((above, real)) => {
                path.strip_prefix(above).map_or_else(|_| real.clone(), |rest| real.join(rest))
            }
            None => path.to_owned(),
        }
    };
    if real(&root).starts_with(real(&data_dir)) {
        let message =
            format!("{} is inside the data folder; choose a folder outside it for snapshots", root.display());
        return Err(BackupError::Destination(message));
    }
    Ok(())
}

/// A destination of snapshots.
pub struct SnapshotPlace(Arc<dyn Destination>);

impl SnapshotPlace {
    /// Opens the destination at this root: a folder, or `s3://bucket/folder`.
    ///
    /// # Errors
    /// [`BackupError::Destination`].
    pub fn open(root: &str, sources: &SourcesConfig) -> Result<Self, BackupError> {
        Ok(Self(destination_at(root, sources)?))
    }

    /// Finds the destination that contains a snapshot's own folder; returns it and the snapshot's id.
    ///
    /// # Errors
    /// [`BackupError::NotFound`] if the path is not a snapshot's folder.
    pub fn of_folder(path: &Path) -> Result<(Self, SnapshotId), BackupError> {
        let missing = || BackupError::NotFound(path.display().to_string());
        let real = path.canonicalize().map_err(|_| missing())?;
        let id = real.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let root = real.parent().filter(|above| above.ends_with("snapshots")).and_then(Path::parent);
        let (id, root) = id.zip(root).ok_or_else(missing)?;
        Ok((Self(Arc::new(Folder::at(root)?)), id))
    }

    /// Every snapshot, newest first.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn list(&self) -> Result<Vec<SnapshotView>, BackupError> {
        list(self.0.as_ref()).await
    }

    /// Takes a snapshot of a data folder that no server has open; no model is needed.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn create(
        &self,
        data_dir: &Path,
        options: SnapshotOptions,
    ) -> Result<SnapshotView, BackupError> {
        let folder = Registry::serving_folder(data_dir)?;
        own_files::check(data_dir, &folder)?;
        if !folder.join(DATABASE).is_file() {
            return Err(BackupError::NoLibrary(data_dir.display().to_string()));
        }
        if let Some(root) = self.0.folder() {
            refuse_within(&root.display().to_string(), data_dir)?;
        }
        let _folder_lock = FolderLock::take(data_dir)?;
        match shortfall_of(data_dir, &folder, &Ledger::read(data_dir)?, false).await {
            Ok(Some(shortfall)) => return Err(BackupError::StoreBehind(shortfall)),
            // Reading the store reports it.
            Ok(None) | Err(StoreError::Malformed(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let store = Arc::new(SqliteStore::open_locked(&folder, None).await?);
        let data_dir = data_dir.canonicalize()?;
        store.adopt_uploads(&data_dir.join("uploads")).await?;
        let scratch = data_dir.join("tmp");
        super::folder::make_folder(&scratch)?;
        let source = create::Source { store, index_dir: folder.join("index"), scratch };
        let _lock = self.0.lock().await?;
        let running = Running::begin(options.scheduled, CancellationToken::new());
        let manifest = create::create(&source, self.0.as_ref(), &running, options).await;
        if manifest.is_err() {
            create::remove_files(self.0.as_ref(), running.id).await?;
        }
        Ok(SnapshotView::ready(&manifest?))
    }

    /// Reads every byte of a snapshot; returns an error for each file that does not match its checksum.
    ///
    /// # Errors
    /// [`BackupError::NotFound`], [`BackupError::Damaged`] if the manifest itself is damaged, and others.
    pub async fn verify(&self, id: SnapshotId) -> Result<Vec<BackupError>, BackupError> {
        let manifest = restore::wanted_manifest(self.0.as_ref(), &id.to_string()).await?;
        restore::verify(self.0.as_ref(), &manifest, &Arc::new(Meter::default())).await
    }

    /// Restores a snapshot as a new data folder; the folder must be empty or not exist.
    ///
    /// # Errors
    /// [`BackupError::NotFound`], [`BackupError::Damaged`], [`BackupError::NotEmpty`] and others.
    pub async fn restore(&self, id: SnapshotId, data_dir: &Path) -> Result<Restored, BackupError> {
        restore::restore(self.0.as_ref(), &id.to_string(), data_dir, &Arc::new(Meter::default())).await
    }

    /// Deletes a snapshot and the media that no other snapshot needs.
    ///
    /// # Errors
    /// [`BackupError::NotFound`] and others.
    pub async fn delete(&self, id: SnapshotId) -> Result<(), BackupError> {
        let _lock = self.0.lock().await?;
        create::delete(self.0.as_ref(), &id.to_string()).await
    }
}
