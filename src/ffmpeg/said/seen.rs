//! Interprets the numbers that a survey prints to the log.

use std::collections::BTreeMap;

use super::Stream;
use crate::ffmpeg::picks::{MAX_STREAMS, bit};

/// Offsets of the numbers that a survey prints to the log, and the distance between streams.
pub const PICTURE_BASE: i64 = 6_000_000_000_000_000;
pub const SOUND_BASE: i64 = 7_000_000_000_000_000;
pub const STREAM_STEP: i64 = 1_000_000_000_000;

/// Findings of a survey so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Number of packets of each stream of pictures; only some packets are logged.
    pub packets: BTreeMap<u16, u64>,
    /// Streams with audible sound, one bit each.
    pub heard: u64,
}

impl Seen {
    /// Takes a number from the log. Returns whether it belongs to a survey.
    pub fn take(&mut self, number: i64) -> bool {
        let (base, picture) = if number < SOUND_BASE { (PICTURE_BASE, true) } else { (SOUND_BASE, false) };
        let Some(offset) = number.checked_sub(base).filter(|offset| *offset >= 0) else { return false };
        let Some(index) = u16::try_from(offset / STREAM_STEP).ok().filter(|index| *index < MAX_STREAMS)
        else {
            return false;
        };
        if picture {
            let packets = (offset % STREAM_STEP).unsigned_abs() + 1;
            let most = self.packets.entry(index).or_default();
            *most = packets.max(*most);
        } else {
            self.heard |= bit(index);
        }
        true
    }

    pub fn packets(&self, stream: &Stream) -> u64 {
        self.packets.get(&stream.info.index).copied().unwrap_or(0)
    }
}
