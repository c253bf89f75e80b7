//! The model's attentions on the processor, forward and backward: what XLA calls where a mask permits little.
//!
//! A mask is never formed. All cells of a row (or of a column) look at the same keys, so every kind of attention is a
//! list of groups: some queries and the keys that all of them look at (`groups`). A group is dense, and is computed
//! as a plain attention is (`head`), with weights that are computed again in the backward pass as in FlashAttention-2
//! (arXiv 2307.08691, algorithm 2). What is multiplied is exactly what the mask permits, filled up to whole vectors.
//!
//! A head of a context is computed by one thread in a fixed order: results do not depend on the number of threads.

mod groups;
mod head;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use groups::Groups;
use head::{Backward, Forward, HeadGradients, HeadInputs, HeadOutputs, Strided, write_numbers};

use crate::error::{Error, Result};
use crate::simd::Instructions;

/// Which keys a query looks at; `documentation/model.md` has the definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Cells of the same column.
    Column,
    /// Cells of the same row and of its parents.
    Feature,
    /// Cells of the row's children.
    Neighbor,
    /// Cells of the same row and of rows that are not later, as far as the lookback goes.
    Temporal,
    /// All cells.
    Full,
}

impl Kind {
    /// As Python numbers them: the order of `KINDS` in `relations.py`.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        let all = [Self::Column, Self::Feature, Self::Neighbor, Self::Temporal, Self::Full];
        all.get(usize::try_from(number).ok()?).copied()
    }
}

/// Sizes of the arrays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// `B`.
    pub(crate) contexts: usize,
    /// `Q`.
    pub(crate) queries: usize,
    /// `S`.
    pub(crate) cells: usize,
    /// `H`.
    pub(crate) heads: usize,
    /// `K`, width of a head.
    pub(crate) width: usize,
    /// `P`, places for parents of a row.
    pub(crate) parents: usize,
    /// `F`, foreign keys with a bias; 0 where links add nothing.
    pub(crate) foreign_keys: usize,
}

/// What attention reads; all arrays are dense and row-major.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) kind: Kind,
    /// Days that the temporal attention looks back.
    pub(crate) lookback: f32,
    pub(crate) shape: Shape,
    /// [B, Q, H, K].
    pub(crate) q: &'a [f32],
    /// [B, S, H, K].
    pub(crate) k: &'a [f32],
    /// [B, S, H, K].
    pub(crate) v: &'a [f32],
    /// [B, S, H]: added to the logits of a key.
    pub(crate) bias: &'a [f32],
    /// [F, H]: added per link between the rows of query and key.
    pub(crate) link_bias: &'a [f32],
    /// [B, Q]: positions of the queries along S.
    pub(crate) asking: &'a [i32],
    /// [B, S]: row of a cell; -1 where padding.
    pub(crate) row: &'a [i32],
    /// [B, S]: column of a cell.
    pub(crate) column: &'a [i32],
    /// [B, S]: days from the time of the cell's row to the seed's; infinite where it has none.
    pub(crate) age: &'a [f32],
    /// [B, S, P]: rows that the cell's row points to; -1 where there is none.
    pub(crate) parents: &'a [i32],
    /// [B, S, P]: foreign key of each such link.
    pub(crate) parent_keys: &'a [i32],
}

/// Where the backward pass writes.
#[derive(Debug)]
pub(crate) struct Gradients<'a> {
    /// [B, Q, H, K].
    pub(crate) q: &'a mut [f32],
    /// [B, S, H, K].
    pub(crate) k: &'a mut [f32],
    /// [B, S, H, K].
    pub(crate) v: &'a mut [f32],
    /// [B, S, H].
    pub(crate) bias: &'a mut [f32],
    /// [B, F, H]: of each context apart.
    pub(crate) link_bias: &'a mut [f32],
}

