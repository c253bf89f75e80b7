//! One task: what it asks, its seeds per split, and how their labels are spread.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Value, json};

use super::binning::{Histogram, NumberBins};
use super::column::{TopValues, ValueCount};
use super::number::Decoded;
use super::row::{category, key_json, value_of};
use crate::database::{Database, TaskView};
use crate::error::{Error, Result};
use crate::ids::RowId;
use crate::manifest::{ClassCount, LabelStatistics, SPLITS, SplitCounts, SplitPreview, TaskKind, TaskManifest};
use crate::stype::Stype;
use crate::timestamp;

/// One task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskSummary {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What the user says of the target.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How it gets its seeds.
    pub kind: TaskKind,
    /// The table of the entities.
    pub anchor_table: String,
    /// The column to predict.
    pub target_column: String,
    /// Its semantic type; `link` where the answer is a list of rows.
    pub target_stype: &'static str,
    /// The table whose rows a link task names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_table: Option<String>,
    /// The column of the labels that says when a seed asks.
    pub observation_time_column: Option<String>,
    /// The metric the user judges by.
    pub metric: Option<String>,
    /// Seeds.
    pub num_seeds: u32,
    /// Seeds per split.
    pub splits: SplitCounts,
    /// Earliest and latest observation time of each split that has seeds; `None` at the end of time.
    pub time_ranges: IndexMap<&'static str, Option<[String; 2]>>,
    /// Share of true labels per split that has labels (boolean target).
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub base_rates: IndexMap<&'static str, f64>,
    /// Seeds and labels of each split that has seeds.
    pub previews: IndexMap<&'static str, Preview>,
    /// Scale of the labels (numerical target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<LabelStatistics>,
    /// Number of classes (categorical target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    /// Columns no context of the task shows, as `table.column`.
    pub remove_columns: Vec<String>,
    /// Microseconds after the observation time at which a label is known.
    pub horizon_us: Option<i64>,
    /// The label SQL, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What materialising the labels had to tell the user.
    pub warnings: Vec<String>,
}

/// The seeds and labels of one split.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Preview {
    /// Seeds.
    pub rows: u64,
    /// Seeds without a label, and labels or rows that became no seed because the target is null.
    pub nulls: u64,
    /// Earliest observation time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_time: Option<String>,
    /// Latest observation time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_time: Option<String>,
    /// Share of true labels (boolean target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_rate: Option<f64>,
    /// Mean of the labels (numerical target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Population standard deviation of the labels (numerical target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Minimum, quantiles 0.05, 0.25, 0.5, 0.75, 0.95 and maximum: nearest ranks (numerical and timestamp target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantiles: Option<[Value; 7]>,
    /// How numerical labels are spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// Rows that a label names on average, and distinct ones in all (link task).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_links: Option<f64>,
    /// See `mean_links`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_targets: Option<u64>,
    /// The most frequent labels (categorical and text target).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<TopValues>,
}

/// What the manifest says of a task, with histograms of its labels.
pub(super) fn summarise(database: &Database, task: &TaskManifest) -> TaskSummary {
    let (manifest, view) = (database.manifest(), database.task(task.id));
    let removed = manifest.tables.iter().flat_map(|table| table.columns.iter().map(move |column| (table, column)));
    let mut summary = TaskSummary {
        id: task.id.0,
        name: task.name.clone(),
        description: task.description.clone(),
        kind: task.kind,
        anchor_table: manifest.tables[task.anchor_table.idx()].name.clone(),
        target_column: task.target_column.clone(),
        target_stype: task.target_stype.target_name(),
        target_table: task.target_table.map(|table| manifest.tables[table.idx()].name.clone()),
        observation_time_column: task.observation_time_column.clone(),
        metric: task.metric.clone(),
        num_seeds: task.num_seeds,
        splits: task.splits,
        time_ranges: IndexMap::new(),
        base_rates: IndexMap::new(),
        previews: IndexMap::new(),
        statistics: (task.target_stype == Stype::Numerical).then_some(task.statistics),
        num_classes: (task.target_stype == Stype::Categorical).then_some(task.classes.len()),
        remove_columns: removed
            .filter(|(_, column)| task.remove_columns.contains(&column.id))
            .map(|(table, column)| format!("{}.{}", table.name, column.name))
            .collect(),
        horizon_us: task.horizon_us,
        query: task.query.clone(),
        warnings: task.warnings.clone(),
    };
    let noted = [&task.preview.train, &task.preview.val, &task.preview.test];
    for ((code, split), noted) in SPLITS.into_iter().enumerate().zip(noted).filter(|(_, noted)| noted.rows > 0) {
        let preview = preview(task, view, code, noted);
        summary
            .time_ranges
            .insert(split, preview.min_time.clone().zip(preview.max_time.clone()).map(<[String; 2]>::from));
        if let Some(rate) = preview.base_rate {
            summary.base_rates.insert(split, rate);
        }
        summary.previews.insert(split, preview);
    }
    summary
}

