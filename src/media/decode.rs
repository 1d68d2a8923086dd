//! One file through one child, or two: what to ask ffmpeg for, and what its end means.

use std::fs::File;
use std::time::Duration;

use super::attempt::{Bounds, with_bounds};
use super::filters::Shape;
use super::pool::Seat;
use super::process::Worker;
use super::protocol::{Engine, Failure, Request, Streams, Task};
use super::stream::{Cancel, Caps, Ended, MediaInfo, Sink, Sought, pump};
use super::timing::places_to_seek;
use super::work::thread_cpu;
use super::{Decoder, Limits, MediaError};
use crate::types::AssetKind;

/// What to decode.
#[derive(Debug, Clone, Copy)]
pub struct DecodeRequest {
    /// Frames per second to sample.
    pub fps: f64,
    /// Sample rate to give, Hz.
    pub sample_rate_hz: u32,
    /// Where to begin, seconds.
    pub start_secs: f64,
    /// From here on the right pictures must be on the screen; what comes before may be left out.
    pub wanted_secs: f64,
    /// How much to decode, seconds; all if absent.
    pub duration_secs: Option<f64>,
    /// Frames as they are meant to be shown, or as they are stored (`docs/bundle.md`).
    pub shown: bool,
}

/// How a decode ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the file is.
    pub info: MediaInfo,
    /// Frames given to the sink.
    pub frames: u64,
    /// Samples given to the sink.
    pub samples: u64,
    /// The sink had enough before the end.
    pub stopped: bool,
    /// Why only a part could be read: a sentence.
    pub partial: Option<String>,
    /// User and system time of the children.
    pub cpu_secs: f64,
}

/// Decodes a file (see [`super::open_media`]) into a sink. Blocks; run it on a thread of its own that
/// lives until it returns.
///
/// # Errors
/// [`MediaError`] where nothing could be read, a cap was hit, the sink failed or `cancel` fired.
#[tracing::instrument(level = "debug", skip_all)]
pub fn decode(
    decoder: &Decoder,
    seat: &Seat,
    media: &File,
    request: DecodeRequest,
    sink: &mut dyn Sink,
    cancel: Option<&Cancel>,
) -> Result<Outcome, MediaError> {
    let budget = Budget::of(&decoder.config.limits, media)?;
    let (places, shape, cpu) =
        (places_to_seek(request.start_secs).collect(), Shape::default(), Duration::ZERO);
    let mut run = Run { decoder, seat, media, request, sink, cancel, budget, shape, cpu, places, place: 0 };
    // Most videos have sound, and ffmpeg says at once when a track is missing: guess, then correct.
    let first = run.attempt(Streams::Both)?;
    let engine = first.started.as_ref().map(|started| started.engine);
    let mut notes = Vec::new();
    let (mut ended, mut frames, mut samples) = (first, 0, 0);
    if engine == Some(Engine::Ffmpeg) {
        if ended.frames + ended.samples == 0 && !ended.stopped {
            ended = run.retry(ended, &mut notes)?;
        }
        (frames, samples) = (ended.frames, ended.samples);
        if frames == 0 && ended.log.video_streams > 0 && !ended.stopped {
            (ended, frames) = run.first_frame(ended, &mut notes)?;
        }
    }
    let (frames, samples) = (frames.max(ended.frames), samples.max(ended.samples));
    notes.extend(ended.note(request, frames, samples));
    let info = ended.info.clone().or_else(|| ended.describe());
    let info = info.ok_or_else(|| MediaError::Worker(ended.last_words()))?;
    if frames + samples == 0 && !ended.stopped {
        return Err(if request.start_secs > 0.0 {
            MediaError::SpanOutOfRange { start_secs: request.start_secs }
        } else {
            MediaError::Corrupt("it holds no frame and no sample".into())
        });
    }
    let partial = (!notes.is_empty()).then(|| notes.join("; "));
    let cpu_secs = run.cpu.as_secs_f64();
    Ok(Outcome { info, frames, samples, stopped: ended.stopped, partial, cpu_secs })
}

