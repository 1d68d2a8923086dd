//! The pictures of an asset, cut into windows as they arrive.

use std::sync::Arc;

use super::spread::{Inputs, ShortWindow, SpreadFrames};
use crate::ffmpeg::sampling::Sampling;
use crate::preprocess::bars::Held;
use crate::preprocess::clips::{FrameBlocks, Plan, Tail, looped};
use crate::preprocess::picture::{PatchGrid, Preparer};
use crate::preprocess::spec::{ClipSpec, PictureSpec};

/// Pictures of one window.
#[derive(Debug, Clone)]
pub struct Window {
    /// First sampling period of the window.
    pub start: u64,
    /// Number of periods; fewer than others have if the asset, or its last part, is shorter.
    pub periods: u64,
    /// Whether it is a whole window.
    pub whole: bool,
    pub frames: Arc<[u8]>,
    pub grid: Option<PatchGrid>,
}

/// The clip that covers the end of the pictures.
#[derive(Debug)]
pub enum Last {
    /// Nothing is left.
    Nothing,
    /// A window that overlaps with the one before it.
    Anchored(Window),
    /// A window that is not whole.
    Short(Window),
    /// A window that is not whole and has frames close to its own. They should be decoded once more, since its
    /// length is known only now.
    Inexact(Window),
}

/// Collects pictures into windows.
#[derive(Debug)]
pub struct Pictures {
    spec: PictureSpec,
    frames: usize,
    preparer: Option<Preparer>,
    /// The patches of the first picture, which all later ones get.
    grid: Option<PatchGrid>,
    windows: Windows,
}

#[derive(Debug)]
enum Windows {
    /// A frame for each period.
    Every {
        blocks: FrameBlocks,
        plan: Plan,
        /// Frames that may have bars, if bars are to be removed.
        held: Option<Held>,
    },
    Spread(SpreadFrames),
}

impl Pictures {
    pub fn new(spec: &ClipSpec, sampling: Sampling) -> Self {
        let (picture, frames) = (spec.video, spec.frames());
        let windows = match sampling {
            Sampling::Spread(plan) => Windows::Spread(SpreadFrames::new(plan, &picture)),
            Sampling::Nearest(fps) | Sampling::OnScreen(fps) => Windows::Every {
                blocks: FrameBlocks::new(frames, picture.frame_bytes()),
                plan: Plan::new(frames as u64, spec.stride_secs * fps),
                held: picture.unbarred.then(|| Held::new(frames, picture)),
            },
        };
        Self { spec: picture, frames, preparer: None, grid: None, windows }
    }

    /// Number of periods so far.
    pub const fn count(&self) -> u64 {
        match &self.windows {
            Windows::Every { blocks, .. } => blocks.count,
            Windows::Spread(spread) => spread.count,
        }
    }

    /// Bytes of one window.
    pub const fn window_bytes(&self) -> usize {
        self.frames * self.spec.frame_bytes()
    }

    /// First period that a later window may need.
    pub fn needed_from(&self) -> u64 {
        match &self.windows {
            Windows::Every { blocks, plan, .. } => plan.needed_from(blocks.count),
            Windows::Spread(spread) => spread.needed_from(),
        }
    }

    /// Takes a frame of one period.
    pub fn push(&mut self, rgb: &[u8], width: usize, height: usize) {
        let fresh = || Preparer::new(&self.spec, width, height, self.grid);
        let preparer = match &mut self.preparer {
            Some(preparer) if preparer.fits(width, height) => preparer,
            slot => slot.insert(fresh()),
        };
        self.grid = preparer.grid();
        match &mut self.windows {
            Windows::Every { blocks, held, .. } => {
                blocks.push(|out| {
                    preparer.run(rgb, out);
                });
                if let Some(held) = held {
                    held.push(rgb, width, height);
                }
            }
            Windows::Spread(spread) => spread.push(preparer, rgb, width, height),
        }
    }

    /// Lets the latest frame last for up to `times` more periods, but not beyond the next window. Returns how
    /// many it took.
    pub fn repeat(&mut self, times: u64) -> u64 {
        match &mut self.windows {
            Windows::Every { blocks, held, .. } => {
                let steady = held.as_ref().is_none_or(Held::steady);
                let taken = blocks.repeat(if steady { times } else { 1 });
                if let Some(held) = held {
                    held.repeat(taken);
                }
                taken
            }
            Windows::Spread(spread) => spread.extend(times),
        }
    }

    /// The next window that is complete; without bars, if they are to be removed.
    pub fn next_window(&mut self) -> Option<Window> {
        match &mut self.windows {
            Windows::Every { blocks, plan, .. } => {
                let start = plan.next(blocks.count)?;
                Some(self.latest(start))
            }
            Windows::Spread(spread) => {
                let periods = spread.window();
                let (start, (frames, grid)) = spread.next_window()?;
                Some(Window { start, periods, whole: true, frames, grid })
            }
        }
    }

    /// The clip that covers the end, if the pictures have `len` periods. Call `next_window` until it returns
    /// `None` first.
    pub fn last_window(&mut self, len: u64) -> Last {
        match &mut self.windows {
            Windows::Every { blocks, plan, held } => match plan.tail(blocks.count) {
                Tail::None => Last::Nothing,
                Tail::Anchored(start) => Last::Anchored(self.latest(start)),
                Tail::Looped(periods) => {
                    let bytes = self.frames * self.spec.frame_bytes();
                    let unbarred = held.as_mut().and_then(|held| held.window(periods as usize));
                    let (frames, grid) = match unbarred {
                        Some((frames, grid)) => (looped(&frames, bytes), grid),
                        None => (blocks.looped(periods), self.grid),
                    };
                    Last::Short(Window { start: 0, periods, whole: false, frames, grid })
                }
            },
            Windows::Spread(spread) => match spread.last_window(len) {
                None => Last::Nothing,
                Some(ShortWindow { start, periods, inputs: (frames, grid), exact }) => {
                    let window = Window { start, periods, whole: false, frames, grid };
                    if exact { Last::Short(window) } else { Last::Inexact(window) }
                }
            },
        }
    }

    /// The window of the latest frames, which begins at period `start`.
    fn latest(&mut self, start: u64) -> Window {
        let (frames, grid) = self.latest_inputs(start);
        Window { start, periods: self.frames as u64, whole: true, frames, grid }
    }

    fn latest_inputs(&mut self, start: u64) -> Inputs {
        let Windows::Every { blocks, held, .. } = &mut self.windows else { return (Arc::from([]), None) };
        let unbarred = held.as_mut().and_then(|held| held.window(self.frames));
        unbarred.unwrap_or_else(|| (blocks.window(start), self.grid))
    }
}
