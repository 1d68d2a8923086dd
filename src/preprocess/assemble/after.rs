//! Sound after the last picture of a video. It is cut into sound-only clips, like a sound file.

use super::sounding::sound_plan;
use super::{Assembler, Mode, Plan, Tail};
use crate::media::MediaError;

/// The sound after the last picture.
#[derive(Debug)]
pub(super) struct After {
    /// Index of its first sample.
    base: u64,
    /// Index after its last wanted sample; `None` if all of it is wanted.
    end: Option<u64>,
    plan: Plan,
    /// Whether pictures arrived after it had begun.
    late_pictures: bool,
}

impl Assembler {
    /// Sends the last clips with pictures; later sound is cut into clips of its own. Only the end of the file
    /// shows that no more pictures follow; it is assumed when more sound has arrived than may wait for
    /// pictures.
    pub(super) fn leave_pictures(&mut self) -> Result<(), MediaError> {
        if self.after.is_some() {
            return Ok(());
        }
        self.finish_video()?;
        self.at_end = false;
        if self.apart.is_some() {
            return Ok(());
        }
        let wanted = self.cut.end_frame.map(|end| self.sample_of(end - self.cut.first_frame));
        let plan = sound_plan(&self.spec);
        let base = self.sample_of(self.periods.unwrap_or_else(|| self.pictures.count()));
        self.after = Some(After { base, end: wanted, plan, late_pictures: false });
        Ok(())
    }

    /// Sends the clips that are complete.
    pub(super) fn emit_after(&mut self) -> Result<(), MediaError> {
        while let Some(start) = self.next_after() {
            self.send_sound(start, self.spec.sound.samples as u64)?;
        }
        if let Some(after) = &self.after {
            let there = after.there(self.sound.total());
            self.sound.forget_before(after.base + after.plan.needed_from(there));
        }
        Ok(())
    }

    fn next_after(&mut self) -> Option<u64> {
        let total = self.sound.total();
        let after = self.after.as_mut()?;
        let start = after.plan.next(after.there(total))?;
        Some(after.base + start)
    }

    /// Sends the last clips. Sound shorter than a tenth of a window gives no clip.
    pub(super) fn finish_after(&mut self) -> Result<(), MediaError> {
        self.emit_after()?;
        let Some(after) = &self.after else { return Ok(()) };
        let there = after.there(self.sound.total());
        let (base, tail) = (after.base, after.plan.tail(there));
        match tail {
            Tail::Anchored(start) => {
                self.at_end = true;
                self.send_sound(base + start, self.spec.sound.samples as u64)
            }
            Tail::Looped(count) if count * 10 >= self.spec.sound.samples as u64 => {
                self.send_sound(base, count)
            }
            Tail::Looped(_) | Tail::None => Ok(()),
        }
    }

    /// Notes pictures that arrived too late for their sound, which has been sent without them.
    pub(super) fn note_late_pictures(&mut self) {
        let at = self.pictures.count() as f64 / self.cut.fps;
        let Some(after) = self.after.as_mut().filter(|after| !after.late_pictures) else { return };
        after.late_pictures = true;
        if self.mode == Mode::Video {
            self.notes.push(format!(
                "pictures after {at:.1} s were left out: they are stored too far behind their audio"
            ));
        }
    }
}

impl After {
    /// Number of its samples among the first `total` samples.
    fn there(&self, total: u64) -> u64 {
        self.end.map_or(total, |end| total.min(end)).saturating_sub(self.base)
    }
}
