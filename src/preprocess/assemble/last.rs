//! The last window of a film whose length was known only after its decode: its frames are decoded once more.

use super::pictures::{Last, Pictures, Window};
use super::{ClipSpec, Cut};
use crate::media::{DecodeRequest, Flow, MediaError, MediaInfo, Sink};

/// Sink of the second decode.
pub struct LastWindow {
    cut: Cut,
    pictures: Pictures,
    skip_frames: u64,
    /// First period of the window in the whole asset.
    start: u64,
    periods: u64,
}

impl LastWindow {
    pub fn new(spec: &ClipSpec, whole: &Cut, start: u64, periods: u64) -> Self {
        let cut = whole.last_window(start, periods);
        Self { pictures: Pictures::new(spec, cut.sampling), skip_frames: cut.run_up, cut, start, periods }
    }

    pub fn request(&self) -> DecodeRequest {
        self.cut.request()
    }

    /// The window, if all of it came.
    pub fn finish(mut self) -> Option<Window> {
        match self.pictures.last_window(self.periods) {
            Last::Short(window) => Some(Window { start: self.start, ..window }),
            Last::Nothing | Last::Anchored(_) | Last::Inexact(_) => None,
        }
    }
}

impl Sink for LastWindow {
    fn started(&mut self, _: &MediaInfo) -> Result<(), MediaError> {
        Ok(())
    }

    fn frame(&mut self, width: u32, height: u32, rgb: &[u8], periods: u64) -> Result<Flow, MediaError> {
        let skipped = self.skip_frames.min(periods);
        self.skip_frames -= skipped;
        let mut left = (periods - skipped).min(self.periods.saturating_sub(self.pictures.count()));
        if left > 0 {
            self.pictures.push(rgb, width as usize, height as usize);
            left -= 1;
        }
        while left > 0 {
            left -= self.pictures.repeat(left);
        }
        Ok(Flow::More)
    }

    fn sound(&mut self, _: &[f32]) -> Result<Flow, MediaError> {
        Ok(Flow::More)
    }

    fn sound_ended(&mut self) -> Result<Flow, MediaError> {
        Ok(Flow::More)
    }
}
