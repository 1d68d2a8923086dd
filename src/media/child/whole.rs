//! Checks by a file's own lengths and end marks whether it is complete, which ffmpeg does not.

mod walk;

use std::fs::File;
use std::os::unix::fs::FileExt;

use self::walk::Walk;

/// Packet sizes of a transport stream in bytes: plain, or with a timecode before each packet.
const TS_PACKET: [u64; 2] = [188, 192];
/// Most chunks of a file that are examined. One per gigabyte is usual.
const MOST_CHUNKS: usize = 4096;

/// What is missing from a file. `None` if nothing is, or if that cannot be determined.
pub fn cut_short(file: &File) -> Option<&'static str> {
    let bytes = file.metadata().ok()?.len();
    let head = read(file, 0, 1024);
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return (!Walk::new(file).webp(bytes)).then_some("what follows is not a chunk");
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI ") && !Walk::new(file).avi(bytes) {
        return Some("what follows is not a chunk");
    }
    if head.starts_with(b"RIFF") {
        return riff(file, bytes).then_some("a chunk at its end is cut off");
    }
    if head.starts_with(b"GIF8") {
        return Walk::new(file).gif().is_none().then_some("its end mark is missing");
    }
    if head.starts_with(b"FLV\x01") {
        return (!Walk::new(file).flv(bytes)).then_some("what follows is not a tag");
    }
    if head.starts_with(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11") {
        return (Walk::new(file).asf(bytes) == Some(false)).then_some("what follows is not a packet");
    }
    if head.starts_with(b"\x06\x0e\x2b\x34") {
        return (!Walk::new(file).mxf(bytes)).then_some("what follows is not a packet");
    }
    if head.starts_with(b"\x1f\x07\x00") {
        return (!Walk::new(file).dv(bytes)).then_some("what follows is not a frame");
    }
    if head.get(4..8) == Some(b"ftyp") {
        return boxes(file, bytes).then_some("a box at its end is cut off");
    }
    if head.starts_with(b"\x1a\x45\xdf\xa3") {
        let end = segment_end(&head);
        return end.is_some_and(|end| end > bytes).then_some("it is shorter than its declared size");
    }
    let packet = TS_PACKET.into_iter().find(|size| transport_stream(&head, *size))?;
    (bytes % packet != 0).then_some("its last packet is cut off")
}

fn read(file: &File, at: u64, most: u64) -> Vec<u8> {
    let mut bytes = vec![0; most as usize];
    let mut filled = 0;
    while let Ok(count) = file.read_at(&mut bytes[filled..], at + filled as u64) {
        if count == 0 {
            break;
        }
        filled += count;
    }
    bytes.truncate(filled);
    bytes
}

fn transport_stream(head: &[u8], packet: u64) -> bool {
    // The timecode precedes the packet.
    let first = (packet - TS_PACKET[0]) as usize;
    (0..4).all(|i| head.get(first + i * packet as usize) == Some(&0x47))
}

/// Where the segment of a Matroska file ends, if it is declared.
fn segment_end(head: &[u8]) -> Option<u64> {
    let (header, body) = ebml_number(head, 4)?;
    let segment = body.checked_add(header?)?;
    let at = usize::try_from(segment).ok()?;
    if head.get(at..at.checked_add(4)?) != Some(b"\x18\x53\x80\x67") {
        return None;
    }
    let (size, body) = ebml_number(head, at + 4)?;
    body.checked_add(size?)
}

/// A size in EBML's encoding, which is `None` if it is marked as unknown, and the position after it.
fn ebml_number(head: &[u8], at: usize) -> Option<(Option<u64>, u64)> {
    let first = *head.get(at)?;
    let length = first.leading_zeros() as usize + 1;
    let rest = head.get(at + 1..at + length).filter(|_| length <= 8)?;
    let start = u64::from(first) & ((1 << (8 - length)) - 1);
    let value = rest.iter().fold(start, |value, byte| value << 8 | u64::from(*byte));
    let unknown = (1_u64 << (7 * length)) - 1;
    Some(((value != unknown).then_some(value), (at + length) as u64))
}

