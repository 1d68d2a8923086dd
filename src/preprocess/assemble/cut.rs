//! Maps the span of an asset to the grid of frames.

use crate::media::{DecodeRequest, MediaError};
use crate::preprocess::ClipSpec;
use crate::types::{TimeSpan, TrackChoice};

/// More frames than any asset has. A span that ends beyond it has no end.
const MOST_FRAMES: u64 = 1 << 40;

/// The wanted part of an asset, in frames and in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub fps: f64,
    sample_rate_hz: u32,
    shown: bool,
    tracks: TrackChoice,
    /// First wanted frame.
    pub first_frame: u64,
    /// Frame after the last wanted one; `None` means to the end.
    pub end_frame: Option<u64>,
    /// Number of frames decoded before the first one, so that a picture that began earlier is available.
    pub run_up: u64,
    pub span: Option<TimeSpan>,
}

impl Cut {
    pub fn new(spec: &ClipSpec, span: Option<TimeSpan>, tracks: TrackChoice) -> Self {
        let fps = if spec.fps.is_finite() && spec.fps > 0.0 { spec.fps } else { 1.0 };
        // The ends of a span may be rounded positions of a clip, so a value very close to the grid counts as
        // on it.
        let first_frame = span.map_or(0, |s| (s.start_secs * fps + 1e-6).floor() as u64).min(MOST_FRAMES);
        let end_frame = span.map(|s| ((s.end_secs * fps - 1e-6).ceil() as u64).max(first_frame + 1));
        let end_frame = end_frame.filter(|end| *end < MOST_FRAMES);
        let run_up = (fps.ceil() as u64).min(first_frame);
        Self {
            fps,
            sample_rate_hz: spec.sample_rate_hz,
            shown: spec.shown,
            tracks,
            first_frame,
            end_frame,
            run_up,
            span,
        }
    }

    /// The request to the decoder.
    pub fn request(&self) -> DecodeRequest {
        let start_secs = self.decode_start_secs();
        // Ask for one frame more, so that the last wanted one is never the rounded end of the decode.
        let duration_secs = self.end_frame.map(|end| (end + 1) as f64 / self.fps - start_secs);
        let wanted_secs = self.first_frame as f64 / self.fps;
        let Self { fps, sample_rate_hz, shown, tracks: choice, .. } = *self;
        DecodeRequest { fps, sample_rate_hz, start_secs, wanted_secs, duration_secs, shown, choice }
    }

    /// Corrects positions in an error: the decoder only knows where decoding began, not where the span does.
    pub fn explain(&self, error: MediaError) -> MediaError {
        match (error, self.span) {
            (MediaError::SpanOutOfRange { .. }, Some(span)) => {
                MediaError::SpanOutOfRange { start_secs: span.start_secs }
            }
            (MediaError::BadSamples { at_secs, value }, _) => {
                MediaError::BadSamples { at_secs: at_secs + self.decode_start_secs(), value }
            }
            (error, _) => error,
        }
    }

    /// Where decoding begins, in seconds.
    pub fn decode_start_secs(&self) -> f64 {
        (self.first_frame - self.run_up) as f64 / self.fps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(fps: f64) -> ClipSpec {
        ClipSpec {
            fps,
            frames: 8,
            resize_shorter_side: 8,
            crop: 8,
            sample_rate_hz: 48_000,
            samples: 48_000,
            stride_secs: 1.0,
            shown: true,
            unbarred: false,
        }
    }

    #[test]
    fn a_span_without_an_end_runs_to_the_end() {
        let cut = Cut::new(
            &spec(10.0),
            Some(TimeSpan { start_secs: 2.0, end_secs: f64::MAX }),
            TrackChoice::default(),
        );
        assert_eq!((cut.first_frame, cut.end_frame), (20, None));
        let asked = cut.request();
        assert_eq!((asked.start_secs, asked.duration_secs), (1.0, None));
    }

    proptest! {
        #[test]
        fn whatever_a_span_says_decoding_is_asked_for_a_part_of_an_asset(
            start in prop_oneof![0.0..1e4, 0.0..1e300, Just(f64::MAX), Just(0.0)],
            length in prop_oneof![0.0..1e4, 0.0..1e300, Just(f64::MIN_POSITIVE), Just(f64::MAX)],
            fps in prop_oneof![0.01..240.0, Just(f64::NAN), Just(0.0), Just(1e9)],
        ) {
            let end: f64 = start + length;
            let Ok(span) = TimeSpan::new(start, end.min(f64::MAX)) else { return Ok(()) };
            let cut = Cut::new(&spec(fps), Some(span), TrackChoice::default());
            let asked = cut.request();
            prop_assert!(asked.start_secs.is_finite() && asked.start_secs >= 0.0);
            prop_assert!(asked.duration_secs.is_none_or(|secs| secs.is_finite() && secs > 0.0));
            prop_assert!(cut.end_frame.is_none_or(|end| end > cut.first_frame));
        }
    }
}
