//! Decodes still pictures inside the decode worker, with the `image` crate.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};

use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{
    AnimationDecoder, DynamicImage, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits,
};

use super::job::{Decoded, Job, Refusal};
use super::need;
use super::protocol::{Engine, Failure, Started, Task};
use super::upright::{is_sideways, upright_size, write_rgb};
use super::{BUFFER_BYTES, jpeg, reduce};
use crate::ffmpeg::scale;
use crate::formats::headers::JpegLook;
use crate::types::AssetKind;

/// JPEG quality of thumbnails, 1 to 100.
const JPEG_QUALITY: u8 = 85;
/// Largest colour profile that a thumbnail keeps, in bytes.
const MAX_PROFILE_BYTES: usize = 64 << 10;
/// Name of ffmpeg's demuxer for TIFF.
pub const TIFF_DEMUXER: &str = "tiff_pipe";

/// Decodes the request's picture to standard output, upright, as PPM (or as JPEG for a thumbnail).
pub fn decode(job: &mut Job, format: ImageFormat, look: Option<JpegLook>) -> Result<Decoded, Refusal> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(job.request.address_space_bytes / 2);
    let mut decoder = match open(&job.media, format, &limits) {
        Err(refusal) if needs_ffmpeg(format, &refusal) => return Ok(Decoded::TryFfmpeg(TIFF_DEMUXER)),
        opened => opened?,
    };
    let (size, color) = (decoder.dimensions(), decoder.color_type());
    let orientation = decoder.orientation().map_err(|e| refusal(&e))?;
    let profile = rgb_profile(&mut decoder);
    drop(decoder);
    let (width, height) = size;
    if width == 0 || height == 0 {
        return Err(Refusal::new(Failure::Corrupt, "the picture has no pixels"));
    }
    if u64::from(width) * u64::from(height) > job.request.max_picture_pixels {
        return Err(Refusal::new(Failure::TooManyPixels, format!("{width} x {height}")));
    }
    let file_bytes = job.media.metadata().map_err(|e| Refusal::new(Failure::Internal, e))?.len();
    let by = scale::divisor(width, height, job.request.max_pixels);
    let need = need::picture(format, size, color, file_bytes, look, by);
    let child_bytes = need.child.saturating_mul(job.request.memory_factor);
    job.reserve(child_bytes, need.server)?;
    limits.max_alloc = Some(child_bytes);
    let mut whole = look.is_none_or(|look| look.whole);
    if format == ImageFormat::Gif {
        match gif(&job.media, &limits)? {
            Gif::Moves => return Ok(Decoded::TryFfmpeg("gif")),
            Gif::Still { whole: to_its_end } => whole = to_its_end,
        }
    }
    let (picture, damaged) = match pixels(&job.media, format, &limits, by) {
        Err(refusal) if needs_ffmpeg(format, &refusal) => return Ok(Decoded::TryFfmpeg(TIFF_DEMUXER)),
        decoded => decoded?,
    };
    let (width, height) = if is_sideways(orientation) { (height, width) } else { size };
    job.start(Started {
        engine: Engine::Picture,
        kind: Some(AssetKind::Image),
        sample_rate_hz: 0,
        declared_secs: None,
        sound: Default::default(),
        width,
        height,
        cut_short: None,
        joined: false,
        scrambled: false,
        parts: Vec::new(),
        exchanged: false,
        reduced: by > 1,
        landlock: false,
    })?;
    write(&job.request.task, picture, orientation, profile)?;
    Ok(Decoded::Done { damaged: damaged.max(u64::from(!whole)) })
}

/// The picture as stored, with its size divided by `by`, and the damage met in its data.
fn pixels(
    media: &File,
    format: ImageFormat,
    limits: &Limits,
    by: u32,
) -> Result<(DynamicImage, u64), Refusal> {
    if format == ImageFormat::Jpeg {
        return jpeg::decode(media, by);
    }
    let picture = DynamicImage::from_decoder(open(media, format, limits)?).map_err(|e| refusal(&e))?;
    Ok((if by > 1 { reduce::mean(&picture, by) } else { picture }, 0))
}

