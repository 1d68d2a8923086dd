//! Which models a data folder has and which of them serves: `models.json`, always replaced as a whole.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fail_points::crash_point;
use crate::own_files;

const FILE: &str = "models.json";

/// One model of a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Digest of the model's manifest.
    pub(crate) digest: String,
    /// Folder of its vectors, relative to the data folder; empty: the data folder itself.
    pub(crate) folder: PathBuf,
    /// Folder of its bundle.
    pub(crate) bundle: PathBuf,
    /// Whether it is promoted as soon as it has caught up.
    #[serde(default)]
    pub(crate) promote: bool,
}

/// All models of a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registry {
    pub(crate) serving: Known,
    /// Models loaded beside the serving one.
    #[serde(default)]
    pub(crate) beside: Vec<Known>,
    /// Models not loaded whose vectors are still on disk.
    #[serde(default)]
    pub(crate) kept: Vec<Known>,
    /// Digests of the models that have served before.
    #[serde(default)]
    pub(crate) earlier: Vec<String>,
}

impl Registry {
    /// `None` if the data folder has only ever had one model.
    pub(crate) fn read(data_dir: &Path) -> std::io::Result<Option<Self>> {
        let bytes = match own_files::read(data_dir, FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |what: String| {
            let text = format!("{}: {what}", data_dir.join(FILE).display());
            std::io::Error::new(ErrorKind::InvalidData, text)
        };
        let registry: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut folders = std::iter::once(&registry.serving)
            .chain(&registry.beside)
            .chain(&registry.kept)
            .map(|known| known.folder.as_path());
        if let Some(folder) = folders.find(|folder| !is_within(folder)) {
            let folder = folder.display();
            return Err(damaged(format!("expected a folder such as `models/NAME`, got `{folder}`")));
        }
        Ok(Some(registry))
    }

    /// Folder of the serving model's store and indexes.
    pub(crate) fn serving_folder(data_dir: &Path) -> std::io::Result<PathBuf> {
        let folder = Self::read(data_dir)?.map(|registry| registry.serving.folder);
        Ok(data_dir.join(folder.unwrap_or_default()))
    }

    /// Writes the file; on failure, the old one remains.
    pub(crate) fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        crash_point!("models-rename");
        file.persist(data_dir.join(FILE)).map_err(|error| error.error)?;
        crash_point!("models-renamed");
        File::open(data_dir)?.sync_all()?;
        Ok(())
    }

    /// Folder of a model's vectors, whether it exists yet or not.
    ///
    /// A folder whose vectors were removed is never reused: a request that is still running may have its
    /// database open.
    pub(crate) fn folder_of(&self, digest: &str, data_dir: &Path) -> PathBuf {
        let all = std::iter::once(&self.serving).chain(&self.beside).chain(&self.kept);
        if let Some(known) = all.into_iter().find(|known| known.digest == digest) {
            return known.folder.clone();
        }
        let stamp = crate::types::now_unix_ms();
        let free = |n: &i64| {
            let name = format!("{}-{n:x}", digest.get(..16).unwrap_or(digest));
            let folder = Path::new("models").join(name);
            (!data_dir.join(&folder).exists()).then_some(folder)
        };
        (stamp..).find_map(|n| free(&n)).unwrap_or_default()
    }

    /// Removes a model from the lists of those that do not serve.
    pub(crate) fn forget(&mut self, digest: &str) {
        self.beside.retain(|known| known.digest != digest);
        self.kept.retain(|known| known.digest != digest);
    }
}

/// Whether this is the data folder itself or a model's folder in it: its files are removed with the model.
fn is_within(folder: &Path) -> bool {
    let mut parts = folder.components();
    match (parts.next(), parts.next(), parts.next()) {
        (None, None, None) => true,
        (Some(Component::Normal(models)), Some(Component::Normal(_)), None) => models == "models",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_registry_survives_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Registry::read(dir.path()).unwrap(), None);
        let known = |digest: &str, folder: &str| Known {
            digest: digest.into(),
            folder: folder.into(),
            bundle: "/b".into(),
            promote: false,
        };
        let mut registry = Registry {
            serving: known("aa", ""),
            beside: vec![known("bb", "models/x")],
            kept: vec![],
            earlier: vec![],
        };
        registry.write(dir.path()).unwrap();
        assert_eq!(Registry::read(dir.path()).unwrap().as_ref(), Some(&registry));
        assert_eq!(registry.folder_of("bb", dir.path()), Path::new("models/x"));
        assert_eq!(registry.folder_of("aa", dir.path()), Path::new(""));
        registry.forget("bb");
        let free = registry.folder_of("bb", dir.path());
        assert!(free.starts_with("models") && free != Path::new("models/x"), "{free:?}");
        fs::create_dir_all(dir.path().join(&free)).unwrap();
        assert_ne!(registry.folder_of("bb", dir.path()), free);
        for folder in ["..", "../x", "/etc", "models", "models/../../x", "uploads/x", "models/x/y"] {
            let outside = Registry { kept: vec![known("cc", folder)], ..registry.clone() };
            outside.write(dir.path()).unwrap();
            let told = Registry::read(dir.path()).unwrap_err().to_string();
            assert!(told.contains(folder), "{told}");
        }
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Registry::read(dir.path()).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
