//! The manifest: what a processed database says of itself in its `metadata.json`.
//!
//! It owns the description every reader needs: tables, columns with their statistics, keys, tasks, and the size and
//! hash of every file. Files hold bytes; their meaning is here. Implements `documentation/format.md`, "Manifest".

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};
use crate::format::FORMAT_VERSION;
use crate::format::packed::TimeCodes;
use crate::format::record::CellEncoding;
use crate::ids::{ColumnId, ForeignKeyId, TableId, TaskId};
use crate::stype::Stype;

/// A processed database, described.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// xxh3-128 of the manifest's text with this value replaced by zeros; filled in by the writer.
    pub checksum: String,
    /// The version of the format, [`crate::FORMAT_VERSION`].
    pub format_version: u32,
    /// Identity of the encoded content; every binary file repeats it.
    pub build_id: String,
    /// The user's name of the database.
    pub name: String,
    /// Tables in the order of their ids.
    pub tables: Vec<TableManifest>,
    /// Statistics over every timestamp of the database.
    pub time: TimeStatistics,
    /// Rows from this time on do not count in the statistics of columns, microseconds; `None`: all rows count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_until_us: Option<i64>,
    /// Tasks in the order of their ids.
    pub tasks: Vec<TaskManifest>,
    /// Sizes of the vocabulary.
    pub vocabulary: VocabularyManifest,
    /// Tables without those of tasks.
    pub num_tables: u32,
    /// Columns, those of tasks included.
    pub num_columns: u32,
    /// Foreign keys without those of tasks.
    pub num_foreign_keys: u32,
    /// What made the vectors, as the embedder describes itself; `None` before they are made.
    pub embedder: Option<serde_json::Value>,
    /// What the encode stage had to tell the user, in the order found.
    pub warnings: Vec<String>,
    /// Every other file of the database by its path relative to the manifest.
    pub files: BTreeMap<String, FileManifest>,
}

/// One file, as the manifest vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileManifest {
    /// Its length.
    pub bytes: u64,
    /// xxh3-128 of its bytes, in hex.
    pub xxh3: String,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableManifest {
    /// Its number.
    pub id: TableId,
    /// Its name in the user's words.
    pub name: String,
    /// What the user says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its packed file, relative to the manifest.
    pub file: String,
    /// Number of rows.
    pub num_rows: u32,
    /// Its primary key column, if it has one.
    pub primary_key: Option<String>,
    /// How primary keys are stored.
    pub key_kind: KeyKind,
    /// The column that says when a row came into being.
    pub temporal_column: Option<String>,
    /// Rows without a time are visible to every seed instead of to none.
    pub null_time_visible: bool,
    /// How the times of the rows are numbered.
    pub times: TimeCodes,
    /// Encoded columns in the order of `metadata.json`; ignored columns are left out.
    pub columns: Vec<ColumnManifest>,
    /// Foreign keys in the order of their columns.
    pub foreign_keys: Vec<ForeignKeyManifest>,
}

/// How the primary keys of a table are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// The table has no primary key.
    None,
    /// Signed 64-bit integers.
    Int,
    /// Unsigned 64-bit integers (some key exceeds the signed range).
    Uint,
    /// Byte strings (UTF-8).
    String,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnManifest {
    /// Its number over the whole database.
    pub id: ColumnId,
    /// Its name in the user's words.
    pub name: String,
    /// Its semantic type.
    pub stype: Stype,
    /// What the user says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its statistics.
    pub statistics: ColumnStatistics,
    /// How its cells are stored.
    pub encoding: CellEncoding,
}

/// What was counted while a column was encoded. Fields that do not apply to the stype are `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnStatistics {
    /// Cells without a value, NaN and infinities included.
    pub nulls: u64,
    /// NaN and infinite cells among the nulls (numerical).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_finite: Option<u64>,
    /// Moments beyond the range of microseconds among the nulls (timestamp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<u64>,
    /// Population mean of the finite values (numerical).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Population standard deviation (numerical); 0 for a constant column, whose z-scores are 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Smallest value (numerical).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest value (numerical).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Earliest moment, microseconds (timestamp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_us: Option<i64>,
    /// Latest moment, microseconds (timestamp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_us: Option<i64>,
    /// True cells (boolean).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_count: Option<u64>,
    /// Distinct values (categorical and text).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
}

