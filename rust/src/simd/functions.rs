//! Functions of one vector: exponential, polynomials, sum and maximum of its lanes.

use super::{LANES, Simd};

/// The lanes of a vector added up, always in the same order: halves, then halves of those.
#[inline(always)]
pub(crate) fn sum_lanes<S: Simd>(simd: S, values: S::V) -> f32 {
    let mut lanes = [0.0; LANES];
    simd.store(&mut lanes, values);
    let mut width = LANES / 2;
    while width > 0 {
        for idx in 0..width {
            lanes[idx] += lanes[idx + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest lane of a vector.
#[inline(always)]
pub(crate) fn max_lanes<S: Simd>(simd: S, values: S::V) -> f32 {
    let mut lanes = [0.0; LANES];
    simd.store(&mut lanes, values);
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// The polynomial of some coefficients, that of the highest power first.
#[inline(always)]
pub(crate) fn polynomial<S: Simd>(simd: S, coefficients: &[f32], x: S::V) -> S::V {
    let mut value = simd.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        value = simd.mul_add(value, x, simd.splat(coefficient));
    }
    value
}

/// e to the x for x in [-87, 88] (what is below counts as -87), to 1e-7 of its value.
///
/// x = n ln 2 + r with n whole and |r| at most half of ln 2; a minimax polynomial of r times a power of two.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    /// 1.5 * 2^23: a number this large has no digits behind the point, its last bits count ones.
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4; // nine bits, so that n times it is exact
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 7] = [0.001_381_459_8, 0.008_368_717, 0.041_668_39, 0.166_665_21, 0.499_999_94, 1.0, 1.0];
    let x = simd.max(x, simd.splat(-87.0));
    let shifted = simd.mul_add(x, simd.splat(std::f32::consts::LOG2_E), simd.splat(ROUNDER));
    let n = simd.sub(shifted, simd.splat(ROUNDER));
    let r = simd.mul_add(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN_2_LOW), r);
    simd.mul(polynomial(simd, &COEFFICIENTS, r), simd.exponent(shifted))
}
