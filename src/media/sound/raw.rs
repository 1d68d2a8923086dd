//! RF64, BW64 and W64 files whose header was written before the length was known. ffmpeg finds no samples in
//! most of them, so it is told where the samples are and what they look like, and reads them as raw PCM.

use super::header::{self, Samples};
use crate::media::window::Window;

/// PCM samples in a file, from `at` to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw {
    /// ffmpeg's name of the sample format, which is that of its demuxer, too.
    pub format: &'static str,
    pub rate_hz: u32,
    pub channels: u16,
    /// Position of the first sample, in bytes.
    pub at: u64,
}

/// Most channels and highest rate that are believed.
const MAX_CHANNELS: u64 = 64;
const MAX_RATE_HZ: u64 = 768_000;

/// Where and what the samples are, if the file states no length that ffmpeg can use and holds plain PCM.
pub fn raw(window: &mut Window<'_>) -> Option<Raw> {
    let Samples { format, data } = header::open_ended(window)?;
    let tag = match window.number(format, 2, true)? {
        // The extended form has the old number at the start of a GUID.
        0xfffe => window.number(format + 24, 2, true)?,
        tag => tag,
    };
    let channels = window.number(format + 2, 2, true).filter(|n| (1..=MAX_CHANNELS).contains(n))?;
    let rate_hz = window.number(format + 4, 4, true).filter(|n| (1..=MAX_RATE_HZ).contains(n))?;
    let name = match (tag, window.number(format + 14, 2, true)?) {
        (1, 8) => "u8",
        (1, 16) => "s16le",
        (1, 24) => "s24le",
        (1, 32) => "s32le",
        (3, 32) => "f32le",
        (3, 64) => "f64le",
        (6, 8) => "alaw",
        (7, 8) => "mulaw",
        _ => return None,
    };
    let (channels, rate_hz) = (u16::try_from(channels).ok()?, u32::try_from(rate_hz).ok()?);
    Some(Raw { format: name, rate_hz, channels, at: data })
}
