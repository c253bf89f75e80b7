//! The rows of a table, in two passes: texts, booleans and identifiers are read and kept, then the layout is known and
//! the rest is read and everything encoded, in parallel, and written in order: `tables/<table>.bin`.

use std::path::Path;

use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use rayon::prelude::*;

use super::Progress;
use super::decode::{NO_BOOLEAN, NO_TIME, booleans, categories, moments, numbers, texts};
use super::encodings::{Coder, Encodings};
use super::graph::ChildLists;
use super::keys::KeyIndex;
use super::link::{ParentRows, bad_cell};
use super::memory::{Buffer, Memory};
use super::source::{Chunk, Reader, TableSource};
use super::spool::{Numbers, Spool, Spooled};
use super::summary::Summaries;
use super::vocabulary::{BatchTexts, Categories, NO_TEXT, Vocabulary};
use crate::csr::NO_PARENT;
use crate::error::Result;
use crate::format::packed::{TAIL, TimeCodes};
use crate::format::record::{CellEncoding, Field, RecordLayout, RecordShape};
use crate::format::{FileKind, FileWriter, num_key_sections, table};
use crate::manifest::KeyKind;
use crate::stype::Stype;

pub(super) use super::encodings::most_distinct;

/// Bytes of records one worker encodes before it turns to other columns; fits the second-level cache.
const WORK_BYTES: usize = 256 << 10;

/// Everything that is known of a table before its rows are written.
pub(super) struct TablePlan<'a> {
    pub(super) source: &'a TableSource<'a>,
    /// How the times of the rows are numbered.
    pub(super) codes: TimeCodes,
    /// The number of each row's time; empty where the table has no times.
    pub(super) times: &'a Buffer<u64>,
    /// Some row has no time, though others have.
    pub(super) has_null_times: bool,
    /// The table's foreign keys.
    pub(super) parents: &'a [ParentRows],
    /// Rows of the tables they point to.
    pub(super) parent_rows: Vec<u32>,
    /// Where the children of each row lie, per foreign key that points to the table.
    pub(super) children: Vec<&'a ChildLists>,
    /// What was seen of the described columns.
    pub(super) summaries: &'a Summaries,
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

/// What was found of the described columns of a table.
pub(super) struct Written {
    pub(super) tallies: Vec<Tally>,
    pub(super) encodings: Vec<CellEncoding>,
}

