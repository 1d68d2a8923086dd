//! A span of an asset on the grid of frames.

use crate::media::{DecodeRequest, MediaError};
use crate::preprocess::ClipSpec;
use crate::types::TimeSpan;

/// Which part of the asset is wanted, in frames and in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub fps: f64,
    sample_rate_hz: u32,
    /// First frame wanted.
    pub first_frame: u64,
    /// Frame after the last.
    pub end_frame: Option<u64>,
    /// Frames decoded before the first, so that a picture that began earlier is there.
    pub run_up: u64,
    pub span: Option<TimeSpan>,
}

impl Cut {
    pub fn new(spec: &ClipSpec, span: Option<TimeSpan>) -> Self {
        let fps = if spec.fps.is_finite() && spec.fps > 0.0 { spec.fps } else { 1.0 };
        // A span's ends may come from a clip's own seconds: what is a hair off the grid is on it.
        let first_frame = span.map_or(0, |s| (s.start_secs * fps + 1e-6).floor() as u64);
        let end_frame = span.map(|s| ((s.end_secs * fps - 1e-6).ceil() as u64).max(first_frame + 1));
        let run_up = (fps.ceil() as u64).min(first_frame);
        Self { fps, sample_rate_hz: spec.sample_rate_hz, first_frame, end_frame, run_up, span }
    }

    /// What to ask the decoder for.
    pub fn request(&self) -> DecodeRequest {
        let start_secs = self.decode_start_secs();
        // One frame more: the last one wanted is then never the decoder's rounded end.
        let duration_secs = self.end_frame.map(|end| (end + 1) as f64 / self.fps - start_secs);
        DecodeRequest { fps: self.fps, sample_rate_hz: self.sample_rate_hz, start_secs, duration_secs }
    }

    /// The decoder knows where it began, not where the span does.
    pub fn explain(&self, error: MediaError) -> MediaError {
        match (error, self.span) {
            (MediaError::SpanOutOfRange { .. }, Some(span)) => {
                MediaError::SpanOutOfRange { start_secs: span.start_secs }
            }
            (error, _) => error,
        }
    }

    /// Where decoding begins, seconds.
    pub fn decode_start_secs(&self) -> f64 {
        (self.first_frame - self.run_up) as f64 / self.fps
    }
}
