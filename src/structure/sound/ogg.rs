//! Checks Ogg's pages: whether the last one is complete, and whether one stream follows another.

use crate::structure::window::{PIECE_BYTES, Window};

/// What the pages of a file show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pages {
    /// Whether the last page is incomplete. A missing end mark is no sign of that: the stream may be a
    /// recorded broadcast.
    pub cut: bool,
    /// Whether one stream follows another, and there are never two at a time.
    pub chained: bool,
}

/// Walks the pages of an Ogg file. Other files give the default.
pub fn pages(window: &mut Window<'_>) -> Pages {
    let (mut found, mut at) = (Pages::default(), 0);
    if window.at(0, 4) != b"OggS" {
        return found;
    }
    let (mut in_heads, mut many) = (false, false);
    while let Some(page) = next(window, at) {
        let head = window.at(page, 27 + 255).to_vec();
        let segments = head.get(26).map_or(0, |count| usize::from(*count));
        let lengths = head.get(27..27 + segments).unwrap_or_default();
        let size: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        at = page + 27 + segments as u64 + size;
        found.cut = head.len() < 27 + segments || at > window.len;
        let begins = head.get(5).is_some_and(|flags| flags & 2 != 0);
        many |= begins && in_heads;
        found.chained |= begins && page > 0 && !in_heads;
        in_heads = begins;
    }
    found.chained &= !many;
    found
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

    fn of(parts: &[Vec<u8>]) -> (bool, bool) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&parts.concat()).unwrap();
        let pages = pages(&mut Window::new(&file).unwrap());
        (pages.cut, pages.chained)
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
