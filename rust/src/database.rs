//! An opened, checked, read-only database: the manifest and its files, mapped.
//!
//! Opening checks everything cheap: checksums of manifest and headers, the length of every section against the
//! manifest. [`Database::verify`] hashes every byte. Readers that touch many rows take a [`View`] once.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use xxhash_rust::xxh3::Xxh3;

use crate::available::available_memory;
use crate::error::{Error, Result};
pub use crate::format::Key;
use crate::format::packed::{Packed, TimeCodes, width_of};
use crate::format::record::{Cell, Record, RecordLayout, RecordShape};
use crate::format::{FileKind, FileReader, Keys, Residence, graph, hash_file, prefetch_read, table, task, vectors};
use crate::ids::{RowId, TableId, TaskId};
use crate::manifest::{Manifest, TableManifest};
use crate::stype::Stype;

/// The file of the vocabulary's texts.
pub const VOCABULARY_FILE: &str = "vocab.bin";
/// The file of the children of every row.
pub const GRAPH_FILE: &str = "graph.bin";

/// Which of the two files of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// One vector per text of the vocabulary.
    Vocabulary,
    /// One vector per column.
    Column,
}

impl Vectors {
    /// The name of the file within the database.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Vocabulary => "vocab_embeddings.bin",
            Self::Column => "column_embeddings.bin",
        }
    }
}

/// A processed database, open for reading; clones share the mapping.
#[derive(Clone, Debug)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    manifest: Manifest,
    build_id: u64,
    layouts: Vec<RecordLayout>,
    tables: Vec<FileReader>,
    graph: FileReader,
    vocabulary: FileReader,
    tasks: Vec<FileReader>,
}

/// The rows of one table, in place.
#[derive(Clone, Copy, Debug)]
pub struct TableView<'a> {
    layout: &'a RecordLayout,
    num_rows: usize,
    bytes: &'a [u8],
    values: &'a [u32],
}

impl<'a> TableView<'a> {
    /// The layout of the table's records.
    #[inline]
    pub fn layout(&self) -> &'a RecordLayout {
        self.layout
    }

    /// Number of rows.
    #[inline]
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// One row.
    ///
    /// # Panics
    /// If the table has no such row.
    #[inline]
    pub fn record(&self, row: RowId) -> Record<'a> {
        assert!(row.idx() < self.num_rows, "row {} of {}", row.0, self.num_rows);
        self.layout.read(&self.bytes[row.idx() * self.layout.stride()..], self.values)
    }

    /// Asks the processor to bring a row closer; nothing happens where there is no such row.
    #[inline]
    pub(crate) fn prefetch(&self, row: RowId) {
        const LINE: usize = 64;
        let start = row.idx() * self.layout.stride();
        let last = start + self.layout.stride().saturating_sub(1);
        prefetch_read(self.bytes, start);
        // the lines after the one that holds the first byte; mappings begin on a line, sections do, too
        for line in (start / LINE..last / LINE).take(4) {
            prefetch_read(self.bytes, (line + 1) * LINE);
        }
    }
}

/// The children by one foreign key; a parent's record says which range is its own.
#[derive(Clone, Copy, Debug)]
pub struct ChildrenView<'a> {
    /// Child rows, sorted by (time, row) within a parent.
    pub indices: Packed<'a>,
    /// Their times.
    pub times: ChildTimes<'a>,
}

/// The times of children.
#[derive(Clone, Copy, Debug)]
pub struct ChildTimes<'a> {
    codes: TimeCodes,
    numbers: Packed<'a>,
}

impl<'a> ChildTimes<'a> {
    /// The time of the `idx`-th child, microseconds; see [`Record::time`].
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub fn get(&self, idx: usize) -> i64 {
        self.codes.time(self.numbers.get(idx))
    }

    /// The times of a range.
    ///
    /// # Panics
    /// When one is reached that is not there.
    pub fn range(self, range: Range<usize>) -> impl ExactSizeIterator<Item = i64> + use<'a> {
        self.numbers.range(range).map(move |number| self.codes.time(number))
    }

    /// Whether all are the same, because the child table has no times.
    #[inline]
    pub(crate) fn is_constant(&self) -> bool {
        self.codes.width == 0
    }

    /// Asks the processor to bring the `idx`-th time closer.
    #[inline]
    pub(crate) fn prefetch(&self, idx: usize) {
        self.numbers.prefetch(idx);
    }
}

