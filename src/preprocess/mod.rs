//! Turns raw frames and samples into the tensors that the towers take.

mod assemble;
pub mod bars;
mod clips;
pub mod frames;
mod picture;
mod pillow;
mod reader;
mod sizes;
mod sound;
pub mod spec;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use picture::{PatchGrid, Preparer};
pub use reader::ClipReader;
pub use spec::ClipSpec;

use crate::media::{Decoder, DecoderHealth, MediaError, Thumbnail};
use crate::types::{AssetKind, TimeSpan, TrackChoice, TrackInfo};

/// Tensors of one clip.
#[derive(Debug, Clone)]
pub struct ClipTensors {
    /// Time span within the asset, in seconds. That of a picture is one frame period long.
    pub span: TimeSpan,
    /// u8 [T, H, W, 3] RGB, or [T, P, p * p * 3] if frames are cut into patches; absent for sound-only clips. A
    /// picture gives T = 1.
    pub frames: Option<Arc<[u8]>>,
    /// The patches of each frame, if frames are cut into patches.
    pub patch_grid: Option<PatchGrid>,
    /// How many of the frames are the clip's own, if they are repeated to fill it.
    pub frame_count: Option<usize>,
    /// f32 [samples] in [-1, 1], absent if the clip has no sound.
    pub pcm: Option<Arc<[f32]>>,
    /// How many of these samples are the clip's own, before any padding; 0 without sound.
    pub pcm_samples: usize,
    /// Number of consecutive windows with equal tensors in this clip; 1 for most clips.
    pub windows: u64,
}

/// Facts about an asset; complete once the reader has returned `None`.
#[derive(Debug, Clone)]
pub struct AssetSummary {
    /// Kind of file.
    pub kind: AssetKind,
    /// Length in seconds; 0 for a picture.
    pub duration_secs: f64,
    /// Width of the picture in pixels; 0 without one.
    pub width: u32,
    /// Height of the picture in pixels; 0 without one.
    pub height: u32,
    /// Whether it has a picture track.
    pub has_video: bool,
    /// Whether it has a sound track.
    pub has_audio: bool,
    /// If only a part could be read, a sentence that says why.
    pub partial: Option<String>,
    /// CPU seconds of the decode worker.
    pub decode_cpu_secs: f64,
    /// Seconds spent in preprocessing after the decode.
    pub preprocess_secs: f64,
    /// File tracks, and which of them were read; empty for a picture.
    pub tracks: Vec<TrackInfo>,
}

impl AssetSummary {
    /// The summary before anything is known.
    const fn unknown() -> Self {
        Self {
            kind: AssetKind::Video,
            duration_secs: 0.0,
            width: 0,
            height: 0,
            has_video: false,
            has_audio: false,
            partial: None,
            decode_cpu_secs: 0.0,
            preprocess_secs: 0.0,
            tracks: Vec::new(),
        }
    }
}

/// A JPEG of a video at a given second, or of an image, with a longer side of at most `max_side_px`. After
/// the end of a video it shows the last frame.
///
/// # Errors
/// [`MediaError`] if the file has no picture or cannot be read.
pub async fn thumbnail(
    decoder: &Decoder,
    path: &Path,
    at_secs: f64,
    max_side_px: u32,
) -> Result<Vec<u8>, MediaError> {
    thumbnail_of(decoder, path, at_secs, max_side_px, TrackChoice::default()).await?.jpeg
}

/// Like [`thumbnail`], for chosen file tracks, with the CPU time that it took.
///
/// # Errors
/// [`MediaError`] if the file could not be opened, or no decoder was free.
pub async fn thumbnail_of(
    decoder: &Decoder,
    path: &Path,
    at_secs: f64,
    max_side_px: u32,
    tracks: TrackChoice,
) -> Result<Thumbnail, MediaError> {
    let seat = decoder.seat().await?;
    let (decoder, path): (Decoder, PathBuf) = (decoder.clone(), path.to_owned());
    reader::on_own_thread(move || {
        let media = crate::media::open_media(&path)?;
        Ok(crate::media::thumbnail_jpeg(&decoder, &seat, &media, at_secs, max_side_px, tracks))
    })
    .await
}

/// Reads what a file declares about itself, without decoding it.
///
/// # Errors
/// [`MediaError`] if the file is refused.
pub async fn probe(decoder: &Decoder, path: &Path) -> Result<crate::media::Probe, MediaError> {
    let seat = decoder.seat().await?;
    let (decoder, path): (Decoder, PathBuf) = (decoder.clone(), path.to_owned());
    reader::on_own_thread(move || {
        let media = crate::media::open_media(&path)?;
        crate::media::probe(&decoder, &seat, &media)
    })
    .await
}

/// Whether files can be decoded. The result is at most two seconds old.
pub async fn decoder_health(decoder: &Decoder) -> DecoderHealth {
    if let Some(known) = decoder.known_health() {
        return known;
    }
    let decoder = decoder.clone();
    let asked = reader::on_own_thread(move || Ok(decoder.health())).await;
    asked.unwrap_or_else(|error| DecoderHealth {
        ok: false,
        detail: error.detail().map_or_else(|| error.to_string(), str::to_owned),
    })
}