struct Run<'a> {
    decoder: &'a Decoder,
    seat: &'a Seat,
    media: &'a File,
    request: DecodeRequest,
    sink: &'a mut dyn Sink,
    cancel: Option<&'a Cancel>,
    budget: Budget,
    /// What the file's frames need, as far as it is known.
    shape: Shape,
    cpu: Duration,
    /// Where to seek, and which of these is tried.
    places: Vec<f64>,
    place: usize,
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
        let DecodeRequest { fps, sample_rate_hz, start_secs, wanted_secs, duration_secs, shown } =
            self.request;
        let task = Task::Clips { fps, sample_rate_hz, seek_secs, start_secs, duration_secs, streams };
        let latest = ((wanted_secs - start_secs) * fps).round() as i64;
        let sought = (seek_secs > 0.0).then_some(Sought { latest, start_secs });
        let config = &self.decoder.config;
        let limits = &config.limits;
        let ((), ended) = with_bounds(limits, self.shape, |bounds| {
            let left = self.budget.without(self.cpu);
            let worker = Worker::start(config, self.media, &request(self.decoder, task, bounds, left))?;
            let caps =
                Caps { fps, sought, start_secs, shape: bounds.shape, shown, ..caps(limits, streams, left) };
            let ended = pump(worker, self.seat, self.sink, self.cancel, caps)?;
            self.cpu += ended.exit.cpu;
            Ok(((), ended))
        })?;
        warn_without_landlock(&ended);
        Ok(ended)
    }

    /// After an attempt without any output: the tracks that are there, one by one.
    fn retry(&mut self, first: Ended, notes: &mut Vec<String>) -> Result<Ended, MediaError> {
        let limits = &self.decoder.config.limits;
        let log = &first.log;
        let (video, audio) = (log.video_streams > 0, log.audio_streams > 0);
        let mut complaint = match (log.opened, video, audio) {
            (true, false, false) if first.is_picture() => {
                return Err(MediaError::Corrupt("its picture is missing, so it was cut off".into()));
            }
            (true, false, false) => return Err(MediaError::NoStreams("picture or sound track")),
            (true, true, true) if first.exit.code == Some(0) => return Ok(first),
            (true, ..) => first.complaint(limits),
            (false, ..) => return Err(first.complaint(limits)),
        };
        if matches!(complaint, MediaError::TooManyPixels { .. } | MediaError::DecodeLimit(_)) {
            return Err(complaint);
        }
        if video {
            let ended = self.attempt(Streams::Video)?;
            let quiet = ended.frames == 0 && ended.exit.code == Some(0) && !audio;
            if ended.frames > 0 || ended.stopped || quiet {
                if audio {
                    notes.push(format!("the sound could not be decoded ({})", first.log.main_error()));
                }
                return Ok(ended);
            }
            // With one kind of track the first attempt only missed the other.
            if !audio {
                complaint = ended.complaint(&self.decoder.config.limits);
            }
        }
        if audio {
            let ended = self.attempt(Streams::Audio)?;
            if ended.samples > 0 || ended.stopped || ended.exit.code == Some(0) {
                if video {
                    notes.push(format!("the picture could not be decoded ({})", first.log.main_error()));
                }
                return Ok(ended);
            }
            if !video {
                complaint = ended.complaint(&self.decoder.config.limits);
            }
        }
        Err(complaint)
    }

    /// A video shorter than half a frame period gives no frame at the sampling rate: take its first.
    fn first_frame(&mut self, before: Ended, notes: &mut Vec<String>) -> Result<(Ended, u64), MediaError> {
        if self.request.start_secs > 0.0 || !notes.is_empty() {
            return Ok((before, 0));
        }
        let found = self.attempt(Streams::FirstFrame)?;
        if found.frames == 0 && before.samples == 0 {
            return Err(found.complaint(&self.decoder.config.limits));
        }
        if found.frames == 0 {
            notes.push(format!("the picture could not be decoded ({})", found.log.main_error()));
        }
        let frames = found.frames;
        // The sound's end is in the log of the first run, if the sound is all there is.
        Ok((if before.samples > 0 { before } else { found }, frames))
    }
}

