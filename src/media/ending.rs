//! Interprets the end of a child: a refusal, a failure, or a partial decode with its reason.

use std::time::Duration;

use super::decode::{Budget, DecodeRequest, cpu_cap_secs};
use super::stream::Ended;
use super::{Decoder, Limits, MediaError};
use crate::decode_child::protocol::{Engine, Failure};
use crate::ffmpeg::said::{MOST_CHARS, Stream};
use crate::ffmpeg::tracks;
use crate::types::{AssetKind, TrackKind};

/// Exit status of a Rust program that panicked.
const PANICKED: i32 = 101;

/// The only messages that codecs print when an allocation fails.
const STARVED: [&str; 3] = ["Cannot allocate memory", "get_buffer() failed", "pthread_create() failed"];

/// Sound before the beginning of a file that is a loss if there is more of it.
const EARLY_SECS: f64 = 0.5;

impl Ended {
    /// Fails if the whole file is unusable: after a refusal, a reached limit, or a child that never started
    /// to work, and after failures that are not the file's fault.
    pub fn check(&self, decoder: &Decoder, budget: Budget) -> Result<(), MediaError> {
        let limits = &decoder.config.limits;
        if self.spent {
            return Err(limits.work.too_much_cpu(budget.file_bytes));
        }
        if let Some((failure, detail)) = &self.failed {
            return Err(refusal(*failure, detail, limits, self.max_pixels(limits)));
        }
        if let Some((kind, index)) = self.unknown_track {
            let has = self.tracks_there(kind);
            return Err(MediaError::UnknownTrack { kind, index, has });
        }
        if self.stopped {
            return Ok(());
        }
        self.check_signals(limits, budget)?;
        if self.out_of_memory() {
            return Err(self.too_little_memory(limits));
        }
        if self.started.is_none() && !self.reading {
            return Err(MediaError::Worker(self.last_words()));
        }
        let empty = self.frames + self.samples == 0;
        if empty && (self.speechless() || decoder.is_ffmpeg_doubtful()) {
            // An ffmpeg that cannot start prints as little as one that crashed on a file, and another program
            // in its place may print anything, or nothing.
            let health = decoder.health_now(self.at);
            if !health.ok {
                return Err(MediaError::Worker(health.detail));
            }
        }
        let crashed = self.exit.signal.is_some() || self.exit.code == Some(PANICKED);
        if empty && crashed || self.started.is_none() {
            return Err(MediaError::Corrupt("the decoder crashed on it".into()));
        }
        Ok(())
    }

