//! The Python module `tributary._headwater`: converts arguments and results, decides nothing.
//!
//! Every call that reads, writes or computes goes through [`detach`], so that other Python threads run meanwhile.
//! Panics become `PanicException`; no profile that builds this module aborts.

mod database;
mod embed;
mod errors;
mod preprocess;
mod progress;
mod sampler;
mod xla;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::error::Result;
use crate::format::FORMAT_VERSION;
use crate::sampler::BATCH_FIELDS;
use crate::stype::Stype;

/// Runs `work` without the GIL, maps its error, and lets a signal that came meanwhile take effect.
fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let result = py.detach(work)?;
    py.check_signals()?;
    Ok(result)
}

/// A report as JSON.
fn to_json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymodule]
mod _headwater {
    #[pymodule_export]
    use super::database::PyDatabase;
    #[pymodule_export]
    use super::embed::PyEncoder;
    #[pymodule_export]
    use super::errors::{FormatError, SchemaError, TributaryError};
    #[pymodule_export]
    use super::preprocess::{
        column_phrases, encode, encode_fingerprint, order_tasks, publish, read_metadata, schema_page, survey,
        text_places, verify, vocab_texts, write_embeddings, write_task,
    };
    #[pymodule_export]
    use super::sampler::PySampler;
    #[pymodule_export]
    use super::xla::xla_handlers;

    use super::{Bound, PyModule, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::add_constants(module)
    }
}

fn add_constants(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("FORMAT_VERSION", FORMAT_VERSION)?;
    module.add("STYPES", PyTuple::new(py, Stype::ALL.map(Stype::name))?)?;
    let fields = PyList::empty(py);
    for field in BATCH_FIELDS {
        let axes = PyTuple::new(py, field.axes.iter().map(|axis| axis.name()))?;
        fields.append((field.name, field.dtype.name(), axes))?;
    }
    module.add("BATCH_FIELDS", fields)
}
