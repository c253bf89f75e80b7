//! What a person wants to see of a processed database: tables, columns, keys, tasks, and single rows decoded.
//!
//! [`Summary`] is plain data for machines and [`Summary::render`] the same for people; [`row`] turns one packed row
//! back into the user's values. Nothing here decides what a model may see.

mod render;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Value, json};

use crate::database::{Database, Key};
use crate::error::{Error, Result};
use crate::format::record::{ALWAYS_VISIBLE, Cell, NEVER_VISIBLE};
use crate::ids::{RowId, TableId};
use crate::manifest::{
    ColumnManifest, ColumnStatistics, ForeignKeyManifest, LabelStatistics, SPLITS, SplitCounts, TableManifest,
    TaskKind, TaskManifest, VocabularyManifest,
};
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
    /// Sizes of the vocabulary.
    pub vocabulary: VocabularyManifest,
    /// What made the vectors.
    pub embedder: Option<Value>,
    /// Bytes of every file.
    pub files: BTreeMap<String, u64>,
    /// What preprocessing had to tell the user.
    pub warnings: Vec<String>,
}

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct TableSummary {
    /// Its name.
    pub name: String,
    /// Number of rows.
    pub num_rows: u32,
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
    /// Parents without children.
    pub childless_parents: u64,
}

/// One task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskSummary {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// How it gets its seeds.
    pub kind: TaskKind,
    /// The table of the entities.
    pub anchor_table: String,
    /// The column to predict.
    pub target_column: String,
    /// Its semantic type.
    pub target_stype: Stype,
    /// Seeds.
    pub num_seeds: u32,
    /// Seeds per split.
    pub splits: SplitCounts,
    /// Earliest and latest observation time of each split that has seeds; `None` at the end of time.
    pub time_ranges: IndexMap<&'static str, Option<[String; 2]>>,
    /// Share of true labels per split that has labels (boolean target).
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub base_rates: IndexMap<&'static str, f64>,
    /// Scale of the labels (numerical target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<LabelStatistics>,
    /// Number of classes (categorical target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    /// Columns no context of the task shows, as `table.column`.
    pub remove_columns: Vec<String>,
    /// Microseconds after the observation time at which a label is known.
    pub horizon_us: Option<i64>,
}

impl Summary {
    /// Reads what there is to say of a database; touches every row once.
    pub fn of(database: &Database) -> Self {
        let manifest = database.manifest();
        let bytes: BTreeMap<String, u64> =
            manifest.files.iter().map(|(name, file)| (name.clone(), file.bytes)).collect();
        Self {
            rows: manifest.tables.iter().map(|table| (table.name.clone(), table.num_rows)).collect(),
            edges: manifest
                .foreign_keys()
                .map(|(table, key)| (format!("{}.{}", table.name, key.column), key.edges))
                .collect(),
            name: manifest.name.clone(),
            build_id: manifest.build_id.clone(),
            format_version: manifest.format_version,
            tables: manifest.tables.iter().map(|table| table_summary(database, table, &bytes)).collect(),
            tasks: manifest.tasks.iter().map(|task| task_summary(database, task)).collect(),
            vocabulary: manifest.vocabulary,
            embedder: manifest.embedder.clone(),
            warnings: manifest
                .warnings
                .iter()
                .chain(manifest.tasks.iter().flat_map(|task| &task.warnings))
                .cloned()
                .collect(),
            files: bytes,
        }
    }

    /// The summary as text for people, a line per fact, columns aligned.
    pub fn render(&self) -> String {
        render::render(self)
    }
}

