//! Products of rows of activations with packed weights: where nine tenths of the time go.
//!
//! Every matrix of the model is cut into squares of 384 x 384. Each number of a result is one chain of fused
//! multiply-adds in the order of the 384 inputs, whatever the tile it is computed in: the result of a row does not
//! depend on the rows beside it or on the processor.

use super::functions::gelu;
use crate::simd::{LANES, Lanes, Simd, Work};

/// Numbers of a row of activations.
pub(super) const WIDTH: usize = 384;

/// Vectors of a row.
pub(super) const LANES_PER_ROW: usize = WIDTH / LANES;

/// Columns of a panel of weights, in vectors.
const PANEL: usize = 2;

/// The activations of one token, or whatever else is one row of 384 numbers.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Row(pub(super) [f32; WIDTH]);

impl Row {
    pub(super) const ZERO: Self = Self([0.0; WIDTH]);

    #[inline(always)]
    pub(super) fn lanes(&self) -> &[Lanes] {
        self.0.as_chunks().0
    }

    #[inline(always)]
    pub(super) fn lanes_mut(&mut self) -> &mut [Lanes] {
        self.0.as_chunks_mut().0
    }
}

/// What one input contributes to the columns of a panel.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Strip([Lanes; PANEL]);

type Panel = [Strip; WIDTH];

/// A matrix of 384 inputs and at most 384 outputs, as the product reads it: panels of 32 outputs, in each the
/// weights of the first input, then those of the second, and so on.
#[derive(Debug)]
pub(super) struct Packed {
    strips: Vec<Strip>,
    bias: Row,
}

impl Packed {
    /// Packs a matrix.
    ///
    /// `weight(input, output)` is one number of it; what the last panel holds beyond `num_outputs` is zero.
    pub(super) fn new(num_outputs: usize, weight: impl Fn(usize, usize) -> f32, bias: &Row) -> Self {
        let width = PANEL * LANES;
        let mut strips = Vec::with_capacity(num_outputs.div_ceil(width) * WIDTH);
        for first in (0..num_outputs).step_by(width) {
            for input in 0..WIDTH {
                let mut strip = Strip([[0.0; LANES]; PANEL]);
                for (idx, value) in strip.0.as_flattened_mut().iter_mut().enumerate() {
                    if first + idx < num_outputs {
                        *value = weight(input, first + idx);
                    }
                }
                strips.push(strip);
            }
        }
        Self { strips, bias: *bias }
    }

    fn panels(&self) -> &[Panel] {
        self.strips.as_chunks().0
    }
}

/// What a product starts its sums from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The bias.
    Bias,
    /// What the result holds.
    Result,
}

/// What becomes of a finished sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// It is the result.
    Plain,
    /// GELU is applied to it.
    Gelu,
}

/// `result = finish(start + rows * weights)`, as many rows as `rows` has.
pub(super) struct Product<'a> {
    pub(super) rows: &'a [Row],
    pub(super) weights: &'a Packed,
    pub(super) start: Start,
    pub(super) finish: Finish,
    pub(super) result: &'a mut [Row],
}

impl Work for Product<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let height = S::TILE.0;
        for (idx, panel) in self.weights.panels().iter().enumerate() {
            for (rows, result) in self.rows.chunks(height).zip(self.result.chunks_mut(height)) {
                let bias = (self.start == Start::Bias).then_some(&self.weights.bias);
                let first = idx * PANEL;
                simd.run(Tile { rows, panel, first, bias, result: &mut *result });
                if self.finish == Finish::Gelu {
                    simd.run(Gelu { result, first });
                }
            }
        }
    }
}

/// GELU of a tile that was just written.
struct Gelu<'a> {
    result: &'a mut [Row],
    first: usize,
}

impl Work for Gelu<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.result {
            for lanes in &mut row.lanes_mut()[self.first..self.first + PANEL] {
                simd.store(lanes, gelu(simd, simd.load(lanes)));
            }
        }
    }
}

/// One tile: some rows and one panel.
struct Tile<'a> {
    rows: &'a [Row],
    panel: &'a Panel,
    first: usize,
    bias: Option<&'a Row>,
    result: &'a mut [Row],
}

impl Work for Tile<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        macro_rules! of_height {
            ($($height:literal)*) => {
                match self.rows.len() {
                    $($height if $height <= S::TILE.0 => self.of_height::<S, $height>(simd),)*
                    _ => unreachable!("a tile has between one and fourteen rows"),
                }
            };
        }
        of_height!(14 1 2 3 4 5 6 7 8 9 10 11 12 13);
    }
}

impl Tile<'_> {
    #[inline(always)]
    fn of_height<S: Simd, const H: usize>(self, simd: S) {
        let (Ok(rows), Ok(result)) = (<&[Row; H]>::try_from(self.rows), <&mut [Row; H]>::try_from(self.result)) else {
            unreachable!("as many rows as results");
        };
        if S::TILE.1 == PANEL {
            sums::<S, H, PANEL>(simd, rows, self.panel, 0, self.first, self.bias, result);
        } else {
            for part in 0..PANEL {
                sums::<S, H, 1>(simd, rows, self.panel, part, self.first + part, self.bias, result);
            }
        }
    }
}

/// The sums of H rows and `N` vectors of a panel, all in registers.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn sums<S: Simd, const H: usize, const N: usize>(
    simd: S,
    rows: &[Row; H],
    panel: &Panel,
    part: usize,
    first: usize,
    bias: Option<&Row>,
    result: &mut [Row; H],
) {
    let mut sums = [[simd.splat(0.0); N]; H];
    for (row, sums) in result.iter().zip(&mut sums) {
        let start = bias.unwrap_or(row).lanes();
        for (idx, sum) in sums.iter_mut().enumerate() {
            *sum = simd.load(&start[first + idx]);
        }
    }
    for (input, strip) in panel.iter().enumerate() {
        let mut weights = [simd.splat(0.0); N];
        for (idx, weights) in weights.iter_mut().enumerate() {
            *weights = simd.load(&strip.0[part + idx]);
        }
        for (row, sums) in rows.iter().zip(&mut sums) {
            let value = simd.splat(row.0[input]);
            for (sum, &weights) in sums.iter_mut().zip(&weights) {
                *sum = simd.mul_add(value, weights, *sum);
            }
        }
    }
    for (row, sums) in result.iter_mut().zip(sums) {
        let row = row.lanes_mut();
        for (idx, sum) in sums.into_iter().enumerate() {
            simd.store(&mut row[first + idx], sum);
        }
    }
}
