//! Parquet tables and `metadata.json` -> the files of a processed database.
//!
//! The encode stage runs in this order: open and check the files, index the primary keys, read the times, resolve the
//! foreign keys, measure the numbers, write the graph, then the rows of every table, then the vocabulary. Memory holds
//! keys, links, times and distinct texts up to a limit, beyond which they lie in scratch files, and of the cells only a
//! block at a time. The output depends on the input alone: work is divided by row group, column and block, and merged
//! in their order.

mod anchors;
mod decode;
mod encodings;
mod files;
mod fingerprint;
mod graph;
mod int96;
mod keys;
mod kind;
mod labels;
mod link;
mod memory;
mod places;
mod preview;
mod publish;
mod records;
mod report;
mod seeds;
mod slots;
mod source;
mod spool;
mod staged;
mod stats;
mod summary;
mod survey;
mod targets;
mod task_file;
mod tasks;
mod vocabulary;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::graph::{ChildLists, Holder};
use self::keys::KeyIndex;
use self::link::{ParentRows, RowTimes, Times};
use self::memory::{Buffer, Memory};
use self::records::{TablePlan, Written};
use self::report::Found;
use self::source::TableSource;
use self::stats::Moments;
use self::summary::Summaries;
use self::vocabulary::Vocabulary;
use crate::database::VOCABULARY_FILE;
use crate::error::{Error, Result};
use crate::format::packed::TimeCodes;
use crate::format::record::{ALWAYS_VISIBLE, NEVER_VISIBLE};
use crate::format::{FileKind, FileWriter};
use crate::manifest::{TableManifest, TimeStatistics};
use crate::schema::{Schema, file_stem};
use crate::stype::Stype;

pub use self::places::{TextPlace, text_places};
pub use self::publish::{publish, write_embeddings};
pub use self::staged::{column_phrases, order_tasks, staged_manifest, vocab_texts};
pub use self::survey::{Survey, TableSurvey, survey};
pub use self::tasks::{TaskReport, write_task};

/// What the encode stage leaves in staging for the later stages.
pub const ENCODE_FILE: &str = "encode.json";

/// Choices of the encode stage.
#[derive(Clone, Debug, Default)]
pub struct EncodeOptions {
    /// The description, when it is not `metadata.json` in the input folder.
    pub metadata: Option<PathBuf>,
    /// Worker threads; 0 takes one per core. The output does not depend on it.
    pub threads: usize,
    /// A dangling foreign key is an error instead of a counted row without an edge.
    pub strict: bool,
    /// Means and deviations come only from rows before this time, microseconds; rows of tables without times count.
    pub stats_until: Option<i64>,
    /// Bytes of keys, links, times and texts on the heap, beyond which they go to scratch files in the staging folder;
    /// `None` takes a quarter of the memory that is available. The output does not depend on it.
    pub memory: Option<u64>,
}

/// What the encode stage made, kept in [`ENCODE_FILE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeReport {
    /// The user's name of the database.
    pub name: String,
    /// Identity of the encoded content, 16 hex digits.
    pub build_id: String,
    /// Tables in the order of their ids.
    pub tables: Vec<TableManifest>,
    /// Statistics over every timestamp of the database.
    pub time: TimeStatistics,
    /// Rows from this time on do not count in the statistics of columns, microseconds; `None`: all rows count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_until_us: Option<i64>,
    /// Texts in `vocab.bin`.
    pub num_encoded: u32,
    /// What the user should know, in the order found.
    pub warnings: Vec<String>,
}

/// Told of a table's name, its rows done and its rows in total from time to time; an error ends the stage.
pub type Progress<'a> = &'a (dyn Fn(&str, u64, u64) -> Result<()> + Sync);

/// Encodes the tables in `input` into the files of a processed database in `staging`, an empty folder.
///
/// # Errors
/// [`Error::Schema`] when description and data are not what they should be; [`Error::Io`] when a file cannot be read
/// or written; whatever `progress` answers.
pub fn encode(input: &Path, staging: &Path, options: &EncodeOptions, progress: Progress<'_>) -> Result<EncodeReport> {
    let schema = read_schema(input, options)?;
    pool(options.threads)?.install(|| encode_in_pool(input, staging, &schema, options, progress))
}

/// Digest, in hex, of all that the encode stage depends on; its first 16 digits are the build id.
///
/// # Errors
/// As [`encode`], as far as description and footers tell.
pub fn encode_fingerprint(input: &Path, options: &EncodeOptions) -> Result<String> {
    let schema = read_schema(input, options)?;
    pool(options.threads)?.install(|| fingerprint::fingerprint(input, &schema, options))
}

fn read_schema(input: &Path, options: &EncodeOptions) -> Result<Schema> {
    Schema::read(options.metadata.as_deref().unwrap_or(input))
}

fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.build().map_err(|error| Error::Argument(format!("cannot start {threads} threads: {error}")))
}

/// Everything about a table that is known before its rows are written.
struct Table<'a> {
    source: TableSource<'a>,
    key: Option<KeyIndex>,
    times: RowTimes,
    parents: Vec<ParentRows>,
    summaries: Summaries,
    /// How the times of the rows are numbered, once they are.
    codes: TimeCodes,
    /// The number of each row's time, which then replaces it; empty where the table has no times.
    time_codes: Buffer<u64>,
}

impl Table<'_> {
    /// Replaces the times of the rows by their numbers.
    fn number_times(&mut self) {
        let Times::Each(times) = std::mem::replace(&mut self.times.times, Times::None) else { return };
        let described = self.source.table;
        let temporal =
            described.columns.iter().position(|column| described.temporal_column.as_ref() == Some(&column.name));
        let Some(column) = temporal else { return };
        let visible = if described.null_time_visible { ALWAYS_VISIBLE } else { NEVER_VISIBLE };
        let null_time = (self.times.nulls > 0).then_some(visible);
        self.codes = TimeCodes::new(self.summaries.columns[column].and_then(|summary| summary.grid), null_time);
        if self.codes.width > 0 {
            let code = self.codes.coder();
            let number = |time: i64| code(if time == decode::NO_TIME { visible } else { time });
            self.time_codes = times.into_numbers(number);
            self.time_codes.release_pages();
        }
    }

    fn holder(&self) -> Holder<'_> {
        Holder { num_rows: self.source.num_rows, codes: self.codes, times: &self.time_codes, keys: &self.parents }
    }

    /// Gives the memory of times and parents back, once the rows are written.
    fn forget_links(&mut self) {
        self.time_codes = Buffer::default();
        self.parents.iter_mut().for_each(ParentRows::forget);
    }
}

fn encode_in_pool(
    input: &Path,
    staging: &Path,
    schema: &Schema,
    options: &EncodeOptions,
    progress: Progress<'_>,
) -> Result<EncodeReport> {
    let fingerprint = fingerprint::fingerprint(input, schema, options)?;
    let build_id = fingerprint[..16].to_owned();
    let build = u64::from_str_radix(&build_id, 16).map_err(|error| Error::Argument(error.to_string()))?;

    let mut warnings = Vec::new();
    let sources = open_sources(input, schema, &mut warnings)?;
    let memory = Memory::new(staging, options.memory);
    let mut tables = read_keys_and_times(sources, &memory, progress)?;
    link(&mut tables, options.strict, &memory)?;
    for table in &mut tables {
        let most_numbers = records::most_distinct(table.source.num_rows);
        table.summaries = summary::summarise(&table.source, &table.times, options.stats_until, most_numbers)?;
        table.number_times();
    }
    let holders: Vec<Holder<'_>> = tables.iter().map(Table::holder).collect();
    let children = graph::write_graph(staging, build, &holders, &memory)?;
    let place = (staging, build);
    let (written, key_kinds, num_encoded) = write_tables(place, &mut tables, &children, &memory, progress)?;

    let found = Found { schema, tables: &tables, written: &written, children: &children, key_kinds: &key_kinds };
    warnings.extend(found.warnings());
    let time = time_statistics(&tables);
    let report = EncodeReport {
        name: schema.name.clone(),
        build_id,
        tables: found.tables(),
        time,
        stats_until_us: options.stats_until,
        num_encoded,
        warnings,
    };
    let path = staging.join(ENCODE_FILE);
    let text = serde_json::to_string_pretty(&report).map_err(|error| Error::io(&path, error.into()))?;
    std::fs::write(&path, text).map_err(|source| Error::io(&path, source))?;
    Ok(report)
}

fn open_sources<'a>(input: &Path, schema: &'a Schema, warnings: &mut Vec<String>) -> Result<Vec<TableSource<'a>>> {
    let open = |table| TableSource::open(input, table, warnings);
    let sources: Vec<TableSource<'a>> = schema.tables.iter().map(open).collect::<Result<_>>()?;
    let used = sources.iter().flat_map(TableSource::files).map(|file| file.name.clone()).collect();
    let unlisted = files::unlisted(input, schema, &used)?;
    warnings.extend(unlisted.into_iter().map(|name| format!("file `{name}` belongs to no table and is left out")));
    Ok(sources)
}

