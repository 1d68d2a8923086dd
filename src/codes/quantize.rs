//! Quantises f32 vectors to int8 with a proven error bound. The distance between a vector and its codes is
//! stored with the codes, so that a scan of the codes knows which rows can still belong to the answer.

use super::kernels::{LINE, Line, flat, kernels};

/// Upper bound on the f32 rounding error of a score or a bound.
pub const ROUNDING: f32 = 1e-5;

/// A vector as int8 codes: `value[i] ≈ scale * code[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Codes {
    /// Codes in -127..=127, padded with zeros to whole lines.
    pub lines: Vec<Line>,
    /// Value of a code of 1.
    pub scale: f32,
    /// Euclidean distance between the vector and `scale * codes`.
    pub error: f32,
}

impl Codes {
    /// 1 / Euclidean length of the codes; 0 if all are 0.
    #[must_use]
    pub fn inverse_norm(&self) -> f32 {
        let codes = flat(&self.lines);
        let squares = kernels().dot_i8(codes, codes);
        if squares > 0 { (1.0 / f64::from(squares).sqrt()) as f32 } else { 0.0 }
    }
}

/// Number of lines for `dim` codes.
#[must_use]
pub const fn lines_for(dim: usize) -> usize {
    dim.div_ceil(LINE)
}

/// Adding and then subtracting this number rounds a small f32 to an integer, ties to even. Unlike
/// `f32::round_ties_even`, it needs no function call per value on processors without a rounding instruction
/// in the baseline.
const ROUNDER: f32 = 12_582_912.0;

/// Number of maxima that are computed in parallel.
const LANES: usize = 16;

/// Quantises with one scale for the whole vector: the largest magnitude becomes 127.
#[must_use]
pub fn quantize(values: &[f32]) -> Codes {
    // Independent maxima: with a single one, every step would wait for the previous one.
    let mut largest = [0.0_f32; LANES];
    for values in values.chunks(LANES) {
        largest.iter_mut().zip(values).for_each(|(max, value)| *max = max.max(value.abs()));
    }
    let largest = largest.into_iter().fold(0.0_f32, f32::max);
    let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    let inverse = 1.0 / scale;
    let mut lines = vec![Line([0; LINE]); lines_for(values.len())];
    let mut squares = [0.0_f32; LINE];
    for (line, values) in lines.iter_mut().zip(values.chunks(LINE)) {
        for ((code, value), squares) in line.0.iter_mut().zip(values).zip(&mut squares) {
            let rounded = (value * inverse).clamp(-127.0, 127.0) + ROUNDER;
            // The lowest byte is the code. A saturating conversion would not be vectorised.
            *code = rounded.to_bits() as i8;
            let off = value - (rounded - ROUNDER) * scale;
            *squares += off * off;
        }
    }
    Codes { lines, scale, error: squares.iter().sum::<f32>().sqrt() }
}

/// For unit vectors a and b with codes â and b̂: `|a·b - â·b̂| <= ea + (1 + ea) eb`, with
/// `ea = |a - â|`, `eb = |b - b̂|`, because a·b - â·b̂ = (a - â)·b + â·(b - b̂).
/// Returns (constant, factor of eb) for a query; both include the rounding error.
#[must_use]
pub fn bound(query: &Codes) -> (f32, f32) {
    (query.error + ROUNDING, 1.0 + query.error + ROUNDING)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::types::Embedding;

    proptest! {
        #[test]
        fn the_bound_holds(dim in 1_usize..300, seed in vec((-1.0_f32..1.0, -1.0_f32..1.0), 300), spike in 0.0_f32..20.0) {
            let (mut a, b): (Vec<f32>, Vec<f32>) = seed[..dim].iter().copied().unzip();
            a[0] += spike;
            let (Ok(a), Ok(b)) = (Embedding::new(a, dim), Embedding::new(b, dim)) else { return Ok(()) };
            let (qa, qb) = (quantize(a.as_slice()), quantize(b.as_slice()));
            let score = kernels().dot_i8(flat(&qa.lines), flat(&qb.lines)) as f32 * qa.scale * qb.scale;
            let (constant, factor) = bound(&qa);
            prop_assert!((score - a.cosine(&b)).abs() <= constant + factor * qb.error);
            prop_assert!(qa.lines.iter().flat_map(|l| l.0).all(|c| c > -128));
        }
    }
}
