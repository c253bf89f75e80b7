//! One column, counted while rows pass by: a histogram of numbers and moments, the most frequent of other values.

use std::ops::AddAssign;

use serde::Serialize;
use serde_json::Value;

use super::binning::{self, Histogram, NumberBins, TimeBins};
use super::number::Decoded;
use super::row::category;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::format::record::Cell;
use crate::format::table;
use crate::manifest::{ColumnManifest, ColumnStatistics, TableManifest};
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
    grid: Grid<'a>,
    /// A vocabulary id the column does not list.
    fault: Option<u32>,
}

#[derive(Clone, Debug)]
enum Grid<'a> {
    Nothing,
    Numbers(Box<NumberBins>),
    Times(TimeBins),
    Flags([u64; 2]),
    Values { ids: &'a [u32], counts: Vec<u64> },
}

/// The vocabulary ids that a categorical or text column takes, ascending.
pub(super) fn vocabulary_ids<'a>(database: &'a Database, table: &TableManifest, column: usize) -> Result<&'a [u32]> {
    database.table_file(table.id).values(table::categories(column as u32))
}

impl<'a> ColumnCounter<'a> {
    /// Starts to count; values of columns with more than `max_distinct` of them are not.
    pub(super) fn new(
        database: &'a Database,
        table: &'a TableManifest,
        column: usize,
        max_distinct: usize,
    ) -> Result<Self> {
        let description = &table.columns[column];
        let statistics = &description.statistics;
        let grid = match description.stype {
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
                let ids = vocabulary_ids(database, table, column)?;
                let is_counted = ids.len() <= max_distinct;
                if is_counted { Grid::Values { ids, counts: vec![0; ids.len()] } } else { Grid::Nothing }
            }
        };
        Ok(Self { statistics, grid, fault: None })
    }

    /// Counts a cell.
    #[inline]
    pub(super) fn add(&mut self, cell: Option<Cell>) {
        let Some(cell) = cell else { return };
        match (&mut self.grid, cell) {
            (Grid::Numbers(bins), Cell::Numerical(z)) => bins.add(Decoded::of(z, self.statistics)),
            (Grid::Times(bins), Cell::Timestamp(time_us)) => bins.add(time_us),
            (Grid::Flags(counts), Cell::Boolean(value)) => counts[usize::from(value)] += 1,
            (Grid::Values { ids, counts }, Cell::Categorical(id) | Cell::Text(id)) => match ids.binary_search(&id) {
                Ok(place) => counts[place] += 1,
                Err(_) => self.fault = self.fault.max(Some(id)),
            },
            _ => {}
        }
    }

    /// What was counted, with the `num_top` most frequent values.
    pub(super) fn finish(
        self,
        database: &Database,
        table: &TableManifest,
        column: &ColumnManifest,
        num_top: usize,
    ) -> Result<ColumnFindings> {
        if let Some(id) = self.fault {
            let what = format!("column `{}` holds vocabulary id {id}, which it does not list", column.name);
            return Err(Error::format(database.path().join(&table.file), what));
        }
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
            Grid::Values { ids, counts } => {
                let counted = ids.iter().copied().zip(counts).filter(|&(_, count)| count > 0);
                findings.top = Some(top_values(database, column, counted.collect(), num_top)?);
            }
        }
        Ok(findings)
    }
}

impl AddAssign for ColumnCounter<'_> {
    fn add_assign(&mut self, other: Self) {
        self.fault = self.fault.max(other.fault);
        match (&mut self.grid, other.grid) {
            (Grid::Numbers(left), Grid::Numbers(right)) => **left += *right,
            (Grid::Times(left), Grid::Times(right)) => *left += right,
            (Grid::Flags(left), Grid::Flags(right)) => binning::add(left, &right),
            (Grid::Values { counts: left, .. }, Grid::Values { counts: right, .. }) => binning::add(left, &right),
            _ => {}
        }
    }
}

/// The most frequent of some vocabulary ids, decoded.
pub(super) fn top_values(
    database: &Database,
    column: &ColumnManifest,
    mut counted: Vec<(u32, u64)>,
    num_top: usize,
) -> Result<TopValues> {
    let total: u64 = counted.iter().map(|&(_, count)| count).sum();
    counted.sort_unstable_by_key(|&(id, count)| (std::cmp::Reverse(count), id));
    counted.truncate(num_top);
    let shown: u64 = counted.iter().map(|&(_, count)| count).sum();
    let value = |(id, count)| {
        let text = category(database, column, id)?;
        Ok(ValueCount { value: Value::String(text.to_owned()), count })
    };
    Ok(TopValues { values: counted.into_iter().map(value).collect::<Result<_>>()?, others: total - shown })
}
