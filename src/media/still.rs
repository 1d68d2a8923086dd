//! Quick tasks on a file: probe it, or take one picture of it.

use std::fs::File;
use std::time::{Duration, Instant};

use super::attempt::with_bounds;
use super::decode::{Budget, caps, request, survey};
use super::pool::Seat;
use super::process::Worker;
use super::stream::{Caps, Ended, Sought, collect};
use super::{Decoder, Limits, MediaError};
use crate::decode_child::protocol::{Engine, Streams, Task};
use crate::ffmpeg::filters::Shape;
use crate::ffmpeg::picks::Picks;
use crate::ffmpeg::sampling::Ratio;
use crate::ffmpeg::timing::places_to_seek;
use crate::types::{AssetKind, TrackChoice};

/// What a file declares about itself, before anything is decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Kind of the file.
    pub kind: AssetKind,
    /// Declared length in seconds, if the container has one.
    pub duration_secs: Option<f64>,
    /// Width as coded, in pixels; 0 without a picture.
    pub width: u32,
    /// Height as coded, in pixels; 0 without a picture.
    pub height: u32,
    /// Whether it has a picture track; cover art does not count.
    pub has_video: bool,
    /// Whether it has a sound track.
    pub has_audio: bool,
}

/// Most seconds for a quick task, which must not take as long as a whole decode.
const QUICK_SECS: u64 = 60;

fn quick(limits: &Limits) -> Limits {
    Limits { wall_clock_secs: limits.wall_clock_secs.min(QUICK_SECS), ..limits.clone() }
}

/// Runs one task whose output is at most one picture.
fn run(
    decoder: &Decoder,
    seat: &Seat,
    media: &File,
    limits: &Limits,
    task: Task,
    tracks: &mut Tracks,
    sought: Option<Sought>,
) -> Result<(Vec<u8>, Ended), MediaError> {
    let budget = Budget::of(limits, media)?;
    let choice = tracks.choice;
    let mut spent = tracks.cpu;
    let once = |picks: Option<Picks>, shape: Shape, spent: &mut Duration| {
        with_bounds(decoder, shape, |bounds| {
            let left = budget.without(*spent);
            let (worker, began) = (
                Worker::start(&decoder.config, media, &request(decoder, task, bounds, left))?,
                Instant::now(),
            );
            let shape = bounds.shape;
            let quick = limits.wall_clock_secs < decoder.config.limits.wall_clock_secs;
            let caps = caps(limits, Streams::Both, left);
            let done = collect(worker, seat, Caps { sought, shape, choice, picks, quick, ..caps });
            // Of a run that failed, only its length is known.
            *spent += done.as_ref().map_or_else(|_| began.elapsed(), |(_, ended)| ended.exit.cpu);
            done
        })
    };
    let outcome = once(tracks.picks, Shape::default(), &mut spent);
    tracks.cpu = spent;
    let mut done = outcome?;
    if let Some(masks) = done.1.wants_survey {
        let (picks, cpu) = survey(decoder, seat, media, budget.without(spent), (choice, masks))?;
        spent += cpu;
        tracks.picks = Some(picks);
        done.1.picks = tracks.picks;
        let shape = done.1.shape(true);
        let outcome = once(tracks.picks, shape, &mut spent);
        tracks.cpu = spent;
        done = outcome?;
    }
    if done.1.misplaced.is_none() {
        done.1.check(decoder, budget)?;
    }
    Ok(done)
}

/// The file tracks that the client chose, those selected for reading, and the CPU time used so far.
#[derive(Default)]
struct Tracks {
    choice: TrackChoice,
    picks: Option<Picks>,
    cpu: Duration,
}

