//! One table, column, task, or the vocabulary as text.

use std::fmt::Write;

use super::grid::{Grid, bar, clean};
use super::{columns, foreign_keys, labels, shown, statistics};
use crate::inspect::answer::Child;
use crate::inspect::fan_out::bin_name;
use crate::inspect::number::{grouped, percent, plain, short, size};
use crate::inspect::{
    ColumnSummary, Edges, ForeignKeySummary, Histogram, Scale, TableSummary, TaskSummary, TopValues, Vocabulary,
};
use crate::manifest::TableManifest;

/// Characters of the longest bar.
const BAR: usize = 40;

/// A table with every column, its foreign keys, and those that point to it.
pub(in crate::inspect) fn table(table: &TableSummary, children: &[Child]) -> String {
    let mut text = clean(&format!(
        "{}: {} rows, {} columns, {}",
        table.name,
        grouped(u64::from(table.num_rows)),
        grouped(table.columns.len() as u64),
        size(table.bytes)
    )) + "\n";
    line(&mut text, "description", &table.description);
    line(&mut text, "primary key", table.primary_key.as_deref().unwrap_or("none"));
    line(&mut text, "temporal column", table.temporal_column.as_deref().unwrap_or("none; its rows are always visible"));
    if let Some([first, last]) = &table.time_range {
        line(&mut text, "time range", &format!("{first} to {last}"));
    }
    if table.num_never_visible > 0 {
        let count = grouped(u64::from(table.num_never_visible));
        line(&mut text, "without time", &format!("{count} rows, which no seed sees"));
    }
    columns(table, &table.columns).section(&mut text, "Columns");
    let described = table.columns.iter().filter(|column| !column.description.is_empty());
    let described = described.map(|column| vec![column.name.clone(), column.description.clone()]);
    Grid::new(&["column", "description"], described).section(&mut text, "Descriptions");
    let own = table.foreign_keys.iter().map(|key| (key.column.clone(), key.parent_table.clone(), key));
    foreign_keys(own).section(&mut text, "Parents: its foreign keys (children per parent)");
    let incoming =
        children.iter().map(|child| (format!("{}.{}", child.table, child.key.column), table.name.clone(), &child.key));
    foreign_keys(incoming).section(&mut text, "Children: foreign keys that point to it (children per row)");
    for child in children {
        fan_out(&mut text, &format!("Rows by their number of {} by {}", child.table, child.key.column), &child.key);
    }
    text
}

fn fan_out(text: &mut String, heading: &str, key: &ForeignKeySummary) {
    let counts = &key.fan_out.histogram;
    let most = counts.iter().max().copied().unwrap_or(0);
    let rows = counts.iter().enumerate().map(|(bin, &count)| {
        vec![bin_name(bin), grouped(count), percent(count, key.fan_out.parents), bar(count, most, BAR)]
    });
    Grid::new(&["children", "rows", "share", ""], rows).section(text, heading);
}

/// A column with its histogram or its most frequent values.
pub(in crate::inspect) fn column(table: &TableManifest, column: &ColumnSummary) -> String {
    let num_rows = u64::from(table.num_rows);
    let nulls = column.statistics.nulls;
    let mut text = clean(&format!("{}.{}: {}, column {}", table.name, column.name, column.stype, column.id)) + "\n";
    line(&mut text, "description", &column.description);
    line(&mut text, "rows", &grouped(num_rows));
    line(&mut text, "nulls", &format!("{} ({})", grouped(nulls), percent(nulls, num_rows)));
    line(&mut text, "values", &statistics(column, num_rows));
    if let Some(key) = table.foreign_keys.iter().find(|key| key.column == column.name) {
        let counts = [("edges", key.edges), ("dangling", key.dangling), ("null", key.null)];
        let counts = counts.map(|(name, count)| format!("{} {name}", grouped(count)));
        line(&mut text, "foreign key", &format!("{}; --table {} shows its fan-out", counts.join(", "), table.name));
    }
    if let Some(histogram) = &column.histogram {
        draw(&mut text, "Histogram", histogram);
    }
    match &column.top {
        Some(top) => top_values(&mut text, top),
        None if column.statistics.distinct.is_some() => text.push_str("\nToo many values differ to count them.\n"),
        None => {}
    }
    text
}

fn draw(text: &mut String, heading: &str, histogram: &Histogram) {
    let edges: Vec<String> = match &histogram.edges {
        Edges::Numbers(edges) => edges.iter().map(|&edge| plain(edge)).collect(),
        Edges::Times(edges) => edges.clone(),
    };
    let (total, most) = (histogram.counts.iter().sum(), histogram.counts.iter().max().copied().unwrap_or(0));
    let rows = histogram.counts.iter().enumerate().map(|(bin, &count)| {
        vec![edges[bin].clone(), edges[bin + 1].clone(), grouped(count), percent(count, total), bar(count, most, BAR)]
    });
    let scale = if histogram.scale == Scale::Log { ", logarithmic bins" } else { "" };
    Grid::new(&["from", "below", "cells", "share", ""], rows).section(text, &format!("{heading}{scale}"));
}