/// What each query reads, and the logarithm of its sum of weights, from which the backward pass starts.
///
/// # Arguments
/// - `inputs`: queries, keys, values, and ids.
/// - `out`: [B, Q, H, K]; zero for a query that looks at nothing.
/// - `log_total`: [B, Q, H]; infinite for a query that looks at nothing.
///
/// # Errors
/// [`Error::Argument`] when an array has another size than the shape says, or a query is no cell.
pub(crate) fn forward(inputs: &Inputs<'_>, out: &mut [f32], log_total: &mut [f32]) -> Result<()> {
    forward_by(instructions()?, inputs, out, log_total)
}

fn forward_by(instructions: Instructions, inputs: &Inputs<'_>, out: &mut [f32], log_total: &mut [f32]) -> Result<()> {
    let shape = inputs.shape;
    check(inputs)?;
    let (rows, sums) = (shape.queries * shape.heads * shape.width, shape.queries * shape.heads);
    check_size("out", out.len(), shape.contexts * rows)?;
    check_size("log_total", log_total.len(), shape.contexts * sums)?;
    if shape.contexts * sums == 0 {
        return Ok(());
    }
    let contexts = out.par_chunks_mut(rows).zip(log_total.par_chunks_mut(sums)).enumerate();
    contexts.for_each(|(context, (out, log_total))| {
        let groups = groups(inputs, context);
        let heads: Vec<_> = (0..shape.heads)
            .into_par_iter()
            .map(|head| {
                let mut found = HeadOutputs::new(&shape);
                let inputs = head_inputs(inputs, context, head);
                instructions.run(Forward { inputs, groups: &groups, found: &mut found });
                found
            })
            .collect();
        for (head, found) in heads.iter().enumerate() {
            found.write(head, shape.heads, out, log_total);
        }
    });
    Ok(())
}

/// Gradients of queries, keys, values and both biases.
///
/// # Arguments
/// - `inputs`: as given to [`forward`].
/// - `out`, `log_total`: what it answered.
/// - `d_out`: [B, Q, H, K], the gradient of `out`.
/// - `gradients`: where they are written.
///
/// # Errors
/// As [`forward`].
pub(crate) fn backward(
    inputs: &Inputs<'_>,
    out: &[f32],
    log_total: &[f32],
    d_out: &[f32],
    gradients: Gradients<'_>,
) -> Result<()> {
    backward_by(instructions()?, inputs, (out, log_total, d_out), gradients)
}

fn backward_by(
    instructions: Instructions,
    inputs: &Inputs<'_>,
    (out, log_total, d_out): (&[f32], &[f32], &[f32]),
    gradients: Gradients<'_>,
) -> Result<()> {
    let shape = inputs.shape;
    check(inputs)?;
    let [queries, keys] = [shape.queries, shape.cells].map(|cells| cells * shape.heads * shape.width);
    let (sums, biases, links) =
        (shape.queries * shape.heads, shape.cells * shape.heads, shape.foreign_keys * shape.heads);
    for (name, found, size) in [
        ("out", out.len(), queries),
        ("log_total", log_total.len(), sums),
        ("d_out", d_out.len(), queries),
        ("d_q", gradients.q.len(), queries),
        ("d_k", gradients.k.len(), keys),
        ("d_v", gradients.v.len(), keys),
        ("d_bias", gradients.bias.len(), biases),
        ("d_link_bias", gradients.link_bias.len(), links),
    ] {
        check_size(name, found, shape.contexts * size)?;
    }
    if shape.contexts * queries * keys == 0 {
        for array in [gradients.q, gradients.k, gradients.v, gradients.bias, gradients.link_bias] {
            array.fill(0.0);
        }
        return Ok(());
    }
    let contexts = (gradients.q.par_chunks_mut(queries), gradients.k.par_chunks_mut(keys));
    let contexts = contexts.0.zip(contexts.1).zip(gradients.v.par_chunks_mut(keys));
    let contexts = contexts.zip(gradients.bias.par_chunks_mut(biases)).enumerate();
    let parts: Vec<_> = contexts
        .map(|(context, (((d_q, d_k), d_v), d_bias))| {
            let groups = groups(inputs, context);
            let strided = |array, head| Strided::of(array, context, shape.queries, (head, shape.heads), shape.width);
            let heads: Vec<_> = (0..shape.heads)
                .into_par_iter()
                .map(|head| {
                    let mut found = HeadGradients::new(&shape);
                    instructions.run(Backward {
                        inputs: head_inputs(inputs, context, head),
                        groups: &groups,
                        out: strided(out, head),
                        d_out: strided(d_out, head),
                        log_total: Strided::of(log_total, context, shape.queries, (head, shape.heads), 1),
                        found: &mut found,
                    });
                    found
                })
                .collect();
            let mut d_link_bias = vec![0.0; links];
            for (head, found) in heads.iter().enumerate() {
                found.write(head, shape.heads, [&mut *d_q, &mut *d_k, &mut *d_v, &mut *d_bias]);
                write_numbers(&found.link_bias, head, shape.heads, &mut d_link_bias);
            }
            d_link_bias
        })
        .collect();
    for (d_link_bias, part) in gradients.link_bias.chunks_mut(links.max(1)).zip(parts) {
        d_link_bias.copy_from_slice(&part);
    }
    Ok(())
}

