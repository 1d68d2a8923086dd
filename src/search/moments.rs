//! Groups the scored windows of one asset into moments: where a scene begins, ends and matches best.
//!
//! A window that lies half in a scene scores about half-way between a window inside it and one outside. So a
//! moment ends where the scores have fallen half the way from its peak to the level beyond, and a window
//! stands for the time around its middle rather than for all that it covers. The fall of the scores at an end
//! also tells how much of each window lies in the scene, so that an end can lie within a window.

use std::collections::HashMap;

use crate::types::{ClipId, TimeSpan};

/// Share of the way from the usual score to the peak that a window must reach to belong to the peak's moment.
const BELONGS: f32 = 0.8;
/// Share of a window that may overlap a better moment. With more, the window starts no moment of its own.
const MAY_OVERLAP: f64 = 0.3;
/// How far beyond the last window of a moment the level outside is measured, in windows. A scene can end
/// within the next window, and then only the one after it is outside.
const OUTSIDE_WITHIN: f64 = 2.0;
/// How far a moment may extend beyond the time of its windows on each side, as a share of that time. A window
/// that scores half as high can lie half in the scene, or wholly in another scene that is half similar. With
/// a fifth, a moment overlaps its scene by more than 0.7 in both cases.
const MAY_GROW: f64 = 0.2;
/// Largest gap between windows that count as touching, in seconds.
const TOUCHING_SECS: f64 = 0.05;

/// One scored window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Clip that the window belongs to.
    pub clip: ClipId,
    /// Time span within the asset.
    pub span: TimeSpan,
    /// Score of the clip.
    pub score: f32,
}

impl Window {
    const fn middle(&self) -> f64 {
        f64::midpoint(self.span.start_secs, self.span.end_secs)
    }
}

/// A stretch of an asset that matches a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Time span within the asset.
    pub span: TimeSpan,
    /// The window with the best score.
    pub peak: Window,
}

/// The moments of an asset, best first. Every window either belongs to a moment or overlaps one too much.
/// `usual` is the score of unrelated windows.
#[must_use]
pub fn moments(windows: Vec<Window>, usual: f32) -> Vec<Moment> {
    let long: HashMap<ClipId, TimeSpan> = windows.iter().map(|window| (window.clip, window.span)).collect();
    let mut found = moments_of_pieces(in_pieces(windows), usual);
    for moment in &mut found {
        moment.peak.span = long.get(&moment.peak.clip).copied().unwrap_or(moment.peak.span);
    }
    found
}

/// Splits a clip that stands for many equal windows into its first window, its last one and the stretch
/// between, so that it is as long as its neighbours where it meets them.
fn in_pieces(windows: Vec<Window>) -> Vec<Window> {
    let length = windows.iter().map(|window| window.span.duration_secs()).fold(f64::INFINITY, f64::min);
    let cut = |window: Window| {
        let TimeSpan { start_secs: start, end_secs: end } = window.span;
        let lengths = window.span.duration_secs() / length + 1e-6;
        let marks = match lengths {
            2.0..3.0 => vec![start, f64::midpoint(start, end), end],
            3.0.. => vec![start, start + length, end - length, end],
            _ => vec![start, end],
        };
        let ends = marks.clone().into_iter().skip(1);
        let piece =
            move |(start_secs, end_secs)| Window { span: TimeSpan { start_secs, end_secs }, ..window };
        marks.into_iter().zip(ends).map(piece)
    };
    windows.into_iter().flat_map(cut).collect()
}

