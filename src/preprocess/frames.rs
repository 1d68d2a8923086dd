//! MMV's resize of frames, [`Resample::Mmv`]: bilinear, half-pixel centres, no antialiasing, clamped
//! edges, f32, truncated to u8; then the centre crop. The result must equal the reference's byte for byte, so
//! a library's resize will not do. Only the pixels that the crop keeps are computed.

#[cfg(doc)]
use super::spec::Resample;
use super::spec::Size;

/// A part of a frame, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Number of columns to its left.
    pub left: usize,
    /// Number of rows above it.
    pub top: usize,
    /// Width of the part.
    pub width: usize,
    /// Height of the part.
    pub height: usize,
}

/// A prepared resize and crop for frames of one size.
#[derive(Debug, Clone)]
pub struct Resizer {
    width: usize,
    height: usize,
    kept: Size,
    columns: Vec<Tap>,
    rows: Vec<Tap>,
    /// The two source rows that were last interpolated along x (4 values per pixel), with their numbers.
    lines: [(usize, Vec<[f32; 4]>); 2],
}

/// Position of an output pixel between two input pixels along one axis.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tap {
    low: usize,
    high: usize,
    weight: f32,
}

/// Marks a buffer that contains no source row yet.
const NO_ROW: usize = usize::MAX;

impl Resizer {
    /// For frames of `width` x `height` (not 0), resized to `to` (not 0), and cut to the centre `kept`, which
    /// must not be larger.
    #[must_use]
    pub fn new(width: usize, height: usize, to: Size, kept: Size) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let kept = Size { height: kept.height.min(to.height), width: kept.width.min(to.width) };
        Self {
            width,
            height,
            kept,
            columns: taps(width, to.width, kept.width),
            rows: taps(height, to.height, kept.height),
            lines: [(NO_ROW, vec![[0.0; 4]; kept.width]), (NO_ROW, vec![[0.0; 4]; kept.width])],
        }
    }

    /// Like [`Self::new`] for the part `picture` of a frame, as if it were the whole frame, when
    /// [`Self::run`] is given only the part `area`. `None` if `area` is too small.
    #[must_use]
    pub fn of_part(picture: Part, area: Part, to: Size, kept: Size) -> Option<Self> {
        let mut resizer = Self::new(picture.width, picture.height, to, kept);
        (resizer.width, resizer.height) = (area.width, area.height);
        let moved = moved(&mut resizer.columns, picture.left, area.left, area.width)
            && moved(&mut resizer.rows, picture.top, area.top, area.height);
        moved.then_some(resizer)
    }

    /// Whether it resizes frames of this size.
    #[must_use]
    pub fn fits(&self, width: usize, height: usize) -> bool {
        self.width == width && self.height == height
    }

    /// Resizes and crops one frame: `rgb` is u8 [height, width, 3], `out` u8 of the kept size. If a slice has
    /// another length, leaves `out` unchanged and returns false.
    pub fn run(&mut self, rgb: &[u8], out: &mut [u8]) -> bool {
        let (stride, line) = (self.width * 3, self.kept.width * 3);
        if rgb.len() != self.height * stride || out.len() != self.kept.height * line || line == 0 {
            return false;
        }
        self.lines.iter_mut().for_each(|line| line.0 = NO_ROW);
        let Self { columns, rows, lines, .. } = self;
        for (tap, out) in rows.iter().zip(out.chunks_exact_mut(line)) {
            // Going down, the lower row of the previous output is often the upper row of this one.
            if lines[0].0 != tap.low {
                lines.swap(0, 1);
            }
            for (slot, row) in lines.iter_mut().zip([tap.low, tap.high]) {
                if slot.0 != row {
                    along_x(rgb, row * stride, columns, &mut slot.1);
                    slot.0 = row;
                }
            }
            between(&lines[0].1, &lines[1].1, tap.weight, out);
        }
        true
    }
}

