//! What the decoder tells the assembler.

use std::sync::PoisonError;
use std::time::Instant;

use super::{Assembler, Mode};
use crate::media::{Flow, MediaError, MediaInfo, Sink};
use crate::preprocess::resample::Resampler;
use crate::types::AssetKind;

impl Sink for Assembler {
    fn started(&mut self, info: &MediaInfo) -> Result<(), MediaError> {
        let first = self.mode == Mode::Unknown;
        if first {
            self.mode = match info.kind {
                Some(AssetKind::Image) => Mode::Picture,
                _ if info.has_video => Mode::Video,
                _ => Mode::Sound,
            };
            self.reduced = info.reduced;
            (self.declared_secs, self.estimated) = (info.declared_secs, info.estimated);
            // Some demuxers answer a seek behind the end with the last packet.
            let end = info.declared_secs.filter(|_| !info.estimated).unwrap_or(f64::INFINITY);
            if let Some(span) = self.cut.span.filter(|span| span.start_secs >= end) {
                return Err(MediaError::SpanOutOfRange { start_secs: span.start_secs });
            }
            self.has_sound = info.has_audio;
            if self.mode == Mode::Sound {
                self.become_sound();
            }
            let rate = f64::from(self.spec.sample_rate_hz);
            let skip_secs = self.start_secs() - self.cut.decode_start_secs();
            self.skip_samples = (skip_secs * rate).round() as u64;
            if info.has_audio {
                let resampler = Resampler::new(info.sample_rate_hz, self.spec.sample_rate_hz);
                self.resampler = Some(resampler.map_err(MediaError::Corrupt)?);
            }
        }
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.kind = match self.mode {
            Mode::Picture => AssetKind::Image,
            Mode::Sound => AssetKind::Audio,
            _ => AssetKind::Video,
        };
        summary.has_video |= info.has_video;
        summary.has_audio |= info.has_audio;
        summary.duration_secs = self.declared_secs.unwrap_or(0.0);
        (summary.width, summary.height) = (info.width, info.height);
        Ok(())
    }

    fn frame(&mut self, width: u32, height: u32, rgb: &[u8], periods: u64) -> Result<Flow, MediaError> {
        let skipped = self.skip_frames.min(periods);
        self.skip_frames -= skipped;
        let wanted = self.cut.end_frame.map_or(u64::MAX, |end| end - self.cut.first_frame);
        let periods = (periods - skipped).min(wanted.saturating_sub(self.blocks.count));
        if self.mode == Mode::Sound || periods == 0 {
            return Ok(Flow::More);
        }
        if self.blocks.count == 0 {
            let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
            let stored = (summary.width, summary.height);
            let turned = (stored.0 > stored.1) != (width > height);
            (summary.width, summary.height) = match (self.reduced, turned) {
                (false, _) => (width, height),
                (true, false) => stored,
                (true, true) => (stored.1, stored.0),
            };
        }
        self.take_frame(width, height, rgb, periods)
    }

    fn sound(&mut self, samples: &[f32]) -> Result<Flow, MediaError> {
        if self.sound.ended {
            return Ok(Flow::More);
        }
        let begun = Instant::now();
        let mut resampled = std::mem::take(&mut self.resampled);
        resampled.clear();
        if let Some(resampler) = &mut self.resampler {
            resampler.push(samples, &mut resampled).map_err(MediaError::Worker)?;
        }
        self.preprocess += begun.elapsed();
        let taken = self.take_sound(&resampled);
        self.resampled = resampled;
        taken.map(|()| Flow::More)
    }

    fn sound_ended(&mut self) -> Result<Flow, MediaError> {
        self.end_sound().map(|()| Flow::More)
    }
}
