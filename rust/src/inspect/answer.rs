//! What a person asks of a database, and the answer as text, JSON or a page.

use serde::Serialize;
use serde_json::json;

use super::scan::Scan;
use super::summary::{Summary, column_summary, one_table};
use super::{html, neighborhood, task, text, vocabulary};
use crate::database::Database;
use crate::error::{Error, Result, suggestion};
use crate::manifest::{TableManifest, TaskManifest};

/// Most frequent values and texts that are listed unless the user says how many.
const NUM_LISTED: usize = 20;
/// Neighbours per foreign key that are listed unless the user says how many.
const NUM_NEIGHBORS: usize = 5;
/// The most distinct values that are counted of one column, some 400 MiB of counts per thread.
const MAX_DISTINCT: u64 = 1 << 24;

/// What to show; of `table`, `column`, `row`, `task` and `vocabulary` at most one, the whole database without any.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// This table with every column and key.
    pub table: Option<String>,
    /// This column, as `table.column`.
    pub column: Option<String>,
    /// The row of this table with this key as the user writes it, or `#N` for its number, with its neighbours.
    pub row: Option<(String, String)>,
    /// This task.
    pub task: Option<String>,
    /// The vocabulary.
    pub vocabulary: bool,
    /// Only texts of the vocabulary that contain this.
    pub pattern: Option<String>,
    /// How many values, neighbours or texts are listed.
    pub limit: Option<usize>,
    /// Read every row of large tables too.
    pub full: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// What the user asked to see, as text that ends in a line break, or as JSON on one line.
///
/// # Errors
/// [`Error::Argument`] for names and keys that do not exist or options that exclude each other; [`Error::Format`] when
/// a file turns out to be damaged.
pub fn answer(database: &Database, options: &Options) -> Result<String> {
    check(options)?;
    let listed = options.limit.unwrap_or(NUM_LISTED);
    if let Some(name) = &options.table {
        let (table, children) = one_table(database, find_table(database, name)?)?;
        let children: Vec<_> = children.into_iter().map(|(table, key)| Child { table, key }).collect();
        return finish(options, &json!({"table": table, "children": children}), || text::table(&table, &children));
    }
    if let Some(name) = &options.column {
        return column(database, options, name, listed);
    }
    if let Some((name, key)) = &options.row {
        let table = find_table(database, name)?;
        let row = neighborhood::find_row(database, table, key)?;
        let limit = options.limit.unwrap_or(NUM_NEIGHBORS);
        let found = neighborhood::neighborhood(database, table, row, limit)?;
        return finish(options, &found, || text::row(&found));
    }
    if let Some(name) = &options.task {
        let found = task::summarise(database, find_task(database, name)?);
        return finish(options, &found, || text::task(&found));
    }
    if options.vocabulary {
        let found = vocabulary::vocabulary(database, options.pattern.as_deref(), listed)?;
        return finish(options, &found, || text::vocabulary(&found));
    }
    let summary = Summary::of(database, options.full)?;
    finish(options, &summary, || text::overview(&summary))
}

/// The whole database as one HTML page that needs nothing from elsewhere.
///
/// # Errors
/// [`Error::Format`] when a file turns out to be damaged.
pub fn page(database: &Database, is_full: bool) -> Result<String> {
    Ok(html::page(&Summary::of(database, is_full)?))
}

/// A description as a page: a drawing of its tables, and their columns.
///
/// `tables` is a JSON list of `name`, `num_rows`, `num_columns`, `primary_key`, `temporal_column`, `foreign_keys`
/// (each `column`, `parent_table`, `note`) and `columns` (each name, stype, and what is said of it).
///
/// # Errors
/// [`Error::Argument`] when it is not.
pub fn schema_page(name: &str, tables: &str) -> Result<String> {
    let tables: Vec<html::Drawn> = serde_json::from_str(tables).map_err(|error| Error::Argument(error.to_string()))?;
    Ok(html::schema_page(name, &tables))
}

/// A foreign key that points to the table that is shown.
#[derive(Debug, Serialize)]
pub(super) struct Child {
    pub(super) table: String,
    #[serde(flatten)]
    pub(super) key: super::ForeignKeySummary,
}

