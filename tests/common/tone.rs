//! What is heard in samples.

/// Share of a tone in samples of this rate: 1 if there is nothing else.
pub fn share(samples: &[f32], rate: usize, hz: f64) -> f64 {
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (i, sample) in samples.iter().enumerate() {
        let angle = std::f64::consts::TAU * hz * i as f64 / rate as f64;
        re += f64::from(*sample) * angle.cos();
        im += f64::from(*sample) * angle.sin();
        all += f64::from(*sample) * f64::from(*sample);
    }
    if all == 0.0 { 0.0 } else { (re * re + im * im) / all / samples.len() as f64 * 2.0 }
}