/// The seeds of one task.
#[derive(Clone, Copy, Debug)]
pub struct TaskView<'a> {
    /// Anchor row of each seed.
    pub rows: &'a [u32],
    /// Observation time of each seed, microseconds; [`i64::MAX`] is the end of time.
    pub times: &'a [i64],
    /// Split of each seed: 0 train, 1 val, 2 test.
    pub splits: &'a [u8],
    /// Label of each seed as a z-score, or 0 and 1, else 0.
    pub values: &'a [f32],
    /// Label of each seed as a vocabulary id, else `u32::MAX`.
    pub vocab: &'a [u32],
    /// 1 where a seed has no label.
    pub is_null: &'a [u8],
    /// Where the seeds of an anchor row lie in `indices`.
    pub indptr: &'a [u32],
    /// Seeds grouped by anchor row, sorted by (time, seed).
    pub indices: &'a [u32],
    /// Their observation times.
    pub index_times: &'a [i64],
    /// Labels of a timestamp target, microseconds; empty otherwise.
    pub label_times: &'a [i64],
    /// Where the list of each seed of a link task lies in `targets`; empty otherwise.
    pub target_indptr: &'a [u32],
    /// Rows of the target table that the seeds of a link task name, ascending within a list.
    pub targets: &'a [u32],
}

impl TaskView<'_> {
    /// The rows that a seed of a link task names; none for other tasks.
    ///
    /// # Panics
    /// If there is no such seed.
    #[inline]
    pub fn targets_of(&self, seed: usize) -> &[u32] {
        if self.target_indptr.is_empty() {
            return &[];
        }
        &self.targets[self.target_indptr[seed] as usize..self.target_indptr[seed + 1] as usize]
    }

    /// Where the seeds of an anchor row lie in `indices`: start and length.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub(crate) fn entity(&self, row: u32) -> (usize, usize) {
        let bounds = &self.indptr[row as usize..row as usize + 2];
        (bounds[0] as usize, (bounds[1] - bounds[0]) as usize)
    }

    /// Asks the processor to bring what [`Self::entity`] reads closer.
    #[inline]
    pub(crate) fn prefetch_entity(&self, row: u32) {
        prefetch_read(self.indptr, row as usize);
    }

    /// Asks the processor to bring an entity's list of seeds closer, as far as lists usually go.
    #[inline]
    pub(crate) fn prefetch_index(&self, start: usize, len: usize) {
        let end = start + len.saturating_sub(1);
        for idx in [start, (start + 8).min(end), (start + 16).min(end), end] {
            prefetch_read(self.index_times, idx);
        }
        prefetch_read(self.indices, start);
        prefetch_read(self.indices, (start + 16).min(end));
    }

    /// Asks the processor to bring the time and the label of a seed closer.
    #[inline]
    pub(crate) fn prefetch_label(&self, seed: usize, target: Stype) {
        prefetch_read(self.splits, seed);
        prefetch_read(self.is_null, seed);
        prefetch_read(self.times, seed);
        match target {
            Stype::Identifier => {}
            Stype::Numerical | Stype::Boolean => prefetch_read(self.values, seed),
            Stype::Categorical | Stype::Text => prefetch_read(self.vocab, seed),
            Stype::Timestamp => prefetch_read(self.label_times, seed),
        }
    }

    /// Asks the processor to bring everything about a seed closer.
    #[inline]
    pub(crate) fn prefetch_seed(&self, seed: usize, target: Stype) {
        prefetch_read(self.rows, seed);
        prefetch_read(self.values, seed);
        prefetch_read(self.vocab, seed);
        self.prefetch_label(seed, target);
    }
}

/// Every array a sampler reads, resolved once.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// By table id.
    pub tables: Vec<TableView<'a>>,
    /// By foreign-key id.
    pub children: Vec<ChildrenView<'a>>,
    /// By task id.
    pub tasks: Vec<TaskView<'a>>,
}

