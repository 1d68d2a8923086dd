//! Scans streams of frames without timestamps (MPEG audio, ADTS): where frames are missing, and whether the
//! last one is complete. ffmpeg searches for the next frame without reporting how far it had to search.

use super::index::{self, Section};
use crate::structure::trailer::tag;
use crate::structure::window::{PIECE_BYTES, Window};

/// Most holes stored; later ones are only counted.
const MAX_HOLES: usize = 150;
/// Number of recent frames whose mean gives the duration of a hole from its bytes.
const RECENT: f64 = 32.0;
/// Length of the bytes after the last frame that may be anything, as seconds of sound.
const TRAILER_SECS: f64 = 0.5;

/// Bytes between two frames that may be anything.
const STRAY_BYTES: u64 = 16;

/// Number of bytes before the first frame that may be anything.
const LEADING_BYTES: u64 = 1 << 16;

/// Structure of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scan {
    /// Holes: seconds of the frames before, seconds missing.
    pub holes: Vec<(f64, f64)>,
    /// Number of places where something is missing.
    pub damaged: u64,
    /// Number of tags and other things between frames, which ffmpeg may take for frames.
    pub strays: u64,
    /// Whether the last frame is incomplete.
    pub cut: bool,
    /// Number of frames that are missing by what the first one says.
    pub lacks: u64,
    /// Length of all frames, in seconds.
    pub secs: f64,
    /// Whether it is ADTS rather than MPEG audio.
    pub adts: bool,
}

/// Contents of a frame header.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Frame {
    bytes: u64,
    secs: f64,
    adts: bool,
}

/// Scans the frames of a stream. `None` if the file does not begin with one, apart from tags.
pub fn scan(window: &mut Window<'_>) -> Option<Scan> {
    let (mut scan, mut at) = (Scan::default(), 0);
    while let Some(tag) = tag(window, at) {
        at += tag;
    }
    // Four printable characters are the mark of another format.
    let named = window.at(at, 4).iter().all(|byte| (0x20..0x7f).contains(byte));
    let leading = if named { 0 } else { LEADING_BYTES };
    next_frame(window, at, None, at + leading)?;
    let (mut bytes, mut secs, mut last) = (0.0, 0.0, None);
    let mut section = Section::default();
    while at < window.len {
        if let Some(tag) = tag(window, at) {
            scan.strays += u64::from(last.is_some());
            at += tag;
            continue;
        }
        let Some((found, frame)) = next_frame(window, at, last, u64::MAX) else {
            // Whatever follows the last frame.
            let left = (window.len - at) as f64 / f64::max(bytes / f64::max(secs, 1e-9), 1.0);
            scan.damaged += u64::from(left > TRAILER_SECS);
            scan.strays += 1;
            break;
        };
        let Some(before) = last else {
            // Bytes before the first frame were never sound; a frame with an index in it is silent.
            let index = indexed(window, found, frame);
            section = index.unwrap_or_default();
            at = if index.is_some() { found + frame.bytes } else { found };
            (last, scan.adts) = (Some(frame), frame.adts);
            continue;
        };
        if found > at {
            section.torn();
            let known = scan.damaged;
            scan.hole((found - at) as f64 * secs / bytes, before.secs);
            let torn = scan.damaged == known && is_torn(window, at, found);
            scan.damaged += u64::from(torn);
        }
        if found + frame.bytes > window.len {
            scan.cut = true;
            break;
        }
        if let Some(next) = indexed(window, found, frame) {
            scan.close(section);
            section = next;
        } else {
            section.frame(frame.bytes);
        }
        scan.secs += frame.secs;
        bytes += frame.bytes as f64 - bytes / RECENT;
        secs += frame.secs - secs / RECENT;
        last = Some(frame);
        at = found + frame.bytes;
    }
    scan.close(section);
    last.map(|_| scan)
}

