//! Our resize and crop against the obvious alternative, the `image` crate.
//!
//! The two do not compute the same: the reference's rule has no antialias, which `image` always has,
//! so its pixels would not do. `image` has one more way, `thumbnail_exact`, its fastest.
//!
//! Then Pillow's resize, whole frames squashed to a square, against the same filters of `image`, which differ from
//! Pillow's in the last bits.
//!
//! Then the cost per frame of looking for black bars: in a film without any, in a dark one in which only the
//! middle of the frame shows that there are none, and in one with bars.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use image::RgbImage;
use image::imageops::{self, FilterType};
use triptych::preprocess::Preparer;
use triptych::preprocess::bars::Held;
use triptych::preprocess::spec::{PictureSpec, Resample, ResizeRule, Size};

const ROUNDS: usize = 15;
/// Frames of a window.
const WINDOW: usize = 32;

struct Case {
    width: usize,
    height: usize,
    side: usize,
    crop: usize,
}

/// The least disturbed round.
fn best(times: &[Duration]) -> Duration {
    times.iter().min().copied().unwrap_or_default()
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Milliseconds a frame of the least disturbed window: every frame taken, and the window asked for at its end.
fn bars_ms(width: usize, height: usize, side: usize, crop: usize, lit: impl Fn(usize, usize) -> bool) -> f64 {
    let value = |i: usize| if lit(i % width, i / width) { (i * 7 % 200) as u8 + 50 } else { 0 };
    let rgb: Vec<u8> = (0..width * height).flat_map(|i| [value(i); 3]).collect();
    let mut held = Held::new(WINDOW, PictureSpec::mmv(side, crop, true, true));
    let times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            timed(|| {
                (0..WINDOW).for_each(|_| held.push(black_box(&rgb), width, height));
                black_box(held.window(WINDOW));
            })
        })
        .collect();
    best(&times).as_secs_f64() * 1e3 / WINDOW as f64
}

fn bars() {
    println!("\n{:<26} {:>12} {:>12} {:>12}", "bars, ms a frame", "none", "dark", "bars");
    for (width, height, side, crop) in
        [(1920, 1080, 224, 200), (1280, 720, 224, 200), (640, 360, 224, 200), (640, 360, 64, 64)]
    {
        let none = bars_ms(width, height, side, crop, |_, _| true);
        let middle = |at: usize, all: usize| at > all * 2 / 5 && at < all * 3 / 5;
        let dark = bars_ms(width, height, side, crop, |x, y| middle(x, width) && middle(y, height));
        let boxed = bars_ms(width, height, side, crop, |_, y| y > height / 8 && y < height * 7 / 8);
        println!(
            "{:<26} {none:>12.4} {dark:>12.3} {boxed:>12.3}",
            format!("{width}x{height} -> {side}/{crop}")
        );
    }
}

fn pillow() {
    println!("\n{:<26} {:>10} {:>16}", "Pillow's resize", "ours", "image");
    let filters = [
        (Resample::Bilinear, FilterType::Triangle, "bilinear"),
        (Resample::Bicubic, FilterType::CatmullRom, "bicubic"),
        (Resample::Lanczos, FilterType::Lanczos3, "lanczos"),
    ];
    for (width, height, side) in [(1280, 720, 336), (1280, 720, 224), (1080, 1920, 384), (640, 360, 224)] {
        let bytes: Vec<u8> = (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect();
        let Some(picture) = RgbImage::from_raw(width as u32, height as u32, bytes.clone()) else { continue };
        for (resample, theirs, name) in filters {
            let resize = ResizeRule::Exact(Size { height: side, width: side });
            let spec = PictureSpec { resize, resample, crop: None, shown: true, unbarred: false };
            let mut preparer = Preparer::new(&spec, width, height, None);
            let mut out = vec![0; spec.frame_bytes()];
            let (mut ours, mut image) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(timed(|| {
                    black_box(preparer.run(black_box(&bytes), &mut out));
                }));
                image.push(timed(|| {
                    black_box(imageops::resize(&picture, side as u32, side as u32, theirs));
                }));
            }
            let (ours, image) = (best(&ours).as_secs_f64(), best(&image).as_secs_f64());
            let case = format!("{width}x{height} -> {side}, {name}");
            println!("{case:<26} {:>7.3} ms {:>8.3} ms {:>4.1}x", ours * 1e3, image * 1e3, image / ours);
        }
    }
}

fn main() {
    println!("{:<26} {:>10} {:>16} {:>16}", "frame", "ours", "image triangle", "image thumbnail");
    let cases = [
        Case { width: 1920, height: 1080, side: 224, crop: 200 },
        Case { width: 1280, height: 720, side: 224, crop: 200 },
        Case { width: 640, height: 360, side: 224, crop: 200 },
        Case { width: 640, height: 360, side: 64, crop: 64 },
    ];
    for Case { width, height, side, crop } in cases {
        let bytes: Vec<u8> = (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect();
        let Some(picture) = RgbImage::from_raw(width as u32, height as u32, bytes.clone()) else { continue };
        let spec = PictureSpec::mmv(side, crop, true, false);
        let (Size { height: to_height, width: to_width }, _) = spec.sizes(Size { height, width });
        let (x, y) = ((to_width - crop) as u32 / 2, (to_height - crop) as u32 / 2);
        let cut = |small: RgbImage| imageops::crop_imm(&small, x, y, crop as u32, crop as u32).to_image();
        let mut resizer = Preparer::new(&spec, width, height, None);
        let mut out = vec![0; crop * crop * 3];
        let (mut ours, mut triangle, mut thumbnail) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(
                timed(|| {
                    for _ in 0..10 {
                        black_box(resizer.run(black_box(&bytes), &mut out));
                    }
                }) / 10,
            );
            triangle.push(timed(|| {
                let small =
                    imageops::resize(&picture, to_width as u32, to_height as u32, FilterType::Triangle);
                black_box(cut(small));
            }));
            thumbnail.push(timed(|| {
                black_box(cut(imageops::thumbnail(&picture, to_width as u32, to_height as u32)));
            }));
        }
        let (ours, triangle, thumbnail) = (best(&ours), best(&triangle), best(&thumbnail));
        let ratio = |other: Duration| other.as_secs_f64() / ours.as_secs_f64();
        println!(
            "{:<26} {:>7.3} ms {:>8.3} ms {:>4.1}x {:>8.3} ms {:>4.1}x",
            format!("{width}x{height} -> {side}/{crop}"),
            ours.as_secs_f64() * 1e3,
            triangle.as_secs_f64() * 1e3,
            ratio(triangle),
            thumbnail.as_secs_f64() * 1e3,
            ratio(thumbnail),
        );
    }
    pillow();
    bars();
}