/// What preprocessing noted of a split, as people and programs read it, and the histogram of numerical labels.
fn preview(task: &TaskManifest, view: TaskView<'_>, code: usize, noted: &SplitPreview) -> Preview {
    let numbers = noted.quantiles.map(|found| found.map(|number| json!(scaled(task, number).shortest())));
    let moments = noted.quantiles_us.map(|found| found.map(|moment| json!(timestamp::format(moment))));
    Preview {
        rows: noted.rows,
        nulls: noted.nulls,
        min_time: noted.min_time_us.map(timestamp::format),
        max_time: noted.max_time_us.map(timestamp::format),
        base_rate: noted.base_rate,
        mean: noted.mean,
        std: noted.std,
        histogram: numbers.is_some().then(|| histogram(task, view, code)).flatten(),
        quantiles: numbers.or(moments),
        mean_links: noted.mean_links,
        num_targets: noted.num_targets,
        top: (!noted.classes.is_empty()).then(|| top(task, noted)),
    }
}

/// The classes that preprocessing noted, without the name of the column before them.
fn top(task: &TaskManifest, noted: &SplitPreview) -> TopValues {
    let value = |class: &ClassCount| {
        let text = value_of(&task.target_column, task.target_stype, &class.value);
        ValueCount { value: json!(text), count: class.count }
    };
    let shown: u64 = noted.classes.iter().map(|class| class.count).sum();
    TopValues { values: noted.classes.iter().map(value).collect(), others: noted.rows.saturating_sub(shown) }
}

/// A label in the user's units, with the precision its z-score carries.
fn scaled(task: &TaskManifest, label: f64) -> Decoded {
    let LabelStatistics { mean, std } = task.statistics;
    Decoded::label(if std > 0.0 { ((label - mean) / std) as f32 } else { 0.0 }, mean, std)
}

fn histogram(task: &TaskManifest, view: TaskView<'_>, code: usize) -> Option<Histogram> {
    let LabelStatistics { mean, std } = task.statistics;
    let of_split = (0..view.rows.len()).filter(|&seed| usize::from(view.splits[seed]) == code);
    let mut labels: Vec<Decoded> = of_split.map(|seed| Decoded::label(view.values[seed], mean, std)).collect();
    labels.sort_unstable_by(|left, right| left.value.total_cmp(&right.value));
    let (least, most) = (labels.first()?.shortest(), labels.last()?.shortest());
    let mut bins = NumberBins::new(least, most);
    for &label in &labels {
        bins.add(label);
    }
    bins.finish()
}

/// The label of a seed in the user's units, null for none.
pub(super) fn label(database: &Database, task: &TaskManifest, seed: usize) -> Result<Value> {
    let view = database.task(task.id);
    if view.is_null[seed] != 0 {
        return Ok(Value::Null);
    }
    Ok(match task.target_stype {
        Stype::Boolean => json!(view.values[seed] > 0.5),
        Stype::Numerical => {
            json!(Decoded::label(view.values[seed], task.statistics.mean, task.statistics.std).shortest())
        }
        Stype::Timestamp => json!(timestamp::format(view.label_times[seed])),
        Stype::Categorical | Stype::Text => {
            json!(category(database, &task.target_column, task.target_stype, view.vocab[seed])?)
        }
        Stype::Identifier => {
            let Some(table) = task.target_table else { return Ok(Value::Null) };
            let keys = view.targets_of(seed).iter().map(|&row| database.key(table, RowId(row)));
            keys.map(|key| Ok(key_json(key?.as_ref()))).collect::<Result<_>>()?
        }
    })
}

/// The seeds that ask about a row: per task how many, and the first of them in time order.
pub(super) fn seeds_of(database: &Database, task: &TaskManifest, row: u32, limit: usize) -> Result<Value> {
    let view = database.task(task.id);
    let damaged =
        || Error::format(database.path().join(&task.file), format!("the seeds of row {row} are out of range"));
    let ends = view.indptr.get(row as usize).zip(view.indptr.get(row as usize + 1)).ok_or_else(damaged)?;
    let seeds = view.indices.get(*ends.0 as usize..*ends.1 as usize).ok_or_else(damaged)?;
    let mut first = Vec::new();
    for &seed in seeds.iter().take(limit) {
        let seed = seed as usize;
        let time = *view.times.get(seed).ok_or_else(damaged)?;
        first.push(json!({
            "time": if time == i64::MAX { Value::Null } else { json!(timestamp::format(time)) },
            "split": SPLITS.get(usize::from(view.splits[seed])).ok_or_else(damaged)?,
            "label": label(database, task, seed)?,
        }));
    }
    Ok(json!({"task": task.name, "target_column": task.target_column, "count": seeds.len(), "first": first}))
}