fn instructions() -> Result<Instructions> {
    Instructions::find(None).ok_or_else(|| Error::Argument("no instructions".into()))
}

fn groups(inputs: &Inputs<'_>, context: usize) -> Groups {
    let Shape { queries, cells, parents, .. } = inputs.shape;
    let of_cells = context * cells..(context + 1) * cells;
    let of_parents = of_cells.start * parents..of_cells.end * parents;
    groups::Ids {
        kind: inputs.kind,
        lookback: inputs.lookback,
        num_keys: inputs.shape.foreign_keys,
        asking: &inputs.asking[context * queries..][..queries],
        row: &inputs.row[of_cells.clone()],
        column: &inputs.column[of_cells.clone()],
        age: &inputs.age[of_cells],
        parents: &inputs.parents[of_parents.clone()],
        parent_keys: &inputs.parent_keys[of_parents],
        num_parents: parents,
    }
    .groups()
}

fn head_inputs<'a>(inputs: &Inputs<'a>, context: usize, head: usize) -> HeadInputs<'a> {
    let Shape { queries, cells, heads, width, .. } = inputs.shape;
    HeadInputs {
        q: Strided::of(inputs.q, context, queries, (head, heads), width),
        k: Strided::of(inputs.k, context, cells, (head, heads), width),
        v: Strided::of(inputs.v, context, cells, (head, heads), width),
        bias: Strided::of(inputs.bias, context, cells, (head, heads), 1),
        link_bias: Strided::of(inputs.link_bias, 0, inputs.shape.foreign_keys, (head, heads), 1),
        width,
    }
}

fn check(inputs: &Inputs<'_>) -> Result<()> {
    let Shape { contexts, queries, cells, heads, width, parents, foreign_keys } = inputs.shape;
    for (name, found, size) in [
        ("q", inputs.q.len(), contexts * queries * heads * width),
        ("k", inputs.k.len(), contexts * cells * heads * width),
        ("v", inputs.v.len(), contexts * cells * heads * width),
        ("bias", inputs.bias.len(), contexts * cells * heads),
        ("link_bias", inputs.link_bias.len(), foreign_keys * heads),
        ("asking", inputs.asking.len(), contexts * queries),
        ("row", inputs.row.len(), contexts * cells),
        ("column", inputs.column.len(), contexts * cells),
        ("age", inputs.age.len(), contexts * cells),
        ("parents", inputs.parents.len(), contexts * cells * parents),
        ("parent_keys", inputs.parent_keys.len(), contexts * cells * parents),
    ] {
        check_size(name, found, size)?;
    }
    match inputs.asking.iter().find(|&&cell| usize::try_from(cell).map_or(true, |cell| cell >= cells)) {
        Some(cell) => Err(Error::Argument(format!("attention: query {cell} is none of {cells} cells"))),
        None => Ok(()),
    }
}

fn check_size(name: &str, found: usize, size: usize) -> Result<()> {
    if found == size {
        return Ok(());
    }
    Err(Error::Argument(format!("attention: expected {size} numbers in {name}, found {found}")))
}
