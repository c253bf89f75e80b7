//! A [`Summary`] as text: sections with aligned columns, thousands grouped, sizes in powers of 1024.

use std::fmt::Write;

use super::{ColumnSummary, Summary, TaskSummary};
use crate::manifest::{ColumnStatistics, TaskKind};
use crate::stype::Stype;
use crate::timestamp;

/// Longest text of one place in a grid.
const MAX_WIDTH: usize = 60;

pub(super) fn render(summary: &Summary) -> String {
    let bytes: u64 = summary.files.values().sum();
    let mut text = format!(
        "{}: {} tables, {} rows, {} edges, {}; format {}, build {}\n",
        summary.name,
        summary.tables.len(),
        number(summary.rows.values().map(|&rows| u64::from(rows)).sum()),
        number(summary.edges.values().sum()),
        size(bytes),
        summary.format_version,
        summary.build_id,
    );
    section(&mut text, "Tables", &tables(summary));
    for table in &summary.tables {
        section(&mut text, &format!("Columns of {}", table.name), &columns(&table.columns, table.num_rows));
    }
    section(&mut text, "Foreign keys", &foreign_keys(summary));
    section(&mut text, "Tasks", &tasks(&summary.tasks));
    section(&mut text, "Files", &files(summary));
    let embedder = summary.embedder.as_ref().map_or_else(|| "no vectors yet".to_owned(), ToString::to_string);
    let vocabulary = summary.vocabulary;
    let _ = writeln!(
        text,
        "\nVocabulary: {} texts, {} of them added by tasks; vectors: {embedder}",
        number(u64::from(vocabulary.num_texts)),
        number(u64::from(vocabulary.num_texts - vocabulary.num_encoded)),
    );
    for warning in &summary.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// A heading, names of columns, and rows; nothing when there are no rows.
struct Grid {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

fn section(text: &mut String, heading: &str, grid: &Grid) {
    if grid.rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{heading}");
    let head: Vec<String> = grid.head.iter().map(|&name| name.to_owned()).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(&head).chain(&grid.rows).map(|line| line.iter().map(|place| clip(place)).collect()).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_number = |column: usize| {
        let mut places = lines[1..].iter().map(|line| line[column].as_str()).filter(|place| *place != "-").peekable();
        let is_amount = |place: &str| {
            let (number, unit) = place.split_once(' ').unwrap_or((place, ""));
            number.starts_with(|first: char| first.is_ascii_digit())
                && number.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.'))
                && (unit.is_empty() || unit == "%" || unit.ends_with('B'))
        };
        places.peek().is_some() && places.all(is_amount)
    };
    let right: Vec<bool> = (0..head.len()).map(is_number).collect();
    for line in &lines {
        let mut rendered = String::from(" ");
        for (column, place) in line.iter().enumerate() {
            let gap = " ".repeat(widths[column] - place.chars().count());
            let (before, after) = if right[column] { (gap.as_str(), "") } else { ("", gap.as_str()) };
            let _ = write!(rendered, " {before}{place}{after} ");
        }
        let _ = writeln!(text, "{}", rendered.trim_end());
    }
}

/// One line, of bounded length, without control characters.
fn clip(place: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if place.chars().count() <= MAX_WIDTH {
        return place.chars().map(clean).collect();
    }
    place.chars().take(MAX_WIDTH - 3).map(clean).chain("...".chars()).collect()
}

fn tables(summary: &Summary) -> Grid {
    let rows = summary.tables.iter().map(|table| {
        let [first, last] = table.time_range.clone().unwrap_or_else(|| ["-".into(), "-".into()]);
        vec![
            table.name.clone(),
            number(u64::from(table.num_rows)),
            number(table.columns.len() as u64),
            table.primary_key.clone().unwrap_or_else(|| "-".into()),
            table.temporal_column.clone().unwrap_or_else(|| "-".into()),
            first,
            last,
            size(table.bytes),
        ]
    });
    Grid {
        head: vec!["table", "rows", "columns", "primary key", "temporal column", "first", "last", "size"],
        rows: rows.collect(),
    }
}

fn columns(columns: &[ColumnSummary], num_rows: u32) -> Grid {
    let rows = columns.iter().map(|column| {
        let share = if num_rows == 0 { 0.0 } else { 100.0 * column.statistics.nulls as f64 / f64::from(num_rows) };
        vec![
            column.id.to_string(),
            column.name.clone(),
            column.stype.to_string(),
            number(column.statistics.nulls),
            format!("{share:.1} %"),
            statistics(column.stype, &column.statistics),
        ]
    });
    Grid { head: vec!["id", "column", "stype", "nulls", "", "values"], rows: rows.collect() }
}

fn statistics(stype: Stype, statistics: &ColumnStatistics) -> String {
    let float = |value: Option<f64>| value.map_or_else(|| "-".into(), short);
    match stype {
        Stype::Identifier => "-".into(),
        Stype::Numerical => format!(
            "{} to {}, mean {}, std {}",
            float(statistics.min),
            float(statistics.max),
            float(statistics.mean),
            float(statistics.std)
        ),
        Stype::Timestamp => match (statistics.min_us, statistics.max_us) {
            (Some(first), Some(last)) => format!("{} to {}", timestamp::format(first), timestamp::format(last)),
            _ => "-".into(),
        },
        Stype::Boolean => statistics.true_count.map_or_else(|| "-".into(), |count| format!("{} true", number(count))),
        Stype::Categorical | Stype::Text => {
            statistics.distinct.map_or_else(|| "-".into(), |count| format!("{} distinct", number(count)))
        }
    }
}

fn foreign_keys(summary: &Summary) -> Grid {
    let rows = summary.tables.iter().flat_map(|table| {
        table.foreign_keys.iter().map(|key| {
            vec![
                key.id.to_string(),
                format!("{}.{}", table.name, key.column),
                key.parent_table.clone(),
                number(key.edges),
                number(key.dangling),
                number(key.null),
                format!("{:.2}", key.mean_children),
                number(key.max_children),
                number(key.childless_parents),
            ]
        })
    });
    Grid {
        head: vec![
            "id",
            "foreign key",
            "parent table",
            "edges",
            "dangling",
            "null",
            "mean children",
            "most",
            "childless",
        ],
        rows: rows.collect(),
    }
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
                number(u64::from(count)),
                first,
                last,
                labels(task, split),
            ]
        })
    });
    Grid {
        head: vec!["task", "anchor table", "target", "split", "seeds", "first", "last", "labels"],
        rows: rows.collect(),
    }
}

