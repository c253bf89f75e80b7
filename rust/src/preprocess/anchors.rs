//! The encoded anchor table as a task needs it: rows by primary key, and records.

use std::path::Path;

use crate::database::table_layout;
use crate::error::{Error, Result};
use crate::format::record::{ALWAYS_VISIBLE, NEVER_VISIBLE, Record, RecordLayout};
use crate::format::{FileKind, FileReader, Keys, table};
use crate::manifest::{KeyKind, Manifest, TableManifest};
use crate::splits::key_text;

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
        anchor.bytes()?;
        anchor.keys()?;
        Ok(anchor)
    }

    /// Number of rows.
    pub(super) fn num_rows(&self) -> usize {
        self.num_rows
    }

    fn bytes(&self) -> Result<(&[u8], &[u32])> {
        let values = self.file.values(table::VALUES)?;
        let len = self.layout.section_len(self.num_rows).filter(|_| self.layout.fits(values.len()));
        let len = len.ok_or_else(|| Error::format(self.file.path(), "the rows are not those of the table"))?;
        Ok((self.file.exactly(table::RECORDS, len)?, values))
    }

    /// Every row in order.
    pub(super) fn records(&self) -> Result<impl Iterator<Item = Record<'_>>> {
        let (bytes, values) = self.bytes()?;
        Ok((0..self.num_rows).map(move |row| self.layout.read(&bytes[row * self.layout.stride()..], values)))
    }

    /// The time of each row as a seed's observation time: its own, else the end of time.
    pub(super) fn times(&self) -> Result<Vec<i64>> {
        Ok(self.records()?.map(|record| observation_time(record.time())).collect())
    }

    /// The primary key of a row as text; the number of the row where the table has no keys.
    pub(super) fn key_text(&self, row: usize) -> Result<String> {
        match self.keys()? {
            None => Ok(row.to_string()),
            Some(keys) => Ok(key_text(&keys.key(row)?)),
        }
    }

    /// The primary keys of the rows; `None` where the table has none.
    pub(super) fn keys(&self) -> Result<Option<Keys<'_>>> {
        self.file.keys(self.key_kind, self.num_rows)
    }
}

/// The observation time of a seed that takes it from its row.
pub(super) fn observation_time(row_time: i64) -> i64 {
    match row_time {
        ALWAYS_VISIBLE | NEVER_VISIBLE => i64::MAX,
        time => time,
    }
}
