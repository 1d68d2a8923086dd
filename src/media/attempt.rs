//! Runs a decode child, and another one if the first showed that the file needs more memory or other filters.

use super::stream::Ended;
use super::{Decoder, MediaError};
use crate::decode_child::need::FFMPEG_FIRST;
use crate::ffmpeg::filters::Shape;

/// Factor by which memory grows where an estimate was wrong: for a child that ran out of it before any output, and for
/// one that needs more than was measured for the same file before. (What a child has already taken when it is measured
/// depends on the moment.)
const MORE: u64 = 4;
/// Most retries of a child that ran out of memory. With the default limits, they reach what one file may use.
const TRIES: u32 = 2;

/// Memory and filters of one child.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory for ffmpeg, in bytes.
    pub ffmpeg_bytes: u64,
    /// Factor for the child's own estimates.
    pub factor: u64,
    /// How ffmpeg transforms its frames.
    pub shape: Shape,
}

/// Runs children until one had enough memory, or the most that a file may use, and the filters that its file
/// needs.
pub fn with_bounds<T>(
    decoder: &Decoder,
    shape: Shape,
    mut run: impl FnMut(Bounds) -> Result<(T, Ended), MediaError>,
) -> Result<(T, Ended), MediaError> {
    let most = decoder.config.limits.address_space_bytes;
    let mut bounds = Bounds { ffmpeg_bytes: FFMPEG_FIRST.min(most), factor: 1, shape };
    let (mut measured, mut tries, mut shaped) = (false, 0, false);
    loop {
        let (value, ended) = run(bounds).map_err(|error| decoder.blame(error))?;
        let more = if measured { MORE } else { 1 };
        let bytes = ended.wants.map(|bytes| bytes.saturating_mul(more).min(most));
        // Each repetition gives more than before, up to the most, so this ends.
        let bytes = bytes.filter(|bytes| !measured || *bytes > bounds.ffmpeg_bytes);
        let shape = ended.wants_shape.filter(|_| !shaped);
        if bytes.is_some() || shape.is_some() {
            (measured, shaped) = (measured || bytes.is_some(), shaped || shape.is_some());
            bounds.ffmpeg_bytes = bytes.unwrap_or(bounds.ffmpeg_bytes);
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
