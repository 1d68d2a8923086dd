#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::*;
use crate::preprocess::Preparer;
use crate::preprocess::spec::{Fit, PictureSpec, ResizeRule};

/// What Pillow and the reference processors make of the pictures of `noise`; see `tests/pictures/pillow.py`.
#[derive(Deserialize)]
struct Known {
    resizes: Vec<([usize; 2], [usize; 2], String, String)>,
    crops: Vec<([usize; 2], usize, [usize; 2], String)>,
    fits: Vec<Fitted>,
    patched: Vec<([usize; 2], [usize; 2], String)>,
}

/// Rule, size of the picture, patch, most patches, multiple, and the size that follows.
type Fitted = (String, [usize; 2], usize, usize, usize, [usize; 2]);

fn known() -> Known {
    serde_json::from_str(include_str!("../../../tests/pictures/pillow.json")).unwrap()
}

fn noise(len: usize) -> Vec<u8> {
    let byte = |i: usize| {
        let x = (i as u32).wrapping_mul(2_654_435_761);
        ((x ^ x >> 15).wrapping_mul(2_246_822_519) >> 24) as u8
    };
    (0..len).map(byte).collect()
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))[..16].to_owned()
}

fn resample(name: &str) -> Resample {
    match name {
        "nearest" => Resample::Nearest,
        "bilinear" => Resample::Bilinear,
        "bicubic" => Resample::Bicubic,
        "lanczos" => Resample::Lanczos,
        other => panic!("{other}"),
    }
}

const fn size([height, width]: [usize; 2]) -> Size {
    Size { height, width }
}

fn plain(resize: ResizeRule, resample: Resample, crop: Option<Size>) -> PictureSpec {
    PictureSpec { resize, resample, crop, shown: true, unbarred: false }
}

fn prepared(spec: &PictureSpec, [height, width]: [usize; 2]) -> Vec<u8> {
    let mut out = vec![1; spec.frame_bytes()];
    assert!(Preparer::new(spec, width, height, None).run(&noise(height * width * 3), &mut out));
    out
}

#[test]
fn resizes_equal_pillow_byte_for_byte() {
    let known = known().resizes;
    assert!(known.len() > 300);
    for (from, to, name, wanted) in known {
        let spec = plain(ResizeRule::Exact(size(to)), resample(&name), None);
        assert_eq!(digest(&prepared(&spec, from)), wanted, "{from:?} -> {to:?} {name}");
    }
}

#[test]
fn crops_equal_the_reference_with_and_without_padding() {
    let known = known().crops;
    assert!(known.len() > 100);
    for (from, side, crop, wanted) in known {
        let spec = plain(ResizeRule::ShorterSide { size: side }, Resample::Bicubic, Some(size(crop)));
        assert_eq!(digest(&prepared(&spec, from)), wanted, "{from:?} -> {side}, {crop:?}");
    }
}

#[test]
fn sizes_for_patches_equal_the_reference() {
    let known = known().fits;
    assert!(known.len() > 1500);
    for (fit, from, patch, max_patches, multiple, wanted) in known {
        let fit = if fit == "gemma" { Fit::Gemma } else { Fit::Siglip2 };
        let rule = ResizeRule::Patches { patch, max_patches, multiple, fit };
        let (to, kept) = plain(rule, Resample::Bilinear, None).sizes(size(from));
        assert_eq!(([to.height, to.width], kept), (wanted, to), "{from:?} {rule:?}");
    }
}

#[test]
fn patches_are_in_the_order_of_the_reference() {
    for (from, [rows, columns], wanted) in known().patched {
        let rule = ResizeRule::Patches { patch: 16, max_patches: 60, multiple: 16, fit: Fit::Siglip2 };
        let spec = plain(rule, Resample::Bilinear, None);
        let grid = Preparer::new(&spec, from[1], from[0], None).grid().unwrap();
        assert_eq!((grid.rows, grid.columns), (rows, columns), "{from:?}");
        assert_eq!(digest(&prepared(&spec, from)), wanted, "{from:?}");
    }
}

