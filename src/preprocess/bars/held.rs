//! Frames that may have bars, buffered until their clip is complete: only all of its frames together show its
//! bars.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Lit;
use crate::preprocess::frames::Part;
use crate::preprocess::picture::{PatchGrid, Preparer};
use crate::preprocess::spec::{PictureSpec, Resample, ResizeRule, Size};

/// Most bytes for the frames of one window. Larger frames are first divided by a whole number.
const WINDOW_BYTES: usize = 128 << 20;

/// The latest frames since the last one without bars, as many as a window needs.
#[derive(Debug)]
pub struct Held {
    window: usize,
    /// Periods that are kept.
    kept: u64,
    /// Whether windows skip frames.
    sparse: bool,
    spec: PictureSpec,
    runs: VecDeque<Run>,
    count: u64,
    next_id: u64,
    /// Buffers of dropped frames for reuse: allocating fresh memory costs more than writing to it.
    spare: Vec<Vec<u8>>,
    preparer: Option<Prepared>,
    /// A window that repeats a single frame, with the id of that frame.
    still: Option<(u64, Window)>,
}

/// Inputs of a window's frames, and the patches of each.
type Window = (Arc<[u8]>, Option<PatchGrid>);

/// The way from an area to the input, for a picture of this place.
#[derive(Debug)]
struct Prepared {
    picture: Part,
    area: Area,
    preparer: Preparer,
}

/// A frame with the number of sampling periods that it lasts.
#[derive(Debug)]
struct Run {
    id: u64,
    times: u64,
    /// Its lit pixels, and its buffered area; `None` if no clip that contains it can have bars.
    held: Option<(Lit, Area)>,
    rgb: Vec<u8>,
    /// Input of the tower from this frame, if the picture is this part of it.
    resized: Option<(Part, Box<[u8]>)>,
}

/// The buffered area of a frame: the part in the middle that the tower may see, reduced by a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    divisor: usize,
    part: Part,
}

impl Held {
    /// For windows of `window` frames.
    #[must_use]
    pub fn new(window: usize, spec: PictureSpec) -> Self {
        Self {
            window: window.max(1),
            kept: window.max(1) as u64,
            sparse: false,
            spec,
            runs: VecDeque::new(),
            count: 0,
            next_id: 0,
            spare: Vec::new(),
            preparer: None,
            still: None,
        }
    }

    /// For windows that have some of the frames; at most `frames` are kept. [`Self::keep`] says which.
    #[must_use]
    pub fn sparse(frames: usize, spec: PictureSpec) -> Self {
        Self { sparse: true, ..Self::new(frames, spec) }
    }

    /// Takes the next frame.
    pub fn push(&mut self, rgb: &[u8], width: usize, height: usize) {
        let area = Area::new(width, height, &self.spec, self.window);
        let held = Lit::of(rgb, width, height).and_then(|lit| Some((lit, area?)));
        if held.is_none() && !self.sparse {
            // All later clips with one of the previous frames contain this one, too, and so have no bars.
            self.spare.extend(self.runs.drain(..).map(|run| run.rgb));
            self.count = 0;
            return;
        }
        let mut room = self.spare.pop().unwrap_or_default();
        match &held {
            Some((_, area)) => area.cut_out(rgb, width, &mut room),
            None => room.clear(),
        }
        let run = Run { id: self.next_id, times: 1, held, rgb: room, resized: None };
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
        while let Some(run) = self.runs.front().filter(|run| self.count - run.times >= self.kept) {
            self.count -= run.times;
            self.spare.extend(self.runs.pop_front().map(|run| run.rgb));
        }
    }

    /// Keeps the frames of this many periods from now on.
    pub fn keep(&mut self, periods: u64) {
        self.kept = periods;
        self.forget();
    }

    /// The latest `frames` frames without their bars; `None` if they have no bars.
    pub fn window(&mut self, frames: usize) -> Option<Window> {
        let periods: Vec<u64> = (0..frames as u64).collect();
        self.chosen(frames as u64, &periods)
    }

    /// Frames without the bars that these frames have in common; `None` if they have none. They are those of
    /// the given periods, in ascending order, counted from the period `back` periods ago.
    pub fn chosen(&mut self, back: u64, periods: &[u64]) -> Option<Window> {
        let first = self.count.checked_sub(back)?;
        let mut runs = self.runs.iter().enumerate().scan(0, |end, (at, run)| {
            *end += run.times;
            Some((at, *end))
        });
        let (mut at, mut end) = runs.next()?;
        let mut chosen = Vec::with_capacity(periods.len());
        for period in periods {
            while end <= first + period {
                (at, end) = runs.next()?;
            }
            chosen.push(at);
        }
        let picture = self.picture(&chosen)?;
        let (front, back) = (*chosen.first()?, *chosen.last()?);
        let alone = self.runs.get(front).map(|run| run.id).filter(|_| front == back);
        let frame_bytes = self.spec.frame_bytes();
        let bytes = chosen.len() * frame_bytes;
        let known = self.still.as_ref().filter(|(id, still)| alone == Some(*id) && still.0.len() == bytes);
        if let Some((_, still)) = known {
            return Some(still.clone());
        }
        let mut window: Arc<[u8]> = std::iter::repeat_n(0, bytes).collect();
        let places = Arc::get_mut(&mut window)?.chunks_exact_mut(frame_bytes.max(1));
        for (place, at) in places.zip(chosen) {
            let run = self.runs.get_mut(at)?;
            place.copy_from_slice(run.resized(picture, &mut self.preparer, &self.spec)?);
        }
        let window = (window, self.preparer.as_ref().and_then(|prepared| prepared.preparer.grid()));
        if let Some(id) = alone {
            self.still = Some((id, window.clone()));
        }
        Some(window)
    }

