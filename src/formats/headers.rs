//! Walks the headers of a picture file for what its first bytes leave open.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use image::ImageFormat;

use super::sniff::Sniffed;

/// Most headers that are examined. No picture from a camera has more.
const MOST_HEADERS: usize = 10_000;
/// Bytes per read of a header.
const BUFFER_BYTES: usize = 1 << 16;

/// Structure of a JPEG file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct JpegLook {
    /// Width in the frame header; 0 without one.
    pub width: u16,
    /// Height in the frame header; 0 without one.
    pub height: u16,
    /// Whether decoding needs all coefficients in memory, because there are several scans.
    pub in_scans: bool,
    components: u8,
    /// Coefficients per pixel, over all components.
    pub samples_per_pixel: f64,
    /// Whether the end mark was found, so that nothing is cut off.
    pub whole: bool,
    /// Whether further pictures are declared, for viewers that know them: depth, brightness, a preview.
    has_companions: bool,
}

/// Examines the headers of a picture before anything is decoded: its real format, and the structure of a
/// JPEG.
pub fn look(sniffed: Sniffed, media: &File) -> io::Result<(Sniffed, Option<JpegLook>)> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, media);
    reader.rewind()?;
    let looked = match sniffed {
        Sniffed::Picture(ImageFormat::Png) if animated_png(&mut reader)? => (Sniffed::Ffmpeg("apng"), None),
        Sniffed::Picture(ImageFormat::Tiff) if is_preview(&mut reader)? => {
            let why = "only the previews of a camera raw file can be read; convert it to JPEG or TIFF";
            (Sniffed::Refused(why), None)
        }
        Sniffed::Picture(ImageFormat::Jpeg) => {
            let first = jpeg(&mut reader)?;
            let next =
                if first.whole && !first.has_companions { jpeg(&mut reader)? } else { JpegLook::default() };
            // Consecutive pictures of one size are a film.
            let film = next.width > 0 && (next.width, next.height) == (first.width, first.height);
            if film { (Sniffed::Ffmpeg("mjpeg"), None) } else { (sniffed, Some(first)) }
        }
        _ => (sniffed, None),
    };
    (&mut &*media).rewind()?;
    Ok(looked)
}

/// Whether a PNG has an animation chunk, which comes before the first image data, at any distance.
fn animated_png(reader: &mut (impl Read + Seek)) -> io::Result<bool> {
    reader.seek(SeekFrom::Start(8))?;
    for _ in 0..MOST_HEADERS {
        let mut head = [0; 8];
        match reader.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        let [a, b, c, d, kind @ ..] = head;
        match &kind {
            b"acTL" => return Ok(true),
            b"IDAT" | b"IEND" => return Ok(false),
            // The checksum follows the data.
            _ => reader.seek_relative(i64::from(u32::from_be_bytes([a, b, c, d])) + 4)?,
        }
    }
    Ok(false)
}

/// Whether the first picture of a TIFF is declared to be a small copy of another, as in raw files of cameras.
fn is_preview(reader: &mut (impl Read + Seek)) -> io::Result<bool> {
    let mut head = [0; 12];
    if reader.read_exact(&mut head).is_err() {
        return Ok(false);
    }
    let [order, _, version, rest @ ..] = head;
    let little = order == b'I';
    let short = |bytes: [u8; 2]| if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) };
    let long = |bytes: [u8; 4]| if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
    let [_, a, b, c, d, raw @ ..] = rest;
    if raw.starts_with(b"CR") {
        return Ok(true);
    }
    // Cameras do not write BigTIFF.
    if version == 43 {
        return Ok(false);
    }
    reader.seek(SeekFrom::Start(u64::from(long([a, b, c, d]))))?;
    let mut count = [0; 2];
    if reader.read_exact(&mut count).is_err() {
        return Ok(false);
    }
    for _ in 0..short(count) {
        let mut entry = [0; 12];
        if reader.read_exact(&mut entry).is_err() {
            return Ok(false);
        }
        let [tag_a, tag_b, _, _, _, _, _, _, value @ ..] = entry;
        match short([tag_a, tag_b]) {
            // NewSubfileType: bit 0 is a reduced copy.
            254 if long(value) & 1 == 1 => return Ok(true),
            // DNGVersion.
            50_706 => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

/// Walks one JPEG from its start mark, and leaves the reader after its end.
fn jpeg(reader: &mut (impl BufRead + Seek)) -> io::Result<JpegLook> {
    let mut look = JpegLook::default();
    match walk(reader, &mut look) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(look),
    }
}

fn walk(reader: &mut (impl BufRead + Seek), look: &mut JpegLook) -> io::Result<()> {
    let mut start = [0; 2];
    reader.read_exact(&mut start)?;
    if start != [0xff, 0xd8] {
        return Ok(());
    }
    for _ in 0..MOST_HEADERS {
        match marker(reader)? {
            0xd9 => {
                look.whole = true;
                return Ok(());
            }
            0x01 | 0xd0..=0xd8 => {}
            kind => segment(reader, kind, look)?,
        }
    }
    Ok(())
}

/// The next marker. Skips anything else, such as the coded picture, in which a 0xff is followed by 0 or by
/// the number of a restart.
fn marker(reader: &mut impl BufRead) -> io::Result<u8> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(at) = buffer.iter().position(|byte| *byte == 0xff) else {
            let all = buffer.len();
            reader.consume(all);
            continue;
        };
        reader.consume(at + 1);
        let mut kind = [0xff];
        while kind == [0xff] {
            reader.read_exact(&mut kind)?;
        }
        let [kind] = kind;
        if kind != 0 && !(0xd0..=0xd7).contains(&kind) {
            return Ok(kind);
        }
    }
}

