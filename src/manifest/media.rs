//! `preprocessing` of pictures and sound in format version 2.

use serde::Deserialize;

use super::ensure;
use crate::preprocess::spec::{
    Edge, Fit, Loudness, PictureSpec, Resample, ResizeRule, Sampling, ShortSound, Size, SoundSpec, Take,
};

/// Most frames of a window.
const MOST_FRAMES: usize = 1024;
const SIDES: std::ops::RangeInclusive<usize> = 1..=8192;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PictureEntry {
    resize: ResizeEntry,
    resample: ResampleEntry,
    crop: Option<SizeEntry>,
    picture: Shown,
    bars: Bars,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
enum ResizeEntry {
    ShorterSide { size: usize },
    Exact { height: usize, width: usize },
    Patches { patch: usize, max_patches: usize, multiple: usize, fit: FitEntry },
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FitEntry {
    Siglip2,
    Gemma,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ResampleEntry {
    Mmv,
    Bilinear,
    Bicubic,
    Lanczos,
    Nearest,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct SizeEntry {
    height: usize,
    width: usize,
}

/// Which picture of a frame the towers were trained on. Manifests without this field are older than the
/// choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shown {
    #[default]
    Stored,
    Shown,
}

/// Treatment of black bars around a picture. Manifests without this field are older than the choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bars {
    #[default]
    Keep,
    Crop,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum SamplingEntry {
    Rate {
        fps: f64,
        frames: usize,
        take: TakeEntry,
        #[serde(default)]
        stride_secs: Option<f64>,
        #[serde(default)]
        short: Option<ShortVideo>,
        #[serde(default)]
        frames_range: Option<[usize; 2]>,
        #[serde(default)]
        frames_choices: Option<Vec<usize>>,
    },
    Spread {
        frames: usize,
        window_secs: f64,
        #[serde(default)]
        stride_secs: Option<f64>,
        #[serde(default)]
        frames_range: Option<[usize; 2]>,
        #[serde(default)]
        frames_choices: Option<Vec<usize>>,
    },
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TakeEntry {
    Nearest,
    OnScreen,
}

/// The one rule for assets shorter than a window.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ShortVideo {
    Loop,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SoundEntry {
    sample_rate_hz: u32,
    samples: usize,
    #[serde(default)]
    stride_secs: Option<f64>,
    short: ShortEntry,
    #[serde(default)]
    multiple: Option<usize>,
    #[serde(default)]
    edge: Option<EdgeEntry>,
    #[serde(default)]
    loudness: Option<LoudnessEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ShortEntry {
    Loop,
    Zeros,
    RepeatZeros,
    AsIs,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EdgeEntry {
    Reflect,
    Zeros,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
enum LoudnessEntry {
    Rms { target_dbfs: f32, max_gain_db: f32 },
}

impl PictureEntry {
    pub fn spec(&self, at: &str) -> Result<PictureSpec, String> {
        let at = format!("{at}.picture");
        let resize = self.resize.rule(&at)?;
        let crop = self.crop.map(|crop| crop.size(&format!("{at}.crop"))).transpose()?;
        match resize {
            ResizeRule::ShorterSide { .. } => ensure(crop.is_some(), || {
                format!("{at}: the rule shorter_side needs a `crop`, so that all pictures have one size")
            })?,
            ResizeRule::Exact(_) | ResizeRule::Patches { .. } => {
                ensure(crop.is_none(), || format!("{at}: `crop` is only for the rule shorter_side"))?;
            }
        }
        Ok(PictureSpec {
            resize,
            resample: self.resample.filter(),
            crop,
            shown: self.picture == Shown::Shown,
            unbarred: self.bars == Bars::Crop,
        })
    }
}

impl ResizeEntry {
    fn rule(self, at: &str) -> Result<ResizeRule, String> {
        let at = format!("{at}.resize");
        match self {
            Self::ShorterSide { size } => {
                ensure(SIDES.contains(&size), || format!("{at}.size must be 1 to 8192, got {size}"))?;
                Ok(ResizeRule::ShorterSide { size })
            }
            Self::Exact { height, width } => Ok(ResizeRule::Exact(SizeEntry { height, width }.size(&at)?)),
            Self::Patches { patch, max_patches, multiple, fit } => {
                ensure((1..=512).contains(&patch), || format!("{at}.patch must be 1 to 512, got {patch}"))?;
                ensure((1..=65_536).contains(&max_patches), || {
                    format!("{at}.max_patches must be 1 to 65536, got {max_patches}")
                })?;
                ensure(multiple > 0 && multiple <= 8192 && multiple.is_multiple_of(patch), || {
                    format!("{at}.multiple must be a multiple of patch ({patch}), got {multiple}")
                })?;
                ensure((multiple / patch).pow(2) <= max_patches, || {
                    format!("{at}.max_patches {max_patches} does not cover one square of {multiple} pixels")
                })?;
                let fit = match fit {
                    FitEntry::Siglip2 => Fit::Siglip2,
                    FitEntry::Gemma => Fit::Gemma,
                };
                Ok(ResizeRule::Patches { patch, max_patches, multiple, fit })
            }
        }
    }
}

impl ResampleEntry {
    const fn filter(self) -> Resample {
        match self {
            Self::Mmv => Resample::Mmv,
            Self::Bilinear => Resample::Bilinear,
            Self::Bicubic => Resample::Bicubic,
            Self::Lanczos => Resample::Lanczos,
            Self::Nearest => Resample::Nearest,
        }
    }
}

impl SizeEntry {
    fn size(self, at: &str) -> Result<Size, String> {
        let Self { height, width } = self;
        ensure(SIDES.contains(&height) && SIDES.contains(&width), || {
            format!("{at}: height and width must be 1 to 8192, got {height} and {width}")
        })?;
        Ok(Size { height, width })
    }
}

/// At which times a tower takes frames.
pub struct SamplingSpec {
    pub sampling: Sampling,
    /// Distance of two windows, if it is not their length.
    pub stride_secs: Option<f64>,
    /// Which other numbers of frames there may be.
    pub choice: FrameChoice,
}

impl SamplingEntry {
    pub fn spec(self, at: &str) -> Result<SamplingSpec, String> {
        let at = format!("{at}.sampling");
        let (sampling, stride_secs, range, choices) = match self {
            Self::Rate {
                fps,
                frames,
                take,
                stride_secs,
                short: None | Some(ShortVideo::Loop),
                frames_range,
                frames_choices,
            } => {
                ensure(fps > 0.0 && fps <= 1000.0, || format!("{at}: {fps} fps"))?;
                let take = match take {
                    TakeEntry::Nearest => Take::Nearest,
                    TakeEntry::OnScreen => Take::OnScreen,
                };
                (Sampling::Rate { fps, frames, take }, stride_secs, frames_range, frames_choices)
            }
            Self::Spread { frames, window_secs, stride_secs, frames_range, frames_choices } => {
                ensure(window_secs > 0.0 && window_secs <= 86_400.0, || {
                    format!("{at}.window_secs must be above 0 and at most a day, got {window_secs}")
                })?;
                (Sampling::Spread { frames, window_secs }, stride_secs, frames_range, frames_choices)
            }
        };
        let frames = sampling.frames();
        ensure((1..=MOST_FRAMES).contains(&frames), || format!("{at}: {frames} frames"))?;
        check_stride(stride_secs, &at)?;
        let choice = FrameChoice::new(range, choices, &at)?;
        ensure(choice == FrameChoice::Fixed || choice.allows(frames), || {
            format!("{at}.frames must be {choice}, got {frames}")
        })?;
        Ok(SamplingSpec { sampling, stride_secs, choice })
    }
}

/// How many frames a window may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FrameChoice {
    /// The number that the manifest gives.
    Fixed,
    /// Any number between two, both included.
    Range(usize, usize),
    /// Any of the listed numbers.
    Listed(Vec<usize>),
}

impl FrameChoice {
    fn new(range: Option<[usize; 2]>, listed: Option<Vec<usize>>, at: &str) -> Result<Self, String> {
        let frames = 1..=MOST_FRAMES;
        match (range, listed) {
            (None, None) => Ok(Self::Fixed),
            (Some([least, most]), None)
                if frames.contains(&least) && frames.contains(&most) && least <= most =>
            {
                Ok(Self::Range(least, most))
            }
            (None, Some(listed)) if !listed.is_empty() && listed.iter().all(|n| frames.contains(n)) => {
                Ok(Self::Listed(listed))
            }
            _ => Err(format!(
                "{at}: expected `frames_range` [min, max] or `frames_choices` [n, …], each from 1 to {MOST_FRAMES}"
            )),
        }
    }

    pub fn allows(&self, frames: usize) -> bool {
        match self {
            Self::Fixed => false,
            Self::Range(least, most) => (*least..=*most).contains(&frames),
            Self::Listed(listed) => listed.contains(&frames),
        }
    }
}

impl std::fmt::Display for FrameChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed => f.write_str("no other number"),
            Self::Range(least, most) => write!(f, "{least} to {most}"),
            Self::Listed(listed) => {
                let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
                f.write_str(&listed.join(", "))
            }
        }
    }
}

fn check_stride(stride_secs: Option<f64>, at: &str) -> Result<(), String> {
    ensure(stride_secs.is_none_or(|stride| stride > 0.0 && stride <= 86_400.0), || {
        format!("{at}.stride_secs must be above 0 and at most a day, got {}", stride_secs.unwrap_or(0.0))
    })
}

impl SoundEntry {
    /// Input of the tower, and the stride if it is not the window.
    pub fn spec(self, at: &str) -> Result<(SoundSpec, Option<f64>), String> {
        let at = format!("{at}.sound");
        let Self { sample_rate_hz, samples, stride_secs, .. } = self;
        check_sound(sample_rate_hz, samples, &at)?;
        check_stride(stride_secs, &at)?;
        let as_is = self.short == ShortEntry::AsIs;
        ensure(as_is || (self.multiple.is_none() && self.edge.is_none()), || {
            format!("{at}: `multiple` and `edge` are only for the rule as_is of `short`")
        })?;
        let multiple = self.multiple.unwrap_or(1);
        ensure((1..=samples).contains(&multiple), || {
            format!("{at}.multiple must be 1 to {samples} (samples), got {multiple}")
        })?;
        let short = match self.short {
            ShortEntry::Loop => ShortSound::Loop,
            ShortEntry::Zeros => ShortSound::Zeros,
            ShortEntry::RepeatZeros => ShortSound::RepeatZeros,
            ShortEntry::AsIs => {
                let edge = match self.edge {
                    Some(EdgeEntry::Reflect) => Edge::Reflect,
                    Some(EdgeEntry::Zeros) | None => Edge::Zeros,
                };
                ShortSound::AsIs { multiple, edge }
            }
        };
        let loudness = self.loudness.map(|loudness| loudness.gain(&at)).transpose()?;
        let window_secs = samples as f64 / f64::from(sample_rate_hz);
        let stride = stride_secs.unwrap_or(window_secs);
        Ok((SoundSpec { sample_rate_hz, samples, stride_secs: stride, short, loudness }, stride_secs))
    }
}

impl LoudnessEntry {
    fn gain(self, at: &str) -> Result<Loudness, String> {
        let Self::Rms { target_dbfs, max_gain_db } = self;
        ensure((-100.0..=0.0).contains(&target_dbfs) && (0.0..=100.0).contains(&max_gain_db), || {
            format!(
                "{at}.loudness: target_dbfs must be -100 to 0 and max_gain_db 0 to 100, got {target_dbfs} and {max_gain_db}"
            )
        })?;
        Ok(Loudness { target_dbfs, max_gain_db })
    }
}

pub(super) fn check_sound(sample_rate_hz: u32, samples: usize, at: &str) -> Result<(), String> {
    ensure((1000..=768_000).contains(&sample_rate_hz), || format!("{at}: {sample_rate_hz} Hz"))?;
    ensure((1..=100_000_000).contains(&samples), || format!("{at}: {samples} samples"))
}
