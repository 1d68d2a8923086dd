//! The sound of clips, and of files that have nothing else.

use std::sync::Arc;

use super::pictures::Window;
use super::{Assembler, MAX_WAITING_SAMPLES, Mode, Plan, Tail};
use crate::media::MediaError;
use crate::preprocess::spec::SoundSpec;
use crate::preprocess::{ClipSpec, ClipTensors, sound};
use crate::types::TimeSpan;

/// Windows of sound that is cut by itself.
pub(super) fn sound_plan(spec: &ClipSpec) -> Plan {
    let SoundSpec { sample_rate_hz, samples, stride_secs, .. } = spec.sound;
    let stride_secs = if spec.sound_apart { stride_secs } else { spec.stride_secs };
    Plan::new(samples as u64, stride_secs * f64::from(sample_rate_hz))
}

impl Assembler {
    pub(super) fn become_sound(&mut self) {
        self.mode = Mode::Sound;
        self.plan = sound_plan(&self.spec);
    }

    /// Number of samples of a window's own seconds.
    pub(super) fn samples_of(&self, window: &Window) -> u64 {
        if window.whole {
            return self.spec.sound.samples as u64;
        }
        self.sample_of(window.periods).min(self.spec.sound.samples as u64)
    }

    /// The sound of a window's own seconds, and how many of its samples are real; `None` if hardly any are.
    pub(super) fn sound_of_window(&self, window: &Window) -> Option<(Arc<[f32]>, usize)> {
        if self.apart.is_some() {
            return None;
        }
        let (start, len) = (self.sample_of(window.start), self.samples_of(window) as usize);
        let real = self.sound.real(start, len);
        let heard = real * 10 >= len && real > 0;
        heard.then(|| sound::tensor(&self.spec.sound, self.sound.slice(start, len).0, real, window.whole))
    }

    /// Sends the clips of a sound file that are complete.
    pub(super) fn emit_sound(&mut self) -> Result<(), MediaError> {
        while let Some(start) = self.plan.next(self.sound.total()) {
            self.send_sound(start, self.spec.sound.samples as u64)?;
        }
        self.sound.forget_before(self.plan.needed_from(self.sound.total()));
        Ok(())
    }

    pub(super) fn finish_sound(&mut self) -> Result<(), MediaError> {
        if self.apart.is_some() {
            return self.finish_apart();
        }
        self.emit_sound()?;
        match self.plan.tail(self.sound.total()) {
            Tail::None => Ok(()),
            Tail::Anchored(start) => {
                self.at_end = true;
                self.send_sound(start, self.spec.sound.samples as u64)
            }
            Tail::Looped(count) => self.send_sound(0, count),
        }
    }

    pub(super) fn send_sound(&mut self, start: u64, count: u64) -> Result<(), MediaError> {
        let clip = self.sound_clip(start, count);
        self.send(clip)
    }

    /// A clip of sound alone.
    pub(super) fn sound_clip(&self, start: u64, count: u64) -> ClipTensors {
        let (samples, real) = self.sound.slice(start, count as usize);
        let whole = count as usize == self.spec.sound.samples;
        let (pcm, pcm_samples) = sound::tensor(&self.spec.sound, samples, real, whole);
        let rate = f64::from(self.spec.sound.sample_rate_hz);
        let secs = |sample: u64| self.sound_start_secs() + sample as f64 / rate;
        let span = TimeSpan { start_secs: secs(start), end_secs: secs(start + count) };
        let pcm = Some(pcm);
        ClipTensors { span, frames: None, patch_grid: None, frame_count: None, pcm, pcm_samples, windows: 1 }
    }

    pub(super) fn take_sound(&mut self, samples: &[f32]) -> Result<(), MediaError> {
        let skip = self.skip_samples.min(samples.len() as u64);
        self.skip_samples -= skip;
        let mut samples = &samples[skip as usize..];
        let alone = self.mode == Mode::Sound || self.apart.is_some();
        if let Some(span) = self.cut.span.filter(|_| alone) {
            let rate = f64::from(self.spec.sound.sample_rate_hz);
            let wanted = (span.duration_secs() * rate).round() as u64;
            let left = wanted.saturating_sub(self.sound.total());
            samples = &samples[..samples.len().min(left as usize)];
        }
        self.sound.push(samples);
        match (self.mode, &self.after, &self.apart) {
            (_, _, Some(_)) => return self.emit_apart(),
            (Mode::Sound, ..) => return self.emit_sound(),
            (_, Some(_), None) => return self.emit_after(),
            (_, None, None) => self.emit()?,
        }
        if self.sound.kept() <= MAX_WAITING_SAMPLES {
            return Ok(());
        }
        if self.pictures.count() == 0 {
            self.notes.push(
                "no picture was found in the first minutes of audio, so the file was read as audio only"
                    .into(),
            );
            self.become_sound();
            return self.emit_sound();
        }
        self.leave_pictures()?;
        self.emit_after()
    }

    pub(super) fn end_sound(&mut self) -> Result<(), MediaError> {
        self.sound.ended = true;
        if self.mode == Mode::Video && self.after.is_none() { self.emit() } else { Ok(()) }
    }
}
