//! The parquet files of a table: opened, checked against the description, read batch by batch.
//!
//! Work is divided by row group and column, never by thread, so that nothing depends on the number of threads. Page
//! checksums are checked wherever a page carries one (the `crc` feature of the parquet crate).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::column::page::PageReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::SerializedPageReader;
use rayon::prelude::*;

use super::files::{PartFile, part_files};
use super::int96::first_beyond;
use super::kind::ValueKind;
use crate::error::{Error, Result, suggestion};
use crate::guard::guarded;
use crate::schema::{ColumnSchema, TableSchema};
use crate::stype::Stype;

/// Cells of one batch over all columns that are read together; bounds the memory of a reader.
const BATCH_CELLS: usize = 1 << 20;
/// Uncompressed bytes of one batch, as far as the file's footer tells.
const BATCH_BYTES: usize = 64 << 20;
/// Most rows of one batch.
const BATCH_ROWS: usize = 1 << 16;
/// Rows that a footer may claim before its pages are asked: memory is set aside by that number.
const UNCHECKED_ROWS: usize = 1 << 22;
/// Readers per row group; in wider tables a reader takes several columns.
const MAX_READERS: usize = 64;

/// The files of one table.
pub(super) struct TableSource<'a> {
    /// Its description.
    pub(super) table: &'a TableSchema,
    /// Rows over all parts, at most `u32::MAX - 2`.
    pub(super) num_rows: usize,
    /// What the values of each described column are, over all parts; `Null` for ignored columns.
    pub(super) kinds: Vec<ValueKind>,
    parts: Vec<Part>,
}

/// One part file.
struct Part {
    file: PartFile,
    metadata: ArrowReaderMetadata,
    /// Position in the file of each described column; `None` for ignored ones.
    roots: Vec<Option<usize>>,
}

/// A row group of a part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    part: usize,
    row_group: usize,
    /// Its first row within the table.
    pub(super) first_row: usize,
    /// Its rows.
    pub(super) num_rows: usize,
    /// Rows of one batch.
    pub(super) batch_rows: usize,
}

impl<'a> TableSource<'a> {
    /// Opens the files of a table and checks them against its description; what a user should know goes to `warnings`.
    ///
    /// # Errors
    /// [`Error::Schema`] naming the file and what to do about it.
    pub(super) fn open(input: &Path, table: &'a TableSchema, warnings: &mut Vec<String>) -> Result<Self> {
        if table.encoded().next().is_none() {
            let message = "no column to encode; describe at least one column that is not ignored";
            return Err(Error::schema(format!("table `{}`", table.name), message));
        }
        let parts: Vec<Part> =
            part_files(input, table)?.into_iter().map(|file| Part::open(file, table)).collect::<Result<_>>()?;
        for part in &parts {
            warnings.extend(part.undescribed(table));
        }
        let num_rows = parts.iter().map(Part::num_rows).try_fold(0usize, |rows, part| rows.checked_add(part?));
        let num_rows = num_rows.filter(|&rows| rows <= u32::MAX as usize - 2).ok_or_else(|| {
            let message =
                format!("more than {} rows, or row counts of the files that contradict each other", u32::MAX - 2);
            Error::schema(format!("table `{}`", table.name), message)
        })?;
        if num_rows > UNCHECKED_ROWS {
            parts.iter().try_for_each(|part| part.check_pages(table))?;
        }
        let mut source = Self { table, num_rows, kinds: Vec::with_capacity(table.columns.len()), parts };
        for column in 0..table.columns.len() {
            let kind = source.column_kind(column)?;
            source.kinds.push(kind);
        }
        Ok(source)
    }

    /// What messages call a column.
    pub(super) fn place(&self, column: usize) -> String {
        format!("table `{}`, column `{}`", self.table.name, self.table.columns[column].name)
    }

    /// Whether some part holds a column as floating-point numbers.
    pub(super) fn is_float(&self, column: usize) -> bool {
        let types = self.parts.iter().filter_map(|part| Some(part.metadata.schema().field(part.roots[column]?)));
        types.into_iter().any(|field| field.data_type().is_floating())
    }

    /// The paths of the parts, relative to the input folder.
    pub(super) fn files(&self) -> impl Iterator<Item = &PartFile> {
        self.parts.iter().map(|part| &part.file)
    }

