//! The length that an uncompressed file declares, and whether it is valid: a program that records to a pipe
//! writes the header before it knows the length.

use super::chunks::{Chunk, Form};
use super::raw::{self, Raw};
use crate::structure::trailer::{self, Behind};
use crate::structure::window::Window;

/// Most chunks that are examined. That of the sound is among the first.
const MAX_CHUNKS: usize = 1000;
/// No recording is longer than this, so a longer length is wrong unless the file is that long.
const LONGEST_SECS: f64 = 24.0 * 3600.0;
/// Bytes by which the last chunk may exceed the file: some writers count the head of the file, or the
/// padding.
const SLACK_BYTES: u64 = 8;

/// The length in a header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// Declared length in seconds.
    Secs(f64),
    /// The header was written before the length was known. The sound extends to the end of the file.
    Unknown,
}

/// How a file of samples ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where its header says.
    Whole,
    /// Too early, or something behind the samples was not read: half a sentence.
    Cut(&'static str),
    /// Another file follows.
    Joined,
}

/// Where the samples of a WAV (RIFF, RF64, BW64), W64, AU, CAF or AIFF file are, and what they look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// The kind of chunks; `None` if there are none.
    form: Option<Form>,
    /// Of a WAV's `fmt ` chunk, behind its head; `None` if it does not come before the samples.
    pub format: Option<u64>,
    /// Position of the first sample.
    pub data: u64,
    /// Bytes of samples, as declared.
    size: u64,
    /// Whether that was written before it was known.
    open: bool,
    /// Position of the next chunk.
    next: u64,
    /// Declared length in seconds, if the header is usable.
    secs: Option<f64>,
    /// Bytes of a second of sound; 0 if that is unknown.
    bytes_a_second: f64,
    /// Bytes of a sample of all channels.
    block: u64,
    /// Plain PCM, and how to read it.
    pcm: Option<Raw>,
    /// Whether ffmpeg does not find the samples by itself.
    hidden: bool,
}

/// Finds the samples; `None` for other files, and without samples.
pub fn samples(window: &mut Window<'_>) -> Option<Samples> {
    let head = window.at(0, 16).to_vec();
    match head.get(..4)? {
        b"RIFF" | b"RF64" | b"BW64" if head.get(8..12)? == b"WAVE" => wave(window),
        b"riff" => wave(window),
        b".snd" => au(window),
        b"caff" => caf(window),
        b"FORM" if matches!(head.get(8..12)?, b"AIFF" | b"AIFC") => aiff(window),
        _ => None,
    }
}

impl Samples {
    /// The length by the header or, if that cannot be right, by the bytes.
    pub fn length(&self, len: u64) -> Option<Length> {
        if self.open {
            return Some(Length::Unknown);
        }
        let secs = self.secs.filter(|secs| secs.is_finite())?;
        if self.is_cut(len) && secs > LONGEST_SECS && self.bytes_a_second > 0.0 {
            return Some(Length::Secs(len.saturating_sub(self.data) as f64 / self.bytes_a_second));
        }
        Some(Length::Secs(secs))
    }

    /// Samples that ffmpeg must read as raw PCM, if the file states no usable length.
    pub fn raw(&self, len: u64) -> Option<Raw> {
        self.pcm.filter(|raw| self.hidden && len > raw.at)
    }

    /// Whether samples are missing.
    fn is_cut(&self, len: u64) -> bool {
        // The size of what is compressed may include the padding.
        let least = if self.pcm.is_some() { self.block.max(1) } else { 2 };
        self.data.saturating_add(self.size) >= len.saturating_add(least)
    }

