//! One column, counted while rows pass by: a histogram of numbers and moments, the most frequent of other values.

use std::ops::AddAssign;

use hashbrown::HashMap;
use serde::Serialize;
use serde_json::Value;

use super::binning::{self, Histogram, NumberBins, TimeBins};
use super::number::Decoded;
use super::row::category;
use crate::database::Database;
use crate::error::Result;
use crate::format::record::Cell;
use crate::manifest::{ColumnManifest, ColumnStatistics};
use crate::stype::Stype;

/// The most frequent values of a column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopValues {
    /// From the most frequent on; equally frequent ones in the order of the vocabulary.
    pub values: Vec<ValueCount>,
    /// Cells with any other value.
    pub others: u64,
}

/// A value and how many cells have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueCount {
    /// The value: text, true or false.
    pub value: Value,
    /// Cells that have it.
    pub count: u64,
}

/// What the cells of a column were found to be.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnFindings {
    pub(super) histogram: Option<Histogram>,
    pub(super) top: Option<TopValues>,
}

/// Counts the cells of one column.
#[derive(Clone, Debug)]
pub(super) struct ColumnCounter<'a> {
    statistics: &'a ColumnStatistics,
    grid: Grid,
}

#[derive(Clone, Debug)]
enum Grid {
    Nothing,
    Numbers(Box<NumberBins>),
    Times(TimeBins),
    Flags([u64; 2]),
    Values(HashMap<u32, u64>),
}

impl<'a> ColumnCounter<'a> {
    /// Starts to count; values of columns with more than `max_distinct` of them are not.
    pub(super) fn new(column: &'a ColumnManifest, max_distinct: u64) -> Self {
        let statistics = &column.statistics;
        let grid = match column.stype {
            Stype::Identifier => Grid::Nothing,
            Stype::Numerical => match (statistics.min, statistics.max) {
                (Some(least), Some(most)) => Grid::Numbers(Box::new(NumberBins::new(least, most))),
                _ => Grid::Nothing,
            },
            Stype::Timestamp => match (statistics.min_us, statistics.max_us) {
                (Some(first), Some(last)) => Grid::Times(TimeBins::new(first, last)),
                _ => Grid::Nothing,
            },
            Stype::Boolean => Grid::Flags([0, 0]),
            Stype::Categorical | Stype::Text => {
                let is_counted = statistics.distinct.is_some_and(|distinct| distinct <= max_distinct);
                if is_counted { Grid::Values(HashMap::new()) } else { Grid::Nothing }
            }
        };
        Self { statistics, grid }
    }

    /// Counts a cell.
    #[inline]
    pub(super) fn add(&mut self, cell: Option<Cell>) {
        let Some(cell) = cell else { return };
        match (&mut self.grid, cell) {
            (Grid::Numbers(bins), Cell::Numerical(z)) => bins.add(Decoded::of(z, self.statistics)),
            (Grid::Times(bins), Cell::Timestamp(time_us)) => bins.add(time_us),
            (Grid::Flags(counts), Cell::Boolean(value)) => counts[usize::from(value)] += 1,
            (Grid::Values(counts), Cell::Categorical(id) | Cell::Text(id)) => *counts.entry(id).or_default() += 1,
            _ => {}
        }
    }

    /// What was counted, with the `num_top` most frequent values.
    pub(super) fn finish(self, database: &Database, column: &ColumnManifest, num_top: usize) -> Result<ColumnFindings> {
        let mut findings = ColumnFindings::default();
        match self.grid {
            Grid::Nothing => {}
            Grid::Numbers(bins) => findings.histogram = bins.finish(),
            Grid::Times(bins) => findings.histogram = bins.finish(),
            Grid::Flags(counts) => {
                let [no, yes] = counts;
                let flag = |value: bool, count| ValueCount { value: Value::Bool(value), count };
                findings.top = Some(TopValues { values: vec![flag(true, yes), flag(false, no)], others: 0 });
            }
            Grid::Values(counts) => {
                findings.top =
                    Some(top_values(database, &column.name, column.stype, counts.into_iter().collect(), num_top)?);
            }
        }
        Ok(findings)
    }
}

impl AddAssign for ColumnCounter<'_> {
    fn add_assign(&mut self, other: Self) {
        match (&mut self.grid, other.grid) {
            (Grid::Numbers(left), Grid::Numbers(right)) => **left += *right,
            (Grid::Times(left), Grid::Times(right)) => *left += right,
            (Grid::Flags(left), Grid::Flags(right)) => binning::add(left, &right),
            (Grid::Values(left), Grid::Values(right)) => {
                for (id, count) in right {
                    *left.entry(id).or_default() += count;
                }
            }
            _ => {}
        }
    }
}

/// The most frequent of some vocabulary ids, decoded.
pub(super) fn top_values(
    database: &Database,
    column: &str,
    stype: Stype,
    mut counted: Vec<(u32, u64)>,
    num_top: usize,
) -> Result<TopValues> {
    let total: u64 = counted.iter().map(|&(_, count)| count).sum();
    counted.sort_unstable_by_key(|&(id, count)| (std::cmp::Reverse(count), id));
    counted.truncate(num_top);
    let shown: u64 = counted.iter().map(|&(_, count)| count).sum();
    let value = |(id, count)| {
        let text = category(database, column, stype, id)?;
        Ok(ValueCount { value: Value::String(text), count })
    };
    Ok(TopValues { values: counted.into_iter().map(value).collect::<Result<_>>()?, others: total - shown })
}
