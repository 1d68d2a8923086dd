//! Parses the contents of a child's pipes: frames as PPM pictures, sound as f32 samples.

use super::MediaError;
use super::error::{MAX_SAMPLE, MIN_SAMPLE};

/// Bytes of sound per read.
const SOUND_CHUNK: usize = 1 << 16;
/// Longest PPM header: `P6`, two numbers, `255`.
const MAX_HEADER: usize = 40;

/// Reads PPM pictures into one reused buffer.
pub(super) struct FrameReader {
    buffer: Vec<u8>,
    filled: usize,
    header_len: usize,
    pub(super) width: u32,
    pub(super) height: u32,
    max_pixels: u64,
    header: Vec<u8>,
}

impl FrameReader {
    pub(super) fn new(max_pixels: u64) -> Self {
        let buffer = vec![0; MAX_HEADER];
        Self { buffer, filled: 0, header_len: 0, width: 0, height: 0, max_pixels, header: Vec::new() }
    }

    /// Space for the next bytes. The first header is read byte by byte, since its length is unknown.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let end = if self.header_len == 0 { self.filled + 1 } else { self.buffer.len() };
        &mut self.buffer[self.filled..end]
    }

    /// Notes that bytes were read into `space`.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    /// Marks the frame as used; the next one takes its place.
    pub(super) fn next(&mut self) {
        self.filled = 0;
    }

    /// The complete frame as RGB.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.buffer[self.header_len..]
    }

    /// Whether the frame is complete.
    pub(super) fn complete(&mut self) -> Result<bool, MediaError> {
        if self.header_len == 0 {
            return self.first_header().map(|()| false);
        }
        if self.filled < self.buffer.len() {
            return Ok(false);
        }
        // ffmpeg scales every later frame to the size of the first, so all headers are equal.
        if self.buffer[..self.header_len] != self.header[..] {
            return Err(MediaError::Corrupt("the picture size changes".into()));
        }
        Ok(true)
    }

    fn first_header(&mut self) -> Result<(), MediaError> {
        let head = &self.buffer[..self.filled];
        if head.iter().filter(|byte| **byte == b'\n').count() < 3 {
            let too_long = self.filled == MAX_HEADER;
            return if too_long {
                Err(MediaError::Nonsense("a frame without a size".into()))
            } else {
                Ok(())
            };
        }
        let (width, height) =
            ppm_size(head).ok_or_else(|| MediaError::Nonsense("a frame with a malformed size".into()))?;
        if u64::from(width) * u64::from(height) > self.max_pixels {
            let detail = format!("{width} x {height}");
            return Err(MediaError::TooManyPixels { limit: self.max_pixels, detail });
        }
        (self.width, self.height) = (width, height);
        self.header = head.to_vec();
        self.header_len = self.filled;
        self.buffer.resize(self.header_len + width as usize * height as usize * 3, 0);
        Ok(())
    }
}

/// Width and height of `P6\n<w> <h>\n255\n`, neither of them 0.
fn ppm_size(header: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(header).ok()?;
    let (width, height) = text.strip_prefix("P6\n")?.strip_suffix("\n255\n")?.split_once(' ')?;
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    (width > 0 && height > 0).then_some((width, height))
}

/// Turns bytes into samples, and carries an incomplete sample over to the next call.
#[derive(Default)]
pub(super) struct SoundReader {
    bytes: Vec<u8>,
    carried: usize,
    samples: Vec<f32>,
}

/// A sample that is unusable for arithmetic.
#[derive(Debug, PartialEq)]
pub(super) struct BadSample {
    /// Index among the samples that were just taken.
    pub(super) at: usize,
    pub(super) value: f32,
}

impl SoundReader {
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.bytes.resize(SOUND_CHUNK, 0);
        &mut self.bytes[self.carried..]
    }

    /// The samples that are complete after `read` more bytes. Fails if one of them is unusable for
    /// arithmetic.
    pub(super) fn take(&mut self, read: usize) -> Result<&[f32], BadSample> {
        let filled = self.carried + read;
        let (words, rest) = self.bytes[..filled].as_chunks::<4>();
        self.samples.clear();
        self.samples.extend(words.iter().map(|word| audible(f32::from_le_bytes(*word))));
        self.carried = rest.len();
        self.bytes.copy_within(filled - self.carried..filled, 0);
        // NaN is not within any range.
        let wrong = self.samples.iter().position(|sample| !(-MAX_SAMPLE..=MAX_SAMPLE).contains(sample));
        if let Some(at) = wrong {
            return Err(BadSample { at, value: self.samples[at] });
        }
        Ok(&self.samples)
    }
}

/// The sample, or silence if it is below [`MIN_SAMPLE`].
fn audible(sample: f32) -> f32 {
    if sample.abs() < MIN_SAMPLE { 0.0 } else { sample }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ppm_headers_are_read_strictly() {
        assert_eq!(ppm_size(b"P6\n640 360\n255\n"), Some((640, 360)));
        for bad in [&b"P5\n6 3\n255\n"[..], b"P6\n0 3\n255\n", b"P6\n6\n255\n", b"P6\n-6 3\n255\n", b"\xff"] {
            assert_eq!(ppm_size(bad), None);
        }
    }

    #[test]
    fn samples_survive_any_split_and_nan_does_not() {
        let wanted: Vec<f32> = (0..1000).map(|i| i as f32 / 7.0).collect();
        let bytes: Vec<u8> = wanted.iter().flat_map(|s| s.to_le_bytes()).collect();
        for step in [1, 3, 5, 4096] {
            let (mut reader, mut got) = (SoundReader::default(), Vec::new());
            for chunk in bytes.chunks(step) {
                reader.space()[..chunk.len()].copy_from_slice(chunk);
                got.extend_from_slice(reader.take(chunk.len()).unwrap());
            }
            assert_eq!(got, wanted);
        }
    }

    #[test]
    fn what_no_sound_holds_is_refused_and_what_nobody_hears_is_silence() {
        let of = |samples: &[f32]| {
            let mut reader = SoundReader::default();
            let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
            reader.space()[..bytes.len()].copy_from_slice(&bytes);
            reader.take(bytes.len()).map(<[f32]>::to_vec)
        };
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 1e20, 65_537.0] {
            match of(&[0.0, 0.5, 1.0, bad]) {
                Err(BadSample { at, value }) => assert_eq!((at, value.to_bits()), (3, bad.to_bits())),
                other => panic!("{bad}: {other:?}"),
            }
        }
        let fine = [1.0, -1.0, 32_768.0, -65_536.0, 65_536.0, 1e-14, -1e-14];
        assert_eq!(of(&fine).unwrap(), fine);
        for quiet in [1e-16, -1e-30, f32::MIN_POSITIVE, 1e-45, -0.0] {
            assert_eq!(of(&[quiet]).unwrap(), [0.0], "{quiet}");
        }
    }

    #[test]
    fn a_frame_beyond_the_cap_is_refused_before_its_buffer_exists() {
        let mut reader = FrameReader::new(100);
        for &byte in b"P6\n99999 99999\n255" {
            reader.space()[0] = byte;
            reader.filled(1);
            assert!(!reader.complete().unwrap());
        }
        reader.space()[0] = b'\n';
        reader.filled(1);
        assert!(matches!(reader.complete(), Err(MediaError::TooManyPixels { .. })));
        assert!(reader.buffer.len() <= MAX_HEADER);
    }
}
