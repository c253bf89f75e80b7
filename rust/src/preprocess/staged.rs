//! The stage files of a database in the making, read as the manifest it will have.
//!
//! `encode.json` and `tasks/<task>.json` say what the encode stage and each task stage made. Here they become one
//! [`Manifest`] with every task numbered; the files that hold the bytes are left to the other stages.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ENCODE_FILE, EncodeReport};
use crate::database::{Database, VOCABULARY_FILE};
use crate::error::{Error, Result};
use crate::format::{FORMAT_VERSION, FileKind, FileReader};
use crate::ids::{ColumnId, ForeignKeyId, TableId, TaskId};
use crate::manifest::{MANIFEST_FILE, Manifest, TaskKind, TaskManifest, VocabularyManifest};
use crate::schema::Schema;

const TASK_FOLDER: &str = "tasks";

/// The stage file of a task beside its packed file `file`.
pub(super) fn task_report(file: &str) -> PathBuf {
    Path::new(file).with_extension("json")
}

/// Reads the stage files in `root`; tasks come in the order of the `metadata.json` they were written with.
///
/// # Errors
/// [`Error::Io`] when the encode stage is missing, [`Error::Format`] when a stage file is damaged.
pub fn staged_manifest(root: &Path) -> Result<Manifest> {
    let encode: EncodeReport = read_json(&root.join(ENCODE_FILE))?;
    let mut tasks = staged_tasks(root)?;
    tasks.sort_by_key(|task| task.id);
    Ok(compose(encode, tasks))
}

/// Puts the staged tasks in the order of `metadata`, the text of the description.
///
/// What a task stage made does not depend on the other tasks; the numbers in its stage file do.
///
/// # Errors
/// [`Error::Argument`] when a task is staged that `metadata` does not know.
pub fn order_tasks(root: &Path, metadata: &str) -> Result<()> {
    let schema = Schema::parse(metadata.as_bytes(), MANIFEST_FILE)?;
    put_in_order(root, &schema)
}

/// [`order_tasks`] of a parsed description.
pub(super) fn put_in_order(root: &Path, schema: &Schema) -> Result<()> {
    for mut task in staged_tasks(root)? {
        let place = schema.tasks.iter().position(|known| known.name == task.name).ok_or_else(|| {
            Error::Argument(format!("the staged task `{}` is not in metadata.json; remove its files", task.name))
        })?;
        if task.id.idx() != place {
            task.id = TaskId::from(place);
            write_json(&root.join(task_report(&task.file)), &task)?;
        }
    }
    Ok(())
}

fn compose(encode: EncodeReport, tasks: Vec<TaskManifest>) -> Manifest {
    let columns: usize = encode.tables.iter().map(|table| table.columns.len()).sum();
    let foreign_keys: usize = encode.tables.iter().map(|table| table.foreign_keys.len()).sum();
    let num_texts = encode.num_encoded + tasks.iter().map(|task| task.num_texts).sum::<u32>();
    let mut manifest = Manifest {
        checksum: String::new(),
        format_version: FORMAT_VERSION,
        build_id: encode.build_id,
        name: encode.name,
        num_tables: encode.tables.len() as u32,
        num_columns: (columns + 2 * tasks.len()) as u32,
        num_foreign_keys: foreign_keys as u32,
        tables: encode.tables,
        time: encode.time,
        stats_until_us: encode.stats_until_us,
        tasks,
        vocabulary: VocabularyManifest { num_encoded: encode.num_encoded, num_texts },
        embedder: None,
        warnings: encode.warnings,
        files: std::collections::BTreeMap::new(),
    };
    for (idx, task) in manifest.tasks.iter_mut().enumerate() {
        number(task, idx, manifest.tables.len(), columns, foreign_keys);
        if task.kind == TaskKind::Cell {
            let anchor = &manifest.tables[task.anchor_table.idx()];
            if let Some(column) = anchor.columns.iter().find(|column| column.name == task.target_column) {
                task.target_column_id = column.id;
            }
        }
    }
    manifest
}

/// Gives the `idx`-th task its numbers after those of the encoded tables; a cell task uses the numbers of its anchor
/// table and leaves its own unused. See `documentation/batch.md`, "Ids".
fn number(task: &mut TaskManifest, idx: usize, tables: usize, columns: usize, foreign_keys: usize) {
    task.id = TaskId::from(idx);
    match task.kind {
        TaskKind::Cell => {
            task.table_id = task.anchor_table;
            (task.time_column_id, task.foreign_key_id) = (None, None);
        }
        TaskKind::Table => {
            task.table_id = TableId::from(tables + idx);
            task.time_column_id = task.observation_time_column.as_ref().map(|_| ColumnId::from(columns + 2 * idx));
            task.target_column_id = ColumnId::from(columns + 2 * idx + 1);
            task.foreign_key_id = Some(ForeignKeyId::from(foreign_keys + idx));
        }
    }
}

fn staged_tasks(root: &Path) -> Result<Vec<TaskManifest>> {
    let folder = root.join(TASK_FOLDER);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(&folder, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io(&folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read_json(path)).collect()
}

/// The texts of the vocabulary in the order of their ids, of a staged or published database.
///
/// # Errors
/// As [`staged_manifest`] and [`Database::open`].
pub fn vocab_texts(root: &Path) -> Result<Vec<String>> {
    if root.join(MANIFEST_FILE).exists() {
        let database = Database::open(root)?;
        let texts = database.manifest().vocabulary.num_texts;
        return (0..texts).map(|id| database.text(id)).collect();
    }
    let manifest = staged_manifest(root)?;
    let mut files = vec![FileReader::open(root, VOCABULARY_FILE, FileKind::Vocabulary)?];
    for task in manifest.tasks.iter().filter(|task| task.num_texts > 0) {
        files.push(FileReader::open(root, &task.file, FileKind::Task)?);
    }
    let mut texts = Vec::with_capacity(manifest.vocabulary.num_texts as usize);
    for file in &files {
        file.each_text(|_, text| {
            texts.push(text.to_owned());
            Ok(())
        })?;
    }
    Ok(texts)
}

/// One phrase per column id, of a staged or published database: what an embedder reads of a column.
///
/// # Errors
/// As [`staged_manifest`] and [`Manifest::read`].
pub fn column_phrases(root: &Path) -> Result<Vec<String>> {
    let manifest = any_manifest(root)?;
    let columns = manifest
        .tables
        .iter()
        .flat_map(|table| table.columns.iter().map(|column| phrase(&column.name, &table.name, &column.description)));
    let tasks = manifest.tasks.iter().flat_map(|task| {
        let time = task.observation_time_column.as_deref().unwrap_or("observation time");
        [phrase(time, &task.name, ""), phrase(&task.target_column, &task.name, &task.description)]
    });
    Ok(columns.chain(tasks).collect())
}

/// The manifest of a staged or published database.
pub(super) fn any_manifest(root: &Path) -> Result<Manifest> {
    if root.join(MANIFEST_FILE).exists() { Manifest::read(root) } else { staged_manifest(root) }
}

fn phrase(column: &str, table: &str, description: &str) -> String {
    let name = format!("{column} of {table}");
    if description.is_empty() || description == name { name } else { format!("{name}: {description}") }
}

/// Reads a stage file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::format(path, format!("damaged stage file: {error}")))
}

/// Writes a stage file, synced; it is the old one or the new one at every moment, and an existing one is not written
/// into, for it may have a second name.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    use std::io::Write;
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::io(path, error.into()))?;
    text.push(b'\n');
    let draft = path.with_extension("draft");
    let write = || {
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(|source| Error::io(path, source))
}

/// Removes a file that may or may not exist.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}
