//! Which tracks of a file pictures and sound come from.

use serde::{Deserialize, Serialize};

/// Streams looked at, by their index: masks have as many bits.
pub const MAX_STREAMS: u16 = 64;

/// Where the pictures come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The first video stream that is no cover art.
    #[default]
    Film,
    /// This stream.
    Stream(u16),
    /// The tiles of this group, put together.
    Tiles(u16),
}

impl Source {
    /// Of the stream or group.
    pub const fn number(self) -> u16 {
        match self {
            Self::Film => 0,
            Self::Stream(number) | Self::Tiles(number) => number,
        }
    }
}

/// Which sound is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// The first sound track.
    #[default]
    First,
    /// This stream.
    Stream(u16),
    /// The mean of these streams, a bit for each.
    Mean(u64),
}

/// Where pictures and sound come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Picks {
    pub picture: Source,
    pub sound: Heard,
}

pub const fn bit(index: u16) -> u64 {
    if index < MAX_STREAMS { 1 << index } else { 0 }
}

/// The streams of a mask, from the first on.
pub fn streams_of(mask: u64) -> impl Iterator<Item = u16> {
    (0..MAX_STREAMS).filter(move |index| mask & bit(*index) != 0)
}
