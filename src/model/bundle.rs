//! A bundle folder whose files all match its manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use sha2::{Digest, Sha256};

use super::ModelError;
use super::manifest::{Bars, Manifest, Picture, TowerSpec};
use crate::preprocess::ClipSpec;
use crate::preprocess::spec::PictureSpec;
use crate::types::{Modality, ModelId, Space};

const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// Limit of protobuf, and so of ONNX files without external data.
const MAX_FILE_BYTES: u64 = 2 << 30;
const MAX_FILES: usize = 1000;

/// A verified bundle folder.
#[derive(Debug, Clone)]
pub struct Bundle {
    id: ModelId,
    dir: PathBuf,
    pub(super) manifest: Manifest,
    json: serde_json::Value,
    spaces: Vec<(Space, usize)>,
    sizes: BTreeMap<String, u64>,
}

impl Bundle {
    /// Reads the manifest and verifies the SHA-256 of every file.
    ///
    /// # Errors
    /// [`ModelError`] naming the file that is missing or differs.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("manifest.json");
        if !path.is_file() {
            return Err(ModelError::Missing(dir.to_owned()));
        }
        let invalid =
            |reason: String| ModelError::ManifestInvalid { file: path.display().to_string(), reason };
        let bytes = read_whole(&path, MAX_MANIFEST_BYTES)?;
        let (manifest, json) = Manifest::parse(&bytes).map_err(invalid)?;
        if manifest.files.len() > MAX_FILES {
            return Err(invalid(format!("`files` lists more than {MAX_FILES} files")));
        }
        let mut bundle = Self {
            id: ModelId(Arc::from(hex::encode(Sha256::digest(&bytes)))),
            dir: dir.to_owned(),
            spaces: manifest.spaces.iter().map(|space| (space.name.clone(), space.dim)).collect(),
            manifest,
            json,
            sizes: BTreeMap::new(),
        };
        let names: Vec<&String> = bundle.manifest.files.keys().collect();
        let sizes: Result<Vec<_>, ModelError> =
            names.into_par_iter().map(|name| Ok((name.clone(), bundle.verify(name)?))).collect();
        bundle.sizes = sizes?.into_iter().collect();
        Ok(bundle)
    }

    /// Hashes a listed file in a stream; returns its size in bytes.
    fn verify(&self, name: &str) -> Result<u64, ModelError> {
        let path = self.dir.join(name);
        let mut file = open_regular(&path, MAX_FILE_BYTES)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0_u8; 1 << 20];
        let mut size = 0;
        loop {
            let read = file.read(&mut buffer).map_err(|error| unreadable(&path, &error))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
        self.compare(name, hex::encode(hasher.finalize()))?;
        Ok(size)
    }

    fn compare(&self, name: &str, actual: String) -> Result<(), ModelError> {
        let expected = self.manifest.files.get(name).cloned().unwrap_or_default();
        if actual == expected {
            Ok(())
        } else {
            Err(ModelError::FileDamaged { file: self.file_name(name), expected, actual })
        }
    }

    /// Reads a listed file. Verifies the very bytes that it returns, whatever happened to the file since
    /// [`Bundle::open`].
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, ModelError> {
        let bytes = read_whole(&self.dir.join(name), MAX_FILE_BYTES)?;
        self.compare(name, hex::encode(Sha256::digest(&bytes)))?;
        Ok(bytes)
    }

    /// Path of a listed file including the bundle's folder, for messages.
    pub(super) fn file_name(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub(super) fn tower_specs(&self) -> Result<Vec<TowerSpec>, ModelError> {
        self.manifest.tower_specs().map_err(|reason| self.invalid("manifest.json", reason))
    }

    pub(super) fn invalid(&self, file: &str, reason: impl ToString) -> ModelError {
        ModelError::ManifestInvalid { file: self.file_name(file), reason: reason.to_string() }
    }

    /// Digest of the manifest, which covers all files.
    #[must_use]
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// The bundle's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of the model, from the manifest.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// One sentence about the model; may be empty.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.manifest.description
    }

    /// Licence of the weights, an SPDX expression.
    #[must_use]
    pub fn license(&self) -> &str {
        &self.manifest.license
    }

    /// Spaces and their dimensions, from finest to coarsest, in the order of the manifest.
    #[must_use]
    pub fn spaces(&self) -> &[(Space, usize)] {
        &self.spaces
    }

    /// Dimension of a space; `None` if the model does not have it.
    #[must_use]
    pub fn dim(&self, space: &Space) -> Option<usize> {
        self.spaces.iter().find(|(name, _)| name == space).map(|(_, dim)| *dim)
    }

    /// Whether the model has a tower for a modality.
    #[must_use]
    pub fn has_tower(&self, modality: Modality) -> bool {
        self.manifest.towers.contains_key(&modality)
    }

    /// Whether a modality has vectors in a space.
    #[must_use]
    pub fn has(&self, modality: Modality, space: &Space) -> bool {
        self.manifest.spaces.iter().any(|entry| entry.name == *space && entry.members.contains(&modality))
    }

    /// The finest space that both modalities share, if any.
    #[must_use]
    pub fn shared_space(&self, a: Modality, b: Modality) -> Option<Space> {
        let both = self.manifest.spaces.iter().find(|e| e.members.contains(&a) && e.members.contains(&b));
        both.map(|entry| entry.name.clone())
    }

    /// Every listed file with its size in bytes.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, u64> {
        &self.sizes
    }

    /// How assets are cut into clips, and what the towers take. `stride_secs` is the distance between the
    /// starts of two clips; `None`: one window. If the bundle has no tower for pictures or for sound, clips
    /// are cut in the same way, and the unused tensors are as small as possible.
    #[must_use]
    pub fn clip_spec(&self, stride_secs: Option<f64>) -> ClipSpec {
        let video = self.manifest.preprocessing.video.as_ref();
        let audio = self.manifest.preprocessing.audio.as_ref();
        let picture = self.manifest.picture();
        let window_secs = match (video, audio) {
            (Some(video), _) => video.frames as f64 / video.fps,
            (None, Some(audio)) => audio.samples as f64 / f64::from(audio.sample_rate_hz),
            (None, None) => 1.0,
        };
        let sample_rate_hz = audio.map_or(8000, |audio| audio.sample_rate_hz);
        let samples = (window_secs * f64::from(sample_rate_hz)).round().max(1.0) as usize;
        let (side, crop) =
            picture.as_ref().map_or((2, 2), |picture| (picture.resize_shorter_side, picture.crop));
        let shown = picture.as_ref().is_some_and(|picture| picture.picture == Picture::Shown);
        let unbarred = picture.is_some_and(|picture| picture.bars == Bars::Crop);
        ClipSpec::mmv(
            video.map_or(1.0 / window_secs, |video| video.fps),
            video.map_or(1, |video| video.frames),
            PictureSpec::mmv(side, crop, shown, unbarred),
            (sample_rate_hz, audio.map_or(samples, |audio| audio.samples)),
            stride_secs.unwrap_or(window_secs),
        )
    }

    /// The manifest as JSON, for `/v1/models` and `model show`.
    #[must_use]
    pub fn manifest_json(&self) -> &serde_json::Value {
        &self.json
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ModelError {
    ModelError::FileMissing { file: path.display().to_string(), reason: error.to_string() }
}

/// Opens a regular file of limited size; a pipe or a device would block or never end.
fn open_regular(path: &Path, max_bytes: u64) -> Result<File, ModelError> {
    let refuse = |reason: String| ModelError::FileMissing { file: path.display().to_string(), reason };
    let before = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !before.is_file() {
        return Err(refuse("it is not a file".to_owned()));
    }
    if before.len() > max_bytes {
        return Err(refuse(format!("expected at most {max_bytes} bytes, got {}", before.len())));
    }
    File::open(path).map_err(|error| unreadable(path, &error))
}

fn read_whole(path: &Path, max_bytes: u64) -> Result<Vec<u8>, ModelError> {
    let mut bytes = Vec::new();
    open_regular(path, max_bytes)?
        .take(max_bytes)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}
