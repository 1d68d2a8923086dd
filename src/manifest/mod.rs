//! The validated description of a bundle. Both format versions become these types, and the rest of the server
//! uses no others. docs/bundle.md defines the formats.

mod check;
mod media;
mod text;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::preprocess::spec::{PictureSpec, Sampling, ShortSound, SoundSpec};
use crate::types::{Modality, Space};

pub(crate) use self::check::is_inside;
pub(crate) use self::media::FrameChoice;
pub(crate) use self::text::{Padding, Side, TextSpec, TokenSpec, WordSpec};

/// A bundle's manifest.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub name: String,
    pub description: String,
    pub license: String,
    pub sources: Vec<Source>,
    pub spaces: Vec<SpaceSpec>,
    /// The towers that have a graph.
    pub towers: Vec<TowerSpec>,
    /// The towers that borrow another one's graph.
    pub inflating: Vec<Inflating>,
    pub bank: Option<BankSpec>,
    pub goldens: Goldens,
    pub files: BTreeMap<String, String>,
}

/// Where weights come from.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Family of models, such as `clip`.
    pub family: String,
    /// Name of the published model.
    #[serde(default)]
    pub repository: Option<String>,
    /// Revision of the published model.
    #[serde(default)]
    pub revision: Option<String>,
    /// Licence of the weights.
    #[serde(default)]
    pub license: Option<String>,
    /// File of the bundle with the licence's text.
    #[serde(default)]
    pub license_file: Option<String>,
    /// What the model card says, in a few sentences.
    #[serde(default)]
    pub card: Option<String>,
    /// Languages that the model was trained on.
    #[serde(default)]
    pub languages: Vec<String>,
    /// SHA-256 of the files that were imported.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(crate) struct SpaceSpec {
    pub name: Space,
    pub dim: usize,
    /// Sizes that its vectors may be cut to.
    pub dims: Vec<usize>,
    pub members: BTreeSet<Modality>,
}

/// Number format of a tower's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Precision {
    F32,
    F16,
    Bf16,
    Int8,
}

impl Precision {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// A tower with a graph of its own.
#[derive(Debug, Clone)]
pub(crate) struct TowerSpec {
    pub name: String,
    pub modality: Modality,
    pub file: String,
    pub precision: Precision,
    /// Precisions to which the tower may be reduced.
    pub precisions: Vec<Precision>,
    pub inputs: Vec<InputSpec>,
    /// Outputs of the graph, each of which serves one or more spaces.
    pub outputs: Vec<OutputSpec>,
    pub takes: Takes,
}

/// Input of a tower, and its preprocessing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Takes {
    Video { picture: PictureSpec, sampling: Sampling, stride_secs: Option<f64>, choice: FrameChoice },
    Image(PictureSpec),
    Sound { sound: SoundSpec, stride_secs: Option<f64> },
    Text(TextSpec),
}

/// Input of a tower for films, without the other numbers of frames that it may take.
#[derive(Clone, Copy)]
pub struct VideoInput<'a> {
    pub picture: &'a PictureSpec,
    pub sampling: Sampling,
    pub stride_secs: Option<f64>,
}

/// Something that the server supplies to a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Supply {
    Frames,
    PatchGrid,
    FrameCount,
    Pcm,
    PcmSamples,
    TokenIds,
    AttentionMask,
}

impl Supply {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::PatchGrid => "patch_grid",
            Self::FrameCount => "frame_count",
            Self::Pcm => "pcm",
            Self::PcmSamples => "pcm_samples",
            Self::TokenIds => "token_ids",
            Self::AttentionMask => "attention_mask",
        }
    }

    pub const fn dtype(self) -> Dtype {
        match self {
            Self::Frames => Dtype::U8,
            Self::Pcm => Dtype::F32,
            _ => Dtype::I64,
        }
    }
}

/// Element type of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dtype {
    U8,
    F32,
    I64,
}

