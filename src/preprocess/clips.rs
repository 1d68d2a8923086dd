//! Cuts frames and samples into clips as they arrive. The rule is in `docs/bundle.md`.

use std::collections::VecDeque;
use std::sync::Arc;

/// Computes where clips of `window` units begin in a stream of unknown length.
///
/// Clip k begins at `round(k * stride)` as long as it is complete. One more clip, anchored at the end, covers
/// the rest after the last one.
#[derive(Debug, Clone)]
pub struct Plan {
    window: u64,
    stride: f64,
    next: u64,
    next_start: u64,
    covered: u64,
}

/// How the end of an asset is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Everything is covered already.
    None,
    /// One more complete clip begins at this unit.
    Anchored(u64),
    /// There are only this many units, which are repeated to fill the window.
    Looped(u64),
}

impl Plan {
    /// Clips of `window` units (not 0), one every `stride` units (at least one).
    #[must_use]
    pub fn new(window: u64, stride: f64) -> Self {
        let stride = if stride.is_finite() { stride.max(1.0) } else { window as f64 };
        Self { window: window.max(1), stride, next: 0, next_start: 0, covered: 0 }
    }

    /// Start of the next clip, once all of it is within `total` units.
    pub fn next(&mut self, total: u64) -> Option<u64> {
        let start = self.next_start;
        if start.saturating_add(self.window) > total {
            return None;
        }
        self.next += 1;
        self.next_start = (self.next as f64 * self.stride).round() as u64;
        self.covered = start + self.window;
        Some(start)
    }

    /// The first unit that a later clip may need, with `total` units so far.
    #[must_use]
    pub fn needed_from(&self, total: u64) -> u64 {
        self.next_start.min(total.saturating_sub(self.window))
    }

    /// How to cover the rest of a stream that ended after `total` units. Call `next` until it returns `None`
    /// first.
    #[must_use]
    pub fn tail(&self, total: u64) -> Tail {
        if total == 0 || self.covered >= total {
            Tail::None
        } else if total < self.window {
            Tail::Looped(total)
        } else {
            Tail::Anchored(total - self.window)
        }
    }
}

/// Resized frames, written in place into blocks of one window. Only the last two blocks are stored.
#[derive(Debug)]
pub struct FrameBlocks {
    frame_bytes: usize,
    window: usize,
    previous: Arc<[u8]>,
    current: Arc<[u8]>,
    /// Number of equal frames at the end.
    run: u64,
    /// A window of these frames, once one was requested.
    still: Option<Arc<[u8]>>,
    /// Number of frames so far.
    pub count: u64,
}

impl FrameBlocks {
    /// For windows of `window` frames of `frame_bytes` each.
    #[must_use]
    pub fn new(window: usize, frame_bytes: usize) -> Self {
        let none: Arc<[u8]> = Arc::from([]);
        let window = window.max(1);
        Self { frame_bytes, window, previous: none.clone(), current: none, run: 0, still: None, count: 0 }
    }

    /// Appends a frame, which `fill` writes in place.
    pub fn push(&mut self, fill: impl FnOnce(&mut [u8])) {
        let slot = (self.count % self.window as u64) as usize;
        if slot == 0 {
            let fresh = filled(self.window * self.frame_bytes, |_| ());
            self.previous = std::mem::replace(&mut self.current, fresh);
        }
        let at = slot * self.frame_bytes;
        // A block is shared only once it is full, so access here is always exclusive.
        if let Some(block) = Arc::get_mut(&mut self.current) {
            fill(&mut block[at..at + self.frame_bytes]);
        }
        let frame = &self.current[at..at + self.frame_bytes];
        let same = match at.checked_sub(self.frame_bytes) {
            Some(before) => self.current[before..at] == *frame,
            None => self.count > 0 && self.previous[(self.window - 1) * self.frame_bytes..] == *frame,
        };
        if same {
            self.run += 1;
        } else {
            (self.run, self.still) = (1, None);
        }
        self.count += 1;
    }

    /// Appends the latest frame again: once, or for a whole window if that changes nothing else. Returns the
    /// number of frames appended, at most `times`.
    pub fn repeat(&mut self, times: u64) -> u64 {
        let window = self.window as u64;
        if self.run >= 2 * window && times >= window {
            // Both blocks contain only this frame, and each slot in them keeps its meaning.
            self.count += window;
            self.run += window;
            return window;
        }
        let slot = (self.count % window) as usize;
        let from = slot.checked_sub(1).unwrap_or(self.window - 1) * self.frame_bytes;
        let latest = self.current[from..from + self.frame_bytes].to_vec();
        self.push(|frame| frame.copy_from_slice(&latest));
        1
    }