/// Where the cells of a described column come from.
#[derive(Clone, Copy)]
enum CellSource {
    /// The column is not encoded.
    Ignored,
    /// Every row has a primary key.
    PrimaryKey,
    /// Rows have the foreign key unless it is null.
    ForeignKey(usize),
    /// The rows' own times.
    Time,
    /// Read before the layout is known, as one of the columns of a kept block.
    Kept(usize),
    /// Read when the layout is known, as one of the columns of a block.
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

/// One column of a block that was kept.
struct Kept {
    /// Per row 0 for null, else one more than its number.
    rows: Spooled,
    /// Vocabulary ids by their number.
    ids: Spooled,
}

impl Kept {
    /// The columns of a block, of which a spool holds the places.
    fn columns(block: Option<Spooled>, spool: &mut Spool) -> Result<Vec<Self>> {
        let Some(block) = block else { return Ok(Vec::new()) };
        let places: Vec<u64> = spool.read(block)?.packed().iter().collect();
        let columns = places.chunks_exact(6).map(|places| Self {
            rows: Spooled::from_numbers([places[0], places[1], places[2]]),
            ids: Spooled::from_numbers([places[3], places[4], places[5]]),
        });
        Ok(columns.collect())
    }
}

/// One column of a block, ready to be encoded.
enum Ready<'a> {
    /// Per row, and what to store for each number.
    Kept(Numbers, Vec<u64>),
    Read(&'a Values),
}

/// Where the cells of every described column come from, and the columns to read in each of the two passes.
struct Sources {
    columns: Vec<CellSource>,
    kept: Vec<usize>,
    read: Vec<usize>,
}

/// Writes a table's file.
pub(super) fn write_table(
    plan: &TablePlan<'_>,
    key: Option<KeyIndex>,
    vocabulary: &mut Vocabulary,
    place: (&Path, &str, u64),
    memory: &Memory,
    progress: Progress<'_>,
) -> Result<Written> {
    let (staging, file, build_id) = place;
    let (name, num_rows) = (&plan.source.table.name, plan.source.num_rows as u64);
    let mut tallies: Vec<Tally> = plan.source.table.columns.iter().map(|_| Tally::default()).collect();
    plan.tally_keys(&mut tallies);
    let sources = plan.cell_sources();
    progress(name, 0, num_rows)?;
    // a table takes two passes, the first of which is over when half of the rows are said to be done
    let done = |rows_of_passes: u64| progress(name, rows_of_passes / 2, num_rows);

    let mut spool = Spool::new(staging)?;
    let mut kept = Vec::new();
    if !sources.kept.is_empty() {
        each_block(plan.source, &sources.kept, |block| {
            kept.push(keep(block, &sources.kept, vocabulary, &mut tallies, &mut spool)?);
            vocabulary.release_pages();
            done((block.first_row + block.num_rows) as u64)
        })?;
    }
    let encodings = plan.encodings(&sources, &mut tallies);
    let encoder = Encoder { plan, layout: plan.layout(&encodings, &sources), encodings, sources };

    let sections = 2 + num_key_sections(key.as_ref().map_or(KeyKind::None, KeyIndex::key_kind));
    let mut writer = FileWriter::create(staging, file, FileKind::Table, build_id, sections)?;
    let mut records = writer.section(table::RECORDS)?;
    let (mut bytes, mut kept) = (Vec::new(), kept.into_iter());
    each_block(plan.source, &encoder.sources.read, |block| {
        count(block, &encoder.sources.read, &mut tallies);
        let columns = encoder.ready(block, &Kept::columns(kept.next(), &mut spool)?, &mut spool)?;
        encoder.encode(block, &columns, &mut bytes);
        records.append(&bytes)?;
        plan.release_pages();
        done(num_rows + (block.first_row + block.num_rows) as u64)
    })?;
    records.append(&[0; TAIL])?;
    records.close();
    if let Some(key) = key {
        key.write(&mut writer, memory)?;
    }
    writer.values(table::VALUES, &encoder.encodings.values)?;
    writer.finish()?;
    Ok(Written { tallies, encodings: encoder.encodings.cells })
}

/// Adds the counts of a block to the tallies.
fn count(block: &Block, columns: &[usize], tallies: &mut [Tally]) {
    for (decoded, &column) in block.columns.iter().zip(columns) {
        let tally = &mut tallies[column];
        tally.nulls += decoded.nulls;
        tally.unusable += decoded.unusable;
        tally.true_count += decoded.true_count;
    }
}

/// Takes the texts of a block into the vocabulary and its counts into the tallies, and keeps its cells; answers where
/// their places are.
fn keep(
    block: &Block,
    columns: &[usize],
    vocabulary: &mut Vocabulary,
    tallies: &mut [Tally],
    spool: &mut Spool,
) -> Result<Spooled> {
    count(block, columns, tallies);
    let mut kept = Vec::with_capacity(6 * columns.len());
    for (decoded, &column) in block.columns.iter().zip(columns) {
        let mut ids = Vec::new();
        let rows = match &decoded.values {
            Values::Identifiers(None) => spool.append(std::iter::empty())?,
            Values::Identifiers(Some(nulls)) => spool.append(nulls.iter().map(u64::from))?,
            Values::Booleans(booleans) => spool.append(booleans.iter().map(|&value| match value {
                NO_BOOLEAN => 0,
                value => u64::from(value) + 1,
            }))?,
            Values::Texts(batch) => {
                ids = vocabulary.adopt(batch)?;
                spool.append(batch.ids.iter().map(|&id| if id == NO_TEXT { 0 } else { u64::from(id) + 1 }))?
            }
            Values::Numbers(_) | Values::Moments(_) => unreachable!("read when the layout is known"),
        };
        tallies[column].categories.extend(&ids);
        kept.extend(rows.numbers());
        kept.extend(spool.append(ids.iter().map(|&id| u64::from(id)))?.numbers());
    }
    spool.append(kept.into_iter())
}

impl TablePlan<'_> {
    fn cell_sources(&self) -> Sources {
        let table = self.source.table;
        let mut sources = Sources { columns: Vec::new(), kept: Vec::new(), read: Vec::new() };
        for (column, description) in table.columns.iter().enumerate() {
            let is = |role: &Option<String>| role.as_ref() == Some(&description.name);
            let source = match description.stype {
                None => CellSource::Ignored,
                Some(_) if is(&table.primary_key) => CellSource::PrimaryKey,
                Some(stype) => {
                    if let Some(slot) = self.parents.iter().position(|parents| parents.column == column) {
                        CellSource::ForeignKey(slot)
                    } else if is(&table.temporal_column) {
                        CellSource::Time
                    } else if matches!(stype, Stype::Numerical | Stype::Timestamp) {
                        sources.read.push(column);
                        CellSource::Read(sources.read.len() - 1)
                    } else {
                        sources.kept.push(column);
                        CellSource::Kept(sources.kept.len() - 1)
                    }
                }
            };
            sources.columns.push(source);
        }
        sources
    }