fn finish(options: &Options, found: &impl Serialize, render: impl FnOnce() -> String) -> Result<String> {
    if options.json {
        let json = serde_json::to_string(found).map_err(|error| Error::Argument(error.to_string()))?;
        return Ok(json + "\n");
    }
    Ok(render())
}

fn check(options: &Options) -> Result<()> {
    let asked = [
        ("--table", options.table.is_some()),
        ("--column", options.column.is_some()),
        ("--row", options.row.is_some()),
        ("--task", options.task.is_some()),
        ("--vocabulary", options.vocabulary),
    ];
    let asked: Vec<&str> = asked.iter().filter(|(_, is_asked)| *is_asked).map(|&(name, _)| name).collect();
    if let [first, second, ..] = asked[..] {
        return Err(Error::Argument(format!("{first} and {second} show different things; give one of them")));
    }
    if let Some(pattern) = options.pattern.as_ref().filter(|_| !options.vocabulary) {
        return Err(Error::Argument(format!("unexpected argument `{pattern}`; a pattern goes with --vocabulary")));
    }
    Ok(())
}

fn column(database: &Database, options: &Options, name: &str, listed: usize) -> Result<String> {
    let (table, idx) = find_column(database, name)?;
    let scan = Scan { columns: Some(idx..idx + 1), max_distinct: MAX_DISTINCT, num_top: listed, ..Scan::FULL };
    let found = scan.run(database, table)?;
    let column = column_summary((&table.columns[idx], &found.columns[0]));
    let json = json!({"table": table.name, "num_rows": table.num_rows, "column": column});
    finish(options, &json, || text::column(table, &column))
}

/// The nearest name, or the first ones where none is near.
fn known<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    const NUM_NAMES: usize = 8;
    let near = suggestion(name, names.clone());
    if !near.is_empty() {
        return near;
    }
    let first: Vec<String> = names.clone().take(NUM_NAMES).map(|name| format!("`{name}`")).collect();
    let more = if names.count() > NUM_NAMES { ", ..." } else { "" };
    if first.is_empty() { "; there are none".into() } else { format!("; there are {}{more}", first.join(", ")) }
}

/// The table of a name.
///
/// # Errors
/// [`Error::Argument`] with the nearest name when there is none.
pub fn find_table<'a>(database: &'a Database, name: &str) -> Result<&'a TableManifest> {
    let manifest = database.manifest();
    manifest.table(name).ok_or_else(|| {
        let near = known(name, manifest.tables.iter().map(|table| table.name.as_str()));
        Error::Argument(format!("unknown table `{name}`{near}"))
    })
}

fn find_task<'a>(database: &'a Database, name: &str) -> Result<&'a TaskManifest> {
    let manifest = database.manifest();
    manifest.task(name).ok_or_else(|| {
        let near = known(name, manifest.tasks.iter().map(|task| task.name.as_str()));
        Error::Argument(format!("unknown task `{name}`{near}"))
    })
}

/// The table and position of a `table.column`; dots may be in either name.
fn find_column<'a>(database: &'a Database, name: &str) -> Result<(&'a TableManifest, usize)> {
    let manifest = database.manifest();
    let places = name.match_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
    let mut of_table = None;
    for (table, column) in places {
        let Some(table) = manifest.table(table) else { continue };
        if let Some(idx) = table.columns.iter().position(|known| known.name == column) {
            return Ok((table, idx));
        }
        of_table = Some((table, column));
    }
    if let Some((table, column)) = of_table {
        let near = known(column, table.columns.iter().map(|column| column.name.as_str()));
        return Err(Error::Argument(format!("table `{}` has no encoded column `{column}`{near}", table.name)));
    }
    let columns = manifest
        .tables
        .iter()
        .flat_map(|table| table.columns.iter().map(move |column| format!("{}.{}", table.name, column.name)));
    let columns: Vec<String> = columns.collect();
    let near = suggestion(name, columns.iter().map(String::as_str));
    let near = if near.is_empty() { "; write it as `table.column`".to_owned() } else { near };
    Err(Error::Argument(format!("unknown column `{name}`{near}")))
}
