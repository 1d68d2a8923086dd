//! Opens the bundle of a model, and the model that serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ModelsConfig, OpenEmbedder};
use crate::collection::{LibraryError, blocking};
use crate::embed::{EmbedError, Embedder};
use crate::files::{Known, Registry};
use crate::library::Library;
use crate::store::StoreError;

pub(super) async fn open_bundle(open: &OpenEmbedder, path: &Path) -> Result<Embedder, LibraryError> {
    let (open, path) = (Arc::clone(open), path.to_owned());
    blocking(move || Ok(open(&path).map_err(EmbedError::from)?)).await
}

pub(super) async fn open_serving(
    config: &ModelsConfig,
    given: &Path,
) -> Result<(Arc<Library>, Registry), LibraryError> {
    let data_dir = &config.library.data_dir;
    let mut embedder = open_bundle(&config.open, given).await?;
    let digest = embedder.bundle().id().to_string();
    let bundle = given.canonicalize()?;
    let registry = match Registry::read(data_dir)? {
        None => {
            let serving = Known { digest, folder: PathBuf::new(), bundle, promote: false };
            Registry { serving, beside: Vec::new(), kept: Vec::new(), earlier: Vec::new() }
        }
        Some(mut registry) if registry.serving.digest == digest => {
            registry.serving.bundle = bundle;
            registry
        }
        Some(registry) if registry.earlier.contains(&digest) => {
            let serving = registry.serving.bundle.display();
            tracing::warn!(%serving, "a previously promoted model serves instead of the configured one");
            embedder = open_bundle(&config.open, &registry.serving.bundle).await?;
            registry
        }
        Some(registry) => {
            let found = registry.serving.digest;
            return Err(StoreError::OtherModel { found, wanted: digest }.into());
        }
    };
    let folder = data_dir.join(&registry.serving.folder);
    let library = Library::open_in(&config.library, &folder, embedder).await?;
    Ok((library, registry))
}

/// Removes the store and the indexes of one model, never the media.
pub(super) fn remove_vectors(data_dir: &Path, known: &Known) -> Result<(), LibraryError> {
    let folder = data_dir.join(&known.folder);
    let gone = |outcome: std::io::Result<()>| match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    if known.folder != Path::new("") {
        return Ok(gone(std::fs::remove_dir_all(folder))?);
    }
    for file in crate::sqlite::FILES {
        gone(std::fs::remove_file(folder.join(file)))?;
    }
    Ok(gone(std::fs::remove_dir_all(folder.join("index")))?)
}
