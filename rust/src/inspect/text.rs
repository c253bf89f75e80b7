//! Answers as text: sections with aligned columns, thousands grouped, sizes in powers of 1024.

mod details;
mod grid;
mod row;

use std::fmt::Write;

use super::number::{grouped, percent, plain, short, size};
use super::{ColumnSummary, ForeignKeySummary, Summary, TableSummary, TaskSummary, TopValues};
use crate::manifest::TaskKind;
use crate::stype::Stype;
use crate::timestamp;
use grid::{Grid, bar, clean, clip, sparkline};

pub(super) use details::{column, table, task, vocabulary};
pub(super) use row::row;

/// Columns of a table and files the overview lists.
const MAX_LINES: usize = 40;

/// A [`Summary`] as text.
pub(super) fn overview(summary: &Summary) -> String {
    let bytes: u64 = summary.sizes.iter().map(|kind| kind.bytes).sum();
    let mut text = clean(&format!(
        "{}: {} tables, {} rows, {} edges, {}; format {}, build {}",
        summary.name,
        summary.tables.len(),
        grouped(summary.rows.values().map(|&rows| u64::from(rows)).sum()),
        grouped(summary.edges.values().sum()),
        size(bytes),
        summary.format_version,
        summary.build_id,
    )) + "\n";
    tables(summary).section(&mut text, "Tables");
    for table in &summary.tables {
        let shown = &table.columns[..table.columns.len().min(MAX_LINES)];
        columns(table, shown).section(&mut text, &format!("Columns of {}{}", table.name, sample_note(table)));
        if shown.len() < table.columns.len() {
            let more = grouped((table.columns.len() - shown.len()) as u64);
            let _ = writeln!(text, "  and {more} more: --table {}", clean(&table.name));
        }
    }
    let keys = summary.tables.iter().flat_map(|table| {
        table.foreign_keys.iter().map(|key| (format!("{}.{}", table.name, key.column), key.parent_table.clone(), key))
    });
    foreign_keys(keys).section(&mut text, "Foreign keys (children per parent, parents without any included)");
    tasks(&summary.tasks).section(&mut text, "Tasks");
    sizes(summary).section(&mut text, "Sizes");
    files(summary).section(&mut text, "Files");
    if summary.files.len() > MAX_LINES {
        let _ = writeln!(text, "  and {} more: --json", grouped((summary.files.len() - MAX_LINES) as u64));
    }
    if let Some(until) = &summary.stats_until {
        let _ = writeln!(text, "\nMeans and deviations of columns: over rows before {until}");
    }
    let vocabulary = summary.vocabulary;
    let _ = writeln!(
        text,
        "\nVocabulary: {} texts, {} of them added by tasks; {}",
        grouped(u64::from(vocabulary.num_texts)),
        grouped(u64::from(vocabulary.num_texts.saturating_sub(vocabulary.num_encoded))),
        clean(&vectors(summary)),
    );
    for warning in &summary.warnings {
        let _ = writeln!(text, "warning: {}", clean(warning));
    }
    text
}

/// What made the vectors, in a few words.
pub(super) fn vectors(summary: &Summary) -> String {
    let Some(embedder) = &summary.embedder else { return "no vectors yet".into() };
    let word = |field: &str| embedder.get(field).map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
    let kind = word("kind").unwrap_or_else(|| "an unknown embedder".into());
    let facts = [word("dimension").map(|dimension| format!("{dimension} dimensions")), word("model")];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    format!("vectors made by {kind}{facts}")
}

/// What a histogram of a table stands on, where that is not every row.
pub(super) fn sample_note(table: &TableSummary) -> String {
    if !table.is_sample() {
        return String::new();
    }
    let (read, all) = (grouped(table.rows_read), grouped(u64::from(table.num_rows)));
    format!(" (distribution: a sample of {read} of {all} rows; all of them with --full)")
}

