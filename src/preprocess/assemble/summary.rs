//! The summary of an asset after it was read to its end.

use std::sync::PoisonError;

use super::{Assembler, Mode, SAME_END_SECS};
use crate::media::Outcome;
use crate::types::AssetKind;

impl Assembler {
    pub(super) fn summarise(&mut self, outcome: &Outcome) {
        let decoded = self.start_secs()
            + match self.mode {
                Mode::Video => {
                    let periods = self.periods.unwrap_or_else(|| self.pictures.count());
                    (periods as f64 / self.cut.fps).max(self.sound_secs())
                }
                _ => self.sound_secs(),
            };
        let notes: Vec<_> = outcome.partial.iter().chain(&self.notes).map(String::as_str).collect();
        let declared = self.declared_secs.filter(|declared| match (self.mode, self.cut.span) {
            (_, Some(_)) => true,
            _ if self.estimated => false,
            // Counted samples are exact; a container declares the length of its longest track.
            (Mode::Sound, None) => self.is_film,
            (_, None) => notes.is_empty() && decoded < declared + SAME_END_SECS,
        });
        // The declared length can be that of another track.
        let declared = declared.map(|declared| declared.max(self.last_end_secs));
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.kind = match self.mode {
            Mode::Sound if !self.is_film => AssetKind::Audio,
            Mode::Picture => AssetKind::Image,
            Mode::Video | Mode::Sound | Mode::Unknown => AssetKind::Video,
        };
        summary.duration_secs = if self.mode == Mode::Picture { 0.0 } else { declared.unwrap_or(decoded) };
        summary.has_video = self.mode != Mode::Sound || self.is_film;
        summary.has_audio = self.sound.total() > 0;
        summary.partial = (!notes.is_empty()).then(|| notes.join("; "));
        summary.tracks.clone_from(&outcome.info.tracks);
        summary.decode_cpu_secs = outcome.cpu_secs;
        summary.preprocess_secs = self.preprocess.as_secs_f64();
    }
}