fn top_values(text: &mut String, top: &TopValues) {
    let total = top.others + top.values.iter().map(|value| value.count).sum::<u64>();
    let most = top.values.iter().map(|value| value.count).max().unwrap_or(0);
    let mut rows: Vec<Vec<String>> = top
        .values
        .iter()
        .map(|found| {
            let bar = bar(found.count, most, BAR);
            vec![shown(&found.value), grouped(found.count), percent(found.count, total), bar]
        })
        .collect();
    if top.others > 0 {
        rows.push(vec!["(all others)".into(), grouped(top.others), percent(top.others, total), String::new()]);
    }
    Grid::new(&["value", "cells", "share", ""], rows).section(text, "Most frequent values");
}

/// A task with its splits.
pub(in crate::inspect) fn task(task: &TaskSummary) -> String {
    let target = format!("{} ({}) of {}", task.target_column, task.target_stype, task.anchor_table);
    let mut text = clean(&format!("{}: {target}, {} seeds", task.name, grouped(u64::from(task.num_seeds)))) + "\n";
    line(&mut text, "description", &task.description);
    line(&mut text, "metric", task.metric.as_deref().unwrap_or_default());
    line(&mut text, "observation time", task.observation_time_column.as_deref().unwrap_or_default());
    if let Some(horizon) = task.horizon_us {
        line(&mut text, "horizon", &format!("{} days", short(horizon as f64 / crate::timestamp::DAY_US as f64)));
    }
    line(&mut text, "never shown", &task.remove_columns.join(", "));
    if let Some(classes) = task.num_classes {
        line(&mut text, "classes", &grouped(classes as u64));
    }
    let rows = task.previews.iter().map(|(&split, preview)| {
        let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".into());
        vec![
            split.to_owned(),
            grouped(preview.rows),
            grouped(preview.nulls),
            time(&preview.min_time),
            time(&preview.max_time),
            labels(task, split),
        ]
    });
    Grid::new(&["split", "seeds", "without label", "first", "last", "labels"], rows).section(&mut text, "Splits");
    let rows = task.previews.iter().filter_map(|(&split, preview)| {
        let quantiles = preview.quantiles.as_ref()?;
        Some(std::iter::once(split.to_owned()).chain(quantiles.iter().map(shown)).collect())
    });
    let head = ["split", "min", "5 %", "25 %", "median", "75 %", "95 %", "max"];
    Grid::new(&head, rows).section(&mut text, "Quantiles of the labels");
    for (split, preview) in &task.previews {
        if let Some(histogram) = &preview.histogram {
            draw(&mut text, &format!("Labels of {split}"), histogram);
        }
        if let Some(top) = &preview.top {
            let _ = writeln!(text, "\nLabels of {split}");
            top_values(&mut text, top);
        }
    }
    if let Some(query) = &task.query {
        let _ = writeln!(text, "\nQuery");
        for part in query.lines() {
            let _ = writeln!(text, "  {}", clean(part).trim_end());
        }
    }
    for warning in &task.warnings {
        let _ = writeln!(text, "warning: {}", clean(warning));
    }
    text
}

/// The vocabulary, or what of it contains a pattern.
pub(in crate::inspect) fn vocabulary(found: &Vocabulary) -> String {
    let mut text = format!(
        "{} texts, {} of them added by tasks, {}; the longest has {} characters\n",
        grouped(u64::from(found.num_texts)),
        grouped(u64::from(found.num_of_tasks)),
        size(found.bytes),
        grouped(found.longest),
    );
    if found.pattern.is_none() {
        let rows = found.columns.iter();
        let rows = rows.map(|column| vec![column.column.clone(), column.stype.to_string(), grouped(column.distinct)]);
        Grid::new(&["column", "stype", "distinct"], rows).section(&mut text, "Texts per column");
    }
    let heading = match &found.pattern {
        Some(pattern) => format!("{} texts contain `{pattern}`", grouped(found.num_matches)),
        None => "Texts".into(),
    };
    let rows = found.matches.iter().map(|text| vec![text.id.to_string(), text.text.clone(), text.columns.join(", ")]);
    Grid::new(&["id", "text", "columns"], rows).section(&mut text, &heading);
    if found.num_matches == 0 {
        let _ = writeln!(text, "\n{}", clean(&heading));
    }
    let more = found.num_matches - found.matches.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "  and {} more: --limit", grouped(more));
    }
    text
}

fn line(text: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        let _ = writeln!(text, "  {:<17} {}", name, clean(value));
    }
}
