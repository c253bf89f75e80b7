//! The only room that knows bytes: every binary file of a processed database is written and read here.
//!
//! A file is a 64-byte header, a table of sections, and the sections, each 64-byte aligned and hashed. What the
//! sections mean is laid out once per kind of file: [`record`] for the rows of a table, [`graph`], [`task`],
//! [`texts`] and [`vectors`]. Implements `documentation/format.md`.

mod file;
mod mmap;
pub mod record;

pub use file::{FileKind, FileReader, FileWriter, Section, SectionWriter, hash_file};
pub(crate) use mmap::prefetch_read;

/// The version of the format this build writes and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Sections of a table file.
pub mod table {
    use super::Section;

    /// `[num_rows, stride]` bytes; the rows, laid out by [`super::record::RecordLayout`].
    pub const RECORDS: Section = Section::new(1);
    /// `[num_rows]` i64 or u64 primary keys (kinds int and uint).
    pub const KEY_VALUES: Section = Section::new(2);
    /// `[num_rows + 1]` u64 ends of the primary keys in `KEY_BYTES` (kind string), starting with 0.
    pub const KEY_OFFSETS: Section = Section::new(3);
    /// UTF-8 bytes of the primary keys (kind string).
    pub const KEY_BYTES: Section = Section::new(4);
    /// `[num_rows]` u32 rows in ascending order of their primary keys.
    pub const KEY_ORDER: Section = Section::new(5);

    /// Ascending vocabulary ids a categorical or text column takes, u32; `column` counts the table's columns.
    pub const fn categories(column: u32) -> Section {
        Section::of(6, column)
    }
}

/// Sections of `graph.bin`: the children of every row, per foreign key.
pub mod graph {
    use super::Section;

    /// `[edges]` u32 child rows, grouped by parent (the parent's record says where), sorted by (time, row).
    pub const fn indices(foreign_key: u32) -> Section {
        Section::of(1, foreign_key)
    }

    /// `[edges]` i64 times of those children, microseconds; see [`super::record::Record::time`].
    pub const fn times(foreign_key: u32) -> Section {
        Section::of(2, foreign_key)
    }
}

/// Sections of a task file: its seeds and, per anchor row, its seeds in time order.
pub mod task {
    use super::Section;

    /// `[num_seeds]` u32 anchor rows.
    pub const ROWS: Section = Section::new(1);
    /// `[num_seeds]` i64 observation times, microseconds; [`i64::MAX`] is the end of time.
    pub const TIMES: Section = Section::new(2);
    /// `[num_seeds]` u8 splits: 0 train, 1 val, 2 test.
    pub const SPLITS: Section = Section::new(3);
    /// `[num_seeds]` f32 labels: z-score of a number or a time, 0 or 1, else 0.
    pub const VALUES: Section = Section::new(4);
    /// `[num_seeds]` u32 vocabulary ids of categorical and text labels, else `u32::MAX`.
    pub const VOCAB: Section = Section::new(5);
    /// `[num_seeds]` u8: 1 where there is no label.
    pub const IS_NULL: Section = Section::new(6);
    /// `[anchor rows + 1]` u32 positions in `INDICES`.
    pub const INDPTR: Section = Section::new(7);
    /// `[num_seeds]` u32 seeds grouped by anchor row, sorted by (time, seed).
    pub const INDICES: Section = Section::new(8);
    /// `[num_seeds]` i64 observation times of those seeds.
    pub const INDEX_TIMES: Section = Section::new(9);
    /// `[num_seeds]` i64 labels of a timestamp target, microseconds (empty otherwise).
    pub const LABEL_TIMES: Section = Section::new(10);
    /// `[1]` u32 vocabulary id of the first of the file's own texts.
    pub const FIRST_TEXT: Section = Section::new(11);
}

/// Sections that hold a list of texts: `vocab.bin`, the task files, and, as a list of one, what made the vectors.
pub mod texts {
    use super::Section;

    /// `[texts + 1]` u64 ends in `BYTES`, starting with 0.
    pub const OFFSETS: Section = Section::new(20);
    /// UTF-8 bytes.
    pub const BYTES: Section = Section::new(21);
}

/// Sections of `vocab_embeddings.bin` and `column_embeddings.bin`.
pub mod vectors {
    use super::Section;

    /// `[2]` u64: number of vectors, dimension.
    pub const SHAPE: Section = Section::new(1);
    /// `[number, dimension]` f16, row-major.
    pub const VALUES: Section = Section::new(2);
}
