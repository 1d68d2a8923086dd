//! Checks whether a child that seeks has reached a position from which the wanted part can be read.

use super::{Pump, read};
use crate::decode_child::protocol::{Started, Streams};
use crate::ffmpeg::timing::must_begin_at_the_beginning;
use crate::media::MediaError;
use crate::media::process::Worker;
use crate::types::AssetKind;

/// Most sound before the first picture, in bytes: a minute and a half.
const MAX_HELD: usize = 16 << 20;

/// The position that a child must reach after a seek.
#[derive(Debug, Clone, Copy)]
pub struct Sought {
    /// Latest start of its first picture, in the unit of the times in its log.
    pub latest: i64,
    /// Start of the wanted part, in seconds.
    pub start_secs: f64,
}

/// Why the child was ended and must seek elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// Its first picture is later than the start of the part.
    Late,
    /// In this file, no position can be found but the beginning.
    Unfindable,
}

impl Pump<'_> {
    /// Checks the child's position. Returns whether it is wrong, so that the child must end.
    pub(super) fn look_at_place(&mut self) -> bool {
        let Some(sought) = self.caps.sought.filter(|_| self.ended.log.mapped) else { return false };
        // A child that counts samples has begun at the beginning, and so has one whose file is not a film.
        let began = |started: &Started| started.sound.starts_over() || started.kind == Some(AssetKind::Image);
        if self.ended.started.as_ref().is_some_and(began) {
            return false;
        }
        let log = &self.ended.log;
        let behind_the_end = log.duration_secs.is_some_and(|secs| sought.start_secs >= secs);
        let joined = self.ended.started.as_ref().is_some_and(|started| started.joined);
        if must_begin_at_the_beginning(&log.format, self.caps.file_bytes)
            || behind_the_end
            || joined
            || log.wraps
        {
            self.ended.misplaced = Some(Misplaced::Unfindable);
        } else if self.pictures_wanted() {
            // At the end of a stream without pictures, the filter logs a first one all the same.
            let nothing = if self.frames_open {
                log.first.is_none() && self.held.len() > MAX_HELD
            } else {
                !self.pictured
            };
            if nothing || log.first.is_some_and(|first| first > sought.latest) {
                self.ended.misplaced = Some(Misplaced::Late);
            }
        }
        self.ended.misplaced.is_some()
    }

    fn pictures_wanted(&self) -> bool {
        let film = self.ended.started.as_ref().is_none_or(|started| started.kind.is_none());
        film && (self.raw.is_some() || matches!(self.caps.streams, Streams::Both | Streams::Video))
    }

    /// Whether the child's position is still to be determined.
    pub(super) fn placing(&self) -> bool {
        let unknown = !self.pictured && self.frames_open && self.held.len() <= MAX_HELD;
        unknown && self.caps.sought.is_some() && self.pictures_wanted()
    }

    /// Buffers sound until it is known whether the child is at the right position. If it stayed in the pipe,
    /// the child would block and no picture would come.
    pub(super) fn hold_sound(&mut self, worker: &Worker) -> Result<(), MediaError> {
        let mut bytes = [0; 1 << 14];
        match read(&worker.sound, &mut bytes)? {
            None => {}
            Some(0) => self.sound_done = true,
            Some(n) => self.held.extend(&bytes[..n]),
        }
        Ok(())
    }

    /// Reads sound into its buffer, buffered sound first. 0 means the end.
    pub(super) fn sound_bytes(&mut self, worker: &Worker) -> Result<Option<usize>, MediaError> {
        if self.held.is_empty() {
            return if self.sound_done { Ok(Some(0)) } else { read(&worker.sound, self.sound.space()) };
        }
        let space = self.sound.space();
        let count = space.len().min(self.held.len());
        space.iter_mut().zip(self.held.drain(..count)).for_each(|(to, byte)| *to = byte);
        Ok(Some(count))
    }

    /// Whether there is sound that can be read without waiting.
    pub(super) fn sound_is_held(&self) -> bool {
        self.sound_open && (!self.held.is_empty() || self.sound_done)
    }
}