fn labels(task: &TaskSummary, split: &str) -> String {
    match (task.base_rates.get(split), task.statistics, task.num_classes) {
        (Some(rate), _, _) => format!("{:.2} % true", 100.0 * rate),
        (_, Some(statistics), _) if split == "train" => {
            format!("mean {}, std {}", short(statistics.mean), short(statistics.std))
        }
        (_, _, Some(classes)) if split == "train" => format!("{classes} classes"),
        _ => "-".into(),
    }
}

fn files(summary: &Summary) -> Grid {
    let rows = summary.files.iter().map(|(name, &bytes)| vec![name.clone(), size(bytes)]);
    Grid { head: vec!["file", "size"], rows: rows.collect() }
}

/// An integer with its thousands grouped.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Four significant digits.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-3..1e6).contains(&magnitude) {
        let digits = if value == 0.0 { 0 } else { (3 - magnitude.log10().floor() as i32).max(0) as usize };
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{value:.3e}")
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(short(0.0), "0");
        assert_eq!(short(1234.567), "1235");
        assert_eq!(short(-0.5), "-0.5");
        assert_eq!(short(12.3456), "12.35");
        assert_eq!(short(1.5e9), "1.500e9");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(3 << 20), "3.0 MiB");
    }

    #[test]
    fn a_place_is_one_bounded_line() {
        assert_eq!(clip("a\nb"), "a b");
        assert_eq!(clip(&"é".repeat(100)).chars().count(), MAX_WIDTH);
    }
}