    /// Hands the memory of scratch files back to the system.
    fn release_pages(&self) {
        self.times.release_pages();
        self.parents.iter().for_each(|parents| parents.rows.release_pages());
        self.children.iter().for_each(|lists| lists.indptr.release_pages());
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

    /// Decides how the cells of each described column are stored.
    fn encodings(&self, sources: &Sources, tallies: &mut [Tally]) -> Encodings {
        let mut encodings = Encodings::default();
        let num_rows = self.source.num_rows;
        for (column, (description, source)) in self.source.table.columns.iter().zip(&sources.columns).enumerate() {
            let (tally, summary) = (&mut tallies[column], &self.summaries.columns[column]);
            match (source, description.stype, summary) {
                (CellSource::Read(_), Some(Stype::Numerical), Some(summary)) => {
                    encodings.numbers(summary, self.summaries.numbers[column].as_deref(), num_rows);
                }
                (CellSource::Read(_), Some(Stype::Timestamp), Some(summary)) => encodings.moments(summary, num_rows),
                (CellSource::Kept(_), Some(Stype::Categorical | Stype::Text), _) => {
                    let nulls = tally.nulls;
                    encodings.ids(&tally.categories.ascending().collect::<Vec<u32>>(), nulls, num_rows);
                }
                (CellSource::Time, ..) => encodings.nothing(description.stype, self.has_null_times),
                (_, stype, _) => encodings.nothing(stype, tally.nulls > 0),
            }
        }
        encodings
    }

    fn layout(&self, encodings: &Encodings, sources: &Sources) -> RecordLayout {
        let described = self.source.table.columns.iter().zip(&encodings.cells).zip(&sources.columns);
        let encoded = described.filter_map(|((column, &encoding), &source)| Some((column.stype?, encoding, source)));
        let encoded: Vec<(Stype, CellEncoding, CellSource)> = encoded.collect();
        RecordLayout::new(&RecordShape {
            times: self.codes,
            temporal: encoded.iter().position(|(.., source)| matches!(source, CellSource::Time)),
            columns: encoded.into_iter().map(|(stype, encoding, _)| (stype, encoding)).collect(),
            parents: self.parent_rows.clone(),
            children: self.children.iter().map(|lists| (lists.edges(), lists.most)).collect(),
        })
    }
}

/// Everything that is known of a table when its rows are written.
struct Encoder<'a> {
    plan: &'a TablePlan<'a>,
    layout: RecordLayout,
    encodings: Encodings,
    sources: Sources,
}

