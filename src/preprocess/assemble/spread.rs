//! Frames spread evenly over the frames of each window. Which they are is known for every whole window; of the
//! last, shorter one only once the film's length is known, so it is decoded for some likely lengths.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::media::{Film, MOST_EXTRA, Ratio, Spread};
use crate::preprocess::bars::Held;
use crate::preprocess::clips::filled;
use crate::preprocess::picture::{PatchGrid, Preparer};
use crate::preprocess::spec::PictureSpec;

/// Most seconds, so that no number of periods overflows.
const MOST_SECS: f64 = 1e7;

/// Periods of some seconds, halves up, at least one.
fn periods(secs: f64, rate: Ratio) -> Ratio {
    let micros = (secs.clamp(0.0, MOST_SECS) * 1e6).round() as u128;
    let periods = Ratio::new(micros * u128::from(rate.num), 1_000_000 * u128::from(rate.den));
    if periods.num < periods.den { Ratio::new(1, 1) } else { periods }
}

/// The frames to decode of a film: `frames` of each window. `len` is its length in periods, if it is known;
/// otherwise it is guessed from what the film declares.
pub fn plan(frames: usize, secs: (f64, f64), film: Film, begin: u64, len: Option<u64>) -> Spread {
    let (window_secs, stride_secs) = secs;
    let mut spread = Spread {
        rate: film.rate,
        begin,
        frames: frames.max(1) as u64,
        window: periods(window_secs, film.rate).times(1),
        stride: periods(stride_secs, film.rate),
        extra: [(0, 0); MOST_EXTRA],
    };
    let declared = film.duration_secs.map(|secs| periods(secs, film.rate).times(1));
    let lengths = match (len, declared) {
        (Some(len), _) => len..=len,
        // Other tracks are often a little longer than the pictures.
        (None, Some(declared)) => declared.saturating_sub(2)..=declared,
        (None, None) => return spread,
    };
    let mut last: Vec<_> = lengths.filter_map(|len| spread.last_window(len)).collect();
    last.dedup();
    spread.extra.iter_mut().zip(last).for_each(|(extra, last)| *extra = last);
    spread
}

/// The frames to decode of one window of `len` periods.
pub fn only(plan: Spread, begin: u64, len: u64) -> Spread {
    let mut extra = [(0, 0); MOST_EXTRA];
    let window = plan.window.max(len + 1);
    extra[0] = (0, len);
    Spread { begin, window, extra, ..plan }
}

impl Spread {
    /// The last, shorter window of a film of `len` periods, if something is left for it: its begin and its
    /// length.
    fn last_window(&self, len: u64) -> Option<(u64, u64)> {
        let whole = self.whole_windows(len);
        let covered = whole.checked_sub(1).map_or(0, |k| self.start(k) + self.window);
        let start = self.start(whole);
        (len > covered && len > start).then(|| (start, len - start))
    }

    /// Number of windows that lie within `len` periods.
    fn whole_windows(&self, len: u64) -> u64 {
        let Some(room) = len.checked_sub(self.window) else { return 0 };
        let (num, den) = (u128::from(self.stride.num), u128::from(self.stride.den));
        // The largest k with round(k * num / den) <= room, and one more.
        let k = ((2 * u128::from(room) + 1) * den).div_ceil(2 * num);
        u64::try_from(k).unwrap_or(u64::MAX)
    }
}

/// Inputs of a window's frames, and the patches of each.
pub type Inputs = (Arc<[u8]>, Option<PatchGrid>);

/// Collects the frames of windows.
#[derive(Debug)]
pub struct SpreadFrames {
    plan: Spread,
    runs: VecDeque<Run>,
    /// Inputs of dropped frames, for reuse.
    spare: Vec<Box<[u8]>>,
    frame_bytes: usize,
    grid: Option<PatchGrid>,
    held: Option<Held>,
    /// The latest window that one frame fills, with that frame's id.
    still: Option<(u64, Inputs)>,
    next_id: u64,
    /// The next window.
    next: u64,
    /// Number of periods so far.
    pub count: u64,
}

/// A frame from the end of the one before to its own.
#[derive(Debug)]
struct Run {
    id: u64,
    end: u64,
    input: Box<[u8]>,
}

impl SpreadFrames {
    pub fn new(plan: Spread, spec: &PictureSpec) -> Self {
        // Bars are looked for in the frames of a window, but those of its neighbours are held with them.
        let together = plan.frames.saturating_mul(plan.overlap() + MOST_EXTRA as u64);
        let held = spec.unbarred.then(|| Held::new(usize::try_from(together).unwrap_or(usize::MAX), *spec));
        Self {
            plan,
            runs: VecDeque::new(),
            spare: Vec::new(),
            frame_bytes: spec.frame_bytes(),
            grid: None,
            held,
            still: None,
            next_id: 0,
            next: 0,
            count: 0,
        }
    }

