//! Sound to the tower's sample rate, as a stream, without delay and to the exact length.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler as _};

/// Input samples of one FFT block, at least: long blocks keep the whole audible band.
const BLOCK: usize = 4096;

/// Samples of one block, at most, on either side: what a block holds and takes is bounded.
const MAX_BLOCK: usize = 1 << 20;

/// Resamples one channel by FFT.
pub struct Resampler {
    /// Absent where both rates are the same.
    fft: Option<Fft<f32>>,
    from_hz: u32,
    to_hz: u32,
    pending: Vec<f32>,
    scratch: Vec<f32>,
    /// Output samples still to drop, the filter's delay.
    to_drop: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// From one rate to another, Hz.
    ///
    /// # Errors
    /// A sentence, for rates of 0 and for two rates whose ratio would need blocks beyond [`MAX_BLOCK`].
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self, String> {
        let fft = if from_hz == to_hz {
            None
        } else {
            let (from, to) = (from_hz as usize, to_hz as usize);
            let block = block_len(from, to);
            let given = block as u128 * u128::from(to_hz) / u128::from(from_hz.max(1));
            if from == 0 || to == 0 || block > MAX_BLOCK || given > MAX_BLOCK as u128 {
                return Err(format!("sound of {from_hz} Hz cannot be brought to {to_hz} Hz"));
            }
            let fft = Fft::<f32>::new(from, to, block, 1, FixedSync::Both);
            Some(fft.map_err(|e| e.to_string())?)
        };
        let to_drop = fft.as_ref().map_or(0, |fft| fft.output_delay());
        let scratch = vec![0.0; fft.as_ref().map_or(0, |fft| fft.output_frames_max())];
        Ok(Self { fft, from_hz, to_hz, pending: Vec::new(), scratch, to_drop, taken: 0, given: 0 })
    }

    /// Takes samples; appends what is ready to `out`.
    ///
    /// # Errors
    /// A sentence, where the library refuses.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), String> {
        self.taken += samples.len() as u64;
        let Some(fft) = &mut self.fft else {
            self.given += samples.len() as u64;
            out.extend_from_slice(samples);
            return Ok(());
        };
        self.pending.extend_from_slice(samples);
        let need = fft.input_frames_next();
        let mut done = 0;
        while self.pending.len() - done >= need {
            let fresh = block(fft, &self.pending[done..done + need], &mut self.scratch)?;
            done += need;
            let skip = self.to_drop.min(fresh.len());
            self.to_drop -= skip;
            self.given += (fresh.len() - skip) as u64;
            out.extend_from_slice(&fresh[skip..]);
        }
        self.pending.drain(..done);
        Ok(())
    }

    /// Appends the rest: in the end as much sound came out as went in.
    ///
    /// # Errors
    /// A sentence, where the library refuses.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), String> {
        let Some(fft) = &self.fft else { return Ok(()) };
        let taken = self.taken;
        let wanted = (u128::from(taken) * u128::from(self.to_hz)).div_ceil(u128::from(self.from_hz)) as u64;
        let silence = vec![0.0; fft.input_frames_next()];
        while self.given < wanted {
            self.push(&silence, out)?;
        }
        self.taken = taken;
        out.truncate(out.len() - (self.given - wanted) as usize);
        self.given = wanted;
        Ok(())
    }
}

/// An even multiple of the shortest block the two rates allow: the filter's delay, half a block, is
/// then a whole number of samples.
fn block_len(from_hz: usize, to_hz: usize) -> usize {
    let shortest = from_hz / gcd(from_hz, to_hz).max(1);
    BLOCK.div_ceil(shortest.max(1)).next_multiple_of(2) * shortest
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn block<'a>(fft: &mut Fft<f32>, samples: &[f32], scratch: &'a mut [f32]) -> Result<&'a [f32], String> {
    let say = |e: &dyn std::fmt::Display| e.to_string();
    let input = SequentialSlice::new(samples, 1, samples.len()).map_err(|e| say(&e))?;
    let room = scratch.len();
    let mut output = SequentialSlice::new_mut(&mut *scratch, 1, room).map_err(|e| say(&e))?;
    let (_, written) = fft.process_into_buffer(&input, &mut output, None).map_err(|e| say(&e))?;
    Ok(&scratch[..written])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(rate: u32, hz: f64, secs: f64) -> Vec<f32> {
        let samples = (secs * f64::from(rate)).round() as usize;
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        (0..samples).map(|i| (0.5 * (step * i as f64).sin()) as f32).collect()
    }

    fn resample(input: &[f32], from: u32, to: u32, step: usize) -> Vec<f32> {
        let (mut resampler, mut out) = (Resampler::new(from, to).unwrap(), Vec::new());
        input.chunks(step).for_each(|chunk| resampler.push(chunk, &mut out).unwrap());
        resampler.finish(&mut out).unwrap();
        out
    }

    #[test]
    fn a_tone_keeps_its_pitch_phase_and_length_at_any_rate() {
        for from in [8000, 11_025, 16_000, 22_050, 32_000, 44_100, 44_101, 48_000, 96_000, 192_000] {
            let out = resample(&sine(from, 1000.0, 1.0), from, 48_000, 1000);
            assert_eq!(out.len(), 48_000, "{from}");
            let wanted = sine(48_000, 1000.0, 1.0);
            // The edges ring: the tone starts from nothing.
            let worst = (4800..43_200).map(|i| (out[i] - wanted[i]).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{from} Hz: {worst}");
        }
    }

    #[test]
    fn the_cut_into_pushes_does_not_matter() {
        let input = sine(44_100, 440.0, 0.7);
        let whole = resample(&input, 44_100, 48_000, input.len());
        for step in [1, 17, 4096, 10_000] {
            assert_eq!(resample(&input, 44_100, 48_000, step), whole);
        }
    }

    #[test]
    fn the_same_rate_changes_nothing_and_short_sounds_survive() {
        let input = sine(48_000, 440.0, 0.1);
        assert_eq!(resample(&input, 48_000, 48_000, 100), input);
        assert_eq!(resample(&[0.5], 8000, 48_000, 1).len(), 6);
        assert_eq!(resample(&[], 8000, 48_000, 1).len(), 0);
        assert!(Resampler::new(0, 48_000).is_err() && Resampler::new(48_000, 0).is_err());
    }

    #[test]
    fn no_rate_makes_a_block_without_bounds() {
        for hz in [1, 2, 999, u32::MAX, u32::MAX - 1, 767_999] {
            match Resampler::new(hz, 48_000) {
                Ok(resampler) => assert!(resampler.scratch.len() <= MAX_BLOCK, "{hz}"),
                Err(reason) => assert!(reason.contains(&hz.to_string()), "{reason}"),
            }
        }
    }

    #[test]
    fn the_loudest_samples_taken_stay_numbers() {
        let loud: Vec<f32> = (0..20_000_u32)
            .map(|i| {
                if i.wrapping_mul(2_654_435_761) >> 31 == 0 {
                    crate::media::MAX_SAMPLE
                } else {
                    -crate::media::MAX_SAMPLE
                }
            })
            .collect();
        for from in [8000, 22_050, 44_100, 96_000] {
            assert!(resample(&loud, from, 48_000, 1000).iter().all(|sample| sample.is_finite()));
        }
    }
}
