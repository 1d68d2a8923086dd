//! Receives the decoder's output for the assembler.

use std::sync::PoisonError;

use super::{Assembler, Mode};
use crate::media::{Flow, MediaError, MediaInfo, Sink};
use crate::types::{AssetKind, TrackKind};

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
            self.has_sound = info.has_audio;
            let has_pictures = info.tracks.iter().any(|track| track.kind == TrackKind::Video);
            self.is_film = self.spec.without == Some(TrackKind::Video) && has_pictures;
            if self.mode == Mode::Sound {
                self.become_sound();
            }
            let rate = f64::from(self.spec.sound.sample_rate_hz);
            let skip_secs = self.sound_start_secs() - self.cut.decode_start_secs();
            self.skip_samples = (skip_secs * rate).round() as u64;
        }
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.kind = match self.mode {
            Mode::Picture => AssetKind::Image,
            Mode::Sound if !self.is_film => AssetKind::Audio,
            _ => AssetKind::Video,
        };
        summary.has_video |= info.has_video;
        summary.has_audio |= info.has_audio;
        summary.duration_secs = self.declared_secs.unwrap_or(0.0);
        (summary.width, summary.height) = (info.width, info.height);
        summary.tracks.clone_from(&info.tracks);
        Ok(())
    }

    fn frame(&mut self, width: u32, height: u32, rgb: &[u8], periods: u64) -> Result<Flow, MediaError> {
        let skipped = self.skip_frames.min(periods);
        self.skip_frames -= skipped;
        let wanted = self.cut.end_frame.map_or(u64::MAX, |end| end - self.cut.first_frame);
        let periods = (periods - skipped).min(wanted.saturating_sub(self.pictures.count()));
        if self.mode == Mode::Sound || periods == 0 {
            return Ok(Flow::More);
        }
        if self.after.is_some() {
            self.note_late_pictures();
            return Ok(Flow::More);
        }
        if self.pictures.count() == 0 {
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
        self.take_sound(samples).map(|()| Flow::More)
    }

    fn sound_ended(&mut self) -> Result<Flow, MediaError> {
        self.end_sound().map(|()| Flow::More)
    }
}
