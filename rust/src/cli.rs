//! How the native programs end: the text on the output stream, a mistake as one message on the other.

use std::io::Write;
use std::process::ExitCode;

use crate::error::Result;

/// Prints the text, or the error with exit code 2; exit code 1 when the text could not be written.
pub fn finish(text: Result<String>) -> ExitCode {
    match text {
        Ok(text) if std::io::stdout().write_all(text.as_bytes()).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            // a message that cannot be written has no other place to go
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}
