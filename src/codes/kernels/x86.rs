//! Dot products for AVX2, AVX-VNNI and AVX-512 VNNI.

use std::arch::x86_64::*;

use super::{Kernels, LINE, each_of, each_picked, each_row};

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
    dot_i8_each: |query, rows, out| unsafe { avx512_i8_each::<true>(query, rows, out) },
    dot_i8_near: |query, rows, out| unsafe { avx512_i8_each::<false>(query, rows, out) },
    dot_f32: |a, b| unsafe { avx512_f32(a, b) },
};
#[allow(unsafe_code)]
pub const AVX_VNNI: Kernels = Kernels {
    name: "avx-vnni",
    dot_i8: |a, b| unsafe { avx_vnni_i8(a, b) },
    dot_i8_rows: |query, rows, out| unsafe { avx_vnni_i8_rows(query, rows, out) },
    dot_i8_picked: |query, rows, first, picked, out| unsafe {
        avx_vnni_i8_picked(query, rows, first, picked, out);
    },
    dot_i8_each: |query, rows, out| unsafe { avx_vnni_i8_each::<true>(query, rows, out) },
    dot_i8_near: |query, rows, out| unsafe { avx_vnni_i8_each::<false>(query, rows, out) },
    dot_f32: |a, b| unsafe { avx2_f32(a, b) },
};
#[allow(unsafe_code)]
pub const AVX2: Kernels = Kernels {
    name: "avx2",
    dot_i8: |a, b| unsafe { avx2_i8(a, b) },
    dot_i8_rows: |query, rows, out| unsafe { avx2_i8_rows(query, rows, out) },
    dot_i8_picked: |query, rows, first, picked, out| unsafe {
        avx2_i8_picked(query, rows, first, picked, out);
    },
    dot_i8_each: |query, rows, out| unsafe { avx2_i8_each::<true>(query, rows, out) },
    dot_i8_near: |query, rows, out| unsafe { avx2_i8_each::<false>(query, rows, out) },
    dot_f32: |a, b| unsafe { avx2_f32(a, b) },
};

/// 128 times the sum of the codes of a query, spread over the lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512_excess(query: &[i8]) -> __m512i {
    let offset = _mm512_set1_epi8(-128);
    query.chunks_exact(LINE).fold(_mm512_setzero_si512(), |excess, part| {
        // SAFETY: the chunk is exactly 64 bytes; the load needs no alignment.
        #[allow(unsafe_code)]
        let part = unsafe { _mm512_loadu_si512(part.as_ptr().cast()) };
        _mm512_dpbusd_epi32(excess, offset, part)
    })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512_i8_less(excess: __m512i, query: &[i8], row: &[i8]) -> i32 {
    // The instruction multiplies unsigned by signed bytes. row + 128 is unsigned; what that adds depends on the query
    // alone.
    let offset = _mm512_set1_epi8(-128);
    let mut sum = _mm512_setzero_si512();
    for (query, row) in query.chunks_exact(LINE).zip(row.chunks_exact(LINE)) {
        // SAFETY: both chunks are exactly 64 bytes; the loads need no alignment.
        #[allow(unsafe_code)]
        let (query, row) =
            unsafe { (_mm512_loadu_si512(query.as_ptr().cast()), _mm512_loadu_si512(row.as_ptr().cast())) };
        sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(row, offset), query);
    }
    _mm512_reduce_add_epi32(_mm512_sub_epi32(sum, excess))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512_i8(a: &[i8], b: &[i8]) -> i32 {
    let shared = a.len().min(b.len());
    avx512_i8_less(avx512_excess(&a[..shared]), a, b)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512_i8_each<const FAR: bool>(query: &[i8], rows: &[&[i8]], out: &mut [i32]) {
    let excess = avx512_excess(query);
    each_of::<FAR>(query, rows, out, |query, row| avx512_i8_less(excess, query, row));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512_i8_rows(query: &[i8], rows: &[i8], out: &mut [i32]) {
    let excess = avx512_excess(query);
    each_row(query, rows, out, |query, row| avx512_i8_less(excess, query, row));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512_i8_picked(query: &[i8], rows: &[i8], first: u32, picked: &[u32], out: &mut [i32]) {
    let excess = avx512_excess(query);
    // A row beyond the end is empty, and so is its excess.
    let dot = |query: &[i8], row: &[i8]| if row.is_empty() { 0 } else { avx512_i8_less(excess, query, row) };
    each_picked(query, rows, first, picked, out, dot, prefetch);
}

#[inline(always)]
pub fn prefetch<T>(data: &[T]) {
    for line in data.chunks((LINE / size_of::<T>()).max(1)) {
        // SAFETY: the address lies in a slice; and a prefetch reads nothing that a program could see.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
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
    avx2_total(sum)
}

#[inline]
#[target_feature(enable = "avx2")]
fn avx2_total(sum: __m256i) -> i32 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
    _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter)))
}

#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn avx_vnni_i8(a: &[i8], b: &[i8]) -> i32 {
    let mut sum = _mm256_setzero_si256();
    for (a, b) in a.chunks_exact(LINE / 2).zip(b.chunks_exact(LINE / 2)) {
        // SAFETY: both chunks are exactly 32 bytes; the loads need no alignment.
        #[allow(unsafe_code)]
        let (a, b) =
            unsafe { (_mm256_loadu_si256(a.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().cast())) };
        sum = _mm256_dpbusd_avx_epi32(sum, _mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
    }
    avx2_total(sum)
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn avx_vnni_i8_each<const FAR: bool>(query: &[i8], rows: &[&[i8]], out: &mut [i32]) {
    each_of::<FAR>(query, rows, out, |a, b| avx_vnni_i8(a, b));
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn avx_vnni_i8_rows(query: &[i8], rows: &[i8], out: &mut [i32]) {
    each_row(query, rows, out, |a, b| avx_vnni_i8(a, b));
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn avx_vnni_i8_picked(query: &[i8], rows: &[i8], first: u32, picked: &[u32], out: &mut [i32]) {
    each_picked(query, rows, first, picked, out, |a, b| avx_vnni_i8(a, b), prefetch);
}

#[target_feature(enable = "avx2,fma")]
fn avx2_i8_each<const FAR: bool>(query: &[i8], rows: &[&[i8]], out: &mut [i32]) {
    each_of::<FAR>(query, rows, out, |a, b| avx2_i8(a, b));
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
            high =
                _mm256_fmadd_ps(_mm256_loadu_ps(a.as_ptr().add(8)), _mm256_loadu_ps(b.as_ptr().add(8)), high);
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
