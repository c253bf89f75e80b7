//! Attention within each text: twelve heads of 32 numbers.

use super::product::{Row, WIDTH};
use crate::simd::{LANES, Lanes, Simd, Work, exp, max_lanes, sum_lanes};

const HEADS: usize = 12;
const HEAD_WIDTH: usize = WIDTH / HEADS;
const LANES_PER_HEAD: usize = HEAD_WIDTH / LANES;

/// Queries that are worked on side by side.
const QUERIES: usize = 8;

/// Room for one head of one text.
#[derive(Debug, Default)]
pub(super) struct HeadRoom {
    /// Keys with their numbers first: of each number the keys of all tokens, filled up to whole vectors.
    keys: Vec<[Lanes; HEAD_WIDTH]>,
    /// Of each of some queries the weights of all tokens.
    weights: Vec<[Lanes; QUERIES]>,
}

/// Replaces the queries of each text by the mixture of values that they ask for.
pub(super) struct Attention<'a> {
    pub(super) queries: &'a mut [Row],
    pub(super) keys: &'a [Row],
    pub(super) values: &'a [Row],
    pub(super) lengths: &'a [usize],
    pub(super) room: &'a mut HeadRoom,
}

impl Work for Attention<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (mut first, room) = (0, self.room);
        for &length in self.lengths {
            let text = first..first + length;
            first = text.end;
            let (keys, values) = (&self.keys[text.clone()], &self.values[text.clone()]);
            let queries = &mut self.queries[text];
            for head in 0..HEADS {
                transpose(keys, head, room);
                for queries in queries.chunks_mut(QUERIES) {
                    simd.run(Head { idx: head, queries, values, room });
                }
            }
        }
    }
}

/// The keys of a head, number by number.
#[inline(always)]
fn transpose(keys: &[Row], head: usize, room: &mut HeadRoom) {
    room.keys.clear();
    for keys in keys.chunks(LANES) {
        let mut block = [[0.0; LANES]; HEAD_WIDTH];
        for (lane, key) in keys.iter().enumerate() {
            for (idx, lanes) in block.iter_mut().enumerate() {
                lanes[lane] = key.0[head * HEAD_WIDTH + idx];
            }
        }
        room.keys.push(block);
    }
    room.weights.resize(room.keys.len(), [[0.0; LANES]; QUERIES]);
}

/// One head of some queries of one text.
struct Head<'a> {
    idx: usize,
    queries: &'a mut [Row],
    values: &'a [Row],
    room: &'a mut HeadRoom,
}

impl Work for Head<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        macro_rules! of_height {
            ($($height:literal)*) => {
                match self.queries.len() {
                    $($height => self.of_height::<S, $height>(simd),)*
                    _ => unreachable!("between one and eight queries"),
                }
            };
        }
        of_height!(8 1 2 3 4 5 6 7);
    }
}

impl Head<'_> {
    #[inline(always)]
    fn of_height<S: Simd, const H: usize>(self, simd: S) {
        let Ok(queries) = <&mut [Row; H]>::try_from(self.queries) else { unreachable!("H queries") };
        let inverses = weigh(simd, queries, self.values.len(), self.idx, self.room);
        mix(simd, queries, self.values, self.idx, &self.room.weights, inverses);
    }
}

/// Fills in the weights of H queries, not yet divided by their sums, and answers one over each sum.
#[inline(always)]
fn weigh<S: Simd, const H: usize>(
    simd: S,
    queries: &[Row; H],
    num_tokens: usize,
    head: usize,
    room: &mut HeadRoom,
) -> [f32; H] {
    let scale = simd.splat(1.0 / (HEAD_WIDTH as f32).sqrt());
    let mut largest = [simd.splat(f32::NEG_INFINITY); H];
    for (block, (keys, weights)) in room.keys.iter().zip(&mut room.weights).enumerate() {
        let mut scores = [simd.splat(0.0); H];
        for (idx, key) in keys.iter().enumerate() {
            let key = simd.load(key);
            for (score, query) in scores.iter_mut().zip(queries) {
                *score = simd.mul_add(simd.splat(query.0[head * HEAD_WIDTH + idx]), key, *score);
            }
        }
        let missing = (block * LANES + LANES).saturating_sub(num_tokens);
        for ((score, largest), weights) in scores.into_iter().zip(&mut largest).zip(weights) {
            simd.store(weights, simd.mul(score, scale));
            weights[LANES - missing..].fill(f32::NEG_INFINITY);
            *largest = simd.max(*largest, simd.load(weights));
        }
    }
    let largest = largest.map(|largest| simd.splat(max_lanes(simd, largest)));
    let mut sums = [simd.splat(0.0); H];
    for (block, weights) in room.weights.iter_mut().enumerate() {
        let missing = (block * LANES + LANES).saturating_sub(num_tokens);
        for ((sum, &largest), weights) in sums.iter_mut().zip(&largest).zip(weights) {
            let weight = exp(simd, simd.sub(simd.load(weights), largest));
            simd.store(weights, weight);
            weights[LANES - missing..].fill(0.0);
            *sum = simd.add(*sum, simd.load(weights));
        }
    }
    sums.map(|sum| 1.0 / sum_lanes(simd, sum))
}

/// The mixtures of H queries, in their place.
#[inline(always)]
fn mix<S: Simd, const H: usize>(
    simd: S,
    queries: &mut [Row; H],
    values: &[Row],
    head: usize,
    weights: &[[Lanes; QUERIES]],
    inverses: [f32; H],
) {
    let first = head * LANES_PER_HEAD;
    let mut mixed = [[simd.splat(0.0); LANES_PER_HEAD]; H];
    for (values, weights) in values.chunks(LANES).zip(weights) {
        for (token, value) in values.iter().enumerate() {
            let lanes = value.lanes();
            let value: [S::V; LANES_PER_HEAD] = [simd.load(&lanes[first]), simd.load(&lanes[first + 1])];
            for (mixed, weights) in mixed.iter_mut().zip(weights) {
                let weight = simd.splat(weights[token]);
                for (mixed, &value) in mixed.iter_mut().zip(&value) {
                    *mixed = simd.mul_add(weight, value, *mixed);
                }
            }
        }
    }
    for ((query, mixed), inverse) in queries.iter_mut().zip(mixed).zip(inverses) {
        let lanes = query.lanes_mut();
        for (idx, mixed) in mixed.into_iter().enumerate() {
            simd.store(&mut lanes[first + idx], simd.mul(mixed, simd.splat(inverse)));
        }
    }
}
