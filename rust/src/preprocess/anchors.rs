//! The encoded anchor table as a task needs it: rows by primary key, and records.

use std::path::Path;

use hashbrown::HashMap;

use crate::database::{Key, table_layout};
use crate::error::{Error, Result};
use crate::format::record::{ALWAYS_VISIBLE, NEVER_VISIBLE, Record, RecordLayout};
use crate::format::{FileKind, FileReader, table};
use crate::manifest::{KeyKind, Manifest, TableManifest};

/// The encoded table of a task's entities.
pub(super) struct AnchorTable {
    file: FileReader,
    layout: RecordLayout,
    num_rows: usize,
    key_kind: KeyKind,
}

impl AnchorTable {
    /// Opens the staged table.
    pub(super) fn open(root: &Path, manifest: &Manifest, table: &TableManifest) -> Result<Self> {
        let anchor = Self {
            file: FileReader::open(root, &table.file, FileKind::Table)?,
            layout: table_layout(manifest, table),
            num_rows: table.num_rows as usize,
            key_kind: table.key_kind,
        };
        anchor.words()?;
        Ok(anchor)
    }

    /// Number of rows.
    pub(super) fn num_rows(&self) -> usize {
        self.num_rows
    }

    fn words(&self) -> Result<&[u32]> {
        self.file.exactly(table::RECORDS, self.num_rows * self.layout.stride())
    }

    /// Every row in order.
    pub(super) fn records(&self) -> Result<impl Iterator<Item = Record<'_>>> {
        // a table without columns and links still has a time, so no stride is 0
        Ok(self.words()?.chunks_exact(self.layout.stride()).map(|words| self.layout.read(words)))
    }

    /// The time of each row as a seed's observation time: its own, else the end of time.
    pub(super) fn times(&self) -> Result<Vec<i64>> {
        Ok(self.records()?.map(|record| observation_time(record.time())).collect())
    }

    /// The primary key of a row as text; the number of the row where the table has no keys.
    pub(super) fn key_text(&self, row: usize) -> Result<String> {
        Ok(match self.key_kind {
            KeyKind::None => row.to_string(),
            KeyKind::Int => self.ints()?[row].to_string(),
            KeyKind::Uint => self.uints()?[row].to_string(),
            KeyKind::String => self.string(row)?.to_owned(),
        })
    }

    /// Rows by their primary keys.
    pub(super) fn rows_by_key(&self) -> Result<RowsByKey<'_>> {
        let rows = 0..self.num_rows as u32;
        Ok(match self.key_kind {
            KeyKind::None => RowsByKey::None,
            KeyKind::Int => RowsByKey::Int(self.ints()?.iter().copied().zip(rows).collect()),
            KeyKind::Uint => RowsByKey::Uint(self.uints()?.iter().copied().zip(rows).collect()),
            KeyKind::String => {
                RowsByKey::String(rows.map(|row| Ok((self.string(row as usize)?, row))).collect::<Result<_>>()?)
            }
        })
    }

    fn ints(&self) -> Result<&[i64]> {
        self.file.exactly(table::KEY_VALUES, self.num_rows)
    }

    fn uints(&self) -> Result<&[u64]> {
        self.file.exactly(table::KEY_VALUES, self.num_rows)
    }

    fn string(&self, row: usize) -> Result<&str> {
        let ends = self.file.exactly::<u64>(table::KEY_OFFSETS, self.num_rows + 1)?;
        self.file
            .values::<u8>(table::KEY_BYTES)?
            .get(ends[row] as usize..ends[row + 1] as usize)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .ok_or_else(|| Error::format(self.file.path(), format!("the key of row {row} is damaged")))
    }
}

/// The observation time of a seed that takes it from its row.
pub(super) fn observation_time(row_time: i64) -> i64 {
    match row_time {
        ALWAYS_VISIBLE | NEVER_VISIBLE => i64::MAX,
        time => time,
    }
}

/// Rows by their primary keys; keys are compared exactly.
pub(super) enum RowsByKey<'a> {
    /// The table has no keys.
    None,
    /// Signed integers.
    Int(HashMap<i64, u32>),
    /// Unsigned integers.
    Uint(HashMap<u64, u32>),
    /// Strings.
    String(HashMap<&'a str, u32>),
}

impl RowsByKey<'_> {
    /// The row of a key; a key of another kind has none.
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        match (self, key) {
            (Self::Int(rows), Key::Int(key)) => rows.get(key),
            (Self::Int(rows), Key::Uint(key)) => rows.get(&i64::try_from(*key).ok()?),
            (Self::Uint(rows), Key::Uint(key)) => rows.get(key),
            (Self::Uint(rows), Key::Int(key)) => rows.get(&u64::try_from(*key).ok()?),
            (Self::String(rows), Key::String(key)) => rows.get(key.as_str()),
            (Self::None | Self::Int(_) | Self::Uint(_) | Self::String(_), _) => None,
        }
        .copied()
    }
}

/// A key as text: integers in decimal.
pub(super) fn key_text(key: &Key) -> String {
    match key {
        Key::Int(key) => key.to_string(),
        Key::Uint(key) => key.to_string(),
        Key::String(key) => key.clone(),
    }
}
