//! Files that are frames in a row: Y4M, IVF, JPEGs; and animated PNGs.

use std::fs::File;

use super::{Lack, joined, jpeg};
use crate::structure::trailer::{self, Behind};
use crate::structure::window::{PIECE_BYTES, Window};

/// Most frames and chunks that are examined.
const MOST_FRAMES: u64 = 20_000_000;
/// Longest header of a Y4M file or frame, in bytes.
const LINE_BYTES: usize = 1024;
/// Longest JPEG whose blocks are counted, in bytes.
const LONGEST_JPEG: u64 = 1 << 26;
/// Bytes between two JPEGs that may be anything.
const STRAY_BYTES: usize = 8;

/// Y4M: a line, then frames of equal size, each behind a line of its own.
pub fn y4m(window: &mut Window<'_>) -> Option<Lack> {
    let line = line(window, 0)?;
    let size = frame_bytes(std::str::from_utf8(&line).ok()?)?;
    let mut at = line.len() as u64 + 1;
    for _ in 0..MOST_FRAMES {
        if at >= window.len {
            return None;
        }
        if !matches!(window.at(at, 6), b"FRAME\n" | b"FRAME ") {
            // Padding is smaller than a frame.
            let empty = window.len - at >= size && trailer::after_zeros(window, at) == window.len;
            return match trailer::behind(window, at) {
                Behind::Another => Some(Lack::Joined),
                Behind::Nothing if !empty => None,
                _ => Some(Lack::Cut("expected a frame, got other data")),
            };
        }
        let head = self::line(window, at);
        let Some(head) = head else { return Some(Lack::Cut("its last frame is cut off")) };
        at += head.len() as u64 + 1 + size;
        if at > window.len {
            return Some(Lack::Cut("its last frame is cut off"));
        }
    }
    None
}

/// A line of text without its end.
fn line(window: &mut Window<'_>, at: u64) -> Option<Vec<u8>> {
    let head = window.at(at, LINE_BYTES);
    let end = head.iter().position(|byte| *byte == b'\n')?;
    head.get(..end).map(<[u8]>::to_vec)
}

/// Bytes of a frame of a Y4M file, if its header says so and the format is known.
fn frame_bytes(line: &str) -> Option<u64> {
    let word = |letter: char| line.split(' ').skip(1).find_map(|word| word.strip_prefix(letter));
    let side = |letter| word(letter).and_then(|text| text.parse::<u64>().ok()).filter(|n| *n <= 1 << 16);
    let (width, height) = (side('W')?, side('H')?);
    let format = word('C').unwrap_or("420");
    let (wide, high) = (width.div_ceil(2), height.div_ceil(2));
    let layouts = [
        ("mono", width * height),
        ("420", width * height + 2 * wide * high),
        ("422", width * height + 2 * wide * height),
        ("444alpha", 4 * width * height),
        ("444", 3 * width * height),
        ("411", width * height + 2 * width.div_ceil(4) * height),
    ];
    let (name, samples) = layouts.into_iter().find(|(name, _)| format.starts_with(name))?;
    let deep = match format.strip_prefix(name)?.trim_start_matches('p') {
        "" | "jpeg" | "mpeg2" | "aldv" => false,
        bits => bits.parse::<u32>().ok()? > 8,
    };
    Some(if deep { 2 * samples } else { samples })
}

/// IVF: a header, then frames that state their length.
pub fn ivf(window: &mut Window<'_>) -> Option<Lack> {
    let mut at = window.number(6, 2, true)?;
    for _ in 0..MOST_FRAMES {
        if at >= window.len {
            return None;
        }
        if trailer::begins_file(window, at) {
            return Some(Lack::Joined);
        }
        let size = window.number(at, 4, true);
        at += 12 + size.unwrap_or(0);
        if size.is_none() || at > window.len {
            return Some(Lack::Cut("its last packet is cut off"));
        }
    }
    None
}

/// An animated PNG: ffmpeg stops at its end mark. ffmpeg itself checks everything before that.
pub fn png(window: &mut Window<'_>) -> Option<Lack> {
    let mut at = 8;
    for _ in 0..MOST_FRAMES {
        let size = window.number(at, 4, false)?;
        let last = window.at(at + 4, 4) == b"IEND";
        at += 12 + size;
        if last {
            return joined(window, at);
        }
    }
    None
}

/// JPEGs in a row: each must have its end mark, and only padding or text (of a web camera) may be between two
/// of them.
pub fn jpegs(file: &File, window: &mut Window<'_>) -> Option<Lack> {
    const CUT: Lack = Lack::Cut("one of its pictures is cut off");
    let mut at = 0;
    while at < window.len {
        let Some(start) = start_mark(window, at) else {
            // Whatever follows the last picture.
            let other = trailer::behind(window, at) == Behind::Other && !is_padding(window, at, window.len);
            return other.then_some(Lack::Cut("expected a picture, got other data"));
        };
        if !is_padding(window, at, start) {
            return Some(Lack::Cut("it has other data between its pictures"));
        }
        at = start + 2;
        let length = loop {
            let Some(marker) = marker(window, at) else { return Some(CUT) };
            let (kind, after) = marker;
            at = after;
            match kind {
                0xd9 => break at - start,
                // The next picture.
                0xd8 => return Some(CUT),
                0x01 => {}
                // No such segments.
                0x02..=0xbf | 0xf0..=0xf6 | 0xf8..=0xfd => return Some(CUT),
                _ => at += window.number(at, 2, false)?.max(2),
            }
        };
        if length <= LONGEST_JPEG && jpeg::is_whole(&super::read(file, start, length)) == Some(false) {
            return Some(Lack::Cut("one of its pictures is damaged"));
        }
    }
    None
}

/// Position of the next start of a JPEG.
fn start_mark(window: &mut Window<'_>, mut at: u64) -> Option<u64> {
    while at < window.len {
        let block = window.at(at, PIECE_BYTES);
        if let Some(found) = block.windows(3).position(|three| three == [0xff, 0xd8, 0xff]) {
            return Some(at + found as u64);
        }
        at += block.len().saturating_sub(2).max(1) as u64;
    }
    None
}

/// Whether the bytes between two positions are zeros, fill bytes or text, or very few.
fn is_padding(window: &mut Window<'_>, from: u64, to: u64) -> bool {
    let count = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    let harmless = |byte: &u8| matches!(byte, 0 | 0xff | b'\t' | b'\r' | b'\n' | 0x20..=0x7e);
    count <= STRAY_BYTES || (count <= 1 << 15 && window.at(from, count).iter().all(harmless))
}

/// The next marker that is neither a stuffed byte nor a restart, and the position behind it.
fn marker(window: &mut Window<'_>, mut at: u64) -> Option<(u8, u64)> {
    loop {
        let block = window.at(at, PIECE_BYTES);
        let found = block
            .windows(2)
            .position(|two| matches!(two, [0xff, kind] if !matches!(kind, 0 | 0xff | 0xd0..=0xd7)));
        if let Some(found) = found {
            return Some((*block.get(found + 1)?, at + found as u64 + 2));
        }
        if block.len() < 2 {
            return None;
        }
        at += block.len() as u64 - 1;
    }
}
