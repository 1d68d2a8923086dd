//! Checks the frames of a TTA file, whose lengths are in a table and which end with a checksum each. ffmpeg
//! ignores these.

use crate::structure::trailer::{self, Behind};
use crate::structure::window::Window;

/// Bytes of the header and of a checksum.
const HEADER: u64 = 22;
const CHECKSUM: u64 = 4;
/// A frame has 256 / 245 s of sound.
const FRAME: (u64, u64) = (256, 245);
/// Most frames: more than two days.
const MAX_FRAMES: u64 = 200_000;

/// Facts in the frames of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frames {
    /// Whether the last ones are missing.
    pub cut: bool,
    /// Whether another file follows them.
    pub joined: bool,
    /// Number of frames with another checksum.
    pub damaged: u64,
}

/// Walks the frames. `None` for other files, and if the header is unusable.
pub fn frames(window: &mut Window<'_>) -> Option<Frames> {
    let mut start = 0;
    while let Some(tag) = trailer::tag(window, start) {
        start += tag;
    }
    if window.at(start, 4) != b"TTA1" {
        return None;
    }
    let rate = window.number(start + 10, 4, true)?;
    let samples = window.number(start + 14, 4, true)?;
    let count = samples.div_ceil((FRAME.0 * rate / FRAME.1).max(1));
    if rate == 0 || count > MAX_FRAMES {
        return None;
    }
    let table = start + HEADER;
    let mut at = table + 4 * count + CHECKSUM;
    // Without a valid table nothing is known.
    if checksum(window, table, 4 * count)? != window.number(at - CHECKSUM, 4, true)? {
        return Some(Frames { damaged: 1, ..Frames::default() });
    }
    let mut found = Frames::default();
    for frame in 0..count {
        let size = window.number(table + 4 * frame, 4, true)?;
        if at + size > window.len {
            found.cut = true;
            return Some(found);
        }
        let sum = size.checked_sub(CHECKSUM).and_then(|bytes| checksum(window, at, bytes));
        at += size;
        found.damaged += u64::from(sum.is_none() || sum != window.number(at - CHECKSUM, 4, true));
    }
    match trailer::behind(window, at) {
        Behind::Nothing => {}
        Behind::Another => found.joined = true,
        // The frames have moved.
        Behind::Other => found.damaged = found.damaged.max(1),
    }
    Some(found)
}

/// CRC-32 of some bytes; `None` if the file ends before.
fn checksum(window: &mut Window<'_>, mut at: u64, mut bytes: u64) -> Option<u64> {
    let mut sum = crc32fast::Hasher::new();
    while bytes > 0 {
        let block = window.at(at, bytes.min(1 << 15) as usize);
        if block.is_empty() {
            return None;
        }
        sum.update(block);
        at += block.len() as u64;
        bytes -= block.len() as u64;
    }
    Some(u64::from(sum.finalize()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(bytes: &[u8]) -> Option<Frames> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        frames(&mut Window::new(&file).unwrap())
    }

    /// Three frames of 245 Hz mono.
    fn tta() -> Vec<u8> {
        let summed = |bytes: &[u8]| [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat();
        let head = [&b"TTA1\x01\0\x01\0\x10\0"[..], &245_u32.to_le_bytes(), &600_u32.to_le_bytes()].concat();
        let frames = [vec![1; 100], vec![2; 90_000], vec![3; 50]].map(|frame| summed(&frame));
        let table: Vec<u8> = frames.iter().flat_map(|frame| (frame.len() as u32).to_le_bytes()).collect();
        [summed(&head), summed(&table), frames.concat()].concat()
    }

    #[test]
    fn frames_are_whole_or_damaged_or_missing() {
        let (whole, none) = (tta(), Frames::default());
        let tagged = [&b"ID3\x04\0\0\0\0\0\x05hello"[..], &whole, b"TAG", &[7; 125]].concat();
        assert_eq!((of(&whole), of(&tagged), of(b"RIFF")), (Some(none), Some(none), None));
        assert_eq!(of(&[tta(), tta()].concat()), Some(Frames { joined: true, ..none }));
        assert_eq!(of(&whole[..whole.len() - 1]), Some(Frames { cut: true, ..none }));
        for at in [70, 30_000, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(of(&damaged), Some(Frames { damaged: 1, ..none }), "{at}");
        }
        let spliced = [&whole[..40_000], &[9; 400], &whole[40_000..]].concat();
        assert!(of(&spliced).unwrap().damaged > 0);
    }
}
