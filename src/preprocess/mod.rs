//! Raw frames and samples to the tensors the towers take.

use std::path::Path;
use std::sync::Arc;

use crate::media::{Decoder, MediaError};
use crate::types::{AssetKind, TimeSpan};

/// What a bundle's towers take, and how an asset is cut into clips.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipSpec {
    /// Frames per second the tower sees.
    pub fps: f64,
    /// Frames per clip (T).
    pub frames: usize,
    /// Shorter side after the resize, pixels.
    pub resize_shorter_side: usize,
    /// Side of the centre crop, pixels (H = W).
    pub crop: usize,
    /// Sample rate the audio tower takes, Hz.
    pub sample_rate_hz: u32,
    /// Samples per clip.
    pub samples: usize,
    /// Seconds from one clip's start to the next one's.
    pub stride_secs: f64,
}

/// One clip's tensors.
#[derive(Debug, Clone)]
pub struct ClipTensors {
    /// Where in the asset, seconds.
    pub span: TimeSpan,
    /// u8 [T, H, W, 3] RGB, absent for sound-only assets. A picture gives T = 1.
    pub frames: Option<Arc<[u8]>>,
    /// f32 [samples] in [-1, 1], absent where the asset has no sound there.
    pub pcm: Option<Arc<[f32]>>,
}

/// What was learnt about an asset; complete once the reader has returned `None`.
#[derive(Debug, Clone)]
pub struct AssetSummary {
    /// Kind of file.
    pub kind: AssetKind,
    /// Length in seconds; 0 for a picture.
    pub duration_secs: f64,
    /// Width of the picture in pixels, 0 without one.
    pub width: u32,
    /// Height in pixels, 0 without one.
    pub height: u32,
    /// Whether it has a picture track.
    pub has_video: bool,
    /// Whether it has a sound track.
    pub has_audio: bool,
    /// Why only a part could be read (`truncated`, …), if so: a sentence.
    pub partial: Option<String>,
    /// CPU seconds of the decode child.
    pub decode_cpu_secs: f64,
    /// Seconds spent in our own preprocessing.
    pub preprocess_secs: f64,
}

/// Streams an asset's clips; memory stays flat however long the asset is.
pub struct ClipReader {
    _private: (),
}

impl ClipReader {
    /// Opens a file and starts decoding. `span` limits the work to a part of the asset.
    ///
    /// # Errors
    /// [`MediaError`] where the file is refused before its first clip.
    pub async fn open(
        _decoder: &Decoder,
        _path: &Path,
        _spec: &ClipSpec,
        _span: Option<TimeSpan>,
    ) -> Result<Self, MediaError> {
        Err(MediaError::Empty)
    }

    /// The next clip, or `None` at the end.
    ///
    /// # Errors
    /// [`MediaError`] where decoding fails and nothing further can come.
    pub async fn next(&mut self) -> Result<Option<ClipTensors>, MediaError> {
        Ok(None)
    }

    /// What is known of the asset so far.
    #[must_use]
    pub fn summary(&self) -> AssetSummary {
        AssetSummary {
            kind: AssetKind::Video,
            duration_secs: 0.0,
            width: 0,
            height: 0,
            has_video: false,
            has_audio: false,
            partial: None,
            decode_cpu_secs: 0.0,
            preprocess_secs: 0.0,
        }
    }
}

/// A JPEG picture of a video at a second (or of an image), its longer side at most `max_side_px`.
///
/// # Errors
/// [`MediaError`] where the file has no picture or cannot be read.
pub async fn thumbnail(
    _decoder: &Decoder,
    _path: &Path,
    _at_secs: f64,
    _max_side_px: u32,
) -> Result<Vec<u8>, MediaError> {
    Err(MediaError::Empty)
}