/// An input of a graph.
#[derive(Debug, Clone)]
pub(crate) struct InputSpec {
    pub supply: Supply,
    /// Its name in the graph.
    pub name: String,
    /// Its name among the goldens.
    pub golden: String,
    /// Its shape, without the batch dimension; `None` is a length that differs between inputs.
    pub row: Vec<Option<usize>>,
}

impl InputSpec {
    pub const fn dtype(&self) -> Dtype {
        self.supply.dtype()
    }

    /// Number of values, with the most that a dynamic length usually is.
    fn values(&self, dynamic: usize) -> usize {
        self.row.iter().map(|length| length.unwrap_or(dynamic)).product()
    }
}

/// An output of a graph.
#[derive(Debug, Clone)]
pub(crate) struct OutputSpec {
    pub name: String,
    pub dim: usize,
    pub spaces: Vec<Space>,
}

/// A tower for pictures that repeats them over the frames of a video tower.
#[derive(Debug, Clone)]
pub(crate) struct Inflating {
    pub name: String,
    /// Index of the video tower among the towers with a graph.
    pub tower: usize,
}

/// Texts for calibration if there is no word list.
#[derive(Debug, Clone)]
pub(crate) struct BankSpec {
    pub file: String,
    pub source: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goldens {
    pub file: String,
    pub max_one_minus_cosine: f64,
    #[serde(default)]
    pub texts: Vec<String>,
    /// Texts of towers that have others, by their names.
    #[serde(default)]
    pub tower_texts: BTreeMap<String, Vec<String>>,
}

impl Goldens {
    /// The golden texts of a tower.
    pub fn texts_of(&self, tower: &str) -> &[String] {
        self.tower_texts.get(tower).unwrap_or(&self.texts)
    }
}

impl TowerSpec {
    /// The spaces that it computes vectors for.
    pub fn spaces(&self) -> impl Iterator<Item = (&Space, usize)> {
        self.outputs.iter().flat_map(|output| output.spaces.iter().map(|space| (space, output.dim)))
    }

    pub fn serves(&self, space: &Space) -> bool {
        self.spaces().any(|(own, _)| own == space)
    }

    /// Values of the largest input, for limiting batches.
    pub fn row_len(&self) -> usize {
        let dynamic = match &self.takes {
            Takes::Sound { sound, .. } => sound.samples,
            Takes::Text(text) => text.max_tokens(),
            Takes::Video { sampling, .. } => sampling.frames(),
            Takes::Image(_) => 1,
        };
        self.inputs.iter().map(|input| input.values(dynamic)).max().unwrap_or(0)
    }

    pub const fn picture(&self) -> Option<&PictureSpec> {
        match &self.takes {
            Takes::Video { picture, .. } | Takes::Image(picture) => Some(picture),
            Takes::Sound { .. } | Takes::Text(_) => None,
        }
    }

