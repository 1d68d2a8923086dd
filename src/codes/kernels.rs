//! Dot products, with the implementation chosen once for the processor. Every kernel matches the scalar one:
//! exactly for int8, within rounding for f32.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

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
/// Arguments: query, rows, output dot products.
type DotEach = fn(&[i8], &[&[i8]], &mut [i32]);

/// The kernels of one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// Name of the instruction set.
    pub name: &'static str,
    dot_i8: fn(&[i8], &[i8]) -> i32,
    dot_i8_rows: fn(&[i8], &[i8], &mut [i32]),
    dot_i8_picked: DotPicked,
    dot_i8_each: DotEach,
    dot_i8_near: DotEach,
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

    /// Sets `out[i]` to the dot product of `query` and `rows[i]`, at any addresses: the next rows are
    /// prefetched while one is compared.
    #[inline]
    pub fn dot_i8_each(&self, query: &[i8], rows: &[&[i8]], out: &mut [i32]) {
        (self.dot_i8_each)(query, rows, out);
    }

    /// Like [`dot_i8_each`](Self::dot_i8_each), for rows that are in the cache.
    #[inline]
    pub fn dot_i8_near(&self, query: &[i8], rows: &[&[i8]], out: &mut [i32]) {
        (self.dot_i8_near)(query, rows, out);
    }

    /// Dot product over the length of the shorter slice.
    #[inline]
    #[must_use]
    pub fn dot_f32(&self, a: &[f32], b: &[f32]) -> f32 {
        (self.dot_f32)(a, b)
    }
}

static CHOSEN: OnceLock<Kernels> = OnceLock::new();

/// The fastest kernels that this processor supports.
#[must_use]
pub fn kernels() -> &'static Kernels {
    CHOSEN.get_or_init(|| available()[0])
}

/// Chooses kernels by name, to measure what another processor would do. Returns false if the processor lacks them, or
/// others are in use already.
pub fn prefer(name: &str) -> bool {
    let named = available().into_iter().find(|kernels| kernels.name == name);
    named.is_some_and(|kernels| CHOSEN.set(kernels).is_ok())
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
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("avxvnni")
        {
            found.push(x86::AVX_VNNI);
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
    dot_i8_each: |query, rows, out| each_of::<false>(query, rows, out, scalar_i8),
    dot_i8_near: |query, rows, out| each_of::<false>(query, rows, out, scalar_i8),
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

/// Scattered rows to fetch ahead of the one that is compared.
const GROUP: usize = 4;

#[inline(always)]
fn each_of<const FAR: bool>(
    query: &[i8],
    rows: &[&[i8]],
    out: &mut [i32],
    dot: impl Fn(&[i8], &[i8]) -> i32,
) {
    if FAR {
        rows.iter().take(GROUP).for_each(|row| prefetch(row));
    }
    for (at, (row, out)) in rows.iter().zip(out).enumerate() {
        if FAR {
            rows.get(at + GROUP).into_iter().for_each(|row| prefetch(row));
        }
        *out = dot(query, row);
    }
}

/// Fetches memory into the cache, for a read that follows soon.
#[inline(always)]
pub fn prefetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(data);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = (Vec<i8>, Vec<i8>)> {
        (1_usize..10).prop_flat_map(|lines| {
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
                let scattered = [&b, &a, &b, &a, &b, &b, &a].map(Vec::as_slice);
                let mut out = [0; 7];
                kernels.dot_i8_each(&a, &scattered, &mut out);
                let want = scattered.map(|row| SCALAR.dot_i8(&a, row));
                prop_assert_eq!(out, want, "{}", kernels.name);
                kernels.dot_i8_near(&a, &scattered, &mut out);
                prop_assert_eq!(out, want, "{}", kernels.name);
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
