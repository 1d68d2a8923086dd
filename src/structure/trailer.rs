//! The bytes after the end of a file's own structure: tags and padding, or another file.

use super::window::Window;

/// Length of a tag of ID3v1, and of its extension `TAG+`.
const OLD_TAG_BYTES: u64 = 128;
const LONGER_TAG_BYTES: u64 = 227;

/// Bytes behind the end that may be anything: padding, a line break, a checksum.
const STRAY_BYTES: u64 = 8;
/// Most tags that are skipped.
const MAX_TAGS: usize = 64;

/// The content after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing, or tags, zeros and a few stray bytes.
    Nothing,
    /// Another file of film or sound.
    Another,
    Other,
}

/// The first bytes of films and sound, and where they are. Marks of fewer than four bytes occur by chance.
const MARKS: [(usize, &[u8]); 24] = [
    (0, b"RIFF"),
    (0, b"RF64"),
    (0, b"BW64"),
    (0, b"riff\x2e\x91\xcf\x11"),
    (0, b"FORM"),
    (4, b"ftyp"),
    (0, b"\x1a\x45\xdf\xa3"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    (0, b"FLV\x01"),
    (0, b"OggS\0"),
    (0, b"fLaC"),
    (0, b"TTA1"),
    (0, b"wvpk"),
    (0, b"MAC "),
    (0, b"DSD "),
    (0, b"caff\0"),
    (0, b".snd\0"),
    (0, b"#!AMR"),
    (0, b".RMF\0"),
    (0, b"Creative Voice File"),
    (0, b"DKIF"),
    (0, b"YUV4MPEG2"),
    (0, b"\x06\x0e\x2b\x34"),
    (0, b"\x89PNG\r\n\x1a\n"),
];

/// Whether a film or a sound file begins at this position.
pub fn begins_file(window: &mut Window<'_>, at: u64) -> bool {
    let head = window.at(at, 32);
    MARKS.iter().any(|(offset, mark)| head.get(*offset..).is_some_and(|rest| rest.starts_with(mark)))
}

/// The content between `at` and the end of the file.
pub fn behind(window: &mut Window<'_>, mut at: u64) -> Behind {
    for _ in 0..MAX_TAGS {
        if at >= window.len {
            return Behind::Nothing;
        }
        if begins_file(window, at) {
            return Behind::Another;
        }
        let Some(length) = tag(window, at) else { break };
        at += length;
    }
    let at = after_zeros(window, at);
    if begins_file(window, at) {
        return Behind::Another;
    }
    let tagged = tag(window, at).is_some_and(|length| at + length >= window.len);
    if tagged || window.len.saturating_sub(at) <= STRAY_BYTES { Behind::Nothing } else { Behind::Other }
}

/// The first byte at or after `at` that is not zero, or the end of the file.
pub fn after_zeros(window: &mut Window<'_>, mut at: u64) -> u64 {
    while at < window.len {
        let block = window.at(at, 1 << 16);
        if let Some(found) = block.iter().position(|byte| *byte != 0) {
            return at + found as u64;
        }
        at += block.len().max(1) as u64;
    }
    at
}

/// Length of a tag at this position, if there is one.
pub fn tag(window: &mut Window<'_>, at: u64) -> Option<u64> {
    let head = window.at(at, 32).to_vec();
    if head.starts_with(b"ID3") || head.starts_with(b"3DI") {
        let size = head.get(6..10)?.iter().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        let footer = if head.get(5)? & 0x10 != 0 { 10 } else { 0 };
        return Some(10 + size + footer);
    }
    if head.starts_with(b"TAG+") {
        return Some(LONGER_TAG_BYTES);
    }
    if head.starts_with(b"TAG") {
        return Some(OLD_TAG_BYTES);
    }
    if head.starts_with(b"APETAGEX") {
        let size = head.get(12..16)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let is_header = head.get(23)? & 0x20 != 0;
        return Some(if is_header { size + 32 } else { 32 });
    }
    if head.starts_with(b"LYRICSBEGIN") {
        let text = window.at(at, 1 << 16);
        let end = text.windows(9).position(|nine| nine == b"LYRICS200" || nine == b"LYRICSEND")?;
        return Some(end as u64 + 9);
    }
    None
}