    pub const fn text(&self) -> Option<&TextSpec> {
        match &self.takes {
            Takes::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Frames per clip.
    pub const fn frames(&self) -> usize {
        match &self.takes {
            Takes::Video { sampling, .. } => sampling.frames(),
            _ => 1,
        }
    }
}

impl Takes {
    /// Shapes, without the batch dimension, of the inputs that the server supplies; empty for others.
    fn row(&self, supply: Supply) -> Option<Vec<Option<usize>>> {
        use crate::preprocess::spec::{ResizeRule, Size};
        let of_picture = |picture: &PictureSpec| match (picture.resize, picture.crop) {
            (ResizeRule::Patches { patch, max_patches, .. }, _) => {
                Some(vec![Some(max_patches), Some(patch * patch * 3)])
            }
            (_, Some(Size { height, width })) | (ResizeRule::Exact(Size { height, width }), None) => {
                Some(vec![Some(height), Some(width), Some(3)])
            }
            (ResizeRule::ShorterSide { .. }, None) => None,
        };
        let grid = |picture: &PictureSpec| picture.has_patches().then(|| vec![Some(2)]);
        match (self, supply) {
            (Self::Video { picture, sampling, choice, .. }, Supply::Frames) => {
                let frames = (*choice == FrameChoice::Fixed).then(|| sampling.frames());
                Some([vec![frames], of_picture(picture)?].concat())
            }
            (Self::Image(picture), Supply::Frames) => of_picture(picture),
            (Self::Video { picture, .. } | Self::Image(picture), Supply::PatchGrid) => grid(picture),
            (Self::Video { sampling: Sampling::Rate { .. }, .. }, Supply::FrameCount) => Some(Vec::new()),
            (Self::Sound { sound, .. }, Supply::Pcm) => {
                let dynamic = matches!(sound.short, ShortSound::AsIs { .. });
                Some(vec![(!dynamic).then_some(sound.samples)])
            }
            (Self::Sound { .. }, Supply::PcmSamples) => Some(Vec::new()),
            (Self::Text(text), Supply::TokenIds) => Some(vec![text.fixed_length()]),
            (Self::Text(text @ TextSpec::Tokens(_)), Supply::AttentionMask) => {
                Some(vec![text.fixed_length()])
            }
            _ => None,
        }
    }
}

impl Manifest {
    /// Parses and validates a manifest; the error is a message.
    pub fn parse(bytes: &[u8]) -> Result<(Self, serde_json::Value), String> {
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
        // Check this first, so that a newer format is not reported as an unknown field.
        let manifest = match json.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(1) => v1::parse(bytes)?,
            Some(2) => v2::parse(bytes)?,
            Some(other) => return Err(format!("expected format_version 1 or 2, got {other}")),
            None => return Err("no format_version".to_owned()),
        };
        manifest.check()?;
        Ok((manifest, json))
    }

    /// Whether there is a tower for a modality.
    pub fn takes(&self, modality: Modality) -> bool {
        self.towers.iter().any(|tower| tower.modality == modality)
            || (modality == Modality::Image && !self.inflating.is_empty())
    }

    pub fn of_modality(&self, modality: Modality) -> impl Iterator<Item = &TowerSpec> {
        self.towers.iter().filter(move |tower| tower.modality == modality)
    }

    /// Uses another number of frames per window of a film, if all video towers allow it; otherwise the error
    /// lists the allowed numbers.
    pub fn take_frames(&mut self, wanted: usize) -> Result<(), String> {
        let mut has_films = false;
        for tower in &mut self.towers {
            let Takes::Video { sampling, choice, .. } = &mut tower.takes else { continue };
            has_films = true;
            let own = sampling.frames();
            if own != wanted && !choice.allows(wanted) {
                return Err(format!("tower {} takes {own} frames per window, or {choice}", tower.name));
            }
            *sampling = sampling.with_frames(wanted);
        }
        if has_films { Ok(()) } else { Err("it has no tower for video".to_owned()) }
    }

    /// Preparation of still pictures, if any tower takes pictures.
    pub fn picture(&self) -> Option<&PictureSpec> {
        let own = self.of_modality(Modality::Image).find_map(TowerSpec::picture);
        own.or_else(|| self.of_modality(Modality::Video).find_map(TowerSpec::picture))
    }

    /// Input of the first tower for films.
    pub fn video(&self) -> Option<VideoInput<'_>> {
        self.towers.iter().find_map(|tower| match &tower.takes {
            Takes::Video { picture, sampling, stride_secs, .. } => {
                Some(VideoInput { picture, sampling: *sampling, stride_secs: *stride_secs })
            }
            _ => None,
        })
    }

    pub fn sound(&self) -> Option<(&SoundSpec, Option<f64>)> {
        self.towers.iter().find_map(|tower| match &tower.takes {
            Takes::Sound { sound, stride_secs } => Some((sound, *stride_secs)),
            _ => None,
        })
    }

    fn space(&self, name: &Space) -> Option<&SpaceSpec> {
        self.spaces.iter().find(|space| space.name == *name)
    }
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}