/// Whether the last of the outermost chunks extends past the end. A recording that was never finished
/// declares 0.
fn riff(file: &File, bytes: u64) -> bool {
    let mut at = 0;
    for _ in 0..MOST_CHUNKS {
        let head = read(file, at, 8);
        let Some(size) = head.get(4..8).and_then(|size| <[u8; 4]>::try_from(size).ok()) else { return false };
        let size = u64::from(u32::from_le_bytes(size));
        if !head.starts_with(b"RIFF") || size == 0 || size >= u64::from(u32::MAX >> 1) {
            return false;
        }
        at += 8 + size;
        // The padding byte may be missing.
        if at > bytes {
            return true;
        }
        at += size % 2;
    }
    false
}

/// Whether the last of the outermost boxes of an MP4 extends past the end.
fn boxes(file: &File, bytes: u64) -> bool {
    let mut at = 0_u64;
    for _ in 0..MOST_CHUNKS {
        let head = read(file, at, 16);
        let Some(size) = head.get(..4).and_then(|size| <[u8; 4]>::try_from(size).ok()) else { return false };
        let known =
            head.get(4..8).is_some_and(|name| name.iter().all(|c| c.is_ascii_graphic() || *c == b' '));
        let size = match u32::from_be_bytes(size) {
            1 => head.get(8..16).and_then(|size| size.try_into().ok()).map_or(0, u64::from_be_bytes),
            size => u64::from(size),
        };
        // Size 0 means to the end of the file. Anything that is not a box is not judged.
        if !known || size < 8 {
            return false;
        }
        let Some(end) = at.checked_add(size) else { return true };
        if end > bytes {
            return true;
        }
        at = end;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(bytes: &[u8]) -> Option<&'static str> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        cut_short(&file)
    }

    #[test]
    fn whole_files_are_whole_and_cut_ones_are_not() {
        let riff = [&b"RIFF\x0c\0\0\0AVI LIST\0\0\0\0"[..], b"RIFF\x04\0\0\0AVIX"].concat();
        let gif =
            b"GIF89a\x01\0\x01\0\0\0\0!\xf9\x01\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0;\0\0".to_vec();
        let webp = b"RIFF\x10\0\0\0WEBPVP8 \x04\0\0\0abcd".to_vec();
        let flv = [&b"FLV\x01\x05\0\0\0\x09\0\0\0\0"[..], b"\x09\0\0\x02\0\0\0\0\0\0\0AB\0\0\0\x0d"].concat();
        let mp4 = [&b"\0\0\0\x0cftypisom"[..], b"\0\0\0\x10mdat12345678"].concat();
        let ts = [[0x47; 188]; 7].concat();
        let avi = [
            &b"RIFF\x2c\0\0\0AVI LIST\x16\0\0\0movi00dc\x01\0\0\0a\x0001wb"[..],
            b"\0\0\0\0idx1\x02\0\0\0ab",
        ]
        .concat();
        let key = |last: u8, size: u8| {
            [&b"\x06\x0e\x2b\x34"[..], &[last; 12], &[size], &vec![9; size.into()]].concat()
        };
        let mxf = [key(1, 100), key(2, 0), key(3, 50)].concat();
        let frame = |first: &[u8]| [first, &[7; 143_996]].concat();
        let dv = [frame(b"\x1f\x07\x00\xbf"), frame(b"\x1f\x07\x00\xbf")].concat();
        let mkv = b"\x1a\x45\xdf\xa3\x82AB\x18\x53\x80\x67\x40\x03abc".to_vec();
        let live = b"\x1a\x45\xdf\xa3\x82AB\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xffabc";
        assert_eq!(of(live), None);
        for (name, whole, left) in [
            ("riff", riff, 3),
            ("gif", gif, 4),
            ("webp", webp, 1),
            ("flv", flv, 5),
            ("mkv", mkv, 1),
            ("mp4", mp4, 1),
            ("ts", ts, 100),
            ("avi", avi, 3),
            ("mxf", mxf, 5),
            ("dv", dv, 7),
        ] {
            assert_eq!(of(&whole), None, "{name}");
            assert!(of(&whole[..whole.len() - left]).is_some(), "{name}");
            if ["avi", "mxf", "dv"].contains(&name) {
                // A few extra bytes in the middle.
                let more = [&whole[..whole.len() / 2], &[0; 3], &whole[whole.len() / 2..]].concat();
                assert!(of(&more).is_some(), "{name}");
            }
        }
        // Unfinished, to the end of the file, another format, empty.
        for whole in [&b"RIFF\0\0\0\0AVI "[..], b"\0\0\0\x0cftypisom\0\0\0\0mdat", b"any text", b""] {
            assert_eq!(of(whole), None);
        }
    }
}
