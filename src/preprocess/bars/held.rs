//! Frames that may have bars, held until their clip is complete: only all of its frames together show its
//! bars.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Lit;
use crate::preprocess::frames::{Part, Resizer};

/// Most bytes for the frames of one window. Larger frames are first divided by a whole number.
const WINDOW_BYTES: usize = 128 << 20;

/// The latest frames since the last one without bars, as many as a window needs.
#[derive(Debug)]
pub struct Held {
    window: usize,
    shorter_side: usize,
    crop: usize,
    runs: VecDeque<Run>,
    count: u64,
    next_id: u64,
    /// Buffers of dropped frames for reuse: allocating fresh memory costs more than writing to it.
    spare: Vec<Vec<u8>>,
    resizer: Option<(Part, Area, Resizer)>,
    /// A window that repeats a single frame, with the id of that frame.
    still: Option<(u64, Arc<[u8]>)>,
}

/// A frame with the number of sampling periods that it lasts.
#[derive(Debug)]
struct Run {
    id: u64,
    times: u64,
    lit: Lit,
    area: Area,
    rgb: Vec<u8>,
    /// Input of the tower from this frame, if the picture is this part of it.
    resized: Option<(Part, Box<[u8]>)>,
}

/// The held area of a frame: the part in the middle that the tower may see, divided by a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    divisor: usize,
    part: Part,
}

impl Held {
    /// For windows of `window` frames, resized as by [`Resizer::new`].
    #[must_use]
    pub fn new(window: usize, shorter_side: usize, crop: usize) -> Self {
        Self {
            window: window.max(1),
            shorter_side: shorter_side.max(crop),
            crop,
            runs: VecDeque::new(),
            count: 0,
            next_id: 0,
            spare: Vec::new(),
            resizer: None,
            still: None,
        }
    }

    /// Takes the next frame.
    pub fn push(&mut self, rgb: &[u8], width: usize, height: usize) {
        let area = Area::new(width, height, self.shorter_side, self.crop, self.window);
        let held = Lit::of(rgb, width, height).and_then(|lit| Some((lit, area?)));
        let Some((lit, area)) = held else {
            // All later clips with one of the previous frames contain this one, too, and so have no bars.
            self.spare.extend(self.runs.drain(..).map(|run| run.rgb));
            self.count = 0;
            return;
        };
        let mut room = self.spare.pop().unwrap_or_default();
        area.cut_out(rgb, width, &mut room);
        let run = Run { id: self.next_id, times: 1, lit, area, rgb: room, resized: None };
        self.next_id += 1;
        self.runs.push_back(run);
        self.count += 1;
        self.forget();
    }

    /// Repeats the latest frame `times` times.
    pub fn repeat(&mut self, times: u64) {
        if let Some(run) = self.runs.back_mut() {
            run.times += times;
            self.count += times;
            self.forget();
        }
    }

    /// Whether the last two windows consist only of the latest frame, or it has no bars.
    #[must_use]
    pub fn steady(&self) -> bool {
        self.runs.back().is_none_or(|run| run.times >= 2 * self.window as u64)
    }

    fn forget(&mut self) {
        while let Some(run) = self.runs.front().filter(|run| self.count - run.times >= self.window as u64) {
            self.count -= run.times;
            self.spare.extend(self.runs.pop_front().map(|run| run.rgb));
        }
    }

    /// The latest `frames` frames without their bars; `None` if they have no bars.
    pub fn window(&mut self, frames: usize) -> Option<Arc<[u8]>> {
        let before = usize::try_from(self.count.checked_sub(frames as u64)?).unwrap_or(usize::MAX);
        let picture = self.picture()?;
        let alone = (self.runs.len() == 1).then(|| self.runs.front().map(|run| run.id)).flatten();
        let known = self.still.as_ref().filter(|still| alone == Some(still.0) && frames == self.window);
        if let Some((_, still)) = known {
            return Some(still.clone());
        }
        let frame_bytes = self.crop * self.crop * 3;
        let mut window: Arc<[u8]> = std::iter::repeat_n(0, frames * frame_bytes).collect();
        let mut places = Arc::get_mut(&mut window)?.chunks_exact_mut(frame_bytes.max(1));
        let mut skipped = before;
        for run in &mut self.runs {
            let times = usize::try_from(run.times).unwrap_or(usize::MAX);
            let times = times - skipped.min(times);
            skipped = 0;
            let resized = run.resized(picture, &mut self.resizer, self.shorter_side, self.crop)?;
            places.by_ref().take(times).for_each(|place| place.copy_from_slice(resized));
        }
        if let Some(id) = alone.filter(|_| frames == self.window) {
            self.still = Some((id, window.clone()));
        }
        Some(window)
    }

