//! The labels of a task: a parquet file with keys, observation times, targets and perhaps splits.
//!
//! It is read like any table, under the name of the task, so that a label means what a cell of the same type means.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, OffsetSizeTrait};
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::decode::{BadCell, NO_BOOLEAN, NO_TIME, booleans, categories, moments, numbers, texts};
use super::keys::{KeyRef, each_key};
use super::kind::ValueKind;
use super::memory::Memory;
use super::seeds::Label;
use super::source::{TableSource, element};
use super::vocabulary::{BatchTexts, NO_TEXT, Vocabulary};
use crate::database::Key;
use crate::error::{Error, Result, suggestion};
use crate::guard::guarded;
use crate::manifest::{KeyKind, TableManifest};
use crate::schema::{ColumnSchema, TableSchema, TaskSchema};
use crate::stype::Stype;

/// The optional column that says which split a label belongs to.
const SPLIT_COLUMN: &str = "split";

/// What messages call the column of the answer.
const TARGET_ROLE: &str = "target_column";

/// Labels in the order of their file.
pub(super) struct Labels {
    /// Key of the entity, `None` for null.
    pub(super) keys: Vec<Option<Key>>,
    /// Observation time, [`NO_TIME`] for null; `None` where the task names no such column.
    pub(super) times: Option<Vec<i64>>,
    /// Answer, `None` for null; empty for link tasks.
    pub(super) answers: Vec<Option<Label>>,
    /// Keys of the rows that the labels of a link task name; `None` for null.
    pub(super) targets: Vec<Option<Key>>,
    /// Where each label's keys end in `targets`; empty for other tasks.
    pub(super) target_ends: Vec<usize>,
    /// Texts of the answers, sorted; empty for targets that are no texts.
    pub(super) texts: Vec<String>,
    /// Name of the split, `None` for null; `None` where the file has no such column.
    pub(super) splits: Option<Vec<Option<String>>>,
}

/// What is collected while batches come in.
struct Collector<'a> {
    task: &'a TaskSchema,
    labels: Labels,
    vocabulary: Vocabulary,
    split_names: Vocabulary,
}

impl Labels {
    /// Reads the labels of a task over the entities in `anchor`; those of a link task name rows of `target`.
    ///
    /// # Errors
    /// [`Error::Schema`] naming the task and column whose labels cannot be read as it says.
    pub(super) fn read(
        task: &TaskSchema,
        anchor: &TableManifest,
        target: Option<&TableManifest>,
        path: &Path,
    ) -> Result<Self> {
        let table = label_table(task, path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let of_task = |error| of_task(error, task);
        let source = TableSource::open(folder, &table, &mut Vec::new()).map_err(of_task)?;
        for (column, &kind) in table.columns.iter().zip(&source.kinds) {
            let is_anchor = Some(&column.name) == task.anchor_key.as_ref();
            let named = if is_anchor { Some(anchor) } else { target.filter(|_| column.name == task.target_column) };
            named.map_or(Ok(()), |named| check_key_kind(task, &column.name, named, kind))?;
        }
        let has = |name: &str| table.column(name).is_some();
        let empty = Self {
            keys: Vec::with_capacity(source.num_rows),
            times: task.observation_time_column.as_ref().map(|_| Vec::with_capacity(source.num_rows)),
            answers: Vec::with_capacity(source.num_rows),
            targets: Vec::new(),
            target_ends: Vec::new(),
            texts: Vec::new(),
            splits: has(SPLIT_COLUMN).then(Vec::new),
        };
        let memory = Memory::unlimited();
        let (vocabulary, split_names) = (Vocabulary::new(&memory)?, Vocabulary::new(&memory)?);
        let mut collector = Collector { task, labels: empty, vocabulary, split_names };
        let columns: Vec<usize> = (0..table.columns.len()).collect();
        for chunk in source.chunks() {
            let mut readers = source.readers(chunk, &columns).map_err(of_task)?;
            let mut row = chunk.first_row;
            loop {
                let mut batch = Vec::with_capacity(columns.len());
                for reader in &mut readers {
                    batch.extend(reader.next_batch().map_err(of_task)?.into_iter().flatten());
                }
                let Some(rows) = batch.first().map(Array::len) else { break };
                for (column, array) in table.columns.iter().zip(&batch) {
                    collector.take(column, array, row)?;
                }
                row += rows;
            }
        }
        Ok(collector.finish())
    }
}

impl Collector<'_> {
    /// Takes one batch of one column, whose first row is `row`.
    fn take(&mut self, column: &ColumnSchema, array: &ArrayRef, row: usize) -> Result<()> {
        let (task, name) = (self.task, column.name.as_str());
        let bad =
            |cell: BadCell| Error::schema(place(task, name), format!("label {}: {}", row + cell.row, cell.message));
        if Some(name) == task.anchor_key.as_deref() {
            self.labels.keys.extend(label_keys(array).map_err(bad)?);
        }
        if Some(name) == task.observation_time_column.as_deref()
            && let Some(times) = &mut self.labels.times
        {
            times.extend(moments(array).map_err(bad)?.values);
        }
        if name == task.target_column {
            self.take_targets(array).map_err(bad)??;
        }
        if name == SPLIT_COLUMN
            && let Some(splits) = &mut self.labels.splits
        {
            let batch = texts(array).map_err(bad)?;
            let ids = self.split_names.adopt(&batch)?;
            splits.extend(batch.ids.iter().map(|&id| text_of(&self.split_names, &ids, id)));
        }
        Ok(())
    }

