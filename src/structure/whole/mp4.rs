//! The outermost boxes of MP4 and MOV files.

use super::{Lack, MOST_CHUNKS};
use crate::structure::trailer;
use crate::structure::window::Window;

/// Bytes of a fragment's head that are searched for its time.
const FRAGMENT_BYTES: usize = 4096;
/// Most tracks whose first fragments are remembered.
const MAX_TRACKS: usize = 32;

/// The usual outermost boxes.
const BOXES: [&[u8]; 17] = [
    b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"meta", b"sidx", b"ssix", b"emsg", b"prft",
    b"pdin", b"free", b"skip", b"wide", b"uuid", b"udta",
];

/// Walks the boxes.
#[derive(Default)]
struct Boxes {
    films: u32,
    data: u32,
    moovs: u32,
    /// Whether there are fragments.
    fragmented: bool,
    /// Whether the last box that matters was the head of one.
    in_fragment: bool,
    /// Track and time of the first fragments.
    first: Vec<(u64, u64)>,
    /// Whether an edit list needs more than ffmpeg supports.
    edited: bool,
    /// Whether a second file has begun, whose fragments may continue the first one's.
    again: bool,
}

/// Whether the last box extends past the end, or a second film follows, which ffmpeg does not read.
pub fn boxes(window: &mut Window<'_>) -> Option<Lack> {
    let (mut seen, mut at) = (Boxes::default(), 0_u64);
    for _ in 0..MOST_CHUNKS {
        let Some(small) = window.number(at, 4, false) else { return seen.end() };
        let name = window.at(at + 4, 4).to_vec();
        if at > 0 && name != b"ftyp" && trailer::begins_file(window, at) {
            return Some(Lack::Joined);
        }
        let known = name.iter().all(|c| c.is_ascii_graphic() || *c == b' ');
        let size = if small == 1 { window.number(at + 8, 8, false).unwrap_or(0) } else { small };
        // Size 0 means to the end of the file. Anything that is not a box is not judged.
        if !known || size < 8 {
            return seen.end();
        }
        let end = at.checked_add(size).filter(|end| *end <= window.len);
        // Text behind the film may look like a box.
        let Some(end) = end else {
            let cut = BOXES.contains(&&name[..]) || seen.moovs == 0 || seen.data == 0;
            return seen.end().or(cut.then_some(Lack::Cut("a box at its end is cut off")));
        };
        if seen.take(window, &name, at, size) {
            return Some(Lack::Joined);
        }
        at = end;
    }
    seen.end()
}

impl Boxes {
    /// Takes a box. Returns whether it shows that another film begins.
    fn take(&mut self, window: &mut Window<'_>, name: &[u8], at: u64, size: u64) -> bool {
        match name {
            b"ftyp" => {
                self.films += 1;
                self.again |= self.films > 1;
            }
            b"moov" => {
                self.moovs += 1;
                let mut left = MOST_CHUNKS;
                self.edited |= edited(window, at + 8, at + size, &mut left);
                self.again |= self.moovs > 1;
            }
            b"mdat" if size > 16 => {
                self.data += 1;
                // The data of another film than a fragmented one.
                let alone = self.again && self.fragmented && !self.in_fragment;
                self.in_fragment = false;
                return alone;
            }
            b"moof" => {
                (self.fragmented, self.in_fragment) = (true, true);
                let Some((track, time)) = fragment(window, at) else { return self.again };
                let known = self.first.iter().find(|(known, _)| *known == track);
                // A live stream may repeat its header and continue.
                if self.again {
                    return known.is_none_or(|(_, first)| time <= *first);
                }
                if known.is_none() && self.first.len() < MAX_TRACKS {
                    self.first.push((track, time));
                }
            }
            _ => {}
        }
        false
    }

    /// Whether the boxes are those of two films.
    fn end(&self) -> Option<Lack> {
        let films = self.films > 1 || self.moovs > 1;
        let joined = (films && !self.fragmented && self.data > 1).then_some(Lack::Joined);
        let edited = Lack::Cut("its edit list has a gap or a change of speed, which is not supported");
        joined.or(self.edited.then_some(edited))
    }
}

