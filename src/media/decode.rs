//! Decodes one file with one or more children: builds ffmpeg's requests and interprets how it ended.

mod again;

use std::fs::File;
use std::time::Duration;

use super::attempt::{Bounds, with_bounds};
use super::pool::Seat;
use super::process::Worker;
use super::stream::{Cancel, Caps, Ended, MediaInfo, Sink, Sought, collect, pump};
use super::work::thread_cpu;
use super::{Decoder, Limits, MediaError};
use crate::decode_child::protocol::{Engine, Request, Streams, Task};
use crate::ffmpeg::filters::Shape;
use crate::ffmpeg::picks::Picks;
use crate::ffmpeg::sampling::Sampling;
use crate::ffmpeg::sound::Placed;
use crate::ffmpeg::timing::places_to_seek;
use crate::ffmpeg::tracks::{self, Wanted};
use crate::types::{TrackChoice, TrackKind};

/// The parts of a file to decode, and their form.
#[derive(Debug, Clone, Copy)]
pub struct DecodeRequest {
    /// Which frames are needed.
    pub sampling: Sampling,
    /// Sample rate of the output, in Hz.
    pub sample_rate_hz: u32,
    /// Where to begin, in seconds.
    pub start_secs: f64,
    /// Time from which the right pictures must be on the screen, in seconds. Earlier ones may be left out.
    pub wanted_secs: f64,
    /// How much to decode, in seconds; `None` means to the end.
    pub duration_secs: Option<f64>,
    /// Whether frames are prepared as they are meant to be shown, rather than as stored (`docs/bundle.md`).
    pub shown: bool,
    /// The file tracks that the client chose.
    pub choice: TrackChoice,
    /// Tracks of this kind are not decoded; a still picture is.
    pub without: Option<TrackKind>,
}

impl DecodeRequest {
    fn streams(&self) -> Streams {
        match self.without {
            Some(TrackKind::Video) => Streams::Audio,
            Some(TrackKind::Audio) => Streams::Video,
            _ => Streams::Both,
        }
    }

    /// Whether a file with tracks of pictures (and of sound) has some to decode.
    fn takes(&self, video: bool, audio: bool) -> (bool, bool) {
        let wants = |kind: TrackKind| self.without != Some(kind);
        (video && wants(TrackKind::Video), audio && wants(TrackKind::Audio))
    }
}

/// Result of a decode.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Properties of the file.
    pub info: MediaInfo,
    /// Number of frames passed to the sink.
    pub frames: u64,
    /// Number of samples passed to the sink.
    pub samples: u64,
    /// The last period in which a frame was on the screen, if that was counted.
    pub periods: Option<u64>,
    /// Whether the sink stopped the decode before the end.
    pub stopped: bool,
    /// If only a part could be read, a sentence that says why.
    pub partial: Option<String>,
    /// User and system time of the children, in seconds.
    pub cpu_secs: f64,
}

/// Decodes a file (see [`super::open_media`]) into a sink. Blocks: run it on a thread of its own that lives
/// until it returns.
///
/// # Errors
/// [`MediaError`] if nothing could be read, a limit was reached, the sink failed or `cancel` fired.
#[tracing::instrument(level = "debug", skip_all)]
pub fn decode(
    decoder: &Decoder,
    seat: &Seat,
    media: &File,
    request: DecodeRequest,
    sink: &mut dyn Sink,
    cancel: Option<&Cancel>,
) -> Result<Outcome, MediaError> {
    let mut run = Run::new(decoder, seat, media, request, sink, cancel)?;
    // Most videos have sound, and ffmpeg reports a missing track at once. So try both, then correct.
    let first = run.attempt(request.streams())?;
    let engine = first.started.as_ref().map(|started| started.engine);
    let mut notes = Vec::new();
    let (mut ended, mut frames, mut samples) = (first, 0, 0);
    if engine == Some(Engine::Ffmpeg) {
        if ended.frames + ended.samples == 0 && !ended.stopped {
            ended = run.retry(ended, &mut notes)?;
        }
        (frames, samples) = (ended.frames, ended.samples);
        let has_pictures = ended.is_picture() || request.takes(ended.log.video_streams > 0, false).0;
        if frames == 0 && has_pictures && !ended.stopped {
            (ended, frames) = run.first_frame(ended, &mut notes)?;
        }
    }
    let described = run.follow(&mut ended, &mut notes)?;
    let (mut frames, samples) = (frames.max(ended.frames), samples.max(ended.samples));
    let periods = ended.log.periods;
    if frames > 0 {
        // At the end there may be frames that no period needs.
        frames = frames.max(periods.unwrap_or(0));
    }
    notes.extend(ended.note(request, frames, samples));
    let described = described.as_ref().unwrap_or(&ended);
    let info = described.info.clone().or_else(|| described.describe());
    let mut info = info.ok_or_else(|| MediaError::Worker(ended.last_words()))?;
    if !info.tracks.is_empty() {
        let picks = run.picks.unwrap_or_else(|| described.picks());
        info.tracks = tracks::list(picks, &described.log, frames > 0, samples > 0);
    }
    if frames + samples == 0 && !ended.stopped {
        return Err(if request.start_secs > 0.0 {
            MediaError::SpanOutOfRange { start_secs: request.start_secs }
        } else {
            MediaError::Corrupt("it contains no video frame and no audio sample".into())
        });
    }
    let partial = (!notes.is_empty()).then(|| notes.join("; "));
    let cpu_secs = run.cpu.as_secs_f64();
    Ok(Outcome { info, frames, samples, periods, stopped: ended.stopped, partial, cpu_secs })
}

