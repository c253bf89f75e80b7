//! The task stage: labels or the cells of a column become the seeds of a task, with their splits.
//!
//! The result depends on nothing but the labels, the staged tables and the description of the task: seeds are sorted
//! by (time, anchor row, label), splits come from times or a named hash. Vocabulary ids of a task's own texts are
//! final only after [`super::publish()`].

use std::path::Path;

use hashbrown::HashMap;
use serde::Serialize;

use super::anchors::{AnchorTable, observation_time};
use super::decode::NO_TIME;
use super::labels::Labels;
use super::preview::Labels as LabelPreview;
use super::publish::build_id;
use super::seeds::{Label, Seed, Splitter, named_split};
use super::staged::{put_in_order, staged_manifest, task_report, write_json};
use super::stats::{Moments, ZScore};
use super::targets::{Place, Targets, link_seeds};
use super::task_file::{NO_TEXT, TaskFile};
use crate::database::VOCABULARY_FILE;
use crate::error::{Error, Result, suggestion};
use crate::format::record::{Cell, NEVER_VISIBLE};
use crate::format::{FileKind, FileReader};
use crate::ids::{ColumnId, RowId, TableId, TaskId};
use crate::manifest::{LabelStatistics, Manifest, Preview, SPLITS, SplitCounts, TableManifest, TaskKind, TaskManifest};
use crate::schema::{Schema, TaskSchema, file_stem};
use crate::splits::key_text;
use crate::stype::Stype;
use crate::timestamp;