/// Whether an edit list below a box has an empty edit between others, or another speed than the film's.
fn edited(window: &mut Window<'_>, mut at: u64, end: u64, left: &mut usize) -> bool {
    while at + 8 <= end && *left > 0 {
        *left -= 1;
        let name = window.at(at + 4, 4).to_vec();
        let Some(size) = window.number(at, 4, false).filter(|size| *size >= 8) else { return false };
        let next = at.saturating_add(size).min(end);
        let found = match &name[..] {
            b"trak" | b"edts" => edited(window, at + 8, next, left),
            b"elst" => edits(window, at + 8, next).is_some_and(|edits| {
                let (first, rest) = edits.split_first().unwrap_or((&(false, true), &[]));
                let later = rest.split_last().map_or(&[][..], |(_, between)| between);
                !first.1 || rest.iter().any(|(_, usual)| !usual) || later.iter().any(|(empty, _)| *empty)
            }),
            _ => false,
        };
        if found {
            return true;
        }
        at = next;
    }
    false
}

/// The edits of a list: whether each is empty, and whether its speed is the usual one.
fn edits(window: &mut Window<'_>, at: u64, end: u64) -> Option<Vec<(bool, bool)>> {
    let long = window.number(at, 1, false)? == 1;
    let (size, time_at, time_bytes) = if long { (20, 8, 8) } else { (12, 4, 4) };
    let count = window.number(at + 4, 4, false)?.min(MOST_CHUNKS as u64);
    let mut edits = Vec::new();
    for entry in (0..count).map(|entry| at + 8 + entry * size).take_while(|entry| entry + size <= end) {
        let time = window.number(entry + time_at, time_bytes, false)?;
        let empty = time == if long { u64::MAX } else { u64::from(u32::MAX) };
        let usual = window.number(entry + time_at + time_bytes as u64, 4, false)? == 1 << 16;
        edits.push((empty, usual || empty));
    }
    Some(edits)
}

/// Track and time of a fragment: those of its first track.
fn fragment(window: &mut Window<'_>, at: u64) -> Option<(u64, u64)> {
    let head = window.at(at, FRAGMENT_BYTES);
    let find = |name: &[u8]| head.windows(4).position(|four| four == name).map(|found| at + found as u64);
    let (header, time) = (find(b"tfhd")?, find(b"tfdt")?);
    let long = window.number(time + 4, 1, false)? == 1;
    let time = window.number(time + 8, if long { 8 } else { 4 }, false)?;
    Some((window.number(header + 8, 4, false)?, time))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn edits_that_are_not_followed_are_told() {
        let part = |name: &[u8], inside: &[u8]| {
            [&(inside.len() as u32 + 8).to_be_bytes()[..], name, inside].concat()
        };
        let of = |entries: &[(u32, u32, u32)]| {
            let list: Vec<u8> = entries
                .iter()
                .flat_map(|(secs, time, rate)| [*secs, *time, *rate].map(u32::to_be_bytes).concat())
                .collect();
            let list = [&[0; 4][..], &(entries.len() as u32).to_be_bytes(), &list].concat();
            let film = part(b"moov", &part(b"trak", &part(b"edts", &part(b"elst", &list))));
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[part(b"ftyp", b"isom"), part(b"mdat", &[0; 40]), film].concat()).unwrap();
            boxes(&mut Window::new(&file).unwrap())
        };
        let (none, usual) = (u32::MAX, 1 << 16);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(9, 0, usual)]), None);
        assert_eq!(of(&[(2, none, usual), (9, 100, usual)]), None, "a delay");
        assert_eq!(of(&[(4, 0, usual), (4, 8, usual)]), None, "a cut");
        assert_eq!(of(&[(4, 0, usual), (9, none, usual)]), None, "nothing follows");
        assert!(matches!(of(&[(4, 0, usual), (2, none, usual), (6, 4, usual)]), Some(Lack::Cut(_))));
        assert!(matches!(of(&[(4, 0, 2 * usual)]), Some(Lack::Cut(_))));
        assert!(matches!(of(&[(4, 0, usual), (4, 8, 0)]), Some(Lack::Cut(_))));
    }
}
