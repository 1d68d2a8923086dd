//! Puts sound at its time: ffmpeg logs where each frame of sound begins, and gaps become silence.

use std::collections::VecDeque;

use crate::structure::sound::Examined;

/// Frames that begin this close to the end of the last one follow it without a gap. Timestamps of whole
/// milliseconds are inexact, and those of recorders drift.
const TOLERANCE_SECS: f64 = 0.02;

/// Most frames of sound that are stored before their samples are read: more than the pipe holds.
const MAX_PLACES: usize = 1 << 17;

/// What `asetpts` prints, in samples of the output: `3e15 + first * 2^16 + count`. A `count` of 65535 is
/// followed by a line `5e15 + count`. Without a timestamp it is `4.5e15 + count`, with a `count` of any size.
/// `first` is limited to 7e9, 40 hours at 48 kHz, because larger numbers would be ambiguous. No asset is
/// longer.
pub(super) const EXPRESSION: &str = "print(if(isnan(PTS),4.5e15+S,3e15+clip(PTS,-7e9,7e9)*65536+min(S,65535)),32);\
    if(isnan(PTS)+lt(S,65535),0,print(5e15+S,32));PTS";

const PLACE_BASE: i64 = 3_000_000_000_000_000;
const UNKNOWN_BASE: i64 = 4_500_000_000_000_000;
const COUNT_BASE: i64 = 5_000_000_000_000_000;
/// Marks a frame whose count follows in a line of its own.
const LONG: i64 = 65_535;
/// Lower numbers belong to pictures.
const LEAST: i64 = 2_500_000_000_000_000;

/// Position and length of one frame of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Sample of the asset at which it begins; `None` if that is unknown.
    first: Option<i64>,
    count: u64,
}

#[cfg(test)]
impl Place {
    pub const fn new(first: Option<i64>, count: u64) -> Self {
        Self { first, count }
    }
}

/// The frames of sound that were logged, in order.
#[derive(Debug, Default)]
pub struct Places {
    logged: VecDeque<Place>,
    /// A frame whose count is still to come.
    unfinished: Option<Place>,
}

impl Places {
    /// Takes a number from the log. Returns whether it is about sound.
    pub fn take(&mut self, number: u64) -> bool {
        let Some(number) = i64::try_from(number).ok().filter(|number| *number >= LEAST) else { return false };
        let place = if number >= COUNT_BASE {
            let count = number.abs_diff(COUNT_BASE);
            self.unfinished.take().map(|place| Place { count, ..place })
        } else if number >= UNKNOWN_BASE {
            Some(Place { first: None, count: number.abs_diff(UNKNOWN_BASE) })
        } else {
            let packed = number - PLACE_BASE;
            let place = Place { first: Some(packed >> 16), count: (packed & LONG) as u64 };
            self.unfinished = Some(place).filter(|_| packed & LONG == LONG);
            Some(place).filter(|_| self.unfinished.is_none())
        };
        // Places beyond the bound are dropped; samples without a place are refused.
        if self.logged.len() < MAX_PLACES {
            self.logged.extend(place);
        }
        true
    }

    /// Place of the next samples, if it is known yet.
    pub fn next(&mut self) -> Option<Place> {
        self.logged.pop_front()
    }
}

/// What to do with the next samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Pass on this many.
    Samples(usize),
    /// Drop this many: they are before the beginning, or overlap earlier sound.
    Dropped(usize),
}

/// A hole counts from this long before its position, in seconds: an encoder's delay is cut from the first
/// frame.
const DELAY_SECS: f64 = 0.03;

/// Sound that was left out because it overlaps other sound, in samples. At the join of two recordings, and where
/// clocks drift, a little of it is no loss; a lot of it within seconds means that time stamps are wrong.
#[derive(Debug, Default)]
struct Overlap {
    total: u64,
    /// Recently omitted sound, and the sample up to which it was omitted.
    recent: f64,
    at: u64,
    grave: bool,
}

/// Overlapping sound that is no loss, in seconds, and how much more of it with each second.
const SMALL_OVERLAP_SECS: f64 = 0.25;
const DRIFT: f64 = 0.01;

impl Overlap {
    fn add(&mut self, samples: u64, at: u64, rate_hz: u32) {
        let since = at.saturating_sub(self.at) as f64;
        self.recent = (self.recent - since * DRIFT).max(0.0) + samples as f64;
        self.at = at;
        self.total += samples;
        self.grave |= self.recent > SMALL_OVERLAP_SECS * f64::from(rate_hz);
    }
}

/// How much sound of a file was passed on, and where the last of it ended, in samples after the start of the wanted
/// part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    pub given: u64,
    pub end: i64,
}

