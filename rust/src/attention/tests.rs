//! Groups against the definitions of the masks, and both passes against plain loops in float64.

use super::*;

/// Contexts, queries, cells, heads, parents and foreign keys of the made-up batch; the width of a head is given.
const SIZES: (usize, usize, usize, usize, usize, usize) = (3, 21, 40, 2, 3, 4);

const KINDS: [Kind; 5] = [Kind::Column, Kind::Feature, Kind::Neighbor, Kind::Temporal, Kind::Full];

/// A made-up batch: rows of one to four cells, links of rows to any rows (themselves among them, twice the same as
/// well), rows without a time, padding at the end, and queries in any order.
struct Batch {
    shape: Shape,
    numbers: [Vec<f32>; 5],
    asking: Vec<i32>,
    row: Vec<i32>,
    column: Vec<i32>,
    age: Vec<f32>,
    parents: Vec<i32>,
    parent_keys: Vec<i32>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(2001) as f32 / 500.0 - 2.0).collect()
    }
}

impl Batch {
    fn new(seed: u64, width: usize) -> Self {
        let (contexts, queries, cells, heads, parents, foreign_keys) = SIZES;
        let random = &mut Random(seed);
        let mut batch = Self {
            shape: Shape { contexts, queries, cells, heads, width, parents, foreign_keys },
            numbers: [
                contexts * queries * heads * width,
                contexts * cells * heads * width,
                contexts * cells * heads * width,
                contexts * cells * heads,
                foreign_keys * heads,
            ]
            .map(|count| random.numbers(count)),
            asking: (0..contexts * queries).map(|_| random.below(cells) as i32).collect(),
            row: vec![-1; contexts * cells],
            column: vec![-1; contexts * cells],
            age: vec![f32::INFINITY; contexts * cells],
            parents: vec![-1; contexts * cells * parents],
            parent_keys: vec![-1; contexts * cells * parents],
        };
        for context in 0..contexts {
            batch.fill_context(context, random);
        }
        batch
    }

    fn fill_context(&mut self, context: usize, random: &mut Random) {
        let Shape { cells, parents, foreign_keys, .. } = self.shape;
        let (first, used) = (context * cells, cells - random.below(8));
        let num_rows = used / 2;
        let mut cell = 0;
        for row in 0..num_rows {
            let age = if random.below(4) == 0 { f32::INFINITY } else { random.below(6) as f32 };
            let links: Vec<_> = (0..parents)
                .map(|_| match random.below(3) {
                    0 => (-1, -1),
                    _ => (random.below(num_rows) as i32, random.below(foreign_keys + 1) as i32 - 1),
                })
                .collect();
            for column in 0..=random.below(4) {
                if cell == used {
                    return;
                }
                let at = first + cell;
                (self.row[at], self.column[at], self.age[at]) = (row as i32, (column + row % 3) as i32, age);
                for (slot, &(parent, key)) in links.iter().enumerate() {
                    (self.parents[at * parents + slot], self.parent_keys[at * parents + slot]) = (parent, key);
                }
                cell += 1;
            }
        }
    }

    fn inputs(&self, kind: Kind) -> Inputs<'_> {
        let [q, k, v, bias, link_bias] = &self.numbers;
        let Self { asking, row, column, age, parents, parent_keys, .. } = self;
        let (lookback, shape) = (2.5, self.shape);
        Inputs { kind, lookback, shape, q, k, v, bias, link_bias, asking, row, column, age, parents, parent_keys }
    }
}

impl Inputs<'_> {
    /// The foreign keys (of any number) that lead from a cell's row to another's row.
    fn links_from(&self, context: usize, holder: usize, other: usize) -> impl Iterator<Item = i32> {
        let Shape { cells, parents, .. } = self.shape;
        let (holder, row) = ((context * cells + holder) * parents, self.row[context * cells + other]);
        let links = self.parents[holder..holder + parents].iter().zip(&self.parent_keys[holder..holder + parents]);
        links.filter(move |(parent, _)| **parent >= 0 && **parent == row).map(|(_, key)| *key)
    }

    /// Whether a query may look at a key, by definition; cells of one context.
    fn sees(&self, context: usize, query: usize, key: usize) -> bool {
        let [asking, asked] = [query, key].map(|cell| context * self.shape.cells + cell);
        if self.row[asking] < 0 || self.row[asked] < 0 {
            return false;
        }
        let is_own = self.row[asking] == self.row[asked];
        match self.kind {
            Kind::Full => true,
            Kind::Column => self.column[asking] == self.column[asked],
            Kind::Feature => is_own || self.links_from(context, query, key).next().is_some(),
            Kind::Neighbor => self.links_from(context, key, query).next().is_some(),
            Kind::Temporal => {
                let (own, age) = (self.age[asking], self.age[asked]);
                is_own || (age < f32::INFINITY && age >= own && age - own <= self.lookback)
            }
        }
    }

    /// Foreign keys whose bias is added to the logit of a pair.
    fn links(&self, context: usize, query: usize, key: usize) -> Vec<usize> {
        let all: Vec<i32> = match self.kind {
            Kind::Feature => self.links_from(context, query, key).collect(),
            Kind::Neighbor => self.links_from(context, key, query).collect(),
            _ => Vec::new(),
        };
        all.into_iter().flat_map(usize::try_from).filter(|&key| key < self.shape.foreign_keys).collect()
    }
}

