//! Maps the span of an asset to the grid of frames.

use super::spread;
use crate::ffmpeg::sampling::{Ratio, Sampling};
use crate::media::{DecodeRequest, Film, MediaError};
use crate::preprocess::ClipSpec;
use crate::preprocess::spec::{self, Take};
use crate::types::{TimeSpan, TrackChoice, TrackKind};

/// More frames than any asset has. A span that ends beyond it has no end.
const MOST_FRAMES: u64 = 1 << 40;

/// The wanted part of an asset, in periods of frames and in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Periods per second.
    pub fps: f64,
    /// Which frames to decode.
    pub sampling: Sampling,
    sample_rate_hz: u32,
    shown: bool,
    tracks: TrackChoice,
    without: Option<TrackKind>,
    /// First wanted frame, in sampling periods from the start of the asset.
    pub first_frame: u64,
    /// Frame after the last wanted one; `None` means to the end.
    pub end_frame: Option<u64>,
    /// Number of frames decoded before the first one, so that a picture that began earlier is available.
    pub run_up: u64,
    pub span: Option<TimeSpan>,
}

impl Cut {
    /// `film` is what the asset declares, which the choice of frames may depend on.
    pub fn new(spec: &ClipSpec, film: Option<Film>, span: Option<TimeSpan>, tracks: TrackChoice) -> Self {
        let film = film.unwrap_or(Film { rate: Ratio { num: 25, den: 1 }, duration_secs: None });
        let fps = match spec.sampling {
            spec::Sampling::Rate { fps, .. } if fps.is_finite() && fps > 0.0 => fps,
            spec::Sampling::Rate { .. } => 1.0,
            spec::Sampling::Spread { .. } => film.rate.value(),
        };
        // The ends of a span may be rounded positions of a clip, so a value very close to the grid counts as
        // on it.
        let first_frame = span.map_or(0, |s| (s.start_secs * fps + 1e-6).floor() as u64).min(MOST_FRAMES);
        let end_frame = span.map(|s| ((s.end_secs * fps - 1e-6).ceil() as u64).max(first_frame + 1));
        let end_frame = end_frame.filter(|end| *end < MOST_FRAMES);
        let run_up = (fps.ceil() as u64).min(first_frame);
        let sampling = match spec.sampling {
            spec::Sampling::Rate { take: Take::Nearest, .. } => Sampling::Nearest(fps),
            spec::Sampling::Rate { take: Take::OnScreen, .. } => Sampling::OnScreen(fps),
            spec::Sampling::Spread { frames, window_secs } => {
                let wanted = end_frame.map(|end| end - first_frame);
                let rest = Film {
                    duration_secs: film.duration_secs.map(|secs| secs - first_frame as f64 / fps),
                    ..film
                };
                let secs = (window_secs, spec.stride_secs);
                Sampling::Spread(spread::plan(frames, secs, rest, run_up, wanted))
            }
        };
        let (sample_rate_hz, shown) = (spec.sound.sample_rate_hz, spec.video.shown);
        let without = spec.without;
        Self { fps, sampling, sample_rate_hz, shown, tracks, without, first_frame, end_frame, run_up, span }
    }

    /// The part of `frames` frames from the frame `start` of this one on, as one window.
    pub fn last_window(&self, start: u64, frames: u64) -> Self {
        let first_frame = self.first_frame + start;
        let run_up = (self.fps.ceil() as u64).min(first_frame);
        let sampling = match self.sampling {
            Sampling::Spread(plan) => Sampling::Spread(spread::only(plan, run_up, frames)),
            other => other,
        };
        Self { sampling, first_frame, end_frame: Some(first_frame + frames), run_up, ..*self }
    }

    /// The request to the decoder.
    pub fn request(&self) -> DecodeRequest {
        let start_secs = self.decode_start_secs();
        // Ask for one frame more, so that the last wanted one is never the rounded end of the decode.
        let duration_secs = self.end_frame.map(|end| (end + 1) as f64 / self.fps - start_secs);
        let wanted_secs = self.first_frame as f64 / self.fps;
        let Self { sampling, sample_rate_hz, shown, tracks: choice, without, .. } = *self;
        DecodeRequest {
            sampling,
            sample_rate_hz,
            start_secs,
            wanted_secs,
            duration_secs,
            shown,
            choice,
            without,
        }
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
        let picture = spec::PictureSpec::mmv(8, 8, true, false);
        ClipSpec::mmv(fps, 8, picture, (48_000, 48_000), 1.0)
    }

    fn evenly() -> ClipSpec {
        ClipSpec { sampling: spec::Sampling::Spread { frames: 16, window_secs: 10.0 }, ..spec(1.0) }
    }

    #[test]
    fn a_span_without_an_end_runs_to_the_end() {
        let cut = Cut::new(
            &spec(10.0),
            None,
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
            for spec in [spec(fps), evenly()] {
                let cut = Cut::new(&spec, None, Some(span), TrackChoice::default());
                let asked = cut.request();
                prop_assert!(asked.start_secs.is_finite() && asked.start_secs >= 0.0);
                prop_assert!(asked.duration_secs.is_none_or(|secs| secs.is_finite() && secs > 0.0));
                prop_assert!(cut.end_frame.is_none_or(|end| end > cut.first_frame));
                prop_assert!(asked.sampling.is_sane());
            }
        }
    }
}