/// Position in the stream of samples.
#[derive(Debug, Default)]
pub struct Placer {
    overlap: Overlap,
    /// Where frames are missing, in the file's order: ffmpeg's samples before, samples missing.
    holes: VecDeque<(i64, i64)>,
    /// Number of samples so far, if they determine the time.
    counted: Option<i64>,
    /// Samples to add to ffmpeg's time.
    shift: i64,
    /// Number of samples passed on, including silence.
    given: u64,
    /// Where the latest frame ends.
    end: i64,
    /// Number of samples of the current frame to drop, and to pass on after that.
    drop: u64,
    left: u64,
    begun: bool,
    /// Number of samples that were left out before the beginning.
    early: u64,
}

impl Placer {
    /// For a file of sound; samples before `start_secs` are dropped.
    pub fn new(start_secs: f64, file: &Examined, rate_hz: u32) -> Self {
        let Examined { holes, counted, .. } = file;
        let samples = |secs: f64| (secs * f64::from(rate_hz)).round() as i64;
        let holes = holes.iter().map(|(at, missing)| (samples(at - DELAY_SECS), samples(*missing))).collect();
        let shift = -samples(start_secs);
        Self { holes, counted: counted.then_some(0), shift, end: shift, ..Self::default() }
    }

    /// For a stream that follows others in the same file: it begins where they end.
    pub fn after(before: Placed, counted: bool) -> Self {
        let Placed { given, end } = before;
        Self { counted: counted.then_some(0), shift: end, given, end, begun: given > 0, ..Self::default() }
    }

    /// Where the sound so far ends.
    pub const fn placed(&self) -> Placed {
        Placed { given: self.given, end: self.end }
    }

    /// Number of samples passed on so far, which is the position of the next one.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Number of samples that were left out because they overlap others, if that is more than a trifle.
    pub fn overlapping(&self) -> u64 {
        if self.overlap.grave { self.overlap.total } else { 0 }
    }

    /// Number of samples left out because they are before the beginning.
    pub fn early(&self) -> u64 {
        self.early
    }

    /// Whether the next sample needs a [`Place`] first.
    pub fn needs_place(&self) -> bool {
        self.drop + self.left == 0
    }

    /// Takes the place of the next frame. Returns the number of samples of silence before it.
    pub fn enter(&mut self, place: Place, rate_hz: u32) -> u64 {
        (self.drop, self.left) = (0, place.count);
        let counted = self.counted;
        self.counted = counted.map(|count| count.saturating_add_unsigned(place.count));
        let Some(first) = counted.or(place.first) else {
            self.end = self
                .end
                .max(i64::try_from(self.given).unwrap_or(i64::MAX))
                .saturating_add_unsigned(place.count);
            return 0;
        };
        while let Some((_, missing)) = self.holes.pop_front_if(|(at, _)| *at <= first) {
            self.shift = self.shift.saturating_add(missing);
        }
        let first = first.saturating_add(self.shift);
        self.end = self.end.max(first.saturating_add_unsigned(place.count));
        let off = i128::from(first) - i128::from(self.given);
        let tolerance = if self.begun { (TOLERANCE_SECS * f64::from(rate_hz)) as u128 } else { 0 };
        // Frames before the beginning do not show how exact timestamps are.
        self.begun |= i128::from(first) + i128::from(place.count) > 0;
        if off.unsigned_abs() <= tolerance || place.count == 0 {
            return 0;
        }
        if off > 0 {
            return u64::try_from(off).unwrap_or(u64::MAX);
        }
        self.drop = u64::try_from(off.unsigned_abs()).unwrap_or(u64::MAX).min(place.count);
        if self.given > 0 {
            self.overlap.add(self.drop, self.given, rate_hz);
        } else {
            self.early += self.drop;
        }
        self.left = place.count - self.drop;
        0
    }

    /// What to do with the next of `samples`. Call [`Self::enter`] first if a place is needed.
    pub fn next(&mut self, samples: usize) -> Piece {
        let part = |of: u64| samples.min(usize::try_from(of).unwrap_or(usize::MAX));
        if self.drop > 0 {
            let dropped = part(self.drop);
            self.drop -= dropped as u64;
            return Piece::Dropped(dropped);
        }
        let given = part(self.left);
        self.left -= given as u64;
        self.given += given as u64;
        Piece::Samples(given)
    }