fn segment(reader: &mut (impl BufRead + Seek), kind: u8, look: &mut JpegLook) -> io::Result<()> {
    let mut length = [0; 2];
    reader.read_exact(&mut length)?;
    let mut left = u16::from_be_bytes(length).saturating_sub(2);
    let is_frame = matches!(kind, 0xc0..=0xcf) && !matches!(kind, 0xc4 | 0xc8 | 0xcc);
    if is_frame || matches!(kind, 0xe2 | 0xda) {
        let mut head = Vec::with_capacity(32);
        left -= reader.by_ref().take(u64::from(left.min(32))).read_to_end(&mut head)? as u16;
        if is_frame {
            look.frame(kind, &head);
        }
        look.in_scans |= kind == 0xda && head.first().is_some_and(|count| *count < look.components);
        look.has_companions |= kind == 0xe2 && head.starts_with(b"MPF\0");
    }
    reader.seek_relative(i64::from(left))
}

impl JpegLook {
    /// Reads a frame header: precision, size, and the id and sampling of each component.
    fn frame(&mut self, kind: u8, head: &[u8]) {
        let [_, a, b, c, d, count, components @ ..] = head else { return };
        self.components = *count;
        (self.height, self.width) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        self.in_scans = matches!(kind, 0xc2 | 0xc6 | 0xca | 0xce);
        let sampling = components.chunks_exact(3).map(|c| (f64::from(c[1] >> 4), f64::from(c[1] & 15)));
        let most = sampling.clone().fold((1.0_f64, 1.0_f64), |most, s| (most.0.max(s.0), most.1.max(s.1)));
        self.samples_per_pixel = sampling.map(|s| s.0 * s.1 / (most.0 * most.1)).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn jpeg_of(size: u8, extra: &[u8]) -> Vec<u8> {
        let frame = [0xff, 0xc2, 0, 17, 8, 0, size, 0, size, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];
        let scan = [0xff, 0xda, 0, 4, 1, 2, 7, 0xff, 0, 9, 0xff, 0xd3, 4, 0xff, 0xd9];
        [&[0xff, 0xd8][..], extra, &frame, &scan].concat()
    }

    #[test]
    fn a_jpeg_is_walked_to_its_end_mark() {
        // A preview inside a segment has an end mark of its own.
        let preview = [&[0xff, 0xe1, 0, 8][..], &[0xff, 0xd8, 0xff, 0xd9, 1, 2]].concat();
        let bytes = jpeg_of(9, &preview);
        let look = jpeg(&mut Cursor::new(&bytes)).unwrap();
        assert!(look.whole && look.in_scans && !look.has_companions, "{look:?}");
        assert_eq!((look.width, look.height, look.samples_per_pixel), (9, 9, 1.5));
        for end in 0..bytes.len() - 1 {
            assert!(!jpeg(&mut Cursor::new(&bytes[..end])).unwrap().whole, "{end}");
        }
    }

    #[test]
    fn pictures_of_one_size_are_a_film_and_companions_are_not() {
        let mut file = tempfile::tempfile().unwrap();
        let companions = [0xff, 0xe2, 0, 6, b'M', b'P', b'F', 0];
        let cases = [
            ([jpeg_of(9, b""), jpeg_of(9, b"")].concat(), true),
            ([jpeg_of(9, b""), jpeg_of(8, b"")].concat(), false),
            ([jpeg_of(9, &companions), jpeg_of(9, b"")].concat(), false),
            ([jpeg_of(9, b""), b"what a camera adds".to_vec()].concat(), false),
        ];
        for (bytes, film) in cases {
            file.set_len(0).unwrap();
            file.rewind().unwrap();
            io::Write::write_all(&mut file, &bytes).unwrap();
            let (sniffed, look) = look(Sniffed::Picture(ImageFormat::Jpeg), &file).unwrap();
            assert_eq!((sniffed == Sniffed::Ffmpeg("mjpeg"), look.is_none()), (film, film));
        }
    }

    #[test]
    fn an_animation_is_found_behind_large_chunks() {
        let chunk =
            |kind: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes()[..], kind, data, &[0; 4]].concat();
        let profile = chunk(b"iCCP", &vec![7; 100_000]);
        let png = |chunks: &[Vec<u8>]| [&b"\x89PNG\r\n\x1a\n"[..], &chunks.concat()].concat();
        let animated = png(&[profile.clone(), chunk(b"acTL", &[0; 8]), chunk(b"IDAT", b"")]);
        let still = png(&[profile, chunk(b"IDAT", b""), chunk(b"acTL", &[0; 8])]);
        assert!(animated_png(&mut Cursor::new(animated)).unwrap());
        assert!(!animated_png(&mut Cursor::new(&still)).unwrap());
        assert!(!animated_png(&mut Cursor::new(&still[..50])).unwrap());
    }
}
