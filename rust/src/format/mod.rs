//! The only room that knows bytes: every binary file of a processed database is written and read here.
//!
//! A file is a 64-byte header, a table of sections, and the sections, each 64-byte aligned and hashed. What the
//! sections mean is laid out once per kind of file: [`record`] for the rows of a table and its keys in [`table`],
//! [`graph`], [`task`], [`texts`] and [`vectors`]; [`packed`] is how whole numbers lie in most of them. Implements `documentation/format.md`.

mod file;
mod keys;
pub(crate) mod mmap;
pub mod packed;
pub mod record;
mod text;

pub use file::{FileKind, FileReader, FileWriter, Residence, Section, SectionWriter, hash_file};
pub use keys::{Key, Keys, num_key_sections};
pub(crate) use mmap::{Scratch, leave_cache, prefetch_read};
pub use text::TextWriter;

/// The version of the format this build writes and the only one it reads.
pub const FORMAT_VERSION: u32 = 2;

/// Sections of a table file.
pub mod table {
    use super::Section;

    /// `[num_rows, stride]` bytes, then [`super::packed::TAIL`] zero bytes; the rows, laid out by
    /// [`super::record::RecordLayout`].
    pub const RECORDS: Section = Section::new(1);
    /// `[3]` u64: least key (integers), bytes of a number in `KEY_VALUES`, 1 where rows are in the order of their keys.
    pub const KEY_SHAPE: Section = Section::new(2);
    /// Packed. Integers: distance of each row's key to the least, empty where that is the row's number. Strings: ends
    /// of the keys in `KEY_BYTES`, starting with 0.
    pub const KEY_VALUES: Section = Section::new(3);
    /// UTF-8 bytes of the primary keys (kind string).
    pub const KEY_BYTES: Section = Section::new(4);
    /// Packed: rows in ascending order of their primary keys; empty where that is their own order.
    pub const KEY_ORDER: Section = Section::new(5);
    /// u32: distinct z-scores and vocabulary ids of the columns that have a dictionary.
    pub const VALUES: Section = Section::new(6);
}

/// Sections of `graph.bin`: the children of every row, per foreign key.
pub mod graph {
    use super::Section;

    /// `[edges]` packed child rows, grouped by parent (the parent's record says where), sorted by (time, row).
    pub const fn indices(foreign_key: u32) -> Section {
        Section::of(1, foreign_key)
    }

    /// `[edges]` packed times of those children, numbered as in their records.
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
    /// `[num_seeds + 1]` u32 positions in `TARGETS` (link tasks only).
    pub const TARGET_INDPTR: Section = Section::new(12);
    /// u32 rows of the target table that each seed names, ascending (link tasks only).
    pub const TARGETS: Section = Section::new(13);
}

/// Sections that hold a list of texts: `vocab.bin`, the task files, and, as a list of one, what made the vectors.
pub mod texts {
    use super::Section;

    /// `[blocks + 1, 3]` u64: texts, bytes in `BYTES` and decompressed bytes before each block, then in all.
    pub const BLOCKS: Section = Section::new(20);
    /// The compressed blocks, one after the other.
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
