//! The stages of preprocessing as Python functions.
#![allow(clippy::needless_pass_by_value)] // arguments arrive converted, as values

use std::path::PathBuf;

use half::f16;
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::database::vectors_of;
use super::progress::watched;
use super::{detach, to_json};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::preprocess::{self, EncodeOptions};
use crate::schema::Schema;
use crate::timestamp;

/// Reads and checks a `metadata.json`, or the one in a folder; answers it with every default written out.
#[pyfunction]
pub(super) fn read_metadata(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    detach(py, || Ok(Schema::read(&path)?.normalised()))
}

/// A description as one HTML page; `tables` is the JSON that `inspect::schema_page` reads.
#[pyfunction]
pub(super) fn schema_page(py: Python<'_>, name: &str, tables: &str) -> PyResult<String> {
    detach(py, || crate::inspect::schema_page(name, tables))
}

/// Encodes the tables in `input_dir` into the empty folder `staging_dir`; answers a report as JSON.
///
/// `memory` is how many bytes of keys, links, times and texts stay on the heap before they go to scratch files in
/// `staging_dir`; by default a quarter of what is available.
///
/// `progress(table, rows_done, rows_total)` is called from time to time by the calling thread; what it raises ends
/// the stage and is raised here.
#[pyfunction]
#[pyo3(signature = (
    input_dir, staging_dir, *, metadata=None, threads=0, strict=false, stats_until=None, memory=None, progress=None
))]
#[allow(clippy::too_many_arguments)]
pub(super) fn encode(
    py: Python<'_>,
    input_dir: PathBuf,
    staging_dir: PathBuf,
    metadata: Option<PathBuf>,
    threads: usize,
    strict: bool,
    stats_until: Option<&str>,
    memory: Option<u64>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let options = EncodeOptions { metadata, threads, strict, stats_until: moment(stats_until)?, memory };
    let report =
        watched(py, progress.as_ref(), |progress| preprocess::encode(&input_dir, &staging_dir, &options, progress))?;
    to_json(&report)
}

/// A hash, in hex, of everything the encode stage depends on.
#[pyfunction]
#[pyo3(signature = (input_dir, *, metadata=None, strict=false, stats_until=None))]
pub(super) fn encode_fingerprint(
    py: Python<'_>,
    input_dir: PathBuf,
    metadata: Option<PathBuf>,
    strict: bool,
    stats_until: Option<&str>,
) -> PyResult<String> {
    let options = EncodeOptions { metadata, strict, stats_until: moment(stats_until)?, ..EncodeOptions::default() };
    detach(py, || preprocess::encode_fingerprint(&input_dir, &options))
}

fn moment(text: Option<&str>) -> Result<Option<i64>> {
    let parse = |text| {
        timestamp::parse(text).ok_or_else(|| {
            Error::Argument(format!(
                "stats_until `{text}` is no time; expected a date or time as 2020-01-31 or 2020-01-31 12:00:00"
            ))
        })
    };
    text.map(parse).transpose()
}

/// Writes the seeds of a task into a staged database; answers a report as JSON.
#[pyfunction]
#[pyo3(signature = (staging_dir, task_name, labels=None, *, metadata))]
pub(super) fn write_task(
    py: Python<'_>,
    staging_dir: PathBuf,
    task_name: &str,
    labels: Option<PathBuf>,
    metadata: &str,
) -> PyResult<String> {
    let report = detach(py, || preprocess::write_task(&staging_dir, task_name, labels.as_deref(), metadata))?;
    to_json(&report)
}

/// Puts the staged tasks in the order of the description, which gives them their numbers.
#[pyfunction]
#[pyo3(signature = (staging_dir, *, metadata))]
pub(super) fn order_tasks(py: Python<'_>, staging_dir: PathBuf, metadata: &str) -> PyResult<()> {
    detach(py, || preprocess::order_tasks(&staging_dir, metadata))
}

/// What the encode stage would read and make, as JSON, and every distinct text of the tables, if `texts` asks for them.
#[pyfunction]
#[pyo3(signature = (input_dir, *, metadata=None, threads=0, texts=true, progress=None))]
pub(super) fn survey(
    py: Python<'_>,
    input_dir: PathBuf,
    metadata: Option<PathBuf>,
    threads: usize,
    texts: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, Vec<String>)> {
    let options = EncodeOptions { metadata, threads, ..EncodeOptions::default() };
    let work = |progress: preprocess::Progress<'_>| preprocess::survey(&input_dir, &options, texts, progress);
    let (found, texts) = watched(py, progress.as_ref(), work)?;
    Ok((to_json(&found)?, texts))
}

/// Writes the manifest of a staged database; answers the build id.
#[pyfunction]
pub(super) fn publish(py: Python<'_>, staging_dir: PathBuf) -> PyResult<String> {
    detach(py, || preprocess::publish(&staging_dir))
}

/// The texts of the vocabulary in the order of their ids, of a staged or published database.
#[pyfunction]
pub(super) fn vocab_texts(py: Python<'_>, dir: PathBuf) -> PyResult<Vec<String>> {
    detach(py, || preprocess::vocab_texts(&dir))
}

/// Where texts of the vocabulary occur, of a staged or published database: a JSON list of `TextPlace`.
#[pyfunction]
pub(super) fn text_places(py: Python<'_>, dir: PathBuf, texts: Vec<u32>) -> PyResult<String> {
    to_json(&detach(py, || preprocess::text_places(&dir, &texts))?)
}

/// One phrase per column id, of a staged or published database.
#[pyfunction]
pub(super) fn column_phrases(py: Python<'_>, dir: PathBuf) -> PyResult<Vec<String>> {
    detach(py, || preprocess::column_phrases(&dir))
}

/// Stores the vectors of the vocabulary (`vocab`) or of the columns (`column`) of a staged database.
#[pyfunction]
pub(super) fn write_embeddings(
    py: Python<'_>,
    dir: PathBuf,
    which: &str,
    array: PyReadonlyArray2<'_, f16>,
    embedder_json: &str,
) -> PyResult<()> {
    let (which, dimension) = (vectors_of(which)?, array.shape()[1]);
    let view = array.as_array();
    let copied: Vec<f16> = if view.is_standard_layout() { Vec::new() } else { view.iter().copied().collect() };
    // row-major memory is used in place; `PyReadonlyArray::as_slice` would take column-major memory as well
    let values = view.to_slice().unwrap_or(&copied);
    detach(py, || preprocess::write_embeddings(&dir, which, values, dimension, embedder_json))
}

/// Reads and hashes every byte of a processed database; answers one digest of all.
#[pyfunction]
pub(super) fn verify(py: Python<'_>, dir: PathBuf) -> PyResult<String> {
    detach(py, || Database::open(dir)?.verify())
}
