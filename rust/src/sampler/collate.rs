//! Contexts side by side: the arrays of a batch, written in place.
//!
//! Every array is allocated once per batch and grows by one padded context at a time, so that a context is written
//! while its memory is still in the cache. Names and types are those of [`BATCH_FIELDS`].

use super::fields::{Axis, BATCH_FIELDS, Field};
use super::plan::Block;
use super::temporal::calendar;
use crate::error::{Error, Result};
use crate::manifest::TimeStatistics;
use crate::stype::Stype;

/// The lengths of the axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Contexts.
    pub contexts: usize,
    /// Cells per context.
    pub cells: usize,
    /// Rows per context.
    pub rows: usize,
    /// Foreign keys per row.
    pub parents: usize,
    /// Steps of the random walk.
    pub walk: usize,
    /// Pairs of rows to judge.
    pub pairs: usize,
    /// Rows of the context where a link task is sampled, else 0.
    pub answers: usize,
}

impl Shape {
    /// The length of an axis.
    pub const fn axis(&self, axis: Axis) -> usize {
        match axis {
            Axis::Contexts => self.contexts,
            Axis::Cells => self.cells,
            Axis::Rows => self.rows,
            Axis::Parents => self.parents,
            Axis::Calendar => 7,
            Axis::Walk => self.walk,
            Axis::Pairs => self.pairs,
            Axis::Answers => self.answers,
        }
    }
}

/// One array of a batch, row-major.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // each variant is its dtype
pub enum Array {
    Bool(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
}

/// A batch; the fields are described in `documentation/batch.md`.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Batch {
    pub shape: Shape,
    pub cell_row: Vec<i16>,
    pub cell_column: Vec<i32>,
    pub cell_stype: Vec<i8>,
    pub cell_value: Vec<f32>,
    pub cell_vocab: Vec<i32>,
    pub cell_calendar: Vec<i16>,
    pub cell_is_null: Vec<bool>,
    pub cell_is_target: Vec<bool>,
    pub cell_is_masked: Vec<bool>,
    pub cell_is_padding: Vec<bool>,
    pub row_table: Vec<i32>,
    pub row_hop: Vec<i16>,
    pub row_age: Vec<f32>,
    pub row_has_time: Vec<bool>,
    pub row_parents: Vec<i16>,
    pub row_parent_keys: Vec<i16>,
    pub row_walk: Vec<f32>,
    pub link_child: Vec<i16>,
    pub link_parent: Vec<i16>,
    pub link_key: Vec<i16>,
    pub link_is_true: Vec<bool>,
    pub row_is_candidate: Vec<bool>,
    pub row_is_target: Vec<bool>,
    pub candidate_row: Vec<i64>,
    pub seed_task: Vec<i32>,
    pub seed_index: Vec<i64>,
    pub seed_row: Vec<i64>,
    pub seed_time: Vec<i64>,
    pub target_cell: Vec<i32>,
    pub target_value: Vec<f32>,
    pub target_vocab: Vec<i32>,
    pub target_is_null: Vec<bool>,
    pub seed_is_padding: Vec<bool>,
}

fn reserve<T>(len: usize) -> Result<Vec<T>> {
    let mut array = Vec::new();
    array.try_reserve_exact(len).map_err(|_| {
        Error::Argument(format!("no memory for an array of {len} values; ask for a smaller batch_size or seq_len"))
    })?;
    Ok(array)
}

/// Grows an array by `len` padded elements and answers them.
fn grow<T: Copy>(array: &mut Vec<T>, len: usize, padding: T) -> &mut [T] {
    let start = array.len();
    array.resize(start + len, padding);
    &mut array[start..]
}

/// Grows an array by one element and answers it.
fn grow_one<T: Copy>(array: &mut Vec<T>, padding: T) -> &mut T {
    array.push(padding);
    let last = array.len() - 1;
    &mut array[last]
}