/// The index in a frame of MPEG audio, as the beginning of a section.
fn indexed(window: &mut Window<'_>, at: u64, frame: Frame) -> Option<Section> {
    let head = window.at(at, index::HEAD_BYTES);
    index::read(head).filter(|_| !frame.adts).map(|index| Section::new(index, frame.bytes))
}

/// Whether the few bytes between two frames are the rest of a frame without its beginning.
fn is_torn(window: &mut Window<'_>, from: u64, to: u64) -> bool {
    let count = to - from;
    if count <= STRAY_BYTES {
        return false;
    }
    let bytes = window.at(from, usize::try_from(count).unwrap_or(usize::MAX));
    let text = bytes.iter().all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | 0x20..=0x7e));
    !text && bytes.iter().any(|byte| Some(byte) != bytes.first())
}

impl Scan {
    /// Compares the frames of a section with its index.
    fn close(&mut self, section: Section) {
        self.lacks += section.lacking();
        self.damaged += u64::from(section.is_spliced());
    }

    fn hole(&mut self, secs: f64, frame_secs: f64) {
        self.strays += 1;
        let frames = (secs / frame_secs).round();
        // A few bytes between two frames cannot hide a frame.
        if frames.is_nan() || frames < 1.0 {
            return;
        }
        self.damaged += 1;
        if self.holes.len() < MAX_HOLES {
            self.holes.push((self.secs, frames * frame_secs));
        }
    }
}

/// Whether several frames follow each other from this position on.
pub fn begins_with_frames(window: &mut Window<'_>, mut at: u64) -> bool {
    for _ in 0..3 {
        let Some(found) = frame(window.at(at, 7)) else { return false };
        at += found.bytes;
    }
    true
}

/// Whether several frames follow each other somewhere in these bytes.
pub fn holds_frames(bytes: &[u8]) -> bool {
    const IN_A_ROW: usize = 4;
    let row = |mut at: usize, adts: bool| {
        (0..IN_A_ROW).all(|_| {
            let found = bytes.get(at..at + 7).and_then(frame).filter(|frame| frame.adts == adts);
            at += found.map_or(0, |frame| frame.bytes as usize);
            found.is_some()
        })
    };
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0xff);
    starts.into_iter().any(|(at, _)| row(at, false) || row(at, true))
}

/// The first frame at or after `at`, but not after `end`. One that is not where it should be must be followed
/// by another, by a tag, or by the end of the file.
fn next_frame(window: &mut Window<'_>, at: u64, last: Option<Frame>, end: u64) -> Option<(u64, Frame)> {
    let alike = |frame: &Frame| last.is_none_or(|last| last.adts == frame.adts);
    if let Some(frame) = frame(window.at(at, 7)).filter(|frame| last.is_some() && alike(frame)) {
        return Some((at, frame));
    }
    let mut from = at;
    while from < window.len && from <= end {
        let block = window.at(from, PIECE_BYTES);
        let Some(sync) = block.iter().position(|byte| *byte == 0xff) else {
            from += block.len().max(1) as u64;
            continue;
        };
        from += sync as u64;
        if let Some(found) = frame(window.at(from, 7)).filter(alike) {
            let next = from + found.bytes;
            let followed = frame(window.at(next, 7)).is_some_and(|next| next.adts == found.adts);
            if from <= end && (followed || next == window.len || tag(window, next).is_some()) {
                return Some((from, found));
            }
        }
        from += 1;
    }
    None
}

