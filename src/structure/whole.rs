//! Checks by a file's own lengths and end marks whether it is complete, which ffmpeg does not.

mod frames;
mod jpeg;
mod mkv;
mod mp4;
mod older;
mod walk;

use std::fs::File;
use std::os::unix::fs::FileExt;

use self::walk::Walk;
use crate::structure::trailer::{self, Behind};
use crate::structure::window::Window;

/// Packet sizes of a transport stream in bytes: plain, or with a timecode before each packet.
const TS_PACKET: [u64; 2] = [188, 192];
/// Most chunks of a file that are examined. One per gigabyte is usual.
const MOST_CHUNKS: usize = 65_536;

/// The missing or unread part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// A part is missing or out of place: half a sentence.
    Cut(&'static str),
    /// Another file is joined to its end, which ffmpeg does not read.
    Joined,
}

impl Lack {
    /// Why the file is not complete in itself.
    pub const fn why(self) -> Option<&'static str> {
        match self {
            Self::Cut(why) => Some(why),
            Self::Joined => None,
        }
    }
}

/// Examines a file from its beginning.
type Walker = fn(&mut Window<'_>) -> Option<Lack>;

/// The missing part of a file. `None` if there is none, or if that cannot be determined. Files of samples are
/// examined by `sound`.
pub fn lack(file: &File) -> Option<Lack> {
    let bytes = file.metadata().ok()?.len();
    let mut window = Window::new(file).ok()?;
    let head = read(file, 0, 1024);
    let starts = |mark: &[u8]| head.starts_with(mark);
    if starts(b"RIFF") {
        return riffs(file, &mut window, head.get(8..12).unwrap_or_default());
    }
    if starts(b"GIF8") {
        return cut_unless(Walk::new(file).gif().is_some(), "its end mark is missing");
    }
    if starts(b"FLV\x01") {
        return Walk::new(file).flv(bytes);
    }
    if starts(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11") {
        return Walk::new(file).asf(bytes);
    }
    if starts(b"\x06\x0e\x2b\x34") {
        let end = Walk::new(file).mxf(bytes);
        return end
            .map_or(Some(Lack::Cut("expected a packet, got other data")), |end| joined(&mut window, end));
    }
    if starts(b"\x1f\x07\x00") {
        return cut_unless(Walk::new(file).dv(bytes), "expected a frame, got other data");
    }
    if starts(b"\xff\xd8\xff") {
        return frames::jpegs(file, &mut window);
    }
    let boxed = head.get(4..8).unwrap_or_default();
    if [&b"ftyp"[..], b"moov", b"mdat", b"wide", b"free", b"skip"].contains(&boxed) {
        return mp4::boxes(&mut window);
    }
    let walks: [(&[u8], Walker); 9] = [
        (b"\x1a\x45\xdf\xa3", mkv::segment),
        (b".RMF", older::real_media),
        (b"\0\0\0\0\x01\xbc", older::gxf),
        (b"Creative Voice File", older::voc),
        (b"MAC ", older::ape),
        (b"DSD ", older::dsf),
        (b"YUV4MPEG2 ", frames::y4m),
        (b"DKIF", frames::ivf),
        (b"\x89PNG\r\n\x1a\n", frames::png),
    ];
    let walk = walks.into_iter().find(|(mark, _)| head.starts_with(mark));
    walk.map_or(transport_stream as Walker, |(_, walk)| walk)(&mut window)
}

/// A lack, unless the file is whole.
fn cut_unless(whole: bool, why: &'static str) -> Option<Lack> {
    (!whole).then_some(Lack::Cut(why))
}

/// Whether another file follows the end.
fn joined(window: &mut Window<'_>, end: u64) -> Option<Lack> {
    (trailer::behind(window, end) == Behind::Another).then_some(Lack::Joined)
}

/// Formats that begin with `RIFF`.
fn riffs(file: &File, window: &mut Window<'_>, form: &[u8]) -> Option<Lack> {
    const NO_CHUNK: Lack = Lack::Cut("expected a chunk, got other data");
    match form {
        b"WAVE" => None,
        b"WEBP" => Walk::new(file).webp(window.len).map_or(Some(NO_CHUNK), |end| {
            // The padding byte of the last chunk may be missing.
            joined(window, end).or_else(|| joined(window, end + end % 2))
        }),
        b"AMV " => older::amv(window),
        b"AVI " if !Walk::new(file).avi(window.len) => Some(NO_CHUNK),
        _ => cut_unless(!riff(file, window.len), "a chunk at its end is cut off"),
    }
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

/// Whether the last packet of a transport stream is whole. Other files pass.
fn transport_stream(window: &mut Window<'_>) -> Option<Lack> {
    let head = window.at(0, 1024).to_vec();
    let packet = TS_PACKET.into_iter().find(|packet| {
        // The timecode precedes the packet.
        let first = (packet - TS_PACKET[0]) as usize;
        (0..4).all(|i| head.get(first + i * *packet as usize) == Some(&0x47))
    })?;
    cut_unless(window.len.is_multiple_of(packet), "its last packet is cut off")
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

#[cfg(test)]
mod tests;
