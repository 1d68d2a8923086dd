//! What parent and decode-worker say to each other, over the socket that is the child's stdin.
//!
//! The parent sends one line of JSON with two descriptors: the media file and the write end of the
//! sound pipe. The child answers with lines of JSON. Frames leave through its stdout as PPM pictures
//! (`P6`, each with its own size), sound through the pipe as f32 little endian, one channel.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::filters::Shape;
use super::sound::Examined;
use crate::types::AssetKind;

/// Longest line either side accepts, bytes.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// What the parent answers to [`Reply::Need`] once the memory is there.
pub const GO: u8 = b'g';

/// What the child is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    pub task: Task,
    pub ffmpeg: PathBuf,
    pub cpu_secs: u64,
    pub address_space_bytes: u64,
    pub max_pixels: u64,
    pub max_picture_pixels: u64,
    pub max_duration_secs: f64,
    /// What ffmpeg is to do to its frames.
    #[serde(default)]
    pub shape: Shape,
    /// What ffmpeg may use, should it be needed, bytes.
    pub ffmpeg_bytes: u64,
    /// By how much other estimates of memory are multiplied: 1, or more where that was too little.
    pub memory_factor: u64,
}

impl Request {
    /// Reads a request's line; `None` for anything else.
    pub fn read(line: &[u8]) -> Option<Self> {
        let request: Self = serde_json::from_slice(line).ok()?;
        let sane = |secs: f64| secs.is_finite() && secs >= 0.0;
        let task = match request.task {
            Task::Clips { fps, seek_secs, start_secs, duration_secs, .. } => {
                let part = sane(seek_secs) && sane(start_secs) && duration_secs.is_none_or(sane);
                sane(fps) && fps > 0.0 && part
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
    /// Everything, as frames and samples.
    Clips {
        fps: f64,
        sample_rate_hz: u32,
        /// Where ffmpeg is to look for a place to begin, at or before the start.
        seek_secs: f64,
        start_secs: f64,
        duration_secs: Option<f64>,
        streams: Streams,
    },
    /// One JPEG picture on the frame pipe.
    Thumbnail {
        at_secs: f64,
        /// See `Clips`.
        seek_secs: f64,
        max_side_px: u32,
        /// The sound's beginning counts for that of the file, see `video::arguments`.
        with_sound: bool,
    },
    /// Only what the file is.
    Probe,
    /// Which of these streams, a bit for each, are films and are heard: see `tracks`.
    Survey { pictures: u64, sounds: u64 },
    /// Only whether ffmpeg starts inside the sandbox: it prints its version on the frame pipe.
    Health,
}

/// Tracks requested from ffmpeg; it refuses to start when one is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    Both,
    Video,
    Audio,
    /// The first picture, for a video shorter than half a frame period.
    FirstFrame,
}

/// What the child says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The sandbox stands; what goes wrong from here on is the file's doing.
    Reading,
    /// The header was read: how much memory the child needs, and how much the server will for what it sends.
    /// The child waits for [`GO`].
    Need { child_bytes: u64, server_bytes: u64 },
    /// The file was recognised and decoding starts. For `Engine::Ffmpeg` it is the last reply.
    Started(Started),
    /// An in-process decoder reached the end; `damaged` counts packets that did not decode.
    Finished { damaged: u64 },
    /// The file is refused.
    Failed { failure: Failure, detail: String },
}

impl Reply {
    /// Reads a line of the child's, which a file may have taken over.
    pub fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    pub engine: Engine,
    pub kind: Option<AssetKind>,
    /// Of the sound that follows.
    pub sample_rate_hz: u32,
    pub declared_secs: Option<f64>,
    /// Of a file that may be sound alone.
    pub sound: Examined,
    pub width: u32,
    pub height: u32,
    /// Why the file cannot be all there, by the lengths that it tells: half a sentence.
    pub cut_short: Option<String>,
    /// Frames are smaller than the picture, whose size this is.
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
