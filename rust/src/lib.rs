//! Headwater: relational databases as packed, memory-mapped stores, and the sampler that walks them.
//!
//! `preprocess` reads parquet tables described by a `metadata.json`, encodes every cell, links the rows by their
//! foreign keys and writes a processed database. [`Database`] opens one; the sampler walks it from a seed row to the
//! context that a model may see at the seed's time.
#![doc(html_no_source)]

/// Only XLA calls it, through the Python module.
#[cfg(any(feature = "python", test))]
#[cfg_attr(not(feature = "python"), allow(dead_code))]
mod attention;
mod available;
pub mod bitmap;
#[cfg(feature = "cli")]
pub mod cli;
pub mod csr;
mod database;
pub mod embed;
mod error;
pub mod format;
mod guard;
mod ids;
pub mod inspect;
mod manifest;
pub mod prefetch;
pub mod preprocess;
#[cfg(feature = "python")]
mod py;
pub mod sampler;
pub mod schema;
mod simd;
mod splits;
mod stype;
pub mod timestamp;

/// Only in the Python module; users of the library choose their own.
#[cfg(feature = "python")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use database::{
    ChildTimes, ChildrenView, Database, GRAPH_FILE, Key, TableView, TaskView, VOCABULARY_FILE, Vectors, VectorsFile,
    View, table_layout,
};
pub use error::{Error, Result, suggestion};
pub use format::FORMAT_VERSION;
pub use ids::{ColumnId, ForeignKeyId, RowId, TableId, TaskId};
pub use manifest::{
    ClassCount, ColumnManifest, ColumnStatistics, FileManifest, ForeignKeyManifest, KeyKind, LabelStatistics,
    MANIFEST_FILE, Manifest, Preview, SplitCounts, SplitPreview, TableManifest, TaskKind, TaskManifest, TimeStatistics,
    VocabularyManifest,
};
pub use stype::Stype;
