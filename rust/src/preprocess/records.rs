//! The rows of a table: read block by block, encoded in parallel, written in order: `tables/<table>.bin`.

use std::path::Path;

use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use rayon::prelude::*;

use super::Progress;
use super::decode::{NO_BOOLEAN, NO_TIME, booleans, categories, moments, numbers, texts};
use super::keys::KeyIndex;
use super::link::{ParentRows, bad_cell};
use super::source::{Chunk, Reader, TableSource};
use super::stats::ZScore;
use super::vocabulary::{BatchTexts, Categories, NO_TEXT, Vocabulary};
use crate::error::Result;
use crate::format::record::{ALWAYS_VISIBLE, Cell, NEVER_VISIBLE, RecordLayout};
use crate::format::{FileKind, FileWriter, table};
use crate::stype::Stype;

/// Bytes of records one worker encodes before it turns to other columns; fits the second-level cache.
const WORK_BYTES: usize = 256 << 10;

/// Everything that is known of a table before its rows are written.
pub(super) struct TablePlan<'a> {
    pub(super) source: &'a TableSource<'a>,
    pub(super) layout: RecordLayout,
    /// The time of each row.
    pub(super) times: &'a [i64],
    /// The table's foreign keys.
    pub(super) parents: &'a [ParentRows],
    /// Where the children of each row lie, per foreign key that points to the table.
    pub(super) children: Vec<&'a [u32]>,
    /// The scale of each described column; used for numerical ones.
    pub(super) scales: Vec<ZScore>,
}

/// What was counted while the cells of one column were written.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) nulls: u64,
    /// NaN, infinities and moments that do not fit, among the nulls.
    pub(super) unusable: u64,
    pub(super) true_count: u64,
    pub(super) categories: Categories,
}

/// Where the cells of an encoded column come from.
#[derive(Clone, Copy)]
enum CellSource {
    /// Every row has a primary key.
    PrimaryKey,
    /// Rows have the foreign key unless it is null.
    ForeignKey(usize),
    /// The rows' own times.
    Time,
    /// Read again, as one of the columns of a block.
    Read(usize),
}

/// The values of one column in a block.
enum Values {
    Identifiers(Option<NullBuffer>),
    Numbers(Vec<f64>),
    Moments(Vec<i64>),
    Booleans(Vec<u8>),
    Texts(BatchTexts),
}

/// One column of a block and what it adds to the column's tally.
struct Decoded {
    values: Values,
    nulls: u64,
    unusable: u64,
    true_count: u64,
}

/// Consecutive rows of a table.
struct Block {
    first_row: usize,
    num_rows: usize,
    columns: Vec<Decoded>,
}

/// Writes a table's file; answers a tally per described column.
pub(super) fn write_table(
    plan: &TablePlan<'_>,
    key: Option<KeyIndex>,
    vocabulary: &mut Vocabulary,
    place: (&Path, &str, u64),
    progress: Progress<'_>,
) -> Result<Vec<Tally>> {
    let (staging, name, build_id) = place;
    let described = &plan.source.table.columns;
    let (sources, read) = plan.cell_sources();
    let holds_texts = |stype| matches!(stype, Stype::Categorical | Stype::Text);
    let num_texts = plan.source.table.encoded().filter(|(_, stype)| holds_texts(*stype)).count();
    let sections = 1 + key.as_ref().map_or(0, KeyIndex::num_sections) + num_texts;
    let mut writer = FileWriter::create(staging, name, FileKind::Table, build_id, sections)?;
    let mut tallies: Vec<Tally> = described.iter().map(|_| Tally::default()).collect();
    plan.tally_keys(&mut tallies);

    let mut records = writer.section(table::RECORDS)?;
    let mut words = Vec::new();
    let mut blocks = Blocks::new(plan.source, &read);
    let mut block = blocks.next_block()?;
    progress(&plan.source.table.name, 0, plan.source.num_rows as u64)?;
    while let Some(current) = block {
        let (next, written) = rayon::join(
            || blocks.next_block(),
            || {
                let ids = adopt(&current, &read, vocabulary, &mut tallies)?;
                plan.encode(&current, &sources, &ids, &mut words);
                records.append(bytemuck::cast_slice(&words))?;
                let done = current.first_row + current.num_rows;
                progress(&plan.source.table.name, done as u64, plan.source.num_rows as u64)
            },
        );
        written?;
        block = next?;
    }
    records.close();
    if let Some(key) = key {
        key.write(&mut writer)?;
    }
    let encoded = described.iter().enumerate().filter_map(|(column, description)| Some((column, description.stype?)));
    for (position, (column, stype)) in encoded.enumerate() {
        if holds_texts(stype) {
            writer.values(table::categories(position as u32), tallies[column].categories.sorted())?;
        }
    }
    writer.finish()?;
    Ok(tallies)
}

