//! Decodes files to raw frames and samples in a sandboxed child process.
//!
//! The parent opens the file and passes its descriptor to a `decode-worker`, the only process that looks at
//! its bytes. [`decode`] drives the child and feeds a [`Sink`]; see `docs/media.md`.

mod attempt;
mod decode;
mod ending;
mod error;
mod health;
mod pipe;
mod pool;
mod process;
mod still;
mod stream;
mod work;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

pub use decode::{DecodeRequest, Outcome, decode};
pub use error::{MAX_SAMPLE, MIN_SAMPLE, MediaError};
pub use health::{DecoderHealth, own_worker};
pub use pool::{DecodePool, Lane, PoolLimits, Seat};
pub use still::{Film, Probe, Thumbnail, film, probe, thumbnail_jpeg};
pub use stream::{Cancel, CancelGuard, Flow, MediaInfo, Sink};
pub use work::WorkLimits;

/// Limits for every decode.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Limit on the wall-clock time of one decode, in seconds, without the time spent waiting for a slow
    /// consumer. The child's CPU seconds have the same limit.
    pub wall_clock_secs: u64,
    /// Address space of the child, in bytes.
    pub address_space_bytes: u64,
    /// Most pixels of one frame of a film. A larger picture is reduced by a power of two while it is decoded.
    pub max_pixels: u64,
    /// Most pixels of one picture, as stored.
    pub max_picture_pixels: u64,
    /// Longest asset, in seconds.
    pub max_duration_secs: f64,
    /// Work that one file may cause, by its size.
    pub work: WorkLimits,
    /// Resources of all decodes together.
    pub pool: PoolLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_clock_secs: 4 * 3600,
            address_space_bytes: 4 << 30,
            max_pixels: 8192 * 4320,
            max_picture_pixels: 1 << 28,
            max_duration_secs: 24.0 * 3600.0,
            work: WorkLimits::default(),
            pool: PoolLimits::default(),
        }
    }
}

/// How to start a decode worker.
#[derive(Debug, Clone)]
pub struct DecoderConfig {
    /// Executable with the `decode-worker` command, normally the triptych binary itself.
    pub worker_exe: PathBuf,
    /// The ffmpeg executable.
    pub ffmpeg: PathBuf,
    /// Limits for every decode.
    pub limits: Limits,
}

/// Starts decode workers. Clones share one pool.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Paths of the programs, and the limits of every decode.
    pub config: DecoderConfig,
    health: health::HealthCache,
    pool: Arc<DecodePool>,
    lane: Lane,
}

impl Decoder {
    /// A decoder with its own pool, for interactive work. Starts no process yet.
    #[must_use]
    pub fn new(config: DecoderConfig) -> Self {
        let pool = DecodePool::new(config.limits.pool.clone());
        Self { config, health: health::HealthCache::default(), pool, lane: Lane::Interactive }
    }

    /// The same decoder and pool, for work of the given class.
    #[must_use]
    pub fn on(&self, lane: Lane) -> Self {
        Self { lane, ..self.clone() }
    }

    /// Waits for a seat to decode one file.
    ///
    /// # Errors
    /// [`MediaError::Overloaded`] for interactive work that would wait too long.
    pub async fn seat(&self) -> Result<Seat, MediaError> {
        self.pool.seat(self.lane).await
    }
}

