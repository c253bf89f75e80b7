//! A processed database at a glance: plain data, ready to be printed, drawn or sent to a machine.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use super::binning::Histogram;
use super::column::{ColumnFindings, TopValues};
use super::fan_out::FanOut;
use super::files::{self, FileKindSize};
use super::scan::{Findings, Scan};
use super::task::{self, TaskSummary};
use crate::database::Database;
use crate::error::Result;
use crate::manifest::{ColumnManifest, ColumnStatistics, ForeignKeyManifest, TableManifest, VocabularyManifest};
use crate::stype::Stype;
use crate::timestamp;

/// A processed database at a glance.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Rows of each table.
    pub rows: IndexMap<String, u32>,
    /// Edges of each foreign key, by `table.column`.
    pub edges: IndexMap<String, u64>,
    /// The user's name of the database.
    pub name: String,
    /// Identity of the encoded content.
    pub build_id: String,
    /// The version of the format.
    pub format_version: u32,
    /// Tables in the order of their ids.
    pub tables: Vec<TableSummary>,
    /// Tasks in the order of their ids.
    pub tasks: Vec<TaskSummary>,
    /// Rows from this time on do not count in the statistics of columns; `None`: all rows count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_until: Option<String>,
    /// Sizes of the vocabulary.
    pub vocabulary: VocabularyManifest,
    /// Texts of the vocabulary.
    pub num_texts: u32,
    /// What made the vectors.
    pub embedder: Option<Value>,
    /// Bytes of every file.
    pub files: BTreeMap<String, u64>,
    /// Bytes of every kind of file, the largest first.
    pub sizes: Vec<FileKindSize>,
    /// What preprocessing had to tell the user.
    pub warnings: Vec<String>,
}

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct TableSummary {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What the user says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Number of rows.
    pub num_rows: u32,
    /// Rows that were read for histograms and fan-outs; fewer than there are in a sample.
    pub rows_read: u64,
    /// Its primary key column.
    pub primary_key: Option<String>,
    /// The column that says when a row came into being.
    pub temporal_column: Option<String>,
    /// Earliest and latest time of a row.
    pub time_range: Option<[String; 2]>,
    /// Rows without a time, which no seed sees.
    pub num_never_visible: u32,
    /// Bytes of its packed file.
    pub bytes: u64,
    /// Encoded columns.
    pub columns: Vec<ColumnSummary>,
    /// Foreign keys.
    pub foreign_keys: Vec<ForeignKeySummary>,
}

/// One column.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnSummary {
    /// Its number over the whole database.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its semantic type.
    pub stype: Stype,
    /// What the user says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What was counted while it was encoded.
    pub statistics: ColumnStatistics,
    /// How its numbers or moments are spread over the rows that were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// The most frequent values in the rows that were read; left out where too many values differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<TopValues>,
}

/// One foreign key.
#[derive(Clone, Debug, Serialize)]
pub struct ForeignKeySummary {
    /// Its number over the whole database.
    pub id: u32,
    /// The column that holds it.
    pub column: String,
    /// The table it points to.
    pub parent_table: String,
    /// Rows whose key names an existing parent.
    pub edges: u64,
    /// Rows whose key names no existing parent.
    pub dangling: u64,
    /// Rows without a key.
    pub null: u64,
    /// The most children a parent has.
    pub max_children: u64,
    /// Children per parent, parents without children included.
    pub mean_children: f64,
    /// Parents without children; `None` where only a sample of the parents was read.
    pub childless_parents: Option<u64>,
    /// How many children the parents that were read have.
    pub fan_out: FanOut,
}

impl TableSummary {
    /// Whether histograms and fan-outs stand on a sample of the rows.
    pub fn is_sample(&self) -> bool {
        self.rows_read < u64::from(self.num_rows)
    }
}

impl Summary {
    /// Reads what there is to say of a database: every row of tables of up to 256 MiB, a sample of larger ones
    /// unless `is_full`.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when a file turns out to be damaged.
    pub fn of(database: &Database, is_full: bool) -> Result<Self> {
        let scan = if is_full { Scan::FULL } else { Scan::OVERVIEW };
        let manifest = database.manifest();
        let found = manifest.tables.iter().map(|table| scan.run(database, table)).collect::<Result<Vec<_>>>()?;
        let bytes: BTreeMap<String, u64> =
            manifest.files.iter().map(|(name, file)| (name.clone(), file.bytes)).collect();
        let fan_out = |key: &ForeignKeyManifest| fan_out_of(database, key, &found[key.parent_table.idx()]);
        let tables = manifest.tables.iter().zip(&found);
        Ok(Self {
            rows: manifest.tables.iter().map(|table| (table.name.clone(), table.num_rows)).collect(),
            edges: manifest
                .foreign_keys()
                .map(|(table, key)| (format!("{}.{}", table.name, key.column), key.edges))
                .collect(),
            name: manifest.name.clone(),
            build_id: manifest.build_id.clone(),
            format_version: manifest.format_version,
            tables: tables.map(|(table, found)| table_summary(table, found, &bytes, fan_out, database)).collect(),
            tasks: manifest.tasks.iter().map(|task| task::summarise(database, task)).collect(),
            stats_until: manifest.stats_until_us.map(timestamp::format),
            vocabulary: manifest.vocabulary,
            num_texts: manifest.vocabulary.num_texts,
            embedder: manifest.embedder.clone(),
            warnings: manifest
                .warnings
                .iter()
                .chain(manifest.tasks.iter().flat_map(|task| &task.warnings))
                .cloned()
                .collect(),
            sizes: files::kinds(database, &bytes),
            files: bytes,
        })
    }
}