    /// The window that begins at frame `start`. It must be within the last two blocks.
    #[must_use]
    pub fn window(&mut self, start: u64) -> Arc<[u8]> {
        if self.run >= self.count - start {
            return self.still();
        }
        self.cut_out(start)
    }

    fn cut_out(&self, start: u64) -> Arc<[u8]> {
        let window = self.window as u64;
        let current_start = (self.count - 1) / window * window;
        if start == current_start && self.count == start + window {
            return self.current.clone();
        }
        if start + window == current_start {
            return self.previous.clone();
        }
        let split = (current_start.saturating_sub(start)) as usize * self.frame_bytes;
        let len = self.window * self.frame_bytes;
        filled(len, |window| {
            window[..split].copy_from_slice(&self.previous[len - split..]);
            window[split..].copy_from_slice(&self.current[..len - split]);
        })
    }

    /// A window of equal frames. Returns the same allocation for as long as they continue.
    fn still(&mut self) -> Arc<[u8]> {
        if let Some(still) = &self.still {
            return still.clone();
        }
        let still = self.cut_out(self.count - self.window as u64);
        self.still = Some(still.clone());
        still
    }

    /// The first `count` frames (fewer than a window) repeated until the window is full.
    #[must_use]
    pub fn looped(&self, count: u64) -> Arc<[u8]> {
        looped(&self.current[..count as usize * self.frame_bytes], self.window * self.frame_bytes)
    }
}

/// Repeats `unit` from its beginning up to `len` values. `unit` must not be empty.
#[must_use]
pub fn looped<T: Copy + Default>(unit: &[T], len: usize) -> Arc<[T]> {
    filled(len, |whole| {
        for part in whole.chunks_mut(unit.len().max(1)) {
            part.copy_from_slice(&unit[..part.len()]);
        }
    })
}

/// A shared slice, filled in a single allocation: collecting into an `Arc` would copy.
#[must_use]
pub fn filled<T: Copy + Default>(len: usize, fill: impl FnOnce(&mut [T])) -> Arc<[T]> {
    let mut slice: Arc<[T]> = std::iter::repeat_n(T::default(), len).collect();
    if let Some(values) = Arc::get_mut(&mut slice) {
        fill(values);
    }
    slice
}

/// The samples that later clips may need.
#[derive(Debug, Default)]
pub struct SampleStore {
    /// Index of the first sample in memory.
    base: u64,
    samples: VecDeque<f32>,
    /// Whether no more samples will arrive.
    pub ended: bool,
}

impl SampleStore {
    /// Appends samples.
    pub fn push(&mut self, samples: &[f32]) {
        self.samples.extend(samples);
    }

