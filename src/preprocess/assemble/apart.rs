//! Sound that is cut by itself beside pictures, with a window and a stride of its own.

use tokio::sync::mpsc;

use super::sounding::sound_plan;
use super::{Assembler, Merger, Message, Plan, Tail};
use crate::media::{MediaError, WorkLimits};
use crate::preprocess::ClipSpec;
use crate::preprocess::spec::SoundSpec;

/// The clips of sound.
pub(super) struct Apart {
    plan: Plan,
    /// Equal windows of sound are merged, regardless of the pictures between them.
    out: Merger,
}

impl Apart {
    pub fn new(spec: &ClipSpec, out: mpsc::Sender<Message>) -> Self {
        Self { plan: sound_plan(spec), out: Merger::new(out) }
    }

    pub fn allow(&mut self, work: WorkLimits, file_bytes: u64, sound: &SoundSpec) {
        self.out.allow(work, file_bytes, sound.stride_secs / sound.window_secs());
    }

    pub fn release(&mut self) -> Result<(), MediaError> {
        self.out.release()
    }
}

impl Assembler {
    /// Sends the clips of sound that are complete.
    pub(super) fn emit_apart(&mut self) -> Result<(), MediaError> {
        let total = self.sound.total();
        while let Some(start) = self.apart.as_mut().and_then(|apart| apart.plan.next(total)) {
            self.send_apart(start, self.spec.sound.samples as u64, false)?;
        }
        if let Some(apart) = &self.apart {
            self.sound.forget_before(apart.plan.needed_from(total));
        }
        Ok(())
    }

    /// Sends the last clip of sound.
    pub(super) fn finish_apart(&mut self) -> Result<(), MediaError> {
        self.emit_apart()?;
        let total = self.sound.total();
        match self.apart.as_ref().map(|apart| apart.plan.tail(total)) {
            None | Some(Tail::None) => Ok(()),
            Some(Tail::Anchored(start)) => self.send_apart(start, self.spec.sound.samples as u64, true),
            Some(Tail::Looped(count)) => self.send_apart(0, count, false),
        }
    }

    fn send_apart(&mut self, start: u64, count: u64, anchored: bool) -> Result<(), MediaError> {
        let mut clip = self.sound_clip(start, count);
        // Codecs pad their last block.
        clip.span.end_secs = self.declared_end(&clip).unwrap_or(clip.span.end_secs);
        self.last_end_secs = self.last_end_secs.max(clip.span.end_secs);
        self.apart.as_mut().map_or(Ok(()), |apart| apart.out.send(clip, anchored))
    }
}
