//! A bundle's rules for turning a file into the tensors of its towers. `docs/bundle.md` defines the terms;
//! `model` reads them from the manifest, and this layer follows them.

use crate::types::TrackKind;

/// How an asset is cut into clips, and which tensors the towers take from each.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipSpec {
    /// Which frames of a window the video tower takes.
    pub sampling: Sampling,
    /// Seconds from the start of one clip to the start of the next.
    pub stride_secs: f64,
    /// How a frame of a video becomes an input.
    pub video: PictureSpec,
    /// How a still picture becomes an input.
    pub image: PictureSpec,
    /// Input of the audio tower.
    pub sound: SoundSpec,
    /// Whether sound is cut into clips of its own, with its own window and stride, even beside pictures.
    /// Otherwise a clip of a video has the sound of its own seconds.
    pub sound_apart: bool,
    /// The track of a film that no tower takes; it is not decoded.
    pub without: Option<TrackKind>,
}

/// Which frames of a window the video tower takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// Frames at a fixed rate.
    Rate {
        /// Frames per second.
        fps: f64,
        /// Frames per window (T).
        frames: usize,
        /// The frame that represents a moment.
        take: Take,
    },
    /// A fixed number of the window's own frames, evenly spaced, the first and the last included.
    Spread {
        /// Frames per window (T).
        frames: usize,
        /// Length of a window, in seconds.
        window_secs: f64,
    },
}

impl Sampling {
    /// Frames per window (T).
    #[must_use]
    pub const fn frames(self) -> usize {
        match self {
            Self::Rate { frames, .. } | Self::Spread { frames, .. } => frames,
        }
    }

    /// The same window with another number of frames.
    #[must_use]
    pub fn with_frames(self, wanted: usize) -> Self {
        match self {
            Self::Rate { fps, frames, take } => {
                Self::Rate { fps: fps * wanted as f64 / frames as f64, frames: wanted, take }
            }
            Self::Spread { window_secs, .. } => Self::Spread { frames: wanted, window_secs },
        }
    }
}

/// The frame that represents a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// The last of those whose times round to the moment, as ffmpeg's `fps` filter chooses.
    Nearest,
    /// The frame shown at that moment: the last one that began at or before it.
    OnScreen,
}

/// How a picture becomes the input of a tower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureSpec {
    /// Size after the resize.
    pub resize: ResizeRule,
    /// How pixels are interpolated.
    pub resample: Resample,
    /// The centre that is kept; `None` keeps the whole resized picture.
    pub crop: Option<Size>,
    /// Whether frames are prepared as they are meant to be shown, rather than as stored.
    pub shown: bool,
    /// Whether black bars around the picture are removed.
    pub unbarred: bool,
}

/// Size of a picture after the resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeRule {
    /// The shorter side becomes `size`, the other one `floor(long * size / short)`.
    ShorterSide {
        /// Pixels of the shorter side.
        size: usize,
    },
    /// Exactly this size, regardless of the picture's proportions.
    Exact(Size),
    /// The largest size of (about) the picture's proportions that a number of square patches covers.
    Patches {
        /// Side of a patch, in pixels.
        patch: usize,
        /// Maximum number of patches, P in `docs/bundle.md`.
        max_patches: usize,
        /// Sides are multiples of this many pixels, itself a multiple of `patch`.
        multiple: usize,
        /// Rule for the size.
        fit: Fit,
    },
}

/// Rule for the size of a picture that is cut into patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// A binary search for the largest scale, both sides rounded up (`get_image_size_for_max_num_patches`).
    Siglip2,
    /// The scale of the whole budget, both sides rounded down (`get_aspect_ratio_preserving_size`).
    Gemma,
}

/// Interpolation of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resample {
    /// Bilinear without antialias, computed in f32 and truncated (MMV).
    Mmv,
    /// Pillow's `BILINEAR`.
    Bilinear,
    /// Pillow's `BICUBIC`.
    Bicubic,
    /// Pillow's `LANCZOS`.
    Lanczos,
    /// Pillow's `NEAREST`.
    Nearest,
}

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

