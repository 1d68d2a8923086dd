#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde::Deserialize;

use std::sync::Arc;

use super::*;
use crate::preprocess::picture::Preparer;
use crate::preprocess::spec::{PictureSpec, Resample, ResizeRule, Size};

fn mmv(side: usize, crop: usize) -> PictureSpec {
    PictureSpec::mmv(side, crop, true, true)
}

/// A test clip that the trainer is tested with as well.
#[derive(Deserialize)]
struct Case {
    what: String,
    size: [usize; 2],
    window: usize,
    ramp: usize,
    frames: Vec<Vec<[usize; 7]>>,
    picture: Option<[usize; 4]>,
    tensor: String,
}

impl Case {
    /// Rectangles painted over each other on black. Their colour grows by one step per row and two per
    /// column.
    fn painted(&self) -> Vec<Vec<u8>> {
        let [width, height] = self.size;
        let paint = |rectangles: &Vec<[usize; 7]>| {
            let mut rgb = vec![0; width * height * 3];
            for [left, top, w, h, colour @ ..] in rectangles {
                for (y, x) in (0..*h).flat_map(|y| (0..*w).map(move |x| (y, x))) {
                    let at = ((top + y) * width + left + x) * 3;
                    for (value, channel) in rgb[at..at + 3].iter_mut().zip(colour) {
                        *value = (channel + (y + 2 * x) % 32 * self.ramp) as u8;
                    }
                }
            }
            rgb
        };
        self.frames.iter().map(paint).collect()
    }
}

#[test]
fn the_picture_is_that_of_the_trainer() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/pictures/bars.json")).unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let [width, height] = case.size;
        let frames = case.painted();
        let mut held = Held::new(case.window, mmv(6, 4));
        let mut small = Vec::new();
        for rgb in &frames {
            held.push(rgb, width, height);
            let mut out = vec![0; 48];
            assert!(Preparer::new(&mmv(6, 4), width, height, None).run(rgb, &mut out));
            small.extend(out);
        }
        let lit: Option<Vec<Lit>> = frames.iter().map(|rgb| Lit::of(rgb, width, height)).collect();
        let whole = lit.and_then(|lit| {
            lit.into_iter().reduce(|mut all, next| {
                assert!(all.join(&next));
                all
            })
        });
        let part =
            whole.and_then(|lit| lit.picture()).map(|part| [part.left, part.top, part.width, part.height]);
        assert_eq!(part, case.picture, "{}", case.what);
        let window = held.window(frames.len());
        assert_eq!(window.is_some(), part.is_some(), "{}", case.what);
        let tensor = window.map_or(small, |(window, _)| window.to_vec());
        assert_eq!(hex::encode(tensor), case.tensor, "{}", case.what);
    }
}

/// For each line, the highest number of lit pixels in any frame, counted in full.
fn slow_lines(frames: &[&[u8]], width: usize, lines: usize, at: impl Fn(usize, usize) -> usize) -> Vec<u32> {
    let pixels = frames.first().map_or(0, |rgb| rgb.len() / 3 / lines);
    let lit = |rgb: &[u8], place: usize| rgb[place * 3..place * 3 + 3].iter().any(|value| *value > 16);
    let count = |rgb: &[u8], line| (0..pixels).filter(|i| lit(rgb, at(line, *i))).count() as u32;
    assert!(width > 0);
    (0..lines).map(|line| frames.iter().map(|rgb| count(rgb, line)).max().unwrap_or(0)).collect()
}

/// The rule with all frames available: the picture is cut out of every frame as if it were the whole.
fn slow(frames: &[&[u8]], width: usize, height: usize, spec: &PictureSpec) -> Vec<u8> {
    let rows = slow_lines(frames, width, height, |y, x| y * width + x);
    let columns = slow_lines(frames, width, width, |x, y| y * width + x);
    let ends = |lit: &[u32], pixels: usize| {
        let dark = |count: &u32| *count as usize * 100 <= pixels - pixels % 100;
        lit.first().is_some_and(dark) && lit.last().is_some_and(dark)
    };
    let (across, down) = (ends(&rows, width), ends(&columns, height));
    let lit = Lit { width, height, rows: across.then_some(rows), columns: down.then_some(columns) };
    let part = lit.picture().unwrap_or(Part { left: 0, top: 0, width, height });
    let mut preparer = Preparer::new(spec, part.width, part.height, None);
    let mut out = Vec::new();
    for rgb in frames {
        let line = |y: usize| &rgb[(y * width + part.left) * 3..(y * width + part.left + part.width) * 3];
        let cut: Vec<u8> = (part.top..part.top + part.height).flat_map(line).copied().collect();
        let mut small = vec![0; spec.frame_bytes()];
        assert!(preparer.run(&cut, &mut small));
        out.extend(small);
    }
    out
}

/// A frame with bars of these sizes and noise between them.
fn boxed(width: usize, height: usize, [left, right, top, bottom]: [usize; 4], mut seed: u64) -> Vec<u8> {
    let mut rgb = vec![0; width * height * 3];
    for (place, pixel) in rgb.chunks_exact_mut(3).enumerate() {
        let (x, y) = (place % width, place / width);
        if x >= left && x + right < width && y >= top && y + bottom < height {
            for value in pixel {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *value = (seed >> 57) as u8 + 12;
            }
        }
    }
    rgb
}