fn table_summary(database: &Database, table: &TableManifest, bytes: &BTreeMap<String, u64>) -> TableSummary {
    let view = database.table(table.id);
    let times = || (0..view.num_rows()).map(|row| view.record(RowId::from(row)).time());
    let known = times().filter(|&time| time != ALWAYS_VISIBLE && time != NEVER_VISIBLE);
    let column = |column: &ColumnManifest| ColumnSummary {
        id: column.id.0,
        name: column.name.clone(),
        stype: column.stype,
        description: column.description.clone(),
        statistics: column.statistics.clone(),
    };
    TableSummary {
        name: table.name.clone(),
        num_rows: table.num_rows,
        primary_key: table.primary_key.clone(),
        temporal_column: table.temporal_column.clone(),
        time_range: range(known),
        num_never_visible: times().filter(|&time| time == NEVER_VISIBLE).count() as u32,
        bytes: bytes.get(&table.file).copied().unwrap_or_default(),
        columns: table.columns.iter().map(column).collect(),
        foreign_keys: table.foreign_keys.iter().map(|key| foreign_key_summary(database, key)).collect(),
    }
}

fn foreign_key_summary(database: &Database, key: &ForeignKeyManifest) -> ForeignKeySummary {
    let manifest = database.manifest();
    let parents = database.table(key.parent_table);
    let slot = manifest.children_of(key.parent_table).position(|id| id == key.id).unwrap_or_default();
    let (mut max, mut childless) = (0, 0);
    for row in 0..parents.num_rows() {
        let children = parents.record(RowId::from(row)).children(slot).len() as u64;
        max = max.max(children);
        childless += u64::from(children == 0);
    }
    ForeignKeySummary {
        id: key.id.0,
        column: key.column.clone(),
        parent_table: manifest.tables[key.parent_table.idx()].name.clone(),
        edges: key.edges,
        dangling: key.dangling,
        null: key.null,
        max_children: max,
        mean_children: if parents.num_rows() == 0 { 0.0 } else { key.edges as f64 / parents.num_rows() as f64 },
        childless_parents: childless,
    }
}

fn task_summary(database: &Database, task: &TaskManifest) -> TaskSummary {
    let (manifest, view) = (database.manifest(), database.task(task.id));
    let mut summary = TaskSummary {
        id: task.id.0,
        name: task.name.clone(),
        kind: task.kind,
        anchor_table: manifest.tables[task.anchor_table.idx()].name.clone(),
        target_column: task.target_column.clone(),
        target_stype: task.target_stype,
        num_seeds: task.num_seeds,
        splits: task.splits,
        time_ranges: IndexMap::new(),
        base_rates: IndexMap::new(),
        statistics: (task.target_stype == Stype::Numerical).then_some(task.statistics),
        num_classes: (task.target_stype == Stype::Categorical).then_some(task.classes.len()),
        remove_columns: manifest
            .tables
            .iter()
            .flat_map(|table| table.columns.iter().map(move |column| (table, column)))
            .filter(|(_, column)| task.remove_columns.contains(&column.id))
            .map(|(table, column)| format!("{}.{}", table.name, column.name))
            .collect(),
        horizon_us: task.horizon_us,
    };
    for (code, split) in SPLITS.into_iter().enumerate() {
        let seeds = || (0..view.rows.len()).filter(|&seed| usize::from(view.splits[seed]) == code);
        if seeds().next().is_none() {
            continue;
        }
        let times = seeds().map(|seed| view.times[seed]).filter(|&time| time != i64::MAX);
        summary.time_ranges.insert(split, range(times));
        let labels = seeds().filter(|&seed| view.is_null[seed] == 0).count();
        if task.target_stype == Stype::Boolean && labels > 0 {
            let positive = seeds().filter(|&seed| view.is_null[seed] == 0 && view.values[seed] > 0.5).count();
            summary.base_rates.insert(split, positive as f64 / labels as f64);
        }
    }
    summary
}

fn range(times: impl Iterator<Item = i64>) -> Option<[String; 2]> {
    let ends = times.fold(None, |ends: Option<(i64, i64)>, time| {
        let (first, last) = ends.unwrap_or((time, time));
        Some((first.min(time), last.max(time)))
    });
    ends.map(|(first, last)| [timestamp::format(first), timestamp::format(last)])
}

