//! Makes the input of the audio tower from the samples of a clip. The rule is in `docs/bundle.md`, "Sound".

use std::sync::Arc;

use super::clips::{filled, looped};
use super::spec::{Edge, Loudness, ShortSound, SoundSpec};

/// Input of the audio tower from a clip's samples, the first `real` of which exist; zeros replace the others.
/// `whole` means that the clip is a whole window; otherwise the asset, or its last part, is shorter. Returns
/// the tensor and how many of its samples are the clip's own.
#[must_use]
pub fn tensor(spec: &SoundSpec, samples: Arc<[f32]>, real: usize, whole: bool) -> (Arc<[f32]>, usize) {
    let samples = match spec.loudness {
        Some(loudness) => louder(loudness, &samples, real),
        None => samples,
    };
    let own = real.min(samples.len());
    let tensor = match spec.short {
        // The zeros of a window whose sound ends early are part of it.
        ShortSound::Loop if whole => samples,
        ShortSound::Loop => looped(&samples, spec.samples),
        ShortSound::Zeros => repeated(&samples[..own], spec.samples, 1),
        ShortSound::RepeatZeros => repeated(&samples[..own], spec.samples, spec.samples / own.max(1)),
        ShortSound::AsIs { multiple, edge } => padded(&samples[..own], multiple.max(1), edge),
    };
    (tensor, own)
}

/// `own` repeated this many times, then zeros. A tensor that is already full does not change.
fn repeated(own: &[f32], len: usize, times: usize) -> Arc<[f32]> {
    filled(len, |tensor| {
        let parts = tensor.chunks_exact_mut(own.len().max(1)).take(times);
        parts.for_each(|part| part.copy_from_slice(&own[..part.len().min(own.len())]));
    })
}

/// `own`, padded to a multiple.
fn padded(own: &[f32], multiple: usize, edge: Edge) -> Arc<[f32]> {
    filled(own.len().next_multiple_of(multiple), |tensor| {
        let (front, rest) = tensor.split_at_mut(own.len());
        front.copy_from_slice(own);
        let Some(last) = own.len().checked_sub(1).filter(|_| edge == Edge::Reflect) else { return };
        for (i, value) in rest.iter_mut().enumerate() {
            // There and back again, the ends not repeated.
            let turn = (i + 1) % (2 * last).max(1);
            *value = own[last - if turn <= last { turn } else { 2 * last - turn }];
        }
    })
}

/// Brings the root mean square of the first `real` samples to the target. Silence stays silent.
fn louder(loudness: Loudness, samples: &[f32], real: usize) -> Arc<[f32]> {
    let own = &samples[..real.min(samples.len())];
    let square = own.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / own.len().max(1) as f64;
    let wanted_db = f64::from(loudness.target_dbfs) - 10.0 * square.log10();
    let gain = if square > 0.0 {
        10_f64.powf(wanted_db.min(f64::from(loudness.max_gain_db)) / 20.0) as f32
    } else {
        1.0
    };
    samples.iter().map(|sample| sample * gain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(short: ShortSound) -> SoundSpec {
        SoundSpec { sample_rate_hz: 8000, samples: 8, stride_secs: 0.001, short, loudness: None }
    }

    fn made(short: ShortSound, own: &[f32], real: usize, whole: bool) -> (Vec<f32>, usize) {
        let (tensor, own) = tensor(&spec(short), Arc::from(own), real, whole);
        (tensor.to_vec(), own)
    }

    #[test]
    fn short_sound_follows_its_rule() {
        let own = [1.0, 2.0, 3.0];
        let as_is = |multiple, edge| ShortSound::AsIs { multiple, edge };
        for (short, wanted) in [
            (ShortSound::Loop, vec![1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0]),
            (ShortSound::Zeros, vec![1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            (ShortSound::RepeatZeros, vec![1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 0.0, 0.0]),
            (as_is(1, Edge::Reflect), vec![1.0, 2.0, 3.0]),
            (as_is(4, Edge::Zeros), vec![1.0, 2.0, 3.0, 0.0]),
            (as_is(5, Edge::Reflect), vec![1.0, 2.0, 3.0, 2.0, 1.0]),
            // numpy.pad([1, 2, 3], (0, 6), "reflect")
            (as_is(9, Edge::Reflect), vec![1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]),
        ] {
            assert_eq!(made(short, &own, 3, false), (wanted, 3), "{short:?}");
        }
        assert_eq!(made(as_is(4, Edge::Reflect), &[7.0], 1, false), (vec![7.0; 4], 1));
    }

    #[test]
    fn a_window_whose_sound_ends_early_is_short_for_all_but_the_loop() {
        let own = [1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0];
        let kept = (own.to_vec(), 5);
        assert_eq!(made(ShortSound::Loop, &own, 5, true), kept);
        assert_eq!(made(ShortSound::Zeros, &own, 5, true), kept);
        assert_eq!(made(ShortSound::RepeatZeros, &own, 5, true), kept);
        let as_is = ShortSound::AsIs { multiple: 3, edge: Edge::Reflect };
        assert_eq!(made(as_is, &own, 5, true), (vec![1.0, 2.0, 3.0, 4.0, 5.0, 4.0], 5));
    }

    #[test]
    fn full_windows_stay_as_they_are() {
        let own: Vec<f32> = (1..9).map(|i| i as f32).collect();
        for short in [
            ShortSound::Loop,
            ShortSound::Zeros,
            ShortSound::RepeatZeros,
            ShortSound::AsIs { multiple: 8, edge: Edge::Reflect },
        ] {
            assert_eq!(made(short, &own, 8, true), (own.clone(), 8));
        }
    }

    #[test]
    fn loudness_reaches_its_target_within_the_limit() {
        let rms = |samples: &[f32]| {
            let square = samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32;
            20.0 * square.sqrt().log10()
        };
        let loudness = Some(Loudness { target_dbfs: -20.0, max_gain_db: 30.0 });
        let with = SoundSpec { loudness, ..spec(ShortSound::Zeros) };
        let tone: Vec<f32> = (0..8).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        for (level, wanted) in [(0.5_f32, -20.0), (0.01, -20.0), (0.001, -30.0)] {
            let quiet: Arc<[f32]> = tone.iter().map(|sample| sample * level).collect();
            let (made, _) = tensor(&with, quiet, 8, true);
            assert!((rms(&made) - wanted).abs() < 1e-3, "{level}: {}", rms(&made));
        }
        // Only the clip's own samples count.
        let half: Arc<[f32]> = [0.1, -0.1, 0.1, -0.1, 0.0, 0.0, 0.0, 0.0].into();
        assert_eq!(tensor(&with, half, 4, true).0[0], 0.1);
        assert_eq!(tensor(&with, Arc::from([0.0; 8]), 8, true).0.to_vec(), [0.0; 8]);
    }
}
