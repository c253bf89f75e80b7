//! The described database: tables, columns, stypes, keys and tasks, parsed from `metadata.json` and checked.
//!
//! Everything that can be known without opening a parquet file is checked here, once; whoever holds a [`Schema`] may
//! rely on it. Names are data: they become file names only through [`file_stem`].

mod json;
mod moments;
mod parse;

use std::path::Path;

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};
use crate::ids::{ColumnId, TableId};
use crate::manifest::{MANIFEST_FILE, TaskKind};
use crate::stype::Stype;

/// A database as its `metadata.json` describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// The user's name of the database.
    pub name: String,
    /// What the user says of it.
    pub description: String,
    /// Tables by [`TableId`].
    pub tables: Vec<TableSchema>,
    /// Tasks by [`crate::TaskId`].
    pub tasks: Vec<TaskSchema>,
}

/// One table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSchema {
    /// Its name.
    pub name: String,
    /// What the user says of it.
    pub description: String,
    /// Part files or patterns (`*` and `?` within a name), relative to the input folder, never leaving it.
    pub files: Vec<String>,
    /// The column that holds the primary key; its stype is identifier.
    pub primary_key: Option<String>,
    /// The column that says when a row came into being; its stype is timestamp.
    pub temporal_column: Option<String>,
    /// Rows without a time are visible to every seed instead of to none.
    pub null_time_visible: bool,
    /// Columns in the order of `metadata.json`, ignored ones included.
    pub columns: Vec<ColumnSchema>,
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnSchema {
    /// Its name.
    pub name: String,
    /// Its semantic type; `None` where it is ignored.
    pub stype: Option<Stype>,
    /// The table whose primary key it holds.
    pub foreign_key: Option<TableId>,
    /// What the user says of it.
    pub description: String,
    /// A cell may hold a list of such values; only labels do.
    pub may_be_list: bool,
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSchema {
    /// Its name.
    pub name: String,
    /// What the user says of it.
    pub description: String,
    /// Where its seeds come from.
    pub kind: TaskKind,
    /// The SQL that makes the labels; kind table has this or `table`.
    pub query: Option<String>,
    /// The parquet file of the labels, relative to the input folder.
    pub table: Option<String>,
    /// The table of the entities; it has a primary key for kind table.
    pub anchor_table: TableId,
    /// The column of the labels that holds the entity's primary key; by default it is named like that.
    pub anchor_key: Option<String>,
    /// The column of the labels (kind table) or of the anchor table (kind cell) to predict.
    pub target_column: String,
    /// Its semantic type; identifier where the answer is a list of rows of `links`, never otherwise.
    pub target_stype: Stype,
    /// What a link task predicts.
    pub links: Option<LinkTarget>,
    /// The column of the labels (kind table) or the timestamp column of the anchor table (kind cell) with the
    /// observation time.
    pub observation_time_column: Option<String>,
    /// Microseconds after the observation time at which a label is known.
    pub horizon_us: Option<i64>,
    /// Microseconds of the window a label looks at, `{timedelta}` in the query.
    pub timedelta_us: Option<i64>,
    /// Moments of the relation `timestamps` in the query.
    pub timestamps: Option<Timestamps>,
    /// Most moments of validation and of test, where they follow from `split` and `timedelta`.
    pub num_eval_timestamps: Option<u32>,
    /// Where validation and test begin.
    pub split: Option<SplitTimes>,
    /// Columns that no context of the task may show, as (table, position in its `columns`).
    pub remove_columns: Vec<(TableId, usize)>,
    /// The metric the user judges by.
    pub metric: Option<String>,
}

/// What a link task (`"target_stype": "link"`) predicts: which rows of a table belong to the entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTarget {
    /// The table whose primary keys the labels list.
    pub table: TableId,
    /// How many of its rows an answer names.
    pub top_k: u32,
}

/// The moments at which a query asks its question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// Exactly these, microseconds, ascending.
    List(Vec<i64>),
    /// From `start_us` (the first moment of the database) to at most `end_us` (the last one less the window).
    Every {
        /// The first moment.
        start_us: Option<i64>,
        /// The last moment is not later.
        end_us: Option<i64>,
        /// From one to the next.
        every_us: i64,
    },
}

/// The times that divide the seeds of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitTimes {
    /// Seeds from here on are validation, microseconds.
    pub val_us: i64,
    /// Seeds from here on are test, microseconds.
    pub test_us: i64,
}