    /// How the file ends: only chunks may follow the samples.
    pub fn end(&self, window: &mut Window<'_>) -> End {
        if self.open {
            return End::Whole;
        }
        if self.is_cut(window.len) {
            return End::Cut("it contains fewer samples than its header declares");
        }
        // ffmpeg reads an AU file to its end, regardless of its header.
        let Some(form) = self.form else { return End::Whole };
        let mut at = self.next;
        // The padding byte may be missing.
        if self.next > self.data + self.size && form.is_chunk(window, self.next - 1) {
            at = self.next - 1;
        }
        for _ in 0..MAX_CHUNKS {
            if at >= window.len {
                return End::Whole;
            }
            let chunk = form.chunk(window, at).filter(|_| form.is_chunk(window, at));
            let another = trailer::begins_file(window, at);
            // An AIFF may have a tag as a chunk of that name.
            let tag = window.at(at, 4) != b"ID3 " && trailer::tag(window, at).is_some();
            let Some(chunk) = chunk.filter(|_| !another && !tag) else {
                return match trailer::behind(window, at) {
                    Behind::Nothing => End::Whole,
                    Behind::Another => End::Joined,
                    Behind::Other => End::Cut("expected a chunk after its samples, got other data"),
                };
            };
            if chunk.body.saturating_add(chunk.size) > window.len + SLACK_BYTES {
                return End::Cut("a chunk at its end is cut off");
            }
            at = chunk.next;
        }
        End::Whole
    }
}

/// Values that programs write while the size is unknown: 0, or the largest number (signed or unsigned) or
/// one more, possibly less the header or rounded down to whole blocks.
const fn is_placeholder(size: u32) -> bool {
    matches!(size, 0 | 0x7fff_f000..=0x8000_0fff | 0xffff_f000..=u32::MAX)
}

/// Like [`is_placeholder`], for sizes of eight bytes. No file has half a terabyte.
const fn is_long_placeholder(size: u64) -> bool {
    size >= 1 << 39 || (size <= u32::MAX as u64 && is_placeholder(size as u32))
}

/// Whether a size is a placeholder rather than that of samples which are there.
const fn is_open(size: u64, long: bool, left: u64) -> bool {
    let placeholder =
        if long || size > u32::MAX as u64 { is_long_placeholder(size) } else { is_placeholder(size as u32) };
    placeholder && (size > left || (size == 0 && left > 0))
}