impl Database {
    /// Opens the processed database in the folder `root`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing; [`Error::Format`] when one is damaged or belongs to another database.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(root, Residence::Mapped)
    }

    /// As [`Self::open`]; with [`Residence::Memory`], rows, children and seeds are read into this process's own memory,
    /// which takes as much of it and makes sampling of large databases faster.
    ///
    /// # Errors
    /// As [`Self::open`], and [`Error::Io`] when there is not that much memory.
    pub fn open_in(root: impl AsRef<Path>, residence: Residence) -> Result<Self> {
        let root = root.as_ref();
        let manifest = Manifest::read(root)?;
        check_sizes(root, &manifest)?;
        let build_id = u64::from_str_radix(&manifest.build_id, 16)
            .map_err(|_| Error::format(root, "the build id of the manifest is not hexadecimal"))?;
        let residence = match residence {
            Residence::Mapped if fits_memory(&manifest) => Residence::HugePages,
            other => other,
        };
        let open = |name: &str, kind| -> Result<FileReader> {
            let residence = if kind == FileKind::Vocabulary { Residence::Mapped } else { residence };
            let file = FileReader::open_in(root, name, kind, residence)?;
            if file.build_id() == build_id {
                Ok(file)
            } else {
                Err(Error::format(file.path(), "belongs to another build of the database"))
            }
        };
        let tables = manifest.tables.iter().map(|table| open(&table.file, FileKind::Table)).collect::<Result<_>>()?;
        let tasks = manifest.tasks.iter().map(|task| open(&task.file, FileKind::Task)).collect::<Result<_>>()?;
        let inner = Inner {
            layouts: manifest.tables.iter().map(|table| table_layout(&manifest, table)).collect(),
            graph: open(GRAPH_FILE, FileKind::Graph)?,
            vocabulary: open(VOCABULARY_FILE, FileKind::Vocabulary)?,
            root: root.to_owned(),
            build_id,
            tables,
            tasks,
            manifest,
        };
        inner.view()?;
        (0..inner.tables.len()).try_for_each(|idx| inner.keys(idx).map(|_| ()))?;
        inner.check_texts()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The folder it was opened from.
    pub fn path(&self) -> &Path {
        &self.0.root
    }

    /// What the database says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Identity of the encoded content.
    pub fn build_id(&self) -> u64 {
        self.0.build_id
    }

    /// The arrays of every table, foreign key and task.
    pub fn view(&self) -> View<'_> {
        self.0.view().expect("every section was resolved when the database was opened")
    }

    /// The rows of one table.
    ///
    /// # Panics
    /// If there is no such table.
    pub fn table(&self, id: TableId) -> TableView<'_> {
        self.0.table(id.idx()).expect("every section was resolved when the database was opened")
    }

    /// The seeds of one task.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn task(&self, id: TaskId) -> TaskView<'_> {
        self.0.task(id.idx()).expect("every section was resolved when the database was opened")
    }

    /// The file of one table, for its keys and categories.
    ///
    /// # Panics
    /// If there is no such table.
    pub fn table_file(&self, id: TableId) -> &FileReader {
        &self.0.tables[id.idx()]
    }

    /// A text of the vocabulary.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such id.
    pub fn text(&self, id: u32) -> Result<String> {
        let mut idx = id as usize;
        let manifest = &self.0.manifest;
        if idx < manifest.vocabulary.num_encoded as usize {
            return self.0.vocabulary.text(idx);
        }
        idx -= manifest.vocabulary.num_encoded as usize;
        for (task, file) in manifest.tasks.iter().zip(&self.0.tasks) {
            if idx < task.num_texts as usize {
                return file.text(idx);
            }
            idx -= task.num_texts as usize;
        }
        Err(Error::Argument(format!(
            "vocabulary id {id} is out of range; the vocabulary has {} texts",
            manifest.vocabulary.num_texts
        )))
    }

    /// Opens one of the files of vectors: its file, number of vectors and dimension.
    ///
    /// # Errors
    /// [`Error::Io`] when the vectors were not made yet.
    pub fn vectors(&self, which: Vectors) -> Result<VectorsFile> {
        let manifest = &self.0.manifest;
        let file = FileReader::open(&self.0.root, which.file(), FileKind::Vectors)?;
        let shape = file.exactly::<u64>(vectors::SHAPE, 2)?;
        let expected = match which {
            Vectors::Vocabulary => manifest.vocabulary.num_texts,
            Vectors::Column => manifest.num_columns,
        };
        let (number, dimension) = (shape[0], shape[1]);
        if number != u64::from(expected) {
            return Err(Error::format(file.path(), format!("{number} vectors found, {expected} expected")));
        }
        let len = number
            .checked_mul(dimension)
            .and_then(|len| usize::try_from(len).ok())
            .ok_or_else(|| Error::format(file.path(), format!("{number} vectors of {dimension} overflow")))?;
        file.exactly::<f16>(vectors::VALUES, len)?;
        Ok(VectorsFile { file, number: number as usize, dimension: dimension as usize })
    }

    /// Hashes every byte of the database and answers one digest of all, in hex.
    ///
    /// # Errors
    /// [`Error::Format`] naming the first file that is not what was published.
    pub fn verify(&self) -> Result<String> {
        let mut all = Xxh3::new();
        all.update(self.0.manifest.checksum.as_bytes());
        for (name, expected) in &self.0.manifest.files {
            let path = self.0.root.join(name);
            let found = hash_file(&path)?;
            if found != expected.xxh3 {
                return Err(Error::format(&path, format!("hash {found} found, {} expected", expected.xxh3)));
            }
            all.update(name.as_bytes());
            all.update(found.as_bytes());
        }
        self.0
            .tables
            .iter()
            .chain(&self.0.tasks)
            .chain([&self.0.graph, &self.0.vocabulary])
            .try_for_each(FileReader::verify)?;
        self.0.check_content()?;
        Ok(format!("{:032x}", all.digest128()))
    }
}