struct Run<'a> {
    decoder: &'a Decoder,
    seat: &'a Seat,
    media: &'a File,
    request: DecodeRequest,
    sink: &'a mut dyn Sink,
    cancel: Option<&'a Cancel>,
    budget: Budget,
    /// Filters that the file's frames need, as known so far.
    shape: Shape,
    /// The tracks to read, once they are known.
    picks: Option<Picks>,
    cpu: Duration,
    /// Positions to seek to, and the index of the current one.
    places: Vec<f64>,
    place: usize,
    /// Where in the file to begin, and what was decoded of the streams before that.
    from: u64,
    after: Option<Placed>,
}

impl<'a> Run<'a> {
    fn new(
        decoder: &'a Decoder,
        seat: &'a Seat,
        media: &'a File,
        request: DecodeRequest,
        sink: &'a mut dyn Sink,
        cancel: Option<&'a Cancel>,
    ) -> Result<Self, MediaError> {
        Ok(Self {
            decoder,
            seat,
            media,
            request,
            sink,
            cancel,
            budget: Budget::of(&decoder.config.limits, media)?,
            shape: Shape::default(),
            picks: None,
            cpu: Duration::ZERO,
            places: places_to_seek(request.start_secs).collect(),
            place: 0,
            from: 0,
            after: None,
        })
    }
}

impl Run<'_> {
    fn attempt(&mut self, streams: Streams) -> Result<Ended, MediaError> {
        loop {
            let ended = self.attempt_from(self.places[self.place], streams)?;
            self.shape = ended.shape(self.request.shown);
            match ended.next_place(self.place, self.places.len()) {
                Some(next) => self.place = next,
                None => {
                    ended.check(self.decoder, self.budget)?;
                    return Ok(ended);
                }
            }
        }
    }

    fn attempt_from(&mut self, seek_secs: f64, streams: Streams) -> Result<Ended, MediaError> {
        let mut ended = self.attempt_once(seek_secs, streams)?;
        let Some(masks) = ended.wants_survey else {
            self.picks = self.picks.or(ended.picks);
            return Ok(ended);
        };
        let left = self.budget.without(self.cpu);
        let (picks, cpu) = survey(self.decoder, self.seat, self.media, left, (self.request.choice, masks))?;
        self.cpu += cpu;
        self.picks = Some(picks);
        ended.picks = self.picks;
        self.shape = ended.shape(self.request.shown);
        self.attempt_once(seek_secs, streams)
    }

    fn attempt_once(&mut self, seek_secs: f64, streams: Streams) -> Result<Ended, MediaError> {
        let DecodeRequest {
            sampling,
            sample_rate_hz,
            start_secs,
            wanted_secs,
            duration_secs,
            shown,
            choice,
            ..
        } = self.request;
        let (picks, fps) = (self.picks, sampling.rate());
        let task = Task::Clips { sampling, sample_rate_hz, seek_secs, start_secs, duration_secs, streams };
        let latest = ((wanted_secs - start_secs) * fps).round() as i64;
        let sought = (seek_secs > 0.0).then_some(Sought { latest, start_secs });
        let config = &self.decoder.config;
        let limits = &config.limits;
        let ((), ended) = with_bounds(self.decoder, self.shape, |bounds| {
            let left = self.budget.without(self.cpu);
            let asked = Request { from: self.from, ..request(self.decoder, task, bounds, left) };
            let worker = Worker::start(config, self.media, &asked)?;
            let (caps, after) = (caps(limits, streams, left), self.after);
            let caps =
                Caps { fps, sought, start_secs, shape: bounds.shape, shown, choice, picks, after, ..caps };
            let ended = pump(worker, self.seat, self.sink, self.cancel, caps)?;
            self.cpu += ended.exit.cpu;
            Ok(((), ended))
        })?;
        warn_without_landlock(&ended);
        Ok(ended)
    }
}

/// Surveys these streams of pictures and of sound to choose which to read. Also returns the CPU time used. A
/// survey may use only a part of the file's CPU time; after that, its findings so far decide.
pub fn survey(
    decoder: &Decoder,
    seat: &Seat,
    media: &File,
    budget: Budget,
    (choice, (pictures, sounds)): (TrackChoice, (u64, u64)),
) -> Result<(Picks, Duration), MediaError> {
    let limits = &decoder.config.limits;
    let budget = Budget { cpu: budget.cpu / SURVEY_SHARE, ..budget };
    let (_, ended) = with_bounds(decoder, Shape::default(), |bounds| {
        let task = Task::Survey { pictures, sounds };
        let worker = Worker::start(&decoder.config, media, &request(decoder, task, bounds, budget))?;
        let survey = Some((pictures, sounds));
        collect(worker, seat, Caps { survey, choice, ..caps(limits, Streams::Both, budget) })
    })?;
    let wanted = Wanted { choice, sound: true };
    Ok((tracks::guess(&ended.log, wanted), ended.exit.cpu))
}

