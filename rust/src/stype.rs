//! Semantic types: what a column means, and the code it has in files and batches.

use serde::{Deserialize, Serialize};

/// The semantic type of a column. The discriminant is the code in files and batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Stype {
    /// A key; only its presence is encoded.
    Identifier = 0,
    /// A number, encoded as its z-score within the column.
    Numerical = 1,
    /// A moment, kept as microseconds since 1970-01-01 UTC.
    Timestamp = 2,
    /// True or false.
    Boolean = 3,
    /// One of few values, encoded as the vocabulary index of `<column> is <value>`.
    Categorical = 4,
    /// Free text, encoded as its vocabulary index.
    Text = 5,
}

/// What `metadata.json` calls the target of a task whose answer is a list of rows.
pub const LINK: &str = "link";

impl Stype {
    /// All stypes in the order of their codes.
    pub const ALL: [Self; 6] =
        [Self::Identifier, Self::Numerical, Self::Timestamp, Self::Boolean, Self::Categorical, Self::Text];

    /// The name used in `metadata.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identifier => "identifier",
            Self::Numerical => "numerical",
            Self::Timestamp => "timestamp",
            Self::Boolean => "boolean",
            Self::Categorical => "categorical",
            Self::Text => "text",
        }
    }

    /// The name as the stype of a task's target: who names rows by their identifiers predicts links.
    pub const fn target_name(self) -> &'static str {
        match self {
            Self::Identifier => LINK,
            _ => self.name(),
        }
    }

    /// The code in files and batches.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The stype of a name, or `None`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stype| stype.name() == name)
    }
}

impl std::fmt::Display for Stype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
