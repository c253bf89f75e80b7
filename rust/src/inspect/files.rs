//! What the files of a database are for, and how much of it each kind takes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::database::{Database, GRAPH_FILE, VOCABULARY_FILE, Vectors};
use crate::manifest::{MANIFEST_FILE, Manifest};

/// One kind of file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileKindSize {
    /// What the files hold.
    pub kind: &'static str,
    /// How many there are.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Their share of the whole, 0 to 1.
    pub share: f64,
}

/// Sizes by kind of file, the largest first; the manifest included.
pub(super) fn kinds(database: &Database, files: &BTreeMap<String, u64>) -> Vec<FileKindSize> {
    let manifest = std::fs::metadata(database.path().join(MANIFEST_FILE)).map_or(0, |metadata| metadata.len());
    let total = files.values().sum::<u64>() + manifest;
    let mut kinds: Vec<FileKindSize> = Vec::new();
    for (name, &bytes) in files.iter().map(|(name, bytes)| (name.as_str(), bytes)).chain([(MANIFEST_FILE, &manifest)]) {
        let kind = kind_of(database.manifest(), name);
        let place = kinds.iter().position(|known| known.kind == kind).unwrap_or_else(|| {
            kinds.push(FileKindSize { kind, files: 0, bytes: 0, share: 0.0 });
            kinds.len() - 1
        });
        kinds[place].files += 1;
        kinds[place].bytes += bytes;
    }
    for kind in &mut kinds {
        kind.share = if total == 0 { 0.0 } else { kind.bytes as f64 / total as f64 };
    }
    kinds.sort_by(|left, right| right.bytes.cmp(&left.bytes).then(left.kind.cmp(right.kind)));
    kinds
}

fn kind_of(manifest: &Manifest, name: &str) -> &'static str {
    match name {
        MANIFEST_FILE => "manifest",
        GRAPH_FILE => "graph",
        VOCABULARY_FILE => "vocabulary",
        _ if name == Vectors::Vocabulary.file() || name == Vectors::Column.file() => "vectors",
        _ if manifest.tables.iter().any(|table| table.file == name) => "tables",
        _ if manifest.tasks.iter().any(|task| task.file == name) => "tasks",
        _ => "notes of the stages",
    }
}
