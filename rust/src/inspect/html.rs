//! A [`Summary`] as one page for a browser: no script, nothing from elsewhere, every name escaped.

mod chart;
mod layout;
mod schema;

use std::fmt::Write;

pub(super) use schema::Drawn;

use super::fan_out::bin_name;
use super::number::{grouped, percent, short, size};
use super::text::{labels, sample_note, shown, statistics, vectors};
use super::{ColumnSummary, ForeignKeySummary, Summary, TableSummary, TaskSummary, TopValues};
use crate::stype::Stype;

const STYLE: &str = include_str!("html/style.css");

/// The page.
pub(super) fn page(summary: &Summary) -> String {
    let name = escape(&summary.name);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{name}</title>\n<style>\n{STYLE}</style></head>\n<body>\n<header><h1>{name}</h1>\n"
    );
    let bytes: u64 = summary.sizes.iter().map(|kind| kind.bytes).sum();
    let facts = [
        (grouped(summary.tables.len() as u64), "tables"),
        (grouped(summary.rows.values().map(|&rows| u64::from(rows)).sum()), "rows"),
        (grouped(summary.edges.values().sum()), "edges"),
        (grouped(summary.tasks.len() as u64), "tasks"),
        (grouped(u64::from(summary.num_texts)), "texts"),
        (size(bytes), "on disk"),
    ];
    html.push_str("<p class=\"facts\">");
    for (number, what) in facts {
        let _ = write!(html, "<span><b>{number}</b> {what}</span>");
    }
    let _ = writeln!(
        html,
        "</p>\n<nav><a href=\"#schema\">Schema</a> <a href=\"#tables\">Tables</a> <a href=\"#tasks\">Tasks</a> \
         <a href=\"#files\">Vocabulary and files</a></nav></header>\n<main>"
    );
    warnings(&mut html, &summary.warnings);
    let _ = writeln!(
        html,
        "<section id=\"schema\"><h2>Schema</h2>\n<p class=\"note\">Every arrow is a foreign key, from the column that \
         holds it to the table it names; point at one for its counts. PK primary key, FK foreign key, T the time of a \
         row.</p>\n<div class=\"scroll\">{}</div></section>",
        schema::schema(summary)
    );
    html.push_str("<section id=\"tables\"><h2>Tables</h2>\n");
    if let Some(until) = &summary.stats_until {
        let _ = writeln!(html, "<p class=\"note\">Means and deviations of columns: over rows before {until}.</p>");
    }
    overview(&mut html, summary);
    html.push_str("</section>\n");
    for table in &summary.tables {
        table_section(&mut html, summary, table);
    }
    html.push_str("<section id=\"tasks\"><h2>Tasks</h2>\n");
    if summary.tasks.is_empty() {
        html.push_str("<p>This database has no tasks.</p>\n");
    }
    for task in &summary.tasks {
        task_card(&mut html, task);
    }
    html.push_str("</section>\n");
    files(&mut html, summary);
    let _ = writeln!(
        html,
        "</main>\n<footer>build {}, format {}; made by <code>tributary inspect --html</code></footer>\n</body></html>",
        escape(&summary.build_id),
        summary.format_version
    );
    html
}

/// A description as a page: its drawing, then the columns of every table.
pub(super) fn schema_page(name: &str, tables: &[Drawn]) -> String {
    let name = escape(name);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{name}</title>\n<style>\n{STYLE}</style></head>\n<body>\n<header><h1>{name}</h1></header>\n<main>\n\
         <section id=\"schema\"><p class=\"note\">Every arrow is a foreign key, from the column that holds it to the \
         table it names. PK primary key, FK foreign key, T the time of a row.</p>\n\
         <div class=\"scroll\">{}</div></section>\n",
        schema::draw(tables)
    );
    for (id, table) in tables.iter().enumerate() {
        let _ = writeln!(
            html,
            "<section id=\"table-{id}\"><h2>{}</h2>\n<table><tr><th>column</th><th>stype</th><th></th></tr>",
            escape(&table.name)
        );
        for [column, stype, note] in &table.columns {
            let _ = writeln!(
                html,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(column),
                escape(stype),
                escape(note)
            );
        }
        html.push_str("</table></section>\n");
    }
    html.push_str("</main>\n<footer>made by <code>tributary metadata show</code></footer>\n</body></html>");
    html
}

/// Text as HTML shows it, in elements and in quoted attributes; control characters become spaces.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The first characters of a text.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn warnings(html: &mut String, warnings: &[String]) {
    if warnings.is_empty() {
        return;
    }
    let _ =
        write!(html, "<details class=\"warnings\"><summary>{} warnings of preprocessing</summary><ul>", warnings.len());
    for warning in warnings {
        let _ = write!(html, "<li>{}</li>", escape(warning));
    }
    html.push_str("</ul></details>\n");
}

