//! Output of the assembler. Merges neighbouring clips with equal tensors, and limits the number of clips by
//! the size of the file.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Message;
use crate::media::{MediaError, WorkLimits};
use crate::preprocess::{ClipTensors, PatchGrid};

/// Largest gap between windows that count as touching, in seconds.
const TOUCHING_SECS: f64 = 1e-6;

/// Merges clips and sends them to the caller.
pub struct Merger {
    out: mpsc::Sender<Message>,
    /// The last clip, with which the next one may be merged.
    held: Option<ClipTensors>,
    sent: u64,
    bound: Option<Bound>,
}

struct Bound {
    work: WorkLimits,
    file_bytes: u64,
    clips: u64,
}

impl Merger {
    pub fn new(out: mpsc::Sender<Message>) -> Self {
        Self { out, held: None, sent: 0, bound: None }
    }

    /// Limits the number of clips by the size of the file; `stride` is in windows.
    pub fn allow(&mut self, work: WorkLimits, file_bytes: u64, stride: f64) {
        self.bound = Some(Bound { work, file_bytes, clips: work.clips(file_bytes, stride) });
    }

    /// Takes a clip and merges it with the previous one, or else sends the previous one. The clip anchored at
    /// the end overlaps the previous one, so it is merged only if that one already has several windows.
    pub fn send(&mut self, clip: ClipTensors, anchored: bool) -> Result<(), MediaError> {
        match &mut self.held {
            Some(held) if (!anchored || held.windows > 1) && continues(held, &clip) => {
                held.span.end_secs = held.span.end_secs.max(clip.span.end_secs);
                held.windows += clip.windows;
                Ok(())
            }
            held => {
                let before = held.replace(clip);
                before.map_or(Ok(()), |before| self.deliver(before))
            }
        }
    }

    /// Sends the buffered clip.
    pub fn release(&mut self) -> Result<(), MediaError> {
        self.held.take().map_or(Ok(()), |clip| self.deliver(clip))
    }

    fn deliver(&mut self, clip: ClipTensors) -> Result<(), MediaError> {
        if let Some(bound) = self.bound.as_ref().filter(|bound| self.sent >= bound.clips) {
            return Err(bound.work.too_many_clips(bound.file_bytes, bound.clips));
        }
        self.sent += 1;
        self.out
            .blocking_send(Message::Clip(clip))
            .map_err(|_| MediaError::Worker("the caller no longer waits for the clips".into()))
    }
}

/// Whether a clip has the same tensors as the previous one and touches it.
fn continues(before: &ClipTensors, clip: &ClipTensors) -> bool {
    clip.span.start_secs <= before.span.end_secs + TOUCHING_SECS
        && clip.same_frames(before.frames.as_ref(), before.patch_grid)
        && clip.same_pcm(before.pcm.as_ref(), before.pcm_samples)
}

impl ClipTensors {
    /// Whether the pictures equal those of another clip, byte for byte.
    #[must_use]
    pub fn same_frames(&self, other: Option<&Arc<[u8]>>, grid: Option<PatchGrid>) -> bool {
        match (&self.frames, other) {
            (Some(_), Some(_)) if self.patch_grid != grid => false,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    /// Whether the sound equals that of another clip, bit for bit.
    #[must_use]
    pub fn same_pcm(&self, other: Option<&Arc<[f32]>>, samples: usize) -> bool {
        match (&self.pcm, other) {
            (Some(_), Some(_)) if self.pcm_samples != samples => false,
            (Some(a), Some(b)) => {
                Arc::ptr_eq(a, b)
                    || a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.to_bits() == b.to_bits())
            }
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}