/// TIFF is a family of formats; ffmpeg supports some that the `image` crate does not.
fn needs_ffmpeg(format: ImageFormat, refusal: &Refusal) -> bool {
    format == ImageFormat::Tiff && refusal.failure == Failure::Unsupported
}

/// The colour profile, if it is for RGB, which thumbnails keep. Those of phones have some hundred bytes.
fn rgb_profile(decoder: &mut impl ImageDecoder) -> Option<Vec<u8>> {
    let profile = decoder.icc_profile().ok().flatten()?;
    let of_rgb = profile.get(16..20) == Some(b"RGB ") && profile.get(36..40) == Some(b"acsp");
    Some(profile).filter(|profile| of_rgb && profile.len() <= MAX_PROFILE_BYTES)
}

fn write(
    task: &Task,
    picture: DynamicImage,
    orientation: Orientation,
    profile: Option<Vec<u8>>,
) -> Result<(), Refusal> {
    let internal = |e: std::io::Error| Refusal::new(Failure::Internal, e);
    // Standard output is line-buffered and would be flushed at every byte that looks like a newline.
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout().lock());
    match *task {
        Task::Probe | Task::Survey { .. } | Task::Health => return Ok(()),
        Task::Clips { .. } => {
            let (width, height) = upright_size(&picture, orientation);
            write!(out, "P6\n{width} {height}\n255\n").map_err(internal)?;
            write_rgb(&picture, orientation, &mut out).map_err(internal)?;
        }
        Task::Thumbnail { max_side_px, .. } => {
            let larger = picture.width().max(picture.height()) > max_side_px;
            let mut small = if larger { picture.thumbnail(max_side_px, max_side_px) } else { picture };
            small.apply_orientation(orientation);
            let mut encoder = JpegEncoder::new_with_quality(&mut out, JPEG_QUALITY);
            if let Some(profile) = profile {
                encoder.set_icc_profile(profile).map_err(|e| Refusal::new(Failure::Internal, e))?;
            }
            small.into_rgb8().write_with_encoder(encoder).map_err(|e| refusal(&e))?;
        }
    }
    out.flush().map_err(internal)
}

/// A decoder at the beginning of the file. Rewinds, since all clones of the descriptor share one position.
fn open(mut media: &File, format: ImageFormat, limits: &Limits) -> Result<impl ImageDecoder, Refusal> {
    let internal = |e: std::io::Error| Refusal::new(Failure::Internal, e);
    media.rewind().map_err(internal)?;
    let media = media.try_clone().map_err(internal)?;
    let mut reader = ImageReader::with_format(BufReader::new(media), format);
    reader.limits(limits.clone());
    reader.into_decoder().map_err(|e| refusal(&e))
}

enum Gif {
    Moves,
    Still { whole: bool },
}

/// Whether there is a second frame. If reading it fails, the file is incomplete.
fn gif(mut media: &File, limits: &Limits) -> Result<Gif, Refusal> {
    let mut two = || -> Result<Gif, ImageError> {
        media.rewind()?;
        let mut decoder = image::codecs::gif::GifDecoder::new(BufReader::new(media))?;
        decoder.set_limits(limits.clone())?;
        let mut frames = decoder.into_frames();
        Ok(match (frames.next(), frames.next()) {
            (Some(Ok(_)), Some(Ok(_))) => Gif::Moves,
            (_, None) => Gif::Still { whole: true },
            _ => Gif::Still { whole: false },
        })
    };
    two().map_err(|e| refusal(&e))
}

fn refusal(error: &ImageError) -> Refusal {
    let failure = match error {
        ImageError::Unsupported(_) => Failure::Unsupported,
        ImageError::Limits(_) => Failure::Memory,
        _ => Failure::Corrupt,
    };
    Refusal::new(failure, error)
}
