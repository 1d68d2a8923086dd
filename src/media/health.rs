//! Checks whether files can be decoded on this server at all. `/readyz` reports it, and after a decoder that
//! ended without a message it shows whether the server or the file is at fault.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::attempt::Bounds;
use super::decode::{Budget, caps, request};
use super::pool::Seat;
use super::process::Worker;
use super::stream::collect;
use super::{Decoder, Limits, MediaError};
use crate::decode_child::need::FFMPEG_FIRST;
use crate::decode_child::protocol::{Streams, Task};
use crate::native;

/// How long a result is valid. Anyone may request `/readyz`, and a check starts two programs.
const GOOD_FOR: Duration = Duration::from_secs(2);
const BAD_FOR: Duration = Duration::from_millis(500);
/// Longest duration of a check. After that, the decoder counts as broken.
const CHECK_SECS: u64 = 10;

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoderHealth {
    /// Whether files can be decoded.
    pub ok: bool,
    /// Version of ffmpeg, or the fault. For the log and for administrators, since it may name paths.
    pub detail: String,
}

/// The last result, shared by all clones of a [`Decoder`].
#[derive(Debug, Clone, Default)]
pub(super) struct HealthCache(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    last: Mutex<Option<(Instant, DecoderHealth)>>,
    /// Locked during a check, so that only one runs; contains the identity of ffmpeg when its bytes were last
    /// verified.
    turn: Mutex<Option<Identity>>,
}

impl Known {
    fn last(&self) -> Option<(Instant, DecoderHealth)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last result, if it is younger than `age`. A bad one is valid only for a moment.
    fn fresh(&self, age: Duration) -> Option<DecoderHealth> {
        let (when, health) = self.last()?;
        let age = if health.ok { age } else { age.min(BAD_FOR) };
        (when.elapsed() < age).then_some(health)
    }
}

/// Identity of a file, which differs once it was changed or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    mtime_secs: i64,
    mtime_nanos: i64,
}

impl Decoder {
    /// The result of a check in the last two seconds or, during a check, the previous result. `None` without
    /// one. Does not block.
    #[must_use]
    pub fn known_health(&self) -> Option<DecoderHealth> {
        let known = &self.health.0;
        let checking = || known.turn.try_lock().is_err();
        known.fresh(GOOD_FOR).or_else(|| known.last().filter(|_| checking()).map(|(_, health)| health))
    }

    /// Whether files can be decoded; the result is at most two seconds old. Starts a decode worker, and
    /// ffmpeg inside its sandbox, only one at a time. Blocks: run it on a thread of its own.
    #[must_use]
    pub fn health(&self) -> DecoderHealth {
        self.health_within(|| GOOD_FOR)
    }

    /// Like [`Self::health`], but with a result from after the failure in question.
    pub(super) fn health_now(&self, failed_at: Instant) -> DecoderHealth {
        self.health_within(|| failed_at.elapsed())
    }

    /// Whose fault it is that a decoder sent nonsense: the file's, if other files can be decoded.
    pub(super) fn blame(&self, error: MediaError) -> MediaError {
        let MediaError::Nonsense(detail) = error else { return error };
        let health = self.health_now(Instant::now());
        if !health.ok {
            return MediaError::Worker(health.detail);
        }
        tracing::warn!(detail, "a file misled its decoder");
        MediaError::Corrupt("the decoder's output is invalid".into())
    }

    /// Whether the last check failed, or ffmpeg is another file since.
    pub(super) fn is_ffmpeg_doubtful(&self) -> bool {
        if self.health.0.last().is_some_and(|(_, health)| !health.ok) {
            return true;
        }
        let whole = self.health.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        whole.as_ref().is_some_and(|whole| identity(&self.config.ffmpeg).ok().as_ref() != Some(whole))
    }

    fn health_within(&self, age: impl Fn() -> Duration) -> DecoderHealth {
        let known = &self.health.0;
        let mut looked_at = known.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(health) = known.fresh(age()) {
            return health;
        }
        let health = match self.check(&mut looked_at) {
            Ok(version) => DecoderHealth { ok: true, detail: version },
            Err(detail) => DecoderHealth { ok: false, detail },
        };
        let before = known.last().is_none_or(|(_, before)| before.ok);
        if before && !health.ok {
            tracing::error!(reason = health.detail, "cannot decode files");
        } else if !before && health.ok {
            tracing::info!("files can be decoded again");
        }
        metrics::gauge!("triptych_decoder_ok").set(if health.ok { 1.0 } else { 0.0 });
        *known.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), health.clone()));
        health
    }

    fn check(&self, looked_at: &mut Option<Identity>) -> Result<String, String> {
        let ffmpeg = &self.config.ffmpeg;
        let identity = identity(ffmpeg).map_err(|error| format!("{}: {error}", ffmpeg.display()))?;
        if looked_at.as_ref() != Some(&identity) {
            native::verify_ffmpeg(ffmpeg).map_err(|error| error.to_string())?;
            *looked_at = Some(identity);
        }
        self.say_version().map_err(|error| error.detail().map_or_else(|| error.to_string(), str::to_owned))
    }

    /// Asks ffmpeg for its version inside the sandbox.
    fn say_version(&self) -> Result<String, MediaError> {
        let nothing = std::fs::File::open("/dev/null").map_err(|e| MediaError::Worker(e.to_string()))?;
        let limits = Limits { wall_clock_secs: CHECK_SECS, ..self.config.limits.clone() };
        let budget = Budget::of(&limits, &nothing)?;
        let bounds = Bounds { ffmpeg_bytes: FFMPEG_FIRST, factor: 1, shape: Default::default() };
        let worker = Worker::start(&self.config, &nothing, &request(self, Task::Health, bounds, budget))?;
        // Takes no seat in the pool: a busy pool is not a fault.
        let seat = Seat::of_no_pool();
        let (said, ended) = collect(worker, &seat, caps(&limits, Streams::Both, budget))?;
        if let Some((_, detail)) = &ended.failed {
            return Err(MediaError::Worker(detail.clone()));
        }
        let text = String::from_utf8_lossy(&said);
        let version = text.strip_prefix("ffmpeg version ").and_then(|rest| rest.split_whitespace().next());
        match version {
            Some(version) if ended.exit.code == Some(0) => {
                Ok(format!("ffmpeg {}", version.chars().take(60).collect::<String>()))
            }
            _ => Err(MediaError::Worker(format!("ffmpeg does not start: {}", ended.last_words()))),
        }
    }
}

fn identity(path: &Path) -> std::io::Result<Identity> {
    let meta = std::fs::metadata(path)?;
    Ok(Identity {
        path: path.to_owned(),
        device: meta.dev(),
        inode: meta.ino(),
        bytes: meta.len(),
        mtime_secs: meta.mtime(),
        mtime_nanos: meta.mtime_nsec(),
    })
}

/// The program to start as decode worker: this one, even if its file on disk has been replaced.
///
/// # Errors
/// If `/proc` is not mounted and the program's own path is unknown.
pub fn own_worker() -> std::io::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { Ok(running) } else { std::env::current_exe() }
}
