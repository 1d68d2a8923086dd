//! Files to raw frames and samples, decoded in a sandboxed child process.
//!
//! The parent opens the file and hands its descriptor to a `decode-worker`, the only process that
//! looks at its bytes. [`decode`] drives the child and feeds a [`Sink`]; see `docs/media.md`.

mod attempt;
mod audio;
mod decode;
mod error;
mod ffmpeg_log;
mod image;
mod need;
mod pipe;
mod pool;
mod process;
mod protocol;
mod sandbox;
mod sniff;
mod still;
mod stream;
mod upright;
mod video;
mod work;
mod worker;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

pub use decode::{DecodeRequest, Outcome, decode};
pub use error::MediaError;
pub use pool::{DecodePool, Lane, PoolLimits, Seat};
pub use still::{Probe, probe, thumbnail_jpeg};
pub use stream::{Cancel, CancelGuard, Flow, MediaInfo, Sink};
pub use work::WorkLimits;
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
    /// What one file may cost, by its size.
    pub work: WorkLimits,
    /// What all decodes together may take.
    pub pool: PoolLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_clock_secs: 4 * 3600,
            address_space_bytes: 4 << 30,
            max_pixels: 8192 * 4320,
            max_duration_secs: 24.0 * 3600.0,
            work: WorkLimits::default(),
            pool: PoolLimits::default(),
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

/// Starts decode-workers. Clones share one pool.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// How.
    pub config: DecoderConfig,
    pool: Arc<DecodePool>,
    lane: Lane,
}

impl Decoder {
    /// A decoder with a pool of its own, for interactive work; starts nothing yet.
    #[must_use]
    pub fn new(config: DecoderConfig) -> Self {
        let pool = DecodePool::new(config.limits.pool.clone());
        Self { config, pool, lane: Lane::Interactive }
    }

    /// The same decoder and pool, for work of another urgency.
    #[must_use]
    pub fn on(&self, lane: Lane) -> Self {
        Self { lane, ..self.clone() }
    }

    /// Waits for the right to decode one file.
    ///
    /// # Errors
    /// [`MediaError::Overloaded`] for interactive work that would wait too long.
    pub async fn seat(&self) -> Result<Seat, MediaError> {
        self.pool.seat(self.lane).await
    }
}

/// Opens a file for decoding: a regular file with something in it. Blocking.
///
/// # Errors
/// [`MediaError::Open`], [`MediaError::NotAFile`], [`MediaError::Empty`].
pub fn open_media(path: &Path) -> Result<File, MediaError> {
    // NONBLOCK: opening a FIFO must not wait for a writer. It has no effect on a regular file.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|errno| MediaError::Open(errno.into()))?;
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