    /// The kind of values of a column, on which all parts must agree.
    fn column_kind(&self, column: usize) -> Result<ValueKind> {
        let Some(stype) = self.table.columns[column].stype else { return Ok(ValueKind::Null) };
        let mut agreed = (ValueKind::Null, None);
        for part in &self.parts {
            let Some(root) = part.roots[column] else { continue };
            let field = part.metadata.schema().field(root);
            let is_list = self.table.columns[column].may_be_list;
            let kind = ValueKind::of(element(field.data_type()).filter(|_| is_list).unwrap_or(field.data_type()));
            if !kind.carries(stype) {
                let message = format!(
                    "cannot read {} as {stype} in file `{}`; {}",
                    field.data_type(),
                    part.file.name,
                    kind.remedy()
                );
                return Err(Error::schema(self.place(column), message));
            }
            if agreed.0 != ValueKind::Null && kind != ValueKind::Null && kind != agreed.0 {
                let message = format!(
                    "file `{}` holds {}, but file `{}` holds {}; write all part files with one type",
                    part.file.name,
                    kind.name(),
                    agreed.1.unwrap_or_default(),
                    agreed.0.name()
                );
                return Err(Error::schema(self.place(column), message));
            }
            if kind != ValueKind::Null {
                agreed = (kind, Some(part.file.name.as_str()));
            }
        }
        Ok(agreed.0)
    }

    /// The row groups in order; every chunk has at least one row.
    pub(super) fn chunks(&self) -> Vec<Chunk> {
        let columns = self.table.encoded().count();
        let mut first_row = 0;
        let mut chunks = Vec::new();
        for (part, file) in self.parts.iter().enumerate() {
            for (row_group, description) in file.metadata.metadata().row_groups().iter().enumerate() {
                let num_rows = usize::try_from(description.num_rows()).unwrap_or(0);
                if num_rows == 0 {
                    continue;
                }
                let row_bytes = usize::try_from(description.total_byte_size()).unwrap_or(0) / num_rows + 1;
                let batch_rows =
                    (BATCH_CELLS / columns).min(BATCH_BYTES / row_bytes).clamp(64, BATCH_ROWS).min(num_rows);
                chunks.push(Chunk { part, row_group, first_row, num_rows, batch_rows });
                first_row += num_rows;
            }
        }
        chunks
    }

    /// Readers over some columns of a row group that yield batches of the same rows, in the order of the columns.
    pub(super) fn readers(&self, chunk: Chunk, columns: &[usize]) -> Result<Vec<Reader<'_>>> {
        columns.chunks(group_len(columns.len())).map(|group| Reader::new(self, chunk, group)).collect()
    }

    /// Runs `visit` over every batch of every row group and column, in parallel.
    ///
    /// `states[i][chunk]` is what `columns[i]` accumulates in one row group; `visit` gets the column, its state, the
    /// row of the batch within the row group and the values. Row groups and columns may be visited in any order, the
    /// batches of one in theirs. Answers the states in their order.
    ///
    /// # Errors
    /// The first error in the order of row groups and columns, for any number of threads.
    pub(super) fn scan<S: Send>(
        &self,
        columns: &[usize],
        states: Vec<Vec<S>>,
        visit: impl Fn(usize, &mut S, usize, &ArrayRef) -> Result<()> + Sync,
    ) -> Result<Vec<Vec<S>>> {
        let group_len = group_len(columns.len());
        let mut states: Vec<_> = states.into_iter().map(Vec::into_iter).collect();
        let mut units = Vec::new();
        for chunk in self.chunks() {
            for (columns, states) in columns.chunks(group_len).zip(states.chunks_mut(group_len)) {
                let own: Vec<S> = states.iter_mut().filter_map(Iterator::next).collect();
                units.push((chunk, columns, own));
            }
        }
        let done: Vec<Result<Vec<S>>> = units
            .into_par_iter()
            .map(|(chunk, columns, mut own)| {
                let mut reader = Reader::new(self, chunk, columns)?;
                let mut row = 0;
                while let Some(batch) = reader.next_batch()? {
                    for ((array, &column), state) in batch.iter().zip(columns).zip(&mut own) {
                        visit(column, state, row, array)?;
                    }
                    row += batch.first().map_or(0, Array::len);
                }
                Ok(own)
            })
            .collect();
        let mut visited: Vec<Vec<S>> = columns.iter().map(|_| Vec::new()).collect();
        for (unit, own) in done.into_iter().enumerate() {
            let first = unit % columns.len().div_ceil(group_len).max(1) * group_len;
            for (offset, state) in own?.into_iter().enumerate() {
                visited[first + offset].push(state);
            }
        }
        Ok(visited)
    }
}

/// Columns per reader.
fn group_len(columns: usize) -> usize {
    columns.div_ceil(MAX_READERS).max(1)
}