    fn picture(&self) -> Option<Part> {
        let mut runs = self.runs.iter();
        let mut lit = runs.next()?.lit.clone();
        runs.all(|run| lit.join(&run.lit)).then(|| lit.picture()).flatten()
    }
}

impl Run {
    fn resized(
        &mut self,
        picture: Part,
        resizer: &mut Option<(Part, Area, Resizer)>,
        shorter_side: usize,
        crop: usize,
    ) -> Option<&[u8]> {
        if self.resized.as_ref().is_none_or(|(part, _)| *part != picture) {
            let fits = |(part, area, _): &&mut (Part, Area, Resizer)| *part == picture && *area == self.area;
            let resizer = match resizer.as_mut().filter(fits) {
                Some((_, _, resizer)) => resizer,
                None => {
                    let fresh = self.area.resizer(picture, shorter_side, crop)?;
                    &mut resizer.insert((picture, self.area, fresh)).2
                }
            };
            let mut out = vec![0; crop * crop * 3].into_boxed_slice();
            resizer.run(&self.rgb, &mut out);
            self.resized = Some((picture, out));
        }
        self.resized.as_ref().map(|(_, resized)| resized.as_ref())
    }
}

impl Area {
    /// The area of a frame of this size; `None` if the frame is too small.
    fn new(width: usize, height: usize, shorter_side: usize, crop: usize, window: usize) -> Option<Self> {
        let short = width.min(height);
        let room = WINDOW_BYTES / 3 / window;
        let divisor = (1..=short).find(|by| (short / by).pow(2) <= room)?;
        let (width, height) = (width / divisor, height / divisor);
        let short = width.min(height);
        // The crop of the largest picture, half an output pixel more on each side, and the largest difference
        // between two bars.
        let reach = match shorter_side {
            0 | 1 => usize::MAX,
            side => (crop + 1) * short / (side - 1) + 8,
        };
        let side = |all: usize| reach.saturating_add(all / 50).min(all);
        let (across, down) = (side(width), side(height));
        let (left, top) = ((width - across) / 2, (height - down) / 2);
        Some(Self { divisor, part: Part { left, top, width: across, height: down } })
    }

    /// Copies the area's pixels, as means of blocks if it is divided.
    fn cut_out(&self, rgb: &[u8], frame_width: usize, out: &mut Vec<u8>) {
        let Self { divisor, part: Part { left, top, width, height } } = *self;
        out.clear();
        out.reserve_exact(width * height * 3);
        if divisor == 1 {
            for y in top..top + height {
                let at = (y * frame_width + left) * 3;
                out.extend_from_slice(&rgb[at..at + width * 3]);
            }
            return;
        }
        let block = (divisor * divisor) as u32;
        let mut sums = vec![0_u32; width * 3];
        for y in top..top + height {
            sums.fill(block / 2);
            for line in y * divisor..(y + 1) * divisor {
                let at = (line * frame_width + left * divisor) * 3;
                let blocks = rgb[at..at + width * divisor * 3].chunks_exact(divisor * 3);
                for (sum, block) in sums.chunks_exact_mut(3).zip(blocks) {
                    for pixel in block.chunks_exact(3) {
                        sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(*value));
                    }
                }
            }
            out.extend(sums.iter().map(|sum| (sum / block) as u8));
        }
    }

    /// A resizer from the held area to the tower's input for this picture.
    fn resizer(&self, picture: Part, shorter_side: usize, crop: usize) -> Option<Resizer> {
        let by = self.divisor;
        let (left, top) = (picture.left.div_ceil(by), picture.top.div_ceil(by));
        let right = (picture.left + picture.width) / by;
        let bottom = (picture.top + picture.height) / by;
        let width = right.checked_sub(left).filter(|width| *width > 0)?;
        let height = bottom.checked_sub(top).filter(|height| *height > 0)?;
        Resizer::of_part(Part { left, top, width, height }, self.part, shorter_side, crop)
    }
}

/// Whether the held area of a frame contains everything that a tower gets of a picture.
#[cfg(test)]
pub fn enough(
    width: usize,
    height: usize,
    picture: Part,
    shorter_side: usize,
    crop: usize,
    window: usize,
) -> bool {
    let area = Area::new(width, height, shorter_side.max(crop), crop, window);
    // A picture without any pixel does not count.
    area.is_some_and(|area| {
        let none = picture.width < 2 * area.divisor || picture.height < 2 * area.divisor;
        none || area.resizer(picture, shorter_side.max(crop), crop).is_some()
    })
}
