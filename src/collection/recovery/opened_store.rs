//! Opens the store of a model's folder, and brings its paths up to date.

use std::path::Path;

use crate::backup::BackupError;
use crate::collection::LibraryError;
use crate::embed::Embedder;
use crate::files::{Registry, Uploads, shortfall_of};
use crate::ledger::Ledger;
use crate::own_files;
use crate::sqlite::{DATABASE, SqliteStore};
use crate::store::{EmbeddedStore, FolderLock, StoreError};

pub(in crate::collection) async fn open_model_store(
    folder: &Path,
    embedder: &Embedder,
) -> Result<SqliteStore, LibraryError> {
    make_private_folder(folder)?;
    Ok(SqliteStore::open_locked(folder, Some(embedder.bundle().id())).await?)
}

/// Opens the store of a data folder that no server has open, whatever its model, with the folder's lock. A store that
/// has lost acknowledged changes is refused: closing it would change it.
pub(in crate::collection) async fn open_closed(
    data_dir: &Path,
) -> Result<(SqliteStore, FolderLock), LibraryError> {
    let folder = Registry::serving_folder(data_dir)?;
    own_files::check(data_dir, &folder)?;
    if !folder.join(DATABASE).is_file() {
        return Err(BackupError::NoLibrary(data_dir.display().to_string()).into());
    }
    let lock = FolderLock::take(data_dir)?;
    match shortfall_of(data_dir, &folder, &Ledger::read(data_dir)?, false).await {
        Ok(Some(shortfall)) => return Err(LibraryError::StoreBehind(shortfall)),
        // The next read reports the damage.
        Ok(None) | Err(StoreError::Malformed(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok((SqliteStore::open_locked(&folder, None).await?, lock))
}

pub(in crate::collection) fn make_private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Updates the paths of uploads: the folder may have been moved, or restored from a snapshot of one
/// elsewhere.
pub(crate) async fn adopt_uploads(store: &dyn EmbeddedStore, uploads: &Uploads) -> Result<(), LibraryError> {
    let moved = store.adopt_uploads(uploads.kept_folder()).await?;
    if moved > 0 {
        tracing::info!(moved, "the data folder has moved; using its new path for uploads");
    }
    Ok(())
}
