//! Pillow's `Image.resize` for 8-bit RGB, byte for byte: filters whose support grows when they shrink, with
//! fixed-point weights, one axis after the other, each rounded to bytes. No crate computes the same bytes
//! (`fast_image_resize` rounds its weights further), and vectors depend on them. The order of the two axes is
//! that of Pillow 13: the rows come first unless the height shrinks by far more pixels than the width.
//!
//! Only the pixels that a crop keeps are computed, and only as many rows as the filter spans are held.

use super::frames::Part;
use super::spec::{Resample, Size};

/// Bits after the point of a weight.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Half, with that many bits after the point: sums begin with it, so that they round.
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// How far a filter reaches, in output pixels, and its values.
type Filter = (f64, fn(f64) -> f64);

/// Marks a line that contains no source row yet.
const NO_ROW: usize = usize::MAX;

/// A prepared resize and centre crop for frames of one size.
#[derive(Debug, Clone)]
pub struct Resampler {
    width: usize,
    height: usize,
    columns: Axis,
    rows: Axis,
    /// The latest rows resized along x, with their numbers; row `y` is at `y % lines.len()`.
    lines: Vec<(usize, Box<[u8]>)>,
    sums: Box<[i32]>,
    /// Whether the columns are resized first. Then there is one line, of the width of the input.
    columns_first: bool,
}

/// The pixels of the output along one axis.
#[derive(Debug, Clone)]
struct Axis {
    /// All of them, with zeros around the resized picture where the crop is larger.
    len: usize,
    /// The first one that shows the picture.
    begin: usize,
    /// The input pixels of each that shows the picture.
    taps: Vec<Taps>,
    weights: Vec<i32>,
}

/// Consecutive input pixels, and where their weights begin.
#[derive(Debug, Clone, Copy)]
struct Taps {
    first: usize,
    count: usize,
    weights: usize,
}

impl Resampler {
    /// For frames of this size (not 0), resized to `to` (not 0), and cut to the centre `kept`. Parts of
    /// `kept` outside the resized frame become black. [`Resample::Mmv`] is not Pillow's and counts as
    /// bilinear.
    #[must_use]
    pub fn new(width: usize, height: usize, to: Size, kept: Size, resample: Resample) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let to = Size { height: to.height.max(1), width: to.width.max(1) };
        let columns = Axis::new(width, to.width, kept.width, resample);
        let rows = Axis::new(height, to.height, kept.height, resample);
        let fewer = |from: usize, to: usize| from as i64 - to as i64;
        let (fewer_rows, fewer_columns) = (fewer(height, to.height), fewer(width, to.width));
        let columns_first = fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
        let mut made =
            Self { width, height, columns, rows, lines: Vec::new(), sums: [].into(), columns_first };
        made.make_room();
        made
    }

    fn make_room(&mut self) {
        let held = self.rows.taps.iter().map(|taps| taps.count).max().unwrap_or(0);
        let (held, pixels) =
            if self.columns_first { (1, self.width) } else { (held, self.columns.taps.len()) };
        self.lines = vec![(NO_ROW, vec![0; pixels * 3].into_boxed_slice()); held];
        self.sums = vec![0; pixels * 3].into_boxed_slice();
    }

    /// Like [`Self::new`] for the part `picture` of a frame, as if it were the whole frame, when [`Self::run`]
    /// is given only the part `area`. `None` if `area` is too small.
    #[must_use]
    pub fn of_part(picture: Part, area: Part, to: Size, kept: Size, resample: Resample) -> Option<Self> {
        let mut resampler = Self::new(picture.width, picture.height, to, kept, resample);
        (resampler.width, resampler.height) = (area.width, area.height);
        let moved = resampler.columns.moved(picture.left, area.left, area.width)
            && resampler.rows.moved(picture.top, area.top, area.height);
        resampler.make_room();
        moved.then_some(resampler)
    }

    /// Whether it resizes frames of this size.
    #[must_use]
    pub const fn fits(&self, width: usize, height: usize) -> bool {
        self.width == width && self.height == height
    }

    /// Resizes and crops one frame: `rgb` is u8 [height, width, 3], `out` u8 of the kept size. If a slice has
    /// another length, leaves `out` unchanged and returns false.
    pub fn run(&mut self, rgb: &[u8], out: &mut [u8]) -> bool {
        let out_line = self.columns.len * 3;
        if rgb.len() != self.width * self.height * 3 || out.len() != self.rows.len * out_line {
            return false;
        }
        if self.columns.taps.is_empty() || self.rows.taps.is_empty() {
            out.fill(0);
            return true;
        }
        self.lines.iter_mut().for_each(|line| line.0 = NO_ROW);
        let shown = self.columns.begin * 3..(self.columns.begin + self.columns.taps.len()) * 3;
        for (y, out) in out.chunks_exact_mut(out_line).enumerate() {
            let taps = y.checked_sub(self.rows.begin).and_then(|y| self.rows.taps.get(y)).copied();
            if taps.is_none() || shown.len() < out_line {
                out.fill(0);
            }
            match taps {
                None => {}
                Some(taps) if self.columns_first => self.column_then_row(rgb, taps, &mut out[shown.clone()]),
                Some(taps) => self.rows_then_column(rgb, taps, &mut out[shown.clone()]),
            }
        }
        true
    }

    fn rows_then_column(&mut self, rgb: &[u8], taps: Taps, out: &mut [u8]) {
        let Self { width, columns, rows, lines, sums, .. } = self;
        let weights = &rows.weights[taps.weights..taps.weights + taps.count];
        sums.fill(HALF);
        for (row, weight) in (taps.first..taps.first + taps.count).zip(weights) {
            let slot = row % lines.len();
            let line = &mut lines[slot];
            if line.0 != row {
                along_x(&rgb[row * *width * 3..(row + 1) * *width * 3], columns, &mut line.1);
                line.0 = row;
            }
            add(sums, &line.1, *weight);
        }
        out.iter_mut().zip(&*sums).for_each(|(out, sum)| *out = byte(*sum));
    }

    fn column_then_row(&mut self, rgb: &[u8], taps: Taps, out: &mut [u8]) {
        let Self { columns, rows, lines, sums, .. } = self;
        let Some((_, line)) = lines.first_mut() else { return };
        let weights = &rows.weights[taps.weights..taps.weights + taps.count];
        sums.fill(HALF);
        for (row, weight) in rgb.chunks_exact(sums.len()).skip(taps.first).zip(weights) {
            add(sums, row, *weight);
        }
        line.iter_mut().zip(&*sums).for_each(|(value, sum)| *value = byte(*sum));
        along_x(line, columns, out);
    }
}

