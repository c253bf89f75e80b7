//! Statistics of the columns whose scale must be known before their cells are written.

use super::decode::{NO_TIME, moments, numbers};
use super::link::{RowTimes, bad_cell};
use super::source::TableSource;
use super::stats::Moments;
use crate::error::Result;
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
    /// The earliest moment of all rows.
    pub(super) min_us: i64,
    /// The latest moment of all rows.
    pub(super) max_us: i64,
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
        min_us: i64::MAX,
        max_us: i64::MIN,
        values: 0,
        unusable: 0,
    };

    fn merge(self, later: &Self) -> Self {
        Self {
            moments: self.moments.merge(later.moments),
            min: self.min.min(later.min),
            max: self.max.max(later.max),
            min_us: self.min_us.min(later.min_us),
            max_us: self.max_us.max(later.max_us),
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
            min_us: all.clone().min().unwrap_or(i64::MAX),
            max_us: all.clone().max().unwrap_or(i64::MIN),
            values: all.count() as u64,
            ..Self::EMPTY
        }
    }
}

/// Summaries of the numerical and timestamp columns of a table; `None` for the others.
///
/// `rows` holds null times as [`NO_TIME`]; they are never before a cut-off.
pub(super) fn summarise(source: &TableSource<'_>, rows: &RowTimes, until: Option<i64>) -> Result<Vec<Option<Summary>>> {
    let described = &source.table.columns;
    let mut summaries: Vec<Option<Summary>> = vec![None; described.len()];
    let mut scanned = Vec::new();
    for (column, description) in described.iter().enumerate() {
        if source.table.temporal_column.as_ref() == Some(&description.name) {
            let merged = rows
                .times
                .chunks(BATCH)
                .map(|times| Summary::of_moments(times, times, until))
                .fold(Summary::EMPTY, |merged, batch| merged.merge(&batch));
            summaries[column] = Some(Summary { unusable: rows.unusable, ..merged });
        } else if matches!(description.stype, Some(Stype::Numerical | Stype::Timestamp)) {
            scanned.push(column);
        }
    }
    let chunks = source.chunks();
    let state = || chunks.iter().map(|chunk| (chunk.first_row, Summary::EMPTY)).collect();
    let states = scanned.iter().map(|_| state()).collect();
    let found = source.scan(&scanned, states, |column, (first_row, summary), row, array| {
        let first = *first_row + row;
        let times = &rows.times[first..first + array.len()];
        let fault = |cell| bad_cell(source, column, first, &cell);
        let (batch, unusable) = if described[column].stype == Some(Stype::Numerical) {
            let read = numbers(array).map_err(fault)?;
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
    Ok(summaries)
}
