//! Where the decoded data goes.

use super::MediaInfo;
use crate::media::MediaError;

/// Whether a sink wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Yes: continue.
    More,
    /// No: end the child.
    Stop,
}

/// Receives the decoded data. Frames and sound arrive in no fixed order: a sink that needs both must buffer
/// one of them and bound the buffer. Calls may block; their time is not charged to the file.
pub trait Sink {
    /// Called before the first data, and again if another child is needed for the picture.
    ///
    /// # Errors
    /// An error ends the decode.
    fn started(&mut self, info: &MediaInfo) -> Result<(), MediaError>;
    /// Takes one upright frame as RGB, `width * height * 3` bytes, that lasts this many sampling periods (at
    /// least one).
    ///
    /// # Errors
    /// An error ends the decode.
    fn frame(&mut self, width: u32, height: u32, rgb: &[u8], periods: u64) -> Result<Flow, MediaError>;
    /// Takes some samples, all finite.
    ///
    /// # Errors
    /// An error ends the decode.
    fn sound(&mut self, samples: &[f32]) -> Result<Flow, MediaError>;
    /// Called when no more sound will follow.
    ///
    /// # Errors
    /// An error ends the decode.
    fn sound_ended(&mut self) -> Result<Flow, MediaError>;
}

/// A sink for children that send neither frames nor sound.
pub(super) struct Nothing;

impl Sink for Nothing {
    fn started(&mut self, _: &MediaInfo) -> Result<(), MediaError> {
        Ok(())
    }
    fn frame(&mut self, _: u32, _: u32, _: &[u8], _: u64) -> Result<Flow, MediaError> {
        Ok(Flow::Stop)
    }
    fn sound(&mut self, _: &[f32]) -> Result<Flow, MediaError> {
        Ok(Flow::Stop)
    }
    fn sound_ended(&mut self) -> Result<Flow, MediaError> {
        Ok(Flow::More)
    }
}