/// Input of the audio tower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoundSpec {
    /// Sample rate, in Hz.
    pub sample_rate_hz: u32,
    /// Samples of a window (S).
    pub samples: usize,
    /// Seconds from the start of one window to the start of the next. Used where sound is cut by itself.
    pub stride_secs: f64,
    /// Rule for sound shorter than a window.
    pub short: ShortSound,
    /// Gain on each window.
    pub loudness: Option<Loudness>,
}

/// Rule for sound shorter than a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortSound {
    /// It is repeated from the first sample on until the window is full.
    Loop,
    /// Zeros after the sound, up to the window.
    Zeros,
    /// It is repeated as often as it fits whole, and zeros follow.
    RepeatZeros,
    /// It stays short: S is dynamic.
    AsIs {
        /// It is padded to a multiple of this many samples.
        multiple: usize,
        /// Kind of padding.
        edge: Edge,
    },
}

/// Padding after sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The last samples backwards, without the very last.
    Reflect,
    /// Pads with zeros.
    Zeros,
}

/// Gain by the root mean square of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loudness {
    /// Level that a window is brought to, in dB below a full-scale constant.
    pub target_dbfs: f32,
    /// Most gain, in dB. Attenuation is not limited.
    pub max_gain_db: f32,
}

impl ClipSpec {
    /// Windows of `frames` frames at a fixed rate, each with the sound of its own seconds, as MMV has them
    /// (bundle format version 1).
    #[must_use]
    pub const fn mmv(
        fps: f64,
        frames: usize,
        picture: PictureSpec,
        sound: (u32, usize),
        stride_secs: f64,
    ) -> Self {
        let (sample_rate_hz, samples) = sound;
        Self {
            sampling: Sampling::Rate { fps, frames, take: Take::Nearest },
            stride_secs,
            video: picture,
            image: picture,
            sound: SoundSpec {
                sample_rate_hz,
                samples,
                stride_secs,
                short: ShortSound::Loop,
                loudness: None,
            },
            sound_apart: false,
            without: None,
        }
    }

    /// Frames per window (T).
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.sampling.frames()
    }

    /// Length of a window of pictures, in seconds.
    #[must_use]
    pub fn window_secs(&self) -> f64 {
        match self.sampling {
            Sampling::Rate { fps, frames, .. } => frames as f64 / fps,
            Sampling::Spread { window_secs, .. } => window_secs,
        }
    }
}

impl PictureSpec {
    /// The shorter side to `side` by MMV's resize, then the centre square `crop` (bundle format version 1).
    #[must_use]
    pub const fn mmv(side: usize, crop: usize, shown: bool, unbarred: bool) -> Self {
        Self {
            resize: ResizeRule::ShorterSide { size: side },
            resample: Resample::Mmv,
            crop: Some(Size { height: crop, width: crop }),
            shown,
            unbarred,
        }
    }

    /// Bytes of one frame's input.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        match (self.crop, self.resize) {
            (Some(Size { height, width }), _) | (None, ResizeRule::Exact(Size { height, width })) => {
                height * width * 3
            }
            (None, ResizeRule::ShorterSide { size }) => size * size * 3,
            (None, ResizeRule::Patches { patch, max_patches, .. }) => max_patches * patch * patch * 3,
        }
    }

    /// Whether pictures are cut into patches, so that a grid goes with them.
    #[must_use]
    pub const fn has_patches(&self) -> bool {
        matches!(self.resize, ResizeRule::Patches { .. })
    }
}

impl SoundSpec {
    /// Length of a window, in seconds.
    #[must_use]
    pub fn window_secs(&self) -> f64 {
        self.samples as f64 / f64::from(self.sample_rate_hz)
    }
}
