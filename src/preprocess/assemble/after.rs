//! Sound after the last picture of a video: clips of sound alone, cut as a sound file is.

use super::{Assembler, Mode, Plan, Tail};
use crate::media::MediaError;

/// Where the sound after the last picture is.
#[derive(Debug)]
pub(super) struct After {
    /// Its first sample.
    base: u64,
    /// Behind its last sample, where less than all of it is wanted.
    end: Option<u64>,
    plan: Plan,
    /// Pictures came after it had begun.
    late_pictures: bool,
}

impl Assembler {
    /// The last clips with pictures; what is heard from here on is cut into clips of its own. Pictures may be known
    /// to be the last ones only at the end of the file, or when more sound has come than can wait for others.
    pub(super) fn leave_pictures(&mut self) -> Result<(), MediaError> {
        if self.after.is_some() {
            return Ok(());
        }
        self.finish_video()?;
        self.at_end = false;
        let rate = f64::from(self.spec.sample_rate_hz);
        let wanted = self.cut.end_frame.map(|end| self.sample_of(end - self.cut.first_frame));
        let plan = Plan::new(self.spec.samples as u64, self.spec.stride_secs * rate);
        let base = self.sample_of(self.blocks.count);
        self.after = Some(After { base, end: wanted, plan, late_pictures: false });
        Ok(())
    }

    /// The clips of it that are complete.
    pub(super) fn emit_after(&mut self) -> Result<(), MediaError> {
        while let Some(start) = self.next_after() {
            self.send_sound(start, self.spec.samples as u64)?;
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

    /// The last ones. What is less than a tenth of a window is no clip.
    pub(super) fn finish_after(&mut self) -> Result<(), MediaError> {
        self.emit_after()?;
        let Some(after) = &self.after else { return Ok(()) };
        let there = after.there(self.sound.total());
        let (base, tail) = (after.base, after.plan.tail(there));
        match tail {
            Tail::Anchored(start) => {
                self.at_end = true;
                self.send_sound(base + start, self.spec.samples as u64)
            }
            Tail::Looped(count) if count * 10 >= self.spec.samples as u64 => self.send_sound(base, count),
            Tail::Looped(_) | Tail::None => Ok(()),
        }
    }

    /// Pictures that came too late for their sound, which had to go on without them.
    pub(super) fn note_late_pictures(&mut self) {
        let at = self.blocks.count as f64 / self.cut.fps;
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
    /// How much of it there is, of so many samples in all.
    fn there(&self, total: u64) -> u64 {
        self.end.map_or(total, |end| total.min(end)).saturating_sub(self.base)
    }
}
