//! Messages between parent and decode worker, over the socket that is the child's stdin.
//!
//! The parent sends one line of JSON with two descriptors: the media file and the write end of the
//! sound pipe. The child answers with lines of JSON. Frames leave through its stdout as PPM pictures
//! (`P6`, each with its own size), sound through the pipe as f32 little-endian, one channel.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ffmpeg::filters::Shape;
use crate::ffmpeg::sampling::Sampling;
use crate::structure::sound::Examined;
use crate::types::AssetKind;

/// Longest line that either side accepts, in bytes.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// The parent's answer to [`Reply::Need`] once the memory is reserved.
pub const GO: u8 = b'g';

/// A task for the child, with its limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    pub task: Task,
    pub ffmpeg: PathBuf,
    pub cpu_secs: u64,
    pub address_space_bytes: u64,
    pub max_pixels: u64,
    pub max_picture_pixels: u64,
    pub max_duration_secs: f64,
    /// How ffmpeg transforms its frames.
    #[serde(default)]
    pub shape: Shape,
    /// Memory that ffmpeg may use if it is needed, in bytes.
    pub ffmpeg_bytes: u64,
    /// Where in the file to begin: see `Examined::next`.
    #[serde(default)]
    pub from: u64,
    /// Factor for other estimates of memory: 1, or more after that was too little.
    pub memory_factor: u64,
}

impl Request {
    /// Parses the line of a request; `None` for anything else.
    pub fn read(line: &[u8]) -> Option<Self> {
        let request: Self = serde_json::from_slice(line).ok()?;
        let sane = |secs: f64| secs.is_finite() && secs >= 0.0;
        let task = match request.task {
            Task::Clips { sampling, seek_secs, start_secs, duration_secs, .. } => {
                let part = sane(seek_secs) && sane(start_secs) && duration_secs.is_none_or(sane);
                sampling.is_sane() && part
            }
            Task::Thumbnail { at_secs, seek_secs, .. } => sane(at_secs) && sane(seek_secs),
            Task::Probe | Task::Survey { .. } | Task::Health => true,
        };
        task.then_some(request)
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Decode everything to frames and samples.
    Clips {
        sampling: Sampling,
        sample_rate_hz: u32,
        /// Where ffmpeg seeks to, at or before the start.
        seek_secs: f64,
        start_secs: f64,
        duration_secs: Option<f64>,
        streams: Streams,
    },
    /// Send one JPEG on the frame pipe.
    Thumbnail {
        at_secs: f64,
        /// Where ffmpeg seeks to, as in `Clips`.
        seek_secs: f64,
        max_side_px: u32,
        /// Whether to read the first packet of the sound, too: see `Args::unheard` in `child/ffmpeg.rs`.
        with_sound: bool,
    },
    /// Only find out what the file is.
    Probe,
    /// Find out which of these streams (one bit each) are films and which are audible: see `tracks`.
    Survey { pictures: u64, sounds: u64 },
    /// Only check that ffmpeg starts inside the sandbox. It prints its version on the frame pipe.
    Health,
}

/// Tracks requested from ffmpeg, which refuses to start if one is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    Both,
    Video,
    Audio,
    /// The first picture, for a video shorter than half a frame period.
    FirstFrame,
}

/// A message from the child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The sandbox is set up. Any failure from here on is caused by the file.
    Reading,
    /// The header was read: memory that the child needs, and memory that the server needs for its output. The
    /// child waits for [`GO`].
    Need { child_bytes: u64, server_bytes: u64 },
    /// The file was recognised and decoding starts. With `Engine::Ffmpeg`, this is the last reply.
    Started(Started),
    /// An in-process decoder reached the end; `damaged` counts packets that did not decode.
    Finished { damaged: u64 },
    /// The file is refused.
    Failed { failure: Failure, detail: String },
}

impl Reply {
    /// Parses a line from the child, which a malicious file may control.
    pub fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    pub engine: Engine,
    pub kind: Option<AssetKind>,
    /// Sample rate of the sound that follows, in Hz.
    pub sample_rate_hz: u32,
    pub declared_secs: Option<f64>,
    /// Findings in the bytes of a file that may be sound alone.
    pub sound: Examined,
    pub width: u32,
    pub height: u32,
    /// Why the file cannot be complete, by the lengths that it declares: half a sentence.
    pub cut_short: Option<String>,
    /// Whether it is a broadcast stream of several recordings, whose time stamps start again.
    pub joined: bool,
    /// The streams of pictures and sound that occur in a broadcast stream, by their numbers.
    pub parts: Vec<u16>,
    /// Whether these change places in the middle of it.
    pub exchanged: bool,
    /// Whether a part of it is scrambled.
    pub scrambled: bool,
    /// Whether frames are smaller than the picture. `width` and `height` are those of the picture.
    pub reduced: bool,
    /// Whether the kernel enforces the Landlock rules.
    pub landlock: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    Picture,
    Ffmpeg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    Unsupported,
    Encrypted,
    Corrupt,
    TooManyPixels,
    TooLong,
    NoPicture,
    Memory,
    Internal,
}
