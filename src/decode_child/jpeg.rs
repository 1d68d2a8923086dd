//! Decodes JPEG with libjpeg. The pixels equal Pillow's, which the reference implementations use, byte for
//! byte.
//!
//! A picture with more pixels than a frame may have is reduced by a power of two while it is decoded: its
//! coefficients give the smaller picture directly, so that the large one is never in memory.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use image::{DynamicImage, ImageBuffer};
use mozjpeg::Decompress;
use mozjpeg::decompress::{DecompressStarted, Format};
use mozjpeg_sys as ffi;

use super::BUFFER_BYTES;
use super::job::Refusal;
use super::protocol::Failure;
use super::reduce::mean;

/// Bytes between the end of the coded picture and the next mark that are of no consequence. More of them are a part of
/// the picture that damage before it has pushed out.
const STRAY_BYTES: u32 = 64;
/// Warnings that mean that a part of the picture is damaged. Others are harmless, such as stray bytes between
/// two segments.
const DAMAGE: [i32; 4] =
    [ffi::JWRN_HIT_MARKER, ffi::JWRN_HUFF_BAD_CODE, ffi::JWRN_JPEG_EOF, ffi::JWRN_MUST_RESYNC];

thread_local! {
    /// Damage that libjpeg met in the picture of this thread.
    static DAMAGED: Cell<u64> = const { Cell::new(0) };
}

