//! Compares the server's reading of a clock with the truth.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use triptych::media::{Decoder, MediaError};
use triptych::preprocess::spec::PictureSpec;
use triptych::preprocess::{AssetSummary, ClipReader, ClipSpec, ClipTensors, thumbnail};
use triptych::types::TimeSpan;

use super::film::{FPS, Truth, number_on, second_heard};

/// How far a picture may be off, seconds: a frame of the film; sampling may show one half a period early.
const FRAME: f64 = 1.0 / FPS as f64 + 1e-3;
/// How far sound may be off, seconds.
const SOUND: f64 = 0.025;
/// Length of the sound looked at, seconds.
const LISTEN: f64 = 0.02;
/// How far a length may be off: codecs pad their last block.
const LENGTH: f64 = 0.15;
const SIDE: usize = 64;

/// Frames per second of clips, and frames of each.
const RATE: f64 = 10.0;
const FRAMES: usize = 8;

/// Windows of 0.8 s at 10 frames a second.
pub fn spec() -> ClipSpec {
    ClipSpec::mmv(RATE, FRAMES, PictureSpec::mmv(SIDE, SIDE, true, false), (48_000, 38_400), 0.8)
}

/// Reads a file, or a span of it.
pub async fn read(
    decoder: &Decoder,
    path: &Path,
    span: Option<(f64, f64)>,
) -> Result<(Vec<ClipTensors>, AssetSummary), MediaError> {
    let span = span.map(|(start, end)| TimeSpan::new(start, end).unwrap());
    let mut reader = ClipReader::open(decoder, path, &spec(), span).await?;
    let mut clips = Vec::new();
    while let Some(clip) = reader.next().await? {
        clips.push(clip);
    }
    Ok((clips, reader.summary()))
}

/// The numbers that clips show, by sampling period.
pub fn numbers(clips: &[ClipTensors]) -> BTreeMap<u64, Option<u32>> {
    let mut numbers = BTreeMap::new();
    for clip in clips {
        let Some(frames) = &clip.frames else { continue };
        let start = (clip.span.start_secs * RATE).round() as u64;
        let end = (clip.span.end_secs * RATE - 1e-6).ceil() as u64;
        for period in start..end.max(start + 1) {
            let at = (period - start) as usize % FRAMES;
            let frame = &frames[at * SIDE * SIDE * 3..][..SIDE * SIDE * 3];
            numbers.insert(period, number_on(frame, SIDE, SIDE));
        }
    }
    numbers
}

/// What is wrong with a file; nothing where all of it is true.
pub async fn faults(decoder: &Decoder, path: &Path, truth: &Truth) -> Vec<String> {
    let (clips, summary) = match read(decoder, path, None).await {
        Ok(read) => read,
        Err(error) => return vec![format!("refused: {} {error}", error.code())],
    };
    let mut faults = Vec::new();
    faults.extend(summary.partial.iter().map(|note| format!("partial: {note}")));
    faults.extend(wrong_length(&clips, &summary, truth));
    let whole = numbers(&clips);
    faults.extend(wrong_pictures(&whole, truth));
    faults.extend(clips.iter().flat_map(|clip| wrong_sound(clip, truth)));
    for span in [(0.5, 1.3), (3.3, 4.9), (7.04, 7.9), (9.5, 11.86), (30.5, 32.9), (58.2, 59.9)] {
        if span.1 < truth.secs() {
            faults.extend(wrong_span(decoder, path, span, (&whole, &clips), truth).await);
        }
    }
    if !truth.pictures.is_empty() {
        for at in [0.0, 0.5, 2.9, 3.31, 6.02, 9.5, 10.9, 11.9, 31.0, 59.0] {
            if at > truth.secs() {
                break;
            }
            faults.extend(wrong_thumbnail(decoder, path, at, truth).await);
        }
    }
    faults
}

fn wrong_length(clips: &[ClipTensors], summary: &AssetSummary, truth: &Truth) -> Vec<String> {
    let mut faults = Vec::new();
    if (summary.duration_secs - truth.secs()).abs() > LENGTH {
        faults.push(format!("lasts {:.3} s, not {:.3}", summary.duration_secs, truth.secs()));
    }
    let end = clips.iter().map(|clip| clip.span.end_secs).fold(0.0, f64::max);
    if end > summary.duration_secs + 1e-6 {
        faults.push(format!("a clip ends at {end:.3} s, behind the end at {:.3}", summary.duration_secs));
    }
    // Up to a sampling period, or a tenth of a window of sound, may be without a clip.
    if end < truth.secs() - LENGTH {
        faults.push(format!("no clip behind {end:.3} s"));
    }
    let mut covered = 0.0;
    for clip in clips {
        if clip.span.start_secs > covered + 1e-6 {
            faults.push(format!("no clip from {covered:.3} to {:.3} s", clip.span.start_secs));
        }
        covered = clip.span.end_secs.max(covered);
    }
    let (seen, heard) = (clips.iter().any(|c| c.frames.is_some()), clips.iter().any(|c| c.pcm.is_some()));
    if (seen, heard) != (!truth.pictures.is_empty(), truth.sound.is_some()) {
        faults.push(format!("pictures: {seen}, sound: {heard}"));
    }
    faults
}

