//! Sixteen float32 lanes on three kinds of processors, with equal results on all of them.
//!
//! Every operation is one that IEEE 754 rounds exactly, so a lane holds the same bits whether AVX-512, AVX2 or plain
//! Rust computed it. What is built on [`Simd`] has the same bits everywhere as long as it fixes the order of its sums.
//!
//! All `unsafe` of this room is here, and all of it is of one kind: an instruction is used that not every processor
//! has. The invariant: a value of [`Avx512`] or [`Avx2`] exists only where [`Avx512::detect`] or [`Avx2::detect`]
//! found the instructions, which are those of the attribute of its `run` and no others. Memory is only reached
//! through references to sixteen floats.
#![allow(unsafe_code, clippy::inline_always)]

mod functions;

pub(crate) use functions::{exp, max_lanes, polynomial, sum_lanes};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen floats, in memory.
pub(crate) type Lanes = [f32; LANES];

/// Work that is compiled once per kind of processor; `run` must be `#[inline(always)]`, so that it becomes part of
/// the function that may use the instructions.
pub(crate) trait Work {
    fn run<S: Simd>(self, simd: S);
}

/// The operations of one kind of processor.
pub(crate) trait Simd: Copy + Send + Sync {
    /// Sixteen floats, in registers.
    type V: Copy;

    /// Rows and vectors per row of the largest tile of sums that fits into the registers.
    const TILE: (usize, usize);

    /// Does `work` with the instructions of this processor.
    fn run(self, work: impl Work);

    fn splat(self, value: f32) -> Self::V;
    fn load(self, lanes: &Lanes) -> Self::V;
    fn store(self, lanes: &mut Lanes, values: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of two numbers, neither of them NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of two numbers, neither of them NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The bits of each lane as an integer, plus 127, shifted to where float32 has its exponent.
    fn exponent(self, a: Self::V) -> Self::V;
}

/// What every processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

#[inline(always)]
fn lanewise(operation: impl Fn(usize) -> f32) -> Lanes {
    let mut lanes = [0.0; LANES];
    for (idx, lane) in lanes.iter_mut().enumerate() {
        *lane = operation(idx);
    }
    lanes
}

impl Simd for Portable {
    type V = Lanes;

    const TILE: (usize, usize) = (4, 1);

    #[inline(always)]
    fn run(self, work: impl Work) {
        work.run(self);
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, lanes: &Lanes) -> Lanes {
        *lanes
    }

    #[inline(always)]
    fn store(self, lanes: &mut Lanes, values: Lanes) {
        *lanes = values;
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(|idx| a[idx] + b[idx])
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(|idx| a[idx] - b[idx])
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(|idx| a[idx] * b[idx])
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(|idx| a[idx] / b[idx])
    }

    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(|idx| if a[idx] < b[idx] { a[idx] } else { b[idx] })
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        lanewise(|idx| if a[idx] > b[idx] { a[idx] } else { b[idx] })
    }

    #[inline(always)]
    fn mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        lanewise(|idx| a[idx].mul_add(b[idx], c[idx]))
    }

    #[inline(always)]
    fn exponent(self, a: Lanes) -> Lanes {
        lanewise(|idx| f32::from_bits(a[idx].to_bits().wrapping_add(127) << 23))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Which instructions are used. The results are the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable(Portable),
}

impl Instructions {
    /// Those of a name, or the widest of this processor; None when it has not got them.
    pub(crate) fn find(name: Option<&str>) -> Option<Self> {
        let is_named = |other: &str| name.is_none_or(|name| name == other);
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = Avx512::detect().filter(|_| is_named("avx512")) {
            return Some(Self::Avx512(token));
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = Avx2::detect().filter(|_| is_named("avx2")) {
            return Some(Self::Avx2(token));
        }
        is_named("portable").then_some(Self::Portable(Portable))
    }

    /// Does `work` with them.
    pub(crate) fn run(self, work: impl Work) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.run(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.run(work),
            Self::Portable(simd) => simd.run(work),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)] // the names of the instructions
    use std::arch::x86_64::*;

    use super::{LANES, Lanes, Simd, Work};

    /// AVX-512; the field is private to this module, so that only `detect` makes one.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Avx512(());

    impl Avx512 {
        /// The token of AVX-512, where this processor has it.
        pub(crate) fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx512f").then_some(Self(()))
        }
    }

    impl Simd for Avx512 {
        type V = __m512;

        const TILE: (usize, usize) = (14, 2);

        #[inline(always)]
        fn run(self, work: impl Work) {
            #[target_feature(enable = "avx512f")]
            fn inner(simd: Avx512, work: impl Work) {
                work.run(simd);
            }
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { inner(self, work) }
        }

        #[inline(always)]
        fn splat(self, value: f32) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        fn load(self, lanes: &Lanes) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512; the reference is to sixteen floats.
            unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, lanes: &mut Lanes, values: __m512) {
            // SAFETY: `self` exists, so the processor has AVX-512; the reference is to sixteen floats.
            unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), values) }
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { _mm512_div_ps(a, b) }
        }

        #[inline(always)]
        fn min(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { _mm512_min_ps(a, b) }
        }

        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { _mm512_max_ps(a, b) }
        }

        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn exponent(self, a: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has AVX-512.
            unsafe {
                let biased = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
            }
        }
    }

    /// AVX2 with fused multiply-add; the field is private to this module, so that only `detect` makes one.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Avx2(());

    /// Two registers of eight lanes.
    type Pair = [__m256; 2];

    const HALF: usize = LANES / 2;

    impl Avx2 {
        /// The token of AVX2 with fused multiply-add, where this processor has both.
        pub(crate) fn detect() -> Option<Self> {
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
        }
    }

    impl Simd for Avx2 {
        type V = Pair;

        const TILE: (usize, usize) = (6, 1);

        #[inline(always)]
        fn run(self, work: impl Work) {
            #[target_feature(enable = "avx2,fma")]
            fn inner(simd: Avx2, work: impl Work) {
                work.run(simd);
            }
            // SAFETY: `self` exists, so the processor has AVX2 and FMA.
            unsafe { inner(self, work) }
        }

        #[inline(always)]
        fn splat(self, value: f32) -> Pair {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_set1_ps(value); 2] }
        }

        #[inline(always)]
        fn load(self, lanes: &Lanes) -> Pair {
            let (low, high) = lanes.split_at(HALF);
            // SAFETY: `self` exists, so the processor has AVX2; both slices hold eight floats.
            unsafe { [_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())] }
        }

        #[inline(always)]
        fn store(self, lanes: &mut Lanes, values: Pair) {
            let (low, high) = lanes.split_at_mut(HALF);
            // SAFETY: `self` exists, so the processor has AVX2; both slices hold eight floats.
            unsafe {
                _mm256_storeu_ps(low.as_mut_ptr(), values[0]);
                _mm256_storeu_ps(high.as_mut_ptr(), values[1]);
            }
        }

        #[inline(always)]
        fn add(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn sub(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn mul(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn div(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn min(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn max(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn mul_add(self, a: Pair, b: Pair, c: Pair) -> Pair {
            // SAFETY: `self` exists, so the processor has FMA.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn exponent(self, a: Pair) -> Pair {
            // No closure: what is called from one need not be inlined.
            // SAFETY: `self` exists, so the processor has AVX2.
            unsafe {
                let bias = _mm256_set1_epi32(127);
                let low = _mm256_add_epi32(_mm256_castps_si256(a[0]), bias);
                let high = _mm256_add_epi32(_mm256_castps_si256(a[1]), bias);
                [_mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high))]
            }
        }
    }
}