impl Batch {
    /// An empty batch with memory for all of its contexts.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is not that much memory.
    pub fn with_capacity(shape: Shape) -> Result<Self> {
        let contexts = shape.contexts;
        let (cells, rows) = (contexts * shape.cells, contexts * shape.rows);
        let (links, pairs, answers) = (rows * shape.parents, contexts * shape.pairs, contexts * shape.answers);
        Ok(Self {
            shape,
            cell_row: reserve(cells)?,
            cell_column: reserve(cells)?,
            cell_stype: reserve(cells)?,
            cell_value: reserve(cells)?,
            cell_vocab: reserve(cells)?,
            cell_calendar: reserve(7 * cells)?,
            cell_is_null: reserve(cells)?,
            cell_is_target: reserve(cells)?,
            cell_is_masked: reserve(cells)?,
            cell_is_padding: reserve(cells)?,
            row_table: reserve(rows)?,
            row_hop: reserve(rows)?,
            row_age: reserve(rows)?,
            row_has_time: reserve(rows)?,
            row_parents: reserve(links)?,
            row_parent_keys: reserve(links)?,
            row_walk: reserve(rows * shape.walk)?,
            link_child: reserve(pairs)?,
            link_parent: reserve(pairs)?,
            link_key: reserve(pairs)?,
            link_is_true: reserve(pairs)?,
            row_is_candidate: reserve(answers)?,
            row_is_target: reserve(answers)?,
            candidate_row: reserve(answers)?,
            seed_task: reserve(contexts)?,
            seed_index: reserve(contexts)?,
            seed_row: reserve(contexts)?,
            seed_time: reserve(contexts)?,
            target_cell: reserve(contexts)?,
            target_value: reserve(contexts)?,
            target_vocab: reserve(contexts)?,
            target_is_null: reserve(contexts)?,
            seed_is_padding: reserve(contexts)?,
        })
    }

    /// Appends a context that is padding all over and answers its arrays.
    pub fn push(&mut self) -> Canvas<'_> {
        let Shape { cells, rows, parents, walk, pairs, answers, .. } = self.shape;
        Canvas {
            cells: Cells {
                row: grow(&mut self.cell_row, cells, -1),
                column: grow(&mut self.cell_column, cells, -1),
                stype: grow(&mut self.cell_stype, cells, -1),
                value: grow(&mut self.cell_value, cells, 0.0),
                vocab: grow(&mut self.cell_vocab, cells, -1),
                calendar: grow(&mut self.cell_calendar, 7 * cells, 0),
                is_null: grow(&mut self.cell_is_null, cells, false),
                is_target: grow(&mut self.cell_is_target, cells, false),
                is_masked: grow(&mut self.cell_is_masked, cells, false),
                is_padding: grow(&mut self.cell_is_padding, cells, true),
                len: 0,
                has_target: false,
            },
            row_table: grow(&mut self.row_table, rows, -1),
            row_hop: grow(&mut self.row_hop, rows, -1),
            row_age: grow(&mut self.row_age, rows, 0.0),
            row_has_time: grow(&mut self.row_has_time, rows, false),
            row_parents: grow(&mut self.row_parents, rows * parents, -1),
            row_parent_keys: grow(&mut self.row_parent_keys, rows * parents, -1),
            num_parents: parents,
            row_walk: grow(&mut self.row_walk, rows * walk, 0.0),
            link_child: grow(&mut self.link_child, pairs, -1),
            link_parent: grow(&mut self.link_parent, pairs, -1),
            link_key: grow(&mut self.link_key, pairs, -1),
            link_is_true: grow(&mut self.link_is_true, pairs, false),
            row_is_candidate: grow(&mut self.row_is_candidate, answers, false),
            row_is_target: grow(&mut self.row_is_target, answers, false),
            candidate_row: grow(&mut self.candidate_row, answers, -1),
            seed_task: grow_one(&mut self.seed_task, -1),
            seed_index: grow_one(&mut self.seed_index, -1),
            seed_row: grow_one(&mut self.seed_row, -1),
            seed_time: grow_one(&mut self.seed_time, 0),
            target_cell: grow_one(&mut self.target_cell, -1),
            target_value: grow_one(&mut self.target_value, 0.0),
            target_vocab: grow_one(&mut self.target_vocab, -1),
            target_is_null: grow_one(&mut self.target_is_null, true),
            seed_is_padding: grow_one(&mut self.seed_is_padding, true),
        }
    }

    /// Every array with its field, in the order of [`BATCH_FIELDS`].
    pub fn into_arrays(self) -> impl Iterator<Item = (&'static Field, Array)> {
        let arrays = [
            Array::Int16(self.cell_row),
            Array::Int32(self.cell_column),
            Array::Int8(self.cell_stype),
            Array::Float32(self.cell_value),
            Array::Int32(self.cell_vocab),
            Array::Int16(self.cell_calendar),
            Array::Bool(self.cell_is_null),
            Array::Bool(self.cell_is_target),
            Array::Bool(self.cell_is_masked),
            Array::Bool(self.cell_is_padding),
            Array::Int32(self.row_table),
            Array::Int16(self.row_hop),
            Array::Float32(self.row_age),
            Array::Bool(self.row_has_time),
            Array::Int16(self.row_parents),
            Array::Int16(self.row_parent_keys),
            Array::Float32(self.row_walk),
            Array::Int16(self.link_child),
            Array::Int16(self.link_parent),
            Array::Int16(self.link_key),
            Array::Bool(self.link_is_true),
            Array::Bool(self.row_is_candidate),
            Array::Bool(self.row_is_target),
            Array::Int64(self.candidate_row),
            Array::Int32(self.seed_task),
            Array::Int64(self.seed_index),
            Array::Int64(self.seed_row),
            Array::Int64(self.seed_time),
            Array::Int32(self.target_cell),
            Array::Float32(self.target_value),
            Array::Int32(self.target_vocab),
            Array::Bool(self.target_is_null),
            Array::Bool(self.seed_is_padding),
        ];
        BATCH_FIELDS.iter().zip(arrays)
    }
}