/// One foreign key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignKeyManifest {
    /// Its number over the whole database.
    pub id: ForeignKeyId,
    /// The column of this table that holds it.
    pub column: String,
    /// The table it points to.
    pub parent_table: TableId,
    /// Rows whose key names an existing parent.
    pub edges: u64,
    /// Rows whose key names no existing parent; they have no edge.
    pub dangling: u64,
    /// Rows without a key.
    pub null: u64,
    /// The most rows that point to one parent.
    pub max_children: u64,
}

/// Mean and standard deviation over every timestamp cell of the database, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeStatistics {
    /// Mean, microseconds since 1970-01-01 UTC.
    pub mean_us: f64,
    /// Population standard deviation, microseconds; 0 when there is no more than one moment.
    pub std_us: f64,
}

impl TimeStatistics {
    /// The z-score of a moment; 0 when the deviation is 0.
    #[inline]
    pub fn z_score(&self, time_us: i64) -> f32 {
        if self.std_us > 0.0 { ((time_us as f64 - self.mean_us) / self.std_us) as f32 } else { 0.0 }
    }
}

/// How a task gets its seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Seeds and labels come from a query or a table of labels.
    Table,
    /// The task is to fill in a column of the anchor table.
    Cell,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskManifest {
    /// Its number.
    pub id: TaskId,
    /// Its name in the user's words.
    pub name: String,
    /// What the user says of the target.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its packed file, relative to the manifest.
    pub file: String,
    /// How it gets its seeds.
    pub kind: TaskKind,
    /// The table of the entities.
    pub anchor_table: TableId,
    /// The column of the labels that holds the entity's primary key.
    pub anchor_key: Option<String>,
    /// The column to predict.
    pub target_column: String,
    /// Its semantic type; identifier, called `link`, where the answer is a list of rows.
    #[serde(with = "target_stype")]
    pub target_stype: Stype,
    /// The table whose rows the seeds of a link task name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target_table: Option<TableId>,
    /// How many of them an answer names (link task).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub top_k: Option<u32>,
    /// The column of the labels that holds the observation time.
    pub observation_time_column: Option<String>,
    /// Microseconds after the observation time at which a label is known; `None`: never shown to other seeds.
    pub horizon_us: Option<i64>,
    /// Columns no context of this task may show.
    pub remove_columns: Vec<ColumnId>,
    /// The metric the user judges by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metric: Option<String>,
    /// The label SQL, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub query: Option<String>,
    /// The table of the seeds (kind table), or the anchor table (kind cell).
    pub table_id: TableId,
    /// The column to predict, by number.
    pub target_column_id: ColumnId,
    /// The observation time as a column of the seeds' table (kind table with observation times).
    pub time_column_id: Option<ColumnId>,
    /// The link from a seed to its anchor row (kind table).
    pub foreign_key_id: Option<ForeignKeyId>,
    /// Seeds.
    pub num_seeds: u32,
    /// Seeds per split.
    pub splits: SplitCounts,
    /// Z-score of numerical labels (training labels; kind cell: those of the column); mean 0 and std 1 for the rest.
    pub statistics: LabelStatistics,
    /// Training labels: share of true ones (boolean target).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base_rate: Option<f64>,
    /// Vocabulary ids the target takes (categorical target), ascending.
    pub classes: Vec<u32>,
    /// Texts the task adds to the vocabulary.
    pub num_texts: u32,
    /// What the labels look like, per split.
    #[serde(default)]
    pub preview: Preview,
    /// What materialising the labels had to tell the user.
    pub warnings: Vec<String>,
}