/// Walks the chunks up to one of them. `take` sees all before it.
fn find(
    window: &mut Window<'_>,
    form: Form,
    name: &[u8; 4],
    mut take: impl FnMut(&mut Window<'_>, &Chunk),
) -> Option<Chunk> {
    let mut at = form.first();
    for _ in 0..MAX_CHUNKS {
        let chunk = Some(at).filter(|at| *at < window.len).and_then(|at| form.chunk(window, at))?;
        if chunk.id == *name {
            return Some(chunk);
        }
        take(window, &chunk);
        at = chunk.next;
    }
    None
}

/// A WAV, RF64, BW64 or W64 file.
fn wave(window: &mut Window<'_>) -> Option<Samples> {
    let w64 = window.at(0, 4) == b"riff";
    let riff = window.at(0, 4) == b"RIFF";
    let form = if w64 { Form::Wave64 } else { Form::Riff };
    let (mut format, mut long) = (None, None);
    let chunk = find(window, form, b"data", |window, chunk| match &chunk.id {
        b"fmt " => format = Some(chunk.body),
        b"ds64" => long = window.number(chunk.body + 8, 8, true),
        _ => {}
    })?;
    // The 64-bit form counts if the short one is full.
    let long = long.filter(|_| chunk.size == u64::from(u32::MAX));
    let size = long.unwrap_or(chunk.size);
    let left = window.len.saturating_sub(chunk.body);
    let open = is_open(size, w64 || long.is_some(), left);
    let rate = format.and_then(|format| window.number(format + 8, 4, true)).unwrap_or(0);
    let block = format.and_then(|format| window.number(format + 12, 2, true)).unwrap_or(0);
    let end = chunk.body.saturating_add(size);
    Some(Samples {
        form: Some(form),
        format,
        data: chunk.body,
        size,
        open,
        next: if long.is_some() { end.saturating_add(size % 2) } else { chunk.next },
        secs: (rate > 0).then(|| size as f64 / rate as f64),
        bytes_a_second: rate as f64,
        block,
        pcm: format.and_then(|format| raw::of_wave(window, format, chunk.body)),
        hidden: open && !riff,
    })
}

fn au(window: &mut Window<'_>) -> Option<Samples> {
    let data = window.number(4, 4, false)?;
    let size = window.number(8, 4, false)?;
    let encoding = window.number(12, 4, false)?;
    let (rate, channels) = (window.number(16, 4, false)?, window.number(20, 4, false)?);
    let (format, bytes) = match encoding {
        1 => ("mulaw", 1),
        2 => ("s8", 1),
        3 => ("s16be", 2),
        4 => ("s24be", 3),
        5 => ("s32be", 4),
        6 => ("f32be", 4),
        7 => ("f64be", 8),
        27 => ("alaw", 1),
        _ => ("", 0),
    };
    let block = channels.saturating_mul(bytes);
    let bytes_a_second = rate.saturating_mul(block) as f64;
    Some(Samples {
        form: None,
        format: None,
        data,
        size,
        open: is_open(size, false, window.len.saturating_sub(data)),
        next: data.saturating_add(size),
        secs: (bytes_a_second > 0.0).then(|| size as f64 / bytes_a_second),
        bytes_a_second,
        block,
        pcm: raw::of(format, rate, channels, data),
        hidden: size == 0,
    })
}

fn caf(window: &mut Window<'_>) -> Option<Samples> {
    let (mut rate, mut packet) = (0.0, (0, 0));
    let chunk = find(window, Form::Core, b"data", |window, chunk| {
        let mut number = |offset, bytes| window.number(chunk.body + offset, bytes, false).unwrap_or(0);
        if chunk.id == *b"desc" {
            rate = f64::from_bits(number(0, 8));
            packet = (number(16, 4), number(20, 4));
        }
    })?;
    // A counter of edits precedes the samples.
    let (data, size) = (chunk.body + 4, chunk.size.saturating_sub(4));
    let left = window.len.saturating_sub(data);
    let packets = size.checked_div(packet.0);
    Some(Samples {
        form: Some(Form::Core),
        format: None,
        data,
        size,
        open: is_open(chunk.size, true, left) || (size == 0 && left > 0),
        next: chunk.next,
        secs: packets.map(|packets| packets.saturating_mul(packet.1) as f64 / rate),
        bytes_a_second: if packet.1 > 0 { packet.0 as f64 * rate / packet.1 as f64 } else { 0.0 },
        block: packet.0,
        pcm: None,
        hidden: false,
    })
}

fn aiff(window: &mut Window<'_>) -> Option<Samples> {
    let mut common = None;
    let chunk = find(window, Form::Aiff, b"SSND", |_, chunk| {
        if chunk.id == *b"COMM" {
            common = Some(chunk.body);
        }
    })?;
    let common = common?;
    let mut number = |offset, bytes| window.number(common + offset, bytes, false);
    let (channels, frames, bits) = (number(0, 2)?, number(2, 4)?, number(6, 2)?);
    let (exponent, mantissa) = (number(8, 2)?, number(10, 8)? as f64);
    let rate = mantissa * 2f64.powi(i32::try_from(exponent & 0x7fff).ok()? - 16_383 - 63);
    let rate = rate.round().max(0.0);
    let codec = if window.at(8, 4) == b"AIFC" { window.at(common + 18, 4).to_vec() } else { Vec::new() };
    let (format, bytes) = raw::of_aiff(&codec, bits);
    let offset = window.number(chunk.body, 4, false)?;
    let data = chunk.body.saturating_add(8).saturating_add(offset);
    let size = chunk.size.saturating_sub(8).saturating_sub(offset);
    let left = window.len.saturating_sub(data);
    let unknown = is_open(chunk.size, false, left + 8) || (size == 0 && left > 0);
    let unframed = frames == 0 && left > 0 || frames >= 0xffff_f000;
    Some(Samples {
        form: Some(Form::Aiff),
        format: None,
        data,
        size,
        open: unknown || unframed,
        next: chunk.next,
        secs: (rate > 0.0).then(|| frames as f64 / rate),
        bytes_a_second: rate * (channels * bytes) as f64,
        block: channels * bytes,
        pcm: raw::of(format, rate as u64, channels, data),
        hidden: unknown || frames >= 0xffff_f000 || window.number(4, 4, false)? == 0,
    })
}

#[cfg(test)]
mod tests;