fn add(sums: &mut [i32], line: &[u8], weight: i32) {
    sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += i32::from(*value) * weight);
}

/// Resizes one row.
fn along_x(row: &[u8], columns: &Axis, line: &mut [u8]) {
    let (row, _) = row.as_chunks::<3>();
    let (line, _) = line.as_chunks_mut::<3>();
    for (taps, out) in columns.taps.iter().zip(line) {
        let mut sums = [HALF; 3];
        let weights = &columns.weights[taps.weights..taps.weights + taps.count];
        for (pixel, weight) in row[taps.first..taps.first + taps.count].iter().zip(weights) {
            sums[0] += i32::from(pixel[0]) * weight;
            sums[1] += i32::from(pixel[1]) * weight;
            sums[2] += i32::from(pixel[2]) * weight;
        }
        *out = sums.map(byte);
    }
}

#[inline]
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

impl Axis {
    /// The centre `kept` of an axis of `from` pixels resized to `to`.
    fn new(from: usize, to: usize, kept: usize, resample: Resample) -> Self {
        // The first kept pixel is `(to - kept) // 2`, also if that is below 0.
        let (skipped, begin) = if kept <= to { ((to - kept) / 2, 0) } else { (0, (kept - to).div_ceil(2)) };
        let shown = skipped..skipped + kept.min(to);
        let mut axis = Self { len: kept, begin, taps: Vec::with_capacity(shown.len()), weights: Vec::new() };
        match filter_of(resample) {
            Some(filter) => shown.for_each(|i| axis.push(from, to, i, filter)),
            None => axis.nearest(from, to, shown),
        }
        axis
    }

    /// Adds output pixel `i` of an axis of `from` pixels resized to `to`. The order of every operation is
    /// Pillow's.
    fn push(&mut self, from: usize, to: usize, i: usize, (support, filter): Filter) {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = support * stretch;
        let center = (i as f64 + 0.5) * scale;
        let first = ((center - support + 0.5) as i64).max(0) as usize;
        let end = ((center + support + 0.5) as i64).min(from as i64) as usize;
        let per_pixel = 1.0 / stretch;
        let weight = |x: usize| filter((x as f64 - center + 0.5) * per_pixel);
        let sum: f64 = (first..end).map(weight).sum();
        let fixed = |x: usize| {
            let weight = if sum == 0.0 { weight(x) } else { weight(x) / sum };
            let scaled = weight * f64::from(1 << PRECISION_BITS);
            (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
        };
        self.taps.push(Taps { first, count: end.saturating_sub(first), weights: self.weights.len() });
        self.weights.extend((first..end).map(fixed));
    }

    /// Adds the nearest pixels. Pillow adds up their places from the first one on, and so its rounding errors.
    fn nearest(&mut self, from: usize, to: usize, shown: std::ops::Range<usize>) {
        let scale = from as f64 / to as f64;
        let mut place = scale * 0.5;
        self.weights.push(1 << PRECISION_BITS);
        for i in 0..shown.end {
            if i >= shown.start {
                self.taps.push(Taps { first: (place as usize).min(from - 1), count: 1, weights: 0 });
            }
            place += scale;
        }
    }

    /// Moves the taps from a part of an axis that begins at `from` to one of `len` pixels that begins at
    /// `to`. Returns false if any is outside.
    fn moved(&mut self, from: usize, to: usize, len: usize) -> bool {
        self.taps.iter_mut().all(|taps| {
            let Some(first) = (taps.first + from).checked_sub(to) else { return false };
            taps.first = first;
            first + taps.count <= len
        })
    }
}

/// The filter; `None` for the nearest pixel.
const fn filter_of(resample: Resample) -> Option<Filter> {
    match resample {
        Resample::Nearest => None,
        Resample::Bilinear | Resample::Mmv => Some((1.0, bilinear)),
        Resample::Bicubic => Some((2.0, bicubic)),
        Resample::Lanczos => Some((3.0, lanczos)),
    }
}

fn bilinear(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

#[cfg(test)]
mod tests;