impl Part {
    fn open(file: PartFile, table: &TableSchema) -> Result<Self> {
        let place = format!("table `{}`, file `{}`", table.name, file.name);
        let inferred = read_footer(&file, &place)?;
        let fields = inferred.schema().fields();
        if fields.is_empty() {
            return Err(Error::schema(place, "the file has no columns, nothing to encode; remove the table"));
        }
        let names = || fields.iter().map(|field| field.name().as_str());
        let mut roots = Vec::with_capacity(table.columns.len());
        let by_name = first_and_count(names());
        for column in &table.columns {
            roots.push(match by_name.get(column.name.as_str()) {
                Some(&(root, 1)) => column.stype.map(|_| root),
                Some(_) if column.stype.is_none() => None,
                Some((_, times)) => {
                    let message = format!("column `{}` occurs {times} times in the file; rename them", column.name);
                    return Err(Error::schema(place, message));
                }
                None => {
                    let hint = suggestion(&column.name, names());
                    let remedy = "correct its name or remove it from the description";
                    let message = format!("column `{}` is missing in the file{hint}; {remedy}", column.name);
                    return Err(Error::schema(place, message));
                }
            });
        }
        let metadata = with_read_types(&inferred, table, &roots)
            .map_err(|error| Error::schema(place, format!("cannot read the columns: {error}")))?;
        let part = Self { file, metadata, roots };
        part.check_int96(table)?;
        Ok(part)
    }

    /// Refuses INT96 moments that do not fit into microseconds.
    fn check_int96(&self, table: &TableSchema) -> Result<()> {
        for (column, root) in table.columns.iter().zip(&self.roots) {
            let Some(root) = root.filter(|&root| is_int96(&self.metadata, root)) else { continue };
            let place = format!("table `{}`, column `{}`, file `{}`", table.name, column.name, self.file.name);
            let file = File::open(&self.file.path).map_err(|source| Error::io(&self.file.path, source))?;
            let beyond = first_beyond(file, &self.metadata, root).map_err(|error| Error::schema(&place, error))?;
            if let Some(row) = beyond {
                let message = format!("row {row}: a moment beyond the range of microseconds; make it null");
                return Err(Error::schema(place, message));
            }
        }
        Ok(())
    }

    /// Rows, when the row groups add up to what the footer says of the file.
    fn num_rows(&self) -> Option<usize> {
        let footer = self.metadata.metadata();
        let groups = footer.row_groups().iter().map(|group| usize::try_from(group.num_rows()).ok());
        let sum = groups.into_iter().try_fold(0usize, |sum, rows| sum.checked_add(rows?))?;
        (i64::try_from(sum).ok() == Some(footer.file_metadata().num_rows())).then_some(sum)
    }

    /// Compares the rows that the footer claims with what the pages of one column say.
    fn check_pages(&self, table: &TableSchema) -> Result<()> {
        let schema = self.metadata.parquet_schema();
        let is_read = |leaf: usize| self.roots.contains(&Some(schema.get_column_root_idx(leaf)));
        let is_flat = |leaf: usize| schema.column(leaf).max_rep_level() == 0;
        let Some(leaf) = (0..schema.num_columns()).find(|&leaf| is_read(leaf) && is_flat(leaf)) else { return Ok(()) };
        let file = File::open(&self.file.path).map_err(|source| Error::io(&self.file.path, source))?;
        let file = Arc::new(file);
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let claimed = usize::try_from(group.num_rows()).unwrap_or(0);
            let counted = guarded(|| rows_of_pages(&file, group.column(leaf), claimed))
                .unwrap_or_else(|| Err(ParquetError::General("damaged page".into())));
            let found = match counted {
                Ok(rows) if rows == claimed => continue,
                Ok(rows) => format!("the pages of column `{}` hold {rows}", schema.column(leaf).name()),
                Err(error) => format!("the pages of column `{}` cannot be read: {error}", schema.column(leaf).name()),
            };
            let place = format!("table `{}`, file `{}`", table.name, self.file.name);
            let remedy = "the file is damaged; write it again";
            return Err(Error::schema(
                place,
                format!("row group {number} claims {claimed} rows, but {found}; {remedy}"),
            ));
        }
        Ok(())
    }

    /// Warnings about columns of the file that the description does not mention.
    fn undescribed<'a>(&'a self, table: &'a TableSchema) -> impl Iterator<Item = String> + 'a {
        let described: std::collections::HashSet<&str> =
            table.columns.iter().map(|column| column.name.as_str()).collect();
        let fields = self.metadata.schema().fields().iter();
        fields.filter(move |field| !described.contains(field.name().as_str())).map(move |field| {
            format!(
                "table `{}`: column `{}` of file `{}` is not described and left out; describe it, or set its stype to ignored",
                table.name,
                field.name(),
                self.file.name
            )
        })
    }
}

