//! One head of one context: group by group, sixteen queries at a time, one in each lane of a vector.
//!
//! Keys stay where they are: their numbers are spread over the lanes to meet sixteen queries, so that only queries are
//! transposed, and the largest logit and the sum of weights are taken lane by lane.
//!
//! Functions are `#[inline(always)]`, because one that is not part of a function with the attribute of `Simd::run`
//! may not use its instructions.
#![allow(clippy::inline_always)]

use super::Shape;
use super::groups::{Group, Groups};
use crate::simd::{LANES, Lanes, Simd, Work, exp, sum_lanes};

/// Sums of vectors that fit into the registers of a processor with 32 wide ones, and of any other.
const MANY: usize = 8;
const FEW: usize = 4;

/// Whether the registers of a processor hold [`MANY`] sums.
const fn is_wide<S: Simd>() -> bool {
    S::TILE.1 > 1
}

/// One head of one context of an array [B, .., H, K].
#[derive(Clone, Copy, Debug)]
pub(super) struct Strided<'a> {
    numbers: &'a [f32],
    stride: usize,
    first: usize,
    width: usize,
}

impl<'a> Strided<'a> {
    /// That of an array [B, `count`, H, `width`].
    pub(super) fn of(
        all: &'a [f32],
        context: usize,
        count: usize,
        (head, heads): (usize, usize),
        width: usize,
    ) -> Self {
        let stride = heads * width;
        Self { numbers: &all[context * count * stride..][..count * stride], stride, first: head * width, width }
    }

    /// Its rows below each other, times `scale`.
    #[inline(always)]
    fn rows(&self, scale: f32) -> Rows {
        let vectors = self.width.div_ceil(LANES);
        let mut rows = Rows { lanes: vec![[0.0; LANES]; self.numbers.len() / self.stride * vectors], vectors };
        for (from, to) in self.numbers.chunks_exact(self.stride).zip(rows.lanes.chunks_exact_mut(vectors)) {
            for (number, value) in to.as_flattened_mut().iter_mut().zip(&from[self.first..][..self.width]) {
                *number = value * scale;
            }
        }
        rows
    }

    /// Its numbers, where a row has one.
    #[inline(always)]
    fn numbers(&self) -> Vec<f32> {
        self.numbers.chunks_exact(self.stride.max(1)).map(|row| row[self.first]).collect()
    }
}

/// Rows of K numbers, each filled up to whole vectors.
#[derive(Clone, Debug, Default)]
struct Rows {
    lanes: Vec<Lanes>,
    vectors: usize,
}

impl Rows {
    fn zeros(count: usize, width: usize) -> Self {
        let vectors = width.div_ceil(LANES);
        Self { lanes: vec![[0.0; LANES]; count * vectors], vectors }
    }

    #[inline(always)]
    fn of(&self, idx: u32) -> &[Lanes] {
        &self.lanes[idx as usize * self.vectors..][..self.vectors]
    }

    #[inline(always)]
    fn of_mut(&mut self, idx: u32) -> &mut [Lanes] {
        &mut self.lanes[idx as usize * self.vectors..][..self.vectors]
    }

    /// Writes the rows where they belong in [.., H, K].
    fn write(&self, head: usize, heads: usize, all: &mut [f32]) {
        let width = all.len() / (self.lanes.len() / self.vectors) / heads;
        for (from, to) in self.lanes.chunks_exact(self.vectors).zip(all.chunks_exact_mut(heads * width)) {
            to[head * width..][..width].copy_from_slice(&from.as_flattened()[..width]);
        }
    }
}

/// What one head reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadInputs<'a> {
    pub(super) q: Strided<'a>,
    pub(super) k: Strided<'a>,
    pub(super) v: Strided<'a>,
    pub(super) bias: Strided<'a>,
    pub(super) link_bias: Strided<'a>,
    pub(super) width: usize,
}

/// The same, laid out.
struct Laid {
    q: Rows,
    k: Rows,
    v: Rows,
    bias: Vec<f32>,
    link_bias: Vec<f32>,
    scale: f32,
}

impl HeadInputs<'_> {
    #[inline(always)]
    fn lay_out(&self) -> Laid {
        let scale = 1.0 / (self.width as f32).sqrt();
        let (q, k, v) = (self.q.rows(scale), self.k.rows(1.0), self.v.rows(1.0));
        Laid { q, k, v, bias: self.bias.numbers(), link_bias: self.link_bias.numbers(), scale }
    }
}

impl Laid {
    /// What is added to the logits of a group's keys.
    #[inline(always)]
    fn added(&self, keys: &[u32], links: &[(u32, u32)], added: &mut Vec<f32>) {
        added.clear();
        added.extend(keys.iter().map(|&key| self.bias[key as usize]));
        for &(place, key) in links {
            added[place as usize] += self.link_bias[key as usize];
        }
    }
}

