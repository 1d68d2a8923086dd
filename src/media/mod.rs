//! Files to raw frames and samples, decoded in a sandboxed child process.

use std::path::PathBuf;

/// Caps that hold for every decode.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Wall-clock cap for one decode, seconds; also scaled by nothing: a hard stop.
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
}

impl Decoder {
    /// A decoder; starts nothing yet.
    #[must_use]
    pub fn new(config: DecoderConfig) -> Self {
        Self { config }
    }
}

/// Why a file could not be read. `code()` is the stable snake_case code of the HTTP API.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// Nothing in the file.
    #[error("the file is empty")]
    Empty,
}

impl MediaError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "empty_file"
    }
}