/// Reads what a file declares about itself. Blocks.
///
/// # Errors
/// [`MediaError`] if the file is refused.
pub fn probe(decoder: &Decoder, seat: &Seat, media: &File) -> Result<Probe, MediaError> {
    let limits = quick(&decoder.config.limits);
    let (_, ended) = run(decoder, seat, media, &limits, Task::Probe, &mut Tracks::default(), None)?;
    let info = ended.describe().ok_or_else(|| MediaError::Worker(ended.last_words()))?;
    let ffmpeg = ended.started.as_ref().is_some_and(|started| started.engine == Engine::Ffmpeg);
    if ffmpeg && !ended.log.opened {
        return Err(ended.complaint(&limits));
    }
    let kind = match (info.kind, info.has_video, info.has_audio) {
        (Some(kind), ..) => kind,
        (None, true, _) => AssetKind::Video,
        (None, false, true) => AssetKind::Audio,
        (None, false, false) => return Err(MediaError::NoStreams("video or audio track")),
    };
    Ok(Probe {
        kind,
        duration_secs: info.declared_secs,
        width: info.width,
        height: info.height,
        has_video: info.has_video,
        has_audio: info.has_audio,
    })
}

/// Properties of a film that determine the choice of frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Film {
    /// Frames per second.
    pub rate: Ratio,
    /// Declared length in seconds, if the container has one.
    pub duration_secs: Option<f64>,
}

/// Reads what a film declares about the frames of its pictures; `None` if it declares nothing. Blocks.
///
/// # Errors
/// [`MediaError`] if the file is refused.
pub fn film(
    decoder: &Decoder,
    seat: &Seat,
    media: &File,
    choice: TrackChoice,
) -> Result<Option<Film>, MediaError> {
    let limits = quick(&decoder.config.limits);
    let mut tracks = Tracks { choice, ..Tracks::default() };
    let (_, ended) = run(decoder, seat, media, &limits, Task::Probe, &mut tracks, None)?;
    let duration_secs = ended.describe().and_then(|info| info.declared_secs);
    let rate = ended.video().and_then(|video| video.rate).filter(|_| !ended.is_picture());
    Ok(rate.map(|rate| Film { rate, duration_secs }))
}

/// A thumbnail, or why there is none.
#[derive(Debug)]
pub struct Thumbnail {
    /// The thumbnail, or the reason why there is none.
    pub jpeg: Result<Vec<u8>, MediaError>,
    /// CPU time of the children.
    pub cpu: Duration,
}

/// A JPEG of a video at a given second, or of a picture, at most `max_side_px` wide and high. After the end
/// of a video it shows the last frame. All attempts together may use the CPU time of one decode. Blocks.
pub fn thumbnail_jpeg(
    decoder: &Decoder,
    seat: &Seat,
    media: &File,
    at_secs: f64,
    max_side_px: u32,
    choice: TrackChoice,
) -> Thumbnail {
    let mut tracks = Tracks { choice, ..Tracks::default() };
    let jpeg = shown_at(decoder, seat, media, at_secs, max_side_px, &mut tracks);
    Thumbnail { jpeg, cpu: tracks.cpu }
}

fn shown_at(
    decoder: &Decoder,
    seat: &Seat,
    media: &File,
    at_secs: f64,
    max_side_px: u32,
    tracks: &mut Tracks,
) -> Result<Vec<u8>, MediaError> {
    let limits = quick(&decoder.config.limits);
    let at_secs = if at_secs.is_finite() { at_secs.max(0.0) } else { 0.0 };
    let places: Vec<f64> = places_to_seek(at_secs).collect();
    let (mut place, mut with_sound) = (0, true);
    loop {
        let seek_secs = places[place];
        let max_side_px = max_side_px.clamp(16, 4096);
        let task = Task::Thumbnail { at_secs, seek_secs, max_side_px, with_sound };
        let sought = (seek_secs > 0.0).then_some(Sought { latest: 0, start_secs: at_secs });
        let (jpeg, ended) = run(decoder, seat, media, &limits, task, tracks, sought)?;
        if let Some(next) = ended.next_place(place, places.len()) {
            place = next;
        } else if !jpeg.is_empty() {
            return Ok(jpeg);
        } else if ended.log.opened && ended.log.video_streams == 0 {
            return Err(MediaError::NoStreams("picture"));
        } else if with_sound && ended.log.opened {
            // A track that is declared but has no data cannot be written.
            with_sound = false;
        } else {
            return Err(ended.complaint(&limits));
        }
    }
}
