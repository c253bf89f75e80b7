//! What the encode stage would read and make, without making it: rows, sizes, and every distinct text.

use std::path::Path;

use arrow_array::{Array, ArrayRef};
use rayon::prelude::*;
use serde::Serialize;

use super::decode::{categories, texts};
use super::link::bad_cell;
use super::memory::Memory;
use super::source::TableSource;
use super::vocabulary::{BatchTexts, Vocabulary};
use super::{EncodeOptions, Progress, open_sources, pool, read_schema};
use crate::error::{Error, Result};
use crate::schema::Schema;
use crate::stype::Stype;

/// What the encode stage would read and make.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    /// Tables in the order of their ids.
    pub tables: Vec<TableSurvey>,
    /// Distinct texts and categories of the tables.
    pub num_texts: u32,
    /// About as many bytes their vocabulary file takes.
    pub text_bytes: u64,
    /// About as many bytes the file of links takes.
    pub graph_bytes: u64,
    /// What the user should know of the files.
    pub warnings: Vec<String>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableSurvey {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub num_rows: u64,
    /// Columns that are not ignored.
    pub num_columns: usize,
    /// Bytes of its parquet files.
    pub input_bytes: u64,
    /// About as many bytes as its packed file takes.
    pub output_bytes: u64,
}

/// About as many bytes a primary key and its place in the order of keys take.
const KEY_BYTES: u64 = 5;
/// About as many bytes the time of a row takes.
const TIME_BYTES: u64 = 2;

/// Reads footers, and with `count_texts` the columns of texts; answers the survey and the texts in the order of their
/// vocabulary ids.
///
/// # Errors
/// As [`super::encode`], as far as footers and texts tell.
pub fn survey(
    input: &Path,
    options: &EncodeOptions,
    count_texts: bool,
    progress: Progress<'_>,
) -> Result<(Survey, Vec<String>)> {
    let schema = read_schema(input, options)?;
    pool(options.threads)?.install(|| survey_in_pool(input, &schema, count_texts, progress))
}

fn survey_in_pool(
    input: &Path,
    schema: &Schema,
    count_texts: bool,
    progress: Progress<'_>,
) -> Result<(Survey, Vec<String>)> {
    let mut warnings = Vec::new();
    let sources = open_sources(input, schema, &mut warnings)?;
    let tables = (0..sources.len()).map(|id| table(schema, id, &sources)).collect::<Result<_>>()?;
    let mut vocabulary = Vocabulary::new(&Memory::unlimited())?;
    for source in sources.iter().filter(|_| count_texts) {
        take_texts(source, &mut vocabulary, progress)?;
    }
    let mut graph_bytes = 0;
    for source in &sources {
        let keys = source.table.columns.iter().filter(|column| column.foreign_key.is_some()).count() as u64;
        graph_bytes += keys * source.num_rows as u64 * (width(source.num_rows) + TIME_BYTES);
    }
    let mut text = Vec::new();
    let copied = (0..vocabulary.len()).map(|id| {
        vocabulary.copy(id, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let texts: Vec<String> = copied.collect();
    // texts are compressed to about half
    let text_bytes = texts.iter().map(|text| text.len() as u64 + 4).sum::<u64>() / 2;
    Ok((Survey { tables, num_texts: texts.len() as u32, text_bytes, graph_bytes, warnings }, texts))
}

fn table(schema: &Schema, id: usize, sources: &[TableSource<'_>]) -> Result<TableSurvey> {
    let source = &sources[id];
    let described = source.table;
    let cells: u64 = described.encoded().map(|(_, stype)| cell_bytes(stype)).sum();
    let own_keys = described.columns.iter().filter_map(|column| column.foreign_key);
    let parents: u64 = own_keys.map(|parent| width(sources[parent.idx()].num_rows)).sum();
    let children = schema.tables.iter().zip(sources).flat_map(|(table, child)| {
        let keys = table.columns.iter().filter_map(|column| column.foreign_key);
        keys.filter(|parent| parent.idx() == id).map(|_| width(child.num_rows) + 1)
    });
    let row_bytes = TIME_BYTES + cells + parents + children.sum::<u64>();
    let key_bytes = if described.primary_key.is_some() { KEY_BYTES } else { 0 };
    let mut input_bytes = 0;
    for file in source.files() {
        input_bytes += std::fs::metadata(&file.path).map_err(|fault| Error::io(&file.path, fault))?.len();
    }
    Ok(TableSurvey {
        name: described.name.clone(),
        num_rows: source.num_rows as u64,
        num_columns: described.encoded().count(),
        input_bytes,
        output_bytes: source.num_rows as u64 * (row_bytes + key_bytes),
    })
}

/// About as many bytes a cell takes; what it takes exactly depends on the values.
fn cell_bytes(stype: Stype) -> u64 {
    match stype {
        Stype::Identifier | Stype::Boolean => 0,
        Stype::Categorical => 1,
        Stype::Numerical | Stype::Timestamp | Stype::Text => 3,
    }
}

/// Bytes that hold every number below `count`.
fn width(count: usize) -> u64 {
    u64::from(usize::BITS - count.leading_zeros()).div_ceil(8)
}

/// Takes the texts of a table into the vocabulary, in the order of the encode stage.
fn take_texts(source: &TableSource<'_>, vocabulary: &mut Vocabulary, progress: Progress<'_>) -> Result<()> {
    let described = &source.table.columns;
    let is_text = |column: &usize| matches!(described[*column].stype, Some(Stype::Categorical | Stype::Text));
    let columns: Vec<usize> = (0..described.len()).filter(is_text).collect();
    let total = source.num_rows as u64;
    progress(&source.table.name, 0, total)?;
    for chunk in source.chunks().into_iter().filter(|_| !columns.is_empty()) {
        let mut readers = source.readers(chunk, &columns)?;
        let mut row = chunk.first_row;
        while row < chunk.first_row + chunk.num_rows {
            let decoded: Vec<Result<(usize, Vec<BatchTexts>)>> = readers
                .par_iter_mut()
                .map(|reader| {
                    let arrays = reader.next_batch()?.unwrap_or_default();
                    let columns = reader.columns();
                    let own = arrays.iter().zip(columns).map(|(array, &column)| texts_of(source, column, row, array));
                    Ok((arrays.first().map_or(0, Array::len), own.collect::<Result<_>>()?))
                })
                .collect();
            let mut rows = 0;
            for reader in decoded {
                let (num_rows, batches) = reader?;
                rows = num_rows;
                for batch in batches {
                    vocabulary.adopt(&batch)?;
                }
            }
            if rows == 0 {
                break;
            }
            row += rows;
            progress(&source.table.name, row as u64, total)?;
        }
    }
    progress(&source.table.name, total, total)
}

fn texts_of(source: &TableSource<'_>, column: usize, first_row: usize, array: &ArrayRef) -> Result<BatchTexts> {
    let description = &source.table.columns[column];
    let fault = |cell| bad_cell(source, column, first_row, &cell);
    if description.stype == Some(Stype::Text) {
        return texts(array).map_err(fault);
    }
    Ok(categories(array, &description.name).map_err(fault)?.0)
}