/// An opened file of vectors.
#[derive(Debug)]
pub struct VectorsFile {
    file: FileReader,
    /// Number of vectors.
    pub number: usize,
    /// Values per vector.
    pub dimension: usize,
}

impl VectorsFile {
    /// `[number, dimension]` values, row-major.
    pub fn values(&self) -> &[f16] {
        self.file.values(vectors::VALUES).expect("checked when the file was opened")
    }
}

/// The record layout of a table, from the manifest alone.
pub fn table_layout(manifest: &Manifest, table: &TableManifest) -> RecordLayout {
    let is_temporal = |name: &String| table.columns.iter().position(|column| column.name == *name);
    let incoming = manifest.foreign_keys().filter(|(_, key)| key.parent_table == table.id);
    RecordLayout::new(&RecordShape {
        times: table.times,
        columns: table.columns.iter().map(|column| (column.stype, column.encoding)).collect(),
        temporal: table.temporal_column.as_ref().and_then(is_temporal),
        parents: table.foreign_keys.iter().map(|key| manifest.tables[key.parent_table.idx()].num_rows).collect(),
        children: incoming.map(|(_, key)| (key.edges, key.max_children)).collect(),
    })
}

fn check_sizes(root: &Path, manifest: &Manifest) -> Result<()> {
    for (name, expected) in &manifest.files {
        let path = root.join(name);
        let metadata = std::fs::metadata(&path).map_err(|source| Error::io(&path, source))?;
        if !metadata.is_file() || metadata.len() != expected.bytes {
            return Err(Error::format(&path, format!("{} bytes found, {} expected", metadata.len(), expected.bytes)));
        }
    }
    Ok(())
}

/// Whether the files that are read at random take no more than half of the memory that is available. Of others, most
/// of the 2 MiB that are read for a huge page would be gone again before they are used.
fn fits_memory(manifest: &Manifest) -> bool {
    let tables = manifest.tables.iter().map(|table| table.file.as_str());
    let names = tables.chain(manifest.tasks.iter().map(|task| task.file.as_str())).chain([GRAPH_FILE]);
    let bytes: u64 = names.filter_map(|name| manifest.files.get(name)).map(|file| file.bytes).sum();
    available_memory().is_some_and(|available| bytes <= available / 2)
}

