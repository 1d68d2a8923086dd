//! Dot products for NEON.

use std::arch::aarch64::*;

use super::{Kernels, LINE, each_of, each_picked, each_row};

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
    dot_i8_each: |query, rows, out| unsafe { neon_i8_each(query, rows, out) },
    dot_i8_near: |query, rows, out| unsafe { neon_i8_each(query, rows, out) },
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
fn neon_i8_each(query: &[i8], rows: &[&[i8]], out: &mut [i32]) {
    each_of::<false>(query, rows, out, |a, b| neon_i8(a, b));
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
