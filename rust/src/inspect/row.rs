//! One packed row decoded back to the values of the user.

use serde_json::{Value, json};

use super::number::Decoded;
use crate::database::{Database, Key};
use crate::error::{Error, Result};
use crate::format::record::{ALWAYS_VISIBLE, Cell, NEVER_VISIBLE, Record};
use crate::ids::{RowId, TableId};
use crate::manifest::{ColumnManifest, TableManifest};
use crate::stype::Stype;
use crate::timestamp;

/// One row decoded back to the user's values: its key, time, cells, parents, and the number of its children.
///
/// # Errors
/// [`Error::Argument`] when there is no such row; [`Error::Format`] when a key, a link or a text is damaged.
pub fn row(database: &Database, table: TableId, row: RowId) -> Result<Value> {
    let manifest = database.manifest();
    let description = &manifest.tables[table.idx()];
    let key = database.key(table, row)?;
    let record = database.table(table).record(row);
    let parents = parents(database, description, row, record)?;
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
        "cells": cells(database, description, record, key.as_ref(), &parents)?,
        "parents": parents,
        "children": children,
    }))
}

/// A row as a neighbour of another shows it: its number, key, time and cells.
pub(super) fn brief(database: &Database, table: TableId, row: RowId) -> Result<Value> {
    let description = &database.manifest().tables[table.idx()];
    let key = database.key(table, row)?;
    let record = database.table(table).record(row);
    let parents = parents(database, description, row, record)?;
    Ok(json!({
        "row": row.0,
        "key": key_json(key.as_ref()),
        "time": time_json(record.time()),
        "cells": cells(database, description, record, key.as_ref(), &parents)?,
    }))
}

/// The parents of a row, by foreign key; keys without a parent are left out.
fn parents(database: &Database, table: &TableManifest, row: RowId, record: Record<'_>) -> Result<Vec<Value>> {
    let manifest = database.manifest();
    let mut parents = Vec::new();
    for (slot, foreign_key) in table.foreign_keys.iter().enumerate() {
        let Some(parent) = record.parent(slot) else { continue };
        let parent_table = &manifest.tables[foreign_key.parent_table.idx()];
        if parent >= parent_table.num_rows {
            let what = format!("row {}: `{}` points to row {parent}", row.0, foreign_key.column);
            let rows = format!("`{}` has {} rows", parent_table.name, parent_table.num_rows);
            return Err(Error::format(database.path().join(&table.file), format!("{what}, {rows}")));
        }
        parents.push(json!({
            "column": foreign_key.column,
            "table": parent_table.name,
            "row": parent,
            "key": key_json(database.key(foreign_key.parent_table, RowId(parent))?.as_ref()),
        }));
    }
    Ok(parents)
}

fn cells(
    database: &Database,
    table: &TableManifest,
    record: Record<'_>,
    key: Option<&Key>,
    parents: &[Value],
) -> Result<Vec<Value>> {
    let mut cells = Vec::new();
    for (idx, column) in table.columns.iter().enumerate() {
        let cell = record.cell(idx);
        let value = if cell.is_some() && table.primary_key.as_ref() == Some(&column.name) {
            key_json(key)
        } else if let Some(parent) = parents.iter().find(|parent| parent["column"] == column.name.as_str()) {
            parent["key"].clone()
        } else {
            cell_value(database, column, cell)?
        };
        cells.push(json!({"column": column.name, "stype": column.stype, "value": value}));
    }
    Ok(cells)
}

/// The value of a cell in the user's units; null for a missing one, `true` for a present identifier.
///
/// Numbers are stored as 32-bit z-scores and come back as the shortest decimal the z-score stands for.
///
/// # Errors
/// [`Error::Format`] when a vocabulary id is out of range or its text is damaged.
pub fn cell_value(database: &Database, column: &ColumnManifest, cell: Option<Cell>) -> Result<Value> {
    Ok(match cell {
        None => Value::Null,
        Some(Cell::Identifier) => Value::Bool(true),
        Some(Cell::Numerical(z)) => json!(Decoded::of(z, &column.statistics).shortest()),
        Some(Cell::Timestamp(time_us)) => Value::String(timestamp::format(time_us)),
        Some(Cell::Boolean(value)) => Value::Bool(value),
        Some(Cell::Categorical(id) | Cell::Text(id)) => {
            Value::String(category(database, &column.name, column.stype, id)?)
        }
    })
}

/// The user's value behind a vocabulary id of a categorical or text column.
pub(super) fn category(database: &Database, column: &str, stype: Stype, id: u32) -> Result<String> {
    let num_texts = database.manifest().vocabulary.num_texts;
    if id >= num_texts {
        let what = format!("column `{column}` holds vocabulary id {id}, there are {num_texts} texts");
        return Err(Error::format(database.path(), what));
    }
    Ok(value_of(column, stype, &database.text(id)?).to_owned())
}

/// The user's value within a text of the vocabulary: of a category what follows `<column> is `.
pub(super) fn value_of<'t>(column: &str, stype: Stype, text: &'t str) -> &'t str {
    let value = text.strip_prefix(column).and_then(|rest| rest.strip_prefix(" is "));
    value.filter(|_| stype == Stype::Categorical).unwrap_or(text)
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
