//! The streams that pictures and sound are read from.

use serde::{Deserialize, Serialize};

/// Number of streams considered, by index; masks have this many bits.
pub const MAX_STREAMS: u16 = 64;

/// Source of the pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The first video stream that is not cover art.
    #[default]
    Film,
    /// The stream of this index.
    Stream(u16),
    /// The tiles of this stream group, assembled.
    Tiles(u16),
}

impl Source {
    /// Number of the stream or group; 0 for [`Self::Film`].
    pub const fn number(self) -> u16 {
        match self {
            Self::Film => 0,
            Self::Stream(number) | Self::Tiles(number) => number,
        }
    }
}

/// Source of the sound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// The first sound track.
    #[default]
    First,
    /// The stream of this index.
    Stream(u16),
    /// The mean of these streams, one bit each.
    Mean(u64),
}

/// Sources of pictures and sound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Picks {
    pub picture: Source,
    pub sound: Heard,
}

pub const fn bit(index: u16) -> u64 {
    if index < MAX_STREAMS { 1 << index } else { 0 }
}

/// Indexes of the streams in a mask, ascending.
pub fn streams_of(mask: u64) -> impl Iterator<Item = u16> {
    (0..MAX_STREAMS).filter(move |index| mask & bit(*index) != 0)
}
