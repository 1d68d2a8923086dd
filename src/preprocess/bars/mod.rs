//! Black bars: which part of a clip's frames is the picture. The rule is in `docs/bundle.md`, "Black bars".
//! The trainer implements it, too, and `tests/pictures/bars.json` tests both.

mod held;

pub use held::Held;

use super::frames::Part;

/// Highest channel value of a black pixel.
const BLACK: u8 = 16;

/// Number of pixels in each row and column that are not black; over several frames, the highest in any of
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lit {
    width: usize,
    height: usize,
    /// `None` if the first or the last row is lit, so that there is no bar above or below.
    rows: Option<Vec<u32>>,
    /// `None` if the first or the last column is lit, so that there is no bar at the sides.
    columns: Option<Vec<u32>>,
}

impl Lit {
    /// Counts of one frame, u8 [height, width, 3], not empty. `None` if no clip that contains it can have
    /// bars, which in most films is clear after a few pixels.
    #[must_use]
    pub fn of(rgb: &[u8], width: usize, height: usize) -> Option<Self> {
        let (pixels, rest) = rgb.as_chunks::<3>();
        if !rest.is_empty() || pixels.len() != width * height || pixels.is_empty() {
            return None;
        }
        let row = |y: usize| dark(pixels[y * width..(y + 1) * width].iter(), width);
        let column = |x: usize| dark(pixels[x..].iter().step_by(width), height);
        let rows = row(0) && row(height - 1);
        let columns = column(0) && column(width - 1);
        if !rows && !columns {
            return None;
        }
        let mut found = Self {
            width,
            height,
            rows: rows.then(|| vec![0; height]),
            columns: columns.then(|| vec![0; width]),
        };
        found.count(rgb);
        Some(found)
    }

    /// Counts the lit pixels of a frame byte by byte, which the compiler vectorises: a pixel is lit if any of
    /// its three bytes is. Most lines of bars and of dark frames have no lit byte, so that is checked first.
    fn count(&mut self, rgb: &[u8]) {
        let line_bytes = self.width * 3;
        let first_of_pixel: Vec<u8> = [1, 0, 0].repeat(self.width);
        let (mut bright, mut lit) = (vec![0_u8; line_bytes + 2], vec![0_u8; line_bytes]);
        let mut by_byte = vec![0_u32; if self.columns.is_some() { line_bytes } else { 0 }];
        for (y, line) in rgb.chunks_exact(line_bytes).enumerate() {
            if line.iter().fold(0, |most, value| (*value).max(most)) <= BLACK {
                continue;
            }
            bright.iter_mut().zip(line).for_each(|(bright, value)| *bright = u8::from(*value > BLACK));
            let shifted = bright.iter().zip(&bright[1..]).zip(&bright[2..]);
            lit.iter_mut().zip(&first_of_pixel).zip(shifted).for_each(|((lit, first), ((a, b), c))| {
                *lit = (a | b | c) & first;
            });
            if let Some(count) = self.rows.as_mut().and_then(|rows| rows.get_mut(y)) {
                *count = lit.iter().map(|lit| u32::from(*lit)).sum();
            }
            by_byte.iter_mut().zip(&lit).for_each(|(count, lit)| *count += u32::from(*lit));
        }
        if let Some(columns) = &mut self.columns {
            columns.iter_mut().zip(by_byte.iter().step_by(3)).for_each(|(count, lit)| *count = *lit);
        }
    }

    /// Combines the counts with those of another frame of the clip. Returns false if its size differs.
    #[must_use]
    pub fn join(&mut self, other: &Self) -> bool {
        let most = |mine: &mut Option<Vec<u32>>, other: &Option<Vec<u32>>| match (mine.as_mut(), other) {
            (Some(mine), Some(other)) => mine.iter_mut().zip(other).for_each(|(a, b)| *a = (*a).max(*b)),
            _ => *mine = None,
        };
        most(&mut self.rows, &other.rows);
        most(&mut self.columns, &other.columns);
        (self.width, self.height) == (other.width, other.height)
    }

    /// The picture between the bars, if there are any.
    #[must_use]
    pub fn picture(&self) -> Option<Part> {
        let (width, height) = (self.width, self.height);
        let rows = |covered| self.rows.as_ref().and_then(|lit| bars(lit, width, covered));
        let columns = |covered| self.columns.as_ref().and_then(|lit| bars(lit, height, covered));
        // Lines are compared with the picture, which can itself be narrower than the frame.
        let across = extent(self.columns.as_deref(), width, height);
        let down = extent(self.rows.as_deref(), height, width);
        let ((left, right), (top, bottom)) = match (columns(down), rows(across)) {
            (Some(beside), Some(above)) => (beside, above),
            _ => match rows(width) {
                Some(above) => ((0, 0), above),
                None => (columns(height)?, (0, 0)),
            },
        };
        Some(Part { left, top, width: width - left - right, height: height - top - bottom })
    }
}

fn lit(pixel: &[u8; 3]) -> bool {
    pixel[0] > BLACK || pixel[1] > BLACK || pixel[2] > BLACK
}

/// Number of pixels of a line that may be lit by noise.
const fn noise(pixels: usize) -> usize {
    pixels / 100
}

/// Whether a line of `pixels` pixels is black. Stops at the first pixel that decides it.
fn dark<'a>(line: impl Iterator<Item = &'a [u8; 3]>, pixels: usize) -> bool {
    line.filter(|pixel| lit(pixel)).nth(noise(pixels)).is_none()
}

/// Number of lines from the first to the last that is not black, if the frame has black lines on both sides;
/// otherwise all. Lines have `pixels` pixels each.
fn extent(lit: Option<&[u32]>, lines: usize, pixels: usize) -> usize {
    let Some(lit) = lit else { return lines };
    let seen = |count: &u32| *count as usize > noise(pixels);
    match (lit.iter().position(seen), lit.iter().rposition(seen)) {
        (Some(first), Some(last)) => last + 1 - first,
        _ => 0,
    }
}

/// Sizes of the bars at both ends of an axis. Lines have `pixels` pixels, of which the picture covers at most
/// `covered`.
fn bars(lit: &[u32], pixels: usize, covered: usize) -> Option<(usize, usize)> {
    let lines = lit.len();
    // A line of the picture is lit over at least half of its width. Text, a moon or a face on black is not.
    let picture = |count: &u32| *count > 0 && *count as usize * 2 >= covered;
    let first = lit.iter().position(picture)?;
    let last = lit.iter().rposition(picture)?;
    let (low, high) = (first, lines - 1 - last);
    // Compression leaves traces of the picture next to its edge.
    let traces = 2 + lines / 100;
    let large = low.min(high) > traces && (low + high) * 32 >= lines;
    let alike = low.abs_diff(high) <= (lines / 50).max(2);
    let enough = (last + 1 - first) * 5 >= lines;
    if !(large && alike && enough) {
        return None;
    }
    let black = |bar: &[u32]| bar.iter().filter(|count| **count as usize <= noise(pixels)).count();
    let (low_black, high_black) = (black(&lit[..low - traces]), black(&lit[lines - high + traces..]));
    let clean = [low_black == low - traces, high_black == high - traces];
    // One of the bars may contain subtitles or a logo.
    let partly = low_black * 4 >= low && high_black * 4 >= high;
    (clean[0] && clean[1] || partly && (clean[0] || clean[1])).then_some((low, high))
}

#[cfg(test)]
mod tests;
