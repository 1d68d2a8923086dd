//! Still pictures inside the worker, through the `image` crate.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::need;
use super::protocol::{Engine, Failure, Started, Task};
use super::upright::{upright_size, write_rgb};
use super::worker::{Decoded, Job, Refusal};
use crate::types::AssetKind;

/// Quality of thumbnails, 1-100.
const JPEG_QUALITY: u8 = 85;
/// Where a JPEG's frame header lies, behind what cameras write before it.
const JPEG_HEAD_BYTES: u64 = 1 << 20;

/// Decodes the job's picture to standard output, upright, as PPM (or JPEG for a thumbnail).
pub fn decode(job: &mut Job, format: ImageFormat) -> Result<Decoded, Refusal> {
    let bad = |e: ImageError| refusal(&e);
    let mut limits = Limits::default();
    limits.max_alloc = Some(job.request.address_space_bytes / 2);
    let decoder = open(&job.media, format, &limits)?;
    let (size, color) = (decoder.dimensions(), decoder.color_type());
    let (width, height) = size;
    drop(decoder);
    if u64::from(width) * u64::from(height) > job.request.max_pixels {
        return Err(Refusal::new(Failure::TooManyPixels, format!("{width} x {height}")));
    }
    let file_bytes = job.media.metadata().map_err(|e| Refusal::new(Failure::Internal, e))?.len();
    let progressive = format == ImageFormat::Jpeg && progressive(&job.media)?;
    let need = need::picture(format, size, color, file_bytes, progressive);
    let child_bytes = need.child.saturating_mul(job.request.memory_factor);
    job.reserve(child_bytes, need.server)?;
    limits.max_alloc = Some(child_bytes);
    if format == ImageFormat::Gif && animated_gif(&job.media, &limits)? {
        return Ok(Decoded::TryFfmpeg("gif"));
    }
    let mut decoder = open(&job.media, format, &limits)?;
    let orientation = decoder.orientation().map_err(bad)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(bad)?;
    let (width, height) = upright_size(&picture, orientation);
    job.start(Started {
        engine: Engine::Picture,
        kind: Some(AssetKind::Image),
        sample_rate_hz: 0,
        declared_secs: None,
        sound: Default::default(),
        width,
        height,
        cut_short: None,
        landlock: false,
    })?;
    write(&job.request.task, picture, orientation)?;
    Ok(Decoded::Done { damaged: 0 })
}

fn write(task: &Task, picture: DynamicImage, orientation: Orientation) -> Result<(), Refusal> {
    let internal = |e: std::io::Error| Refusal::new(Failure::Internal, e);
    // A line of standard output would be flushed at every byte that looks like its end.
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    match *task {
        Task::Probe | Task::Health => return Ok(()),
        Task::Clips { .. } => {
            let (width, height) = upright_size(&picture, orientation);
            write!(out, "P6\n{width} {height}\n255\n").map_err(internal)?;
            write_rgb(&picture, orientation, &mut out).map_err(internal)?;
        }
        Task::Thumbnail { max_side_px, .. } => {
            let larger = picture.width().max(picture.height()) > max_side_px;
            let mut small = if larger { picture.thumbnail(max_side_px, max_side_px) } else { picture };
            small.apply_orientation(orientation);
            let encoder = JpegEncoder::new_with_quality(&mut out, JPEG_QUALITY);
            small.into_rgb8().write_with_encoder(encoder).map_err(|e| refusal(&e))?;
        }
    }
    out.flush().map_err(internal)
}

/// A decoder at the beginning of the file; all clones of the descriptor share one position.
fn open(mut media: &File, format: ImageFormat, limits: &Limits) -> Result<impl ImageDecoder, Refusal> {
    let internal = |e: std::io::Error| Refusal::new(Failure::Internal, e);
    media.rewind().map_err(internal)?;
    let media = media.try_clone().map_err(internal)?;
    let mut reader = ImageReader::with_format(BufReader::new(media), format);
    reader.limits(limits.clone());
    reader.into_decoder().map_err(|e| refusal(&e))
}

/// Whether a JPEG's coefficients are held whole while it is decoded.
fn progressive(mut media: &File) -> Result<bool, Refusal> {
    let mut head = Vec::new();
    media
        .rewind()
        .and_then(|()| media.take(JPEG_HEAD_BYTES).read_to_end(&mut head))
        .map_err(|e| Refusal::new(Failure::Internal, e))?;
    Ok(need::jpeg_is_progressive(&head))
}

/// Whether there is a second frame.
fn animated_gif(mut media: &File, limits: &Limits) -> Result<bool, Refusal> {
    let mut two = || -> Result<bool, ImageError> {
        media.rewind()?;
        let mut decoder = image::codecs::gif::GifDecoder::new(BufReader::new(media))?;
        decoder.set_limits(limits.clone())?;
        Ok(decoder.into_frames().take(2).filter(Result::is_ok).count() == 2)
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
