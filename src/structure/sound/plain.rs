//! Checks whether a WAV file that declares samples contains nothing else. Some contain DTS, AC-3 or MPEG
//! frames under that label, so ffmpeg tries every codec on the first 128 KiB, which takes longer than reading
//! a short file.

use super::header;
use super::scan;
use crate::structure::window::{PIECE_BYTES, Window};

/// ffmpeg examines 32 packets of 4 KiB.
const LOOKED_AT: usize = 1 << 17;
/// Sync words of DTS in 16 and in 14 bits, in both byte orders.
const DTS: [[u8; 4]; 4] =
    [[0x7f, 0xfe, 0x80, 0x01], [0xfe, 0x7f, 0x01, 0x80], [0x1f, 0xff, 0xe8, 0x00], [0xff, 0x1f, 0x00, 0xe8]];
/// ffmpeg takes sound for AC-3 if at least seven frames follow each other. Samples can look like one by
/// chance.
const AC3_FRAMES: usize = 7;

/// Whether this is a WAV file of plain samples, so that ffmpeg need not probe for codecs.
pub fn is_plain(window: &mut Window<'_>) -> bool {
    let Some(data) = samples_at(window) else { return false };
    if scan::begins_with_frames(window, data) {
        return false;
    }
    let mut ac3 = 0;
    let mut from = data;
    while from < (data + LOOKED_AT as u64).min(window.len) {
        let block = window.at(from, PIECE_BYTES);
        if block.len() < 6 {
            break;
        }
        if block.windows(4).any(|four| DTS.iter().any(|sync| four == sync)) {
            return false;
        }
        ac3 += block.windows(6).filter(|six| is_ac3(six)).count();
        // Anything that begins at the end of a block is in the next one, too.
        from += (block.len() - 5) as u64;
    }
    ac3 < AC3_FRAMES
}

/// Where the samples begin, if the header declares PCM.
fn samples_at(window: &mut Window<'_>) -> Option<u64> {
    if window.at(0, 4) == b"riff" {
        return None;
    }
    let samples = header::samples(window)?;
    let format = samples.format?;
    let tag = match window.number(format, 2, true)? {
        // The extended form has the old number at the start of a GUID.
        0xfffe => window.number(format + 24, 2, true)?,
        tag => tag,
    };
    (tag == 1).then_some(samples.data)
}

fn is_ac3(bytes: &[u8]) -> bool {
    match *bytes {
        [0x0b, 0x77, _, _, rate, id] | [0x77, 0x0b, _, _, id, rate] => {
            rate >> 6 != 3 && rate & 63 < 38 && id >> 3 <= 16
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(tag: u16, data: &[u8]) -> bool {
        let mut bytes = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
        bytes.extend([tag, 1].map(u16::to_le_bytes).concat());
        bytes.extend([44_100_u32, 88_200].map(u32::to_le_bytes).concat());
        bytes.extend(b"\x02\0\x10\0data\xff\xff\xff\xff");
        bytes.extend(data);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        is_plain(&mut Window::new(&file).unwrap())
    }

    #[test]
    fn samples_are_plain_and_codecs_under_their_label_are_not() {
        let noise: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(of(1, &noise) && of(1, &[]) && of(1, &[0; 40_000]) && of(1, &[0xff; 40_000]));
        assert!(!of(3, &noise) && !of(0x2000, &noise), "other formats are ffmpeg's to look at");
        for sync in DTS {
            assert!(!of(1, &[&vec![0; 100_001], &sync[..], &noise].concat()), "{sync:x?}");
        }
        let ac3 = [&[0x0b, 0x77, 1, 2, 0x14, 0x40][..], &[9; 1530]].concat();
        let swapped = [&[0x77, 0x0b, 2, 1, 0x40, 0x14][..], &[9; 1530]].concat();
        assert!(!of(1, &ac3.repeat(9)) && !of(1, &swapped.repeat(9)));
        assert!(of(1, &ac3.repeat(3)), "by chance");
        let mp3 = [&b"\xff\xfb\x94\0"[..], &[0x55; 380]].concat();
        assert!(!of(1, &mp3.repeat(20)));
    }
}