/// Takes the texts of a block into the vocabulary and its counts into the tallies; answers the vocabulary ids of each
/// column's texts.
fn adopt(block: &Block, read: &[usize], vocabulary: &mut Vocabulary, tallies: &mut [Tally]) -> Result<Vec<Vec<u32>>> {
    let mut ids = Vec::with_capacity(block.columns.len());
    for (decoded, &column) in block.columns.iter().zip(read) {
        let tally = &mut tallies[column];
        tally.nulls += decoded.nulls;
        tally.unusable += decoded.unusable;
        tally.true_count += decoded.true_count;
        ids.push(match &decoded.values {
            Values::Texts(batch) => vocabulary.adopt(batch)?,
            _ => Vec::new(),
        });
        tally.categories.extend(ids.last().map_or(&[], Vec::as_slice));
    }
    Ok(ids)
}

impl TablePlan<'_> {
    /// Where the cells of each encoded column come from, and the columns that must be read.
    fn cell_sources(&self) -> (Vec<(Stype, usize, CellSource)>, Vec<usize>) {
        let table = self.source.table;
        let mut read = Vec::new();
        let mut sources = Vec::new();
        for (column, description) in table.columns.iter().enumerate() {
            let Some(stype) = description.stype else { continue };
            let is = |role: &Option<String>| role.as_ref() == Some(&description.name);
            let source = if is(&table.primary_key) {
                CellSource::PrimaryKey
            } else if let Some(slot) = self.parents.iter().position(|parents| parents.column == column) {
                CellSource::ForeignKey(slot)
            } else if is(&table.temporal_column) {
                CellSource::Time
            } else {
                read.push(column);
                CellSource::Read(read.len() - 1)
            };
            sources.push((stype, column, source));
        }
        (sources, read)
    }

    /// Counts the nulls of columns that are not read again.
    fn tally_keys(&self, tallies: &mut [Tally]) {
        for parents in self.parents {
            let is_primary = self.source.table.primary_key.as_ref();
            if is_primary != Some(&self.source.table.columns[parents.column].name) {
                tallies[parents.column].nulls = parents.null;
            }
        }
    }

    fn encode(&self, block: &Block, sources: &[(Stype, usize, CellSource)], ids: &[Vec<u32>], words: &mut Vec<u32>) {
        let stride = self.layout.stride();
        words.clear();
        words.resize(block.num_rows * stride, 0);
        let rows_at_once = (WORK_BYTES / (stride * size_of::<u32>())).clamp(1, block.num_rows.max(1));
        words.par_chunks_mut(rows_at_once * stride).enumerate().for_each(|(part, words)| {
            let start = part * rows_at_once;
            self.encode_headers(block.first_row + start, words);
            for (position, &(_, column, source)) in sources.iter().enumerate() {
                let records = Records { layout: &self.layout, column: position, words, stride };
                match source {
                    CellSource::PrimaryKey => records.set(|_| Some(Cell::Identifier)),
                    CellSource::ForeignKey(slot) => self.encode_foreign_key(slot, block.first_row + start, records),
                    CellSource::Time => {
                        let times = &self.times[block.first_row + start..];
                        let is_there = |time: &i64| *time != ALWAYS_VISIBLE && *time != NEVER_VISIBLE;
                        records.set(|row| Some(times[row]).filter(is_there).map(Cell::Timestamp));
                    }
                    CellSource::Read(read) => {
                        encode_values(&block.columns[read].values, start, self.scales[column], &ids[read], records);
                    }
                }
            }
        });
    }

    fn encode_headers(&self, first_row: usize, words: &mut [u32]) {
        for (offset, words) in words.chunks_exact_mut(self.layout.stride()).enumerate() {
            let row = first_row + offset;
            let mut record = self.layout.write(words);
            record.set_time(self.times[row]);
            for (slot, parents) in self.parents.iter().enumerate() {
                record.set_parent(slot, parents.rows[row]);
            }
            for (slot, indptr) in self.children.iter().enumerate() {
                record.set_children(slot, indptr[row], indptr[row + 1] - indptr[row]);
            }
        }
    }

    /// A key that names no parent is a cell like any other: the row has an identifier, though no edge.
    fn encode_foreign_key(&self, slot: usize, first_row: usize, records: Records<'_>) {
        let parents = &self.parents[slot];
        let mut dangling = &parents.dangling[parents.dangling.partition_point(|&row| (row as usize) < first_row)..];
        records.set(|offset| {
            let row = first_row + offset;
            let is_dangling = dangling.first() == Some(&(row as u32));
            if is_dangling {
                dangling = &dangling[1..];
            }
            (is_dangling || parents.rows[row] != crate::csr::NO_PARENT).then_some(Cell::Identifier)
        });
    }
}

/// One column of some records.
struct Records<'a> {
    layout: &'a RecordLayout,
    column: usize,
    words: &'a mut [u32],
    stride: usize,
}

impl Records<'_> {
    /// Sets the cell of each record that has one.
    #[inline]
    fn set(self, mut cell: impl FnMut(usize) -> Option<Cell>) {
        for (row, words) in self.words.chunks_exact_mut(self.stride).enumerate() {
            if let Some(cell) = cell(row) {
                self.layout.write(words).set_cell(self.column, cell);
            }
        }
    }
}