/// The stype of a target under the name it has as one.
mod target_stype {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::stype::Stype;

    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
    pub(super) fn serialize<S: Serializer>(stype: &Stype, serializer: S) -> Result<S::Ok, S::Error> {
        stype.target_name().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Stype, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = Stype::ALL.into_iter().find(|stype| stype.target_name() == name);
        found.ok_or_else(|| D::Error::custom(format!("unknown target_stype `{name}`")))
    }
}

/// What the labels of a task look like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    /// Training labels.
    pub train: SplitPreview,
    /// Validation labels.
    pub val: SplitPreview,
    /// Test labels.
    pub test: SplitPreview,
}

/// What the labels of one split look like, in the user's units. Fields that do not apply to the stype are `None`, as
/// all but the counts are in a split without seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitPreview {
    /// Seeds.
    pub rows: u64,
    /// Labels or rows that became no seed because the target is null.
    pub nulls: u64,
    /// Earliest observation time, microseconds, of seeds that have one before the end of time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_time_us: Option<i64>,
    /// Latest of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_time_us: Option<i64>,
    /// Share of true labels (boolean).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_rate: Option<f64>,
    /// Mean (numerical).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Population standard deviation (numerical).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Minimum, quantiles 0.05, 0.25, 0.5, 0.75, 0.95, and maximum (numerical).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantiles: Option<[f64; 7]>,
    /// The same in microseconds (timestamp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantiles_us: Option<[i64; 7]>,
    /// Distinct labels (categorical and text).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<u64>,
    /// Rows that a label names, on average (link task).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_links: Option<f64>,
    /// Distinct rows that labels name (link task).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_targets: Option<u64>,
    /// The commonest labels, at most ten, commonest first (categorical and text).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassCount>,
}

/// How often a label occurs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassCount {
    /// The label as text of the vocabulary, at most 200 characters of it.
    pub value: String,
    /// Seeds that have it.
    pub count: u64,
}

/// Names of the splits by their code in task files.
pub const SPLITS: [&str; 3] = ["train", "val", "test"];

/// Seeds per split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitCounts {
    /// Training seeds.
    pub train: u32,
    /// Validation seeds.
    pub val: u32,
    /// Test seeds.
    pub test: u32,
}

/// The scale of numerical labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelStatistics {
    /// Subtracted from a label.
    pub mean: f64,
    /// Divides a label; 0 for constant labels, whose z-scores are 0.
    pub std: f64,
}

/// Sizes of the vocabulary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularyManifest {
    /// Texts of the encode stage, in `vocab.bin`.
    pub num_encoded: u32,
    /// Those and the ones of the tasks, in the order of the tasks.
    pub num_texts: u32,
}

impl Manifest {
    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&TableManifest> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The task of a name.
    pub fn task(&self, name: &str) -> Option<&TaskManifest> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// Every foreign key with the table that holds it, in the order of their ids.
    pub fn foreign_keys(&self) -> impl Iterator<Item = (&TableManifest, &ForeignKeyManifest)> {
        self.tables.iter().flat_map(|table| table.foreign_keys.iter().map(move |key| (table, key)))
    }

    /// Foreign keys that point to a table, in the order of their ids.
    pub fn children_of(&self, table: TableId) -> impl Iterator<Item = ForeignKeyId> {
        self.foreign_keys().filter(move |(_, key)| key.parent_table == table).map(|(_, key)| key.id)
    }

    /// The most foreign keys any table has, the `P` of a batch; at least 1.
    pub fn max_parents(&self) -> usize {
        self.tables.iter().map(|table| table.foreign_keys.len()).max().unwrap_or(0).max(1)
    }
}

/// The name of the manifest within the database.
pub const MANIFEST_FILE: &str = "metadata.json";

const NO_CHECKSUM: &str = "00000000000000000000000000000000";