impl Encoder<'_> {
    /// The columns of a block, by their positions in the description; `None` for those that are not read.
    fn ready<'b>(&self, block: &'b Block, kept: &[Kept], spool: &mut Spool) -> Result<Vec<Option<Ready<'b>>>> {
        let mut columns = Vec::with_capacity(self.sources.columns.len());
        for (source, coder) in self.sources.columns.iter().zip(&self.encodings.coders) {
            columns.push(match source {
                CellSource::Read(read) => Some(Ready::Read(&block.columns[*read].values)),
                CellSource::Kept(position) => {
                    let ids: Vec<u32> = spool.read(kept[*position].ids)?.packed().iter().map(|id| id as u32).collect();
                    Some(Ready::Kept(spool.read(kept[*position].rows)?, coder.ids(&ids)))
                }
                _ => None,
            });
        }
        Ok(columns)
    }

    /// Encodes the rows of a block.
    fn encode(&self, block: &Block, columns: &[Option<Ready<'_>>], bytes: &mut Vec<u8>) {
        let stride = self.layout.stride();
        bytes.clear();
        bytes.resize(block.num_rows * stride, 0);
        if stride == 0 {
            return;
        }
        let rows_at_once = (WORK_BYTES / stride).clamp(1, block.num_rows.max(1));
        bytes.par_chunks_mut(rows_at_once * stride).enumerate().for_each_init(Vec::new, |scratch, (part, bytes)| {
            scratch.clear();
            scratch.resize(bytes.len() + TAIL, 0);
            self.encode_rows(block.first_row, part * rows_at_once, columns, scratch);
            bytes.copy_from_slice(&scratch[..bytes.len()]);
        });
    }

    /// Encodes the rows from the `start`-th of a block on for which `bytes` has space.
    fn encode_rows(&self, first_row: usize, start: usize, columns: &[Option<Ready<'_>>], bytes: &mut [u8]) {
        let (layout, row) = (&self.layout, first_row + start);
        let mut records = Records { layout, bytes };
        if let Some(times) = self.plan.times.get(row..) {
            records.put(layout.time_field(), |at| times[at]);
        }
        for (slot, parents) in self.plan.parents.iter().enumerate() {
            let number = |parent: u32| if parent == NO_PARENT { 0 } else { u64::from(parent) + 1 };
            records.put(layout.parent_field(slot), |at| number(parents.rows[row + at]));
        }
        for (slot, lists) in self.plan.children.iter().enumerate() {
            let (from, len) = layout.children_fields(slot);
            records.put(from, |at| u64::from(lists.indptr[row + at]));
            records.put(len, |at| u64::from(lists.indptr[row + at + 1] - lists.indptr[row + at]));
        }
        let encoded = self.sources.columns.iter().enumerate();
        let encoded = encoded.filter(|(_, source)| !matches!(source, CellSource::Ignored));
        for (position, (column, source)) in encoded.enumerate() {
            match (source, &columns[column]) {
                (CellSource::ForeignKey(slot), _) => self.encode_foreign_key(*slot, row, position, &mut records),
                (CellSource::Time, _) => {
                    let codes = self.plan.codes;
                    let is_known = |code: u64| (codes.first..=codes.last).contains(&code);
                    let times = self.plan.times.get(row..).unwrap_or(&[]);
                    records.set(position, |at| is_known(times.get(at).copied().unwrap_or(0)).then_some(0));
                }
                (_, Some(Ready::Kept(rows, stored))) => {
                    encode_kept(rows, stored, start, position, &self.encodings.coders[column], &mut records);
                }
                (_, Some(Ready::Read(values))) => {
                    encode_read(values, start, position, &self.encodings.coders[column], &mut records);
                }
                (_, None) => records.set(position, |_| Some(0)),
            }
        }
    }

    /// A key that names no parent is a cell like any other: the row has an identifier, though no edge.
    fn encode_foreign_key(&self, slot: usize, first_row: usize, position: usize, records: &mut Records<'_>) {
        let parents = &self.plan.parents[slot];
        let mut dangling = &parents.dangling[parents.dangling.partition_point(|&row| (row as usize) < first_row)..];
        records.set(position, |offset| {
            let row = first_row + offset;
            let is_dangling = dangling.first() == Some(&(row as u32));
            if is_dangling {
                dangling = &dangling[1..];
            }
            (is_dangling || parents.rows[row] != NO_PARENT).then_some(0)
        });
    }
}

fn encode_kept(
    rows: &Numbers,
    stored: &[u64],
    start: usize,
    position: usize,
    coder: &Coder,
    records: &mut Records<'_>,
) {
    let rows = rows.packed();
    match coder {
        // identifiers of a block without nulls are not kept
        Coder::Nothing if rows.is_empty() => records.set(position, |_| Some(0)),
        Coder::Nothing => records.set(position, |at| (rows.get(start + at) > 0).then_some(0)),
        Coder::Boolean => records.set_booleans(position, |at| rows.get(start + at).checked_sub(1)),
        _ => records.set(position, |at| rows.get(start + at).checked_sub(1).map(|number| stored[number as usize])),
    }
}

fn encode_read(values: &Values, start: usize, position: usize, coder: &Coder, records: &mut Records<'_>) {
    match (values, coder) {
        (Values::Numbers(numbers), Coder::Numbers(scale)) => {
            let numbers = &numbers[start..];
            let score = |number: f64| u64::from(scale.of(number).to_bits());
            records.set(position, |at| (!numbers[at].is_nan()).then(|| score(numbers[at])));
        }
        (Values::Numbers(numbers), Coder::KnownNumbers(known)) => {
            let numbers = &numbers[start..];
            records.set(position, |at| (!numbers[at].is_nan()).then(|| Coder::number(known, numbers[at])));
        }
        (Values::Moments(times), Coder::Moments(base, unit)) => {
            let times = &times[start..];
            let number = |time: i64| unit.quotient(time.wrapping_sub(*base) as u64);
            records.set(position, |at| (times[at] != NO_TIME).then(|| number(times[at])));
        }
        _ => unreachable!("the coder was made for the stype of the column"),
    }
}

/// Some records that are being written, zero at first; `bytes` is longer than they are.
struct Records<'a> {
    layout: &'a RecordLayout,
    bytes: &'a mut [u8],
}

