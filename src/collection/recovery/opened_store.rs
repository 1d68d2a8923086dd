//! Opens the store of a model's folder, and brings its paths up to date.

use std::path::Path;

use crate::collection::LibraryError;
use crate::embed::Embedder;
use crate::files::Uploads;
use crate::store::{EmbeddedStore, SqliteStore};

pub(in crate::collection) async fn open_model_store(
    folder: &Path,
    embedder: &Embedder,
) -> Result<SqliteStore, LibraryError> {
    make_private_folder(folder)?;
    Ok(SqliteStore::open_locked(folder, Some(embedder.bundle().id())).await?)
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