#[test]
fn groups_permit_what_the_definitions_permit() {
    for seed in 0..20 {
        let batch = Batch::new(seed, 4);
        for kind in KINDS {
            let inputs = batch.inputs(kind);
            let Shape { queries, cells, foreign_keys, .. } = batch.shape;
            for context in 0..batch.shape.contexts {
                let found = groups(&inputs, context);
                let mut pairs = vec![vec![None; cells]; queries];
                for group in &found.all {
                    for &query in &found.queries[group.queries.clone()] {
                        for &key in &found.keys[group.keys.clone()] {
                            let pair = &mut pairs[query as usize][key as usize];
                            assert!(pair.replace(vec![0; foreign_keys]).is_none(), "a pair twice");
                        }
                        for &(place, key) in &found.links[group.links.clone()] {
                            let cell = found.keys[group.keys.start + place as usize];
                            if let Some(links) = &mut pairs[query as usize][cell as usize] {
                                links[key as usize] += 1;
                            }
                        }
                    }
                }
                for (query, pairs) in pairs.iter().enumerate() {
                    let asking = inputs.asking[context * queries + query] as usize;
                    for (key, pair) in pairs.iter().enumerate() {
                        let expected = inputs.sees(context, asking, key).then(|| {
                            let mut links = vec![0; foreign_keys];
                            inputs.links(context, asking, key).into_iter().for_each(|key| links[key] += 1);
                            links
                        });
                        assert_eq!(pair, &expected, "{kind:?}, seed {seed}, {context}: {asking} and {key}");
                    }
                }
            }
        }
    }
}

/// All results of both passes, in the order of `forward` and of `Gradients`.
fn results(instructions: Instructions, inputs: &Inputs<'_>, d_out: &[f32]) -> Vec<Vec<f32>> {
    let Shape { contexts, queries, heads, foreign_keys, .. } = inputs.shape;
    let mut results = vec![vec![f32::NAN; inputs.q.len()], vec![f32::NAN; contexts * queries * heads]];
    let [out, log_total] = &mut results[..] else { unreachable!() };
    forward_by(instructions, inputs, out, log_total).unwrap();
    let mut gradients = [inputs.q, inputs.k, inputs.v, inputs.bias].map(|array| vec![f32::NAN; array.len()]).to_vec();
    gradients.push(vec![f32::NAN; contexts * foreign_keys * heads]);
    let [q, k, v, bias, link_bias] = &mut gradients[..] else { unreachable!() };
    backward_by(instructions, inputs, (out, log_total, d_out), Gradients { q, k, v, bias, link_bias }).unwrap();
    results.extend(gradients);
    results
}

