//! Finds FLAC streams that are joined to the first one. ffmpeg reads their frames, but their times begin at 0
//! again.

use crate::structure::trailer;
use crate::structure::window::{PIECE_BYTES, Window};

/// Number of pieces of one header between two streams that ffmpeg may take for damaged frames.
pub const STRAYS: u64 = 4;
/// The mark of a stream, and the head of the block that describes it, which is always first and as long.
const MARK: [u8; 8] = *b"fLaC\0\0\0\x22";
/// The same, if no other block follows.
const LONE_MARK: [u8; 8] = *b"fLaC\x80\0\0\x22";
/// Where the rate, the channels and the bits of a sample are behind the mark, in 28 bits.
const FORMAT_AT: u64 = 18;

/// The streams after the first one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// Number of streams after the first one.
    pub more: u64,
    /// Whether one of them has another rate, other channels or other bits, so that it is not decoded.
    pub differ: bool,
}

/// Searches a FLAC file for the headers of further streams. Other files give the default.
pub fn streams(window: &mut Window<'_>) -> Streams {
    let (mut found, mut at) = (Streams::default(), 0);
    while let Some(tag) = trailer::tag(window, at) {
        at += tag;
    }
    let Some(first) = format(window, at) else { return found };
    // A picture may contain anything, so the blocks before the frames are skipped.
    let Some(mut at) = frames(window, at) else { return found };
    while let Some(next) = find(window, at) {
        at = next + 8;
        let Some(format) = format(window, next) else { continue };
        found.more += 1;
        found.differ |= format != first;
        at = frames(window, next).unwrap_or(at);
    }
    found
}

/// Rate, channels and bits of a sample of the stream that begins at a position.
fn format(window: &mut Window<'_>, at: u64) -> Option<u64> {
    let head = window.at(at, 8);
    if head != MARK && head != LONE_MARK {
        return None;
    }
    let format = window.number(at + FORMAT_AT, 4, false)? >> 4;
    (format >> 8 > 0).then_some(format)
}

/// Where the frames of the stream that begins at a position are.
fn frames(window: &mut Window<'_>, at: u64) -> Option<u64> {
    let mut at = at + 4;
    loop {
        let (kind, size) = (window.number(at, 1, false)?, window.number(at + 1, 3, false)?);
        at += 4 + size;
        if kind & 0x80 != 0 {
            return Some(at);
        }
    }
}

/// The first mark at or after a position.
fn find(window: &mut Window<'_>, mut at: u64) -> Option<u64> {
    while at < window.len {
        let block = window.at(at, PIECE_BYTES);
        if let Some(found) = position(block) {
            return Some(at + found as u64);
        }
        // A mark may begin in the last bytes of the block.
        at += block.len().saturating_sub(3).max(1) as u64;
    }
    None
}

/// The first mark in a block. Mostly every fourth byte is looked at, where one would end.
fn position(block: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += match block.get(at + 3)? {
            b'C' if block.get(at..at + 4) == Some(b"fLaC") => return Some(at),
            b'a' => 1,
            b'L' => 2,
            b'f' => 3,
            _ => 4,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(parts: &[&[u8]]) -> Streams {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&parts.concat()).unwrap();
        streams(&mut Window::new(&file).unwrap())
    }

    fn flac(rate: u32) -> Vec<u8> {
        let about =
            [&[0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0][..], &(rate << 12).to_be_bytes(), &[0; 20]].concat();
        // A comment that contains a mark, then frames.
        let comment = [&b"\x84\0\0\x28"[..], &MARK, &about[..32]].concat();
        [&MARK[..], &about, &comment, &[0xff, 0xf8, 1, 2], &vec![7; 70_000]].concat()
    }

    #[test]
    fn a_mark_is_found_wherever_it_is() {
        for before in [&b""[..], b"f", b"fL", b"fLa", b"fLaf", b"aaaaaC", b"LaC", b"CCCC", b"ffffLLLL"] {
            assert_eq!(position(&[before, b"fLaC\0"].concat()), Some(before.len()), "{before:?}");
            assert_eq!(position(&[before, b"fLa"].concat()), None);
        }
    }

    #[test]
    fn joined_streams_are_counted_and_compared() {
        let (one, other) = (flac(48_000), flac(44_100));
        assert_eq!(of(&[&one]), Streams::default());
        assert_eq!(of(&[&one, b"fLaC by chance", &[7; 30_000]]), Streams::default());
        assert_eq!(of(&[&one, &one, &one]), Streams { more: 2, differ: false });
        assert_eq!(of(&[b"ID3\x04\0\0\0\0\0\x05hello", &one, &other]), Streams { more: 1, differ: true });
        assert_eq!(of(&[b"RIFF", &one, &one]), Streams::default());
    }
}