/// Says once that files are shielded by less than they should be.
fn warn_without_landlock(ended: &Ended) {
    static SAID: std::sync::Once = std::sync::Once::new();
    if ended.started.as_ref().is_some_and(|started| !started.landlock) {
        SAID.call_once(|| {
            tracing::warn!(
                "this kernel does not enforce Landlock: decoders run without network and processes and under \
                 memory and CPU caps, but could read files of this user"
            );
        });
    }
}

/// CPU time that is left to a file.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    file_bytes: u64,
    cpu: Duration,
    thread_began: Duration,
}

impl Budget {
    /// What a file may take, from now on and on this thread.
    pub fn of(limits: &Limits, media: &File) -> Result<Self, MediaError> {
        let file_bytes = media.metadata().map_err(MediaError::Open)?.len();
        Ok(Self { file_bytes, cpu: limits.work.cpu(file_bytes), thread_began: thread_cpu() })
    }

    fn without(self, spent: Duration) -> Self {
        Self { cpu: self.cpu.saturating_sub(spent), ..self }
    }
}

/// CPU seconds after which the kernel ends a child: a little later than the parent does, which knows how to
/// say why.
fn cpu_cap_secs(limits: &Limits, budget: Budget) -> u64 {
    limits.wall_clock_secs.max(1).min(budget.cpu.as_secs().saturating_add(2))
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
        memory_factor: bounds.factor,
    }
}

/// For one frame a second, as shown.
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
        shown: true,
        address_space_bytes: limits.address_space_bytes,
        file_bytes: budget.file_bytes,
        cpu: budget.cpu,
        thread_began: budget.thread_began,
    }
}

/// Codecs say no more than this when an allocation fails.
const STARVED: [&str; 3] = ["Cannot allocate memory", "get_buffer() failed", "pthread_create() failed"];

impl Ended {
    /// What makes the whole file unusable: a refusal, a cap, a child that never got to work; and what is no
    /// fault of the file's.
    pub fn check(&self, decoder: &Decoder, budget: Budget) -> Result<(), MediaError> {
        let limits = &decoder.config.limits;
        if self.spent {
            return Err(limits.work.too_much_cpu(budget.file_bytes));
        }
        if let Some((failure, detail)) = &self.failed {
            return Err(refusal(*failure, detail, limits, self.max_pixels(limits)));
        }
        if self.stopped {
            return Ok(());
        }
        self.check_signals(Duration::from_secs(cpu_cap_secs(limits, budget)))?;
        if self.out_of_memory() {
            return Err(MediaError::DecodeLimit("memory"));
        }
        if self.started.is_none() && !self.reading {
            return Err(MediaError::Worker(self.last_words()));
        }
        let empty = self.frames + self.samples == 0;
        if empty && self.speechless() {
            // An ffmpeg that does not start says no more than one that a file made crash.
            let health = decoder.health_now(self.at);
            if !health.ok {
                return Err(MediaError::Worker(health.detail));
            }
        }
        let crashed = self.exit.signal.is_some() || self.exit.code == Some(101);
        if empty && crashed || self.started.is_none() {
            return Err(MediaError::Corrupt("its decoder crashed on it".into()));
        }
        Ok(())
    }