/// Any way from a picture to an input: shorter sides below `sides`, and crops by up to `cuts` smaller.
fn any_spec(sides: usize, cuts: usize) -> impl Strategy<Value = PictureSpec> {
    let resample = prop_oneof![
        3 => Just(Resample::Mmv),
        1 => Just(Resample::Bilinear),
        1 => Just(Resample::Bicubic),
        1 => Just(Resample::Lanczos),
        1 => Just(Resample::Nearest),
    ];
    (1..sides, 0..cuts, 0..cuts, 0..4, resample).prop_map(|(side, cut, other, rule, resample)| {
        let less = |cut: usize| side - cut.min(side - 1);
        let (resize, crop) = match rule {
            0 => (ResizeRule::Exact(Size { height: side, width: less(cut) }), None),
            _ => {
                let crop = Size { height: less(cut), width: less(if rule == 1 { other } else { cut }) };
                (ResizeRule::ShorterSide { size: side }, Some(crop))
            }
        };
        PictureSpec { resize, resample, crop, shown: true, unbarred: true }
    })
}

fn bar() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0_usize), 3 => Just(7), 1 => 0_usize..14]
}

fn some_bars() -> impl Strategy<Value = [usize; 4]> {
    (bar(), bar(), 0_usize..2, 0_usize..2).prop_map(|(x, y, dx, dy)| [x, x + dx.min(x), y, y + dy.min(y)])
}

proptest! {
    #[test]
    fn held_frames_give_what_all_frames_at_once_do(
        width in 30_usize..70, height in 30_usize..70, spec in any_spec(24, 12),
        window in 1_usize..6, stride in 1_usize..5,
        runs in proptest::collection::vec((some_bars(), 1_u64..14, 0_u64..4), 1..7),
    ) {
        let mut held = Held::new(window, spec);
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for (bars, times, seed) in runs {
            let rgb = boxed(width, height, bars, seed);
            for time in 0..times {
                if time == 0 { held.push(&rgb, width, height) } else { held.repeat(1) }
                frames.push(rgb.clone());
                let steady = frames.len() >= 2 * window
                    && frames[frames.len() - 2 * window..].iter().all(|frame| *frame == rgb);
                prop_assert!(!held.steady() || steady || Lit::of(&rgb, width, height).is_none());
                if frames.len() < window || !(frames.len() - window).is_multiple_of(stride) {
                    continue;
                }
                let last: Vec<&[u8]> = frames[frames.len() - window..].iter().map(Vec::as_slice).collect();
                let wanted = slow(&last, width, height, &spec);
                match held.window(window) {
                    Some((got, _)) => prop_assert_eq!(&got[..], &wanted[..]),
                    None => {
                        let mut whole = Preparer::new(&spec, width, height, None);
                        for (rgb, wanted) in last.iter().zip(wanted.chunks(spec.frame_bytes())) {
                            let mut out = vec![0; spec.frame_bytes()];
                            prop_assert!(whole.run(rgb, &mut out));
                            prop_assert_eq!(&out[..], wanted);
                        }
                    }
                }
            }
        }
    }

    /// The held area of a frame is enough for every picture that a clip can have.
    #[test]
    fn the_middle_of_a_frame_is_all_that_a_tower_sees(
        width in 1_usize..3000, height in 1_usize..3000, spec in any_spec(300, 100),
        window in 1_usize..1025, bars in (0_usize..1600, 0_usize..1600, -60_isize..60, -60_isize..60),
    ) {
        // Bars as large and as unequal as the rule allows.
        let ends = |lines: usize, low: usize, more: isize| {
            let low = low % (lines * 2 / 5).max(1);
            let most = (lines / 50).max(2) as isize;
            let high = low.saturating_add_signed(more.clamp(-most, most));
            (low, high.min(lines - low - 1))
        };
        let ((left, right), (top, bottom)) = (ends(width, bars.0, bars.2), ends(height, bars.1, bars.3));
        let part = Part { left, top, width: width - left - right, height: height - top - bottom };
        prop_assert!(held::enough(width, height, part, &spec, window));
    }
}

#[test]
fn a_picture_that_stays_is_resized_once() {
    let mut held = Held::new(4, mmv(8, 8));
    held.push(&boxed(60, 60, [0, 0, 9, 9], 1), 60, 60);
    held.repeat(20);
    let (first, again) = (held.window(4).unwrap().0, held.window(4).unwrap().0);
    assert!(Arc::ptr_eq(&first, &again) && held.steady());
    held.push(&boxed(60, 60, [0, 0, 9, 9], 2), 60, 60);
    assert!(!Arc::ptr_eq(&first, &held.window(4).unwrap().0) && !held.steady());
}

#[test]
fn frames_of_another_size_have_no_bars_in_common() {
    let mut held = Held::new(2, mmv(8, 8));
    held.push(&boxed(60, 60, [0, 0, 9, 9], 1), 60, 60);
    held.push(&boxed(50, 60, [0, 0, 9, 9], 1), 50, 60);
    assert!(held.window(2).is_none() && held.window(3).is_none());
    held.push(&boxed(50, 60, [0, 0, 9, 9], 3), 50, 60);
    assert!(held.window(2).is_some());
}
