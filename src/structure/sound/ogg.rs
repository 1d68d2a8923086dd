//! Checks Ogg's pages: whether the last one is complete, and whether one stream follows another.

use crate::structure::window::{PIECE_BYTES, Window};

/// Facts in the pages of a file, from some page on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pages {
    /// Whether the last page is incomplete. A missing end mark is no sign of that: the stream may be a
    /// recorded broadcast.
    pub cut: bool,
    /// Whether one stream follows another, and there are never two at a time.
    pub chained: bool,
    /// Where a stream of sound begins that ffmpeg cannot read after those before it, because its format
    /// differs. The rest was not examined.
    pub next: Option<u64>,
}

/// Most bytes of a stream's first packet that tell its format.
const HEAD_BYTES: usize = 64;

/// Walks the pages of an Ogg file from the page at `from` on. Other files give the default.
pub fn pages(window: &mut Window<'_>, from: u64) -> Pages {
    let (mut found, mut at) = (Pages::default(), from);
    if window.at(from, 4) != b"OggS" {
        return found;
    }
    let (mut in_heads, mut many) = (false, false);
    let mut format = Vec::new();
    while let Some(page) = next(window, at) {
        let head = window.at(page, 27 + 255).to_vec();
        let segments = head.get(26).map_or(0, |count| usize::from(*count));
        let lengths = head.get(27..27 + segments).unwrap_or_default();
        let size: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        let body = page + 27 + segments as u64;
        at = body + size;
        found.cut = head.len() < 27 + segments || at > window.len;
        let begins = begins_stream(&head);
        many |= begins && in_heads;
        if begins && !in_heads {
            let own = format_of(window.at(body, HEAD_BYTES.min(usize::try_from(size).unwrap_or(HEAD_BYTES))));
            if page > from {
                found.chained = true;
                let alone = !next(window, at).is_some_and(|page| begins_stream(window.at(page, 6)));
                if own != format && !many && alone {
                    return Pages { next: Some(page), cut: false, chained: found.chained && !many };
                }
            }
            format = own;
        }
        in_heads = begins;
    }
    found.chained &= !many;
    found
}

/// Whether a page is the first one of a stream.
fn begins_stream(head: &[u8]) -> bool {
    head.get(5).is_some_and(|flags| flags & 2 != 0)
}

/// The bytes of a stream's first packet in which streams must agree for ffmpeg to read one after another: codec,
/// channels and rate. In FLAC it reads all.
fn format_of(packet: &[u8]) -> Vec<u8> {
    let parts: &[(usize, usize)] = if packet.starts_with(b"OpusHead") {
        // Neither the samples to skip nor the gain.
        &[(0, 10), (18, HEAD_BYTES)]
    } else if packet.starts_with(b"\x01vorbis") {
        &[(0, 16)]
    } else if packet.starts_with(b"\x7fFLAC") {
        &[(0, 5)]
    } else if packet.starts_with(b"Speex   ") {
        &[(0, 8), (36, 40), (48, 52)]
    } else {
        &[(0, 8)]
    };
    let within = |(start, end): &(usize, usize)| {
        packet.get(*start..(*end).min(packet.len())).unwrap_or_default().to_vec()
    };
    parts.iter().flat_map(within).collect()
}

/// Start of the first page at or after `at`.
fn next(window: &mut Window<'_>, mut at: u64) -> Option<u64> {
    while at < window.len {
        let block = window.at(at, PIECE_BYTES);
        if let Some(found) = block.windows(5).position(|five| five == b"OggS\0") {
            return Some(at + found as u64);
        }
        // A page may begin in the last bytes of the block.
        at += block.len().saturating_sub(4).max(1) as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn page(flags: u8, bytes: usize) -> Vec<u8> {
        let mut page = [&b"OggS\0"[..], &[flags], &[0; 20], &[1, bytes as u8]].concat();
        page.resize(28 + bytes, 7);
        page
    }

    fn read(parts: &[Vec<u8>], from: u64) -> Pages {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&parts.concat()).unwrap();
        pages(&mut Window::new(&file).unwrap(), from)
    }

    fn of(parts: &[Vec<u8>]) -> (bool, bool) {
        let pages = read(parts, 0);
        (pages.cut, pages.chained)
    }

    /// The first page of an Opus stream.
    fn opus(channels: u8, skip: u8) -> Vec<u8> {
        let packet =
            [&b"OpusHead\x01"[..], &[channels, skip, 0], &48_000_u32.to_le_bytes(), &[0; 3]].concat();
        [&b"OggS\0\x02"[..], &[0; 20], &[1, packet.len() as u8], &packet].concat()
    }

    #[test]
    fn a_stream_of_another_format_is_found() {
        let more = page(0, 200);
        let first = [opus(1, 9), more.clone()].concat();
        let (mono, stereo) =
            (vec![first.clone(), opus(1, 7), more.clone()], [opus(2, 9), more.clone()].concat());
        assert_eq!(read(&mono, 0), Pages { cut: false, chained: true, next: None });
        let at = (first.len() * 2) as u64;
        let all = [first.clone(), first.clone(), stereo.clone(), stereo[..60].to_vec()];
        assert_eq!(read(&all, 0).next, Some(at));
        assert_eq!(read(&all, at), Pages { cut: true, chained: true, next: None });
        // A film is not sound.
        let film = [opus(2, 9), page(2, 30), more.clone()].concat();
        assert_eq!(read(&[first.clone(), film.clone()], 0).next, None);
        assert_eq!(read(&[film, first], 0).next, None);
        assert_eq!(read(&[more], 7), Pages::default());
    }

    #[test]
    fn a_page_is_whole_or_not_and_streams_follow_or_go_side_by_side() {
        let (first, more) = (page(2, 30), page(0, 200));
        assert_eq!(of(&[first.clone(), more.clone(), more.clone()]), (false, false));
        assert_eq!(of(&[first.clone(), more.clone(), vec![0; 90_000], more.clone()]), (false, false));
        assert_eq!(of(&[first.clone(), more[..100].to_vec()]), (true, false));
        assert_eq!(of(&[first.clone(), more[..20].to_vec()]), (true, false));
        assert_eq!(of(&[first.clone(), more.clone(), first.clone(), more.clone()]), (false, true));
        assert_eq!(of(&[first.clone(), first.clone(), more.clone()]), (false, false), "picture and sound");
        let both = [first.clone(), first.clone(), more.clone()].concat();
        assert_eq!(of(&[both.clone(), both]), (false, false));
        assert_eq!(of(&[b"RIFF".to_vec()]), (false, false));
    }
}