fn overview(html: &mut String, summary: &Summary) {
    html.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>table</th><th class=\"n\">rows</th><th class=\"n\">columns</th>\
         <th>primary key</th><th>time</th><th>time range</th><th class=\"n\">size</th></tr></thead><tbody>\n",
    );
    for table in &summary.tables {
        let range = table.time_range.as_ref().map_or_else(String::new, |[first, last]| format!("{first} to {last}"));
        let _ = writeln!(
            html,
            "<tr><td><a href=\"#table-{}\">{}</a></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td>\
             <td>{}</td><td>{range}</td><td class=\"n\">{}</td></tr>",
            table.id,
            escape(&table.name),
            grouped(u64::from(table.num_rows)),
            table.columns.len(),
            escape(table.primary_key.as_deref().unwrap_or_default()),
            escape(table.temporal_column.as_deref().unwrap_or_default()),
            size(table.bytes)
        );
    }
    html.push_str("</tbody></table></div>\n");
}

fn table_section(html: &mut String, summary: &Summary, table: &TableSummary) {
    let _ = writeln!(
        html,
        "<section class=\"table\" id=\"table-{}\"><h2>{} <small>{} rows, {}{}</small></h2>",
        table.id,
        escape(&table.name),
        grouped(u64::from(table.num_rows)),
        size(table.bytes),
        sample_note(table),
    );
    if !table.description.is_empty() {
        let _ = writeln!(html, "<p>{}</p>", escape(&table.description));
    }
    if table.num_never_visible > 0 {
        let count = grouped(u64::from(table.num_never_visible));
        let _ = writeln!(html, "<p class=\"note\">{count} rows have no time; no seed sees them.</p>");
    }
    html.push_str(
        "<div class=\"scroll\"><table class=\"columns\"><thead><tr><th>column</th><th>stype</th><th class=\"n\">nulls</th>\
         <th>values</th><th>distribution</th></tr></thead><tbody>\n",
    );
    for column in &table.columns {
        column_row(html, table, column);
    }
    html.push_str("</tbody></table></div>\n");
    let own = table.foreign_keys.iter().map(|key| (table, key));
    keys(html, "Parents", own.collect());
    let incoming = summary.tables.iter().flat_map(|child| child.foreign_keys.iter().map(move |key| (child, key)));
    keys(html, "Children", incoming.filter(|(_, key)| key.parent_table == table.name).collect());
    html.push_str("</section>\n");
}

fn column_row(html: &mut String, table: &TableSummary, column: &ColumnSummary) {
    let role = if table.primary_key.as_ref() == Some(&column.name) {
        " <em>primary key</em>".to_owned()
    } else if let Some(key) = table.foreign_keys.iter().find(|key| key.column == column.name) {
        format!(" <em>→ {}</em>", escape(&key.parent_table))
    } else if table.temporal_column.as_ref() == Some(&column.name) {
        " <em>time</em>".to_owned()
    } else {
        String::new()
    };
    let nulls = column.statistics.nulls;
    let share =
        if nulls == 0 { String::new() } else { format!(" <i>{}</i>", percent(nulls, u64::from(table.num_rows))) };
    let description = if column.description.is_empty() {
        String::new()
    } else {
        format!("<div class=\"note\">{}</div>", escape(&column.description))
    };
    let values = match column.stype {
        Stype::Identifier => String::new(),
        _ => escape(&statistics(column, u64::from(table.num_rows))),
    };
    let drawn = match (&column.histogram, &column.top) {
        (Some(histogram), _) => chart::histogram(histogram),
        (None, Some(top)) => frequent(top),
        (None, None) => String::new(),
    };
    let _ = writeln!(
        html,
        "<tr><td>{}{role}{description}</td><td><span class=\"stype {stype}\">{stype}</span></td>\
         <td class=\"n\">{}{share}</td><td>{values}</td><td>{drawn}</td></tr>",
        escape(&column.name),
        grouped(nulls),
        stype = column.stype,
    );
}

/// The most frequent values as bars.
fn frequent(top: &TopValues) -> String {
    const NUM_BARS: usize = 5;
    let total = top.others + top.values.iter().map(|value| value.count).sum::<u64>();
    let bars = top.values.iter().take(NUM_BARS).filter(|value| value.count > 0);
    let bars: Vec<(String, u64)> = bars.map(|found| (shown(&found.value), found.count)).collect();
    chart::bars(&bars, total)
}

fn keys(html: &mut String, heading: &str, keys: Vec<(&TableSummary, &ForeignKeySummary)>) {
    if keys.is_empty() {
        return;
    }
    let _ = writeln!(
        html,
        "<h3>{heading}</h3><div class=\"scroll\"><table><thead><tr><th>foreign key</th><th>names</th>\
         <th class=\"n\">edges</th><th class=\"n\">dangling</th><th class=\"n\">null</th>\
         <th class=\"n\">median</th><th class=\"n\">mean</th><th class=\"n\">p90</th><th class=\"n\">p99</th>\
         <th class=\"n\">max</th><th class=\"n\">none</th><th>children per parent</th></tr></thead><tbody>"
    );
    for (table, key) in keys {
        let fan_out = &key.fan_out;
        let names: Vec<(String, u64)> =
            fan_out.histogram.iter().enumerate().map(|(bin, &count)| (bin_name(bin), count)).collect();
        let alarm = if key.dangling > 0 { " class=\"n alarm\"" } else { " class=\"n\"" };
        let _ = writeln!(
            html,
            "<tr><td>{}.{}</td><td>{}</td><td class=\"n\">{}</td><td{alarm}>{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{:.2}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            escape(&table.name),
            escape(&key.column),
            escape(&key.parent_table),
            grouped(key.edges),
            grouped(key.dangling),
            grouped(key.null),
            grouped(fan_out.median),
            key.mean_children,
            grouped(fan_out.p90),
            grouped(fan_out.p99),
            grouped(key.max_children),
            percent(fan_out.childless, fan_out.parents),
            chart::columns(&names, "parents"),
        );
    }
    html.push_str("</tbody></table></div>\n");
}

