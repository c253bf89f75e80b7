//! What a person wants to see of a processed database: tables, columns, keys, tasks, and single rows decoded.
//!
//! [`Summary`] is plain data for machines, [`answer`] the same and its details as text or JSON, [`page`] as one page
//! for a browser; [`row`] turns one packed row back into the user's values. Nothing here decides what a model may
//! see. Implements `documentation/inspect.md`.

mod answer;
mod binning;
mod column;
mod fan_out;
mod files;
mod html;
mod neighborhood;
mod number;
mod row;
mod scan;
mod summary;
mod task;
mod text;
mod vocabulary;

pub use answer::{Options, answer, find_table, page, schema_page};
pub use binning::{Edges, Histogram, Scale};
pub use column::{TopValues, ValueCount};
pub use fan_out::FanOut;
pub use files::FileKindSize;
pub use row::{cell_value, key_json, row};
pub use summary::{ColumnSummary, ForeignKeySummary, Summary, TableSummary};
pub use task::{Preview, TaskSummary};
pub use vocabulary::Vocabulary;
