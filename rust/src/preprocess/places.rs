//! Where texts of the vocabulary come from: what to tell a user of a text that an embedder does not take.

use std::path::Path;

use hashbrown::HashMap;
use serde::Serialize;

use super::anchors::AnchorTable;
use super::staged::any_manifest;
use crate::error::Result;
use crate::format::record::Cell;
use crate::format::{FileKind, FileReader, task};
use crate::manifest::{KeyKind, Manifest};
use crate::stype::Stype;

/// A column in which a text of the vocabulary occurs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextPlace {
    /// The text's id.
    pub text: u32,
    /// The table, or the task whose labels hold the text.
    pub table: String,
    /// The column.
    pub column: String,
    /// The first row, or seed, with the text.
    pub row: usize,
    /// Its primary key, where the table has keys.
    pub key: Option<String>,
    /// Cells of the column that hold it.
    pub cells: u64,
}

/// Where some texts occur, by text, then in the order of tables and columns. It reads every row: meant for errors.
///
/// # Errors
/// As [`super::staged_manifest`] and [`super::column_phrases`].
pub fn text_places(root: &Path, texts: &[u32]) -> Result<Vec<TextPlace>> {
    let manifest = any_manifest(root)?;
    let mut places = in_tables(root, &manifest, texts)?;
    places.extend(in_labels(root, &manifest, texts)?);
    places.sort_by_key(|place| place.text);
    Ok(places)
}

fn in_tables(root: &Path, manifest: &Manifest, texts: &[u32]) -> Result<Vec<TextPlace>> {
    let mut places = Vec::new();
    for table in &manifest.tables {
        let is_text = |stype| matches!(stype, Stype::Text | Stype::Categorical);
        let columns: Vec<usize> = (0..table.columns.len()).filter(|&idx| is_text(table.columns[idx].stype)).collect();
        if columns.is_empty() {
            continue;
        }
        let rows = AnchorTable::open(root, manifest, table)?;
        for idx in columns {
            let cells = rows.records()?.map(|record| match record.cell(idx) {
                Some(Cell::Text(id) | Cell::Categorical(id)) => Some(id),
                _ => None,
            });
            for (text, first, cells) in tally(cells, texts) {
                let key = if table.key_kind == KeyKind::None { None } else { Some(rows.key_text(first)?) };
                let column = table.columns[idx].name.clone();
                places.push(TextPlace { text, table: table.name.clone(), column, row: first, key, cells });
            }
        }
    }
    Ok(places)
}

fn in_labels(root: &Path, manifest: &Manifest, texts: &[u32]) -> Result<Vec<TextPlace>> {
    let mut places = Vec::new();
    for task in manifest.tasks.iter().filter(|task| task.num_texts > 0) {
        let file = FileReader::open(root, &task.file, FileKind::Task)?;
        let labels = file.exactly::<u32>(task::VOCAB, task.num_seeds as usize)?;
        for (text, first, cells) in tally(labels.iter().map(|&id| Some(id)), texts) {
            let column = task.target_column.clone();
            places.push(TextPlace { text, table: task.name.clone(), column, row: first, key: None, cells });
        }
    }
    Ok(places)
}

/// Of each text that occurs in a column, the first row and the number of cells; texts in the order they were given.
fn tally(cells: impl Iterator<Item = Option<u32>>, texts: &[u32]) -> Vec<(u32, usize, u64)> {
    let mut found: HashMap<u32, Option<(usize, u64)>> = texts.iter().map(|&text| (text, None)).collect();
    for (row, id) in cells.enumerate() {
        if let Some(seen) = id.and_then(|id| found.get_mut(&id)) {
            seen.get_or_insert((row, 0)).1 += 1;
        }
    }
    texts.iter().filter_map(|text| found.remove(text).flatten().map(|(row, cells)| (*text, row, cells))).collect()
}