    fn take_targets(&mut self, array: &ArrayRef) -> Result<Result<()>, BadCell> {
        let labels = &mut self.labels.answers;
        let mut take_texts = |batch: &BatchTexts| -> Result<()> {
            let ids = self.vocabulary.adopt(batch)?;
            labels.extend(batch.ids.iter().map(|&id| (id != NO_TEXT).then(|| Label::Text(ids[id as usize]))));
            Ok(())
        };
        match self.task.target_stype {
            Stype::Numerical => {
                labels.extend(numbers(array)?.values.into_iter().map(|x| (!x.is_nan()).then_some(Label::Number(x))));
            }
            Stype::Boolean => {
                let values = booleans(array)?.values.into_iter();
                labels.extend(values.map(|bit| (bit != NO_BOOLEAN).then_some(Label::Boolean(bit == 1))));
            }
            Stype::Timestamp => {
                let values = moments(array)?.values.into_iter();
                labels.extend(values.map(|time| (time != NO_TIME).then_some(Label::Time(time))));
            }
            Stype::Categorical => return Ok(take_texts(&categories(array, &self.task.target_column)?.0)),
            Stype::Text => return Ok(take_texts(&texts(array)?)),
            Stype::Identifier => self.labels.take_targets(array)?,
        }
        Ok(Ok(()))
    }

    /// Sorts the texts and numbers the labels accordingly.
    fn finish(self) -> Labels {
        let Self { mut labels, vocabulary, .. } = self;
        let mut order: Vec<(String, usize)> =
            (0..vocabulary.len()).map(|id| (vocabulary_text(&vocabulary, id), id)).collect();
        order.sort_unstable();
        let mut rank = vec![0; order.len()];
        for (place, (_, id)) in order.iter().enumerate() {
            rank[*id] = place as u32;
        }
        for label in labels.answers.iter_mut().flatten() {
            if let Label::Text(id) = label {
                *id = rank[*id as usize];
            }
        }
        labels.texts = order.into_iter().map(|(text, _)| text).collect();
        labels
    }
}

impl Labels {
    /// Takes one batch of lists of keys, or of single keys.
    fn take_targets(&mut self, array: &ArrayRef) -> Result<(), BadCell> {
        match array.data_type() {
            DataType::List(_) => self.take_lists::<i32>(array),
            DataType::LargeList(_) => self.take_lists::<i64>(array),
            _ => {
                let first = self.targets.len();
                self.targets.extend(label_keys(array)?);
                self.target_ends.extend(first + 1..=self.targets.len());
                Ok(())
            }
        }
    }

    fn take_lists<O: OffsetSizeTrait>(&mut self, array: &ArrayRef) -> Result<(), BadCell> {
        let lists = array.as_list::<O>();
        let keys = label_keys(lists.values())?;
        for (row, bounds) in lists.value_offsets().windows(2).enumerate() {
            if lists.is_valid(row) {
                self.targets.extend_from_slice(&keys[bounds[0].as_usize()..bounds[1].as_usize()]);
            }
            self.target_ends.push(self.targets.len());
        }
        Ok(())
    }

    /// Keys of all lists.
    pub(super) fn num_targets(&self) -> usize {
        self.targets.len()
    }

    /// The keys of the rows that a label of a link task names.
    pub(super) fn targets_of(&self, label: usize) -> &[Option<Key>] {
        let start = if label == 0 { 0 } else { self.target_ends[label - 1] };
        &self.targets[start..self.target_ends[label]]
    }
}

/// The keys of a batch; numbers that are no integers become strings, which no integer key equals.
fn label_keys(array: &ArrayRef) -> Result<Vec<Option<Key>>, BadCell> {
    let mut keys = Vec::with_capacity(array.len());
    let own = |key: KeyRef<'_>| match key {
        KeyRef::Null => None,
        KeyRef::Int(key) => Some(Key::Int(key)),
        KeyRef::Big(key) => Some(Key::Uint(key)),
        KeyRef::Text(key) => Some(Key::String(key.to_owned())),
        KeyRef::Fraction(key) => Some(Key::String(key.to_string())),
    };
    each_key(array, |key| keys.push(own(key))).map_err(|message| BadCell { row: 0, message })?;
    Ok(keys)
}