/// One row decoded back to the user's values: its key, time, cells, parents, and the number of its children.
///
/// # Errors
/// [`Error::Argument`] when there is no such row; [`Error::Format`] when a key or text is damaged.
pub fn row(database: &Database, table: TableId, row: RowId) -> Result<Value> {
    let manifest = database.manifest();
    let description = &manifest.tables[table.idx()];
    let key = database.key(table, row)?;
    let record = database.table(table).record(row);
    let mut parents = Vec::new();
    for (slot, foreign_key) in description.foreign_keys.iter().enumerate() {
        let Some(parent) = record.parent(slot) else { continue };
        parents.push(json!({
            "column": foreign_key.column,
            "table": manifest.tables[foreign_key.parent_table.idx()].name,
            "row": parent,
            "key": key_json(database.key(foreign_key.parent_table, RowId(parent))?.as_ref()),
        }));
    }
    let mut cells = Vec::new();
    for (idx, column) in description.columns.iter().enumerate() {
        let cell = record.cell(idx);
        let value = if cell.is_some() && description.primary_key.as_ref() == Some(&column.name) {
            key_json(key.as_ref())
        } else if let Some(parent) = parents.iter().find(|parent| parent["column"] == column.name.as_str()) {
            parent["key"].clone()
        } else {
            cell_value(database, column, cell)?
        };
        cells.push(json!({"column": column.name, "stype": column.stype, "value": value}));
    }
    let children: Vec<Value> = manifest
        .foreign_keys()
        .filter(|(_, key)| key.parent_table == table)
        .enumerate()
        .map(|(slot, (child, key))| {
            json!({"table": child.name, "column": key.column, "count": record.children(slot).len()})
        })
        .collect();
    Ok(json!({
        "table": description.name,
        "row": row.0,
        "key": key_json(key.as_ref()),
        "time": time_json(record.time()),
        "cells": cells,
        "parents": parents,
        "children": children,
    }))
}

/// The value of a cell in the user's units; null for a missing one, `true` for a present identifier.
///
/// Numbers are stored as 32-bit z-scores and come back with their seven significant digits.
///
/// # Errors
/// [`Error::Argument`] when a vocabulary id is out of range, [`Error::Format`] when its text is damaged.
pub fn cell_value(database: &Database, column: &ColumnManifest, cell: Option<Cell>) -> Result<Value> {
    let statistics = &column.statistics;
    Ok(match cell {
        None => Value::Null,
        Some(Cell::Identifier) => Value::Bool(true),
        Some(Cell::Numerical(z)) => {
            json!(seven_digits(f64::from(z) * statistics.std.unwrap_or(1.0) + statistics.mean.unwrap_or(0.0)))
        }
        Some(Cell::Timestamp(time_us)) => Value::String(timestamp::format(time_us)),
        Some(Cell::Boolean(value)) => Value::Bool(value),
        Some(Cell::Categorical(id)) => {
            let text = database.text(id)?;
            let prefix = format!("{} is ", column.name);
            Value::String(text.strip_prefix(&prefix).unwrap_or(&text).to_owned())
        }
        Some(Cell::Text(id)) => Value::String(database.text(id)?),
    })
}

/// A primary key as JSON, null for none.
pub fn key_json(key: Option<&Key>) -> Value {
    match key {
        None => Value::Null,
        Some(Key::Int(key)) => json!(key),
        Some(Key::Uint(key)) => json!(key),
        Some(Key::String(key)) => json!(key),
    }
}

fn time_json(time_us: i64) -> Value {
    if time_us == ALWAYS_VISIBLE || time_us == NEVER_VISIBLE {
        Value::Null
    } else {
        Value::String(timestamp::format(time_us))
    }
}

fn seven_digits(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// The table of a name.
///
/// # Errors
/// [`Error::Argument`] with the nearest name when there is none.
pub fn find_table<'a>(database: &'a Database, name: &str) -> Result<&'a TableManifest> {
    let manifest = database.manifest();
    manifest.table(name).ok_or_else(|| {
        let near = crate::error::suggestion(name, manifest.tables.iter().map(|table| table.name.as_str()));
        Error::Argument(format!("unknown table `{name}`{near}"))
    })
}