    /// The picture between the bars of these frames.
    fn picture(&self, chosen: &[usize]) -> Option<Part> {
        let mut runs = chosen.chunk_by(|a, b| a == b).filter_map(|at| self.runs.get(*at.first()?));
        let (mut lit, _) = runs.next()?.held.clone()?;
        let alike = runs.all(|run| run.held.as_ref().is_some_and(|(other, _)| lit.join(other)));
        if alike { lit.picture() } else { None }
    }
}

impl Run {
    fn resized(
        &mut self,
        picture: Part,
        prepared: &mut Option<Prepared>,
        spec: &PictureSpec,
    ) -> Option<&[u8]> {
        let area = self.held.as_ref()?.1;
        let fits = |known: &Prepared| known.picture == picture && known.area == area;
        if self.resized.as_ref().is_none_or(|(part, _)| *part != picture) {
            let preparer = match prepared.as_mut().filter(|known| fits(known)) {
                Some(known) => &mut known.preparer,
                None => {
                    let preparer = area.preparer(picture, spec)?;
                    &mut prepared.insert(Prepared { picture, area, preparer }).preparer
                }
            };
            let mut out = vec![0; spec.frame_bytes()].into_boxed_slice();
            preparer.run(&self.rgb, &mut out);
            self.resized = Some((picture, out));
        }
        self.resized.as_ref().map(|(_, resized)| resized.as_ref())
    }
}

impl Area {
    /// The area of a frame of this size; `None` if the frame is too small.
    fn new(width: usize, height: usize, spec: &PictureSpec, window: usize) -> Option<Self> {
        let short = width.min(height);
        let room = WINDOW_BYTES / 3 / window;
        let middle = seen_of_shorter_side(spec);
        // If the tower sees the whole frame, everything is buffered.
        let pixels = |by: usize| match middle {
            Some(_) => (short / by).pow(2),
            None => (width / by) * (height / by),
        };
        let divisor = (1..=short).find(|by| pixels(*by) <= room)?;
        let (width, height) = (width / divisor, height / divisor);
        let short = width.min(height);
        let reach = middle.map_or(usize::MAX, |seen| seen.pixels(short));
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

    /// The resize from the buffered area to the tower's input for this picture.
    fn preparer(&self, picture: Part, spec: &PictureSpec) -> Option<Preparer> {
        let by = self.divisor;
        let (left, top) = (picture.left.div_ceil(by), picture.top.div_ceil(by));
        let right = (picture.left + picture.width) / by;
        let bottom = (picture.top + picture.height) / by;
        let width = right.checked_sub(left).filter(|width| *width > 0)?;
        let height = bottom.checked_sub(top).filter(|height| *height > 0)?;
        Preparer::of_part(spec, Part { left, top, width, height }, self.part, None)
    }
}

/// How much of a picture's middle a tower sees.
#[derive(Debug, Clone, Copy)]
struct Seen {
    side: usize,
    crop: usize,
    /// How far the filter reaches, in output pixels.
    support: usize,
}

/// `None` if the tower sees all of a picture.
fn seen_of_shorter_side(spec: &PictureSpec) -> Option<Seen> {
    let (ResizeRule::ShorterSide { size }, Some(Size { height, width })) = (spec.resize, spec.crop) else {
        return None;
    };
    let crop = height.max(width);
    let support = match spec.resample {
        Resample::Mmv | Resample::Nearest => 0,
        Resample::Bilinear => 1,
        Resample::Bicubic => 2,
        Resample::Lanczos => 3,
    };
    // A crop that is larger than the resized picture shows all of it.
    (crop <= size || spec.resample == Resample::Mmv).then_some(Seen { side: size.max(crop), crop, support })
}

impl Seen {
    /// The crop of the largest picture, half an output pixel more on each side, what the filter reaches, and
    /// the largest difference between two bars.
    const fn pixels(self, short: usize) -> usize {
        match self.side {
            0 | 1 => usize::MAX,
            side => (self.crop + 1 + 2 * self.support) * short / (side - 1) + 8 + 2 * self.support,
        }
    }
}

/// Whether the buffered area of a frame contains every pixel of the picture that a tower gets.
#[cfg(test)]
pub fn enough(width: usize, height: usize, picture: Part, spec: &PictureSpec, window: usize) -> bool {
    // A picture without any pixel does not count.
    Area::new(width, height, spec, window).is_some_and(|area| {
        let none = picture.width < 2 * area.divisor || picture.height < 2 * area.divisor;
        none || area.preparer(picture, spec).is_some()
    })
}
