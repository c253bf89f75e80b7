//! One row with its neighbours: parents and the first children of every foreign key, decoded, and its seeds.

use serde_json::{Value, json};

use super::row::{brief, row};
use super::task::seeds_of;
use crate::database::{Database, GRAPH_FILE, Key};
use crate::error::{Error, Result};
use crate::ids::RowId;
use crate::manifest::{KeyKind, TableManifest};

/// A row, its cells, its parents with theirs, the first `limit` children per foreign key in time order, and the first
/// seeds of every task that ask about it.
pub(super) fn neighborhood(database: &Database, table: &TableManifest, at: RowId, limit: usize) -> Result<Value> {
    let mut found = row(database, table.id, at)?;
    let manifest = database.manifest();
    let record = database.table(table.id).record(at);
    let parents = table.foreign_keys.iter().enumerate().filter_map(|(slot, key)| Some((key, record.parent(slot)?)));
    for ((key, parent), shown) in parents.zip(found["parents"].as_array_mut().into_iter().flatten()) {
        let brief = brief(database, key.parent_table, RowId(parent))?;
        shown["time"] = brief["time"].clone();
        shown["cells"] = brief["cells"].clone();
    }
    let lists = database.view().children;
    let incoming = manifest.foreign_keys().filter(|(_, key)| key.parent_table == table.id);
    for ((slot, (child, key)), shown) in
        incoming.enumerate().zip(found["children"].as_array_mut().into_iter().flatten())
    {
        let damaged = |what: String| Error::format(database.path().join(GRAPH_FILE), what);
        let of = format!("`{}.{}`: the children of row {} of `{}`", child.name, key.column, at.0, table.name);
        let (indices, range) = (lists[key.id.idx()].indices, record.children(slot));
        if range.end > indices.len() {
            return Err(damaged(format!("{of} are out of range")));
        }
        let first = indices.range(range).take(limit).map(|row| {
            if row >= u64::from(child.num_rows) {
                return Err(damaged(format!("{of} name row {row}, there are {} rows", child.num_rows)));
            }
            brief(database, child.id, RowId(row as u32))
        });
        shown["first"] = Value::Array(first.collect::<Result<_>>()?);
    }
    let asking = manifest.tasks.iter().filter(|task| task.anchor_table == table.id);
    let seeds = asking.map(|task| seeds_of(database, task, at.0, limit)).collect::<Result<Vec<_>>>()?;
    found["seeds"] = json!(seeds);
    Ok(found)
}

/// The row of a key as the user writes it, or of `#N`, the row's number counted from 0.
///
/// # Errors
/// [`Error::Argument`] when there is none, with what would be understood.
pub(super) fn find_row(database: &Database, table: &TableManifest, written: &str) -> Result<RowId> {
    let key = match table.key_kind {
        KeyKind::String => Some(Key::String(written.to_owned())),
        KeyKind::Int | KeyKind::Uint => {
            let number = written.trim();
            number.parse().map(Key::Int).or_else(|_| number.parse().map(Key::Uint)).ok()
        }
        KeyKind::None => None,
    };
    if let Some(found) = key.as_ref().map(|key| database.find(table.id, key)).transpose()?.flatten() {
        if found.0 < table.num_rows {
            return Ok(found);
        }
        return Err(Error::format(database.path().join(&table.file), "the order of the keys is damaged"));
    }
    let number = written.strip_prefix('#').or((table.key_kind == KeyKind::None).then_some(written));
    if let Some(row) = number.and_then(|number| number.parse().ok()).filter(|&row: &u32| row < table.num_rows) {
        return Ok(RowId(row));
    }
    Err(Error::Argument(format!("table `{}` has no row `{written}`; {}", table.name, known_rows(database, table)?)))
}

fn known_rows(database: &Database, table: &TableManifest) -> Result<String> {
    let Some(last) = table.num_rows.checked_sub(1) else { return Ok("it is empty".into()) };
    let numbers = format!("`#0` to `#{last}`");
    let key = |row| {
        Ok::<_, Error>(match database.key(table.id, RowId(row))? {
            Some(Key::Int(key)) => format!("`{key}`"),
            Some(Key::Uint(key)) => format!("`{key}`"),
            Some(Key::String(key)) => format!("`{key}`"),
            None => String::new(),
        })
    };
    Ok(match table.key_kind {
        KeyKind::None => format!("it has no primary key, its rows are {numbers}"),
        KeyKind::String => format!("its keys are strings such as {}, its rows also {numbers}", key(0)?),
        KeyKind::Int | KeyKind::Uint => {
            format!("its keys are integers such as {}, its rows also {numbers}", key(0)?)
        }
    })
}