/// Of some queries, one in each lane, the numbers of their rows: [K]. Missing queries are zero.
#[inline(always)]
fn transpose(rows: &Rows, queries: &[u32], width: usize, columns: &mut Vec<Lanes>) {
    columns.clear();
    columns.resize(width, [0.0; LANES]);
    for (lane, &query) in queries.iter().enumerate() {
        for (column, &number) in columns.iter_mut().zip(rows.of(query).as_flattened()) {
            column[lane] = number;
        }
    }
}

// --- The products -----------------------------------------------------------------------------------------------------

/// Of each key the products of its row with those of the queries.
#[inline(always)]
fn multiply<S: Simd>(simd: S, columns: &[Lanes], rows: &Rows, keys: &[u32], products: &mut [Lanes]) {
    if is_wide::<S>() {
        multiply_by::<S, MANY>(simd, columns, rows, keys, products);
    } else {
        multiply_by::<S, FEW>(simd, columns, rows, keys, products);
    }
}

#[inline(always)]
fn multiply_by<S: Simd, const N: usize>(simd: S, columns: &[Lanes], rows: &Rows, keys: &[u32], products: &mut [Lanes]) {
    let (many, rest) = keys.as_chunks::<N>();
    let (products, last) = products.split_at_mut(many.len() * N);
    for (keys, products) in many.iter().zip(products.as_chunks_mut::<N>().0) {
        multiply_rows(simd, columns, rows, keys, products);
    }
    for (key, product) in rest.iter().zip(last) {
        multiply_rows(simd, columns, rows, std::array::from_ref(key), std::array::from_mut(product));
    }
}

#[inline(always)]
fn multiply_rows<S: Simd, const N: usize>(
    simd: S,
    columns: &[Lanes],
    rows: &Rows,
    keys: &[u32; N],
    products: &mut [Lanes; N],
) {
    let mut of_keys = [&[][..]; N];
    for (of_key, &key) in of_keys.iter_mut().zip(keys) {
        *of_key = &rows.of(key).as_flattened()[..columns.len()];
    }
    let mut sums = [simd.splat(0.0); N];
    for (idx, column) in columns.iter().enumerate() {
        let column = simd.load(column);
        for (sum, of_key) in sums.iter_mut().zip(of_keys) {
            *sum = simd.mul_add(simd.splat(of_key[idx]), column, *sum);
        }
    }
    for (product, sum) in products.iter_mut().zip(sums) {
        simd.store(product, sum);
    }
}

