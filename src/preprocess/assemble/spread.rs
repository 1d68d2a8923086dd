//! Frames spread evenly over the frames of each window. Which they are is known for every whole window; of the
//! last, shorter one only once the film's length is known, so it is decoded for some likely lengths.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ffmpeg::sampling::{MOST_EXTRA, Ratio, Spread};
use crate::media::Film;
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

    /// Number of windows within `len` periods.
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

/// The last, shorter window of a film.
#[derive(Debug)]
pub struct ShortWindow {
    /// Its first period.
    pub start: u64,
    /// Its length in periods.
    pub periods: u64,
    /// The inputs of its frames.
    pub inputs: Inputs,
    /// Whether they are exactly its own. If its length was not expected, they are frames of other windows that were on
    /// the screen shortly before.
    pub exact: bool,
}

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
        // Bars are searched for in the frames of a window, but those of its neighbours are in memory with
        // them.
        let together = plan.frames.saturating_mul(plan.overlap() + MOST_EXTRA as u64);
        let held =
            spec.unbarred.then(|| Held::sparse(usize::try_from(together).unwrap_or(usize::MAX), *spec));
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
        self.hold();
        if let Some(held) = &mut self.held {
            held.push(rgb, width, height);
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
        self.hold();
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

    /// The last, shorter window of a film of `len` periods, if something is left for it.
    pub fn last_window(&mut self, len: u64) -> Option<ShortWindow> {
        let (start, periods) = self.plan.last_window(len)?;
        let last = start + self.plan.pick(self.plan.frames - 1, periods);
        let exact = self.plan.extra.contains(&(start, periods)) && last < self.count;
        Some(ShortWindow { start, periods, inputs: self.inputs(start, periods)?, exact })
    }

    /// Periods of a whole window.
    pub const fn window(&self) -> u64 {
        self.plan.window
    }

    /// First period that a later window may need.
    pub fn needed_from(&self) -> u64 {
        self.plan.start(self.next).min(self.count)
    }

    /// Keeps the frames for bars from the next window on.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::preprocess::spec::{Resample, ResizeRule, Size};

    const SIZE: Size = Size { height: 8, width: 8 };

    fn spec(unbarred: bool) -> PictureSpec {
        let resample = Resample::Bilinear;
        PictureSpec { resize: ResizeRule::Exact(SIZE), resample, crop: None, shown: true, unbarred }
    }

    /// A picture of one colour, in some between bars.
    fn picture(id: usize) -> Vec<u8> {
        let bars = if id.is_multiple_of(3) { 0 } else { 10 };
        let lit = |y: usize| y >= bars && y < 40 - bars;
        (0..40 * 40).flat_map(|i| [if lit(i / 40) { 40 + (id % 200) as u8 } else { 0 }; 3]).collect()
    }

    /// The input of one picture in a window of these.
    fn input(id: usize, window: &[usize], unbarred: bool) -> Vec<u8> {
        let rgb = picture(id);
        let barred = unbarred && window.iter().all(|id| !id.is_multiple_of(3));
        let rows = if barred { &rgb[10 * 40 * 3..30 * 40 * 3] } else { &rgb[..] };
        let mut out = vec![0; 8 * 8 * 3];
        assert!(Preparer::new(&spec(false), 40, rows.len() / 120, None).run(rows, &mut out));
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Frames that last as long as they like give the windows of the rule.
        #[test]
        fn windows_have_the_frames_of_their_periods(
            frames in 1_usize..6, window in 1_u32..30, stride in 1_u32..40,
            lasts in proptest::collection::vec(1_u64..9, 1..14), declared in 0_u32..70, unbarred: bool,
        ) {
            let len: u64 = lasts.iter().sum();
            let film = Film { rate: Ratio::new(10, 1), duration_secs: Some(f64::from(declared) / 10.0) };
            let secs = (f64::from(window) / 10.0, f64::from(stride) / 10.0);
            let plan = plan(frames, secs, film, 0, None);
            let picture_spec = spec(unbarred);
            let mut spread = SpreadFrames::new(plan, &picture_spec);
            let mut preparer = Preparer::new(&picture_spec, 40, 40, None);
            let mut got = Vec::new();
            for (id, lasts) in lasts.iter().enumerate() {
                spread.push(&mut preparer, &picture(id), 40, 40);
                got.extend(std::iter::from_fn(|| spread.next_window()));
                let mut left = lasts - 1;
                while left > 0 {
                    left -= spread.extend(left);
                    got.extend(std::iter::from_fn(|| spread.next_window()));
                }
            }
            let shown: Vec<usize> = (0..lasts.len()).flat_map(|id| vec![id; lasts[id] as usize]).collect();
            let wanted = |start: u64, len: u64| {
                let at = |i| shown[(start + plan.pick(i, len)) as usize];
                let ids: Vec<usize> = (0..frames as u64).map(at).collect();
                ids.iter().flat_map(|id| input(*id, &ids, unbarred)).collect::<Vec<u8>>()
            };
            let starts = (0..).map(|k| k * u64::from(stride)).take_while(|start| start + u64::from(window) <= len);
            let starts: Vec<u64> = starts.collect();
            prop_assert_eq!(got.iter().map(|(start, _)| *start).collect::<Vec<_>>(), starts.clone());
            for (start, (inputs, _)) in &got {
                prop_assert_eq!(&inputs[..], &wanted(*start, u64::from(window))[..]);
            }
            let covered = starts.last().map_or(0, |start| start + u64::from(window));
            let next = starts.len() as u64 * u64::from(stride);
            let last = spread.last_window(len);
            prop_assert_eq!(last.is_some(), covered < len && next < len);
            if let Some(ShortWindow { start, periods, inputs: (inputs, _), exact }) = last {
                prop_assert_eq!((start, start + periods), (next, len));
                // Every frame is there, so the inputs are right even where they were not planned.
                prop_assert_eq!(&inputs[..], &wanted(start, periods)[..]);
                let near = u64::from(declared).saturating_sub(2)..=u64::from(declared);
                prop_assert_eq!(exact, near.contains(&len));
            }
        }
    }
}
