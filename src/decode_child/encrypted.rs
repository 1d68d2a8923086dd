//! Detects encrypted tracks, which ffmpeg would report as damage.

use crate::structure::window::Window;

/// Most boxes and elements that are examined.
const MAX_PARTS: u32 = 100_000;

/// Encryption scheme of the file, if it is encrypted.
pub fn by(window: &mut Window<'_>) -> Option<&'static str> {
    let head = window.at(0, 16).to_vec();
    let mut left = MAX_PARTS;
    if head.starts_with(b"\x1a\x45\xdf\xa3") {
        let end = window.len;
        return matroska(window, 0, end, &mut left).then_some("Matroska content encryption");
    }
    if head.starts_with(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11") {
        return asf(window).then_some("Windows Media DRM");
    }
    let boxes: [&[u8]; 6] = [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"];
    if boxes.iter().any(|name| head.get(4..8) == Some(name)) {
        let end = window.len;
        return mov(window, 0, end, &mut left);
    }
    None
}

/// Descends into the boxes that lead to the sample descriptions.
fn mov(window: &mut Window<'_>, mut at: u64, end: u64, left: &mut u32) -> Option<&'static str> {
    while at + 8 <= end {
        *left = left.checked_sub(1)?;
        let name = window.at(at + 4, 4).to_vec();
        let (size, head) = match window.number(at, 4, false)? {
            0 => (end - at, 8),
            1 => (window.number(at + 8, 8, false)?, 16),
            size => (size, 8),
        };
        if size < head {
            return None;
        }
        let next = at.saturating_add(size).min(end);
        let found = match &name[..] {
            b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" => mov(window, at + head, next, left),
            b"stsd" => mov(window, at + head + 8, next, left),
            b"encv" | b"enca" | b"encm" => Some("Common Encryption (CENC)"),
            b"drms" | b"drmi" => Some("FairPlay"),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
        at = next;
    }
    None
}

/// The head of an element of Matroska.
struct Element {
    id: u64,
    /// Length of its payload; `u64::MAX` if it is marked as unknown.
    payload: u64,
    /// Length of the head itself.
    head: u64,
}

fn element(window: &mut Window<'_>, at: u64) -> Option<Element> {
    let id_len = u64::from(window.at(at, 1).first()?.leading_zeros()) + 1;
    let id = window.number(at, usize::try_from(id_len).ok().filter(|len| *len <= 4)?, false)?;
    let size_len = u64::from(window.at(at + id_len, 1).first()?.leading_zeros()) + 1;
    let bits = 7 * u32::try_from(size_len).ok().filter(|len| *len <= 8)?;
    let size = window.number(at + id_len, usize::try_from(size_len).ok()?, false)? & ((1 << bits) - 1);
    let unknown = size == (1 << bits) - 1;
    Some(Element { id, payload: if unknown { u64::MAX } else { size }, head: id_len + size_len })
}

fn matroska(window: &mut Window<'_>, mut at: u64, end: u64, left: &mut u32) -> bool {
    while at < end {
        let (Some(Element { id, payload, head }), Some(fewer)) = (element(window, at), left.checked_sub(1))
        else {
            return false;
        };
        *left = fewer;
        let next = at.saturating_add(head).saturating_add(payload).min(end);
        match id {
            // ContentEncryption.
            0x5035 => return true,
            // Segment, Tracks, TrackEntry, ContentEncodings, ContentEncoding.
            0x1853_8067 | 0x1654_ae6b | 0xae | 0x6d80 | 0x6240 if matroska(window, at + head, next, left) => {
                return true;
            }
            // Tracks are described before the first cluster.
            0x1f43_b675 => return false,
            _ => {}
        }
        at = next;
    }
    false
}

fn asf(window: &mut Window<'_>) -> bool {
    let guids: [&[u8; 16]; 2] = [
        b"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e",
        b"\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",
    ];
    let Some(count) = window.number(24, 4, true) else { return false };
    let mut at = 30;
    for _ in 0..count.min(1000) {
        let guid = window.at(at, 16).to_vec();
        let Some(size) = window.number(at + 16, 8, true).filter(|size| *size >= 24) else { return false };
        if guids.iter().any(|known| guid[..] == known[..]) {
            return true;
        }
        at = at.saturating_add(size);
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
        by(&mut Window::new(&file).unwrap())
    }

    fn part(name: &[u8], inside: &[u8]) -> Vec<u8> {
        [&(inside.len() as u32 + 8).to_be_bytes()[..], name, inside].concat()
    }

    #[test]
    fn encryption_is_seen_where_it_is_written() {
        let film = |entry: &[u8]| {
            let stsd = part(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1][..], &part(entry, &[0; 70])].concat());
            let inside = [b"stbl", b"minf", b"mdia", b"trak", b"moov"].iter();
            let moov = inside.fold(stsd, |inside, name| part(&name[..], &inside));
            [part(b"ftyp", b"isom\0\0\0\0"), part(b"mdat", b"encvencaencv"), moov].concat()
        };
        assert_eq!(of(&film(b"avc1")), None);
        assert_eq!(of(&film(b"encv")), Some("Common Encryption (CENC)"));
        assert_eq!(of(&film(b"drms")), Some("FairPlay"));
        let element = |id: &[u8], inside: &[u8]| [id, &[0x80 | inside.len() as u8], inside].concat();
        let webm = |what: &[u8]| {
            let encodings = element(b"\x6d\x80", &element(b"\x62\x40", &element(what, b"\x47\xe1\x81\x05")));
            let tracks = element(b"\x16\x54\xae\x6b", &element(b"\xae", &encodings));
            [element(b"\x1a\x45\xdf\xa3", b"webm"), b"\x18\x53\x80\x67\xff".to_vec(), tracks].concat()
        };
        assert_eq!(of(&webm(b"\x50\x35")), Some("Matroska content encryption"));
        assert_eq!(of(&webm(b"\x50\x34")), None, "compressed headers");
        let guid = b"\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c";
        let head = [&b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"[..], &[0; 16], &[1, 0, 0, 0, 1, 2]].concat();
        let object = |guid: &[u8]| [guid, &40_u64.to_le_bytes(), &[0; 16]].concat();
        assert_eq!(of(&[head.clone(), object(guid)].concat()), Some("Windows Media DRM"));
        assert_eq!(of(&[head, object(&[7; 16])].concat()), None);
        for junk in [&b"\x1a\x45\xdf\xa3"[..], b"\0\0\0\x01moov", b"\x1a\x45\xdf\xa3\xff\x18\x53", b""] {
            assert_eq!(of(junk), None);
        }
    }
}
