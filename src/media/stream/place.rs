//! Whether a child that was told to seek has come to a place from which the wanted part can be read.

use super::{Pump, read};
use crate::media::MediaError;
use crate::media::process::Worker;
use crate::media::protocol::{Started, Streams};
use crate::media::timing::must_begin_at_the_beginning;
use crate::types::AssetKind;

/// Sound that may come before the first picture does, bytes: a minute and a half.
const MAX_HELD: usize = 16 << 20;

/// A child that was told to seek.
#[derive(Debug, Clone, Copy)]
pub struct Sought {
    /// Its first picture must not begin later, in the unit of the times in its log.
    pub latest: i64,
    /// Where the wanted part begins, seconds.
    pub start_secs: f64,
}

/// Why the child was ended, and must seek elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// Its first picture came later than the part begins.
    Late,
    /// No place in this file can be found but its beginning.
    Unfindable,
}

impl Pump<'_> {
    /// Ends a child that is in the wrong place; gives whether it is.
    pub(super) fn look_at_place(&mut self) -> bool {
        let Some(sought) = self.caps.sought.filter(|_| self.ended.log.mapped) else { return false };
        // What counts samples has begun at the beginning, as has what is no film.
        let began = |started: &Started| started.sound.untimed || started.kind == Some(AssetKind::Image);
        if self.ended.started.as_ref().is_some_and(began) {
            return false;
        }
        let log = &self.ended.log;
        let behind_the_end = log.duration_secs.is_some_and(|secs| sought.start_secs >= secs);
        if must_begin_at_the_beginning(&log.format, self.caps.file_bytes) || behind_the_end {
            self.ended.misplaced = Some(Misplaced::Unfindable);
        } else if self.pictures_wanted() {
            // At the end of pictures of which there were none, the filter tells of a first one all the same.
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

    /// Whether it is not known yet if the child is in the right place.
    pub(super) fn placing(&self) -> bool {
        let unknown = !self.pictured && self.frames_open && self.held.len() <= MAX_HELD;
        unknown && self.caps.sought.is_some() && self.pictures_wanted()
    }

    /// Keeps sound until it is known whether the child is in the right place: were it left in the pipe, the
    /// child would wait and no picture come.
    pub(super) fn hold_sound(&mut self, worker: &Worker) -> Result<(), MediaError> {
        let mut bytes = [0; 1 << 14];
        match read(&worker.sound, &mut bytes)? {
            None => {}
            Some(0) => self.sound_done = true,
            Some(n) => self.held.extend(&bytes[..n]),
        }
        Ok(())
    }

    /// Reads sound into its place: what was held first. 0 is the end.
    pub(super) fn sound_bytes(&mut self, worker: &Worker) -> Result<Option<usize>, MediaError> {
        if self.held.is_empty() {
            return if self.sound_done { Ok(Some(0)) } else { read(&worker.sound, self.sound.space()) };
        }
        let space = self.sound.space();
        let count = space.len().min(self.held.len());
        space.iter_mut().zip(self.held.drain(..count)).for_each(|(to, byte)| *to = byte);
        Ok(Some(count))
    }

    /// Whether sound is there that need not be waited for.
    pub(super) fn sound_is_held(&self) -> bool {
        self.sound_open && (!self.held.is_empty() || self.sound_done)
    }
}