    /// Takes a frame of one period.
    pub fn push(&mut self, preparer: &mut Preparer, rgb: &[u8], width: usize, height: usize) {
        let fresh = || vec![0; self.frame_bytes].into_boxed_slice();
        let mut input = self.spare.pop().unwrap_or_else(fresh);
        preparer.run(rgb, &mut input);
        self.grid = preparer.grid();
        self.count += 1;
        self.runs.push_back(Run { id: self.next_id, end: self.count, input });
        self.next_id += 1;
        if let Some(held) = &mut self.held {
            held.push(rgb, width, height);
            self.hold();
        }
    }

    /// Lets the latest frame last longer, at most until a window is complete. Returns by how much.
    pub fn extend(&mut self, times: u64) -> u64 {
        let until = self.plan.start(self.next) + self.plan.window;
        let taken = times.min(until.saturating_sub(self.count).max(1));
        self.count += taken;
        if let Some(run) = self.runs.back_mut() {
            run.end = self.count;
        }
        if let Some(held) = &mut self.held {
            held.repeat(taken);
        }
        taken
    }

    /// The next whole window, if it is complete: its first period, and its inputs.
    pub fn next_window(&mut self) -> Option<(u64, Inputs)> {
        let start = self.plan.start(self.next);
        if start + self.plan.window > self.count {
            return None;
        }
        let inputs = self.inputs(start, self.plan.window);
        self.next += 1;
        let needed = self.plan.start(self.next);
        while self.runs.len() > 1 && self.runs.front().is_some_and(|run| run.end <= needed) {
            self.spare.extend(self.runs.pop_front().map(|run| run.input));
        }
        self.hold();
        Some((start, inputs?))
    }

    /// The last, shorter window of a film of `len` periods, if something is left for it: its first period, its
    /// length, its inputs, and whether they are exactly its own. If its length was not expected, they are
    /// frames of other windows that were on the screen shortly before.
    pub fn last_window(&mut self, len: u64) -> Option<(u64, u64, Inputs, bool)> {
        let (start, rest) = self.plan.last_window(len)?;
        let last = start + self.plan.pick(self.plan.frames - 1, rest);
        let exact = self.plan.extra.contains(&(start, rest)) && last < self.count;
        Some((start, rest, self.inputs(start, rest)?, exact))
    }

    /// Periods of a whole window.
    pub const fn window(&self) -> u64 {
        self.plan.window
    }

    /// First period that a later window may need.
    pub fn needed_from(&self) -> u64 {
        self.plan.start(self.next).min(self.count)
    }

    fn hold(&mut self) {
        let from = self.plan.start(self.next);
        let periods = self.count.saturating_sub(from).max(1);
        if let Some(held) = &mut self.held {
            held.keep(periods);
        }
    }

    fn inputs(&mut self, start: u64, len: u64) -> Option<Inputs> {
        let Self { plan, runs, .. } = self;
        let picks = |plan: &Spread| (0..plan.frames).map(|i| plan.pick(i, len)).collect::<Vec<_>>();
        let picks = picks(plan);
        let mut chosen = Vec::with_capacity(picks.len());
        let mut at = 0;
        for pick in &picks {
            while at + 1 < runs.len() && runs.get(at)?.end <= start + pick {
                at += 1;
            }
            chosen.push(at);
        }
        let alone = runs.get(*chosen.first()?).map(|run| run.id).filter(|_| chosen.first() == chosen.last());
        if let Some((_, still)) = self.still.as_ref().filter(|(id, _)| alone == Some(*id)) {
            return Some(still.clone());
        }
        let back = self.count - start;
        let unbarred = self.held.as_mut().and_then(|held| held.chosen(back, &picks));
        let inputs = unbarred.unwrap_or_else(|| {
            let bytes = filled(chosen.len() * self.frame_bytes, |window: &mut [u8]| {
                let places = window.chunks_exact_mut(self.frame_bytes.max(1));
                let frames = chosen.iter().filter_map(|at| self.runs.get(*at));
                places.zip(frames).for_each(|(place, run)| place.copy_from_slice(&run.input));
            });
            (bytes, self.grid)
        });
        if let Some(id) = alone {
            self.still = Some((id, inputs.clone()));
        }
        Some(inputs)
    }
}
