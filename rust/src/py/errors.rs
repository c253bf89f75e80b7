//! Native errors as Python exceptions: one match, so that a new cause fails to compile until it has its class.

use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyValueError};

use crate::error::Error;

create_exception!(tributary.errors, TributaryError, PyException, "The user's data or a processed file is at fault.");
create_exception!(
    tributary.errors,
    SchemaError,
    TributaryError,
    "`metadata.json`, a table or a label is not what it should be; the message names the place."
);
create_exception!(
    tributary.errors,
    FormatError,
    TributaryError,
    "A processed file is damaged, foreign or of another format version."
);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Io { path, source } => match source.raw_os_error() {
                // with a number, OSError becomes FileNotFoundError, PermissionError and so on by itself
                Some(number) => {
                    let reason = source.to_string();
                    let reason = reason.split(" (os error").next().unwrap_or_default().to_owned();
                    PyOSError::new_err((number, reason, path.display().to_string()))
                }
                None => PyOSError::new_err(message),
            },
            Error::Schema { .. } => SchemaError::new_err(message),
            Error::Format { .. } => FormatError::new_err(message),
            Error::Argument(_) => PyValueError::new_err(message),
            Error::Closed(_) => PyRuntimeError::new_err(message),
        }
    }
}
