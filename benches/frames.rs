//! Our resize and crop against what one would pick instead: the `image` crate.
//!
//! The two do not compute the same: the reference's rule has no antialias, which `image` always has,
//! so its pixels would not do. `image` has one more way, `thumbnail_exact`, its fastest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use image::RgbImage;
use image::imageops::{self, FilterType};
use triptych::preprocess::frames::{Resizer, resized};

const ROUNDS: usize = 15;

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
        let (to_width, to_height) = resized(width, height, side);
        let (x, y) = ((to_width - crop) as u32 / 2, (to_height - crop) as u32 / 2);
        let cut = |small: RgbImage| imageops::crop_imm(&small, x, y, crop as u32, crop as u32).to_image();
        let mut resizer = Resizer::new(width, height, side, crop);
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
}