fn task_card(html: &mut String, task: &TaskSummary) {
    let _ = writeln!(
        html,
        "<article class=\"task\" id=\"task-{}\"><h3>{} <small>{} of {}, {}, {} seeds</small></h3>",
        task.id,
        escape(&task.name),
        escape(&task.target_column),
        escape(&task.anchor_table),
        task.target_stype,
        grouped(u64::from(task.num_seeds))
    );
    if !task.description.is_empty() {
        let _ = writeln!(html, "<p>{}</p>", escape(&task.description));
    }
    let days = |us: i64| short(us as f64 / crate::timestamp::DAY_US as f64);
    let facts = [
        ("metric", task.metric.clone()),
        ("observation time", task.observation_time_column.clone()),
        ("horizon", task.horizon_us.map(|us| format!("{} days", days(us)))),
        ("classes", task.num_classes.map(|classes| grouped(classes as u64))),
        ("never shown", (!task.remove_columns.is_empty()).then(|| task.remove_columns.join(", "))),
    ];
    let facts = facts.iter().filter_map(|(name, value)| Some(format!("{name}: {}", escape(value.as_ref()?))));
    let _ = writeln!(html, "<p class=\"note\">{}</p>", facts.collect::<Vec<_>>().join(" · "));
    html.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>split</th><th class=\"n\">seeds</th>\
         <th class=\"n\">without label</th><th>first</th><th>last</th><th>labels</th><th></th></tr></thead><tbody>\n",
    );
    for (split, preview) in &task.previews {
        let drawn = match (&preview.histogram, &preview.top, preview.base_rate) {
            (Some(histogram), _, _) => chart::histogram(histogram),
            (_, Some(top), _) => frequent(top),
            (_, _, Some(rate)) => chart::share(rate),
            _ => String::new(),
        };
        let text = match (preview.mean, &preview.top) {
            (Some(mean), _) => format!("mean {}, std {}", short(mean), short(preview.std.unwrap_or(0.0))),
            (None, Some(_)) => String::new(),
            _ => labels(task, split),
        };
        let time = |time: &Option<String>| time.clone().unwrap_or_default();
        let _ = writeln!(
            html,
            "<tr><td>{split}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{drawn}</td></tr>",
            grouped(preview.rows),
            grouped(preview.nulls),
            time(&preview.min_time),
            time(&preview.max_time),
            escape(&text),
        );
    }
    html.push_str("</tbody></table></div>\n");
    if let Some(query) = &task.query {
        let _ = writeln!(html, "<details><summary>query</summary><pre>{}</pre></details>", escape(query));
    }
    html.push_str("</article>\n");
}

fn files(html: &mut String, summary: &Summary) {
    let vocabulary = summary.vocabulary;
    let _ = writeln!(
        html,
        "<section id=\"files\"><h2>Vocabulary and files</h2>\n<p>{} texts, {} of them added by tasks; {}.</p>",
        grouped(u64::from(vocabulary.num_texts)),
        grouped(u64::from(vocabulary.num_texts.saturating_sub(vocabulary.num_encoded))),
        escape(&vectors(summary)),
    );
    let total = summary.sizes.iter().map(|kind| kind.bytes).sum();
    let kinds: Vec<(String, u64)> = summary.sizes.iter().map(|kind| (kind.kind.to_owned(), kind.bytes)).collect();
    html.push_str(&chart::parts(&kinds, total));
    html.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>kind</th><th class=\"n\">files</th><th class=\"n\">size</th>\
         <th class=\"n\">share</th></tr></thead><tbody>\n",
    );
    for kind in &summary.sizes {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            kind.kind,
            kind.files,
            size(kind.bytes),
            percent(kind.bytes, total)
        );
    }
    html.push_str("</tbody></table></div>\n<details><summary>every file</summary><table><tbody>\n");
    for (name, &bytes) in &summary.files {
        let _ = writeln!(html, "<tr><td>{}</td><td class=\"n\">{}</td></tr>", escape(name), size(bytes));
    }
    html.push_str("</tbody></table></details></section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_nothing_else() {
        assert_eq!(escape("<script>'&\"\u{7}"), "&lt;script&gt;&#39;&amp;&quot; ");
        assert_eq!(shorten("grüße", 4), "grü…");
    }
}