fn tables(summary: &Summary) -> Grid {
    let rows = summary.tables.iter().map(|table| {
        let [first, last] = table.time_range.clone().unwrap_or_else(|| ["-".into(), "-".into()]);
        vec![
            table.name.clone(),
            grouped(u64::from(table.num_rows)),
            grouped(table.columns.len() as u64),
            table.primary_key.clone().unwrap_or_else(|| "-".into()),
            table.temporal_column.clone().unwrap_or_else(|| "-".into()),
            first,
            last,
            grouped(u64::from(table.num_never_visible)),
            size(table.bytes),
        ]
    });
    let head = ["table", "rows", "columns", "primary key", "temporal column", "first", "last", "without time", "size"];
    Grid::new(&head, rows)
}

fn columns(table: &TableSummary, shown: &[ColumnSummary]) -> Grid {
    let rows = shown.iter().map(|column| {
        vec![
            column.id.to_string(),
            column.name.clone(),
            column.stype.to_string(),
            role(table, column).into(),
            grouped(column.statistics.nulls),
            percent(column.statistics.nulls, u64::from(table.num_rows)),
            statistics(column, u64::from(table.num_rows)),
            distribution(column),
        ]
    });
    Grid::new(&["id", "column", "stype", "role", "nulls", "", "values", "distribution"], rows)
}

fn role(table: &TableSummary, column: &ColumnSummary) -> &'static str {
    if table.primary_key.as_ref() == Some(&column.name) {
        "primary key"
    } else if table.foreign_keys.iter().any(|key| key.column == column.name) {
        "foreign key"
    } else if table.temporal_column.as_ref() == Some(&column.name) {
        "time"
    } else {
        ""
    }
}

/// What was counted of a column while it was encoded, in one line.
pub(super) fn statistics(column: &ColumnSummary, num_rows: u64) -> String {
    let statistics = &column.statistics;
    let float = |value: Option<f64>| value.map_or_else(|| "-".into(), short);
    match column.stype {
        Stype::Identifier => "-".into(),
        Stype::Numerical if statistics.min.is_none() => "-".into(),
        Stype::Numerical => {
            let ends = [statistics.min, statistics.max].map(|end| end.map_or_else(|| "-".into(), end_of_range));
            let spread = format!("mean {}, std {}", float(statistics.mean), float(statistics.std));
            let odd = statistics.non_finite.filter(|&count| count > 0);
            let odd = odd.map_or_else(String::new, |count| format!(", {} not finite", grouped(count)));
            format!("{} to {}, {spread}{odd}", ends[0], ends[1])
        }
        Stype::Timestamp => match (statistics.min_us, statistics.max_us) {
            (Some(first), Some(last)) => format!("{} to {}", timestamp::format(first), timestamp::format(last)),
            _ => "-".into(),
        },
        Stype::Boolean => statistics.true_count.map_or_else(
            || "-".into(),
            |count| format!("{} true", percent(count, num_rows.saturating_sub(statistics.nulls))),
        ),
        Stype::Categorical | Stype::Text => {
            statistics.distinct.map_or_else(|| "-".into(), |count| format!("{} distinct", grouped(count)))
        }
    }
}

/// An end of a range: all digits of short numbers, four of long ones.
fn end_of_range(value: f64) -> String {
    let text = plain(value);
    if text.len() <= 10 { text } else { short(value) }
}

/// How a column is spread, in a few characters.
fn distribution(column: &ColumnSummary) -> String {
    if let Some(histogram) = &column.histogram {
        let scale = if histogram.scale == super::Scale::Log { " (log)" } else { "" };
        return sparkline(&histogram.counts) + scale;
    }
    match &column.top {
        Some(top) if column.stype != Stype::Boolean => frequent(top, 3),
        _ => String::new(),
    }
}

