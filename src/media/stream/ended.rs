//! Facts about a file from one child's output, and how the child ended. The module `ending` draws the
//! conclusions.

use std::time::Instant;

use super::{Caps, Misplaced};
use crate::decode_child::protocol::{Engine, Failure, Started, Streams};
use crate::ffmpeg::filters::Shape;
use crate::ffmpeg::picks::Picks;
use crate::ffmpeg::said::FfmpegLog;
use crate::ffmpeg::said::VideoLine;
use crate::ffmpeg::sound::Placed;
use crate::ffmpeg::tracks::{self, Wanted};
use crate::media::process::Exit;
use crate::types::{AssetKind, TrackInfo};

/// Properties of a file, as known when its first data arrives.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaInfo {
    /// Kind, if it is certain already.
    pub kind: Option<AssetKind>,
    /// Sample rate of the sound that follows, in Hz.
    pub sample_rate_hz: u32,
    /// Length that the container declares, in seconds.
    pub declared_secs: Option<f64>,
    /// Whether the declared length is an estimate.
    pub estimated: bool,
    /// Width as coded, in pixels; 0 without a picture. The frames themselves are upright.
    pub width: u32,
    /// Height as coded, in pixels; 0 without a picture.
    pub height: u32,
    /// Whether the picture is larger than its frame.
    pub reduced: bool,
    /// Whether the file has a picture track.
    pub has_video: bool,
    /// Whether the file has a sound track.
    pub has_audio: bool,
    /// All file tracks; empty for a picture.
    pub tracks: Vec<TrackInfo>,
}

/// Results of one child's output, and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Tracks requested from ffmpeg.
    pub streams: Streams,
    /// Whether the child got as far as reading the file.
    pub reading: bool,
    pub started: Option<Started>,
    pub info: Option<MediaInfo>,
    pub failed: Option<(Failure, String)>,
    /// Set if it was stopped before any output because it needs this many bytes.
    pub wants: Option<u64>,
    /// Set if it was stopped before any output because it must seek elsewhere.
    pub misplaced: Option<Misplaced>,
    /// Set if it was stopped before any output because its frames need these filters.
    pub wants_shape: Option<Shape>,
    /// Set if it was stopped before any output because these streams of pictures and of sound must be
    /// surveyed.
    pub wants_survey: Option<(u64, u64)>,
    /// The requested track, if it does not exist.
    pub unknown_track: Option<(&'static str, u16)>,
    /// The tracks to read, once they are known.
    pub picks: Option<Picks>,
    /// The tracks that the client chose, and whether sound is wanted.
    pub(super) wanted: Wanted,
    /// Memory that was reserved for it, in bytes.
    pub granted: u64,
    /// Most pixels of a frame.
    pub(super) max_pixels: u64,
    /// Whether its CPU time was used up.
    pub spent: bool,
    pub damaged: u64,
    pub frames: u64,
    pub samples: u64,
    /// Where its sound ended.
    pub placed: Placed,
    /// Number of samples that were left out because they overlap others.
    pub overlapping: u64,
    /// Number of samples left out because they are before the beginning.
    pub early: u64,
    /// Whether the sink had enough.
    pub stopped: bool,
    pub log: FfmpegLog,
    pub exit: Exit,
    /// When it ended.
    pub at: Instant,
}

/// A later start of a track than this is an empty edit.
const SHORTEST_EDIT_SECS: f64 = 0.5;

impl Ended {
    /// Index of the next position to seek to, of `places` positions.
    pub fn next_place(&self, place: usize, places: usize) -> Option<usize> {
        match self.misplaced? {
            Misplaced::Late => Some(place + 1).filter(|next| *next < places),
            Misplaced::Unfindable => Some(places - 1),
        }
    }

