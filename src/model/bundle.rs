//! A bundle folder whose files all match its manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use sha2::{Digest, Sha256};

use super::ModelError;
use crate::manifest::{Manifest, Source};
use crate::preprocess::ClipSpec;
use crate::preprocess::spec::{
    PictureSpec, Resample, ResizeRule, Sampling, ShortSound, Size, SoundSpec, Take,
};
use crate::types::{Modality, ModelId, Space, TrackKind};

mod cut;

pub use cut::Cut;

const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// Limit of protobuf, and so of graphs.
const MAX_GRAPH_BYTES: u64 = 2 << 30;
/// Largest file of any kind; weights beside a graph may be larger than the graph.
const MAX_FILE_BYTES: u64 = 64 << 30;
const MAX_BANK_TEXTS: usize = 100_000;
const MAX_FILES: usize = 1000;
const MAX_SAMPLES: usize = 1000;

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
            let published = dir.join("config.json").is_file();
            let dir = dir.to_owned();
            return Err(if published { ModelError::NotImported(dir) } else { ModelError::Missing(dir) });
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

    /// The same bundle with another number of frames in each window of a film. It is another model: vectors of
    /// both never meet.
    ///
    /// # Errors
    /// [`ModelError::BadFrames`] if the bundle does not allow the number.
    pub fn with_frames(mut self, frames: usize) -> Result<Self, ModelError> {
        let own = self.manifest.video().map(|video| video.sampling.frames());
        self.manifest.take_frames(frames).map_err(|reason| {
            ModelError::BadFrames(format!(
                "{frames} frames a window: the model {} does not allow it: {reason}",
                self.name()
            ))
        })?;
        if own != Some(frames) {
            let identity = format!("{}\nframes={frames}", self.id);
            self.id = ModelId(Arc::from(hex::encode(Sha256::digest(identity))));
        }
        Ok(self)
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
        let is_graph = self.manifest.towers.iter().any(|tower| tower.file == name);
        let limit = if is_graph { MAX_GRAPH_BYTES } else { MAX_FILE_BYTES };
        let bytes = read_whole(&self.dir.join(name), limit)?;
        self.compare(name, hex::encode(Sha256::digest(&bytes)))?;
        Ok(bytes)
    }

    /// Path of a listed file including the bundle's folder, for messages.
    pub(super) fn file_name(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The texts for calibration, if the bundle has some.
    pub(super) fn read_bank(&self) -> Result<Vec<String>, ModelError> {
        #[derive(serde::Deserialize)]
        struct Stored {
            texts: Vec<String>,
        }
        let Some(bank) = &self.manifest.bank else { return Ok(Vec::new()) };
        let stored: Stored =
            serde_json::from_slice(&self.read(&bank.file)?).map_err(|e| self.invalid(&bank.file, e))?;
        if stored.texts.len() > MAX_BANK_TEXTS {
            let reason = format!("expected at most {MAX_BANK_TEXTS} texts, got {}", stored.texts.len());
            return Err(self.invalid(&bank.file, reason));
        }
        Ok(stored.texts)
    }

    /// The towers that compute vectors of a modality, by index: its own, and those that pictures inflate.
    pub(super) fn towers_for(&self, modality: Modality) -> Vec<usize> {
        let own = self.manifest.towers.iter().enumerate();
        let own = own.filter(|(_, tower)| tower.modality == modality).map(|(at, _)| at);
        let inflating = self.manifest.inflating.iter().filter(|_| modality == Modality::Image);
        own.chain(inflating.map(|inflating| inflating.tower)).collect()
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

    /// Where the weights come from; empty if they were trained for this bundle.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.manifest.sources
    }

    /// Languages of the sources, each once.
    #[must_use]
    pub fn languages(&self) -> Vec<&str> {
        let mut languages: Vec<&str> = Vec::new();
        let named = self.sources().iter().flat_map(|source| source.languages.iter().map(String::as_str));
        let of_towers =
            self.manifest.towers.iter().filter_map(|tower| tower.text()).flat_map(|t| t.languages());
        for language in named.chain(of_towers) {
            if !languages.contains(&language) {
                languages.push(language);
            }
        }
        languages
    }

    /// Names of the sample clips beside the model; empty if it has none.
    #[must_use]
    pub fn samples(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("samples/clips")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.take(MAX_SAMPLES).collect();
        names.sort_unstable();
        names
    }

    /// Where the texts for calibration come from, if the bundle has some.
    #[must_use]
    pub fn bank_source(&self) -> Option<&str> {
        self.manifest.bank.as_ref().map(|bank| bank.source.as_str())
    }

    /// Every tower: its name, modality, file (none if it inflates another one) and precision.
    pub fn towers(&self) -> impl Iterator<Item = TowerFacts<'_>> {
        let own = self.manifest.towers.iter().map(|tower| TowerFacts {
            name: &tower.name,
            modality: tower.modality,
            file: Some(&tower.file),
            precision: Some(tower.precision.as_str()),
            spaces: tower.spaces().map(|(space, _)| space.clone()).collect(),
        });
        let inflating = self.manifest.inflating.iter().map(|inflating| TowerFacts {
            name: &inflating.name,
            modality: Modality::Image,
            file: None,
            precision: None,
            spaces: self
                .manifest
                .towers
                .get(inflating.tower)
                .into_iter()
                .flat_map(|tower| tower.spaces().map(|(space, _)| space.clone()))
                .filter(|space| self.has(Modality::Image, space))
                .collect(),
        });
        own.chain(inflating)
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
        self.manifest.takes(modality)
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
    /// starts of two clips; `None`: what the manifest says, else one window. If the bundle has no tower for
    /// pictures or for sound, that track of a film is not decoded; the unused tensors are as small as possible.
    #[must_use]
    pub fn clip_spec(&self, stride_secs: Option<f64>) -> ClipSpec {
        let (video, sound) = (self.manifest.video(), self.manifest.sound());
        let small = PictureSpec {
            resize: ResizeRule::ShorterSide { size: 2 },
            resample: Resample::Mmv,
            crop: Some(Size { height: 2, width: 2 }),
            shown: false,
            unbarred: false,
        };
        let image = self.manifest.picture().copied().unwrap_or(small);
        let sound_secs = sound.map_or(1.0, |(sound, _)| sound.window_secs());
        let (picture, sampling, own_stride) = video.map_or_else(
            || {
                let sampling = Sampling::Rate { fps: 1.0 / sound_secs, frames: 1, take: Take::Nearest };
                (image, sampling, sound.and_then(|(_, stride)| stride))
            },
            |video| (*video.picture, video.sampling, video.stride_secs),
        );
        let window_secs = match sampling {
            Sampling::Rate { fps, frames, .. } => frames as f64 / fps,
            Sampling::Spread { window_secs, .. } => window_secs,
        };
        let stride = stride_secs.or(own_stride).unwrap_or(window_secs);
        let silent = || {
            let samples = (window_secs * 8000.0).round().max(1.0) as usize;
            let short = ShortSound::Loop;
            SoundSpec { sample_rate_hz: 8000, samples, stride_secs: stride, short, loudness: None }
        };
        let sound_stride = |own: Option<f64>| stride_secs.or(own).unwrap_or(sound_secs);
        let sound_spec =
            sound.map_or_else(silent, |(sound, own)| SoundSpec { stride_secs: sound_stride(own), ..*sound });
        let differs = |a: f64, b: f64| (a - b).abs() > 1e-6;
        let sound_apart = sound.is_some()
            && video.is_some()
            && (differs(sound_secs, window_secs) || differs(sound_spec.stride_secs, stride));
        let without = match (video.is_some(), sound.is_some()) {
            (false, true) => Some(TrackKind::Video),
            (true, false) => Some(TrackKind::Audio),
            _ => None,
        };
        let (stride_secs, video, sound) = (stride, picture, sound_spec);
        ClipSpec { sampling, stride_secs, video, image, sound, sound_apart, without }
    }

    /// The manifest as JSON, for `/v1/models` and `model show`.
    #[must_use]
    pub fn manifest_json(&self) -> &serde_json::Value {
        &self.json
    }
}

/// What a bundle says about one of its towers.
#[derive(Debug)]
pub struct TowerFacts<'a> {
    /// Name.
    pub name: &'a str,
    /// Modality.
    pub modality: Modality,
    /// Its graph; `None` if it inflates the video tower.
    pub file: Option<&'a str>,
    /// Number format of its weights.
    pub precision: Option<&'static str>,
    /// Spaces that it computes vectors for.
    pub spaces: Vec<Space>,
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