/// Warns once if the sandbox is weaker than it should be.
fn warn_without_landlock(ended: &Ended) {
    static SAID: std::sync::Once = std::sync::Once::new();
    if ended.started.as_ref().is_some_and(|started| !started.landlock) {
        SAID.call_once(|| {
            tracing::warn!(
                "this kernel does not enforce Landlock: decoders have no network, cannot start processes and are limited in memory and CPU time, but could read this user's files"
            );
        });
    }
}

/// A survey may use this fraction of a file's CPU time, given as a divisor.
const SURVEY_SHARE: u32 = 4;

/// CPU time that a file may still use.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub file_bytes: u64,
    pub cpu: Duration,
    thread_began: Duration,
}

impl Budget {
    /// The budget of a file, from now on and on this thread.
    pub fn of(limits: &Limits, media: &File) -> Result<Self, MediaError> {
        let file_bytes = media.metadata().map_err(MediaError::Open)?.len();
        Ok(Self { file_bytes, cpu: limits.work.cpu(file_bytes), thread_began: thread_cpu() })
    }

    pub fn without(self, spent: Duration) -> Self {
        Self { cpu: self.cpu.saturating_sub(spent), ..self }
    }
}

/// CPU seconds after which the kernel ends a child. A little later than the parent does for wall-clock or CPU
/// time, since the parent can report the reason.
pub fn cpu_cap_secs(limits: &Limits, budget: Budget) -> u64 {
    limits.wall_clock_secs.min(budget.cpu.as_secs()).saturating_add(2)
}

pub fn request(decoder: &Decoder, task: Task, bounds: Bounds, budget: Budget) -> Request {
    let limits = &decoder.config.limits;
    Request {
        task,
        ffmpeg: decoder.config.ffmpeg.clone(),
        cpu_secs: cpu_cap_secs(limits, budget),
        address_space_bytes: limits.address_space_bytes,
        max_pixels: limits.max_pixels,
        max_picture_pixels: limits.max_picture_pixels,
        max_duration_secs: limits.max_duration_secs,
        shape: bounds.shape,
        ffmpeg_bytes: bounds.ffmpeg_bytes,
        from: 0,
        memory_factor: bounds.factor,
    }
}

/// Limits for sampling one frame per second, as shown.
pub fn caps(limits: &Limits, streams: Streams, budget: Budget) -> Caps {
    Caps {
        wall_clock: Duration::from_secs(limits.wall_clock_secs),
        max_pixels: limits.max_pixels,
        max_picture_pixels: limits.max_picture_pixels,
        max_duration_secs: limits.max_duration_secs,
        fps: 1.0,
        start_secs: 0.0,
        streams,
        sought: None,
        shape: Shape::default(),
        choice: TrackChoice::default(),
        picks: None,
        after: None,
        survey: None,
        quick: false,
        shown: true,
        address_space_bytes: limits.address_space_bytes,
        file_bytes: budget.file_bytes,
        cpu: budget.cpu,
        thread_began: budget.thread_began,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use super::*;
    use crate::decode_child::need::FFMPEG_FIRST;
    use crate::media::DecoderConfig;

    const MOST: u64 = 8 << 30;

    /// Runs children that want this much memory, one after the other. Returns what each was given, and the last one.
    fn given(wants: &[Option<u64>]) -> (Vec<u64>, Ended) {
        let limits = Limits { address_space_bytes: MOST, ..Limits::default() };
        let budget = Budget::of(&limits, &tempfile::tempfile().unwrap()).unwrap();
        let caps = caps(&limits, Streams::Both, budget);
        let config = DecoderConfig { worker_exe: PathBuf::new(), ffmpeg: PathBuf::new(), limits };
        let (decoder, mut given) = (Decoder::new(config), Vec::new());
        let (_, ended) = with_bounds(&decoder, Shape::default(), |bounds| {
            let wants = wants.get(given.len()).copied().flatten();
            given.push(bounds.ffmpeg_bytes);
            let mut ended = Ended::new(&caps);
            ended.wants = wants;
            Ok(((), ended))
        })
        .unwrap();
        (given, ended)
    }

    #[test]
    fn a_child_that_wants_more_than_was_measured_before_gets_it() {
        assert_eq!(given(&[None]).0, [FFMPEG_FIRST]);
        let measured = FFMPEG_FIRST + 1000;
        let (all, ended) = given(&[Some(measured), Some(measured + 1)]);
        assert_eq!((all, ended.wants), (vec![FFMPEG_FIRST, measured, (measured + 1) * 4], None));
        // The most that a file may use is the end, whatever the child wants.
        assert_eq!(given(&[Some(MOST); 9]).0, [FFMPEG_FIRST, MOST]);
    }
}
