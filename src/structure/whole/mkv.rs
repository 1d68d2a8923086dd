//! The outermost elements of Matroska and WebM files.

use super::{Lack, joined};
use crate::structure::trailer;
use crate::structure::window::Window;

const EBML: u64 = 0x1a45_dfa3;
const SEGMENT: u64 = 0x1853_8067;
const CLUSTER: u64 = 0x1f43_b675;
/// The other elements of a segment: SeekHead, Info, Tracks, Cues, Attachments, Chapters, Tags, Void, CRC.
const OF_SEGMENT: [u64; 9] =
    [0x114d_9b74, 0x1549_a966, 0x1654_ae6b, 0x1c53_bb6b, 0x1941_a469, 0x1043_a770, 0x1254_c367, 0xec, 0xbf];
/// Those of a cluster: time stamp, positions, silent tracks, blocks.
const OF_CLUSTER: [u64; 7] = [0xe7, 0xa7, 0xab, 0x5854, 0xa3, 0xa0, 0xaf];
/// Bytes at the end of a recording that may be the head of an element.
const STRAY_BYTES: u64 = 16;
/// Most elements that are examined: a day of blocks.
const MOST_ELEMENTS: usize = 20_000_000;

/// Whether the segment is shorter than declared or contains anything but elements, or another file follows
/// it.
pub fn segment(window: &mut Window<'_>) -> Option<Lack> {
    let ebml = element(window, 0)?;
    let start = ebml.body.checked_add(ebml.size?)?;
    let Element { id: SEGMENT, size, body } = element(window, start)? else { return None };
    let Some(size) = size else { return elements(window, body, None) };
    let end = body.checked_add(size)?;
    if end > window.len {
        return Some(Lack::Cut("it is shorter than its declared size"));
    }
    elements(window, body, Some(end)).or_else(|| joined(window, end))
}

/// Walks the elements of a segment and its clusters. One of unknown size ends where something begins that
/// cannot be a part of it.
fn elements(window: &mut Window<'_>, mut at: u64, end: Option<u64>) -> Option<Lack> {
    const NO_ELEMENT: Option<Lack> = Some(Lack::Cut("expected an element, got other data"));
    let last = end.unwrap_or(window.len);
    // Where the current cluster ends, if it declares its size.
    let mut cluster = None;
    for _ in 0..MOST_ELEMENTS {
        if cluster == Some(at) {
            cluster = None;
        }
        if at >= last {
            return None;
        }
        let Some(Element { id, size, body }) = element(window, at) else {
            // The space that was reserved for a recording may be empty.
            let padding = window.len - at <= STRAY_BYTES || trailer::after_zeros(window, at) == window.len;
            return if end.is_none() && padding { None } else { NO_ELEMENT };
        };
        if id == EBML && end.is_none() {
            return Some(Lack::Joined);
        }
        if id == CLUSTER && cluster.is_none() {
            cluster = size.and_then(|size| body.checked_add(size));
            if cluster.is_some_and(|cluster| cluster > last) {
                return if end.is_some() { NO_ELEMENT } else { None };
            }
            at = body;
            continue;
        }
        let next = size.and_then(|size| body.checked_add(size));
        let fits = next.filter(|next| *next <= cluster.unwrap_or(last));
        let known = |id| id == CLUSTER || OF_SEGMENT.contains(&id) || OF_CLUSTER.contains(&id);
        // A recording that was never finished may end anywhere.
        let Some(next) = fits else { return if end.is_none() && known(id) { None } else { NO_ELEMENT } };
        // An element of another kind is between known ones.
        if !known(id) && next < last && !element(window, next).is_some_and(|next| known(next.id)) {
            return NO_ELEMENT;
        }
        at = next;
    }
    None
}

/// An element's head.
struct Element {
    id: u64,
    /// `None` if it is marked as unknown.
    size: Option<u64>,
    /// Where its content begins.
    body: u64,
}

fn element(window: &mut Window<'_>, at: u64) -> Option<Element> {
    let first = window.number(at, 1, false)?;
    let length = (first as u8).leading_zeros() as usize + 1;
    let id = window.number(at, length, false).filter(|_| length <= 4)?;
    let (size, body) = number(window, at + length as u64)?;
    Some(Element { id, size, body })
}

/// A size in EBML's encoding, which is `None` if it is marked as unknown, and the position after it.
fn number(window: &mut Window<'_>, at: u64) -> Option<(Option<u64>, u64)> {
    let first = window.number(at, 1, false)?;
    let length = (first as u8).leading_zeros() as usize + 1;
    let value = window.number(at, length, false).filter(|_| length <= 8)?;
    let unknown = (1_u64 << (7 * length)) - 1;
    let value = value & unknown;
    Some(((value != unknown).then_some(value), at + length as u64))
}