    /// Checks for ends that the child did not choose: our limit on CPU time, or a signal from outside, such
    /// as the kernel's when the machine runs out of memory.
    fn check_signals(&self, limits: &Limits, budget: Budget) -> Result<(), MediaError> {
        let cpu_cap = Duration::from_secs(cpu_cap_secs(limits, budget));
        let ended_by = self.exit.signal.or(self.log.ended_by_signal);
        let wall_clock = Duration::from_secs(limits.wall_clock_secs);
        match ended_by {
            // The limit is the lower of two.
            Some(signal @ (libc::SIGXCPU | libc::SIGKILL))
                if signal == libc::SIGXCPU || self.exit.cpu >= cpu_cap =>
            {
                Err(if budget.cpu < wall_clock {
                    limits.work.too_much_cpu(budget.file_bytes)
                } else {
                    MediaError::Timeout { secs: limits.wall_clock_secs, quick: false }
                })
            }
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

    /// The indexes of the file's tracks of a kind, as a readable phrase.
    fn tracks_there(&self, kind: &str) -> String {
        let wanted = if kind == "video" { TrackKind::Video } else { TrackKind::Audio };
        let of_kind = self.log.streams.iter().filter(|stream| stream.info.kind == wanted);
        let indexes: Vec<_> = of_kind.map(|stream| stream.info.index.to_string()).collect();
        if indexes.is_empty() { "it has none".to_owned() } else { format!("it has {}", indexes.join(", ")) }
    }

    fn too_little_memory(&self, limits: &Limits) -> MediaError {
        MediaError::DecodeLimit { limit_bytes: self.granted.max(limits.address_space_bytes) }
    }

    /// A readable reason why a track was not decoded: the missing codec, or ffmpeg's message.
    pub fn why_not(&self, kind: TrackKind) -> String {
        let lacking = tracks::undecodable(&self.log, self.picks(), kind);
        lacking.unwrap_or_else(|| self.log.main_error().to_owned())
    }

    /// Whether ffmpeg ended without a word about the file.
    fn speechless(&self) -> bool {
        let ffmpeg = self.started.as_ref().is_some_and(|started| started.engine == Engine::Ffmpeg);
        ffmpeg && !self.log.opened && self.log.errors.is_empty()
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

    /// A readable reason why the child could not work.
    pub fn last_words(&self) -> String {
        match (self.exit.signal, self.exit.code) {
            (Some(signal), _) => format!("it was killed by signal {signal}"),
            (None, code) => {
                format!("it ended with status {} ({})", code.unwrap_or(-1), self.log.main_error())
            }
        }
    }

    /// The limit on pixels that applied to the file.
    fn max_pixels(&self, limits: &Limits) -> u64 {
        let film = self.started.as_ref().is_some_and(|started| started.engine == Engine::Ffmpeg);
        if film && !self.is_picture() { limits.max_pixels } else { limits.max_picture_pixels }
    }

    /// Why ffmpeg gave no output.
    pub fn complaint(&self, limits: &Limits) -> MediaError {
        let log = &self.log;
        let main = log.main_error().to_owned();
        if log.has_error("max pixel count") {
            return MediaError::TooManyPixels { limit: self.max_pixels(limits), detail: main };
        }
        if self.starved() {
            return self.too_little_memory(limits);
        }
        if log.has_error("not on whitelist") || log.has_error("m3u8") {
            return MediaError::Unsupported("a playlist or an unsupported format".into());
        }
        if ["no decoder found", "Decoder not found", "Unknown decoder"].iter().any(|text| log.has_error(text))
        {
            let kinds = [TrackKind::Video, TrackKind::Audio];
            let lacking = kinds.iter().find_map(|kind| tracks::undecodable(log, self.picks(), *kind));
            return MediaError::Unsupported(lacking.unwrap_or(main));
        }
        if log.has_error("moov atom not found") {
            return MediaError::Corrupt(
                "its index is missing, so the file was cut off or never finished".into(),
            );
        }
        if ["not supported", "unsupported", "not implemented"].iter().any(|text| main.contains(text)) {
            return MediaError::Unsupported(main);
        }
        if !log.opened && main.starts_with("Error opening input") {
            return MediaError::Unsupported("its format is unknown".into());
        }
        MediaError::Corrupt(main)
    }

    /// Missing parts according to the file's own structure.
    fn cut_short(&self) -> Option<&str> {
        let started = self.started.as_ref()?;
        // A writer that did not know the length of the sound did not know that of the file.
        let said = started.cut_short.as_deref().filter(|_| !started.sound.open_ended);
        said.or(started.sound.lacks.as_deref()).or(started.sound.cut.then_some("it ends within a packet"))
    }

    /// Number of packets that did not decode or are missing.
    fn packets_lost(&self) -> u64 {
        let sound = self.started.as_ref().map(|started| &started.sound);
        let (missing, strays) = sound.map_or((0, 0), |sound| (sound.damaged, sound.strays));
        // Bytes between the packets of a stream may look like a packet.
        self.log.damaged + missing + self.log.sound_errors.saturating_sub(strays)
    }

    /// Why a decode with some output is incomplete.
    pub fn note(&self, request: DecodeRequest, frames: u64, samples: u64) -> Option<String> {
        if self.stopped || frames + samples == 0 {
            return None;
        }
        let whole = request.start_secs == 0.0 && request.duration_secs.is_none();
        let info = self.info.as_ref()?;
        if info.kind == Some(AssetKind::Image) {
            return self.note_of_picture();
        }
        let rate = f64::from(info.sample_rate_hz.max(1));
        let decoded = (frames as f64 / request.sampling.rate()).max(samples as f64 / rate);
        let sound_file = self.log.video_streams == 0;
        let tolerance = |declared: f64| {
            // The container declares the length of its longest track, which may be another one.
            if sound_file { (declared * 0.01).max(0.25) } else { (declared * 0.05).max(1.0) }
        };
        // A length that was estimated from a bit rate is not reliable.
        let edited = self.edited_secs();
        let declared = info.declared_secs.filter(|_| whole && (!info.estimated || edited > 0.0));
        if let Some(left_out) = self.left_out(decoded).filter(|_| whole) {
            return Some(left_out);
        }
        let short = declared.filter(|declared| decoded + edited + tolerance(*declared) < *declared);
        if let Some(declared) = short {
            return Some(format!("truncated: only {decoded:.1} s of {declared:.1} s could be decoded"));
        }
        if whole && self.log.cut_short {
            return Some(format!("truncated: the file ends early; only {decoded:.1} s could be decoded"));
        }
        let failed = self.exit.code != Some(0) && !self.only_misses_sound(samples);
        if self.exit.signal.is_some() || failed || self.log.gave_up {
            return Some(format!("decoding stopped early after {decoded:.1} s: {}", self.log.main_error()));
        }
        if let Some(why) = self.cut_short().filter(|_| whole) {
            return Some(format!("truncated: {why}; only {decoded:.1} s could be decoded"));
        }
        // A part of a film may begin after pictures that its first ones depend on.
        let damaged = self.damaged + if whole { self.packets_lost() } else { 0 };
        if damaged > 0 {
            let packets = if damaged == 1 { "1 packet".to_owned() } else { format!("{damaged} packets") };
            return Some(format!("damaged: {packets} could not be decoded"));
        }
        if self.overlapping > 0 && whole {
            let secs = self.overlapping as f64 / rate;
            return Some(format!(
                "damaged: the time stamps of its audio overlap; {secs:.1} s of it were left out"
            ));
        }
        // A delay of the encoder is left out, too, and is no loss.
        let early_secs = self.early as f64 / rate;
        if early_secs > EARLY_SECS && whole {
            return Some(format!("damaged: {early_secs:.1} s of audio before its beginning were left out"));
        }
        if whole && frames > 0 && self.video().is_some_and(|video| video.dolby) {
            return Some(
                "its colours are wrong: Dolby Vision without a compatible base layer is not converted"
                    .to_owned(),
            );
        }
        let silent = frames > 0 && samples == 0 && self.log.audio_streams > 0;
        let silent = silent && !self.only_misses_sound(samples);
        (silent && whole && !self.log.errors.is_empty())
            .then(|| format!("could not decode the audio ({})", self.why_not(TrackKind::Audio)))
    }
}

impl Ended {
    /// Whether the only problem is a declared track without any data.
    fn only_misses_sound(&self, samples: u64) -> bool {
        samples == 0 && self.log.has_error("Neither number of channels nor channel layout specified")
    }

    /// Parts of an intact file that ffmpeg does not read.
    fn left_out(&self, decoded_secs: f64) -> Option<String> {
        let started = self.started.as_ref()?;
        if started.sound.followed {
            let read = format!("only the first {decoded_secs:.1} s could be decoded");
            return Some(format!("another file is joined to its end and was not read; {read}"));
        }
        if started.exchanged {
            return Some(
                "incomplete: its tracks change places in mid-stream, which is not supported".to_owned(),
            );
        }
        if self.begins_late() {
            return Some(
                "incomplete: a track that begins in the middle of the file could not be read".to_owned(),
            );
        }
        let scrambled = "encrypted: a part of the stream is scrambled and could not be read";
        started.scrambled.then(|| scrambled.to_owned())
    }

    /// Whether a broadcast stream has pictures or sound that ffmpeg did not find at its beginning, such as
    /// those of another recording that was joined to it.
    fn begins_late(&self) -> bool {
        let known = |part: &u16| {
            let of = self.log.streams.iter().filter(|stream| stream.id == Some(*part));
            of.into_iter().any(Stream::is_described)
        };
        self.started.as_ref().is_some_and(|started| !started.parts.iter().all(known))
    }

    /// Why a picture is incomplete.
    fn note_of_picture(&self) -> Option<String> {
        let cut = self.damaged > 0 || self.log.cut_short || self.exit.signal.is_some();
        if cut {
            return Some("truncated: the file ends before its picture does".to_owned());
        }
        let said = !self.log.errors.is_empty();
        said.then(|| format!("damaged: part of the picture could not be decoded ({})", self.log.main_error()))
    }
}

fn refusal(failure: Failure, detail: &str, limits: &Limits, max_pixels: u64) -> MediaError {
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(MOST_CHARS).collect();
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
        Failure::Memory => MediaError::DecodeLimit { limit_bytes: limits.address_space_bytes },
        Failure::Internal => MediaError::Worker(detail),
    }
}