    /// Ends that were not the child's own: our cap on CPU time, or a signal from outside, such as the kernel's
    /// when the machine runs out of memory.
    fn check_signals(&self, cpu_cap: Duration) -> Result<(), MediaError> {
        let ended_by = self.exit.signal.or(self.log.ended_by_signal);
        match ended_by {
            Some(libc::SIGXCPU) => Err(MediaError::DecodeLimit("CPU time")),
            Some(libc::SIGKILL) if self.exit.cpu >= cpu_cap => Err(MediaError::DecodeLimit("CPU time")),
            Some(
                signal @ (libc::SIGKILL
                | libc::SIGTERM
                | libc::SIGINT
                | libc::SIGHUP
                | libc::SIGQUIT
                | libc::SIGUSR1
                | libc::SIGUSR2
                | libc::SIGALRM
                | libc::SIGPIPE),
            ) => Err(MediaError::Killed(signal)),
            _ => Ok(()),
        }
    }

    /// Failed, and ffmpeg did not say a word of why.
    fn speechless(&self) -> bool {
        let ffmpeg = self.started.as_ref().is_some_and(|started| started.engine == Engine::Ffmpeg);
        ffmpeg && self.exit.code != Some(0) && !self.log.opened && self.log.errors.is_empty()
    }

    /// Whether more memory would have helped.
    pub fn starved(&self) -> bool {
        let said = matches!(self.failed, Some((Failure::Memory, _))) || self.out_of_memory();
        said || !self.log.has_error("image parameters invalid")
            && STARVED.iter().any(|text| self.log.has_error(text))
    }

    fn out_of_memory(&self) -> bool {
        self.exit.code != Some(0)
            && (self.log.has_error("Cannot allocate memory") || self.log.has_error("memory allocation of"))
    }

    /// Why the child says it could not work, for a person.
    pub fn last_words(&self) -> String {
        match (self.exit.signal, self.exit.code) {
            (Some(signal), _) => format!("it was ended by signal {signal}"),
            (None, code) => {
                format!("it ended with status {} ({})", code.unwrap_or(-1), self.log.main_error())
            }
        }
    }

    /// The cap on pixels that held for it.
    fn max_pixels(&self, limits: &Limits) -> u64 {
        let film = self.started.as_ref().is_some_and(|started| started.engine == Engine::Ffmpeg);
        if film && !self.is_picture() { limits.max_pixels } else { limits.max_picture_pixels }
    }

    /// Why ffmpeg gave nothing.
    pub fn complaint(&self, limits: &Limits) -> MediaError {
        let log = &self.log;
        let main = log.main_error().to_owned();
        if log.has_error("max pixel count") {
            return MediaError::TooManyPixels { limit: self.max_pixels(limits), detail: main };
        }
        if self.starved() {
            return MediaError::DecodeLimit("memory");
        }
        if log.has_error("not on whitelist") || log.has_error("m3u8") {
            return MediaError::Unsupported("a playlist, or a format that is not on the list".into());
        }
        if ["no decoder found", "Decoder not found", "Unknown decoder"].iter().any(|text| log.has_error(text))
        {
            return MediaError::Unsupported(main);
        }
        if log.has_error("moov atom not found") {
            return MediaError::Corrupt("its index is missing, so it was cut off or never finished".into());
        }
        if !log.opened && main.starts_with("Error opening input") {
            return MediaError::Unsupported("its bytes are of no known format".into());
        }
        MediaError::Corrupt(main)
    }

    /// What the file's own structure says is missing.
    fn cut_short(&self) -> Option<&str> {
        let started = self.started.as_ref()?;
        // Who did not know the length of the sound did not know that of the file.
        let said = started.cut_short.as_deref().filter(|_| !started.sound.open_ended);
        said.or(started.sound.cut.then_some("it ends within a packet"))
    }

    /// Packets that did not decode or are missing.
    fn packets_lost(&self) -> u64 {
        let sound = self.started.as_ref().map(|started| &started.sound);
        let (missing, strays) = sound.map_or((0, 0), |sound| (sound.damaged, sound.strays));
        // What lies between the packets of a stream may look like one.
        self.log.damaged + missing + self.log.sound_errors.saturating_sub(strays)
    }