/// Rows of a flat column by the headers of its data pages; stops once there are more than expected.
fn rows_of_pages(file: &Arc<File>, column: &ColumnChunkMetaData, expected: usize) -> Result<usize, ParquetError> {
    let mut pages = SerializedPageReader::new(Arc::clone(file), column, expected, None)?;
    let mut rows = 0usize;
    while let Some(page) = pages.peek_next_page()?
        && rows <= expected
    {
        if !page.is_dict {
            rows = rows.saturating_add(page.num_rows.or(page.num_levels).unwrap_or(0));
        }
        pages.skip_next_page()?;
    }
    Ok(rows)
}

/// The first position of each name and how often it occurs.
fn first_and_count<'a>(names: impl Iterator<Item = &'a str>) -> std::collections::HashMap<&'a str, (usize, usize)> {
    let mut found = std::collections::HashMap::new();
    for (position, name) in names.enumerate() {
        found.entry(name).or_insert((position, 0)).1 += 1;
    }
    found
}

fn read_footer(file: &PartFile, place: &str) -> Result<ArrowReaderMetadata> {
    let opened = File::open(&file.path).map_err(|source| Error::io(&file.path, source))?;
    let load = |skip| {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(skip);
        guarded(|| ArrowReaderMetadata::load(&opened, options))
            .unwrap_or_else(|| Err(ParquetError::General("damaged footer".into())))
    };
    load(false).or_else(|_| load(true)).map_err(|error| {
        let length = opened.metadata().map_or(0, |metadata| metadata.len());
        Error::schema(place, format!("{}: {error}", diagnosis(file, length)))
    })
}

/// What is wrong with a file whose footer cannot be read, and what to do.
fn diagnosis(file: &PartFile, length: u64) -> String {
    let edge = |from_end: i64| -> Option<[u8; 4]> {
        use std::io::{Read, Seek, SeekFrom};
        let mut opened = File::open(&file.path).ok()?;
        opened.seek(if from_end == 0 { SeekFrom::Start(0) } else { SeekFrom::End(-from_end) }).ok()?;
        let mut magic = [0; 4];
        opened.read_exact(&mut magic).ok()?;
        Some(magic)
    };
    match (length, edge(0), edge(4)) {
        (0, ..) => "the file is empty (0 bytes); write it again".into(),
        (_, Some(magic), _) | (_, _, Some(magic)) if magic == *b"PARE" => {
            "the parquet file is encrypted; write it without encryption".into()
        }
        (_, Some(head), Some(tail)) if head == *b"PAR1" && tail != *b"PAR1" => {
            "the parquet file is cut off; write it again".into()
        }
        (_, Some(head), _) if head != *b"PAR1" => {
            "not a parquet file; convert it to parquet, or name another file".into()
        }
        _ => "the parquet file is damaged; write it again".into(),
    }
}

/// The types columns are read as: strings as views, or as dictionaries where they are categories.
fn with_read_types(
    inferred: &ArrowReaderMetadata,
    table: &TableSchema,
    roots: &[Option<usize>],
) -> parquet::errors::Result<ArrowReaderMetadata> {
    let columns = table.columns.iter().zip(roots).filter_map(|(column, root)| Some((column, (*root)?)));
    let types = columns.map(|(column, root)| {
        let inferred_type = inferred.schema().field(root).data_type();
        (root, read_type(table, column, inferred_type, is_int96(inferred, root)))
    });
    with_types(inferred, types)
}

fn is_int96(metadata: &ArrowReaderMetadata, root: usize) -> bool {
    let field = &metadata.parquet_schema().root_schema().get_fields()[root];
    field.is_primitive() && field.get_physical_type() == PhysicalType::INT96
}

/// The same file, with some columns (by their position in it) read as other types.
pub(super) fn with_types(
    metadata: &ArrowReaderMetadata,
    types: impl IntoIterator<Item = (usize, DataType)>,
) -> parquet::errors::Result<ArrowReaderMetadata> {
    let mut fields: Vec<Arc<Field>> = metadata.schema().fields().iter().cloned().collect();
    for (root, data_type) in types {
        fields[root] = Arc::new(fields[root].as_ref().clone().with_data_type(data_type));
    }
    let schema = Arc::new(arrow_schema::Schema::new_with_metadata(fields, metadata.schema().metadata().clone()));
    ArrowReaderMetadata::try_new(metadata.metadata().clone(), ArrowReaderOptions::new().with_schema(schema))
}