/// The arrays of one context.
#[allow(missing_docs)] // as in `Batch`
pub struct Canvas<'a> {
    pub cells: Cells<'a>,
    pub row_table: &'a mut [i32],
    pub row_hop: &'a mut [i16],
    pub row_age: &'a mut [f32],
    pub row_has_time: &'a mut [bool],
    pub row_parents: &'a mut [i16],
    pub row_parent_keys: &'a mut [i16],
    pub row_walk: &'a mut [f32],
    pub link_child: &'a mut [i16],
    pub link_parent: &'a mut [i16],
    pub link_key: &'a mut [i16],
    pub link_is_true: &'a mut [bool],
    pub row_is_candidate: &'a mut [bool],
    pub row_is_target: &'a mut [bool],
    pub candidate_row: &'a mut [i64],
    pub num_parents: usize,
    pub seed_task: &'a mut i32,
    pub seed_index: &'a mut i64,
    pub seed_row: &'a mut i64,
    pub seed_time: &'a mut i64,
    pub target_cell: &'a mut i32,
    pub target_value: &'a mut f32,
    pub target_vocab: &'a mut i32,
    pub target_is_null: &'a mut bool,
    pub seed_is_padding: &'a mut bool,
}

/// The cells of one context. The last place is kept for the target until it is written.
pub struct Cells<'a> {
    row: &'a mut [i16],
    column: &'a mut [i32],
    stype: &'a mut [i8],
    value: &'a mut [f32],
    vocab: &'a mut [i32],
    calendar: &'a mut [i16],
    is_null: &'a mut [bool],
    is_target: &'a mut [bool],
    is_masked: &'a mut [bool],
    is_padding: &'a mut [bool],
    len: usize,
    has_target: bool,
}

/// The cells of a context as they are masked.
#[allow(missing_docs)] // as in `Batch`
pub struct Written<'a> {
    pub row: &'a [i16],
    pub column: &'a [i32],
    pub stype: &'a [i8],
    pub is_null: &'a [bool],
    pub is_target: &'a [bool],
    pub is_masked: &'a mut [bool],
}

