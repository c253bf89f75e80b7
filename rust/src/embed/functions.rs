//! The functions of one row or one vector: GELU, layer normalisation, means.

use super::product::{LANES_PER_ROW, Row, WIDTH};
use crate::simd::{Lanes, Simd, Work, polynomial, sum_lanes};

/// Added under the root of a variance.
const EPSILON: f32 = 1e-12;

/// x times the probability that a standard normal variable is below x, the probability to 2e-7.
///
/// The probability less a half is x times a quotient of polynomials of the square of x, fitted to the error function
/// on [-5.5, 5.5] for the smallest largest error; beyond it is 0 or 1 to float32.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    const ABOVE: [f32; 5] = [5.169_509_7e-6, 1.620_072e-4, 4.574_627e-3, 3.384_562_3e-2, 0.398_942_2];
    const BELOW: [f32; 7] =
        [-1.762_885_7e-9, 7.311_682e-7, 6.735_899e-5, 1.823_886_1e-3, 2.838_635_6e-2, 2.515_039e-1, 1.0];
    let clamped = simd.max(simd.min(x, simd.splat(5.5)), simd.splat(-5.5));
    let square = simd.mul(clamped, clamped);
    let quotient = simd.div(polynomial(simd, &ABOVE, square), polynomial(simd, &BELOW, square));
    simd.mul(x, simd.mul_add(clamped, quotient, simd.splat(0.5)))
}

/// Rows plus other rows, normalised: mean 0, variance 1, then scaled and shifted.
pub(super) struct Normalise<'a> {
    pub(super) rows: &'a mut [Row],
    pub(super) added: &'a [Row],
    pub(super) scale: &'a Row,
    pub(super) shift: &'a Row,
}

impl Work for Normalise<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (scale, shift) = (self.scale.lanes(), self.shift.lanes());
        for (row, added) in self.rows.iter_mut().zip(self.added) {
            let (row, added) = (row.lanes_mut(), added.lanes());
            let mut sum = simd.splat(0.0);
            for (lanes, added) in row.iter_mut().zip(added) {
                let value = simd.add(simd.load(lanes), simd.load(added));
                simd.store(lanes, value);
                sum = simd.add(sum, value);
            }
            let mean = simd.splat(sum_lanes(simd, sum) / WIDTH as f32);
            let mut squares = simd.splat(0.0);
            for lanes in row.iter_mut() {
                let centred = simd.sub(simd.load(lanes), mean);
                simd.store(lanes, centred);
                squares = simd.mul_add(centred, centred, squares);
            }
            let deviation = (sum_lanes(simd, squares) / WIDTH as f32 + EPSILON).sqrt();
            let inverse = simd.splat(1.0 / deviation);
            for (lanes, (scale, shift)) in row.iter_mut().zip(scale.iter().zip(shift)) {
                let scaled = simd.mul(simd.load(lanes), inverse);
                simd.store(lanes, simd.mul_add(scaled, simd.load(scale), simd.load(shift)));
            }
        }
    }
}

/// The mean of each text's rows, one row after the other.
pub(super) struct Pool<'a> {
    pub(super) rows: &'a [Row],
    pub(super) lengths: &'a [usize],
    pub(super) means: &'a mut [Row],
}

impl Work for Pool<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut rows = self.rows;
        for (&length, mean) in self.lengths.iter().zip(self.means) {
            let (text, rest) = rows.split_at(length);
            rows = rest;
            let size = simd.splat(length as f32);
            for (idx, lanes) in mean.lanes_mut().iter_mut().enumerate() {
                let sum = text.iter().fold(simd.splat(0.0), |sum, row| simd.add(sum, simd.load(&row.lanes()[idx])));
                simd.store(lanes, simd.div(sum, size));
            }
        }
    }
}

/// Rows scaled to length one; a row of zeros stays.
pub(super) struct Unit<'a>(pub(super) &'a mut [Row]);

impl Work for Unit<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.0 {
            let mut squares = simd.splat(0.0);
            for lanes in row.lanes() {
                squares = simd.mul_add(simd.load(lanes), simd.load(lanes), squares);
            }
            let length = sum_lanes(simd, squares).sqrt();
            let length = simd.splat(if length > 0.0 { length } else { 1.0 });
            for lanes in row.lanes_mut() {
                simd.store(lanes, simd.div(simd.load(lanes), length));
            }
        }
    }
}

const _: () = assert!(LANES_PER_ROW * size_of::<Lanes>() == size_of::<Row>());
