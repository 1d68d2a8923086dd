//! Still pictures inside the worker, through the `image` crate.

use std::fs::File;
use std::io::{BufReader, Seek, Write};

use image::codecs::jpeg::JpegEncoder;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::protocol::{Engine, Failure, Started, Task};
use super::worker::{Decoded, Job, Refusal};
use crate::types::AssetKind;

/// Quality of thumbnails, 1-100.
const JPEG_QUALITY: u8 = 85;

/// Decodes the job's picture to standard output, upright, as PPM (or JPEG for a thumbnail).
pub fn decode(job: &mut Job, format: ImageFormat) -> Result<Decoded, Refusal> {
    let bad = |e: ImageError| refusal(&e);
    let mut limits = Limits::default();
    limits.max_alloc = Some(job.request.address_space_bytes / 2);
    let (width, height) = open(&job.media, format, &limits)?.dimensions();
    if u64::from(width) * u64::from(height) > job.request.max_pixels {
        return Err(Refusal::new(Failure::TooManyPixels, format!("{width} x {height}")));
    }
    if format == ImageFormat::Gif && animated_gif(&job.media, &limits)? {
        return Ok(Decoded::TryFfmpeg("gif"));
    }
    let mut decoder = open(&job.media, format, &limits)?;
    let orientation = decoder.orientation().map_err(bad)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(bad)?;
    picture.apply_orientation(orientation);
    job.start(Started {
        engine: Engine::Picture,
        kind: Some(AssetKind::Image),
        sample_rate_hz: 0,
        declared_secs: None,
        estimated: false,
        width: picture.width(),
        height: picture.height(),
        landlock: false,
    })?;
    write(&job.request.task, picture)?;
    Ok(Decoded::Done { damaged: 0 })
}

fn write(task: &Task, picture: DynamicImage) -> Result<(), Refusal> {
    let internal = |e: std::io::Error| Refusal::new(Failure::Internal, e);
    let mut out = std::io::stdout().lock();
    match *task {
        Task::Probe | Task::Health => return Ok(()),
        Task::Clips { .. } => {
            let rgb = picture.into_rgb8();
            write!(out, "P6\n{} {}\n255\n", rgb.width(), rgb.height()).map_err(internal)?;
            out.write_all(&rgb).map_err(internal)?;
        }
        Task::Thumbnail { max_side_px, .. } => {
            let larger = picture.width().max(picture.height()) > max_side_px;
            let small = if larger { picture.thumbnail(max_side_px, max_side_px) } else { picture };
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
