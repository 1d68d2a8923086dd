//! Format version 1, read strictly and converted to the terms of version 2.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::check::check_space_names;
use super::media::{Bars, FrameChoice, Shown, check_sound};
use super::{
    Dtype, Goldens, Inflating, InputSpec, Manifest, OutputSpec, Precision, SpaceSpec, Supply, Takes,
    TextSpec, TowerSpec, WordSpec, ensure,
};
use crate::preprocess::spec::{
    PictureSpec, Resample, ResizeRule, Sampling, ShortSound, Size, SoundSpec, Take,
};
use crate::types::{Modality, Space};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[allow(dead_code)]
    format_version: u64,
    name: String,
    #[serde(default)]
    description: String,
    license: String,
    spaces: Vec<SpaceEntry>,
    towers: BTreeMap<Modality, TowerEntry>,
    preprocessing: Preprocessing,
    goldens: Goldens,
    files: BTreeMap<String, String>,
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
struct SpaceEntry {
    name: Space,
    dim: usize,
    members: BTreeSet<Modality>,
}

/// Has either only `inflates`, or all the other fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TowerEntry {
    file: Option<String>,
    precision: Option<Precision>,
    input: Option<InputEntry>,
    outputs: Option<BTreeMap<Space, String>>,
    inflates: Option<Modality>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputEntry {
    name: String,
    dtype: Dtype,
    shape: Vec<Option<usize>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preprocessing {
    video: Option<VideoEntry>,
    audio: Option<AudioEntry>,
    text: Option<TextEntry>,
    /// For a separate image tower in a bundle without a video tower.
    image: Option<ImageEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct VideoEntry {
    fps: f64,
    frames: usize,
    resize_shorter_side: usize,
    crop: usize,
    #[serde(default)]
    picture: Shown,
    #[serde(default)]
    bars: Bars,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageEntry {
    resize_shorter_side: usize,
    crop: usize,
    #[serde(default)]
    picture: Shown,
    #[serde(default)]
    bars: Bars,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AudioEntry {
    sample_rate_hz: u32,
    samples: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextEntry {
    tokenizer: String,
    max_words: usize,
    pad_id: u32,
    unknown_id: u32,
}

/// Reads the manifest; rules for all format versions are checked later.
pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let entry: Entry = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    entry.preprocessing.check()?;
    check_space_names(entry.spaces.iter().map(|space| &space.name))?;
    let towers = entry.own_towers()?;
    let inflating = entry.inflating(&towers)?;
    let spaces = entry.spaces.into_iter().map(|space| SpaceSpec {
        name: space.name,
        dim: space.dim,
        dims: Vec::new(),
        members: space.members,
    });
    Ok(Manifest {
        name: entry.name,
        description: entry.description,
        license: entry.license,
        sources: Vec::new(),
        spaces: spaces.collect(),
        towers,
        inflating,
        bank: None,
        goldens: entry.goldens,
        files: entry.files,
    })
}

impl Entry {
    fn own_towers(&self) -> Result<Vec<TowerSpec>, String> {
        let own = self.towers.iter().filter(|(_, tower)| tower.inflates.is_none());
        own.map(|(modality, tower)| self.spec(*modality, tower)).collect()
    }

    fn inflating(&self, towers: &[TowerSpec]) -> Result<Vec<Inflating>, String> {
        let mut found = Vec::new();
        for (modality, tower) in &self.towers {
            let Some(inflated) = tower.inflates else { continue };
            let bare = tower.file.is_none()
                && tower.input.is_none()
                && tower.outputs.is_none()
                && tower.precision.is_none();
            ensure(bare, || format!("towers.{modality}: `inflates` must be the only field"))?;
            ensure(*modality == Modality::Image && inflated == Modality::Video, || {
                format!("towers.{modality}: only an image can inflate the video tower")
            })?;
            let tower = towers.iter().position(|tower| tower.modality == inflated);
            let tower = tower
                .ok_or_else(|| format!("towers.{modality} inflates {inflated}, which does not exist"))?;
            found.push(Inflating { name: modality.to_string(), tower });
        }
        Ok(found)
    }

    fn spec(&self, modality: Modality, entry: &TowerEntry) -> Result<TowerSpec, String> {
        let missing = |field: &str| format!("towers.{modality} has no `{field}`");
        let file = entry.file.clone().ok_or_else(|| missing("file"))?;
        let input = entry.input.clone().ok_or_else(|| missing("input"))?;
        let names = entry.outputs.as_ref().ok_or_else(|| missing("outputs"))?;
        let precision = entry.precision.ok_or_else(|| missing("precision"))?;
        let takes = self.preprocessing.takes(modality);
        let takes =
            takes.ok_or_else(|| format!("there is a {modality} tower but no `preprocessing` for it"))?;
        let supply = match modality {
            Modality::Video | Modality::Image => Supply::Frames,
            Modality::Audio => Supply::Pcm,
            Modality::Text => Supply::TokenIds,
        };
        let row = takes.row(supply).unwrap_or_default();
        let shape: Vec<_> = std::iter::once(None).chain(row.iter().copied()).collect();
        ensure(input.dtype == supply.dtype() && input.shape == shape, || {
            format!(
                "towers.{modality}.input must be {:?} {shape:?}, to match `preprocessing`",
                supply.dtype()
            )
        })?;
        let members = || self.spaces.iter().filter(|space| space.members.contains(&modality));
        let outputs: Vec<OutputSpec> = members()
            .filter_map(|space| {
                let name = names.get(&space.name)?.clone();
                Some(OutputSpec { name, dim: space.dim, spaces: vec![space.name.clone()] })
            })
            .collect();
        ensure(outputs.len() == members().count() && names.len() == outputs.len(), || {
            format!(
                "towers.{modality}.outputs must name exactly the spaces that have {modality} as a member, at least one"
            )
        })?;
        let golden = format!("{modality}.input");
        Ok(TowerSpec {
            name: modality.to_string(),
            modality,
            file,
            precision,
            precisions: vec![Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8],
            inputs: vec![InputSpec { supply, name: input.name, golden, row }],
            outputs,
            takes,
        })
    }
}

impl Preprocessing {
    fn check(&self) -> Result<(), String> {
        let picture = |what: &str, side: usize, crop: usize| {
            ensure((1..=4096).contains(&crop) && side >= crop && side <= 8192, || {
                format!("preprocessing.{what}: resize_shorter_side {side}, crop {crop}")
            })
        };
        if let Some(video) = &self.video {
            picture("video", video.resize_shorter_side, video.crop)?;
            ensure(video.fps > 0.0 && video.fps <= 1000.0, || {
                format!("preprocessing.video: {} fps", video.fps)
            })?;
            ensure((1..=1024).contains(&video.frames), || {
                format!("preprocessing.video: {} frames", video.frames)
            })?;
        }
        if let Some(image) = &self.image {
            picture("image", image.resize_shorter_side, image.crop)?;
            let agree = self.video.as_ref().is_none_or(|video| video.picture() == *image);
            ensure(agree, || "preprocessing.image and preprocessing.video differ".into())?;
        }
        if let Some(audio) = &self.audio {
            check_sound(audio.sample_rate_hz, audio.samples, "preprocessing.audio")?;
        }
        if let Some(text) = &self.text {
            text.spec().check("preprocessing.text", "max_words")?;
        }
        Ok(())
    }

    fn takes(&self, modality: Modality) -> Option<Takes> {
        Some(match modality {
            Modality::Video => {
                let video = self.video.as_ref()?;
                let VideoEntry { fps, frames, .. } = *video;
                let sampling = Sampling::Rate { fps, frames, take: Take::Nearest };
                let (picture, choice) = (video.picture().spec(), FrameChoice::Fixed);
                Takes::Video { picture, sampling, stride_secs: None, choice }
            }
            Modality::Image => {
                let image = self.image.clone().or_else(|| self.video.as_ref().map(VideoEntry::picture))?;
                Takes::Image(image.spec())
            }
            Modality::Audio => {
                let AudioEntry { sample_rate_hz, samples } = *self.audio.as_ref()?;
                let stride_secs = samples as f64 / f64::from(sample_rate_hz);
                let short = ShortSound::Loop;
                let sound = SoundSpec { sample_rate_hz, samples, stride_secs, short, loudness: None };
                Takes::Sound { sound, stride_secs: None }
            }
            Modality::Text => Takes::Text(TextSpec::Words(self.text.as_ref()?.spec())),
        })
    }
}

impl VideoEntry {
    /// Preprocessing of one frame.
    fn picture(&self) -> ImageEntry {
        let Self { resize_shorter_side, crop, picture, bars, .. } = *self;
        ImageEntry { resize_shorter_side, crop, picture, bars }
    }
}

impl ImageEntry {
    fn spec(&self) -> PictureSpec {
        PictureSpec {
            resize: ResizeRule::ShorterSide { size: self.resize_shorter_side },
            resample: Resample::Mmv,
            crop: Some(Size { height: self.crop, width: self.crop }),
            shown: self.picture == Shown::Shown,
            unbarred: self.bars == Bars::Crop,
        }
    }
}

impl TextEntry {
    fn spec(&self) -> WordSpec {
        let Self { max_words, pad_id, unknown_id, .. } = *self;
        let (tokenizer, languages) = (self.tokenizer.clone(), Vec::new());
        WordSpec { tokenizer, max_words, pad_id, unknown_id, languages }
    }
}
