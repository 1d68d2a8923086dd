//! Dot products, with the implementation chosen once for the processor. Every kernel matches the scalar one:
//! exactly for int8, within rounding for f32.

use std::sync::OnceLock;

/// Codes are stored in lines of this many bytes, padded with zeros. A line fills one AVX-512 register.
pub const LINE: usize = 64;

/// One line of int8 codes, aligned so that no load crosses a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line(pub [i8; LINE]);

/// The codes of the lines as one slice.
#[must_use]
pub fn flat(lines: &[Line]) -> &[i8] {
    // SAFETY: `Line` is `repr(C)` around `[i8; 64]` without padding (size 64, align 64), so `n`
    // lines are exactly `n * 64` consecutive `i8`s of the same lifetime.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(lines.as_ptr().cast::<i8>(), lines.len() * LINE)
    }
}

/// Arguments: query, rows, number of the first row, picked rows, output dot products.
type DotPicked = fn(&[i8], &[i8], u32, &[u32], &mut [i32]);

/// The kernels of one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// Name of the instruction set.
    pub name: &'static str,
    dot_i8: fn(&[i8], &[i8]) -> i32,
    dot_i8_rows: fn(&[i8], &[i8], &mut [i32]),
    dot_i8_picked: DotPicked,
    dot_f32: fn(&[f32], &[f32]) -> f32,
}

impl Kernels {
    /// Dot product of two rows of codes in -127..=127, over the whole lines of the shorter row.
    #[inline]
    #[must_use]
    pub fn dot_i8(&self, a: &[i8], b: &[i8]) -> i32 {
        (self.dot_i8)(a, b)
    }

    /// Sets `out[i]` to the dot product of `query` and the i-th row of `rows`. Rows have `query`'s length.
    #[inline]
    pub fn dot_i8_rows(&self, query: &[i8], rows: &[i8], out: &mut [i32]) {
        (self.dot_i8_rows)(query, rows, out);
    }

    /// Sets `out[i]` to the dot product of `query` and row `picked[i] - first` of `rows`. Rows have `query`'s
    /// length. Rows beyond the end give 0.
    #[inline]
    pub fn dot_i8_picked(&self, query: &[i8], rows: &[i8], first: u32, picked: &[u32], out: &mut [i32]) {
        (self.dot_i8_picked)(query, rows, first, picked, out);
    }

    /// Dot product over the length of the shorter slice.
    #[inline]
    #[must_use]
    pub fn dot_f32(&self, a: &[f32], b: &[f32]) -> f32 {
        (self.dot_f32)(a, b)
    }
}

/// The fastest kernels that this processor supports.
#[must_use]
pub fn kernels() -> &'static Kernels {
    static BEST: OnceLock<Kernels> = OnceLock::new();
    BEST.get_or_init(|| available()[0])
}

/// All kernels that this processor supports, fastest first. The last one is scalar.
#[must_use]
pub fn available() -> Vec<Kernels> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
        {
            found.push(x86::AVX512);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(x86::AVX2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push(neon::NEON);
    }
    found.push(SCALAR);
    found
}

/// Portable kernels, against which the others are tested.
pub const SCALAR: Kernels = Kernels {
    name: "scalar",
    dot_i8: scalar_i8,
    dot_i8_rows: |query, rows, out| each_row(query, rows, out, scalar_i8),
    dot_i8_picked: |query, rows, first, picked, out| {
        each_picked(query, rows, first, picked, out, scalar_i8, |_| ());
    },
    dot_f32: scalar_f32,
};

#[inline(always)]
fn each_row(query: &[i8], rows: &[i8], out: &mut [i32], dot: impl Fn(&[i8], &[i8]) -> i32) {
    for (row, out) in rows.chunks_exact(query.len().max(1)).zip(out) {
        *out = dot(query, row);
    }
}

/// Rows to prefetch ahead: no processor predicts scattered reads.
const AHEAD: usize = 8;

#[inline(always)]
fn each_picked(
    query: &[i8],
    rows: &[i8],
    first: u32,
    picked: &[u32],
    out: &mut [i32],
    dot: impl Fn(&[i8], &[i8]) -> i32,
    prefetch: impl Fn(&[i8]),
) {
    let row = |slot: &u32| {
        let from = (slot - first) as usize * query.len();
        rows.get(from..from + query.len()).unwrap_or_default()
    };
    picked.iter().take(AHEAD).for_each(|slot| prefetch(row(slot)));
    for (at, (slot, out)) in picked.iter().zip(out).enumerate() {
        picked.get(at + AHEAD).into_iter().for_each(|slot| prefetch(row(slot)));
        *out = dot(query, row(slot));
    }
}