/// Writes for each query the sum of the keys' rows, each times the query's weight of it, and times the query's scale.
#[inline(always)]
fn mix<S: Simd>(
    simd: S,
    weights: &[Lanes],
    rows: &Rows,
    keys: &[u32],
    queries: &[u32],
    scales: &Lanes,
    mixed: &mut Rows,
) {
    for first in (0..queries.len()).step_by(if is_wide::<S>() { MANY } else { FEW }) {
        for vector in 0..rows.vectors {
            if is_wide::<S>() {
                mix_queries::<S, MANY>(simd, weights, rows, keys, queries, (first, vector), scales, mixed);
            } else {
                mix_queries::<S, FEW>(simd, weights, rows, keys, queries, (first, vector), scales, mixed);
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn mix_queries<S: Simd, const N: usize>(
    simd: S,
    weights: &[Lanes],
    rows: &Rows,
    keys: &[u32],
    queries: &[u32],
    (first, vector): (usize, usize),
    scales: &Lanes,
    mixed: &mut Rows,
) {
    let mut sums = [simd.splat(0.0); N];
    for (weights, &key) in weights.iter().zip(keys) {
        let row = simd.load(&rows.lanes[key as usize * rows.vectors + vector]);
        for (sum, &weight) in sums.iter_mut().zip(&weights[first..first + N]) {
            *sum = simd.mul_add(simd.splat(weight), row, *sum);
        }
    }
    for ((sum, &query), &scale) in sums.into_iter().zip(&queries[first..]).zip(&scales[first..]) {
        simd.store(&mut mixed.of_mut(query)[vector], simd.mul(sum, simd.splat(scale)));
    }
}

/// Adds to each key's row the rows of the queries, each times its weight of the key.
#[inline(always)]
fn spread<S: Simd>(simd: S, weights: &[Lanes], rows: &Rows, queries: &[u32], keys: &[u32], sums: &mut Rows) {
    if is_wide::<S>() {
        spread_by::<S, MANY>(simd, weights, rows, queries, keys, sums);
    } else {
        spread_by::<S, FEW>(simd, weights, rows, queries, keys, sums);
    }
}

#[inline(always)]
fn spread_by<S: Simd, const N: usize>(
    simd: S,
    weights: &[Lanes],
    rows: &Rows,
    queries: &[u32],
    keys: &[u32],
    sums: &mut Rows,
) {
    let (many, rest) = keys.as_chunks::<N>();
    let (weights, last) = weights.split_at(many.len() * N);
    for vector in 0..rows.vectors {
        for (keys, weights) in many.iter().zip(weights.as_chunks::<N>().0) {
            spread_rows(simd, weights, rows, queries, keys, vector, sums);
        }
        for (key, weights) in rest.iter().zip(last) {
            let (keys, weights) = (std::array::from_ref(key), std::array::from_ref(weights));
            spread_rows(simd, weights, rows, queries, keys, vector, sums);
        }
    }
}

#[inline(always)]
fn spread_rows<S: Simd, const N: usize>(
    simd: S,
    weights: &[Lanes; N],
    rows: &Rows,
    queries: &[u32],
    keys: &[u32; N],
    vector: usize,
    sums: &mut Rows,
) {
    let mut totals = [simd.splat(0.0); N];
    for (lane, &query) in queries.iter().enumerate().take(LANES) {
        let row = simd.load(&rows.lanes[query as usize * rows.vectors + vector]);
        for (total, weights) in totals.iter_mut().zip(weights) {
            *total = simd.mul_add(simd.splat(weights[lane]), row, *total);
        }
    }
    for (&key, total) in keys.iter().zip(totals) {
        let sum = &mut sums.of_mut(key)[vector];
        let total = simd.add(simd.load(sum), total);
        simd.store(sum, total);
    }
}

// --- Forward ----------------------------------------------------------------------------------------------------------

/// What the queries of a head read.
pub(super) struct Forward<'a> {
    pub(super) inputs: HeadInputs<'a>,
    pub(super) groups: &'a Groups,
    pub(super) found: &'a mut HeadOutputs,
}

/// Outputs of one head.
#[derive(Debug)]
pub(super) struct HeadOutputs {
    out: Rows,
    log_total: Vec<f32>,
}

impl HeadOutputs {
    pub(super) fn new(shape: &Shape) -> Self {
        Self { out: Rows::zeros(shape.queries, shape.width), log_total: vec![f32::INFINITY; shape.queries] }
    }

    /// Writes them where they belong in [Q, H, K] and [Q, H].
    pub(super) fn write(&self, head: usize, heads: usize, out: &mut [f32], log_total: &mut [f32]) {
        self.out.write(head, heads, out);
        write_numbers(&self.log_total, head, heads, log_total);
    }
}

/// Writes a number per row where it belongs in [.., H].
pub(super) fn write_numbers(numbers: &[f32], head: usize, heads: usize, all: &mut [f32]) {
    for (number, all) in numbers.iter().zip(all.chunks_exact_mut(heads)) {
        all[head] = *number;
    }
}

impl Work for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let laid = self.inputs.lay_out();
        let (mut columns, mut added, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for Group { queries, keys, links } in self.groups.all.iter().cloned() {
            let keys = &self.groups.keys[keys];
            laid.added(keys, &self.groups.links[links], &mut added);
            weights.resize(keys.len(), [0.0; LANES]);
            for queries in self.groups.queries[queries].chunks(LANES) {
                transpose(&laid.q, queries, self.inputs.width, &mut columns);
                multiply(simd, &columns, &laid.k, keys, &mut weights);
                let (top, total) = weigh(simd, &added, &mut weights);
                let inverses = total.map(|total| 1.0 / total);
                mix(simd, &weights, &laid.v, keys, queries, &inverses, &mut self.found.out);
                for (&query, (top, total)) in queries.iter().zip(top.into_iter().zip(total)) {
                    self.found.log_total[query as usize] = top + total.ln();
                }
            }
        }
    }
}

/// Turns products into weights that are not yet divided by their sum; answers each query's largest logit and that sum.
#[inline(always)]
fn weigh<S: Simd>(simd: S, added: &[f32], weights: &mut [Lanes]) -> (Lanes, Lanes) {
    let mut top = simd.splat(f32::MIN);
    for (weights, &added) in weights.iter_mut().zip(added) {
        let logit = simd.add(simd.load(weights), simd.splat(added));
        simd.store(weights, logit);
        top = simd.max(top, logit);
    }
    let mut total = simd.splat(0.0);
    for weights in weights {
        let weight = exp(simd, simd.sub(simd.load(weights), top));
        simd.store(weights, weight);
        total = simd.add(total, weight);
    }
    let (mut tops, mut totals) = ([0.0; LANES], [0.0; LANES]);
    simd.store(&mut tops, top);
    simd.store(&mut totals, total);
    (tops, totals)
}

// --- Backward ---------------------------------------------------------------------------------------------------------

/// The gradients of a head.
pub(super) struct Backward<'a> {
    pub(super) inputs: HeadInputs<'a>,
    pub(super) groups: &'a Groups,
    pub(super) out: Strided<'a>,
    pub(super) d_out: Strided<'a>,
    pub(super) log_total: Strided<'a>,
    pub(super) found: &'a mut HeadGradients,
}

/// Gradients of one head.
#[derive(Debug)]
pub(super) struct HeadGradients {
    q: Rows,
    k: Rows,
    v: Rows,
    bias: Vec<f32>,
    pub(super) link_bias: Vec<f32>,
}

impl HeadGradients {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            q: Rows::zeros(shape.queries, shape.width),
            k: Rows::zeros(shape.cells, shape.width),
            v: Rows::zeros(shape.cells, shape.width),
            bias: vec![0.0; shape.cells],
            link_bias: vec![0.0; shape.foreign_keys],
        }
    }

    /// Writes those of queries, keys, values and key biases where they belong in [.., H, K] and [S, H].
    pub(super) fn write(&self, head: usize, heads: usize, [q, k, v, bias]: [&mut [f32]; 4]) {
        for (rows, all) in [(&self.q, q), (&self.k, k), (&self.v, v)] {
            rows.write(head, heads, all);
        }
        write_numbers(&self.bias, head, heads, bias);
    }
}