    /// Number of samples so far, including dropped ones.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.base + self.samples.len() as u64
    }

    /// Number of samples in memory.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.samples.len()
    }

    /// Drops the samples before `index`.
    pub fn forget_before(&mut self, index: u64) {
        let count = index.saturating_sub(self.base).min(self.samples.len() as u64);
        self.samples.drain(..count as usize);
        self.base += count;
    }

    /// How many of the `len` samples from `start` exist.
    #[must_use]
    pub fn real(&self, start: u64, len: usize) -> usize {
        self.total().saturating_sub(start).min(len as u64) as usize
    }

    /// `len` samples from `start`, with zeros after the end, and the number of real ones.
    #[must_use]
    pub fn slice(&self, start: u64, len: usize) -> (Arc<[f32]>, usize) {
        let from = (start.saturating_sub(self.base)).min(self.samples.len() as u64) as usize;
        let real = (self.samples.len() - from).min(len);
        let (a, b) = self.samples.as_slices();
        let from_a = &a[from.min(a.len())..(from + real).min(a.len())];
        let b_start = from.saturating_sub(a.len());
        let slice = filled(len, |values| {
            values[..from_a.len()].copy_from_slice(from_a);
            values[from_a.len()..real].copy_from_slice(&b[b_start..b_start + real - from_a.len()]);
        });
        (slice, real)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule of `docs/bundle.md`, with the length known in advance.
    fn starts(total: u64, window: u64, stride: f64) -> Vec<u64> {
        let mut starts: Vec<u64> = (0..)
            .map(|k| (f64::from(k) * stride).round() as u64)
            .take_while(|start| start + window <= total)
            .collect();
        let end = starts.last().map_or(0, |start| start + window);
        if total > end && total >= window {
            starts.push(total - window);
        }
        starts
    }

    proptest! {
        #[test]
        fn streaming_equals_the_rule_and_gives_the_right_frames(
            total in 0u64..200, window in 1u64..20, stride in 1.0f64..40.0,
        ) {
            let mut plan = Plan::new(window, stride);
            let mut blocks = FrameBlocks::new(window as usize, 1);
            let mut got = Vec::new();
            let mut take = |blocks: &mut FrameBlocks, start: u64| {
                let frames = blocks.window(start);
                let wanted: Vec<u8> = (start..start + window).map(|i| i as u8).collect();
                got.push(start);
                frames[..] == wanted[..]
            };
            for i in 0..total {
                blocks.push(|frame| frame[0] = i as u8);
                while let Some(start) = plan.next(i + 1) {
                    prop_assert!(take(&mut blocks, start));
                }
                prop_assert!(plan.needed_from(i + 1) + window >= (i + 1).min(window));
            }
            match plan.tail(total) {
                Tail::None => {}
                Tail::Anchored(start) => prop_assert!(take(&mut blocks, start)),
                Tail::Looped(count) => {
                    prop_assert_eq!(count, total);
                    let frames = blocks.looped(count);
                    prop_assert!(frames.iter().enumerate().all(|(i, v)| u64::from(*v) == i as u64 % count));
                }
            }
            prop_assert_eq!(got, starts(total, window, stride));
        }

        #[test]
        fn repeated_frames_are_the_frames_pushed_one_by_one(
            runs in proptest::collection::vec((0u8..3, 1u64..60), 1..12),
            window in 1u64..9, stride in 1.0f64..12.0,
        ) {
            let all: Vec<u8> = runs.iter().flat_map(|(v, n)| std::iter::repeat_n(*v, *n as usize)).collect();
            let mut plan = Plan::new(window, stride);
            let mut blocks = FrameBlocks::new(window as usize, 1);
            let mut got = Vec::new();
            for (value, times) in runs {
                let mut left = times;
                while left > 0 {
                    if left == times {
                        blocks.push(|frame| frame[0] = value);
                        left -= 1;
                    } else {
                        let done = blocks.repeat(left);
                        prop_assert!(done >= 1 && done <= left);
                        left -= done;
                    }
                    while let Some(start) = plan.next(blocks.count) {
                        prop_assert_eq!(&blocks.window(start)[..], &all[start as usize..][..window as usize]);
                        got.push(start);
                    }
                }
            }
            prop_assert_eq!(blocks.count, all.len() as u64);
            if let Tail::Anchored(start) = plan.tail(blocks.count) {
                prop_assert_eq!(&blocks.window(start)[..], &all[start as usize..][..window as usize]);
                got.push(start);
            }
            prop_assert_eq!(got, starts(all.len() as u64, window, stride));
        }

        #[test]
        fn samples_are_where_they_belong(keep in 0u64..500, start in 0u64..700, len in 1usize..300) {
            let mut store = SampleStore::default();
            for i in 0..50u32 {
                let block: Vec<f32> = (0..10).map(|j| (i * 10 + j) as f32).collect();
                store.push(&block);
                store.forget_before(keep.min(u64::from(i) * 10));
            }
            prop_assert_eq!(store.total(), 500);
            let start = start.max(keep);
            let (slice, real) = store.slice(start, len);
            prop_assert_eq!(slice.len(), len);
            prop_assert_eq!(real as u64, 500u64.saturating_sub(start).min(len as u64));
            for (i, value) in slice.iter().enumerate() {
                let wanted = if i < real { start as f32 + i as f32 } else { 0.0 };
                prop_assert_eq!(*value, wanted);
            }
        }
    }

    #[test]
    fn the_rule_on_paper() {
        assert_eq!(starts(100, 32, 32.0), [0, 32, 64, 68]);
        assert_eq!(starts(96, 32, 32.0), [0, 32, 64]);
        assert_eq!(starts(40, 32, 16.0), [0, 8]);
        assert_eq!(starts(31, 32, 32.0), [] as [u64; 0]);
    }
}
