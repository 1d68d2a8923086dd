//! Reduces pictures with more pixels than a frame may have by a power of two while they are decoded.
//!
//! A JPEG's coefficients give the smaller picture directly, so that the large one is never in memory. In
//! other formats, blocks of pixels are replaced by their mean.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageBuffer};
use mozjpeg::Decompress;
use mozjpeg::decompress::{DecompressStarted, Format};

use super::job::Refusal;
use crate::media::protocol::Failure;
use crate::media::scale::divided;

/// Decodes a JPEG at 1/`by` of its size, a power of two. If its data ends early, the rest is grey.
pub fn jpeg(mut media: &File, by: u32) -> Result<DynamicImage, Refusal> {
    media.rewind().map_err(|e| Refusal::new(Failure::Internal, e))?;
    // libjpeg's error handler unwinds like a panic, without printing a message.
    let decoded = catch_unwind(AssertUnwindSafe(|| scaled(media, by.min(8))));
    let picture = match decoded {
        Ok(Ok(picture)) => picture,
        Ok(Err(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
            return Err(Refusal::new(Failure::Memory, error));
        }
        Ok(Err(error)) => return Err(Refusal::new(Failure::Corrupt, error)),
        Err(said) => {
            let said = said.downcast_ref::<String>().map_or("cannot decode its JPEG data", String::as_str);
            let starved = said.contains("Insufficient memory");
            return Err(Refusal::new(if starved { Failure::Memory } else { Failure::Corrupt }, said));
        }
    };
    let picture =
        picture.ok_or_else(|| Refusal::new(Failure::Corrupt, "fewer pixels than its declared size"))?;
    Ok(if by > 8 { mean(&picture, by / 8) } else { picture })
}

fn scaled(media: &File, by: u32) -> io::Result<Option<DynamicImage>> {
    let mut decoder = Decompress::new_reader(BufReader::with_capacity(1 << 16, media))?;
    // The scale is in eighths.
    decoder.scale((8 / by) as u8);
    let size = |started: &DecompressStarted<_>| (started.width() as u32, started.height() as u32);
    Ok(match decoder.image()? {
        Format::Gray(mut started) => {
            let (width, height) = size(&started);
            ImageBuffer::from_raw(width, height, started.read_scanlines::<u8>()?)
                .map(DynamicImage::ImageLuma8)
        }
        Format::RGB(mut started) => {
            let (width, height) = size(&started);
            ImageBuffer::from_raw(width, height, started.read_scanlines::<u8>()?).map(DynamicImage::ImageRgb8)
        }
        Format::CMYK(mut started) => {
            let (width, height) = size(&started);
            let light = printed(&started.read_scanlines::<u8>()?);
            ImageBuffer::from_raw(width, height, light).map(DynamicImage::ImageRgb8)
        }
    })
}

/// Replaces blocks of pixels by their mean.
pub fn mean(picture: &DynamicImage, by: u32) -> DynamicImage {
    let (width, height) = divided(picture.width(), picture.height(), by);
    picture.thumbnail_exact(width, height)
}

/// Converts four inks to RGB. The inks are stored inverted, as the light that they leave.
fn printed(pixels: &[u8]) -> Vec<u8> {
    let light = |ink: u8, black: u8| (u16::from(ink) * u16::from(black) / 255) as u8;
    let (inks, _) = pixels.as_chunks::<4>();
    inks.iter().flat_map(|[c, m, y, k]| [light(*c, *k), light(*m, *k), light(*y, *k)]).collect()
}