fn moments_of_pieces(mut windows: Vec<Window>, usual: f32) -> Vec<Moment> {
    windows.sort_by(|a, b| a.span.start_secs.total_cmp(&b.span.start_secs).then(a.clip.cmp(&b.clip)));
    let mut order: Vec<usize> = (0..windows.len()).collect();
    order.sort_by(|a, b| windows[*b].score.total_cmp(&windows[*a].score).then(a.cmp(b)));
    let mut taken = vec![false; windows.len()];
    let mut found: Vec<Moment> = Vec::new();
    for peak in order {
        if taken[peak] || found.iter().any(|moment| in_the_way(&windows[peak], moment.span)) {
            continue;
        }
        let first = reach(&windows, &taken, peak, usual, -1);
        let last = reach(&windows, &taken, peak, usual, 1);
        let whole = stands_until(&windows, last, 1) - stands_until(&windows, first, -1);
        let start = edge(&windows, &taken, (peak, first), whole, -1);
        let end = edge(&windows, &taken, (peak, last), whole, 1);
        taken[first..=last].iter_mut().for_each(|taken| *taken = true);
        let middle = windows[peak].middle();
        let (start, end) = beside(&found, middle, start, end);
        let span = TimeSpan::new(in_micros(start).min(middle), in_micros(end).max(middle));
        let span = span.unwrap_or(windows[peak].span);
        found.push(Moment { span, peak: windows[peak] });
    }
    found
}

/// Rounds to microseconds: sums of lengths like 0.1 would be shown as 8.959999999999999.
fn in_micros(secs: f64) -> f64 {
    (secs * 1e6).round() / 1e6
}

/// Cuts a span around `middle` to what better moments leave free.
fn beside(found: &[Moment], middle: f64, mut start: f64, mut end: f64) -> (f64, f64) {
    for better in found.iter().map(|moment| moment.span) {
        if better.end_secs <= middle {
            start = start.max(better.end_secs);
        } else if better.start_secs >= middle {
            end = end.min(better.start_secs);
        }
    }
    (start, end)
}

fn in_the_way(window: &Window, span: TimeSpan) -> bool {
    let common = window.span.end_secs.min(span.end_secs) - window.span.start_secs.max(span.start_secs);
    common > MAY_OVERLAP * window.span.duration_secs()
}

/// The window one `step` further, if it touches this one and is not taken.
fn next(windows: &[Window], taken: &[bool], at: usize, step: isize) -> Option<usize> {
    let other = at.checked_add_signed(step).filter(|other| *other < windows.len())?;
    touch(&windows[at.min(other)], &windows[at.max(other)]).then_some(other).filter(|other| !taken[*other])
}

fn touch(earlier: &Window, later: &Window) -> bool {
    later.span.start_secs <= earlier.span.end_secs + TOUCHING_SECS
}

/// The last window on one side of a peak that belongs to the peak's moment.
fn reach(windows: &[Window], taken: &[bool], peak: usize, usual: f32, step: isize) -> usize {
    let top = windows[peak].score;
    let belongs = usual.min(top) + BELONGS * (top - usual).max(0.0);
    let mut at = peak;
    while let Some(other) = next(windows, taken, at, step).filter(|other| windows[*other].score >= belongs) {
        at = other;
    }
    // Find the lowest score within one window's length beyond.
    let mut valley = f32::INFINITY;
    let mut beyond = at;
    while let Some(other) = next(windows, taken, beyond, step) {
        let away = (windows[other].middle() - windows[at].middle()).abs();
        if away > windows[at].span.duration_secs() + TOUCHING_SECS {
            break;
        }
        valley = valley.min(windows[other].score);
        beyond = other;
    }
    let half = f32::midpoint(top, valley);
    while let Some(other) = next(windows, taken, at, step).filter(|other| windows[*other].score >= half) {
        at = other;
    }
    at
}