fn scalar_i8(a: &[i8], b: &[i8]) -> i32 {
    let lines = a.chunks_exact(LINE).zip(b.chunks_exact(LINE));
    lines.flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

fn scalar_f32(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0_f32; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_parts.zip(b_parts) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernels, LINE, each_picked, each_row};

    // SAFETY (all wrappers): `available()` offers these kernels only where the processor has
    // the features the inner functions are compiled for.
    #[allow(unsafe_code)]
    pub const AVX512: Kernels = Kernels {
        name: "avx512-vnni",
        dot_i8: |a, b| unsafe { avx512_i8(a, b) },
        dot_i8_rows: |query, rows, out| unsafe { avx512_i8_rows(query, rows, out) },
        dot_i8_picked: |query, rows, first, picked, out| unsafe {
            avx512_i8_picked(query, rows, first, picked, out);
        },
        dot_f32: |a, b| unsafe { avx512_f32(a, b) },
    };
    #[allow(unsafe_code)]
    pub const AVX2: Kernels = Kernels {
        name: "avx2",
        dot_i8: |a, b| unsafe { avx2_i8(a, b) },
        dot_i8_rows: |query, rows, out| unsafe { avx2_i8_rows(query, rows, out) },
        dot_i8_picked: |query, rows, first, picked, out| unsafe {
            avx2_i8_picked(query, rows, first, picked, out);
        },
        dot_f32: |a, b| unsafe { avx2_f32(a, b) },
    };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn avx512_i8(a: &[i8], b: &[i8]) -> i32 {
        // The instruction multiplies unsigned by signed bytes. a + 128 is unsigned; 128 * b is subtracted at
        // the end.
        let offset = _mm512_set1_epi8(-128);
        let (mut sum, mut excess) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for (a, b) in a.chunks_exact(LINE).zip(b.chunks_exact(LINE)) {
            // SAFETY: both chunks are exactly 64 bytes; the loads need no alignment.
            #[allow(unsafe_code)]
            let (a, b) =
                unsafe { (_mm512_loadu_si512(a.as_ptr().cast()), _mm512_loadu_si512(b.as_ptr().cast())) };
            sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(a, offset), b);
            excess = _mm512_dpbusd_epi32(excess, offset, b);
        }
        _mm512_reduce_add_epi32(_mm512_sub_epi32(sum, excess))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn avx512_i8_rows(query: &[i8], rows: &[i8], out: &mut [i32]) {
        each_row(query, rows, out, |a, b| avx512_i8(a, b));
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn avx512_i8_picked(query: &[i8], rows: &[i8], first: u32, picked: &[u32], out: &mut [i32]) {
        each_picked(query, rows, first, picked, out, |a, b| avx512_i8(a, b), prefetch);
    }

    #[inline(always)]
    fn prefetch(row: &[i8]) {
        for line in row.chunks(LINE) {
            // SAFETY: the address lies in a slice; and a prefetch reads nothing that a program could see.
            #[allow(unsafe_code)]
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr());
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn avx512_f32(a: &[f32], b: &[f32]) -> f32 {
        const STEP: usize = 32;
        let (a_parts, b_parts) = (a.chunks_exact(STEP), b.chunks_exact(STEP));
        let tail: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
        let (mut low, mut high) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for (a, b) in a_parts.zip(b_parts) {
            // SAFETY: both chunks hold exactly 32 floats; the loads need no alignment.
            #[allow(unsafe_code)]
            unsafe {
                low = _mm512_fmadd_ps(_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()), low);
                high = _mm512_fmadd_ps(
                    _mm512_loadu_ps(a.as_ptr().add(16)),
                    _mm512_loadu_ps(b.as_ptr().add(16)),
                    high,
                );
            }
        }
        _mm512_reduce_add_ps(_mm512_add_ps(low, high)) + tail
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn avx2_i8(a: &[i8], b: &[i8]) -> i32 {
        let mut sum = _mm256_setzero_si256();
        for (a, b) in a.chunks_exact(LINE / 2).zip(b.chunks_exact(LINE / 2)) {
            // SAFETY: both chunks are exactly 32 bytes; the loads need no alignment.
            #[allow(unsafe_code)]
            let (a, b) =
                unsafe { (_mm256_loadu_si256(a.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().cast())) };
            // |a| * (b with a's sign): 2 * 127 * 127 fits in the 16-bit sums of `maddubs`.
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
        let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
        _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter)))
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2_i8_rows(query: &[i8], rows: &[i8], out: &mut [i32]) {
        each_row(query, rows, out, |a, b| avx2_i8(a, b));
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2_i8_picked(query: &[i8], rows: &[i8], first: u32, picked: &[u32], out: &mut [i32]) {
        each_picked(query, rows, first, picked, out, |a, b| avx2_i8(a, b), prefetch);
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2_f32(a: &[f32], b: &[f32]) -> f32 {
        const STEP: usize = 16;
        let (a_parts, b_parts) = (a.chunks_exact(STEP), b.chunks_exact(STEP));
        let tail: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
        let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        for (a, b) in a_parts.zip(b_parts) {
            // SAFETY: both chunks hold exactly 16 floats; the loads need no alignment.
            #[allow(unsafe_code)]
            unsafe {
                low = _mm256_fmadd_ps(_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr()), low);
                high = _mm256_fmadd_ps(
                    _mm256_loadu_ps(a.as_ptr().add(8)),
                    _mm256_loadu_ps(b.as_ptr().add(8)),
                    high,
                );
            }
        }
        let mut lanes = [0.0_f32; 8];
        // SAFETY: `lanes` holds exactly 8 floats; the store needs no alignment.
        #[allow(unsafe_code)]
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(low, high));
        }
        lanes.iter().sum::<f32>() + tail
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{Kernels, LINE, each_picked, each_row};

    // SAFETY (all wrappers): `available()` offers these kernels only where the processor has NEON.
    // Where the build target has NEON anyway, the calls need no `unsafe`.
    #[allow(unsafe_code, unused_unsafe)]
    pub const NEON: Kernels = Kernels {
        name: "neon",
        dot_i8: |a, b| unsafe { neon_i8(a, b) },
        dot_i8_rows: |query, rows, out| unsafe { neon_i8_rows(query, rows, out) },
        dot_i8_picked: |query, rows, first, picked, out| unsafe {
            neon_i8_picked(query, rows, first, picked, out);
        },
        dot_f32: |a, b| unsafe { neon_f32(a, b) },
    };

    #[inline]
    #[target_feature(enable = "neon")]
    fn neon_i8(a: &[i8], b: &[i8]) -> i32 {
        let mut sum = vdupq_n_s32(0);
        for (a, b) in a.chunks_exact(LINE / 4).zip(b.chunks_exact(LINE / 4)) {
            // SAFETY: both chunks are exactly 16 bytes.
            #[allow(unsafe_code)]
            let (a, b) = unsafe { (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr())) };
            sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
            sum = vpadalq_s16(sum, vmull_high_s8(a, b));
        }
        vaddvq_s32(sum)
    }

    #[target_feature(enable = "neon")]
    fn neon_i8_rows(query: &[i8], rows: &[i8], out: &mut [i32]) {
        each_row(query, rows, out, |a, b| neon_i8(a, b));
    }

    #[target_feature(enable = "neon")]
    fn neon_i8_picked(query: &[i8], rows: &[i8], first: u32, picked: &[u32], out: &mut [i32]) {
        each_picked(query, rows, first, picked, out, |a, b| neon_i8(a, b), |_| ());
    }

    #[target_feature(enable = "neon")]
    fn neon_f32(a: &[f32], b: &[f32]) -> f32 {
        const STEP: usize = 8;
        let (a_parts, b_parts) = (a.chunks_exact(STEP), b.chunks_exact(STEP));
        let tail: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
        let (mut low, mut high) = (vdupq_n_f32(0.0), vdupq_n_f32(0.0));
        for (a, b) in a_parts.zip(b_parts) {
            // SAFETY: both chunks hold exactly 8 floats.
            #[allow(unsafe_code)]
            unsafe {
                low = vfmaq_f32(low, vld1q_f32(a.as_ptr()), vld1q_f32(b.as_ptr()));
                high = vfmaq_f32(high, vld1q_f32(a.as_ptr().add(4)), vld1q_f32(b.as_ptr().add(4)));
            }
        }
        vaddvq_f32(vaddq_f32(low, high)) + tail
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = (Vec<i8>, Vec<i8>)> {
        (1_usize..5).prop_flat_map(|lines| {
            let codes = || vec(prop_oneof![Just(-127_i8), Just(127_i8), -127_i8..=127], lines * LINE);
            (codes(), codes())
        })
    }

    proptest! {
        #[test]
        fn int8_kernels_equal_the_scalar_one((a, b) in row()) {
            let want: i32 = a.iter().zip(&b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
            let rows: Vec<i8> = [b.clone(), a.clone(), b.clone()].concat();
            for kernels in available() {
                prop_assert_eq!(kernels.dot_i8(&a, &b), want, "{}", kernels.name);
                let mut out = [0; 3];
                kernels.dot_i8_rows(&a, &rows, &mut out);
                prop_assert_eq!(out, [want, SCALAR.dot_i8(&a, &a), want], "{}", kernels.name);
                kernels.dot_i8_picked(&a, &rows, 40, &[41, 42, 43], &mut out);
                prop_assert_eq!(out, [SCALAR.dot_i8(&a, &a), want, 0], "{}", kernels.name);
            }
        }

        #[test]
        fn f32_kernels_equal_the_scalar_one(pairs in vec((-1.0_f32..1.0, -1.0_f32..1.0), 0..200)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let want: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            for kernels in available() {
                prop_assert!((f64::from(kernels.dot_f32(&a, &b)) - want).abs() < 1e-4, "{}", kernels.name);
            }
        }
    }

    #[test]
    fn lines_flatten_in_order() {
        let mut lines = vec![Line([0; LINE]); 2];
        lines[1].0[3] = 7;
        assert_eq!(flat(&lines).iter().position(|c| *c == 7), Some(LINE + 3));
    }
}
