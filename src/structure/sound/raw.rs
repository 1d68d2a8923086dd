//! Files of plain PCM whose header was written before the length was known. ffmpeg finds no samples in most
//! of them (RF64, BW64, W64, AIFF, AU), so it gets the position and the format of the samples, and reads them
//! as raw PCM.

use crate::structure::window::Window;

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

/// Samples of a format, unless the name is empty or the numbers are not to be believed.
pub fn of(format: &'static str, rate_hz: u64, channels: u64, at: u64) -> Option<Raw> {
    let sane = (1..=MAX_CHANNELS).contains(&channels) && (1..=MAX_RATE_HZ).contains(&rate_hz);
    let (channels, rate_hz) = (u16::try_from(channels).ok()?, u32::try_from(rate_hz).ok()?);
    (sane && !format.is_empty()).then_some(Raw { format, rate_hz, channels, at })
}

/// Samples as a `fmt ` chunk describes them.
pub fn of_wave(window: &mut Window<'_>, format: u64, at: u64) -> Option<Raw> {
    let tag = match window.number(format, 2, true)? {
        // The extended form has the old number at the start of a GUID.
        0xfffe => window.number(format + 24, 2, true)?,
        tag => tag,
    };
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
    of(name, window.number(format + 4, 4, true)?, window.number(format + 2, 2, true)?, at)
}

/// Format and bytes of a sample of an AIFF file, by its codec (empty without one) and its bits. An empty name
/// and 0 for anything else than PCM.
pub fn of_aiff(codec: &[u8], bits: u64) -> (&'static str, u64) {
    match (codec, bits) {
        (b"" | b"NONE" | b"twos", 1..=8) => ("s8", 1),
        (b"" | b"NONE" | b"twos", 9..=16) => ("s16be", 2),
        (b"" | b"NONE" | b"twos" | b"in24", 17..=24) => ("s24be", 3),
        (b"" | b"NONE" | b"twos" | b"in32", 25..=32) => ("s32be", 4),
        (b"sowt", 16) => ("s16le", 2),
        (b"sowt", 24) => ("s24le", 3),
        (b"sowt", 32) => ("s32le", 4),
        (b"raw ", _) => ("u8", 1),
        (b"fl32" | b"FL32", _) => ("f32be", 4),
        (b"fl64" | b"FL64", _) => ("f64be", 8),
        (b"alaw" | b"ALAW", _) => ("alaw", 1),
        (b"ulaw" | b"ULAW", _) => ("mulaw", 1),
        _ => ("", 0),
    }
}
