//! The stages of preprocessing as Python functions.

use std::path::PathBuf;

use pyo3::prelude::*;

use super::detach;
use crate::database::Database;
use crate::schema::Schema;

/// Reads and checks a `metadata.json`, or the one in a folder; answers it with every default written out.
#[pyfunction]
pub(super) fn read_metadata(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    detach(py, || Ok(Schema::read(&path)?.normalised()))
}

/// Reads and hashes every byte of a processed database; answers one digest of all.
#[pyfunction]
pub(super) fn verify(py: Python<'_>, dir: PathBuf) -> PyResult<String> {
    detach(py, || Database::open(dir)?.verify())
}