fn wrong_pictures(numbers: &BTreeMap<u64, Option<u32>>, truth: &Truth) -> Vec<String> {
    let mut faults = Vec::new();
    for (period, number) in numbers {
        let at = *period as f64 / RATE;
        let right = number.is_some_and(|number| truth.shows(number, at - FRAME, at + FRAME + 0.01));
        if !right {
            faults.push(format!("at {at:.1} s picture {number:?}"));
        }
    }
    faults
}

fn wrong_sound(clip: &ClipTensors, truth: &Truth) -> Vec<String> {
    let Some((from, to)) = truth.sound else { return Vec::new() };
    let (start, end) = (clip.span.start_secs, clip.span.end_secs);
    let Some(pcm) = &clip.pcm else {
        let heard = end.min(to) - start.max(from);
        let missing = heard > (end - start) / 9.0;
        return if missing { vec![format!("no sound from {start:.2} to {end:.2} s")] } else { Vec::new() };
    };
    let rate = spec().sound.sample_rate_hz;
    let mut faults = Vec::new();
    let mut at = start + LISTEN / 2.0;
    while at + LISTEN / 2.0 <= end.min(start + 0.8) {
        // Only where the truth is the same all around.
        let around = [-SOUND - LISTEN / 2.0, 0.0, SOUND + LISTEN / 2.0].map(|d| truth.sounds(at + d));
        let first = ((at - LISTEN / 2.0 - start) * f64::from(rate)).round() as usize;
        let samples = &pcm[first..first + (LISTEN * f64::from(rate)) as usize];
        let heard = second_heard(samples, rate);
        if around[0] == around[1] && around[1] == around[2] && heard != around[1] {
            faults.push(format!("at {at:.3} s second {heard:?} is heard, not {:?}", around[1]));
        }
        at += LISTEN / 2.0;
    }
    faults
}

async fn wrong_span(
    decoder: &Decoder,
    path: &Path,
    span: (f64, f64),
    (whole, clips): (&BTreeMap<u64, Option<u32>>, &[ClipTensors]),
    truth: &Truth,
) -> Vec<String> {
    let said = |what: String| format!("span {span:?}: {what}");
    let (part, _) = match read(decoder, path, Some(span)).await {
        Ok(read) => read,
        Err(error) => return vec![said(format!("refused: {} {error}", error.code()))],
    };
    let mut faults: Vec<_> = part.iter().flat_map(|clip| wrong_sound(clip, truth)).collect();
    let end = part.last().map_or(0.0, |clip| clip.span.end_secs);
    if end < span.1 - 1e-6 || end > span.1 + 0.1 {
        faults.push(format!("ends at {end:.3} s"));
    }
    for (period, number) in numbers(&part) {
        if whole.get(&period).is_some_and(|wanted| *wanted != number) {
            let wanted = whole.get(&period);
            faults.push(format!("at {} s picture {number:?}, of the whole {wanted:?}", period as f64 / 10.0));
        }
    }
    let shown = numbers(&part);
    let periods = (span.0 * RATE + 1e-6) as u64..(span.1 * RATE - 1e-6).ceil() as u64;
    for period in periods.filter(|period| whole.contains_key(period) && !shown.contains_key(period)) {
        faults.push(format!("at {} s no picture", period as f64 / RATE));
    }
    let sounds = |clips: &[ClipTensors]| {
        clips.iter().any(|c| c.pcm.is_some() && c.span.start_secs < span.1 && c.span.end_secs > span.0)
    };
    if sounds(clips) != sounds(&part) && truth.sounds((span.0 + span.1) / 2.0).is_some() {
        faults.push("no sound".to_owned());
    }
    faults.into_iter().map(said).collect()
}

async fn wrong_thumbnail(decoder: &Decoder, path: &Path, at: f64, truth: &Truth) -> Option<String> {
    let jpeg = match thumbnail(decoder, path, at, 160).await {
        Ok(jpeg) => jpeg,
        Err(error) => return Some(format!("thumbnail at {at} s refused: {} {error}", error.code())),
    };
    let picture = image::load_from_memory(&jpeg).unwrap().into_rgb8();
    let number = number_on(&picture, picture.width() as usize, picture.height() as usize);
    let right = number.is_some_and(|number| truth.shows(number, at - FRAME, at + FRAME));
    (!right).then(|| format!("thumbnail at {at} s shows {number:?}"))
}
