//! Parses `manifest.json`, format version 1, strictly: an unknown field is an error, and every number is
//! checked before use. docs/bundle.md defines the format.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::types::{Modality, Space};

/// The only format version that this program reads.
const FORMAT_VERSION: u64 = 1;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    #[allow(dead_code)]
    format_version: u64,
    pub name: String,
    #[serde(default)]
    pub description: String,
    pub license: String,
    pub spaces: Vec<SpaceEntry>,
    pub towers: BTreeMap<Modality, TowerEntry>,
    pub preprocessing: Preprocessing,
    pub goldens: Goldens,
    pub files: BTreeMap<String, String>,
    /// Free-form notes; not used.
    #[serde(default)]
    #[allow(dead_code)]
    training: serde_json::Value,
    /// Free-form notes; not used.
    #[serde(default)]
    #[allow(dead_code)]
    evaluation: serde_json::Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpaceEntry {
    pub name: Space,
    pub dim: usize,
    pub members: BTreeSet<Modality>,
}

/// Has either only `inflates`, or all the other fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TowerEntry {
    file: Option<String>,
    precision: Option<Precision>,
    input: Option<InputEntry>,
    outputs: Option<BTreeMap<Space, String>>,
    inflates: Option<Modality>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Precision {
    F32,
    F16,
    Bf16,
    Int8,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputEntry {
    name: String,
    dtype: Dtype,
    shape: Vec<Option<usize>>,
}

/// Element type of a tower's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Dtype {
    U8,
    F32,
    I64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preprocessing {
    pub video: Option<VideoPreprocessing>,
    pub audio: Option<AudioPreprocessing>,
    pub text: Option<TextPreprocessing>,
    /// For a separate image tower in a bundle without a video tower.
    pub image: Option<ImagePreprocessing>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VideoPreprocessing {
    pub fps: f64,
    pub frames: usize,
    pub resize_shorter_side: usize,
    pub crop: usize,
    #[serde(default)]
    pub picture: Picture,
    #[serde(default)]
    pub bars: Bars,
}

/// Which picture of a frame the towers were trained on. Manifests without this field are older than the
/// choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Picture {
    #[default]
    Stored,
    Shown,
}

/// What to do with black bars around a picture. Manifests without this field are older than the choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bars {
    #[default]
    Keep,
    Crop,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImagePreprocessing {
    pub resize_shorter_side: usize,
    pub crop: usize,
    #[serde(default)]
    pub picture: Picture,
    #[serde(default)]
    pub bars: Bars,
}

impl ImagePreprocessing {
    /// Preprocessing of one frame.
    fn of(video: &VideoPreprocessing) -> Self {
        let VideoPreprocessing { resize_shorter_side, crop, picture, bars, .. } = *video;
        Self { resize_shorter_side, crop, picture, bars }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AudioPreprocessing {
    pub sample_rate_hz: u32,
    pub samples: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextPreprocessing {
    pub tokenizer: String,
    pub max_words: usize,
    pub pad_id: u32,
    pub unknown_id: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Goldens {
    pub file: String,
    pub max_one_minus_cosine: f64,
    #[serde(default)]
    pub texts: Vec<String>,
}

/// A tower with its own graph, completely validated.
#[derive(Debug, Clone)]
pub(super) struct TowerSpec {
    pub modality: Modality,
    pub file: String,
    pub input: String,
    pub dtype: Dtype,
    /// Shape of one input, without the batch dimension.
    pub row: Vec<usize>,
    /// Space, name of the graph's output, and dimension, in the order of the manifest's spaces.
    pub outputs: Vec<(Space, String, usize)>,
}

impl TowerSpec {
    /// Number of values in one input.
    pub fn row_len(&self) -> usize {
        self.row.iter().product()
    }
}

impl Manifest {
    /// Parses and validates a manifest; the error is a message.
    pub fn parse(bytes: &[u8]) -> Result<(Self, serde_json::Value), String> {
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
        // Check this first, so that a newer format is not reported as an unknown field.
        match json.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(FORMAT_VERSION) => {}
            Some(other) => {
                return Err(format!("expected format_version {FORMAT_VERSION}, got {other}"));
            }
            None => return Err("no format_version".to_owned()),
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        manifest.check()?;
        Ok((manifest, json))
    }

    fn check(&self) -> Result<(), String> {
        ensure(is_plain_name(&self.name), || {
            "`name` must be 1-128 characters without control characters".into()
        })?;
        self.check_preprocessing()?;
        self.check_spaces()?;
        for modality in self.towers.keys() {
            self.check_tower(*modality)?;
        }
        let bound = self.goldens.max_one_minus_cosine;
        ensure(bound > 0.0 && bound <= 0.01, || {
            format!("goldens.max_one_minus_cosine must be above 0 and at most 0.01, got {bound}")
        })?;
        self.check_files()
    }

    fn check_files(&self) -> Result<(), String> {
        for (name, digest) in &self.files {
            ensure(is_inside(name), || format!("`files`: {name:?} is not a plain path inside the bundle"))?;
            let hex = digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            ensure(hex, || format!("`files`: {name:?} has no lower-case SHA-256"))?;
        }
        let towers = self.towers.values().filter_map(|tower| tower.file.as_deref());
        let tokenizer = self.preprocessing.text.iter().map(|text| text.tokenizer.as_str());
        for name in towers.chain(tokenizer).chain([self.goldens.file.as_str()]) {
            ensure(is_inside(name), || format!("{name:?} is not a plain path inside the bundle"))?;
            ensure(self.files.contains_key(name), || format!("{name:?} is used but not listed in `files`"))?;
        }
        Ok(())
    }

    fn check_spaces(&self) -> Result<(), String> {
        ensure(!self.spaces.is_empty(), || "`spaces` is empty".into())?;
        let mut names = BTreeSet::new();
        for space in &self.spaces {
            let name = &space.name;
            ensure(is_plain_name(name.as_str()), || format!("`spaces`: bad name {:?}", name.as_str()))?;
            ensure(names.insert(name), || format!("`spaces`: `{name}` appears twice"))?;
            ensure((1..=1 << 16).contains(&space.dim), || format!("space `{name}`: dim {}", space.dim))?;
            ensure(!space.members.is_empty(), || format!("space `{name}` has no members"))?;
            for member in &space.members {
                ensure(self.towers.contains_key(member), || {
                    format!("space `{name}` has {member} as a member, but there is no {member} tower")
                })?;
            }
        }
        Ok(())
    }

    fn check_preprocessing(&self) -> Result<(), String> {
        let picture = |what: &str, side: usize, crop: usize| {
            ensure((1..=4096).contains(&crop) && side >= crop && side <= 8192, || {
                format!("preprocessing.{what}: resize_shorter_side {side}, crop {crop}")
            })
        };
        if let Some(video) = &self.preprocessing.video {
            picture("video", video.resize_shorter_side, video.crop)?;
            ensure(video.fps > 0.0 && video.fps <= 1000.0, || {
                format!("preprocessing.video: {} fps", video.fps)
            })?;
            ensure((1..=1024).contains(&video.frames), || {
                format!("preprocessing.video: {} frames", video.frames)
            })?;
        }
        if let Some(image) = &self.preprocessing.image {
            picture("image", image.resize_shorter_side, image.crop)?;
            let agree =
                self.preprocessing.video.as_ref().is_none_or(|video| ImagePreprocessing::of(video) == *image);
            ensure(agree, || "preprocessing.image and preprocessing.video differ".into())?;
        }
        if let Some(audio) = &self.preprocessing.audio {
            ensure((1000..=768_000).contains(&audio.sample_rate_hz), || {
                format!("preprocessing.audio: {} Hz", audio.sample_rate_hz)
            })?;
            ensure((1..=100_000_000).contains(&audio.samples), || {
                format!("preprocessing.audio: {} samples", audio.samples)
            })?;
        }
        if let Some(text) = &self.preprocessing.text {
            ensure((1..=4096).contains(&text.max_words), || {
                format!("preprocessing.text: max_words {}", text.max_words)
            })?;
            ensure(text.pad_id != text.unknown_id, || "preprocessing.text: pad_id equals unknown_id".into())?;
        }
        Ok(())
    }

    /// Preprocessing of pictures, if any tower takes pictures.
    pub fn picture(&self) -> Option<ImagePreprocessing> {
        self.preprocessing
            .image
            .clone()
            .or_else(|| self.preprocessing.video.as_ref().map(ImagePreprocessing::of))
    }

    fn spaces_of(&self, modality: Modality) -> impl Iterator<Item = &SpaceEntry> {
        self.spaces.iter().filter(move |space| space.members.contains(&modality))
    }

    /// Element type and shape, without the batch dimension, that an input of a modality must have.
    fn expected_input(&self, modality: Modality) -> Option<(Dtype, Vec<usize>)> {
        Some(match modality {
            Modality::Video => {
                let video = self.preprocessing.video.as_ref()?;
                (Dtype::U8, vec![video.frames, video.crop, video.crop, 3])
            }
            Modality::Image => {
                let picture = self.picture()?;
                (Dtype::U8, vec![picture.crop, picture.crop, 3])
            }
            Modality::Audio => (Dtype::F32, vec![self.preprocessing.audio.as_ref()?.samples]),
            Modality::Text => (Dtype::I64, vec![self.preprocessing.text.as_ref()?.max_words]),
        })
    }

    fn check_tower(&self, modality: Modality) -> Result<(), String> {
        let entry = &self.towers[&modality];
        let Some(inflated) = entry.inflates else {
            return self.spec(modality).map(|_| ());
        };
        let bare = entry.file.is_none()
            && entry.input.is_none()
            && entry.outputs.is_none()
            && entry.precision.is_none();
        ensure(bare, || format!("towers.{modality}: `inflates` must be the only field"))?;
        ensure(modality == Modality::Image && inflated == Modality::Video, || {
            format!("towers.{modality}: only an image can inflate the video tower")
        })?;
        ensure(self.towers.get(&inflated).is_some_and(|tower| tower.inflates.is_none()), || {
            format!("towers.{modality} inflates {inflated}, which does not exist")
        })?;
        for space in self.spaces_of(modality) {
            ensure(space.members.contains(&inflated), || {
                format!(
                    "space `{}` has image as a member but not video, which computes its vectors",
                    space.name
                )
            })?;
        }
        Ok(())
    }

    fn spec(&self, modality: Modality) -> Result<TowerSpec, String> {
        let entry = self.towers.get(&modality).ok_or_else(|| format!("no {modality} tower"))?;
        let missing = |field: &str| format!("towers.{modality} has no `{field}`");
        let file = entry.file.clone().ok_or_else(|| missing("file"))?;
        let input = entry.input.clone().ok_or_else(|| missing("input"))?;
        let names = entry.outputs.as_ref().ok_or_else(|| missing("outputs"))?;
        entry.precision.ok_or_else(|| missing("precision"))?;
        let (dtype, row) = self
            .expected_input(modality)
            .ok_or_else(|| format!("there is a {modality} tower but no `preprocessing` for it"))?;
        let shape: Vec<_> = std::iter::once(None).chain(row.iter().copied().map(Some)).collect();
        ensure(input.dtype == dtype && input.shape == shape, || {
            format!("towers.{modality}.input must be {dtype:?} {shape:?}, as `preprocessing` makes it")
        })?;
        // ort panics on an empty name.
        ensure(!input.name.is_empty() && names.values().all(|name| !name.is_empty()), || {
            format!("towers.{modality} has an empty input or output name")
        })?;
        let outputs: Vec<_> = self
            .spaces_of(modality)
            .filter_map(|space| Some((space.name.clone(), names.get(&space.name)?.clone(), space.dim)))
            .collect();
        let members = self.spaces_of(modality).count();
        ensure(outputs.len() == members && names.len() == members && members > 0, || {
            format!("towers.{modality}.outputs must name the spaces {modality} is a member of, one or more")
        })?;
        Ok(TowerSpec { modality, file, input: input.name, dtype, row, outputs })
    }

    /// The towers that have their own graph.
    pub fn tower_specs(&self) -> Result<Vec<TowerSpec>, String> {
        let own = self.towers.iter().filter(|(_, tower)| tower.inflates.is_none());
        own.map(|(modality, _)| self.spec(*modality)).collect()
    }
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

fn is_plain_name(name: &str) -> bool {
    (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// A relative path of plain names: not absolute, no `..`, nothing that other systems interpret differently.
fn is_inside(name: &str) -> bool {
    name.len() <= 512
        && !name.contains(['\\', '\0', ':'])
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn valid() -> Value {
        let sha = "0".repeat(64);
        json!({
            "format_version": 1, "name": "m", "license": "Apache-2.0",
            "spaces": [
                {"name": "fine", "dim": 8, "members": ["video", "image"]},
                {"name": "coarse", "dim": 4, "members": ["text", "video"]}
            ],
            "towers": {
                "video": {"file": "video.onnx", "precision": "f32",
                          "input": {"name": "frames", "dtype": "u8", "shape": [null, 2, 4, 4, 3]},
                          "outputs": {"fine": "fine", "coarse": "coarse"}},
                "text": {"file": "text.onnx", "precision": "f32",
                         "input": {"name": "token_ids", "dtype": "i64", "shape": [null, 5]},
                         "outputs": {"coarse": "coarse"}},
                "image": {"inflates": "video"}
            },
            "preprocessing": {
                "video": {"fps": 2.5, "frames": 2, "resize_shorter_side": 4, "crop": 4},
                "text": {"tokenizer": "tokenizer.json", "max_words": 5, "pad_id": 0, "unknown_id": 1}
            },
            "goldens": {"file": "g.safetensors", "max_one_minus_cosine": 1e-5, "texts": []},
            "files": {"video.onnx": sha, "text.onnx": sha, "tokenizer.json": sha, "g.safetensors": sha},
            "training": {"anything": ["goes"]}
        })
    }

    fn parse(json: &Value) -> Result<Manifest, String> {
        Manifest::parse(&serde_json::to_vec(json).unwrap()).map(|(manifest, _)| manifest)
    }

    #[test]
    fn towers_follow_the_manifest_and_no_name_is_built_in() {
        let specs = parse(&valid()).unwrap().tower_specs().unwrap();
        assert_eq!(specs.iter().map(|s| s.modality).collect::<Vec<_>>(), [Modality::Text, Modality::Video]);
        assert_eq!(specs[1].row_len(), 2 * 4 * 4 * 3);
        let spaces: Vec<_> = specs[1].outputs.iter().map(|(space, _, dim)| (space.as_str(), *dim)).collect();
        assert_eq!(spaces, [("fine", 8), ("coarse", 4)]);
    }

    #[test]
    fn every_deviation_is_named() {
        let cases: &[(&str, Value, &str)] = &[
            ("/format_version", json!(2), "format_version 1, got 2"),
            ("/spaces/0/extra", json!(1), "unknown field"),
            ("/surprise", json!(1), "unknown field"),
            ("/towers/video/input/shape", json!([null, 3, 4, 4, 3]), "towers.video.input"),
            ("/towers/video/outputs", json!({"fine": "fine"}), "towers.video.outputs"),
            ("/towers/image", json!({"inflates": "text"}), "only an image"),
            ("/towers/image", json!({"inflates": "video", "file": "x.onnx"}), "must be the only field"),
            ("/towers/video/file", json!("../video.onnx"), "not a plain path"),
            ("/towers/video/file", json!("/etc/passwd"), "not a plain path"),
            ("/towers/video/file", json!("other.onnx"), "not listed in `files`"),
            ("/files/a~1..~1..~1b", json!("0".repeat(64)), "not a plain path"),
            ("/files/video.onnx", json!("xyz"), "no lower-case SHA-256"),
            ("/preprocessing/video/fps", json!(0.0), "fps"),
            ("/preprocessing/video/crop", json!(5), "crop 5"),
            ("/goldens/max_one_minus_cosine", json!(0.5), "max_one_minus_cosine"),
            ("/spaces/1/name", json!("fine"), "appears twice"),
            ("/spaces/0/dim", json!(0), "dim 0"),
            ("/spaces/1/members", json!(["text", "video", "audio"]), "no audio tower"),
        ];
        for (pointer, value, expected) in cases {
            let mut json = valid();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let key = key.replace("~1", "/");
            json.pointer_mut(parent).unwrap()[key.as_str()] = value.clone();
            let message = parse(&json).unwrap_err();
            assert!(message.contains(expected), "{pointer}: {message}");
        }
        assert!(parse(&valid()).is_ok());
    }
}