    /// Notes that this many samples of silence were passed on.
    pub fn was_silent(&mut self, samples: u64) {
        self.given += samples;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output for frames whose samples are 1, 2, 3 …; zeros are silence.
    fn placed(places: &[(Option<i64>, u64)], step: usize) -> Vec<u64> {
        let (mut placer, mut out, mut next) = (Placer::default(), Vec::new(), 0u64);
        let total: u64 = places.iter().map(|place| place.1).sum();
        let mut places = places.iter();
        while next < total {
            if placer.needs_place() {
                let (first, count) = places.next().unwrap();
                let silence = placer.enter(Place { first: *first, count: *count }, 1000);
                out.extend(std::iter::repeat_n(0, silence as usize));
                placer.was_silent(silence);
                continue;
            }
            match placer.next(step.min((total - next) as usize)) {
                Piece::Dropped(count) => next += count as u64,
                Piece::Samples(count) => {
                    out.extend(next + 1..=next + count as u64);
                    next += count as u64;
                }
            }
            assert_eq!(placer.given(), out.len() as u64);
        }
        out
    }

    #[test]
    fn sound_is_where_its_time_stamp_says() {
        for step in [1, 7, 1000] {
            let to = |count: u64| (1..=count).collect::<Vec<_>>();
            assert_eq!(placed(&[(Some(0), 50), (Some(50), 50)], step), to(100));
            assert_eq!(placed(&[(Some(3), 2)], step), [0, 0, 0, 1, 2], "the first one exactly");
            assert_eq!(placed(&[(Some(-3), 5)], step), [4, 5], "what is before the beginning is not heard");
            assert_eq!(placed(&[(Some(-9), 5), (Some(-4), 5)], step), [10]);
            assert_eq!(placed(&[(Some(0), 50), (Some(69), 50)], step), to(100), "a wrong time stamp");
            let file = Examined { holes: vec![(0.08, 0.3)], ..Examined::default() };
            let mut placer = Placer::new(0.1, &file, 1000);
            assert_eq!(placer.enter(Place::new(Some(0), 50), 1000), 0);
            assert_eq!(placer.next(step.min(50)), Piece::Dropped(step.min(50)), "before the span");
            assert_eq!(placer.enter(Place::new(Some(50), 50), 1000), 250);
            let gap = placed(&[(Some(0), 50), (Some(80), 50), (None, 20), (Some(150), 1)], step);
            assert_eq!(gap, [to(50), vec![0; 30], (51..=121).collect()].concat());
            let overlap = placed(&[(Some(0), 50), (Some(20), 40), (Some(60), 5)], step);
            assert_eq!(overlap, [to(50), (81..=95).collect()].concat());
        }
    }

    #[test]
    fn sound_that_is_left_out_is_counted_unless_clocks_drift() {
        let lost = |places: &mut dyn Iterator<Item = (i64, u64)>| {
            let mut placer = Placer::default();
            for (first, count) in places {
                let silence = placer.enter(Place::new(Some(first), count), 1000);
                placer.was_silent(silence);
                while !placer.needs_place() {
                    placer.next(usize::MAX);
                }
            }
            placer.overlapping()
        };
        assert_eq!(lost(&mut (0..1000).map(|n| (n * 100, 100))), 0);
        assert_eq!(lost(&mut (0..100_000).map(|n| (n * 100 - n / 10, 100))), 0, "a clock that is 0.1 % slow");
        let joined = (0..100).map(|n| (n * 100, 100)).chain((0..100).map(|n| (9_900 + n * 100, 100)));
        assert_eq!(lost(&mut joined.into_iter()), 0, "a join");
        // Frames of twice the length that their time stamps tell, of which eight share one that is right.
        let squeezed = (0..100).map(|n| (n / 8 * 8 * 46 + n % 8 * 23, 46));
        assert!(lost(&mut squeezed.into_iter()) > 1000);
    }

    #[test]
    fn no_number_of_the_log_is_taken_for_more_than_it_is() {
        let mut places = Places::default();
        assert!(!places.take(1_000_000_000_000_004) && !places.take(u64::MAX));
        assert!(places.take(9_999_999_999_999_999) && places.next().is_none());
        for number in (LEAST as u64..6_000_000_000_000_000).step_by(1_234_567_891) {
            assert!(places.take(number));
            while let Some(place) = places.next() {
                let mut placer = Placer::default();
                placer.enter(place, 48_000);
                assert_eq!(placer.drop + placer.left, place.count);
            }
        }
        // The samples of a long frame may arrive before the line with their number has been read.
        assert!(places.take(PLACE_BASE as u64 + 65_535) && places.next().is_none());
        assert!(places.take(COUNT_BASE as u64 + 70_000));
        assert_eq!(places.next(), Some(Place::new(Some(0), 70_000)));
    }
}
