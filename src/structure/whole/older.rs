//! The parts of older formats: AMV, RealMedia, GXF, VOC, APE, DSF.

use super::{Lack, MOST_CHUNKS, joined};
use crate::structure::trailer::{self, Behind};
use crate::structure::window::Window;

const NO_CHUNK: Lack = Lack::Cut("expected a chunk, got other data");
const NO_PACKET: Lack = Lack::Cut("expected a packet, got other data");
const SHORTER: Lack = Lack::Cut("it is shorter than its declared size");
/// Most packets and blocks that are examined.
const MOST_PACKETS: u64 = 20_000_000;

/// AMV: an AVI without sizes of lists and without padding. ffmpeg reads several in a row.
pub fn amv(window: &mut Window<'_>) -> Option<Lack> {
    let mut at = 0;
    while at < window.len {
        let head = window.at(at, 4096);
        let Some(film) = head.windows(4).position(|four| four == b"movi") else { return Some(NO_CHUNK) };
        at += film as u64 + 4;
        loop {
            match window.at(at, 8) {
                b"AMV_END_" => break,
                [b'0', _, b'd' | b'w', b'c' | b'b', ..] => {}
                // Some writers pad.
                [0, b'0' | b'A', ..] => {
                    at += 1;
                    continue;
                }
                [] => return Some(Lack::Cut("its end mark is missing")),
                _ => return Some(NO_CHUNK),
            }
            let Some(size) = window.number(at + 4, 4, true) else { return Some(NO_CHUNK) };
            at += 8 + size;
        }
        at += 8;
        if window.at(at, 4) != b"RIFF" {
            return joined(window, at);
        }
    }
    None
}

/// RealMedia: chunks, one of which has a number of packets.
pub fn real_media(window: &mut Window<'_>) -> Option<Lack> {
    let mut at = 0;
    for _ in 0..MOST_CHUNKS {
        let name = window.at(at, 4).to_vec();
        let size = window.number(at + 4, 4, false).unwrap_or(0);
        let parts: [&[u8]; 5] = [b"PROP", b"CONT", b"MDPR", b"INDX", b"DATA"];
        let named = parts.contains(&&name[..]) || (at == 0 && name == b".RMF");
        // Some writers add arbitrary bytes after the packets.
        if !named || size < 8 {
            return joined(window, at);
        }
        if name == b"DATA" {
            let count = window.number(at + 10, 4, false)?;
            at += 18;
            for _ in 0..count {
                let (version, length) = (window.number(at, 2, false), window.number(at + 2, 2, false));
                let (Some(version), Some(length)) = (version, length) else {
                    return Some(Lack::Cut("it contains fewer packets than its header declares"));
                };
                if version > 1 || length < 12 {
                    return Some(NO_PACKET);
                }
                at += length;
            }
            if at > window.len {
                return Some(Lack::Cut("its last packet is cut off"));
            }
            // A recording that was never finished does not know how many there are.
            if count == 0 {
                return None;
            }
        } else {
            at += size;
        }
    }
    None
}

/// GXF: packets, each of which states its length.
pub fn gxf(window: &mut Window<'_>) -> Option<Lack> {
    const END: u64 = 0xfb;
    let (mut at, mut ended) = (0, false);
    for _ in 0..MOST_PACKETS {
        if at == window.len {
            return None;
        }
        let head = window.at(at, 16);
        let framed = head.starts_with(&[0, 0, 0, 0, 1]) && head.ends_with(&[0xe1, 0xe2]) && head.len() == 16;
        if ended && framed {
            return Some(Lack::Joined);
        }
        if !framed {
            return if ended { joined(window, at) } else { Some(NO_PACKET) };
        }
        let (kind, size) = (window.number(at + 5, 1, false)?, window.number(at + 6, 4, false)?);
        if size < 16 {
            return Some(NO_PACKET);
        }
        ended = kind == END;
        at += size;
        if at > window.len {
            return Some(Lack::Cut("its last packet is cut off"));
        }
    }
    None
}

/// VOC: blocks, each of which states its length, up to a zero.
pub fn voc(window: &mut Window<'_>) -> Option<Lack> {
    const LAST_KIND: u64 = 9;
    /// A sector of a CD.
    const PADDING_BYTES: u64 = 2048;
    const OF_SOUND: [u64; 3] = [1, 2, 9];
    let mut at = window.number(20, 2, true)?;
    for _ in 0..MOST_PACKETS {
        // The end mark may be missing.
        let kind = window.number(at, 1, true)?;
        if kind == 0 {
            // A zero may also be a hole.
            if window.len - at > PADDING_BYTES && trailer::after_zeros(window, at) == window.len {
                return Some(Lack::Cut("its end is empty"));
            }
            return match trailer::behind(window, at + 1) {
                Behind::Nothing => None,
                Behind::Another => Some(Lack::Joined),
                Behind::Other => Some(Lack::Cut("something follows its end mark")),
            };
        }
        if kind > LAST_KIND {
            let another = trailer::begins_file(window, at);
            return Some(if another { Lack::Joined } else { Lack::Cut("expected a block, got other data") });
        }
        let size = window.number(at + 1, 3, true);
        // Written before the length was known.
        if size == Some(0) && OF_SOUND.contains(&kind) {
            return None;
        }
        at += 4 + size.unwrap_or(0);
        if size.is_none() || at > window.len {
            return Some(Lack::Cut("its last block is cut off"));
        }
    }
    None
}

/// APE, from version 3.98 on: its header states the lengths of all parts.
pub fn ape(window: &mut Window<'_>) -> Option<Lack> {
    if window.number(4, 2, true)? < 3980 {
        return None;
    }
    let parts = [8, 12, 16, 20, 24, 32].map(|at| window.number(at, 4, true).unwrap_or(0));
    let high = window.number(28, 4, true)?;
    let end = (high << 32).saturating_add(parts.into_iter().sum());
    if end > window.len { Some(SHORTER) } else { joined(window, end) }
}

/// DSF: three chunks, then perhaps a tag.
pub fn dsf(window: &mut Window<'_>) -> Option<Lack> {
    let mut at = 0_u64;
    for _ in 0..3 {
        if at >= window.len {
            return Some(SHORTER);
        }
        let last = window.at(at, 4) == b"data";
        let size = window.number(at + 4, 8, true).filter(|size| *size >= 12)?;
        at = at.checked_add(size)?;
        if last {
            return if at > window.len { Some(SHORTER) } else { joined(window, at) };
        }
    }
    None
}
