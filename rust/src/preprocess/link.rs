//! When each row came into being and which parents it points to.

use std::borrow::Cow;
use std::ops::Range;

use super::decode::{BadCell, NO_TIME, moments};
use super::keys::{KeyIndex, KeyRef, check_kind, each_key};
use super::kind::ValueKind;
use super::memory::{Buffer, Memory};
use super::source::{Chunk, TableSource};
use crate::csr::NO_PARENT;
use crate::error::{Error, Result};
use crate::format::record::ALWAYS_VISIBLE;
use crate::ids::TableId;

/// The times of rows, microseconds; [`ALWAYS_VISIBLE`] or [`NO_TIME`] for rows without one.
pub(super) enum Times {
    /// All rows are always visible.
    None,
    /// One time per row.
    Each(Buffer<i64>),
}

impl Times {
    /// The times of some rows.
    pub(super) fn of(&self, rows: Range<usize>) -> Cow<'_, [i64]> {
        match self {
            Self::None => Cow::Owned(vec![ALWAYS_VISIBLE; rows.len()]),
            Self::Each(times) => Cow::Borrowed(&times[rows]),
        }
    }
}

/// The time of every row of a table.
pub(super) struct RowTimes {
    pub(super) times: Times,
    /// Rows whose temporal column is null.
    pub(super) nulls: u64,
    /// Those whose moment does not fit into microseconds.
    pub(super) unusable: u64,
}

/// The parent row of every row of a table by one foreign key.
pub(super) struct ParentRows {
    /// The column of the key.
    pub(super) column: usize,
    /// The table it points to.
    pub(super) parent: TableId,
    /// Rows of the parent table; [`NO_PARENT`] for none.
    pub(super) rows: Buffer<u32>,
    /// Rows whose key names no parent, ascending.
    pub(super) dangling: Vec<u32>,
    /// The first key that names no parent.
    pub(super) sample: Option<String>,
    /// Rows without a key.
    pub(super) null: u64,
}

impl ParentRows {
    /// Gives the memory of the links back; the counts stay.
    pub(super) fn forget(&mut self) {
        self.rows = Buffer::default();
    }
}

/// Cuts one value per row into the row groups.
pub(super) fn by_chunk<'v, T>(mut values: &'v mut [T], chunks: &[Chunk]) -> Vec<&'v mut [T]> {
    let mut parts = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let (part, rest) = values.split_at_mut(chunk.num_rows);
        parts.push(part);
        values = rest;
    }
    parts
}

/// A cell that cannot be read, placed in its table.
pub(super) fn bad_cell(source: &TableSource<'_>, column: usize, first_row: usize, cell: &BadCell) -> Error {
    Error::schema(source.place(column), format!("row {}: {}", first_row + cell.row, cell.message))
}

/// Reads the temporal column of a table; a null is [`NO_TIME`] here. Without such a column all rows are always visible.
pub(super) fn read_times(source: &TableSource<'_>, memory: &Memory) -> Result<RowTimes> {
    let table = source.table;
    let position = |name: &String| table.columns.iter().position(|column| column.name == *name);
    let Some(column) = table.temporal_column.as_ref().and_then(position) else {
        return Ok(RowTimes { times: Times::None, nulls: 0, unusable: 0 });
    };
    let chunks = source.chunks();
    let mut times = memory.zeros::<i64>(source.num_rows)?;
    let states = by_chunk(&mut times, &chunks).into_iter().zip(&chunks);
    let states = vec![states.map(|(part, chunk)| (part, chunk.first_row, 0, 0)).collect()];
    let read = source.scan(&[column], states, |_, (part, first_row, unusable, nulls), row, array| {
        let found = moments(array).map_err(|cell| bad_cell(source, column, *first_row + row, &cell))?;
        part[row..row + found.values.len()].copy_from_slice(&found.values);
        *unusable += found.unusable;
        *nulls += found.values.iter().filter(|&&time| time == NO_TIME).count() as u64;
        Ok(())
    })?;
    let (unusable, nulls) = read.iter().flatten().fold((0, 0), |sum, part| (sum.0 + part.2, sum.1 + part.3));
    times.release_pages();
    Ok(RowTimes { times: Times::Each(times), nulls, unusable })
}

/// What the rows of one row group point to.
struct LinkedChunk<'v> {
    first_row: usize,
    rows: &'v mut [u32],
    dangling: Vec<u32>,
    sample: Option<String>,
    null: u64,
}

impl LinkedChunk<'_> {
    fn push(&mut self, row: usize, key: KeyRef<'_>, index: &KeyIndex) {
        match (key, index.find(key)) {
            (_, Some(parent)) => {
                self.rows[row] = parent;
                return;
            }
            (KeyRef::Null, None) => self.null += 1,
            (key, None) => {
                if self.sample.is_none() {
                    self.sample = Some(format!("{key} in row {}", self.first_row + row));
                }
                self.dangling.push((self.first_row + row) as u32);
            }
        }
        self.rows[row] = NO_PARENT;
    }
}

/// Resolves a foreign key against the primary keys of its parent table.
///
/// # Errors
/// [`Error::Schema`] when the two columns hold keys of different kinds.
pub(super) fn resolve(
    source: &TableSource<'_>,
    column: usize,
    parent: TableId,
    parent_source: &TableSource<'_>,
    index: &KeyIndex,
    memory: &Memory,
) -> Result<ParentRows> {
    let place = source.place(column);
    let kind = source.kinds[column];
    check_kind(kind, &place)?;
    let is_text = matches!(kind, ValueKind::Text | ValueKind::Bytes);
    if kind != ValueKind::Null && parent_source.num_rows > 0 && is_text != (index.kind() == ValueKind::Text) {
        let key = parent_source.table.primary_key.as_deref().unwrap_or_default();
        let message = format!(
            "the foreign key holds {}, but the primary key `{key}` of `{}` holds {}; write both columns with one type",
            kind.name(),
            parent_source.table.name,
            index.kind().name()
        );
        return Err(Error::schema(place, message));
    }
    let chunks = source.chunks();
    let mut rows = memory.zeros::<u32>(source.num_rows)?;
    let states = by_chunk(&mut rows, &chunks).into_iter().zip(&chunks).map(|(rows, chunk)| LinkedChunk {
        first_row: chunk.first_row,
        rows,
        dangling: Vec::new(),
        sample: None,
        null: 0,
    });
    let linked =
        source.scan(&[column], vec![states.collect()], |_, chunk: &mut LinkedChunk<'_>, first_row, array| {
            let mut row = first_row;
            each_key(array, |key| {
                chunk.push(row, key, index);
                row += 1;
            })
            .map_err(|message| Error::schema(&place, message))?;
            index.release_pages();
            Ok(())
        })?;
    let (mut dangling, mut sample, mut null) = (Vec::new(), None, 0);
    for chunk in linked.into_iter().flatten() {
        dangling.extend(chunk.dangling);
        sample = sample.or(chunk.sample);
        null += chunk.null;
    }
    rows.release_pages();
    Ok(ParentRows { column, parent, rows, dangling, sample, null })
}