impl Work for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let laid = self.inputs.lay_out();
        let (out, d_out, log_totals) = (self.out.rows(1.0), self.d_out.rows(1.0), self.log_total.numbers());
        let (mut columns, mut d_columns, mut added) = (Vec::new(), Vec::new(), Vec::new());
        let (mut weights, mut d_logits, mut d_added) = (Vec::new(), Vec::new(), Vec::new());
        let (width, found) = (self.inputs.width, self.found);
        for Group { queries, keys, links } in self.groups.all.iter().cloned() {
            let (keys, links) = (&self.groups.keys[keys], &self.groups.links[links]);
            laid.added(keys, links, &mut added);
            weights.resize(keys.len(), [0.0; LANES]);
            d_logits.resize(keys.len(), [0.0; LANES]);
            d_added.clear();
            d_added.resize(keys.len(), [0.0; LANES]);
            for queries in self.groups.queries[queries].chunks(LANES) {
                transpose(&laid.q, queries, width, &mut columns);
                transpose(&d_out, queries, width, &mut d_columns);
                multiply(simd, &columns, &laid.k, keys, &mut weights);
                multiply(simd, &d_columns, &laid.v, keys, &mut d_logits);
                // A query that is missing has the weight of nothing.
                let (mut log_total, mut inner) = ([f32::INFINITY; LANES], [0.0; LANES]);
                for (lane, &query) in queries.iter().enumerate() {
                    log_total[lane] = log_totals[query as usize];
                    let pairs = out.of(query).as_flattened().iter().zip(d_out.of(query).as_flattened());
                    inner[lane] = pairs.map(|(out, d_out)| out * d_out).sum();
                }
                differentiate(simd, &added, &log_total, &inner, &mut weights, &mut d_logits, &mut d_added);
                spread(simd, &weights, &d_out, queries, keys, &mut found.v);
                spread(simd, &d_logits, &laid.q, queries, keys, &mut found.k);
                mix(simd, &d_logits, &laid.k, keys, queries, &[laid.scale; LANES], &mut found.q);
            }
            for (added, &key) in d_added.iter_mut().zip(keys) {
                added[0] = sum_lanes(simd, simd.load(added));
                found.bias[key as usize] += added[0];
            }
            for &(place, key) in links {
                found.link_bias[key as usize] += d_added[place as usize][0];
            }
        }
    }
}

/// Turns products of queries with keys into weights, products of `d_out` with values into gradients of logits, which
/// are also added to `d_added`.
#[inline(always)]
fn differentiate<S: Simd>(
    simd: S,
    added: &[f32],
    log_total: &Lanes,
    inner: &Lanes,
    weights: &mut [Lanes],
    d_logits: &mut [Lanes],
    d_added: &mut [Lanes],
) {
    let (log_total, inner) = (simd.load(log_total), simd.load(inner));
    for (((weights, d_logits), &added), d_added) in weights.iter_mut().zip(d_logits).zip(added).zip(d_added) {
        let logit = simd.add(simd.load(weights), simd.splat(added));
        let weight = exp(simd, simd.sub(logit, log_total));
        let d_logit = simd.mul(weight, simd.sub(simd.load(d_logits), inner));
        simd.store(weights, weight);
        simd.store(d_logits, d_logit);
        let sum = simd.add(simd.load(d_added), d_logit);
        simd.store(d_added, sum);
    }
}