/// The end of a moment on one side, where `at` is its last window. Each window from `at` on adds the share of
/// its time that its score places in the scene. `whole` is the time that the moment's windows stand for.
fn edge(windows: &[Window], taken: &[bool], (peak, at): (usize, usize), whole: f64, step: isize) -> f64 {
    let window = &windows[at];
    let away = |other: usize| (windows[other].middle() - window.middle()).abs();
    let length = window.span.duration_secs();
    let beyond: Vec<usize> = std::iter::successors(Some(at), |at| next(windows, taken, *at, step))
        .skip(1)
        .take_while(|other| away(*other) <= OUTSIDE_WITHIN * length + TOUCHING_SECS)
        .collect();
    let outside = beyond.iter().map(|other| windows[*other].score).fold(f32::INFINITY, f32::min);
    let before = if at == peak { at } else { at.saturating_add_signed(-step) };
    let inside = windows[before].score.max(window.score);
    // The side of the window towards the peak, from which time is counted, and the side away from it.
    let (near, far) = (stands_until(windows, at, -step), stands_until(windows, at, step));
    if inside <= outside {
        return far;
    }
    let mut least = 1.0_f32;
    let mut secs = 0.0;
    for other in std::iter::once(at).chain(beyond).take_while(|other| away(*other) <= length + TOUCHING_SECS)
    {
        // A window further out lies in the scene no more than the one before it.
        least = least.min(((windows[other].score - outside) / (inside - outside)).clamp(0.0, 1.0));
        let stands_for = stands_until(windows, other, 1) - stands_until(windows, other, -1);
        secs += f64::from(least) * stands_for;
    }
    let secs = secs.min((far - near).abs() + MAY_GROW * whole);
    let middle = windows[peak].middle();
    if step < 0 { (near - secs).min(middle) } else { (near + secs).max(middle) }
}