/// Interpolates one source row at every output column. Reads four bytes at once; the fourth belongs to the
/// next pixel and is ignored.
fn along_x(rgb: &[u8], row: usize, columns: &[Tap], line: &mut [[f32; 4]]) {
    for (tap, value) in columns.iter().zip(line) {
        let low = pixel(rgb, row + tap.low * 3);
        let high = pixel(rgb, row + tap.high * 3);
        *value = std::array::from_fn(|c| low[c] + (high[c] - low[c]) * tap.weight);
    }
}

#[inline]
fn pixel(rgb: &[u8], at: usize) -> [f32; 4] {
    let bytes: [u8; 4] = match rgb.get(at..at + 4) {
        Some(four) => [four[0], four[1], four[2], four[3]],
        // The last pixel of a frame has no fourth byte after it.
        None => [rgb[at], rgb[at + 1], rgb[at + 2], 0],
    };
    bytes.map(f32::from)
}

/// Interpolates between two prepared rows and truncates.
fn between(upper: &[[f32; 4]], lower: &[[f32; 4]], weight: f32, out: &mut [u8]) {
    let (pixels, _) = out.as_chunks_mut::<3>();
    for ((out, a), b) in pixels.iter_mut().zip(upper).zip(lower) {
        let value: [i32; 4] = std::array::from_fn(|c| truncate(a[c] + (b[c] - a[c]) * weight));
        *out = [value[0] as u8, value[1] as u8, value[2] as u8];
    }
}

/// Values are between those of two bytes, so they fit into an i32. It converts in one instruction; u8 does
/// not.
#[inline]
fn truncate(value: f32) -> i32 {
    value as i32
}

/// The taps of the centre `crop` of an axis resized from `from` to `to` pixels.
fn taps(from: usize, to: usize, crop: usize) -> Vec<Tap> {
    let scale = from as f32 / to as f32;
    let offset = (to - crop) / 2;
    (offset..offset + crop)
        .map(|i| {
            let place = (i as f32 + 0.5) * scale - 0.5;
            let floor = place.floor();
            let low = floor.max(0.0) as usize;
            let high = (floor + 1.0).max(0.0) as usize;
            Tap { low: low.min(from - 1), high: high.min(from - 1), weight: place - floor }
        })
        .collect()
}

