//! A child, and a second one where the first showed that it needs more memory, or other filters.

use super::filters::Shape;
use super::need::FFMPEG_FIRST;
use super::stream::Ended;
use super::{Limits, MediaError};

/// How much more a child gets that ran out of memory before it gave anything: its estimate was wrong.
const MORE: u64 = 4;
/// How often: up to what one file may use, where that is as much as it is by default.
const TRIES: u32 = 2;

/// What a child may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// ffmpeg, bytes.
    pub ffmpeg_bytes: u64,
    /// By how much the child's own estimates are multiplied.
    pub factor: u64,
    /// What ffmpeg is to do to its frames.
    pub shape: Shape,
}

/// Runs children until one had memory enough, or what a file may use at most, and the filters its file needs.
pub fn with_bounds<T>(
    limits: &Limits,
    shape: Shape,
    mut run: impl FnMut(Bounds) -> Result<(T, Ended), MediaError>,
) -> Result<(T, Ended), MediaError> {
    let most = limits.address_space_bytes;
    let mut bounds = Bounds { ffmpeg_bytes: FFMPEG_FIRST.min(most), factor: 1, shape };
    let (mut told, mut tries, mut shaped) = (false, 0, false);
    loop {
        let (value, ended) = run(bounds)?;
        let (bytes, shape) = (ended.wants.filter(|_| !told), ended.wants_shape.filter(|_| !shaped));
        if bytes.is_some() || shape.is_some() {
            (told, shaped) = (told || bytes.is_some(), shaped || shape.is_some());
            bounds.ffmpeg_bytes = bytes.map_or(bounds.ffmpeg_bytes, |bytes| bytes.min(most));
            bounds.shape = shape.unwrap_or(bounds.shape);
        } else if ended.starved()
            && ended.frames + ended.samples == 0
            && tries < TRIES
            && ended.granted < most
        {
            tries += 1;
            bounds.factor *= MORE;
            bounds.ffmpeg_bytes = bounds.ffmpeg_bytes.max(ended.granted).saturating_mul(MORE).min(most);
        } else {
            return Ok((value, ended));
        }
    }
}
