//! Statistics of the columns whose scale must be known before their cells are written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashTable;

use super::decode::{NO_TIME, moments, numbers};
use super::link::{RowTimes, bad_cell};
use super::source::TableSource;
use super::stats::Moments;
use crate::error::Result;
use crate::format::packed::Grid;
use crate::stype::Stype;

/// Rows that go into one merge of the statistics of a temporal column.
const BATCH: usize = 1 << 16;

/// What was seen of one numerical or timestamp column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    /// Of the rows before the cut-off.
    pub(super) moments: Moments,
    /// The least number of all rows.
    pub(super) min: f64,
    /// The greatest number of all rows.
    pub(super) max: f64,
    /// The moments of all rows.
    pub(super) grid: Option<Grid>,
    /// Values of any row.
    pub(super) values: u64,
    /// NaN, infinities and moments that do not fit.
    pub(super) unusable: u64,
}

impl Summary {
    const EMPTY: Self = Self {
        moments: Moments::EMPTY,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        grid: None,
        values: 0,
        unusable: 0,
    };

    fn merge(self, later: &Self) -> Self {
        Self {
            moments: self.moments.merge(later.moments),
            min: self.min.min(later.min),
            max: self.max.max(later.max),
            grid: match (self.grid, later.grid) {
                (Some(grid), Some(later)) => Some(grid.merge(later)),
                (grid, later) => grid.or(later),
            },
            values: self.values + later.values,
            unusable: self.unusable + later.unusable,
        }
    }

    fn of_numbers(values: &[f64], row_times: &[i64], until: Option<i64>) -> Self {
        let all = values.iter().copied().filter(|value| !value.is_nan());
        let counted = values.iter().zip(row_times).filter(|(_, time)| until.is_none_or(|until| **time < until));
        let (min, max) = all.clone().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(v), max.max(v)));
        Self {
            moments: Moments::of(counted.map(|(value, _)| *value)),
            min,
            max,
            values: all.count() as u64,
            ..Self::EMPTY
        }
    }

    fn of_moments(values: &[i64], row_times: &[i64], until: Option<i64>) -> Self {
        let all = values.iter().copied().filter(|&time| time != NO_TIME);
        let counted = values.iter().zip(row_times);
        let counted = counted.filter(|(value, time)| **value != NO_TIME && until.is_none_or(|until| **time < until));
        Self {
            moments: Moments::of(counted.map(|(value, _)| *value as f64)),
            grid: Grid::of(all.clone()),
            values: all.count() as u64,
            ..Self::EMPTY
        }
    }
}

/// What was seen of the columns of a table, by their position; `None` where the stype has nothing of the kind.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    /// Of numerical and timestamp columns.
    pub(super) columns: Vec<Option<Summary>>,
    /// The distinct numbers of numerical columns that have few.
    pub(super) numbers: Vec<Option<Vec<f64>>>,
}

/// The distinct numbers of a column, until there are too many.
struct DistinctNumbers {
    most: usize,
    are_many: AtomicBool,
    found: Mutex<HashTable<u64>>,
}

impl DistinctNumbers {
    fn new(most: usize) -> Self {
        Self { most, are_many: AtomicBool::new(most == 0), found: Mutex::new(HashTable::new()) }
    }

    fn add(&self, numbers: &[f64]) {
        if self.are_many.load(Ordering::Relaxed) {
            return;
        }
        let (mut seen, mut last) = (HashTable::new(), f64::NAN.to_bits());
        for number in numbers.iter().filter(|number| !number.is_nan()) {
            let bits = number.to_bits();
            if bits != last {
                add(&mut seen, bits);
                last = bits;
            }
            if seen.len() > self.most {
                return self.are_many.store(true, Ordering::Relaxed);
            }
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().for_each(|&bits| add(&mut found, bits));
        if found.len() > self.most {
            self.are_many.store(true, Ordering::Relaxed);
            *found = HashTable::new();
        }
    }

    /// The numbers in ascending order, or `None` where there are too many.
    fn finish(self) -> Option<Vec<f64>> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut numbers: Vec<f64> = found.into_iter().map(f64::from_bits).collect();
        numbers.sort_unstable_by(f64::total_cmp);
        (!self.are_many.into_inner()).then_some(numbers)
    }
}

fn add(seen: &mut HashTable<u64>, bits: u64) {
    seen.entry(hash_bits(bits), |&known| known == bits, |&known| hash_bits(known)).or_insert(bits);
}

/// Spreads the bits of a number; whole numbers differ in their high bits alone.
#[inline]
pub(super) fn hash_bits(bits: u64) -> u64 {
    let product = u128::from(bits ^ 0x9E37_79B9_7F4A_7C15) * 0xD6E8_FEB8_6659_FD93_u128;
    (product >> 64) as u64 ^ product as u64
}

/// Summaries of the columns of a table; of a numerical column, distinct numbers are kept up to `most_numbers`.
///
/// `rows` holds null times as [`NO_TIME`]; they are never before a cut-off.
pub(super) fn summarise(
    source: &TableSource<'_>,
    rows: &RowTimes,
    until: Option<i64>,
    most_numbers: usize,
) -> Result<Summaries> {
    let described = &source.table.columns;
    let mut summaries: Vec<Option<Summary>> = vec![None; described.len()];
    let mut scanned = Vec::new();
    for (column, description) in described.iter().enumerate() {
        if source.table.temporal_column.as_ref() == Some(&description.name) {
            let merged = (0..source.num_rows)
                .step_by(BATCH)
                .map(|first| rows.times.of(first..source.num_rows.min(first + BATCH)))
                .map(|times| Summary::of_moments(&times, &times, until))
                .fold(Summary::EMPTY, |merged, batch| merged.merge(&batch));
            summaries[column] = Some(Summary { unusable: rows.unusable, ..merged });
        } else if matches!(description.stype, Some(Stype::Numerical | Stype::Timestamp)) {
            scanned.push(column);
        }
    }
    let numerical = |column: usize| described[column].stype == Some(Stype::Numerical);
    let distinct: Vec<_> =
        (0..described.len()).map(|column| numerical(column).then(|| DistinctNumbers::new(most_numbers))).collect();
    let chunks = source.chunks();
    let state = || chunks.iter().map(|chunk| (chunk.first_row, Summary::EMPTY)).collect();
    let states = scanned.iter().map(|_| state()).collect();
    let found = source.scan(&scanned, states, |column, (first_row, summary), row, array| {
        let first = *first_row + row;
        let times = &*rows.times.of(first..first + array.len());
        let fault = |cell| bad_cell(source, column, first, &cell);
        let (batch, unusable) = if let Some(distinct) = &distinct[column] {
            let read = numbers(array).map_err(fault)?;
            distinct.add(&read.values);
            (Summary::of_numbers(&read.values, times, until), read.unusable)
        } else {
            let read = moments(array).map_err(fault)?;
            (Summary::of_moments(&read.values, times, until), read.unusable)
        };
        *summary = summary.merge(&Summary { unusable, ..batch });
        Ok(())
    })?;
    for (column, parts) in scanned.into_iter().zip(found) {
        summaries[column] = Some(parts.iter().fold(Summary::EMPTY, |merged, (_, part)| merged.merge(part)));
    }
    let numbers = distinct.into_iter().map(|distinct| distinct?.finish()).collect();
    Ok(Summaries { columns: summaries, numbers })
}
