//! The one public error: causes a caller can act on, each with its place and both values.

use std::path::{Path, PathBuf};

/// What went wrong, where, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// `metadata.json`, the tables or the labels are not what they should be.
    #[error("{place}: {message}")]
    Schema {
        /// Where: file, table, column, task.
        place: String,
        /// What was expected, what was found and what to do.
        message: String,
    },
    /// A processed file is damaged, foreign or of another version.
    #[error("{}: {message}; run `tributary preprocess` again", path.display())]
    Format {
        /// The processed file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// An argument of the caller is out of range or names something that does not exist.
    #[error("{0}")]
    Argument(String),
    /// The object was closed, or belongs to another process after a fork.
    #[error("{0}")]
    Closed(String),
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An I/O error with its path.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    /// A fault of the user's data or description.
    pub fn schema(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Schema { place: place.into(), message: message.into() }
    }

    /// A fault of a processed file.
    pub fn format(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_owned(), message: message.into() }
    }
}

/// ` (did you mean ...?)` for the nearest of `known`, or nothing when none is near.
pub fn suggestion<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let lower = unknown.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().max(lower.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}