const MPEG_RATES_HZ: [u32; 3] = [44_100, 48_000, 32_000];
const ADTS_RATES_HZ: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];
/// Bit rates in kbit/s, by version (1; 2 and 2.5) and layer (I, II, III).
const MPEG_KBITS: [[[u32; 14]; 3]; 2] = [
    [
        [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    ],
    [
        [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ],
];

/// Parses the header of a frame from seven bytes.
fn frame(head: &[u8]) -> Option<Frame> {
    let [0xff, b, c, d, e, f, _] = *head else { return None };
    if b & 0xf6 == 0xf0 {
        let rate = *ADTS_RATES_HZ.get(usize::from(c >> 2 & 15))?;
        let bytes = u64::from(d & 3) << 11 | u64::from(e) << 3 | u64::from(f >> 5);
        let blocks = u32::from(head.get(6)? & 3) + 1;
        let frame = Frame { bytes, secs: f64::from(1024 * blocks) / f64::from(rate), adts: true };
        return (bytes >= 7).then_some(frame);
    }
    let (version, layer) = (b >> 3 & 3, 3_usize.checked_sub(usize::from(b >> 1 & 3))?);
    if b & 0xe0 != 0xe0 || version == 1 {
        return None;
    }
    let first = version == 3;
    let kbits = MPEG_KBITS.get(usize::from(!first))?.get(layer)?.get(usize::from(c >> 4).checked_sub(1)?)?;
    let divisor = [4, 0, 2, 1].get(usize::from(version)).copied().filter(|divisor| *divisor > 0)?;
    let rate = MPEG_RATES_HZ.get(usize::from(c >> 2 & 3))? / divisor;
    let samples = match (layer, first) {
        (0, _) => 384,
        (2, false) => 576,
        _ => 1152,
    };
    // Layer I counts in slots of four bytes.
    let slot = if layer == 0 { 4 } else { 1 };
    let slots = samples / 8 * kbits * 1000 / rate / slot + u32::from(c >> 1 & 1);
    Some(Frame { bytes: u64::from(slots * slot), secs: f64::from(samples) / f64::from(rate), adts: false })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// MPEG-1 layer III, 128 kbit/s, 48 kHz: 384 bytes and 24 ms.
    fn mp3(frames: usize) -> Vec<u8> {
        let mut frame = b"\xff\xfb\x94\0".to_vec();
        frame.resize(384, 0x55);
        frame.repeat(frames)
    }

    fn of(bytes: &[u8]) -> Option<Scan> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        scan(&mut Window::new(&file).unwrap())
    }

    #[test]
    fn headers_say_how_long_a_frame_is() {
        let of = |head: [u8; 4]| frame(&[&head[..], &[0; 3]].concat()).map(|frame| (frame.bytes, frame.secs));
        assert_eq!(of([0xff, 0xfb, 0x90, 0]), Some((417, 1152.0 / 44_100.0)));
        assert_eq!(of([0xff, 0xfb, 0x92, 0]), Some((418, 1152.0 / 44_100.0)));
        assert_eq!(of([0xff, 0xf3, 0x80, 0]), Some((208, 576.0 / 22_050.0)), "MPEG-2");
        assert_eq!(of([0xff, 0xfd, 0xa4, 0]), Some((576, 0.024)), "layer II");
        assert_eq!(of([0xff, 0xff, 0xc4, 0]), Some((384, 0.008)), "layer I");
        for bad in
            [[0xff, 0xfb, 0xf0, 0], [0xff, 0xfb, 0x9c, 0], [0xff, 0xeb, 0x90, 0], [0xfe, 0xfb, 0x90, 0]]
        {
            assert_eq!(of(bad), None);
        }
    }

    #[test]
    fn frames_are_found_behind_other_bytes() {
        let adts = [b"\xff\xf1\x50\x80\x19\x1f\xfc".to_vec(), vec![0x21; 193]].concat();
        for frames in [mp3(5), adts.repeat(5)] {
            assert!(holds_frames(&[vec![0; 3000], frames.clone()].concat()));
            assert!(!holds_frames(&frames[..frames.len() / 2]), "two frames may be chance");
        }
        assert!(!holds_frames(&[0xff; 9000]) && !holds_frames(&[0; 9000]) && !holds_frames(b""));
    }

    #[test]
    fn holes_are_told_and_tags_are_none() {
        let whole = of(&mp3(100)).unwrap();
        assert!((whole.secs - 2.4).abs() < 1e-9 && (whole.damaged, whole.cut) == (0, false), "{whole:?}");
        let tagged = [b"ID3\x04\0\0\0\0\0\x05hello".to_vec(), mp3(100), b"APETAGEX\xd0\x07\0\0".to_vec()];
        let tagged = [tagged.concat(), [0; 20].to_vec(), b"TAG".to_vec(), vec![0; 125]].concat();
        let trailing = [mp3(100), b"some bytes".to_vec()].concat();
        let leading = [vec![0; 5000], mp3(100)].concat();
        let joined = [mp3(60), b"ID3\x04\0\0\0\0\0\x05hello".to_vec(), mp3(40)].concat();
        for bytes in [tagged, trailing, leading, joined, [mp3(50), vec![0; 3], mp3(50)].concat()] {
            let scan = of(&bytes).unwrap();
            assert_eq!((scan.damaged, scan.cut, scan.holes.len()), (0, false, 0), "{scan:?}");
            assert!((scan.secs - 2.4).abs() < 1e-9, "{scan:?}");
        }
        let mut holed = mp3(100);
        holed[384 * 40 + 100..384 * 50 + 200].fill(0);
        let scan = of(&holed).unwrap();
        // The frame in which the hole begins is damaged; ten are missing.
        assert_eq!((scan.damaged, scan.holes.len()), (1, 1));
        assert!((scan.holes[0].0 - 0.984).abs() < 1e-9 && (scan.holes[0].1 - 0.24).abs() < 1e-9, "{scan:?}");
        assert!(of(&mp3(100)[..384 * 50 + 7]).unwrap().cut);
        let no_end = [mp3(100), vec![0; 384 * 30]].concat();
        assert_eq!(of(&no_end).unwrap().damaged, 1);
        assert_eq!(of(&[0xff; 4000]), None);
        assert_eq!(of(&[0; 4000]), None);
    }

    #[test]
    fn frames_are_counted_against_the_index() {
        let indexed = |frames: u32, bytes: u32, count: usize| {
            let mut first = mp3(1);
            let index = [&b"Info\0\0\0\x03"[..], &frames.to_be_bytes(), &bytes.to_be_bytes()].concat();
            first[36..52].copy_from_slice(&index);
            [first, mp3(count)].concat()
        };
        let lacks = |bytes: &[u8]| of(bytes).map(|scan| (scan.lacks, scan.damaged)).unwrap();
        let whole = indexed(100, 101 * 384, 100);
        assert_eq!(lacks(&whole), (0, 0));
        assert_eq!(lacks(&indexed(101, 101 * 384, 100)), (0, 0), "it counts itself");
        assert_eq!(lacks(&indexed(5000, 101 * 384, 100)), (0, 0), "wrong, as its bytes show");
        assert_eq!(lacks(&indexed(0, 0, 100)), (0, 0), "never finished");
        assert_eq!(lacks(&whole[..384 * 91]), (10, 0), "cut between two frames");
        assert_eq!(lacks(&[&whole[..384 * 50], &whole[384 * 60..]].concat()), (10, 0));
        assert_eq!(lacks(&[&whole[..], &whole[..384 * 91]].concat()), (10, 0), "the second of two");
        assert_eq!(lacks(&[&whole[..], &mp3(50)].concat()), (0, 0), "joined to one without index");
        let spliced = [&whole[..384 * 30 + 100], &mp3(10), &whole[384 * 30 + 100..]].concat();
        assert!(lacks(&spliced).1 > 0, "{:?}", lacks(&spliced));
        let noise: Vec<u8> =
            (0..384 * 100).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x7f).collect();
        let mut frames = mp3(100);
        frames
            .iter_mut()
            .zip(noise)
            .enumerate()
            .filter(|(at, _)| at % 384 > 3)
            .for_each(|(_, (to, of))| *to = of);
        let torn = [&frames[..384 * 30 + 100], &frames[384 * 33 + 300..]].concat();
        assert_eq!((lacks(&frames), lacks(&torn)), ((0, 0), (0, 1)), "robbed within two frames");
    }
}
