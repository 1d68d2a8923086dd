//! Files to raw frames and samples, decoded in a sandboxed child process.
//!
//! The parent opens the file and hands its descriptor to a `decode-worker`, the only process that
//! looks at its bytes. [`decode`] drives the child and feeds a [`Sink`]; see `docs/media.md`.

mod audio;
mod decode;
mod error;
mod ffmpeg_log;
mod health;
mod image;
mod pipe;
mod process;
mod protocol;
mod sandbox;
mod sniff;
mod still;
mod stream;
mod video;
mod worker;

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

pub use decode::{DecodeRequest, Outcome, decode};
pub use error::{MAX_SAMPLE, MIN_SAMPLE, MediaError};
pub use health::{DecoderHealth, own_worker};
pub use still::{Probe, probe, thumbnail_jpeg};
pub use stream::{Cancel, CancelGuard, Flow, MediaInfo, Sink};
pub use worker::main as worker_main;

/// Caps that hold for every decode.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Wall-clock cap for one decode, seconds, waiting for a slow consumer not counted. The child's CPU
    /// seconds have the same cap.
    pub wall_clock_secs: u64,
    /// Address space of the child, bytes.
    pub address_space_bytes: u64,
    /// Pixels of one frame or picture.
    pub max_pixels: u64,
    /// Longest asset, seconds.
    pub max_duration_secs: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_clock_secs: 4 * 3600,
            address_space_bytes: 4 << 30,
            max_pixels: 8192 * 4320,
            max_duration_secs: 24.0 * 3600.0,
        }
    }
}

/// How to start a decode-worker.
#[derive(Debug, Clone)]
pub struct DecoderConfig {
    /// Executable that understands `decode-worker` (the triptych binary itself).
    pub worker_exe: PathBuf,
    /// ffmpeg executable.
    pub ffmpeg: PathBuf,
    /// Caps.
    pub limits: Limits,
}

/// Starts decode-workers.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// How.
    pub config: DecoderConfig,
    health: health::HealthCache,
}

impl Decoder {
    /// A decoder; starts nothing yet.
    #[must_use]
    pub fn new(config: DecoderConfig) -> Self {
        Self { config, health: health::HealthCache::default() }
    }
}

/// Opens a file for decoding: a regular file with something in it. Blocking.
///
/// # Errors
/// [`MediaError::Open`], [`MediaError::NotAFile`], [`MediaError::Empty`]; [`MediaError::Worker`] where this
/// process has no descriptor left.
pub fn open_media(path: &Path) -> Result<File, MediaError> {
    // NONBLOCK: opening a FIFO must not wait for a writer. It has no effect on a regular file.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|errno| match errno {
        // Sockets, and devices without a driver.
        Errno::NXIO | Errno::NODEV => MediaError::NotAFile,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => MediaError::Worker(format!("open: {errno}")),
        errno => MediaError::Open(errno.into()),
    })?;
    let file = File::from(fd);
    let metadata = file.metadata().map_err(MediaError::Open)?;
    if !metadata.is_file() {
        return Err(MediaError::NotAFile);
    }
    if metadata.len() == 0 {
        return Err(MediaError::Empty);
    }
    Ok(file)
}