/// Opens a file for decoding, which must be regular and not empty. Blocks.
///
/// # Errors
/// [`MediaError::Open`], [`MediaError::NotAFile`], [`MediaError::Empty`]; [`MediaError::Worker`] if this
/// process has no descriptor left.
pub fn open_media(path: &Path) -> Result<File, MediaError> {
    // NONBLOCK: opening a FIFO must not wait for a writer. It has no effect on a regular file.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|errno| match errno {
        // A socket, or a device without a driver.
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

/// See [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzzed {
    use super::MAX_SAMPLE;
    use super::pipe::{FrameReader, SoundReader};
    use crate::decode_child::arguments::{Known, arguments};
    use crate::decode_child::protocol::{Engine, Reply, Request, Started, Streams, Task};
    use crate::ffmpeg::said::FfmpegLog;

    pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
        let clips = Task::Clips {
            sampling: crate::ffmpeg::sampling::Sampling::Nearest(10.0),
            sample_rate_hz: 48_000,
            seek_secs: 1.5,
            start_secs: 1.5,
            duration_secs: Some(3.2),
            streams: Streams::Both,
        };
        let thumbnail = Task::Thumbnail { at_secs: 2.0, seek_secs: 2.0, max_side_px: 320, with_sound: true };
        let tasks = [clips, thumbnail, Task::Probe, Task::Health];
        let line = |task| {
            serde_json::to_vec(&Request {
                task,
                ffmpeg: "/usr/bin/ffmpeg".into(),
                cpu_secs: 60,
                address_space_bytes: 4 << 30,
                max_pixels: 8192 * 4320,
                max_picture_pixels: 1 << 28,
                max_duration_secs: 86_400.0,
                shape: Default::default(),
                ffmpeg_bytes: 1 << 28,
                from: 0,
                memory_factor: 1,
            })
            .unwrap()
        };
        tasks.map(line).to_vec()
    }

    /// Any request that the child accepts gives a command line.
    pub(crate) fn request(bytes: &[u8]) {
        if let Some(request) = Request::read(bytes) {
            let known = Known {
                demuxers: "wav",
                picture: false,
                untimed: false,
                plain: false,
                raw: None,
                one_clock: false,
                part: None,
            };
            let arguments = arguments(&request, known, 3, 4);
            assert!(!arguments.is_empty());
        }
    }

    pub(crate) fn reply_seeds() -> Vec<Vec<u8>> {
        let started = Started {
            engine: Engine::Picture,
            kind: None,
            sample_rate_hz: 44_100,
            declared_secs: Some(1.5),
            sound: crate::structure::sound::Examined { holes: vec![(1.5, 0.25)], ..Default::default() },
            width: 0,
            height: 0,
            cut_short: None,
            landlock: true,
            joined: false,
            scrambled: false,
            parts: Vec::new(),
            exchanged: false,
            reduced: false,
        };
        let failure = crate::decode_child::protocol::Failure::Corrupt;
        let replies = [
            Reply::Reading,
            Reply::Need { child_bytes: 1 << 24, server_bytes: 0 },
            Reply::Started(started),
            Reply::Finished { damaged: 3 },
            Reply::Failed { failure, detail: "cut".into() },
        ];
        let line = |reply: &Reply| [serde_json::to_vec(reply).unwrap(), vec![b'\n']].concat();
        let all = replies.iter().flat_map(line).collect();
        replies.iter().map(line).chain([all]).collect()
    }

    /// Replies of a child, in pieces of any size.
    pub(crate) fn reply(bytes: &[u8]) {
        super::stream::hear(bytes);
    }

    pub(crate) fn log_seeds() -> Vec<Vec<u8>> {
        vec![
            b"[info] Input #0, mov,mp4, from 'fd:':\n[info]   Duration: 00:01:09.64, start: 0.000000, bitrate: 631 kb/s\n\
              [info]   Stream #0:0: Video: h264, yuv420p, 640x360, 495 kb/s\n[info]   Stream #0:1: Audio: mp3\n"
                .to_vec(),
            b"[h264 @ 0x55] [error] Picture size 8192x8192 exceeds specified max pixel count 100\n\
              [info] Exiting normally, received signal 15.\n"
                .to_vec(),
        ]
    }

    /// The stored part of ffmpeg's log is bounded, and its numbers are finite.
    pub(crate) fn log(bytes: &[u8]) {
        let (mut whole, mut pieces) = (FfmpegLog::default(), FfmpegLog::default());
        whole.feed(bytes);
        bytes.chunks(7).for_each(|piece| pieces.feed(piece));
        assert_eq!((&whole.errors, whole.duration_secs), (&pieces.errors, pieces.duration_secs));
        assert!(whole.errors.len() <= 12 && whole.errors.iter().all(|error| error.chars().count() <= 200));
        assert!(whole.duration_secs.is_none_or(|secs| secs.is_finite() && secs > 0.0));
        let _ = whole.main_error();
    }

    pub(crate) fn pipe_seeds() -> Vec<Vec<u8>> {
        let sound: Vec<u8> = (0..200).flat_map(|i| (i as f32 / 200.0).to_le_bytes()).collect();
        vec![[&b"P6\n2 2\n255\n"[..], &[7; 12], b"P6\n2 2\n255\n", &[8; 12]].concat(), sound]
    }

    /// Frames have the size that they declare, within the limit; samples are within theirs.
    pub(crate) fn pipes(bytes: &[u8]) {
        const MAX_PIXELS: u64 = 10_000;
        let (mut frames, mut rest) = (FrameReader::new(MAX_PIXELS), bytes);
        while !rest.is_empty() {
            let space = frames.space();
            let n = space.len().min(rest.len());
            space[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            frames.filled(n);
            match frames.complete() {
                Err(_) => break,
                Ok(false) => {}
                Ok(true) => {
                    let pixels = u64::from(frames.width) * u64::from(frames.height);
                    assert!(pixels > 0 && pixels <= MAX_PIXELS && frames.pixels().len() as u64 == pixels * 3);
                    frames.next();
                }
            }
        }
        let mut sound = SoundReader::default();
        for piece in bytes.chunks(13) {
            sound.space()[..piece.len()].copy_from_slice(piece);
            match sound.take(piece.len()) {
                Ok(samples) => assert!(samples.iter().all(|sample| sample.abs() <= MAX_SAMPLE)),
                Err(bad) => {
                    assert!(bad.value.is_nan() || bad.value.abs() > MAX_SAMPLE);
                    break;
                }
            }
        }
    }
}