impl Cells<'_> {
    /// Cells written.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no place for a further cell that is not the target.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len + usize::from(!self.has_target) >= self.row.len()
    }

    /// Whether the target is written.
    #[inline]
    pub fn has_target(&self) -> bool {
        self.has_target
    }

    /// Appends a cell without a value and answers its position; there must be a place for it. Its row is written by
    /// [`Self::end_row`].
    #[inline]
    fn push(&mut self, column: i32, stype: Stype) -> usize {
        let at = self.len;
        self.column[at] = column;
        self.stype[at] = stype.code() as i8;
        self.len += 1;
        at
    }

    /// Whether that many blocks can be written, with a place left for the target.
    #[inline]
    pub fn has_room(&self, blocks: usize) -> bool {
        self.len + 8 * blocks + usize::from(!self.has_target) <= self.row.len()
    }

    /// Appends the `len` cells of some blocks, whole, but for their values. There must be room for the blocks; behind
    /// the cells they leave what [`Self::finish`] takes away.
    #[inline]
    pub fn push_blocks(&mut self, blocks: &[Block], len: usize, row: usize) {
        let mut at = self.len;
        for block in blocks {
            self.column[at..at + 8].copy_from_slice(&block.ids);
            self.stype[at..at + 8].copy_from_slice(&block.stypes);
            self.row[at..at + 8].fill(row as i16);
            at += 8;
        }
        self.len += len;
    }

    /// Appends a cell, whole, but for its value.
    #[inline]
    pub fn push_raw(&mut self, column: i32, stype: i8, row: usize) {
        let at = self.len;
        self.column[at] = column;
        self.stype[at] = stype;
        self.row[at] = row as i16;
        self.len += 1;
    }

    /// Sets the number or truth value of a written cell.
    #[inline]
    pub fn set_value(&mut self, at: usize, value: f32) {
        self.value[at] = value;
    }

    /// Sets the vocabulary id of a written cell.
    #[inline]
    pub fn set_vocab(&mut self, at: usize, id: u32) {
        self.vocab[at] = id as i32;
    }

    /// Sets the moment of a written cell.
    #[inline]
    pub fn set_moment(&mut self, at: usize, time_us: i64, statistics: &TimeStatistics) {
        self.value[at] = statistics.z_score(time_us);
        self.calendar[7 * at..7 * at + 7].copy_from_slice(&calendar(time_us));
    }

    /// Says which cells are padding, and makes everything behind the last cell so again.
    pub fn finish(&mut self) {
        let end = self.row.len().min(self.len + 8);
        self.row[self.len..end].fill(-1);
        self.column[self.len..end].fill(-1);
        self.stype[self.len..end].fill(-1);
        self.is_padding[..self.len].fill(false);
    }

    /// The cells written, to be masked.
    pub fn written(&mut self) -> Written<'_> {
        let len = self.len;
        Written {
            row: &self.row[..len],
            column: &self.column[..len],
            stype: &self.stype[..len],
            is_null: &self.is_null[..len],
            is_target: &self.is_target[..len],
            is_masked: &mut self.is_masked[..len],
        }
    }

    /// Says that the cells from position `start` on are those of a row.
    #[inline]
    pub fn end_row(&mut self, start: usize, row: usize) {
        self.row[start..self.len].fill(row as i16);
    }

    /// A present identifier.
    #[inline]
    pub fn identifier(&mut self, column: i32) {
        self.push(column, Stype::Identifier);
    }

    /// A number or a truth value.
    #[inline]
    pub fn value(&mut self, column: i32, stype: Stype, value: f32) {
        let at = self.push(column, stype);
        self.value[at] = value;
    }

    /// A categorical or text value.
    #[inline]
    pub fn vocab(&mut self, column: i32, stype: Stype, id: u32) {
        let at = self.push(column, stype);
        self.vocab[at] = id as i32;
    }

    /// A moment.
    #[inline]
    pub fn timestamp(&mut self, column: i32, time_us: i64, statistics: &TimeStatistics) {
        let at = self.push(column, Stype::Timestamp);
        self.set_moment(at, time_us, statistics);
    }

    /// A cell without a value.
    #[inline]
    pub fn null(&mut self, column: i32, stype: Stype) {
        let at = self.push(column, stype);
        self.is_null[at] = true;
    }

    /// Says that there is no target: nothing is asked of the seed.
    pub fn ask_nothing(&mut self) {
        self.has_target = true;
    }

    /// The target; answers its position.
    pub fn target(&mut self, column: i32, stype: Stype) -> usize {
        let at = self.push(column, stype);
        self.is_target[at] = true;
        self.has_target = true;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::Dtype;
    use super::*;

    #[test]
    fn the_arrays_are_the_fields() {
        let shape = Shape { contexts: 2, cells: 3, rows: 4, parents: 5, walk: 6, pairs: 7, answers: 8 };
        let mut batch = Batch::with_capacity(shape).unwrap();
        batch.push();
        batch.push();
        let mut bytes = 0;
        let arrays: Vec<_> = batch.into_arrays().collect();
        assert_eq!(arrays.len(), BATCH_FIELDS.len());
        for (field, array) in arrays {
            let (dtype, len) = match array {
                Array::Bool(array) => (Dtype::Bool, array.len()),
                Array::Int8(array) => (Dtype::Int8, array.len()),
                Array::Int16(array) => (Dtype::Int16, array.len()),
                Array::Int32(array) => (Dtype::Int32, array.len()),
                Array::Int64(array) => (Dtype::Int64, array.len()),
                Array::Float32(array) => (Dtype::Float32, array.len()),
            };
            assert_eq!(dtype, field.dtype, "{}", field.name);
            let expected: usize = field.axes.iter().map(|&axis| shape.axis(axis)).product();
            assert_eq!(len, expected, "{}", field.name);
            bytes += len * dtype.size();
        }
        assert_eq!(bytes, 2 * (3 * 33 + 4 * (11 + 4 * 5 + 4 * 6) + 7 * 7 + 8 * 10 + 4 + 8 + 8 + 8 + 4 + 4 + 4 + 1 + 1));
    }

    #[test]
    fn the_target_keeps_its_place() {
        let shape = Shape { contexts: 1, cells: 2, rows: 1, parents: 1, walk: 0, pairs: 0, answers: 0 };
        let mut batch = Batch::with_capacity(shape).unwrap();
        let mut canvas = batch.push();
        assert!(!canvas.cells.is_full());
        canvas.cells.identifier(5);
        assert!(canvas.cells.is_full());
        assert_eq!(canvas.cells.target(7, Stype::Boolean), 1);
        assert!(canvas.cells.is_full() && canvas.cells.has_target());
        canvas.cells.end_row(0, 0);
        assert_eq!(batch.cell_column, [5, 7]);
        assert_eq!(batch.cell_is_target, [false, true]);
    }

    #[test]
    fn what_follows_the_last_cell_is_padding() {
        let shape = Shape { contexts: 1, cells: 20, rows: 1, parents: 1, walk: 0, pairs: 0, answers: 0 };
        let mut batch = Batch::with_capacity(shape).unwrap();
        let mut canvas = batch.push();
        canvas.cells.push_blocks(&[Block { ids: [7; 8], stypes: [2; 8] }; 2], 9, 0);
        canvas.cells.finish();
        let is_cell = |at: usize| at < 9;
        assert!((0..20).all(|at| batch.cell_is_padding[at] != is_cell(at)));
        assert!((0..20).all(|at| batch.cell_column[at] == if is_cell(at) { 7 } else { -1 }));
        assert!((0..20).all(|at| batch.cell_stype[at] == if is_cell(at) { 2 } else { -1 }));
        assert!((0..20).all(|at| batch.cell_row[at] == if is_cell(at) { 0 } else { -1 }));
    }
}
