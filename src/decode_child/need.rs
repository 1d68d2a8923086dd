//! Estimates from a header how much memory a decode needs. The child's rlimit enforces the estimate, so a
//! false header makes only its own file fail.

use image::{ColorType, ImageFormat};

use crate::ffmpeg::scale::divided;
use crate::formats::headers::JpegLook;

const MIB: u64 = 1 << 20;

/// Memory of ffmpeg before it knows its file. Enough for 10-bit pictures up to 1080p.
pub const FFMPEG_FIRST: u64 = 256 * MIB;
/// Memory of ffmpeg's own data and its threads' stacks.
const FFMPEG_BASE: u64 = 64 * MIB;
/// Memory that ffmpeg needs for its threads, decoders and queues, beyond its memory when it has described its
/// input. Some streams, such as S302M in MPEG-TS, have by then filled most of `FFMPEG_BASE` with packets.
const FFMPEG_TO_COME: u64 = 40 * MIB;
/// Frames of a video in ffmpeg's memory at once: reference frames (at most 16, and then small ones), the
/// queue before the filters and the frames in them.
const FFMPEG_FRAMES: f64 = 20.0;
/// Like `FFMPEG_FRAMES`, for one picture inside a container, in tiles or whole.
const FFMPEG_STILLS: f64 = 6.0;
/// RGB pictures on their way out of ffmpeg, and the one that the server reads.
const FFMPEG_PICTURES: f64 = 6.0;
/// Memory of decoders' tables, buffers and the process itself.
const PICTURE_BASE: u64 = 24 * MIB;

/// Bytes that ffmpeg, and the server for its output, need for a video of this size and pixel format. The size
/// is 0 for sound. `held` is ffmpeg's memory when it has described its input, in bytes.
pub fn ffmpeg(
    (width, height): (u32, u32),
    pixel_format: &str,
    picture: bool,
    file_bytes: u64,
    held: u64,
) -> u64 {
    let pixels = f64::from(width) * f64::from(height);
    let frames = pixels * bytes_per_pixel(pixel_format) * if picture { FFMPEG_STILLS } else { FFMPEG_FRAMES };
    // A container's index, unpacked: about 48 bytes per packet. Small packets are sound, whose files are
    // small.
    let index = (file_bytes / 8).min(32 * MIB + file_bytes / 64);
    let base = (FFMPEG_BASE + index).max(held + FFMPEG_TO_COME);
    base + (frames + pixels * 3.0 * FFMPEG_PICTURES) as u64
}

/// Bytes per pixel of a format, by ffmpeg's name for it. Generous if the name is unknown.
fn bytes_per_pixel(name: &str) -> f64 {
    let has = |texts: &[&str]| texts.iter().any(|text| name.contains(text));
    let samples = if name.starts_with("gray") || name.starts_with("pal8") || name.starts_with("mono") {
        1.0
    } else if has(&["420", "nv12", "nv21", "410", "411", "p010", "p012", "p016"]) {
        1.5
    } else if has(&["422", "440", "nv16", "yuyv", "uyvy", "p210"]) {
        2.0
    } else if has(&["444", "gbrp", "rgb24", "bgr24", "nv24"]) && !has(&["yuva", "gbrap"]) {
        3.0
    } else {
        4.0
    };
    let depth = if has(&["f32", "128"]) {
        4.0
    } else if has(&["9le", "9be", "10", "12", "14", "16", "48", "64"]) && !has(&["nv12", "nv16"]) {
        2.0
    } else {
        1.0
    };
    samples * depth
}

/// Bytes for a picture: in the child, and as RGB in the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureNeed {
    pub child: u64,
    pub server: u64,
}

/// Memory for decoding a picture whose size is divided by `divisor`.
pub fn picture(
    format: ImageFormat,
    (width, height): (u32, u32),
    color: ColorType,
    file_bytes: u64,
    jpeg: Option<JpegLook>,
    divisor: u32,
) -> PictureNeed {
    let pixels = u64::from(width) * u64::from(height);
    let (small_width, small_height) = divided(width, height, divisor);
    let small = u64::from(small_width) * u64::from(small_height);
    let coefficients = jpeg.filter(|jpeg| jpeg.in_scans).map_or(0.0, |jpeg| jpeg.samples_per_pixel * 2.0);
    if format == ImageFormat::Jpeg {
        // Decoded line by line into the picture; four inks become three colours.
        let planes = small * (u64::from(color.bytes_per_pixel()) + 4) + 8 * MIB;
        let child = PICTURE_BASE + planes + (pixels as f64 * coefficients) as u64;
        return PictureNeed { child, server: small * 3 };
    }
    let decoded = pixels * u64::from(color.bytes_per_pixel());
    // Memory beyond the decoded picture itself.
    let extra = match format {
        // The planes of a lossy picture and its transparency, or the pixels of a lossless one.
        ImageFormat::WebP => file_bytes + pixels * 6,
        // Two canvases while checking for a second frame.
        ImageFormat::Gif => pixels * 12,
        _ => pixels / 4,
    };
    let reduced = if divisor > 1 { small * u64::from(color.bytes_per_pixel()) } else { 0 };
    PictureNeed { child: PICTURE_BASE + decoded + extra + reduced, server: small * 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixel_formats_are_known_by_their_names() {
        for (name, bytes) in [
            ("yuv420p", 1.5),
            ("yuvj420p", 1.5),
            ("nv12", 1.5),
            ("yuv420p10le", 3.0),
            ("p010le", 3.0),
            ("yuv422p", 2.0),
            ("yuv444p12le", 6.0),
            ("gray", 1.0),
            ("gbrp", 3.0),
            ("rgba", 4.0),
            ("rgba64be", 8.0),
            ("gbrapf32le", 16.0),
            ("something", 4.0),
        ] {
            assert!((bytes_per_pixel(name) - bytes).abs() < 1e-9, "{name}: {}", bytes_per_pixel(name));
        }
    }

    #[test]
    fn ordinary_videos_need_no_more_than_they_are_given_first() {
        assert!(ffmpeg((1920, 1088), "yuv420p10le", false, 0, 0) <= FFMPEG_FIRST);
        assert!(ffmpeg((640, 360), "yuv420p", false, 0, 0) < 80 * MIB);
        assert!(ffmpeg((1920, 1080), "yuv420p", false, 4096 * MIB, 0) < 260 * MIB + 10 * MIB);
        assert!(ffmpeg((7680, 4320), "yuv420p", false, 0, 0) > 1000 * MIB);
    }
}
