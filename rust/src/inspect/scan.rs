//! One pass over the rows of a table, on every core, in memory that does not grow with the rows.

use std::ops::{AddAssign, Range};

use rayon::prelude::*;

use super::column::{ColumnCounter, ColumnFindings};
use super::fan_out::{Degrees, FanOut};
use crate::database::{Database, TableView};
use crate::error::Result;
use crate::format::record::{ALWAYS_VISIBLE, NEVER_VISIBLE};
use crate::ids::RowId;
use crate::manifest::TableManifest;

/// Rows that are read together.
const BLOCK: usize = 4096;

/// What to look at, and how much of it.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    /// The most bytes of rows to read; beyond, blocks of rows spread evenly over the table are.
    pub(super) max_bytes: Option<u64>,
    /// The columns to count, by position; all of them by default.
    pub(super) columns: Option<Range<usize>>,
    /// The most distinct values of a column that are counted one by one.
    pub(super) max_distinct: u64,
    /// Most frequent values that are kept.
    pub(super) num_top: usize,
}

impl Scan {
    /// What an overview shows: everything of tables of ordinary size, a sample of larger ones.
    pub(super) const OVERVIEW: Self =
        Self { max_bytes: Some(256 << 20), columns: None, max_distinct: 1 << 16, num_top: 10 };
    /// Every row.
    pub(super) const FULL: Self = Self { max_bytes: None, ..Self::OVERVIEW };
}

/// What a pass found.
#[derive(Debug)]
pub(super) struct Findings {
    /// Rows that were read.
    pub(super) rows_read: u64,
    /// By column of the scan.
    pub(super) columns: Vec<ColumnFindings>,
    /// By foreign key that points to the table.
    pub(super) fan_outs: Vec<FanOut>,
    /// Earliest and latest known time, microseconds.
    pub(super) times: Option<(i64, i64)>,
    /// Rows no seed sees.
    pub(super) never_visible: u64,
}

impl Scan {
    /// Reads the rows of a table.
    pub(super) fn run(&self, database: &Database, table: &TableManifest) -> Result<Findings> {
        let view = database.table(table.id);
        let columns = self.columns.clone().unwrap_or(0..table.columns.len());
        let incoming = database.manifest().children_of(table.id).count();
        let empty = Pass {
            columns: table.columns[columns.clone()]
                .iter()
                .map(|column| ColumnCounter::new(column, self.max_distinct))
                .collect(),
            degrees: vec![Degrees::new(); incoming],
            rows_read: 0,
            times: None,
            never_visible: 0,
        };
        let bytes = database.manifest().files.get(&table.file).map_or(0, |file| file.bytes);
        let blocks = blocks(view.num_rows(), bytes, self.max_bytes);
        let per_piece = blocks.len().div_ceil(rayon::current_num_threads()).max(1);
        let read = |piece: &[usize]| {
            let mut pass = empty.clone();
            for &block in piece {
                pass.read(view, block..(block + BLOCK).min(view.num_rows()), columns.start);
            }
            pass
        };
        let pass = blocks.par_chunks(per_piece).map(read).reduce_with(Pass::merge).unwrap_or_else(|| empty.clone());
        let findings = pass.columns.into_iter().zip(&table.columns[columns]);
        Ok(Findings {
            rows_read: pass.rows_read,
            columns: findings
                .map(|(counter, column)| counter.finish(database, column, self.num_top))
                .collect::<Result<_>>()?,
            fan_outs: pass.degrees.iter().map(Degrees::finish).collect(),
            times: pass.times,
            never_visible: pass.never_visible,
        })
    }
}

/// First rows of the blocks to read so that they are at most `max_bytes` of a table of `bytes`, and at least one block.
fn blocks(num_rows: usize, bytes: u64, max_bytes: Option<u64>) -> Vec<usize> {
    let all = num_rows.div_ceil(BLOCK);
    let share = max_bytes.map_or(1.0, |max| max as f64 / bytes.max(1) as f64).min(1.0);
    let read = ((all as f64 * share).floor() as usize).clamp(all.min(1), all);
    (0..read).map(|block| (block as u128 * all as u128 / read as u128) as usize * BLOCK).collect()
}

#[derive(Clone)]
struct Pass<'a> {
    columns: Vec<ColumnCounter<'a>>,
    degrees: Vec<Degrees>,
    rows_read: u64,
    times: Option<(i64, i64)>,
    never_visible: u64,
}

impl Pass<'_> {
    fn read(&mut self, view: TableView<'_>, rows: Range<usize>, first_column: usize) {
        for row in rows {
            let record = view.record(RowId::from(row));
            match record.time() {
                ALWAYS_VISIBLE => {}
                NEVER_VISIBLE => self.never_visible += 1,
                time => self.times = join(self.times, Some((time, time))),
            }
            for (idx, counter) in self.columns.iter_mut().enumerate() {
                counter.add(record.cell(first_column + idx));
            }
            for (slot, degrees) in self.degrees.iter_mut().enumerate() {
                degrees.add(record.children(slot).len());
            }
            self.rows_read += 1;
        }
    }

    fn merge(mut self, other: Self) -> Self {
        merge_each(&mut self.columns, other.columns);
        merge_each(&mut self.degrees, other.degrees);
        self.rows_read += other.rows_read;
        self.never_visible += other.never_visible;
        self.times = join(self.times, other.times);
        self
    }
}

fn merge_each<T: AddAssign>(left: &mut [T], right: Vec<T>) {
    for (left, right) in left.iter_mut().zip(right) {
        *left += right;
    }
}

/// The range that holds both.
pub(super) fn join(left: Option<(i64, i64)>, right: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (left, right) {
        (Some((first, last)), Some((other_first, other_last))) => Some((first.min(other_first), last.max(other_last))),
        (ends, None) | (None, ends) => ends,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_the_table() {
        assert_eq!(blocks(0, 0, None), [0; 0]);
        assert_eq!(blocks(BLOCK + 1, 1 << 40, None), [0, BLOCK]);
        assert_eq!(blocks(8 * BLOCK, 1000, Some(1000)).len(), 8);
        assert_eq!(blocks(8 * BLOCK, 1000, Some(300)), [0, 4 * BLOCK]);
        assert_eq!(blocks(8 * BLOCK, 1000, Some(1)), [0]);
    }
}
