//! The last stage: vectors are stored, tasks get their final vocabulary ids, and the manifest is written.
//!
//! The manifest is what makes a folder a database; it is written last, when everything it vouches for is on the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use half::f16;
use rayon::prelude::*;

use super::ENCODE_FILE;
use super::staged::{remove_if_there, staged_manifest};
use super::task_file::TaskFile;
use crate::database::{Database, Vectors};
use crate::error::{Error, Result};
use crate::format::{FileKind, FileReader, FileWriter, hash_file, leave_cache, vectors};
use crate::manifest::{FileManifest, MANIFEST_FILE, Manifest};
use crate::stype::Stype;

/// Turns a staged folder into a database: writes its manifest and syncs everything to disk; answers the build id.
///
/// # Errors
/// As [`staged_manifest`] and [`Database::open`], which has the last word on what was made.
pub fn publish(root: &Path) -> Result<String> {
    remove_if_there(&root.join(MANIFEST_FILE))?;
    let mut manifest = staged_manifest(root)?;
    place_texts(root, &mut manifest)?;
    manifest.embedder = embedder(root)?;
    manifest.files = files(root)?;
    manifest.write(root)?;
    sync_folders(root)?;
    Database::open(root)?;
    Ok(manifest.build_id)
}

/// Gives the texts of every task the vocabulary ids after those of the task before it.
fn place_texts(root: &Path, manifest: &mut Manifest) -> Result<()> {
    let mut first_text = manifest.vocabulary.num_encoded;
    let build_id = build_id(root, manifest)?;
    for task in &mut manifest.tasks {
        if task.num_texts > 0 {
            let mut file = TaskFile::read(root, &task.file)?;
            if file.first_text != first_text {
                file.move_texts(&task.name, first_text)?;
                file.write(root, &task.file, build_id)?;
            }
            if task.target_stype == Stype::Categorical {
                task.classes = file.classes();
            }
        }
        first_text += task.num_texts;
    }
    Ok(())
}

/// The build id of a manifest as a number.
pub(super) fn build_id(root: &Path, manifest: &Manifest) -> Result<u64> {
    u64::from_str_radix(&manifest.build_id, 16)
        .map_err(|_| Error::format(root.join(ENCODE_FILE), "the build id is not hexadecimal"))
}

/// What made the vectors, from the files of vectors themselves.
fn embedder(root: &Path) -> Result<Option<serde_json::Value>> {
    let mut found: Option<(PathBuf, serde_json::Value)> = None;
    for which in [Vectors::Vocabulary, Vectors::Column] {
        if !root.join(which.file()).exists() {
            continue;
        }
        let file = FileReader::open(root, which.file(), FileKind::Vectors)?;
        let maker: serde_json::Value = serde_json::from_str(&file.text(0)?)
            .map_err(|error| Error::format(file.path(), format!("the embedder is damaged: {error}")))?;
        match &found {
            Some((_, other)) if *other != maker => {
                return Err(Error::format(file.path(), format!("was made by {maker}, the other vectors by {other}")));
            }
            _ => found = Some((file.path().to_owned(), maker)),
        }
    }
    Ok(found.map(|(_, maker)| maker))
}

/// Size and hash of every file below `root` but the manifest, by its path relative to `root`.
fn files(root: &Path) -> Result<BTreeMap<String, FileManifest>> {
    let mut paths = Vec::new();
    walk(root, &mut |path, is_dir| {
        if !is_dir {
            paths.push(path.to_owned());
        }
        Ok(())
    })?;
    paths
        .par_iter()
        .map(|path| {
            let name = path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned);
            let name = name.ok_or_else(|| Error::Argument(format!("{}: the name is not UTF-8", path.display())))?;
            let bytes = std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
            let xxh3 = hash_file(path)?;
            leave_cache(path);
            Ok((name, FileManifest { bytes, xxh3 }))
        })
        .filter(|file| !file.as_ref().is_ok_and(|(name, _)| name == MANIFEST_FILE))
        .collect()
}

/// Visits every file and folder below `root`, and at last `root` itself.
fn walk(root: &Path, visit: &mut impl FnMut(&Path, bool) -> Result<()>) -> Result<()> {
    let fault = |source| Error::io(root, source);
    for entry in std::fs::read_dir(root).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let kind = entry.file_type().map_err(fault)?;
        if kind.is_dir() {
            walk(&entry.path(), visit)?;
        } else if kind.is_file() {
            visit(&entry.path(), false)?;
        } else {
            return Err(Error::Argument(format!("{}: not a regular file; remove it", entry.path().display())));
        }
    }
    visit(root, true)
}

fn sync_folders(root: &Path) -> Result<()> {
    walk(root, &mut |path, is_dir| {
        if is_dir {
            File::open(path).and_then(|folder| folder.sync_all()).map_err(|source| Error::io(path, source))?;
        }
        Ok(())
    })
}

/// Stores the vectors of the staged vocabulary or columns; `values` is `[number, dimension]`, row-major.
///
/// `embedder` describes as JSON what made them.
///
/// # Errors
/// [`Error::Argument`] when the number of vectors is not that of the texts, a value is not finite, or `embedder` is
/// no JSON.
pub fn write_embeddings(root: &Path, which: Vectors, values: &[f16], dimension: usize, embedder: &str) -> Result<()> {
    if root.join(MANIFEST_FILE).exists() {
        return Err(Error::Argument(format!("{} is published; vectors belong to a staged database", root.display())));
    }
    let manifest = staged_manifest(root)?;
    let (expected, what) = match which {
        Vectors::Vocabulary => (manifest.vocabulary.num_texts, "texts"),
        Vectors::Column => (manifest.num_columns, "columns"),
    };
    let number = values.len().checked_div(dimension).unwrap_or_default();
    if dimension == 0 || number * dimension != values.len() || number != expected as usize {
        return Err(Error::Argument(format!(
            "{number} vectors of dimension {dimension} for {expected} {what}; give one vector per text"
        )));
    }
    if let Some(idx) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::Argument(format!("vector {} of the {what} is not finite", idx / dimension)));
    }
    let embedder: serde_json::Value = serde_json::from_str(embedder)
        .map_err(|error| Error::Argument(format!("the embedder's description is no JSON: {error}")))?;
    remove_if_there(&root.join(which.file()))?;
    let mut file = FileWriter::create(root, which.file(), FileKind::Vectors, build_id(root, &manifest)?, 4)?;
    file.values(vectors::SHAPE, &[number as u64, dimension as u64])?;
    file.values(vectors::VALUES, values)?;
    file.texts(&[embedder.to_string()])?;
    file.finish()
}