/// Decodes a JPEG at 1/`by` of its size, a power of two, and counts the damage in its data. Missing parts are
/// grey.
pub fn decode(mut media: &File, by: u32) -> Result<(DynamicImage, u64), Refusal> {
    media.rewind().map_err(|e| Refusal::new(Failure::Internal, e))?;
    DAMAGED.set(0);
    // Our error handler unwinds like a panic, without printing a message.
    let decoded = catch_unwind(AssertUnwindSafe(|| scaled(media, by.min(8))));
    let picture = match decoded {
        Ok(Ok(picture)) => picture,
        Ok(Err(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
            return Err(Refusal::new(Failure::Memory, error));
        }
        Ok(Err(error)) => return Err(Refusal::new(Failure::Corrupt, error)),
        Err(fatal) => {
            let Some(&Fatal(code)) = fatal.downcast_ref::<Fatal>() else { resume_unwind(fatal) };
            let said = format!("cannot decode its JPEG data (error {code} of libjpeg)");
            let starved = code == ffi::JERR_OUT_OF_MEMORY;
            return Err(Refusal::new(if starved { Failure::Memory } else { Failure::Corrupt }, said));
        }
    };
    let picture =
        picture.ok_or_else(|| Refusal::new(Failure::Corrupt, "fewer pixels than its declared size"))?;
    Ok((if by > 8 { mean(&picture, by / 8) } else { picture }, DAMAGED.get()))
}

fn scaled(media: &File, by: u32) -> io::Result<Option<DynamicImage>> {
    let reader = BufReader::with_capacity(BUFFER_BYTES, media);
    let mut decoder = Decompress::with_err(error_manager()).from_reader(reader)?;
    // The scale is in eighths.
    decoder.scale((8 / by) as u8);
    let size = |started: &DecompressStarted<_>| (started.width() as u32, started.height() as u32);
    let read = |mut started: DecompressStarted<_>| -> io::Result<Vec<u8>> {
        let lines = started.read_scanlines::<u8>()?;
        // The bytes before the end mark show whether the coded picture was complete.
        started.finish()?;
        Ok(lines)
    };
    Ok(match decoder.image()? {
        Format::Gray(started) => {
            let (width, height) = size(&started);
            ImageBuffer::from_raw(width, height, read(started)?).map(DynamicImage::ImageLuma8)
        }
        Format::RGB(started) => {
            let (width, height) = size(&started);
            ImageBuffer::from_raw(width, height, read(started)?).map(DynamicImage::ImageRgb8)
        }
        Format::CMYK(started) => {
            let (width, height) = size(&started);
            let light = printed(&read(started)?);
            ImageBuffer::from_raw(width, height, light).map(DynamicImage::ImageRgb8)
        }
    })
}

/// Converts four inks to RGB as Pillow does. The inks are stored inverted, as the light that they leave.
fn printed(pixels: &[u8]) -> Vec<u8> {
    let light = |left: u8, black: u8| {
        let product = u32::from(255 - left) * u32::from(black) + 128;
        black.saturating_sub(((product + (product >> 8)) >> 8) as u8)
    };
    let (inks, _) = pixels.as_chunks::<4>();
    inks.iter().flat_map(|[c, m, y, k]| [light(*c, *k), light(*m, *k), light(*y, *k)]).collect()
}

/// The message code of libjpeg that ended a decode.
struct Fatal(i32);

/// Ends a decode at an error, and counts damage among the warnings.
#[allow(unsafe_code)]
fn error_manager() -> ffi::jpeg_error_mgr {
    // SAFETY: numbers, pointers and optional functions of a C struct may all be zero; libjpeg sets them.
    let mut manager = unsafe {
        let mut manager = std::mem::zeroed();
        ffi::jpeg_std_error(&mut manager);
        manager
    };
    manager.error_exit = Some(end);
    manager.emit_message = Some(warn);
    manager
}

/// The code of a message, and its first number.
#[allow(unsafe_code)]
fn message(info: &ffi::jpeg_common_struct) -> (i32, u32) {
    // SAFETY: libjpeg calls its error manager with a pointer to that manager, which lives as long as the decoder.
    let manager = unsafe { info.err.as_ref() };
    manager.map_or((0, 0), |manager| (manager.msg_code, manager.msg_parm._bindgen_data_[0]))
}

extern "C-unwind" fn end(info: &mut ffi::jpeg_common_struct) {
    resume_unwind(Box::new(Fatal(message(info).0)))
}

/// The level is negative for warnings.
extern "C-unwind" fn warn(info: &mut ffi::jpeg_common_struct, level: i32) {
    let (code, number) = message(info);
    let pushed_out = code == ffi::JWRN_EXTRANEOUS_DATA && number > STRAY_BYTES;
    if level < 0 && (DAMAGE.contains(&code) || pushed_out) {
        DAMAGED.set(DAMAGED.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use image::codecs::jpeg::JpegEncoder;

    use super::*;

    fn photo() -> Vec<u8> {
        let picture = ImageBuffer::from_fn(160, 120, |x, y| {
            image::Rgb([(x * 3 + y) as u8, (y * 5) as u8, (x * y / 7) as u8])
        });
        let mut bytes = Vec::new();
        picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90)).unwrap();
        bytes
    }

    fn decoded(bytes: &[u8], by: u32) -> Result<(DynamicImage, u64), Refusal> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        decode(&file, by)
    }

    #[test]
    fn damage_is_counted_and_harmless_bytes_are_not() {
        let bytes = photo();
        let (picture, damaged) = decoded(&bytes, 1).unwrap();
        assert_eq!((picture.width(), picture.height(), damaged), (160, 120, 0));
        let (picture, damaged) = decoded(&bytes, 2).unwrap();
        assert_eq!((picture.width(), picture.height(), damaged), (80, 60, 0));

        let mut padded = bytes.clone();
        let end = padded.len() - 2;
        padded.splice(end..end, [0; 16]);
        assert_eq!(decoded(&padded, 1).unwrap().1, 0, "stray bytes before the end mark");

        let (half, quarter) = (bytes.len() / 2, bytes.len() / 4);
        assert!(decoded(&bytes[..half], 1).unwrap().1 > 0, "cut");
        let mut zeroed = bytes.clone();
        zeroed[half..half + quarter].fill(0);
        assert!(decoded(&zeroed, 1).unwrap().1 > 0, "zeroed");
        assert_eq!(decoded(&bytes[..20], 1).unwrap_err().failure, Failure::Corrupt);
    }

    #[test]
    fn four_inks_become_the_colours_of_pillow() {
        // `Image.merge("CMYK", …).convert("RGB")` of inks 255 minus these.
        let cases = [
            ([255, 255, 255, 255], [255, 255, 255]),
            ([0, 0, 0, 0], [0, 0, 0]),
            ([200, 100, 50, 128], [100, 50, 25]),
            ([17, 250, 93, 211], [14, 207, 77]),
        ];
        for (inks, rgb) in cases {
            assert_eq!(printed(&inks), rgb, "{inks:?}");
        }
    }
}