    /// Why a decode that gave something did not give everything.
    fn note(&self, request: DecodeRequest, frames: u64, samples: u64) -> Option<String> {
        if self.stopped || frames + samples == 0 {
            return None;
        }
        let whole = request.start_secs == 0.0 && request.duration_secs.is_none();
        let info = self.info.as_ref()?;
        if info.kind == Some(AssetKind::Image) {
            return self.note_of_picture();
        }
        let rate = f64::from(info.sample_rate_hz.max(1));
        let decoded = (frames as f64 / request.fps).max(samples as f64 / rate);
        let sound_file = self.log.video_streams == 0;
        let tolerance = |declared: f64| {
            // The container's length is that of its longest track, which may be another one.
            if sound_file { (declared * 0.01).max(0.25) } else { (declared * 0.05).max(1.0) }
        };
        // What was guessed from a bit rate is no promise.
        let declared = info.declared_secs.filter(|_| whole && !info.estimated);
        let short = declared.filter(|declared| decoded + tolerance(*declared) < *declared);
        if let Some(declared) = short {
            return Some(format!("truncated: {decoded:.1} s of {declared:.1} s could be decoded"));
        }
        if whole && self.log.cut_short {
            return Some(format!("truncated: the file ends early, {decoded:.1} s could be decoded"));
        }
        let failed = self.exit.code != Some(0) && !self.only_misses_sound(samples);
        if self.exit.signal.is_some() || failed || self.log.gave_up {
            return Some(format!("decoding stopped early after {decoded:.1} s: {}", self.log.main_error()));
        }
        if let Some(why) = self.cut_short().filter(|_| whole) {
            return Some(format!("truncated: {why}, {decoded:.1} s could be decoded"));
        }
        // A part of a film may begin between pictures that others are made from.
        let damaged = self.damaged + if whole { self.packets_lost() } else { 0 };
        if damaged > 0 {
            let packets = if damaged == 1 { "1 packet".to_owned() } else { format!("{damaged} packets") };
            return Some(format!("damaged: {packets} could not be decoded"));
        }
        let silent = frames > 0 && samples == 0 && self.log.audio_streams > 0;
        let silent = silent && !self.only_misses_sound(samples);
        (silent && whole && !self.log.errors.is_empty())
            .then(|| format!("the sound could not be decoded ({})", self.log.main_error()))
    }
}

impl Ended {
    /// Whether all that went wrong is that a track was declared of which nothing ever came.
    fn only_misses_sound(&self, samples: u64) -> bool {
        samples == 0 && self.log.has_error("Neither number of channels nor channel layout specified")
    }

    /// Why a picture is not whole.
    fn note_of_picture(&self) -> Option<String> {
        let cut = self.damaged > 0 || self.log.cut_short || self.exit.signal.is_some();
        if cut {
            return Some("truncated: the file ends before its picture does".to_owned());
        }
        let said = !self.log.errors.is_empty();
        said.then(|| {
            format!("damaged: a part of the picture could not be decoded ({})", self.log.main_error())
        })
    }
}

fn refusal(failure: Failure, detail: &str, limits: &Limits, max_pixels: u64) -> MediaError {
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(200).collect();
    match failure {
        Failure::Unsupported => MediaError::Unsupported(detail),
        Failure::Encrypted => MediaError::Encrypted(detail),
        Failure::Corrupt => MediaError::Corrupt(detail),
        Failure::TooManyPixels => MediaError::TooManyPixels { limit: max_pixels, detail },
        Failure::TooLong => {
            let secs = detail.parse().unwrap_or(limits.max_duration_secs);
            MediaError::TooLong { secs, limit_secs: limits.max_duration_secs }
        }
        Failure::NoPicture => MediaError::NoStreams("picture"),
        Failure::Memory => MediaError::DecodeLimit("memory"),
        Failure::Internal => MediaError::Worker(detail),
    }
}