/// One table alone, every row read, with the foreign keys that point to it as (table, key).
pub(super) fn one_table(
    database: &Database,
    table: &TableManifest,
) -> Result<(TableSummary, Vec<(String, ForeignKeySummary)>)> {
    let manifest = database.manifest();
    let found = Scan::FULL.run(database, table)?;
    let bytes = manifest.files.iter().map(|(name, file)| (name.clone(), file.bytes)).collect();
    let mut parents = BTreeMap::new();
    for key in &table.foreign_keys {
        let parent = &manifest.tables[key.parent_table.idx()];
        if parent.id != table.id && !parents.contains_key(&parent.id) {
            parents.insert(parent.id, Scan { columns: Some(0..0), ..Scan::FULL }.run(database, parent)?);
        }
    }
    let of = |key: &ForeignKeyManifest| fan_out_of(database, key, parents.get(&key.parent_table).unwrap_or(&found));
    let summary = table_summary(table, &found, &bytes, of, database);
    let incoming = manifest
        .foreign_keys()
        .filter(|(_, key)| key.parent_table == table.id)
        .map(|(child, key)| (child.name.clone(), key_summary(database, key, fan_out_of(database, key, &found), true)));
    Ok((summary, incoming.collect()))
}

fn fan_out_of(database: &Database, key: &ForeignKeyManifest, parents: &Findings) -> FanOut {
    let mut incoming = database.manifest().children_of(key.parent_table);
    let slot = incoming.position(|id| id == key.id).expect("a foreign key is among those that point to its parent");
    parents.fan_outs[slot].clone()
}

fn table_summary(
    table: &TableManifest,
    found: &Findings,
    bytes: &BTreeMap<String, u64>,
    fan_out: impl Fn(&ForeignKeyManifest) -> FanOut,
    database: &Database,
) -> TableSummary {
    let is_complete = found.rows_read == u64::from(table.num_rows);
    let temporal = table.columns.iter().find(|column| table.temporal_column.as_ref() == Some(&column.name));
    let statistics = temporal.map(|column| &column.statistics);
    let listed = statistics.and_then(|statistics| statistics.min_us.zip(statistics.max_us));
    let null_times = statistics.filter(|_| !table.null_time_visible).map_or(0, |statistics| statistics.nulls as u32);
    let keys = table.foreign_keys.iter().map(|key| {
        let parents = &database.manifest().tables[key.parent_table.idx()];
        let fan_out = fan_out(key);
        let is_complete = fan_out.parents == u64::from(parents.num_rows);
        key_summary(database, key, fan_out, is_complete)
    });
    TableSummary {
        id: table.id.0,
        name: table.name.clone(),
        description: table.description.clone(),
        num_rows: table.num_rows,
        rows_read: found.rows_read,
        primary_key: table.primary_key.clone(),
        temporal_column: table.temporal_column.clone(),
        time_range: if is_complete { found.times } else { listed }.map(range),
        num_never_visible: if is_complete { found.never_visible as u32 } else { null_times },
        bytes: bytes.get(&table.file).copied().unwrap_or_default(),
        columns: table.columns.iter().zip(&found.columns).map(column_summary).collect(),
        foreign_keys: keys.collect(),
    }
}

pub(super) fn column_summary((column, found): (&ColumnManifest, &ColumnFindings)) -> ColumnSummary {
    ColumnSummary {
        id: column.id.0,
        name: column.name.clone(),
        stype: column.stype,
        description: column.description.clone(),
        statistics: column.statistics.clone(),
        histogram: found.histogram.clone(),
        top: found.top.clone(),
    }
}

fn key_summary(database: &Database, key: &ForeignKeyManifest, fan_out: FanOut, is_complete: bool) -> ForeignKeySummary {
    let parents = &database.manifest().tables[key.parent_table.idx()];
    ForeignKeySummary {
        id: key.id.0,
        column: key.column.clone(),
        parent_table: parents.name.clone(),
        edges: key.edges,
        dangling: key.dangling,
        null: key.null,
        max_children: key.max_children,
        mean_children: if parents.num_rows == 0 { 0.0 } else { key.edges as f64 / f64::from(parents.num_rows) },
        childless_parents: is_complete.then_some(fan_out.childless),
        fan_out,
    }
}

fn range((first, last): (i64, i64)) -> [String; 2] {
    [timestamp::format(first), timestamp::format(last)]
}