/// Checks that a column of the labels names rows by keys of the same kind as their table does.
fn check_key_kind(task: &TaskSchema, column: &str, named: &TableManifest, kind: ValueKind) -> Result<()> {
    let is_text = matches!(kind, ValueKind::Text | ValueKind::Bytes);
    if kind == ValueKind::Null || is_text == (named.key_kind == KeyKind::String) {
        return Ok(());
    }
    let expected = if is_text { "integers" } else { "strings" };
    let message = format!("holds {}, but the keys of `{}` are {expected}; cast it", kind.name(), named.name);
    Err(Error::schema(place(task, column), message))
}

/// The text of the `id`-th text of a batch whose texts have these vocabulary `ids`.
fn text_of(vocabulary: &Vocabulary, ids: &[u32], id: u32) -> Option<String> {
    (id != NO_TEXT).then(|| vocabulary_text(vocabulary, ids[id as usize] as usize))
}

fn vocabulary_text(vocabulary: &Vocabulary, id: usize) -> String {
    let mut text = Vec::new();
    vocabulary.copy(id, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn place(task: &TaskSchema, column: &str) -> String {
    format!("task `{}`, column `{column}`", task.name)
}

/// Labels are read like a table; their faults are the task's.
fn of_task(error: Error, task: &TaskSchema) -> Error {
    match error {
        Error::Schema { place, message } => {
            let named = place.strip_prefix("table ").map(|rest| format!("task {rest}"));
            Error::Schema { place: named.unwrap_or_else(|| format!("task `{}`: {place}", task.name)), message }
        }
        other => other,
    }
}

/// The labels as the description of a table: the task's columns with the stypes they must have.
fn label_table(task: &TaskSchema, path: &Path) -> Result<TableSchema> {
    let place = format!("task `{}`", task.name);
    let file = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Error::schema(&place, format!("{} is no file of labels", path.display())))?;
    let columns = [
        (task.anchor_key.as_deref(), "anchor_key", Stype::Identifier),
        (task.observation_time_column.as_deref(), "observation_time_column", Stype::Timestamp),
        (Some(task.target_column.as_str()), TARGET_ROLE, task.target_stype),
    ];
    let found = fields(path)?;
    let mut described: Vec<ColumnSchema> = Vec::new();
    for (name, role, stype) in columns {
        let Some(name) = name else { continue };
        if described.iter().any(|column| column.name == name) {
            return Err(Error::schema(place, format!("`{name}` has two roles; give each column of the labels one")));
        }
        if let Some(found) = &found {
            check_column(task, found, name, role, stype)?;
        }
        let may_be_list = role == TARGET_ROLE && task.links.is_some();
        described.push(ColumnSchema { may_be_list, ..column(name, stype) });
    }
    let has_split = found.as_ref().is_some_and(|found| found.fields().iter().any(|field| field.name() == SPLIT_COLUMN));
    if has_split && let Some(found) = &found {
        check_column(task, found, SPLIT_COLUMN, SPLIT_COLUMN, Stype::Text)?;
    }
    if has_split && !described.iter().any(|column| column.name == SPLIT_COLUMN) {
        described.push(column(SPLIT_COLUMN, Stype::Text));
    }
    Ok(TableSchema {
        name: task.name.clone(),
        description: String::new(),
        files: vec![file.to_owned()],
        primary_key: task.anchor_key.clone(),
        temporal_column: None,
        null_time_visible: false,
        columns: described,
    })
}

fn column(name: &str, stype: Stype) -> ColumnSchema {
    let (name, description) = (name.to_owned(), String::new());
    ColumnSchema { name, stype: Some(stype), foreign_key: None, description, may_be_list: false }
}

/// The columns of a parquet file; `None` where its footer cannot be read, which is reported when it is opened as a
/// table.
fn fields(path: &Path) -> Result<Option<SchemaRef>> {
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    let load = || ArrowReaderMetadata::load(&file, ArrowReaderOptions::new());
    let metadata = guarded(load).and_then(Result::ok);
    Ok(metadata.map(|metadata| metadata.schema().clone()))
}

/// Checks that the labels have a column and that its type can be read as the stype of its role.
fn check_column(task: &TaskSchema, found: &SchemaRef, name: &str, role: &str, stype: Stype) -> Result<()> {
    let names = || found.fields().iter().map(|field| field.name().as_str());
    let Ok(field) = found.field_with_name(name) else {
        let hint = suggestion(name, names());
        let all: Vec<&str> = names().collect();
        let message = format!("the labels have no column `{name}` ({role}){hint}; they have {}", all.join(", "));
        return Err(Error::schema(format!("task `{}`", task.name), message));
    };
    let is_list = role == TARGET_ROLE && task.links.is_some();
    let kind = ValueKind::of(element(field.data_type()).filter(|_| is_list).unwrap_or(field.data_type()));
    if kind.carries(stype) {
        return Ok(());
    }
    let remedy = match role {
        TARGET_ROLE if is_list => "write a list of keys, or one key per row",
        TARGET_ROLE => "cast the labels, or correct target_stype",
        SPLIT_COLUMN => "write train, val or test, or give the column another name",
        _ => "cast the column",
    };
    let message = format!("cannot read {} ({}) as {stype}; {remedy}", kind.name(), field.data_type());
    Err(Error::schema(place(task, name), message))
}