fn read_type(table: &TableSchema, column: &ColumnSchema, inferred: &DataType, is_int96: bool) -> DataType {
    let is_key = column.foreign_key.is_some() || column.may_be_list || table.primary_key.as_ref() == Some(&column.name);
    match inferred {
        _ if is_int96 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Dictionary(_, value) => read_type(table, column, value, false),
        DataType::List(field) if column.may_be_list => DataType::List(read_element(table, column, field)),
        DataType::LargeList(field) if column.may_be_list => DataType::LargeList(read_element(table, column, field)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => match column.stype {
            Some(Stype::Categorical) => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            _ => DataType::Utf8View,
        },
        // Strings without their annotation, as some writers leave them. The parquet crate would not check that they are
        // UTF-8, so they stay bytes here and are checked cell by cell.
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
            if is_key || column.stype != Some(Stype::Identifier) =>
        {
            DataType::BinaryView
        }
        other => other.clone(),
    }
}

fn read_element(table: &TableSchema, column: &ColumnSchema, field: &Field) -> Arc<Field> {
    Arc::new(field.clone().with_data_type(read_type(table, column, field.data_type(), false)))
}

/// What the lists of a type hold; `None` where it is none.
pub(super) fn element(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) => Some(field.data_type()),
        _ => None,
    }
}

/// Reads some columns of one row group.
pub(super) struct Reader<'a> {
    source: &'a TableSource<'a>,
    chunk: Chunk,
    inner: ParquetRecordBatchReader,
    columns: Vec<usize>,
    /// The position in a batch of each column; batches come in the order of the file.
    order: Vec<usize>,
    rows_left: usize,
}

impl<'a> Reader<'a> {
    fn new(source: &'a TableSource<'a>, chunk: Chunk, columns: &[usize]) -> Result<Self> {
        let part = &source.parts[chunk.part];
        let roots: Vec<usize> = columns.iter().filter_map(|&column| part.roots[column]).collect();
        let mut sorted = roots.clone();
        sorted.sort_unstable();
        let order = roots.iter().map(|root| sorted.partition_point(|other| other < root)).collect();
        let file = File::open(&part.file.path).map_err(|source| Error::io(&part.file.path, source))?;
        let mask = ProjectionMask::roots(part.metadata.parquet_schema(), roots);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, part.metadata.clone())
            .with_row_groups(vec![chunk.row_group])
            .with_projection(mask)
            .with_batch_size(chunk.batch_rows);
        let inner = guarded(|| builder.build())
            .unwrap_or_else(|| Err(ParquetError::General("damaged description".into())))
            .map_err(|error| damaged(source, chunk, columns[0], &error.to_string()))?;
        Ok(Self { source, chunk, inner, columns: columns.to_vec(), order, rows_left: chunk.num_rows })
    }

    /// The columns of a batch, positions in the description.
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The next rows, one array per column, or `None` after the last.
    pub(super) fn next_batch(&mut self) -> Result<Option<Vec<ArrayRef>>> {
        let expected = self.rows_left.min(self.chunk.batch_rows);
        let next = guarded(|| self.inner.next())
            .unwrap_or_else(|| Some(Err(arrow_schema::ArrowError::ParquetError("damaged page".into()))));
        match next {
            None if expected == 0 => Ok(None),
            Some(Ok(batch)) if expected > 0 && batch.num_rows() == expected => {
                self.rows_left -= expected;
                Ok(Some(self.order.iter().map(|&position| Arc::clone(batch.column(position))).collect()))
            }
            Some(Err(error)) => Err(self.blame(&error.to_string())),
            Some(Ok(_)) | None => Err(self.blame("the pages hold another number of rows than the footer says")),
        }
    }

    /// The error, with the name of the column that caused it.
    fn blame(&self, error: &str) -> Error {
        let is_faulty = |column: &&usize| {
            let read_alone = || -> Result<()> {
                let mut reader = Self::new(self.source, self.chunk, &[**column])?;
                while reader.next_batch()?.is_some() {}
                Ok(())
            };
            read_alone().is_err()
        };
        let column = match self.columns.as_slice() {
            [column] => *column,
            columns => *columns.iter().find(is_faulty).unwrap_or(&columns[0]),
        };
        damaged(self.source, self.chunk, column, error)
    }
}

fn damaged(source: &TableSource<'_>, chunk: Chunk, column: usize, error: &str) -> Error {
    let place = format!("{}, file `{}`", source.place(column), source.parts[chunk.part].file.name);
    let remedy = "the file is damaged or holds other values than its schema says; write it again";
    Error::schema(place, format!("cannot read row group {}: {error}; {remedy}", chunk.row_group))
}
