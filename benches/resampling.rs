//! A minute of sound from 44.1 to 48 kHz: our resampler against linear interpolation (the least one
//! can do) and an ffmpeg process (what one would start instead), with what each gets wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use triptych::preprocess::resample::Resampler;

const SECS: usize = 60;
const ROUNDS: usize = 15;
const TONE_HZ: f64 = 9_000.0;

fn tone(rate: u32) -> Vec<f32> {
    let step = std::f64::consts::TAU * TONE_HZ / f64::from(rate);
    (0..rate as usize * SECS).map(|i| (0.5 * (step * i as f64).sin()) as f32).collect()
}

fn ours(input: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(48_000 * SECS + 8192);
    if let Ok(mut resampler) = Resampler::new(44_100, 48_000) {
        for chunk in input.chunks(16_384) {
            let _ = resampler.push(chunk, &mut out);
        }
        let _ = resampler.finish(&mut out);
    }
    out
}

fn linear(input: &[f32]) -> Vec<f32> {
    let last = input.len() - 1;
    let at = |i: usize| {
        let place = i as f64 * 44_100.0 / 48_000.0;
        let (low, weight) = (place as usize, place.fract() as f32);
        input[low.min(last)] * (1.0 - weight) + input[(low + 1).min(last)] * weight
    };
    (0..48_000 * SECS).map(at).collect()
}

fn with_ffmpeg(ffmpeg: &PathBuf, input: &[f32]) -> Option<Vec<f32>> {
    let bytes: Vec<u8> = input.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let from = "-v error -f f32le -ar 44100 -ac 1 -i pipe:0 -ar 48000 -f f32le pipe:1".split(' ');
    let mut child =
        Command::new(ffmpeg).args(from).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut stdin = child.stdin.take()?;
    let feeder = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().ok()?;
    feeder.join().ok()?.ok()?;
    Some(output.stdout.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// Error against the true tone, dB of its level, away from the ends.
fn error_db(out: &[f32]) -> f64 {
    let truth = tone(48_000);
    let middle = 48_000..truth.len().min(out.len()) - 48_000;
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let wrong = power(&mut middle.clone().map(|i| f64::from(out[i]) - f64::from(truth[i])));
    10.0 * (wrong / power(&mut middle.map(|i| f64::from(truth[i])))).log10()
}

fn main() {
    let input = tone(44_100);
    let native = std::env::var_os("TRIPTYCH_NATIVE_DIR").map_or(".triptych/native".into(), PathBuf::from);
    let ffmpeg = native.join("ffmpeg/ffmpeg");
    let (mut times, mut errors) = ([const { Vec::new() }; 3], [f64::NAN; 3]);
    for _ in 0..ROUNDS {
        for (i, times) in times.iter_mut().enumerate() {
            let begun = Instant::now();
            let out = match i {
                0 => Some(ours(&input)),
                1 => Some(linear(&input)),
                _ => with_ffmpeg(&ffmpeg, &input),
            };
            if let Some(out) = black_box(out) {
                times.push(begun.elapsed());
                errors[i] = error_db(&out);
            }
        }
    }
    // The least disturbed round.
    let best = times.each_ref().map(|times: &Vec<Duration>| times.iter().min().map(Duration::as_secs_f64));
    for (name, (secs, error)) in
        ["rubato Fft (ours)", "linear", "ffmpeg process"].iter().zip(best.iter().zip(errors))
    {
        match (secs, best[0]) {
            (Some(secs), Some(ours)) => println!(
                "{name:<18} {:>8.2} ms for {SECS} s of sound  {:>5.2}x ours  error {error:>7.1} dB",
                secs * 1e3,
                secs / ours
            ),
            _ => println!("{name:<18} not found"),
        }
    }
}
