//! One row with its neighbours as text.

use std::fmt::Write;

use serde_json::Value;

use super::grid::{Grid, clean, clip};
use super::shown;
use crate::inspect::number::grouped;

/// Cells of a neighbour that fit on its line.
const MAX_CELLS: usize = 6;

/// A row as [`crate::inspect::neighborhood`] found it.
pub(in crate::inspect) fn row(found: &Value) -> String {
    let mut text = clean(&name(&shown(&found["table"]), found)) + "\n";
    let cells =
        list(&found["cells"]).iter().map(|cell| vec![shown(&cell["column"]), shown(&cell["stype"]), value(cell)]);
    Grid::new(&["column", "stype", "value"], cells).section(&mut text, "Cells");
    let parents = list(&found["parents"]);
    if !parents.is_empty() {
        text.push_str("\nParents\n");
    }
    for parent in parents {
        let link = clean(&shown(&parent["column"]));
        let _ = writeln!(text, "  by {link}: {}", neighbor(&shown(&parent["table"]), parent));
    }
    for children in list(&found["children"]) {
        let (table, count) = (shown(&children["table"]), children["count"].as_u64().unwrap_or(0));
        let head = format!("{} {table} by {}", grouped(count), shown(&children["column"]));
        let _ = writeln!(text, "\nChildren: {}", clean(&head));
        let first = list(&children["first"]);
        for child in first {
            let _ = writeln!(text, "  {}", neighbor(&table, child));
        }
        more(&mut text, count, first.len());
    }
    for seeds in list(&found["seeds"]) {
        let count = seeds["count"].as_u64().unwrap_or(0);
        let head = format!("{} of task {}", grouped(count), shown(&seeds["task"]));
        let _ = writeln!(text, "\nSeeds: {}", clean(&head));
        let first = list(&seeds["first"]);
        for seed in first {
            let time = seed["time"].as_str().unwrap_or("the end of time");
            let label = format!("{} = {}", shown(&seeds["target_column"]), shown(&seed["label"]));
            let _ = writeln!(text, "  {time}  {:<5}  {}", shown(&seed["split"]), clip(&label));
        }
        more(&mut text, count, first.len());
    }
    text
}

fn more(text: &mut String, count: u64, listed: usize) {
    if count > listed as u64 {
        let _ = writeln!(text, "  and {} more: --limit", grouped(count - listed as u64));
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Table, key, number and time of a row.
fn name(table: &str, row: &Value) -> String {
    let number = format!("#{}", row["row"].as_u64().unwrap_or(0));
    let key = if row["key"].is_null() { number } else { format!("{} ({number})", clip(&shown(&row["key"]))) };
    let time = row["time"].as_str().map_or_else(String::new, |time| format!(" [{time}]"));
    format!("{table} {key}{time}")
}

/// A neighbour in one line: its name and the first of its cells that say something.
fn neighbor(table: &str, row: &Value) -> String {
    let cells = list(&row["cells"]);
    let telling = |cell: &&Value| !cell["value"].is_null() && cell["stype"] != "identifier";
    let shown_cells = cells.iter().filter(telling).take(MAX_CELLS);
    let cells: Vec<String> =
        shown_cells.map(|cell| format!("{}={}", clip(&shown(&cell["column"])), clip(&value(cell)))).collect();
    let gap = if cells.is_empty() { "" } else { "  " };
    format!("{}{gap}{}", clean(&name(table, row)), cells.join("  "))
}

fn value(cell: &Value) -> String {
    // an identifier keeps its value only through the row it names
    if cell["stype"] == "identifier" && cell["value"] == true { "(names no row)".into() } else { shown(&cell["value"]) }
}