/// The same in float64, one pair of cells after the other.
fn expected(inputs: &Inputs<'_>, d_out: &[f32]) -> Vec<Vec<f64>> {
    let Shape { contexts, queries, cells, heads, width, foreign_keys, .. } = inputs.shape;
    let sizes = [inputs.q.len(), contexts * queries * heads, inputs.q.len(), inputs.k.len(), inputs.k.len()];
    let mut results: Vec<Vec<f64>> = sizes.iter().map(|&size| vec![0.0; size]).collect();
    results.extend([vec![0.0; inputs.bias.len()], vec![0.0; contexts * foreign_keys * heads]]);
    let scale = 1.0 / (width as f64).sqrt();
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    for (context, query, head) in triples(contexts, queries, heads) {
        let at = (context * queries + query) * heads + head;
        let (asking, of_query) = (inputs.asking[context * queries + query] as usize, at * width..(at + 1) * width);
        let keys: Vec<usize> = (0..cells).filter(|&key| inputs.sees(context, asking, key)).collect();
        let place = |key: usize| (context * cells + key) * heads + head;
        let row = |key: usize| place(key) * width..(place(key) + 1) * width;
        let q = &inputs.q[of_query.clone()];
        let logits: Vec<f64> = keys
            .iter()
            .map(|&key| {
                let links = inputs.links(context, asking, key);
                let links = links.iter().map(|key| f64::from(inputs.link_bias[key * heads + head])).sum::<f64>();
                product(q, &inputs.k[row(key)]) * scale + f64::from(inputs.bias[place(key)]) + links
            })
            .collect();
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        results[1][at] = if keys.is_empty() { f64::INFINITY } else { total.ln() };
        let weights: Vec<f64> = logits.iter().map(|logit| logit.exp() / total).collect();
        let d_out = &d_out[of_query.clone()];
        let d_weights: Vec<f64> = keys.iter().map(|&key| product(d_out, &inputs.v[row(key)])).collect();
        let inner: f64 = weights.iter().zip(&d_weights).map(|(weight, d_weight)| weight * d_weight).sum();
        for ((&key, weight), d_weight) in keys.iter().zip(weights).zip(d_weights) {
            let d_logit = weight * (d_weight - inner);
            for idx in 0..width {
                let (of_query, of_key) = (of_query.start + idx, row(key).start + idx);
                results[0][of_query] += weight * f64::from(inputs.v[of_key]);
                results[2][of_query] += d_logit * scale * f64::from(inputs.k[of_key]);
                results[3][of_key] += d_logit * scale * f64::from(q[idx]);
                results[4][of_key] += weight * f64::from(d_out[idx]);
            }
            results[5][place(key)] += d_logit;
            for link in inputs.links(context, asking, key) {
                results[6][(context * foreign_keys + link) * heads + head] += d_logit;
            }
        }
    }
    results
}

fn triples(contexts: usize, queries: usize, heads: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..contexts * queries * heads).map(move |idx| (idx / heads / queries, idx / heads % queries, idx % heads))
}

#[test]
fn both_passes_equal_plain_loops_with_the_same_bits_from_every_processor() {
    for (seed, width) in [(1, 32), (2, 20), (3, 5)] {
        let batch = Batch::new(seed, width);
        let d_out = Random(seed + 100).numbers(batch.numbers[0].len());
        for kind in KINDS {
            let inputs = batch.inputs(kind);
            let found = results(Instructions::find(None).unwrap(), &inputs, &d_out);
            for (idx, (found, expected)) in found.iter().zip(expected(&inputs, &d_out)).enumerate() {
                for (found, expected) in found.iter().zip(expected) {
                    let difference = (f64::from(*found) - expected).abs();
                    let is_same = found.is_infinite() && expected.is_infinite();
                    assert!(is_same || difference < 2e-5, "{kind:?}, result {idx}: {found}, not {expected}");
                }
            }
            for name in ["avx2", "portable"] {
                let Some(instructions) = Instructions::find(Some(name)) else { continue };
                assert!(results(instructions, &inputs, &d_out) == found, "{kind:?}: {name} differs");
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let batch = Batch::new(7, 32);
    let d_out = Random(8).numbers(batch.numbers[0].len());
    let by = |num_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
        pool.install(|| results(Instructions::find(None).unwrap(), &batch.inputs(Kind::Feature), &d_out))
    };
    assert!(by(1) == by(5));
}

#[test]
fn arrays_of_another_size_and_queries_that_are_no_cells_are_refused() {
    let batch = Batch::new(9, 8);
    let (mut out, mut log_total) = (vec![0.0; batch.numbers[0].len()], vec![0.0; 3 * 21 * 2]);
    let mut inputs = batch.inputs(Kind::Full);
    inputs.bias = &inputs.bias[1..];
    let error = forward(&inputs, &mut out, &mut log_total).unwrap_err().to_string();
    assert!(error.contains("expected 240 numbers in bias, found 239"), "{error}");
    let mut inputs = batch.inputs(Kind::Full);
    let asking = vec![40; inputs.asking.len()];
    inputs.asking = &asking;
    let error = forward(&inputs, &mut out, &mut log_total).unwrap_err().to_string();
    assert!(error.contains("query 40 is none of 40 cells"), "{error}");
    assert!(Kind::from_number(5).is_none() && Kind::from_number(-1).is_none());
}
