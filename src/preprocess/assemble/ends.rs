//! Sends clips on, cut at the declared end of the video where they reach a little past it.

use super::{Assembler, Mode, SAME_END_SECS};
use crate::media::MediaError;
use crate::preprocess::ClipTensors;
use crate::preprocess::spec::Sampling;
use crate::types::TimeSpan;

impl Assembler {
    /// The declared end of the video, if it is a little before the end of a clip: sampling rounds the end of the
    /// last frame up, codecs pad their last block, and a container may give the last of uneven frames the
    /// duration of the one before. The periods of a spread sampling end where the film's frames do.
    pub(super) fn declared_end(&self, clip: &ClipTensors) -> Option<f64> {
        let rated = clip.frames.is_none() || matches!(self.spec.sampling, Sampling::Rate { .. });
        self.declared_near(clip.span).filter(|_| rated)
    }

    pub(super) fn declared_near(&self, span: TimeSpan) -> Option<f64> {
        let near =
            |end: &f64| *end > span.start_secs && (0.0..SAME_END_SECS).contains(&(span.end_secs - end));
        self.declared_secs.filter(near).filter(|_| self.mode == Mode::Video)
    }

    /// Sends a clip, cut at the declared end of the video if that is within it. If another clip ends later,
    /// the film continues, and the declared end is wrong.
    pub(super) fn send(&mut self, mut clip: ClipTensors) -> Result<(), MediaError> {
        if let Some((mut held, whole)) = self.held.take() {
            if clip.span.end_secs > whole {
                held.span.end_secs = whole;
            }
            self.pass_on(held)?;
        }
        let Some(end) = self.declared_end(&clip) else { return self.pass_on(clip) };
        let whole = std::mem::replace(&mut clip.span.end_secs, end);
        if self.at_end {
            return self.pass_on(clip);
        }
        self.held = Some((clip, whole));
        Ok(())
    }

    pub(super) fn pass_on(&mut self, clip: ClipTensors) -> Result<(), MediaError> {
        self.last_end_secs = self.last_end_secs.max(clip.span.end_secs);
        self.out.send(clip, self.at_end)
    }
}
