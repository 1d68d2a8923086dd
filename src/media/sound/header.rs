//! The length that an uncompressed file declares, and whether it is valid: a program that records to a pipe
//! writes the header before it knows the length.

use crate::media::window::Window;

/// Most chunks that are examined. That of the sound is among the first.
const MAX_CHUNKS: usize = 1000;

/// The length in a header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// Length in seconds.
    Secs(f64),
    /// The header was written before the length was known. The sound goes on to the end of the file.
    Unknown,
}

/// Length in the header of a WAV (RIFF, RF64, BW64), W64, AU, CAF or AIFF file; `None` for others, and if the
/// header is unusable.
pub fn length(window: &mut Window<'_>) -> Option<Length> {
    let head = window.at(0, 16).to_vec();
    match head.get(..4)? {
        b"RIFF" | b"RF64" | b"BW64" => riff(window),
        b"riff" => w64(window),
        b".snd" => au(window),
        b"caff" => caf(window),
        b"FORM" if matches!(head.get(8..12)?, b"AIFF" | b"AIFC") => aiff(window),
        _ => None,
    }
}

/// Values that programs write while the size is unknown: 0, or the largest number (signed or unsigned),
/// possibly less the header or rounded down to whole blocks.
const fn is_placeholder(size: u32) -> bool {
    matches!(size, 0 | 0x7fff_f000..=0x7fff_ffff | 0xffff_f000..=u32::MAX)
}

/// Like [`is_placeholder`], for sizes of eight bytes.
const fn is_long_placeholder(size: u64) -> bool {
    size == 0 || size >= i64::MAX as u64 - 0xfff || (size <= u32::MAX as u64 && size >= 0xffff_f000)
}

fn secs(bytes: u64, bytes_a_second: u64) -> Option<Length> {
    (bytes_a_second > 0).then(|| Length::Secs(bytes as f64 / bytes_a_second as f64))
}

/// Where the parts of a RIFF, RF64 or BW64 file of sound are.
pub struct Wave {
    /// Of the `fmt ` chunk, behind its head; `None` if it does not come before the samples.
    pub format: Option<u64>,
    /// Of the first sample.
    pub data: u64,
    /// Bytes of samples, as the chunk says.
    size: u64,
    /// The same in the 64-bit form.
    long: Option<u64>,
}

/// Walks the chunks up to the samples; `None` for other files, and without samples.
pub fn wave(window: &mut Window<'_>) -> Option<Wave> {
    let head = window.at(0, 12);
    if !matches!(head.get(..4)?, b"RIFF" | b"RF64" | b"BW64") || head.get(8..12)? != b"WAVE" {
        return None;
    }
    let (mut at, mut format, mut long) = (12, None, None);
    for _ in 0..MAX_CHUNKS {
        let id = window.at(at, 4).to_vec();
        let size = window.number(at + 4, 4, true)?;
        match &id[..] {
            b"fmt " => format = Some(at + 8),
            b"ds64" => long = window.number(at + 16, 8, true),
            b"data" => return Some(Wave { format, data: at + 8, size, long }),
            _ => {}
        }
        at = at.checked_add(8 + size + size % 2)?;
    }
    None
}

fn riff(window: &mut Window<'_>) -> Option<Length> {
    let Wave { format, data, size, long } = wave(window)?;
    let rate = match format {
        Some(format) => window.number(format + 8, 4, true)?,
        None => 0,
    };
    let left = window.len.saturating_sub(data);
    match (u32::try_from(size).ok()?, long) {
        (u32::MAX, Some(long)) if is_long_placeholder(long) => Some(Length::Unknown),
        (u32::MAX, Some(long)) => secs(long, rate),
        (small, _) if is_placeholder(small) && left != size => Some(Length::Unknown),
        _ => secs(size, rate),
    }
}

/// Like [`wave`], for W64 files.
fn wave64(window: &mut Window<'_>) -> Option<Wave> {
    if window.at(0, 4) != b"riff" {
        return None;
    }
    // Each chunk has a GUID that begins with four letters, and a size that includes these 24 bytes.
    let (mut at, mut format) = (40, None);
    for _ in 0..MAX_CHUNKS {
        let id = window.at(at, 4).to_vec();
        let size = window.number(at + 16, 8, true)?;
        match &id[..] {
            b"fmt " => format = Some(at + 24),
            b"data" => return Some(Wave { format, data: at + 24, size, long: None }),
            _ => {}
        }
        at = at.checked_add(size.checked_next_multiple_of(8)?.max(24))?;
    }
    None
}

/// Whether the chunk of the samples in a W64 file was written before its size was known.
const fn is_open64(size: u64) -> bool {
    is_long_placeholder(size) || size == 24
}

fn w64(window: &mut Window<'_>) -> Option<Length> {
    let Wave { format, size, .. } = wave64(window)?;
    if is_open64(size) {
        return Some(Length::Unknown);
    }
    let rate = match format {
        Some(format) => window.number(format + 8, 4, true)?,
        None => 0,
    };
    secs(size.checked_sub(24)?, rate)
}

