//! A child, and a second one with more memory where the first one's bounds turned out too narrow.

use super::need::FFMPEG_FIRST;
use super::stream::Ended;
use super::{Limits, MediaError};

/// How much more a child gets that ran out of memory before it gave anything: its estimate was wrong.
const MORE: u64 = 4;

/// What a child may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// ffmpeg, bytes.
    pub ffmpeg_bytes: u64,
    /// By how much the child's own estimates are multiplied.
    pub factor: u64,
}

/// Runs children until one had memory enough, or what a file may use at most.
pub fn with_memory<T>(
    limits: &Limits,
    mut run: impl FnMut(Bounds) -> Result<(T, Ended), MediaError>,
) -> Result<(T, Ended), MediaError> {
    let most = limits.address_space_bytes;
    let mut bounds = Bounds { ffmpeg_bytes: FFMPEG_FIRST.min(most), factor: 1 };
    let (mut told, mut starved) = (false, false);
    loop {
        let (value, ended) = run(bounds)?;
        if let Some(bytes) = ended.wants.filter(|_| !told) {
            told = true;
            bounds.ffmpeg_bytes = bytes.min(most);
        } else if ended.starved() && ended.frames + ended.samples == 0 && !starved {
            starved = true;
            bounds.factor = MORE;
            bounds.ffmpeg_bytes = bounds.ffmpeg_bytes.max(ended.granted).saturating_mul(MORE).min(most);
        } else {
            return Ok((value, ended));
        }
    }
}