fn encode_values(values: &Values, start: usize, scale: ZScore, ids: &[u32], records: Records<'_>) {
    match values {
        Values::Identifiers(nulls) => {
            let is_there = |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
            records.set(|row| is_there(start + row).then_some(Cell::Identifier));
        }
        Values::Numbers(numbers) => {
            let numbers = &numbers[start..];
            records.set(|row| (!numbers[row].is_nan()).then(|| Cell::Numerical(scale.of(numbers[row]))));
        }
        Values::Moments(times) => {
            let times = &times[start..];
            records.set(|row| (times[row] != NO_TIME).then(|| Cell::Timestamp(times[row])));
        }
        Values::Booleans(booleans) => {
            let booleans = &booleans[start..];
            records.set(|row| (booleans[row] != NO_BOOLEAN).then(|| Cell::Boolean(booleans[row] == 1)));
        }
        Values::Texts(batch) => {
            let local = &batch.ids[start..];
            let id = |row: usize| (local[row] != NO_TEXT).then(|| ids[local[row] as usize]);
            // Both stypes are stored alike; the layout knows which one the column has.
            if records.layout.stype(records.column) == Stype::Text {
                records.set(|row| id(row).map(Cell::Text));
            } else {
                records.set(|row| id(row).map(Cell::Categorical));
            }
        }
    }
}

/// Reads the blocks of a table in order, the columns of one in parallel.
struct Blocks<'a> {
    source: &'a TableSource<'a>,
    columns: &'a [usize],
    chunks: std::vec::IntoIter<Chunk>,
    current: Option<OpenChunk<'a>>,
}

struct OpenChunk<'a> {
    chunk: Chunk,
    readers: Vec<Reader<'a>>,
    row: usize,
}

impl<'a> Blocks<'a> {
    fn new(source: &'a TableSource<'a>, columns: &'a [usize]) -> Self {
        Self { source, columns, chunks: source.chunks().into_iter(), current: None }
    }

    fn next_block(&mut self) -> Result<Option<Block>> {
        if self.current.as_ref().is_none_or(|open| open.row == open.chunk.num_rows) {
            let Some(chunk) = self.chunks.next() else { return Ok(None) };
            let readers = self.source.readers(chunk, self.columns)?;
            self.current = Some(OpenChunk { chunk, readers, row: 0 });
        }
        let Some(open) = &mut self.current else { return Ok(None) };
        let (row, source) = (open.row, self.source);
        let first_row = open.chunk.first_row + row;
        let num_rows = open.chunk.batch_rows.min(open.chunk.num_rows - row);
        let decoded: Vec<Result<Vec<Decoded>>> = open
            .readers
            .par_iter_mut()
            .map(|reader| {
                let arrays = reader.next_batch()?.unwrap_or_default();
                let columns = arrays.iter().zip(reader.columns());
                columns.map(|(array, &column)| decode(source, column, first_row, array)).collect()
            })
            .collect();
        let mut columns = Vec::with_capacity(self.columns.len());
        for group in decoded {
            columns.extend(group?);
        }
        open.row += num_rows;
        Ok(Some(Block { first_row, num_rows, columns }))
    }
}

fn decode(source: &TableSource<'_>, column: usize, first_row: usize, array: &ArrayRef) -> Result<Decoded> {
    let description = &source.table.columns[column];
    let fault = |cell| bad_cell(source, column, first_row, &cell);
    let (mut unusable, mut true_count) = (0, 0);
    let (values, nulls) = match description.stype.unwrap_or(Stype::Identifier) {
        Stype::Identifier => {
            let nulls = array.logical_nulls();
            let count = nulls.as_ref().map_or(0, NullBuffer::null_count);
            (Values::Identifiers(nulls), count)
        }
        Stype::Numerical => {
            let read = numbers(array).map_err(fault)?;
            unusable = read.unusable;
            let nulls = read.values.iter().filter(|value| value.is_nan()).count();
            (Values::Numbers(read.values), nulls)
        }
        Stype::Timestamp => {
            let read = moments(array).map_err(fault)?;
            unusable = read.unusable;
            let nulls = read.values.iter().filter(|&&time| time == NO_TIME).count();
            (Values::Moments(read.values), nulls)
        }
        Stype::Boolean => {
            let read = booleans(array).map_err(fault)?;
            unusable = read.unusable;
            let (trues, nulls) = read.values.iter().fold((0, 0), |(trues, nulls), &value| {
                (trues + u64::from(value == 1), nulls + usize::from(value == NO_BOOLEAN))
            });
            true_count = trues;
            (Values::Booleans(read.values), nulls)
        }
        stype => {
            let batch = if stype == Stype::Text {
                texts(array).map_err(fault)?
            } else {
                let (batch, count) = categories(array, &description.name).map_err(fault)?;
                unusable = count;
                batch
            };
            let nulls = batch.ids.iter().filter(|&&id| id == NO_TEXT).count();
            (Values::Texts(batch), nulls)
        }
    };
    Ok(Decoded { values, nulls: nulls as u64, unusable, true_count })
}