/// Where the samples of a file are that extend to its end.
pub struct Samples {
    /// Of the `fmt ` chunk, behind its head.
    pub format: u64,
    /// Of the first sample.
    pub data: u64,
}

/// Finds the samples of an RF64, BW64 or W64 file that was written before its length was known.
pub fn open_ended(window: &mut Window<'_>) -> Option<Samples> {
    let (wave, open) = match window.at(0, 4) {
        b"riff" => {
            let wave = wave64(window)?;
            let open = is_open64(wave.size);
            (wave, open)
        }
        b"RF64" | b"BW64" => {
            let wave = wave(window)?;
            let open = match wave.long {
                Some(long) if wave.size == u64::from(u32::MAX) => is_long_placeholder(long),
                // A small file whose short size was never written either.
                _ => wave.size == 0 || wave.size == u64::from(u32::MAX),
            };
            (wave, open)
        }
        _ => return None,
    };
    wave.format.filter(|_| open && window.len > wave.data).map(|format| Samples { format, data: wave.data })
}

fn au(window: &mut Window<'_>) -> Option<Length> {
    let size = u32::try_from(window.number(8, 4, false)?).ok()?;
    let encoding = window.number(12, 4, false)?;
    let (rate, channels) = (window.number(16, 4, false)?, window.number(20, 4, false)?);
    let bytes = match encoding {
        1 | 2 | 27 => 1,
        3 => 2,
        4 => 3,
        5 | 6 => 4,
        7 => 8,
        _ => 0,
    };
    if is_placeholder(size) { Some(Length::Unknown) } else { secs(u64::from(size), rate * channels * bytes) }
}

fn caf(window: &mut Window<'_>) -> Option<Length> {
    let (mut at, mut rate) = (8, 0.0);
    let mut packet = (0, 0);
    for _ in 0..MAX_CHUNKS {
        let id = window.at(at, 4).to_vec();
        let size = window.number(at + 4, 8, false)?;
        match &id[..] {
            b"desc" => {
                rate = f64::from_bits(window.number(at + 12, 8, false)?);
                packet = (window.number(at + 28, 4, false)?, window.number(at + 32, 4, false)?);
            }
            b"data" if is_long_placeholder(size) => return Some(Length::Unknown),
            b"data" => {
                let packets = size.saturating_sub(4).checked_div(packet.0)?;
                let secs = (packets * packet.1) as f64 / rate;
                return secs.is_finite().then_some(Length::Secs(secs));
            }
            _ => {}
        }
        at = at.checked_add(size)?.checked_add(12)?;
    }
    None
}

fn aiff(window: &mut Window<'_>) -> Option<Length> {
    let (mut at, mut blocks) = (12, (0, 0));
    for _ in 0..MAX_CHUNKS {
        let id = window.at(at, 4).to_vec();
        let size = window.number(at + 4, 4, false)?;
        match &id[..] {
            b"COMM" => {
                let exponent = window.number(at + 16, 2, false)?;
                let mantissa = window.number(at + 18, 8, false)? as f64;
                let rate = mantissa * 2f64.powi(i32::try_from(exponent & 0x7fff).ok()? - 16_383 - 63);
                let frames = window.number(at + 10, 4, false)?;
                blocks = (u32::try_from(frames).ok()?, rate.round().max(0.0) as u64);
            }
            b"SSND" if is_placeholder(blocks.0) => return Some(Length::Unknown),
            b"SSND" => return secs(u64::from(blocks.0), blocks.1),
            _ => {}
        }
        at = at.checked_add(8 + size + size % 2)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(bytes: &[u8]) -> Option<Length> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        length(&mut Window::new(&file).unwrap())
    }

    fn wav(size: u32) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x01\0".to_vec();
        bytes.extend([8000_u32, 16_000].map(u32::to_le_bytes).concat());
        bytes.extend(b"\x02\0\x10\0data");
        bytes.extend(size.to_le_bytes());
        bytes.extend([0; 32_000]);
        bytes
    }

    #[test]
    fn a_size_that_nobody_knew_is_no_length() {
        for size in [0, 0x7fff_ff00, 0x7fff_ffff, 0x7fff_f000, u32::MAX, u32::MAX - 36] {
            assert_eq!(of(&wav(size)), Some(Length::Unknown), "{size:x}");
        }
        assert_eq!(of(&wav(32_000)), Some(Length::Secs(2.0)));
        assert_eq!(of(&wav(64_000)), Some(Length::Secs(4.0)), "cut");
        assert_eq!(of(&wav(0x7f00_0000)), Some(Length::Secs(133_169.152)), "a size, though a large one");
        assert_eq!(of(b"RIFF"), None);
        assert_eq!(of(b"ID3"), None);
        let au = |size: u32| {
            [b".snd\0\0\0\x18".to_vec(), [size, 3, 8000, 1, 0].map(u32::to_be_bytes).concat()].concat()
        };
        assert_eq!((of(&au(u32::MAX)), of(&au(16_000))), (Some(Length::Unknown), Some(Length::Secs(1.0))));
    }
}