impl Records<'_> {
    fn each(&mut self, mut visit: impl FnMut(usize, &mut [u8])) {
        let stride = self.layout.stride();
        for row in 0..(self.bytes.len() - TAIL) / stride {
            visit(row, &mut self.bytes[row * stride..row * stride + stride + TAIL]);
        }
    }

    /// Puts a number into a field of each record.
    #[inline]
    fn put(&mut self, field: Field, number: impl Fn(usize) -> u64) {
        if !field.is_empty() {
            self.each(|row, record| field.put(record, number(row)));
        }
    }

    /// Sets the cell of each record that has one.
    #[inline]
    fn set(&mut self, column: usize, mut number: impl FnMut(usize) -> Option<u64>) {
        let (field, valid) = (self.layout.cell_field(column), self.layout.valid_bit(column));
        match (valid, field.is_empty()) {
            (None, true) => {}
            (None, false) => self.each(|row, record| field.put(record, number(row).unwrap_or(0))),
            (Some(valid), _) => self.each(|row, record| {
                if let Some(number) = number(row) {
                    field.put(record, number);
                    valid.put(record, true);
                }
            }),
        }
    }

    /// Sets the boolean cell of each record that has one.
    fn set_booleans(&mut self, column: usize, value: impl Fn(usize) -> Option<u64>) {
        let (bit, valid) = (self.layout.boolean_bit(column), self.layout.valid_bit(column));
        self.each(|row, record| {
            if let Some(value) = value(row) {
                bit.put(record, value == 1);
                if let Some(valid) = valid {
                    valid.put(record, true);
                }
            }
        });
    }
}

/// Reads the blocks of a table, each while the one before is visited.
fn each_block(
    source: &TableSource<'_>,
    columns: &[usize],
    mut visit: impl FnMut(&Block) -> Result<()> + Send,
) -> Result<()> {
    let mut blocks = Blocks::new(source, columns);
    let mut block = blocks.next_block()?;
    while let Some(current) = block {
        let (next, visited) = rayon::join(|| blocks.next_block(), || visit(&current));
        visited?;
        block = next?;
    }
    Ok(())
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
