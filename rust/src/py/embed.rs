//! The Python class `Encoder`: the local model of texts on the processor.
#![allow(clippy::needless_pass_by_value)] // arguments arrive converted, as values

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::detach;
use crate::embed::Encoder;
use crate::error::{Error, Result};

/// The forward pass of all-MiniLM-L6-v2. It can be shared between threads.
///
/// In a box, because Python's allocator gives objects 16-byte places where an encoder wants a multiple of 64.
#[pyclass(frozen, name = "Encoder", module = "tributary._headwater")]
pub(super) struct PyEncoder(Box<Encoder>);

#[pymethods]
impl PyEncoder {
    #[new]
    #[pyo3(signature = (path, projection=None, *, instructions=None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        projection: Option<PyReadonlyArray2<'_, f32>>,
        instructions: Option<&str>,
    ) -> PyResult<Self> {
        let numbers = projection.map(|map| (map.as_array().iter().copied().collect::<Vec<_>>(), map.shape()[1]));
        detach(py, || {
            let projection = numbers.as_ref().map(|(numbers, dimension)| (numbers.as_slice(), *dimension));
            Encoder::open(&path, projection, instructions)
        })
        .map(|encoder| Self(Box::new(encoder)))
    }

    /// Numbers of a vector.
    #[getter]
    fn dimension(&self) -> usize {
        self.0.dimension()
    }

    /// The vectors of some texts, given as tokens one after the other and the number of tokens of each text.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'_, u32>,
        lengths: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let tokens = tokens.as_array().to_vec();
        let lengths = lengths.as_array().iter().map(|&length| size(length)).collect::<Result<Vec<_>>>()?;
        let shape = [lengths.len(), self.0.dimension()];
        let vectors = detach(py, || self.0.encode(&tokens, &lengths))?;
        vectors.into_pyarray(py).reshape(shape)
    }
}

fn size(length: i64) -> Result<usize> {
    usize::try_from(length).map_err(|_| Error::Argument(format!("a text cannot have {length} tokens")))
}