impl Manifest {
    /// Reads and checks the manifest of the database at `root`.
    ///
    /// # Errors
    /// [`Error::Io`] when there is none; [`Error::Format`] when it is damaged, inconsistent or of another version.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(MANIFEST_FILE);
        if !std::fs::metadata(&path).map_err(|source| Error::io(&path, source))?.is_file() {
            return Err(Error::format(&path, "expected a regular file"));
        }
        let bytes = std::fs::read(&path).map_err(|source| Error::io(&path, source))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::format(&path, "not UTF-8"))?;
        Self::parse(text).map_err(|message| Error::format(&path, message))
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = serde_json::from_str(text)
            .map_err(|error| format!("not the manifest of a processed database ({error})"))?;
        if format_version != FORMAT_VERSION {
            return Err(format!("format version {format_version} found, this build reads version {FORMAT_VERSION}"));
        }
        let manifest: Self = serde_json::from_str(text).map_err(|error| format!("damaged manifest: {error}"))?;
        if manifest.checksum.len() != NO_CHECKSUM.len()
            || digest(&text.replacen(&manifest.checksum, NO_CHECKSUM, 1)) != manifest.checksum
        {
            return Err("the manifest does not match its checksum".into());
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks that every id is where readers look for it.
    fn check(&self) -> Result<(), String> {
        let tables = self.tables.len();
        let tables_in_order = self.tables.iter().enumerate().all(|(idx, table)| table.id.idx() == idx);
        let keys_in_order = self.foreign_keys().enumerate().all(|(idx, (_, key))| key.id.idx() == idx);
        let columns = || self.tables.iter().flat_map(|table| &table.columns);
        let columns_in_order = columns().enumerate().all(|(idx, column)| column.id.idx() == idx);
        let tasks_in_order = self.tasks.iter().enumerate().all(|(idx, task)| task.id.idx() == idx);
        let parents_exist = self.foreign_keys().all(|(_, key)| key.parent_table.idx() < tables);
        let counts =
            (self.num_tables as usize, self.num_foreign_keys as usize) == (tables, self.foreign_keys().count());
        let tasks_fit = self.tasks.iter().all(|task| {
            let seeds = u64::from(task.splits.train) + u64::from(task.splits.val) + u64::from(task.splits.test);
            let own_table = tables + task.id.idx();
            task.anchor_table.idx() < tables
                && task.target_table.is_none_or(|table| table.idx() < tables && task.kind == TaskKind::Table)
                && task.target_table.is_some() == (task.target_stype == Stype::Identifier)
                && seeds == u64::from(task.num_seeds)
                && task.target_column_id.0 < self.num_columns
                && match task.kind {
                    TaskKind::Cell => task.table_id == task.anchor_table,
                    TaskKind::Table => task.table_id.idx() == own_table && task.foreign_key_id.is_some(),
                }
        });
        let encodings_known = self.tables.iter().all(|table| table.times.width <= 8)
            && columns().all(|column| column.encoding.is_sound(column.stype));
        let texts: u64 = self.tasks.iter().map(|task| u64::from(task.num_texts)).sum();
        let vocabulary = texts + u64::from(self.vocabulary.num_encoded) == u64::from(self.vocabulary.num_texts);
        if tables_in_order
            && keys_in_order
            && columns_in_order
            && tasks_in_order
            && parents_exist
            && encodings_known
            && counts
            && tasks_fit
            && vocabulary
            && columns().count() <= self.num_columns as usize
        {
            Ok(())
        } else {
            Err("the manifest contradicts itself".into())
        }
    }

    /// Fills in the checksum and writes the manifest of the database at `root`, synced to disk.
    pub fn write(&mut self, root: &Path) -> Result<()> {
        self.checksum = NO_CHECKSUM.into();
        let text = |manifest: &Self| serde_json::to_string_pretty(manifest).expect("a manifest is plain data") + "\n";
        self.checksum = digest(&text(self));
        let path = root.join(MANIFEST_FILE);
        let write = || {
            let mut file = std::fs::File::create(&path)?;
            file.write_all(text(self).as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| Error::io(&path, source))
    }
}

fn digest(text: &str) -> String {
    format!("{:032x}", xxh3_128(text.as_bytes()))
}