/// The first of the most frequent values with their shares.
fn frequent(top: &TopValues, limit: usize) -> String {
    let total = top.others + top.values.iter().map(|value| value.count).sum::<u64>();
    let shown = top.values.iter().take(limit).map(|found| {
        let value = clip(found.value.as_str().unwrap_or_default());
        let value = if value.chars().count() > 14 { value.chars().take(12).collect::<String>() + "..." } else { value };
        format!("{value} {}", percent(found.count, total))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn foreign_keys<'a>(keys: impl Iterator<Item = (String, String, &'a ForeignKeySummary)>) -> Grid {
    let rows = keys.map(|(name, parent_table, key)| {
        let fan_out = &key.fan_out;
        vec![
            key.id.to_string(),
            name,
            parent_table,
            grouped(key.edges),
            grouped(key.dangling),
            grouped(key.null),
            grouped(fan_out.min),
            grouped(fan_out.median),
            format!("{:.2}", key.mean_children),
            grouped(fan_out.p90),
            grouped(fan_out.p99),
            grouped(key.max_children),
            percent(fan_out.childless, fan_out.parents),
            sparkline(&fan_out.histogram),
        ]
    });
    let head = [
        "id",
        "foreign key",
        "parent table",
        "edges",
        "dangling",
        "null",
        "min",
        "median",
        "mean",
        "p90",
        "p99",
        "max",
        "none",
        "0 1 2+ 4+ 8+ ...",
    ];
    Grid::new(&head, rows)
}

fn tasks(tasks: &[TaskSummary]) -> Grid {
    let rows = tasks.iter().flat_map(|task| {
        let counts = [("train", task.splits.train), ("val", task.splits.val), ("test", task.splits.test)];
        counts.into_iter().enumerate().map(|(idx, (split, count))| {
            let of_task = |text: String| if idx == 0 { text } else { String::new() };
            let [first, last] =
                task.time_ranges.get(split).cloned().flatten().unwrap_or_else(|| ["-".into(), "-".into()]);
            vec![
                of_task(task.name.clone()),
                of_task(match task.kind {
                    TaskKind::Table => task.anchor_table.clone(),
                    TaskKind::Cell => format!("{} (cell)", task.anchor_table),
                }),
                of_task(format!("{} ({})", task.target_column, task.target_stype)),
                split.to_owned(),
                grouped(u64::from(count)),
                first,
                last,
                labels(task, split),
            ]
        })
    });
    Grid::new(&["task", "anchor table", "target", "split", "seeds", "first", "last", "labels"], rows)
}

/// How the labels of a split are spread, in one line.
pub(super) fn labels(task: &TaskSummary, split: &str) -> String {
    let Some(preview) = task.previews.get(split) else { return "-".into() };
    if let Some(rate) = preview.base_rate {
        return format!("{:.2} % true", 100.0 * rate);
    }
    if let Some((mean, std)) = preview.mean.zip(preview.std) {
        let drawn = preview.histogram.as_ref().map_or_else(String::new, |found| sparkline(&found.counts));
        return format!("mean {}, std {}  {drawn}", short(mean), short(std));
    }
    if let Some(quantiles) = &preview.quantiles {
        return format!("{} to {}", shown(&quantiles[0]), shown(&quantiles[6]));
    }
    if let Some((mean, targets)) = preview.mean_links.zip(preview.num_targets) {
        let table = task.target_table.as_deref().unwrap_or_default();
        return format!("{} of {table} on average, {} distinct", short(mean), grouped(targets));
    }
    preview.top.as_ref().map_or_else(|| "-".into(), |top| frequent(top, 3))
}

/// A value of JSON as a person writes it.
pub(super) fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "-".into(),
        serde_json::Value::Number(number) if number.is_f64() => plain(number.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

fn sizes(summary: &Summary) -> Grid {
    let total: u64 = summary.sizes.iter().map(|kind| kind.bytes).sum();
    let rows = summary.sizes.iter().map(|kind| {
        let share = percent(kind.bytes, total);
        vec![kind.kind.to_owned(), grouped(kind.files), size(kind.bytes), share, bar(kind.bytes, total, 30)]
    });
    Grid::new(&["kind", "files", "size", "share", ""], rows)
}

fn files(summary: &Summary) -> Grid {
    let mut files: Vec<_> = summary.files.iter().collect();
    files.sort_by_key(|&(name, &bytes)| (std::cmp::Reverse(bytes), name));
    let rows = files.into_iter().take(MAX_LINES).map(|(name, &bytes)| vec![name.clone(), size(bytes)]);
    Grid::new(&["file", "size"], rows)
}