/// Where the time that a window stands for ends on one side: half-way to the middle of the next window, or at
/// the window's own end if none follows.
fn stands_until(windows: &[Window], at: usize, step: isize) -> f64 {
    let window = &windows[at];
    let other = at.checked_add_signed(step).and_then(|other| windows.get(other));
    let touching = other.filter(|other| if step < 0 { touch(other, window) } else { touch(window, other) });
    match touching {
        Some(other) => f64::midpoint(window.middle(), other.middle()),
        None if step < 0 => window.span.start_secs,
        None => window.span.end_secs,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clip_of_many_windows_meets_its_neighbours_where_it_ends() {
        let window = |start: f64, end: f64, score| Window {
            clip: ClipId((start * 10.0) as i64),
            span: TimeSpan::new(start, end).unwrap(),
            score,
        };
        let windows = vec![
            window(0.0, 3.2, 0.1),
            window(3.2, 6.4, 0.1),
            window(6.4, 326.4, 0.9),
            window(326.4, 329.6, 0.1),
            window(329.6, 332.8, 0.1),
        ];
        let best = moments(windows.clone(), 0.1)[0];
        assert_eq!((best.span.start_secs, best.span.end_secs), (6.4, 326.4));
        assert_eq!(best.peak, windows[2]);
        // A short clip beside it keeps its own length.
        let other = vec![window(0.0, 3.2, 0.1), window(3.2, 6.4, 0.9), window(6.4, 326.4, 0.1)];
        let best = moments(other.clone(), 0.1)[0];
        assert_eq!((best.span.start_secs, best.span.end_secs), (3.2, 6.4));
        assert_eq!(best.peak, other[1]);
    }

    /// Windows over scenes (start, end, score): a window scores the sum of the scenes in it, weighted by
    /// their shares.
    fn watch(scenes: &[(f64, f64, f32)], window: f64, stride: f64) -> Vec<Window> {
        let end = scenes.iter().map(|(_, end, _)| *end).fold(0.0, f64::max);
        let count = ((end - window) / stride).ceil().max(0.0) as usize + 1;
        let scored = |n: usize| {
            let span = TimeSpan::new(n as f64 * stride, n as f64 * stride + window).unwrap();
            let share = |(from, to, value): &(f64, f64, f32)| {
                let common = (to.min(span.end_secs) - from.max(span.start_secs)).max(0.0);
                (common / window) as f32 * value
            };
            Window { clip: ClipId(n as i64), span, score: scenes.iter().map(share).sum() }
        };
        (0..count).map(scored).collect()
    }

    fn spans(windows: Vec<Window>) -> Vec<(f64, f64)> {
        let tenth = |secs: f64| (secs * 10.0).round() / 10.0;
        let found = moments(windows, 0.1);
        found.iter().map(|m| (tenth(m.span.start_secs), tenth(m.span.end_secs))).collect()
    }

    #[test]
    fn windows_side_by_side_become_one_moment_or_several() {
        let scenes = [(0.0, 3.2, 0.1), (3.2, 9.6, 0.8), (9.6, 12.8, 0.2), (12.8, 16.0, 0.75)];
        assert_eq!(spans(watch(&scenes, 3.2, 3.2)), [(3.2, 9.6), (12.8, 16.0), (9.6, 12.8), (0.0, 3.2)]);
        // Scenes that are only similar to the best one do not belong to it.
        let alike = [(0.0, 3.2, 0.5), (3.2, 6.4, 0.8), (6.4, 9.6, 0.55)];
        assert_eq!(spans(watch(&alike, 3.2, 3.2)), [(3.2, 6.4), (6.4, 9.6), (0.0, 3.2)]);
    }

    #[test]
    fn overlapping_windows_become_one_moment_of_the_right_length() {
        let scenes =
            [(0.0, 6.4, 0.1), (6.4, 9.6, 0.8), (9.6, 16.0, 0.1), (16.0, 22.4, 0.7), (22.4, 28.0, 0.1)];
        let found = spans(watch(&scenes, 3.2, 0.8));
        let close = |(a, b): (f64, f64), (x, y): (f64, f64)| (a - x).abs() <= 0.41 && (b - y).abs() <= 0.41;
        assert!(close(found[0], (6.4, 9.6)), "{found:?}");
        assert!(close(found[1], (16.0, 22.4)), "{found:?}");
    }

    #[test]
    fn a_scene_may_begin_and_end_within_a_window() {
        let scenes = [(0.0, 5.9, 0.1), (5.9, 13.3, 0.8), (13.3, 19.2, 0.1)];
        for stride in [3.2, 1.6, 0.8] {
            let (start, end) = spans(watch(&scenes, 3.2, stride))[0];
            let near = |found: f64, true_secs: f64| (found - true_secs).abs() <= 0.25;
            assert!(near(start, 5.9) && near(end, 13.3), "stride {stride}: {start} to {end}");
        }
    }

    #[test]
    fn no_moment_shows_how_floats_add_up() {
        let scenes = [(0.0, 8.96, 0.1), (8.96, 13.44, 0.8), (13.44, 30.0, 0.1)];
        for stride in [0.7, 1.1, 1.6, 3.2] {
            for moment in moments(watch(&scenes, 3.2, stride), 0.1) {
                for secs in [moment.span.start_secs, moment.span.end_secs] {
                    let shown = secs.to_string();
                    let decimals = shown.split_once('.').map_or(0, |(_, decimals)| decimals.len());
                    assert!(decimals <= 6, "{shown}");
                }
            }
        }
    }

    #[test]
    fn windows_that_do_not_touch_are_apart() {
        let mut windows = watch(&[(0.0, 16.0, 0.8)], 3.2, 3.2);
        windows.remove(2);
        assert_eq!(spans(windows), [(0.0, 6.4), (9.6, 16.0)]);
        assert!(moments(Vec::new(), 0.0).is_empty());
    }

    proptest! {
        #[test]
        fn moments_are_ordered_and_hardly_overlap(
            scores in prop::collection::vec(-1.0_f32..1.0, 1..60),
            usual in -0.5_f32..0.5,
            stride in prop::sample::select(vec![0.8, 1.6, 3.2, 5.0]),
        ) {
            let windows: Vec<Window> = scores.iter().enumerate().map(|(n, score)| {
                let start = n as f64 * stride;
                Window { clip: ClipId(n as i64), span: TimeSpan::new(start, start + 3.2).unwrap(), score: *score }
            }).collect();
            let found = moments(windows.clone(), usual);
            prop_assert!(found.is_sorted_by(|a, b| a.peak.score >= b.peak.score));
            let best = windows.iter().map(|w| w.score).fold(f32::MIN, f32::max);
            prop_assert_eq!(found[0].peak.score, best);
            for (n, a) in found.iter().enumerate() {
                prop_assert!(a.span.start_secs <= a.peak.middle() && a.peak.middle() <= a.span.end_secs);
                for b in &found[..n] {
                    let common = a.span.end_secs.min(b.span.end_secs) - a.span.start_secs.max(b.span.start_secs);
                    prop_assert!(common <= stride.max(3.2) * 0.5 + 1e-9, "{:?} {:?}", a, b);
                }
            }
        }
    }
}