/// Pillow's rule over the whole frame with all rows held, each output pixel by itself; then the crop.
fn slow(rgb: &[u8], from: Size, to: Size, kept: Size, resample: Resample) -> Vec<u8> {
    let weights = |from: usize, to: usize, i: usize| -> Vec<(usize, i64)> {
        let Some((support, filter)) = filter_of(resample) else {
            // Places are added up, so this differs from the plain product where that is close to a pixel.
            let place =
                (0..i).fold(from as f64 / to as f64 * 0.5, |place, _| place + from as f64 / to as f64);
            return vec![((place as usize).min(from - 1), 1 << 22)];
        };
        let scale = from as f64 / to as f64;
        let (center, reach) = ((i as f64 + 0.5) * scale, support * scale.max(1.0));
        let inside = |x: &usize| {
            let (low, high) = ((center - reach + 0.5).trunc(), (center + reach + 0.5).trunc());
            *x as f64 >= low && (*x as f64) < high
        };
        let all: Vec<usize> = (0..from).filter(inside).collect();
        let weight = |x: &usize| filter((*x as f64 - center + 0.5) * (1.0 / scale.max(1.0)));
        let sum: f64 = all.iter().map(weight).sum();
        let fixed = |x: &usize| (weight(x) / sum * f64::from(1 << 22)).round() as i64;
        all.iter().map(|x| (*x, fixed(x))).collect()
    };
    let sum = |taps: &[(usize, i64)], at: &dyn Fn(usize) -> u8| {
        let sum: i64 = taps.iter().map(|(x, weight)| i64::from(at(*x)) * weight).sum();
        ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
    };
    let columns: Vec<_> = (0..to.width).map(|x| weights(from.width, to.width, x)).collect();
    let rows: Vec<_> = (0..to.height).map(|y| weights(from.height, to.height, y)).collect();
    let along_x = |rgb: &[u8], width: usize, height: usize| -> Vec<u8> {
        let value = |i: usize| {
            let (y, x, c) = (i / 3 / to.width, i / 3 % to.width, i % 3);
            sum(&columns[x], &|x| rgb[(y * width + x) * 3 + c])
        };
        (0..to.width * height * 3).map(value).collect()
    };
    let along_y = |rgb: &[u8], width: usize| -> Vec<u8> {
        let value = |i: usize| sum(&rows[i / 3 / width], &|y| rgb[y * width * 3 + i % (width * 3)]);
        (0..width * to.height * 3).map(value).collect()
    };
    let whole = if to.height < from.height && from.height + 2 * to.width > to.height + 2 * from.width {
        along_x(&along_y(rgb, from.width), from.width, to.height)
    } else {
        along_y(&along_x(rgb, from.width, from.height), to.width)
    };
    let first = |to: usize, kept: usize| (to as isize - kept as isize).div_euclid(2);
    let (top, left) = (first(to.height, kept.height), first(to.width, kept.width));
    let mut out = Vec::new();
    for y in (0..kept.height).map(|y| y as isize + top) {
        for x in (0..kept.width).map(|x| x as isize + left) {
            let outside = x < 0 || y < 0 || x >= to.width as isize || y >= to.height as isize;
            let at = if outside { None } else { Some((y as usize * to.width + x as usize) * 3) };
            out.extend((0..3).map(|c| at.map_or(0, |at| whole[at + c])));
        }
    }
    out
}

fn any_size(most: usize) -> impl Strategy<Value = Size> {
    (1..most, 1..most).prop_map(|(height, width)| Size { height, width })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn fast_equals_slow(
        from in any_size(70), to in any_size(50), kept in any_size(60),
        resample in prop_oneof![
            Just(Resample::Nearest), Just(Resample::Bilinear), Just(Resample::Bicubic), Just(Resample::Lanczos)
        ],
    ) {
        let rgb = noise(from.height * from.width * 3);
        let mut out = vec![1; kept.height * kept.width * 3];
        let mut resampler = Resampler::new(from.width, from.height, to, kept, resample);
        let wanted = slow(&rgb, from, to, kept, resample);
        // Twice: nothing stays from the frame before.
        for _ in 0..2 {
            prop_assert!(resampler.run(&rgb, &mut out));
            prop_assert_eq!(&out, &wanted);
        }
        prop_assert!(!resampler.run(&rgb[3..], &mut out) && !resampler.run(&rgb, &mut out[3..]));
    }
}
