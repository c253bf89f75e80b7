//! Index newtypes: a table, a column, a foreign key, a task and a row never mix.
//!
//! Tables, columns, foreign keys and tasks are numbered over the whole database in the order of `metadata.json`;
//! rows are numbered within their table in the order of the input files.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta] $name:ident),* $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The id as an array position.
            #[inline]
            pub const fn idx(self) -> usize {
                self.0 as usize
            }
        }

        impl From<usize> for $name {
            /// # Panics
            /// If `idx` does not fit in 32 bits; counts are checked against `u32::MAX` when a database is described.
            #[inline]
            fn from(idx: usize) -> Self {
                Self(u32::try_from(idx).expect("ids are checked to fit in 32 bits"))
            }
        }
    )*};
}

id! {
    /// A table of the database, or, after the last of them, the table of a task's seeds.
    TableId,
    /// A column over all tables; ignored columns have none.
    ColumnId,
    /// A foreign key over all tables, or, after the last, the link from a task's seeds to their anchor rows.
    ForeignKeyId,
    /// A task.
    TaskId,
    /// A row within its table.
    RowId,
}