/// Moves taps from a part of an axis that begins at `from` to one of `len` pixels that begins at `to`.
/// Returns false if any is outside.
fn moved(taps: &mut [Tap], from: usize, to: usize, len: usize) -> bool {
    taps.iter_mut().all(|tap| {
        let (low, high) = ((tap.low + from).checked_sub(to), (tap.high + from).checked_sub(to));
        let (Some(low), Some(high)) = (low, high) else { return false };
        (tap.low, tap.high) = (low, high);
        high < len
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;
    use crate::preprocess::spec::PictureSpec;

    /// MMV's resize: the shorter side, then the square centre.
    fn sizes(width: usize, height: usize, side: usize, crop: usize) -> (Size, Size) {
        let spec = PictureSpec::mmv(side, crop, true, false);
        spec.sizes(Size { height, width })
    }

    fn resizer(width: usize, height: usize, side: usize, crop: usize) -> Resizer {
        let (to, kept) = sizes(width, height, side, crop);
        Resizer::new(width, height, to, kept)
    }

    /// The rule, pixel by pixel, over the whole resized frame; then the crop.
    fn slow(rgb: &[u8], width: usize, height: usize, shorter_side: usize, crop: usize) -> Vec<u8> {
        let (Size { height: to_height, width: to_width }, _) = sizes(width, height, shorter_side, crop);
        let (x0, y0) = ((to_width - crop) / 2, (to_height - crop) / 2);
        let mut out = Vec::new();
        for y in y0..y0 + crop {
            for x in x0..x0 + crop {
                for c in 0..3 {
                    let at = |x: f32, y: f32| {
                        let x = x.clamp(0.0, width as f32 - 1.0) as usize;
                        let y = y.clamp(0.0, height as f32 - 1.0) as usize;
                        f32::from(rgb[(y * width + x) * 3 + c])
                    };
                    let in_x = (x as f32 + 0.5) * (width as f32 / to_width as f32) - 0.5;
                    let in_y = (y as f32 + 0.5) * (height as f32 / to_height as f32) - 0.5;
                    let (fx, fy) = (in_x.floor(), in_y.floor());
                    let top = at(fx, fy) + (at(fx + 1.0, fy) - at(fx, fy)) * (in_x - fx);
                    let bottom = at(fx, fy + 1.0) + (at(fx + 1.0, fy + 1.0) - at(fx, fy + 1.0)) * (in_x - fx);
                    out.push((top + (bottom - top) * (in_y - fy)) as u8);
                }
            }
        }
        out
    }

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    proptest! {
        #[test]
        fn fast_equals_slow(
            width in 1usize..90, height in 1usize..90, side in 1usize..64, cut in 0usize..64, seed: u64,
        ) {
            let crop = side - cut.min(side - 1);
            let rgb = noise(width * height * 3, seed);
            let mut out = vec![0; crop * crop * 3];
            prop_assert!(resizer(width, height, side, crop).run(&rgb, &mut out));
            prop_assert_eq!(out, slow(&rgb, width, height, side, crop));
        }
    }

    #[test]
    fn slices_of_a_wrong_length_are_refused() {
        let mut resizer = resizer(10, 10, 8, 8);
        assert!(!resizer.run(&[0; 299], &mut [0; 192]));
        assert!(!resizer.run(&[0; 300], &mut [0; 191]));
        assert!(resizer.run(&[0; 300], &mut [0; 192]) && resizer.fits(10, 10));
    }

    #[test]
    fn a_crop_larger_than_the_side_enlarges() {
        let mut out = [0; 16 * 16 * 3];
        assert!(resizer(4, 4, 8, 16).run(&[9; 48], &mut out));
        assert!(out.iter().all(|byte| *byte == 9));
    }

    fn shared() -> Option<PathBuf> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let root = std::env::var_os("TRIPTYCH_SHARED").map_or(beside, PathBuf::from);
        let found = [root.join("mmv"), root.join("../../shared/mmv")].into_iter().find(|dir| dir.is_dir());
        if found.is_none() {
            eprintln!("SKIPPED: no reference vectors; set TRIPTYCH_SHARED");
        }
        found
    }

    /// Reads a u8 array [N, H, W, 3] in numpy's format, version 1.
    fn npy(path: &Path) -> (Vec<usize>, Vec<u8>) {
        let bytes = std::fs::read(path).unwrap();
        assert!(bytes.starts_with(b"\x93NUMPY\x01"));
        let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..10 + header_len]).unwrap();
        assert!(header.contains("'|u1'") && header.contains("'fortran_order': False"), "{header}");
        let shape = header.split_once('(').unwrap().1.split_once(')').unwrap().0;
        let shape = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
        (shape, bytes[10 + header_len..].to_vec())
    }

    #[test]
    fn equals_the_reference_byte_for_byte() {
        let Some(dir) = shared().map(|mmv| mmv.join("goldens/frames")) else { return };
        for name in ["down_270x480", "portrait_300x169", "same_224x398", "up_120x160"] {
            let (shape, input) = npy(&dir.join(format!("{name}_in_u8.npy")));
            let (_, wanted) = npy(&dir.join(format!("{name}_crop200_u8.npy")));
            let (full_shape, _) = npy(&dir.join(format!("{name}_resized_u8.npy")));
            let (to, _) = sizes(shape[2], shape[1], 224, 200);
            assert_eq!((to.width, to.height), (full_shape[2], full_shape[1]), "{name}");
            let frame = shape[1] * shape[2] * 3;
            let mut resizer = resizer(shape[2], shape[1], 224, 200);
            for (input, wanted) in input.chunks(frame).zip(wanted.chunks(200 * 200 * 3)) {
                let mut out = vec![0; wanted.len()];
                assert!(resizer.run(input, &mut out));
                assert!(
                    out == wanted,
                    "{name}: {} bytes differ",
                    out.iter().zip(wanted).filter(|(a, b)| a != b).count()
                );
            }
        }
    }
}
