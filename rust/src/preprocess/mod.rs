//! Parquet tables and `metadata.json` -> the files of a processed database.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::manifest::{TableManifest, TimeStatistics};

/// What the encode stage leaves in staging for the later stages.
pub const ENCODE_FILE: &str = "encode.json";

/// Choices of the encode stage.
#[derive(Clone, Debug, Default)]
pub struct EncodeOptions {
    /// The description, when it is not `metadata.json` in the input folder.
    pub metadata: Option<PathBuf>,
    /// Worker threads; 0 takes one per core. The output does not depend on it.
    pub threads: usize,
    /// A dangling foreign key is an error instead of a counted row without an edge.
    pub strict: bool,
    /// Means and deviations come only from rows before this time, microseconds; rows of tables without times count.
    pub stats_until: Option<i64>,
}

/// What the encode stage made, kept in [`ENCODE_FILE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeReport {
    /// The user's name of the database.
    pub name: String,
    /// Identity of the encoded content, 16 hex digits.
    pub build_id: String,
    /// Tables in the order of their ids.
    pub tables: Vec<TableManifest>,
    /// Statistics over every timestamp of the database.
    pub time: TimeStatistics,
    /// Texts in `vocab.bin`.
    pub num_encoded: u32,
    /// What the user should know, in the order found.
    pub warnings: Vec<String>,
}

/// Told of a table's name, its rows done and its rows in total from time to time; an error ends the stage.
pub type Progress<'a> = &'a (dyn Fn(&str, u64, u64) -> Result<()> + Sync);