fn read_keys_and_times<'a>(
    sources: Vec<TableSource<'a>>,
    memory: &Memory,
    progress: Progress<'_>,
) -> Result<Vec<Table<'a>>> {
    let read = |source: TableSource<'a>| {
        progress(&source.table.name, 0, source.num_rows as u64)?;
        let columns = &source.table.columns;
        let key = source.table.primary_key.as_ref().and_then(|key| columns.iter().position(|c| c.name == *key));
        let key = key.map(|column| KeyIndex::build(&source, column, memory)).transpose()?;
        key.iter().for_each(KeyIndex::release_pages);
        let times = link::read_times(&source, memory)?;
        let (summaries, codes) = (Summaries::default(), TimeCodes::NONE);
        Ok(Table { source, key, times, parents: Vec::new(), summaries, codes, time_codes: Buffer::default() })
    };
    let tables: Vec<Result<Table<'a>>> = sources.into_par_iter().map(read).collect();
    tables.into_iter().collect()
}

/// Resolves every foreign key, in the order of their ids.
fn link(tables: &mut [Table<'_>], strict: bool, memory: &Memory) -> Result<()> {
    let keys: Vec<(usize, usize, usize)> = tables
        .iter()
        .enumerate()
        .flat_map(|(child, table)| {
            let columns = table.source.table.columns.iter().enumerate();
            columns.filter_map(move |(column, description)| Some((child, column, description.foreign_key?.idx())))
        })
        .collect();
    let resolve = |&(child, column, parent): &(usize, usize, usize)| {
        let (child, parent_id, parent) = (&tables[child].source, parent.into(), &tables[parent]);
        let missing = || Error::schema(child.place(column), "the parent table has no primary key");
        let index = parent.key.as_ref().ok_or_else(missing)?;
        link::resolve(child, column, parent_id, &parent.source, index, memory)
    };
    let resolved: Vec<Result<ParentRows>> = keys.par_iter().map(resolve).collect();
    for (&(child, column, parent), rows) in keys.iter().zip(resolved) {
        let rows = rows?;
        if strict && !rows.dangling.is_empty() {
            let message = report::dangling(&rows, tables[child].source.num_rows, tables[parent].source.table);
            let remedy = "correct the keys, or run without --strict to leave these rows without an edge";
            return Err(Error::schema(tables[child].source.place(column), format!("{message}; {remedy}")));
        }
        tables[child].parents.push(rows);
    }
    Ok(())
}

/// Writes the files of all tables and the vocabulary; answers what was found per table, how keys are stored, and the
/// number of texts.
fn write_tables(
    place: (&Path, u64),
    tables: &mut [Table<'_>],
    lists: &[ChildLists],
    memory: &Memory,
    progress: Progress<'_>,
) -> Result<(Vec<Written>, Vec<crate::manifest::KeyKind>, u32)> {
    let num_rows: Vec<u32> = tables.iter().map(|table| table.source.num_rows as u32).collect();
    let parents_of_keys: Vec<usize> =
        tables.iter().flat_map(|table| &table.parents).map(|parents| parents.parent.idx()).collect();
    let (staging, build) = place;
    let mut vocabulary = Vocabulary::new(memory)?;
    let (mut written, mut key_kinds) = (Vec::new(), Vec::new());
    for (id, table) in tables.iter_mut().enumerate() {
        let key = table.key.take();
        key_kinds.push(key.as_ref().map_or(crate::manifest::KeyKind::None, KeyIndex::key_kind));
        let children = parents_of_keys.iter().zip(lists).filter(|(parent, _)| **parent == id);
        let plan = TablePlan {
            source: &table.source,
            codes: table.codes,
            times: &table.time_codes,
            has_null_times: table.times.nulls > 0,
            parents: &table.parents,
            parent_rows: table.parents.iter().map(|parents| num_rows[parents.parent.idx()]).collect(),
            children: children.map(|(_, lists)| lists).collect(),
            summaries: &table.summaries,
        };
        let file = table_file(&table.source.table.name);
        written.push(records::write_table(&plan, key, &mut vocabulary, (staging, &file, build), memory, progress)?);
        table.forget_links();
    }
    let mut writer = FileWriter::create(staging, VOCABULARY_FILE, FileKind::Vocabulary, build, 2)?;
    vocabulary.write(&mut writer)?;
    writer.finish()?;
    Ok((written, key_kinds, vocabulary.len() as u32))
}

/// The path of a table's file within the database.
fn table_file(name: &str) -> String {
    format!("tables/{}.bin", file_stem(name))
}

/// Statistics over all timestamp columns, in the order of their ids.
fn time_statistics(tables: &[Table<'_>]) -> TimeStatistics {
    let timestamps = tables.iter().flat_map(|table| {
        let columns = table.source.table.columns.iter().zip(&table.summaries.columns);
        columns.filter(|(column, _)| column.stype == Some(Stype::Timestamp)).filter_map(|(_, summary)| *summary)
    });
    let all = timestamps.map(|summary| summary.moments).fold(Moments::EMPTY, Moments::merge);
    TimeStatistics { mean_us: all.mean(), std_us: all.std() }
}