    pub fn new(caps: &Caps) -> Self {
        Self {
            streams: caps.streams,
            reading: false,
            started: None,
            info: None,
            failed: None,
            wants: None,
            misplaced: None,
            wants_shape: None,
            wants_survey: None,
            unknown_track: None,
            picks: caps.picks,
            wanted: Wanted { choice: caps.choice, sound: true },
            granted: 0,
            max_pixels: caps.max_pixels,
            spent: false,
            damaged: 0,
            frames: 0,
            samples: 0,
            placed: Placed::default(),
            overlapping: 0,
            early: 0,
            stopped: false,
            log: FfmpegLog::default(),
            exit: Exit::default(),
            at: Instant::now(),
        }
    }

    /// Whether the pump ended the child for a reason that is neither the sink's nor an error.
    pub(super) fn cut_off(&self) -> bool {
        let shaped = self.wants_shape.is_some() || self.wants_survey.is_some();
        let restarted = self.wants.is_some() || shaped || self.misplaced.is_some();
        restarted || self.spent || self.failed.is_some() || self.unknown_track.is_some()
    }

    /// Whether the file is a picture, such as one inside a container.
    pub fn is_picture(&self) -> bool {
        self.started.as_ref().is_some_and(|started| started.kind == Some(AssetKind::Image))
    }

    /// The tracks to read, or a guess while they are not known.
    pub fn picks(&self) -> Picks {
        self.picks.unwrap_or_else(|| tracks::guess(&self.log, self.wanted))
    }

    /// The description of the stream of pictures that is read.
    pub fn video(&self) -> Option<&VideoLine> {
        if self.is_picture() { self.log.picture() } else { self.log.video(self.picks().picture) }
    }

    /// Which of the described streams ffmpeg must read, and how it must transform their frames.
    pub fn shape(&self, shown: bool) -> Shape {
        match self.video() {
            Some(video) if self.is_picture() => Shape::picture(video, self.max_pixels, shown),
            Some(video) if shown => Shape::film(video).of(self.picks()),
            _ => Shape::default().of(self.picks()),
        }
    }

    /// Properties of the file, from the child's greeting and ffmpeg's description.
    pub fn describe(&self) -> Option<MediaInfo> {
        let started = self.started.as_ref()?;
        let ffmpeg = started.engine == Engine::Ffmpeg;
        let (width, height) = if ffmpeg {
            self.video().and_then(VideoLine::shown_size).unwrap_or_default()
        } else {
            (started.width, started.height)
        };
        Some(MediaInfo {
            kind: started.kind,
            sample_rate_hz: started.sample_rate_hz,
            declared_secs: if ffmpeg { self.declared_secs(started) } else { started.declared_secs }
                .filter(|secs| secs.is_finite() && *secs >= 0.0),
            estimated: self.log.estimated && started.sound.declared_secs.is_none()
                || self.edited_secs() > 0.0,
            width,
            height,
            reduced: started.reduced || self.shape(true).divisor > 1,
            has_video: match started.engine {
                Engine::Ffmpeg => self.log.video_streams > 0 && self.streams != Streams::Audio,
                engine => engine == Engine::Picture,
            },
            has_audio: ffmpeg
                && self.log.audio_streams > 0
                && matches!(self.streams, Streams::Both | Streams::Audio),
            tracks: if self.is_picture() {
                Vec::new()
            } else {
                tracks::list(self.picks(), &self.log, true, true)
            },
        })
    }

    /// How much longer the declared length may be than the film: ffmpeg counts an empty edit at the beginning of a
    /// track twice. The delay of pictures that wait for others is no such edit.
    pub fn edited_secs(&self) -> f64 {
        let mov = self.log.format.starts_with("mov,");
        let starts = self.log.streams.iter().filter(|_| mov).map(|stream| stream.start_secs);
        starts.filter(|secs| *secs >= SHORTEST_EDIT_SECS).fold(0.0, f64::max)
    }

    /// The length that the bytes of the file show or, failing that, ffmpeg's.
    fn declared_secs(&self, started: &Started) -> Option<f64> {
        let sound = &started.sound;
        // The time stamps of several recordings do not give their total length.
        let telling = !sound.open_ended && !started.joined;
        sound.declared_secs.or(self.log.duration_secs.filter(|_| telling))
    }
}