impl Schema {
    /// Reads and checks a `metadata.json`, or the one in a folder.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Schema`] naming the place of the first fault.
    pub fn read(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join(MANIFEST_FILE) } else { path.to_owned() };
        let bytes = std::fs::read(&file).map_err(|source| Error::io(&file, source))?;
        Self::parse(&bytes, &file.display().to_string())
    }

    /// Checks the bytes of a `metadata.json`; `place` names it in messages.
    ///
    /// # Errors
    /// [`Error::Schema`] naming the place of the first fault.
    pub fn parse(bytes: &[u8], place: &str) -> Result<Self> {
        parse::parse(bytes, place)
    }

    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<(TableId, &TableSchema)> {
        self.tables.iter().position(|table| table.name == name).map(|idx| (TableId::from(idx), &self.tables[idx]))
    }

    /// The id of the `column`-th column of a table; `None` where it is ignored.
    pub fn column_id(&self, table: TableId, column: usize) -> Option<ColumnId> {
        let (before, own) = (&self.tables[..table.idx()], &self.tables[table.idx()].columns);
        own[column].stype?;
        let first: usize = before.iter().map(|table| table.encoded().count()).sum();
        Some(ColumnId::from(first + own[..column].iter().filter(|column| column.stype.is_some()).count()))
    }

    /// The description with every default written out, as JSON that parses to the same schema.
    pub fn normalised(&self) -> String {
        let mut value = self.normalised_tables();
        value.insert("tasks".into(), self.tasks.iter().map(|task| (task.name.clone(), self.task_json(task))).collect());
        pretty(&value)
    }

    /// The part of [`Schema::normalised`] that the encode stage depends on.
    pub fn encoded_part(&self) -> String {
        pretty(&self.normalised_tables())
    }

    fn normalised_tables(&self) -> Map<String, Value> {
        let tables: Value = self.tables.iter().map(|table| (table.name.clone(), self.table_json(table))).collect();
        let parts = [("name", json!(self.name)), ("description", json!(self.description)), ("tables", tables)];
        parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn table_json(&self, table: &TableSchema) -> Value {
        let columns: Value =
            table.columns.iter().map(|column| (column.name.clone(), self.column_json(column))).collect();
        json!({
            "file": table.files,
            "primary_key": table.primary_key,
            "temporal_column": table.temporal_column,
            "null_time_visible": table.null_time_visible,
            "description": table.description,
            "columns": columns,
        })
    }

    fn column_json(&self, column: &ColumnSchema) -> Value {
        let foreign_key = column.foreign_key.map(|parent| {
            let parent = &self.tables[parent.idx()];
            format!("{}.{}", parent.name, parent.primary_key.as_deref().unwrap_or_default())
        });
        json!({
            "stype": column.stype.map_or("ignored", Stype::name),
            "foreign_key": foreign_key,
            "description": column.description,
        })
    }

    fn task_json(&self, task: &TaskSchema) -> Value {
        let removed: Vec<[&str; 2]> = task
            .remove_columns
            .iter()
            .map(|&(table, column)| {
                let table = &self.tables[table.idx()];
                [table.name.as_str(), table.columns[column].name.as_str()]
            })
            .collect();
        let split = task.split.map(|split| {
            json!({"val": crate::timestamp::format(split.val_us), "test": crate::timestamp::format(split.test_us)})
        });
        json!({
            "kind": task.kind,
            "query": task.query,
            "table": task.table,
            "anchor_table": self.tables[task.anchor_table.idx()].name,
            "anchor_key": task.anchor_key,
            "target_column": task.target_column,
            "target_stype": task.target_stype.target_name(),
            "target_table": task.links.map(|links| &self.tables[links.table.idx()].name),
            "top_k": task.links.map(|links| links.top_k),
            "observation_time_column": task.observation_time_column,
            "timedelta": task.timedelta_us.map(moments::format_duration),
            "timestamps": task.timestamps.as_ref().map(timestamps_json),
            "num_eval_timestamps": task.num_eval_timestamps,
            "horizon": task.horizon_us.map(moments::format_duration),
            "split": split,
            "remove_columns": removed,
            "metric": task.metric,
            "description": task.description,
        })
    }
}

impl TableSchema {
    /// The columns that are not ignored, in order, each with its stype.
    pub fn encoded(&self) -> impl Iterator<Item = (&ColumnSchema, Stype)> {
        self.columns.iter().filter_map(|column| column.stype.map(|stype| (column, stype)))
    }

    /// The column of a name.
    pub fn column(&self, name: &str) -> Option<&ColumnSchema> {
        self.columns.iter().find(|column| column.name == name)
    }
}

fn timestamps_json(timestamps: &Timestamps) -> Value {
    match timestamps {
        Timestamps::List(times) => times.iter().map(|&time| crate::timestamp::format(time)).collect(),
        Timestamps::Every { start_us, end_us, every_us } => json!({
            "start": start_us.map(crate::timestamp::format),
            "end": end_us.map(crate::timestamp::format),
            "every": moments::format_duration(*every_us),
        }),
    }
}

fn pretty(value: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(value).expect("names and texts are plain data")
}

/// Longest stem that [`file_stem`] keeps whole; file systems stop at 255 bytes.
const MAX_STEM: usize = 200;

/// The name of a table or task as the stem of a file name.
///
/// Letters, digits, `_` and `-` of ASCII stay, every other byte becomes `%XX`: different names give different stems
/// and no name leaves its folder. A longer stem than a file system takes is cut and completed by `~` and the xxh3-128
/// of the name; the manifest says which file is whose.
///
/// ```
/// assert_eq!(headwater::schema::file_stem("orders-2_b"), "orders-2_b");
/// assert_eq!(headwater::schema::file_stem("../a é"), "%2E%2E%2Fa%20%C3%A9");
/// ```
pub fn file_stem(name: &str) -> String {
    use std::fmt::Write;
    let mut stem = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            stem.push(char::from(byte));
        } else {
            write!(stem, "%{byte:02X}").expect("a string takes every text");
        }
    }
    if stem.len() > MAX_STEM {
        stem.truncate(MAX_STEM - 33);
        write!(stem, "~{:032x}", xxh3_128(name.as_bytes())).expect("a string takes every text");
    }
    stem
}