/// What materialising a task has to tell the user.
#[derive(Clone, Debug, Serialize)]
pub struct TaskReport {
    /// The name of the task.
    pub task: String,
    /// Seeds.
    pub num_seeds: u32,
    /// Seeds per split.
    pub splits: SplitCounts,
    /// Labels or rows that became no seed because the target is null.
    pub null_targets: u64,
    /// Rows of the anchor table that became no seed because their time is null (cell tasks).
    pub null_times: u64,
    /// Share of true training labels (boolean target).
    pub base_rate: Option<f64>,
    /// Scale of the labels (numerical target).
    pub statistics: Option<LabelStatistics>,
    /// Distinct labels (categorical target).
    pub num_classes: Option<usize>,
    /// Earliest and latest observation time; `None` where there is none before the end of time.
    pub time_range: Option<[String; 2]>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The seeds of a task before they are packed.
struct Draft {
    seeds: Vec<Seed>,
    /// Texts that [`Label::Text`] indexes (labels of a table); `None` where it holds vocabulary ids (cells).
    texts: Option<Vec<String>>,
    /// Scale the labels already have (cells).
    statistics: Option<LabelStatistics>,
    /// The lists of the seeds, which are in their final order then (link task).
    targets: Option<Targets>,
    /// Per split.
    null_targets: [u64; 3],
    null_times: u64,
}

/// Writes the seeds of the task `name` into the staged database at `root`.
///
/// `labels` is the parquet file with the result of the task's query or its label table, `None` for a cell task;
/// `metadata` is the text of the description.
///
/// # Errors
/// [`Error::Schema`] naming the task when its labels are not what it says; [`Error::Argument`] when there is no such
/// task, or labels are missing or too many.
pub fn write_task(root: &Path, name: &str, labels: Option<&Path>, metadata: &str) -> Result<TaskReport> {
    let schema = Schema::parse(metadata.as_bytes(), "metadata.json")?;
    let names: Vec<&str> = schema.tasks.iter().map(|task| task.name.as_str()).collect();
    let idx = names.iter().position(|known| *known == name).ok_or_else(|| {
        let near = suggestion(name, names.iter().copied());
        Error::Argument(format!("unknown task `{name}`{near}"))
    })?;
    put_in_order(root, &schema)?;
    let (task, manifest) = (&schema.tasks[idx], staged_manifest(root)?);
    let anchor = manifest.table(&schema.tables[task.anchor_table.idx()].name).ok_or_else(|| {
        Error::Argument(format!("task `{name}`: its anchor table is not encoded; encode the database again"))
    })?;
    let table = AnchorTable::open(root, &manifest, anchor)?;
    let mut draft = match (task.kind, labels) {
        (TaskKind::Table, Some(labels)) => table_seeds(root, &manifest, &schema, idx, &table, labels)?,
        (TaskKind::Cell, None) => cell_seeds(task, anchor, &table)?,
        (TaskKind::Table, None) => return Err(Error::Argument(format!("task `{name}` needs a file of labels"))),
        (TaskKind::Cell, Some(_)) => {
            return Err(Error::Argument(format!("task `{name}` fills in a column of its table and takes no labels")));
        }
    };
    draft.seeds.sort_unstable_by(Seed::cmp);
    let statistics = draft.statistics.unwrap_or_else(|| label_statistics(&draft.seeds));
    let file = pack(root, &manifest, task, &draft, statistics, table.num_rows())?;
    let mut described = describe(&schema, idx, anchor, &file, statistics);
    described.preview = preview(root, &draft)?;
    described.warnings = warnings(task, &draft, &described);
    file.write(root, &described.file, build_id(root, &manifest)?)?;
    write_json(&root.join(task_report(&described.file)), &described)?;
    Ok(report(&draft, described))
}

/// Seeds of a task with labels: one per label that is not null; of a link task, one per entity, moment and split.
fn table_seeds(
    root: &Path,
    manifest: &Manifest,
    schema: &Schema,
    idx: usize,
    table: &AnchorTable,
    path: &Path,
) -> Result<Draft> {
    let task = &schema.tasks[idx];
    let encoded = |id: TableId| {
        let name = &schema.tables[id.idx()].name;
        manifest.table(name).ok_or_else(|| {
            Error::Argument(format!("task `{}`: table `{name}` is not encoded; encode the database again", task.name))
        })
    };
    let (anchor, target) = (encoded(task.anchor_table)?, task.links.map(|links| encoded(links.table)).transpose()?);
    let labels = Labels::read(task, anchor, target, path)?;
    let places = places(task, anchor, table, &labels)?;
    if let Some(target) = target {
        let target = AnchorTable::open(root, manifest, target)?;
        let (seeds, targets, null_targets) = link_seeds(task, &labels, &places, &target)?;
        return Ok(Draft { seeds, texts: None, statistics: None, targets: Some(targets), null_targets, null_times: 0 });
    }
    let (mut seeds, mut null_targets) = (Vec::with_capacity(places.len()), [0; 3]);
    for (label, Place { time, row, split }) in places {
        match labels.answers[label] {
            Some(label) => seeds.push(Seed { time, row, split, label }),
            None => null_targets[usize::from(split)] += 1,
        }
    }
    Ok(Draft { seeds, texts: Some(labels.texts), statistics: None, targets: None, null_targets, null_times: 0 })
}

/// The number of every label and where it belongs.
fn places(
    task: &TaskSchema,
    anchor: &TableManifest,
    table: &AnchorTable,
    labels: &Labels,
) -> Result<Vec<(usize, Place)>> {
    let (anchor_keys, times) = (table.keys()?, table.times()?);
    let splitter = Splitter::new(task);
    let at = |column: &str| format!("task `{}`, column `{column}`", task.name);
    let key_column = task.anchor_key.as_deref().unwrap_or_default();
    let mut places = Vec::with_capacity(labels.keys.len());
    let (mut num_unknown, mut first_unknown) = (0u64, None);
    for (idx, key) in labels.keys.iter().enumerate() {
        let key = key.as_ref().ok_or_else(|| {
            Error::schema(
                at(key_column),
                format!("label {idx} has no key; leave such labels out of the query or table"),
            )
        })?;
        let Some(RowId(row)) = anchor_keys.map(|keys| keys.find(key)).transpose()?.flatten() else {
            num_unknown += 1;
            first_unknown = first_unknown.or(Some((idx, key)));
            continue;
        };
        // a label is named by its place in the query's result or in the file, and by its entity
        let label = || format!("label {idx}, of `{}`", key_text(key));
        let time = match (&labels.times, &task.observation_time_column) {
            (Some(times), Some(column)) => Some(times[idx]).filter(|&time| time != NO_TIME).ok_or_else(|| {
                let message = "has no observation time; leave such labels out, or give them a time";
                Error::schema(at(column), format!("{} {message}", label()))
            })?,
            _ => times[row as usize],
        };
        let split = match &labels.splits {
            Some(names) => named_split(names[idx].as_deref())
                .map_err(|message| Error::schema(at("split"), format!("{}: {message}", label())))?,
            None => splitter.split(time, || Ok(key_text(key)))?,
        };
        places.push((idx, Place { time, row, split }));
    }
    if let Some((idx, first)) = first_unknown {
        let message = format!(
            "{num_unknown} of {} labels name no row of `{}`, the first of them label {idx} with `{}`; join the labels with the table",
            labels.keys.len(),
            anchor.name,
            key_text(first)
        );
        return Err(Error::schema(at(key_column), message));
    }
    Ok(places)
}

/// Seeds of a task that fills in a column: one per row that has a value there and a time.
fn cell_seeds(task: &TaskSchema, anchor: &TableManifest, table: &AnchorTable) -> Result<Draft> {
    let position = |name: &str| {
        anchor.columns.iter().position(|column| column.name == name).ok_or_else(|| {
            Error::Argument(format!("task `{}`: column `{name}` is not encoded; encode the database again", task.name))
        })
    };
    let target = position(&task.target_column)?;
    let time_column = task.observation_time_column.as_deref().map(position).transpose()?;
    let splitter = Splitter::new(task);
    let (mut seeds, mut null_targets, mut null_times) = (Vec::new(), [0; 3], 0);
    for (row, record) in table.records()?.enumerate() {
        let time = match time_column.map(|column| record.cell(column)) {
            None => Some(observation_time(record.time())),
            Some(Some(Cell::Timestamp(time))) => Some(time),
            Some(_) => None,
        };
        let Some(time) = time.filter(|_| record.time() != NEVER_VISIBLE) else {
            null_times += u64::from(record.cell(target).is_some());
            continue;
        };
        let split = splitter.split(time, || table.key_text(row))?;
        let Some(cell) = record.cell(target) else {
            null_targets[usize::from(split)] += 1;
            continue;
        };
        seeds.push(Seed { time, row: row as u32, split, label: label_of(cell) });
    }
    let statistics = &anchor.columns[target].statistics;
    let statistics = match task.target_stype {
        Stype::Numerical => {
            LabelStatistics { mean: statistics.mean.unwrap_or(0.0), std: statistics.std.unwrap_or(0.0) }
        }
        _ => NO_SCALE,
    };
    Ok(Draft { seeds, texts: None, statistics: Some(statistics), targets: None, null_targets, null_times })
}

fn label_of(cell: Cell) -> Label {
    match cell {
        // an identifier is refused as a target when the description is read
        Cell::Identifier => Label::Boolean(true),
        Cell::Numerical(z) => Label::Number(f64::from(z)),
        Cell::Timestamp(time) => Label::Time(time),
        Cell::Boolean(value) => Label::Boolean(value),
        Cell::Categorical(id) | Cell::Text(id) => Label::Text(id),
    }
}

/// The scale of labels that are no numbers.
const NO_SCALE: LabelStatistics = LabelStatistics { mean: 0.0, std: 1.0 };

/// Population mean and deviation of the numbers among the training labels, or among all when none is for training.
fn label_statistics(seeds: &[Seed]) -> LabelStatistics {
    let numbers = |only_training: bool| {
        seeds.iter().filter(move |seed| !only_training || seed.split == 0).filter_map(|seed| match seed.label {
            Label::Number(value) => Some(value),
            _ => None,
        })
    };
    let training = Moments::of(numbers(true));
    let moments = if training == Moments::EMPTY { Moments::of(numbers(false)) } else { training };
    if moments == Moments::EMPTY {
        return NO_SCALE;
    }
    LabelStatistics { mean: moments.mean(), std: moments.std() }
}

/// Lays the sorted seeds out as the arrays of the task file.
fn pack(
    root: &Path,
    manifest: &Manifest,
    task: &TaskSchema,
    draft: &Draft,
    statistics: LabelStatistics,
    num_anchors: usize,
) -> Result<TaskFile> {
    let seeds = &draft.seeds;
    if u32::try_from(seeds.len()).is_err() {
        return Err(Error::schema(format!("task `{}`", task.name), format!("more than {} seeds", u32::MAX)));
    }
    let num_encoded = manifest.vocabulary.num_encoded;
    let (ids, texts) = match &draft.texts {
        Some(texts) => place_texts(root, num_encoded, texts)?,
        None => (Vec::new(), Vec::new()),
    };
    let scale = ZScore::new(statistics.mean, statistics.std);
    let value = |seed: &Seed| match seed.label {
        Label::Number(z) if draft.statistics.is_some() => z as f32,
        Label::Number(value) => scale.of(value),
        Label::Boolean(value) => f32::from(u8::from(value)),
        Label::Time(time) => manifest.time.z_score(time),
        Label::Text(_) | Label::Links => 0.0,
    };
    let vocab = |seed: &Seed| match (seed.label, &draft.texts) {
        (Label::Text(text), Some(_)) => ids[text as usize],
        (Label::Text(id), None) => id,
        _ => NO_TEXT,
    };
    let label_time = |seed: &Seed| if let Label::Time(time) = seed.label { Some(time) } else { None };
    Ok(TaskFile {
        num_anchors,
        rows: seeds.iter().map(|seed| seed.row).collect(),
        times: seeds.iter().map(|seed| seed.time).collect(),
        splits: seeds.iter().map(|seed| seed.split).collect(),
        values: seeds.iter().map(value).collect(),
        vocab: seeds.iter().map(vocab).collect(),
        is_null: vec![0; seeds.len()],
        label_times: seeds.iter().filter_map(label_time).collect(),
        target_indptr: draft.targets.as_ref().map_or_else(Vec::new, |targets| targets.indptr.clone()),
        targets: draft.targets.as_ref().map_or_else(Vec::new, |targets| targets.rows.clone()),
        texts,
        first_text: num_encoded,
    })
}

/// The vocabulary id of each of some distinct texts, and those the encoded vocabulary lacks, which come after it.
fn place_texts(root: &Path, num_encoded: u32, texts: &[String]) -> Result<(Vec<u32>, Vec<String>)> {
    if texts.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let vocabulary = FileReader::open(root, VOCABULARY_FILE, FileKind::Vocabulary)?;
    let places: HashMap<&str, usize> = texts.iter().enumerate().map(|(idx, text)| (text.as_str(), idx)).collect();
    let mut ids = vec![NO_TEXT; texts.len()];
    vocabulary.each_text(|id, text| {
        if let Some(&idx) = places.get(text) {
            ids[idx] = id as u32;
        }
        Ok(())
    })?;
    let mut own = Vec::new();
    for (id, text) in ids.iter_mut().zip(texts).filter(|(id, _)| **id == NO_TEXT) {
        *id = num_encoded + own.len() as u32;
        own.push(text.clone());
    }
    Ok((ids, own))
}

/// The entry of the manifest; numbers that depend on the other tasks are given when it is composed.
fn describe(
    schema: &Schema,
    idx: usize,
    anchor: &TableManifest,
    file: &TaskFile,
    statistics: LabelStatistics,
) -> TaskManifest {
    let task = &schema.tasks[idx];
    let mut counts = [0u32; 3];
    file.splits.iter().for_each(|&split| counts[usize::from(split)] += 1);
    let [train, val, test] = counts;
    let splits = SplitCounts { train, val, test };
    let training = || file.values.iter().zip(&file.splits).filter(|&(_, &split)| split == 0);
    let positive = training().filter(|&(&value, _)| value > 0.5).count();
    let is_rated = task.target_stype == Stype::Boolean && splits.train > 0;
    TaskManifest {
        id: TaskId::from(idx),
        name: task.name.clone(),
        description: task.description.clone(),
        file: format!("tasks/{}.bin", file_stem(&task.name)),
        kind: task.kind,
        anchor_table: anchor.id,
        anchor_key: task.anchor_key.clone(),
        target_column: task.target_column.clone(),
        target_stype: task.target_stype,
        target_table: task.links.map(|links| links.table),
        top_k: task.links.map(|links| links.top_k),
        observation_time_column: task.observation_time_column.clone(),
        horizon_us: match task.kind {
            TaskKind::Table => task.horizon_us,
            TaskKind::Cell => Some(task.horizon_us.unwrap_or(0)),
        },
        remove_columns: task
            .remove_columns
            .iter()
            .filter_map(|&(table, column)| schema.column_id(table, column))
            .collect(),
        metric: task.metric.clone(),
        query: task.query.clone(),
        table_id: anchor.id,
        target_column_id: ColumnId(0),
        time_column_id: None,
        foreign_key_id: None,
        num_seeds: file.rows.len() as u32,
        splits,
        statistics,
        base_rate: is_rated.then(|| positive as f64 / f64::from(splits.train)),
        classes: if task.target_stype == Stype::Categorical { file.classes() } else { Vec::new() },
        num_texts: file.texts.len() as u32,
        preview: Preview::default(),
        warnings: Vec::new(),
    }
}

/// What the labels look like; texts come from the labels, or from the vocabulary for cells.
fn preview(root: &Path, draft: &Draft) -> Result<Preview> {
    let is_text = |seed: &Seed| matches!(seed.label, Label::Text(_));
    let vocabulary = match draft.texts {
        None if draft.seeds.first().is_some_and(is_text) => {
            Some(FileReader::open(root, VOCABULARY_FILE, FileKind::Vocabulary)?)
        }
        _ => None,
    };
    let text = |id: u32| match (&draft.texts, &vocabulary) {
        (Some(texts), _) => Ok(texts[id as usize].clone()),
        (None, Some(vocabulary)) => vocabulary.text(id as usize),
        (None, None) => Ok(String::new()),
    };
    let targets = draft.targets.as_ref();
    LabelPreview { seeds: &draft.seeds, nulls: draft.null_targets, scale: draft.statistics, targets, text }.preview()
}

fn warnings(task: &TaskSchema, draft: &Draft, described: &TaskManifest) -> Vec<String> {
    let name = &task.name;
    let mut warnings = Vec::new();
    let null = draft.null_targets.iter().sum::<u64>();
    if null > 0 && task.kind == TaskKind::Table {
        let (labels, target) = (null + draft.seeds.len() as u64, &task.target_column);
        warnings.push(format!("task `{name}`: {null} of {labels} labels were left out, their `{target}` is null"));
    }
    if let Some(Targets { late, num_keys, .. }) = draft.targets.as_ref().filter(|targets| targets.late > 0) {
        warnings.push(format!(
            "task `{name}`: {late} of {num_keys} keys were left out, their rows came only after `split.test`"
        ));
    }
    if let Some(Targets { dangling, num_keys, first_dangling: Some(first), .. }) = &draft.targets {
        let table = "rows of the target table";
        warnings.push(format!(
            "task `{name}`: {dangling} of {num_keys} keys were left out, they name no {table}, as `{first}`"
        ));
    }
    if draft.null_times > 0 {
        let rows = draft.null_times;
        warnings.push(format!("task `{name}`: {rows} rows were left out, they have a target but no time"));
    }
    let counts = [described.splits.train, described.splits.val, described.splits.test];
    if described.num_seeds == 0 {
        warnings.push(format!("task `{name}` has no seeds"));
    } else {
        for (split, _) in SPLITS.iter().zip(counts).filter(|&(_, count)| count == 0) {
            warnings.push(format!("task `{name}` has no seeds in its split {split}"));
        }
    }
    if let Some(rate) = described.base_rate.filter(|&rate| rate <= 0.0 || rate >= 1.0) {
        warnings.push(format!("task `{name}`: every training label is {}", rate >= 1.0));
    }
    let has_history = task.kind == TaskKind::Table && task.links.is_none();
    if has_history && task.observation_time_column.is_some() && task.horizon_us.is_none() {
        let hint = r#"give it a `horizon`, as "30 days", how long after its observation time a label is known"#;
        warnings.push(format!("task `{name}`: past labels stay hidden from later seeds; {hint}"));
    }
    warnings
}

fn report(draft: &Draft, described: TaskManifest) -> TaskReport {
    let times = || draft.seeds.iter().map(|seed| seed.time).filter(|&time| time != i64::MAX);
    let range = times().min().zip(times().max());
    TaskReport {
        task: described.name,
        num_seeds: described.num_seeds,
        splits: described.splits,
        null_targets: draft.null_targets.iter().sum(),
        null_times: draft.null_times,
        base_rate: described.base_rate,
        statistics: (described.target_stype == Stype::Numerical).then_some(described.statistics),
        num_classes: (described.target_stype == Stype::Categorical).then_some(described.classes.len()),
        time_range: range.map(|(first, last)| [timestamp::format(first), timestamp::format(last)]),
        warnings: described.warnings,
    }
}