impl Inner {
    fn table(&self, idx: usize) -> Result<TableView<'_>> {
        let (layout, file, num_rows) =
            (&self.layouts[idx], &self.tables[idx], self.manifest.tables[idx].num_rows as usize);
        let len = layout.section_len(num_rows).ok_or_else(|| {
            Error::format(&self.root, format!("table `{}`: {num_rows} rows overflow", self.manifest.tables[idx].name))
        })?;
        let values = file.values(table::VALUES)?;
        if !layout.fits(values.len()) {
            return Err(Error::format(file.path(), "values of a column lie outside of those of the table"));
        }
        Ok(TableView { layout, num_rows, bytes: file.exactly(table::RECORDS, len)?, values })
    }

    fn keys(&self, idx: usize) -> Result<Option<Keys<'_>>> {
        let description = &self.manifest.tables[idx];
        self.tables[idx].keys(description.key_kind, description.num_rows as usize)
    }

    fn task(&self, idx: usize) -> Result<TaskView<'_>> {
        let (file, description) = (&self.tasks[idx], &self.manifest.tasks[idx]);
        let seeds = description.num_seeds as usize;
        let anchors = self.manifest.tables[description.anchor_table.idx()].num_rows as usize;
        let label_times = if description.target_stype == Stype::Timestamp { seeds } else { 0 };
        let (target_indptr, targets) = match description.target_table {
            Some(_) => (file.exactly(task::TARGET_INDPTR, seeds + 1)?, file.values(task::TARGETS)?),
            None => Default::default(),
        };
        Ok(TaskView {
            rows: file.exactly(task::ROWS, seeds)?,
            times: file.exactly(task::TIMES, seeds)?,
            splits: file.exactly(task::SPLITS, seeds)?,
            values: file.exactly(task::VALUES, seeds)?,
            vocab: file.exactly(task::VOCAB, seeds)?,
            is_null: file.exactly(task::IS_NULL, seeds)?,
            indptr: file.exactly(task::INDPTR, anchors + 1)?,
            indices: file.exactly(task::INDICES, seeds)?,
            index_times: file.exactly(task::INDEX_TIMES, seeds)?,
            label_times: file.exactly(task::LABEL_TIMES, label_times)?,
            target_indptr,
            targets,
        })
    }

    fn view(&self) -> Result<View<'_>> {
        Ok(View {
            tables: (0..self.tables.len()).map(|idx| self.table(idx)).collect::<Result<_>>()?,
            children: self
                .manifest
                .foreign_keys()
                .map(|(child, key)| {
                    let (edges, codes) = (key.edges as usize, child.times);
                    let width = width_of(u64::from(child.num_rows));
                    let numbers = self.graph.packed(graph::times(key.id.0), codes.width, edges)?;
                    Ok(ChildrenView {
                        indices: self.graph.packed(graph::indices(key.id.0), width, edges)?,
                        times: ChildTimes { codes, numbers },
                    })
                })
                .collect::<Result<_>>()?,
            tasks: (0..self.tasks.len()).map(|idx| self.task(idx)).collect::<Result<_>>()?,
        })
    }

    fn check_texts(&self) -> Result<()> {
        let expected = self.manifest.tasks.iter().map(|task| task.num_texts);
        let expected = std::iter::once(self.manifest.vocabulary.num_encoded).chain(expected);
        let mut first_text = 0;
        for (idx, (file, expected)) in std::iter::once(&self.vocabulary).chain(&self.tasks).zip(expected).enumerate() {
            let found = file.num_texts()?;
            if found != expected as usize {
                return Err(Error::format(file.path(), format!("{found} texts found, {expected} expected")));
            }
            if idx > 0 && expected > 0 && file.exactly::<u32>(task::FIRST_TEXT, 1)? != [first_text] {
                return Err(Error::format(file.path(), format!("its texts do not begin with id {first_text}")));
            }
            first_text += expected;
        }
        Ok(())
    }

    /// Checks that every index points to something, that every list of children is in time order, and that parents
    /// and children agree.
    fn check_content(&self) -> Result<()> {
        let view = self.view()?;
        let fault = |what: String| Error::format(&self.root, what);
        for (table, description) in view.tables.iter().zip(&self.manifest.tables) {
            let incoming: Vec<_> = self.manifest.children_of(description.id).collect();
            for row in 0..table.num_rows() {
                let record = table.record(RowId::from(row));
                if let Some(column) = (0..description.columns.len()).find(|&column| !self.is_sound(record.cell(column)))
                {
                    let column = &description.columns[column].name;
                    return Err(fault(format!("`{}` row {row}: `{column}` has no such value", description.name)));
                }
                for (slot, key) in description.foreign_keys.iter().enumerate() {
                    let rows = self.manifest.tables[key.parent_table.idx()].num_rows;
                    if record.parent(slot).is_some_and(|parent| parent >= rows) {
                        return Err(fault(format!("`{}` row {row}: a parent is out of range", description.name)));
                    }
                }
                for (slot, key) in incoming.iter().enumerate() {
                    let children = &view.children[key.idx()];
                    let range = record.children(slot);
                    if range.end > children.indices.len() {
                        return Err(fault(format!("`{}` row {row}: children out of range", description.name)));
                    }
                    let (child_table, slot_of_key) = self.key_place(key.idx());
                    let child_table = &view.tables[child_table];
                    let (indices, times) = (children.indices.range(range.clone()), children.times.numbers.range(range));
                    let agree = times.clone().is_sorted()
                        && indices.zip(times).all(|(child, time)| {
                            (child as usize) < child_table.num_rows() && {
                                let child = child_table.record(RowId(child as u32));
                                child.time_code() == time && child.parent(slot_of_key) == Some(row as u32)
                            }
                        });
                    if !agree {
                        return Err(fault(format!("`{}` row {row}: children and parents disagree", description.name)));
                    }
                }
            }
        }
        for (task, description) in view.tasks.iter().zip(&self.manifest.tasks) {
            let anchors = self.manifest.tables[description.anchor_table.idx()].num_rows;
            let sound = task.rows.iter().all(|&row| row < anchors)
                && task.indptr.is_sorted()
                && task.indptr.first() == Some(&0)
                && task.indptr.last() == Some(&description.num_seeds)
                && task
                    .indices
                    .iter()
                    .zip(task.index_times)
                    .all(|(&seed, &time)| task.times.get(seed as usize) == Some(&time));
            if !sound {
                return Err(fault(format!("task `{}`: the index of its seeds is damaged", description.name)));
            }
            let Some(target) = description.target_table else { continue };
            let rows = self.manifest.tables[target.idx()].num_rows;
            let sound = task.target_indptr.is_sorted()
                && task.target_indptr.first() == Some(&0)
                && task.target_indptr.last().is_some_and(|&end| end as usize == task.targets.len())
                && task.targets.iter().all(|&row| row < rows)
                && (0..task.rows.len()).all(|seed| task.targets_of(seed).is_sorted_by(|one, other| one < other));
            if !sound {
                return Err(fault(format!("task `{}`: the lists of its seeds are damaged", description.name)));
            }
        }
        Ok(())
    }

    /// Whether a cell holds a number, or a text of the vocabulary.
    fn is_sound(&self, cell: Option<Cell>) -> bool {
        match cell {
            Some(Cell::Categorical(id) | Cell::Text(id)) => id < self.manifest.vocabulary.num_encoded,
            Some(Cell::Numerical(value)) => value.is_finite(),
            Some(Cell::Identifier | Cell::Timestamp(_) | Cell::Boolean(_)) | None => true,
        }
    }

    /// The table that holds a foreign key, and the key's position among that table's keys.
    fn key_place(&self, key: usize) -> (usize, usize) {
        let mut first = 0;
        for (idx, table) in self.manifest.tables.iter().enumerate() {
            if key < first + table.foreign_keys.len() {
                return (idx, key - first);
            }
            first += table.foreign_keys.len();
        }
        unreachable!("foreign-key ids were checked when the manifest was read")
    }
}

impl Database {
    /// The primary key of a row, or `None` where the table has no keys.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such row; [`Error::Format`] when the keys are damaged.
    pub fn key(&self, id: TableId, row: RowId) -> Result<Option<Key>> {
        let TableManifest { name, num_rows, .. } = &self.0.manifest.tables[id.idx()];
        if row.0 >= *num_rows {
            return Err(Error::Argument(format!("table `{name}` has {num_rows} rows, row {} was asked for", row.0)));
        }
        self.0.keys(id.idx())?.map(|keys| keys.key(row.idx())).transpose()
    }

    /// The row of a primary key, or `None` when there is none; keys of another kind match no row.
    ///
    /// # Errors
    /// [`Error::Format`] when the keys are damaged.
    pub fn find(&self, id: TableId, key: &Key) -> Result<Option<RowId>> {
        Ok(match self.0.keys(id.idx())? {
            Some(keys) => keys.find(key)?,
            None => None,
        })
    }
}
