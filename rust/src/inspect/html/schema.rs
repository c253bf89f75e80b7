//! The schema as SVG: a box per table with its keys, an arrow per foreign key.

use std::fmt::Write;

use serde::Deserialize;

use super::layout::{Link, Size, layout};
use super::{escape, shorten};
use crate::inspect::number::grouped;
use crate::inspect::{Summary, TableSummary};

/// Height of the head of a box, of a line, and the space below the last one.
const HEAD: f64 = 24.0;
const LINE: f64 = 16.0;
const FOOT: f64 = 6.0;
/// Width of a character at the size of the lines, and of the widest text.
const CHARACTER: f64 = 6.7;
const MAX_CHARACTERS: usize = 34;

/// Colours of arrows, by the table they point to; readable on light and dark ground.
const COLORS: [&str; 8] = ["#3b82c4", "#c2571a", "#2f9e61", "#b8860b", "#8e5bc0", "#c0436f", "#1a8f9c", "#7a7f2a"];

/// A line of a box: what the column is, its name, and the place of the foreign key it holds.
struct Line {
    mark: &'static str,
    name: String,
    key: Option<usize>,
}

/// A table of a drawing.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::inspect) struct Drawn {
    pub(super) name: String,
    num_rows: u64,
    num_columns: usize,
    primary_key: Option<String>,
    temporal_column: Option<String>,
    foreign_keys: Vec<Arrow>,
    /// Lines of the list of columns, where the page has one.
    #[serde(default)]
    pub(super) columns: Vec<[String; 3]>,
}

/// A foreign key of a drawing.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::inspect) struct Arrow {
    column: String,
    parent_table: String,
    /// What is said of it besides its names.
    note: String,
}

impl From<&TableSummary> for Drawn {
    fn from(table: &TableSummary) -> Self {
        let foreign_keys = table
            .foreign_keys
            .iter()
            .map(|key| {
                let counts = [grouped(key.edges), grouped(key.dangling), grouped(key.null)];
                let note = format!(": {} edges, {} dangling, {} null", counts[0], counts[1], counts[2]);
                Arrow { column: key.column.clone(), parent_table: key.parent_table.clone(), note }
            })
            .collect();
        Self {
            name: table.name.clone(),
            num_rows: u64::from(table.num_rows),
            num_columns: table.columns.len(),
            primary_key: table.primary_key.clone(),
            temporal_column: table.temporal_column.clone(),
            foreign_keys,
            columns: vec![],
        }
    }
}

/// Draws the tables of a processed database.
pub(super) fn schema(summary: &Summary) -> String {
    draw(&summary.tables.iter().map(Drawn::from).collect::<Vec<_>>())
}

/// Draws tables; the number of a table is its place.
pub(super) fn draw(tables: &[Drawn]) -> String {
    let lines: Vec<Vec<Line>> = tables.iter().map(lines).collect();
    let sizes: Vec<Size> = tables.iter().zip(&lines).map(|(table, lines)| size(table, lines)).collect();
    let place = |name: &str| tables.iter().position(|table| table.name == name).unwrap_or(0);
    let (mut links, mut titles) = (Vec::new(), Vec::new());
    for (from, table) in tables.iter().enumerate() {
        for (idx, key) in table.foreign_keys.iter().enumerate() {
            let line = lines[from].iter().position(|line| line.key == Some(idx)).unwrap_or(0);
            let to = place(&key.parent_table);
            links.push(Link { from, to, from_y: HEAD + LINE * (line as f64 + 0.5) });
            titles.push(format!("{}.{} → {}{}", table.name, key.column, key.parent_table, key.note));
        }
    }
    let layout = layout(&sizes, &links);
    let mut svg = format!(
        "<svg class=\"schema\" viewBox=\"0 0 {0:.0} {1:.0}\" width=\"{0:.0}\" height=\"{1:.0}\" role=\"img\" \
         aria-label=\"schema\">\n<defs>",
        layout.width, layout.height
    );
    for (idx, color) in COLORS.iter().enumerate() {
        let _ = write!(
            svg,
            "<marker id=\"tip{idx}\" fill=\"{color}\" viewBox=\"0 0 8 8\" refX=\"7.5\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0.5 8 4 0 7.5z\"/></marker>"
        );
    }
    svg.push_str("</defs>\n");
    for ((link, title), points) in links.iter().zip(&titles).zip(&layout.paths) {
        let color = link.to % COLORS.len();
        let _ = writeln!(
            svg,
            "<g class=\"link\"><path class=\"wide\" d=\"{0}\"/><path d=\"{0}\" stroke=\"{1}\" \
             marker-end=\"url(#tip{color})\"/><title>{2}</title></g>",
            if link.from == link.to { loop_of(points) } else { curve(points) },
            COLORS[color],
            escape(title)
        );
    }
    for (id, (((table, lines), size), &(x, y))) in
        tables.iter().zip(&lines).zip(&sizes).zip(&layout.corners).enumerate()
    {
        draw_box(&mut svg, id, table, lines, *size, (x, y));
    }
    svg + "</svg>\n"
}

fn lines(table: &Drawn) -> Vec<Line> {
    let mut lines = Vec::new();
    lines.extend(table.primary_key.clone().map(|name| Line { mark: "PK", name, key: None }));
    for (idx, key) in table.foreign_keys.iter().enumerate() {
        lines.push(Line { mark: "FK", name: key.column.clone(), key: Some(idx) });
    }
    lines.extend(table.temporal_column.clone().map(|name| Line { mark: "T", name, key: None }));
    lines
}

fn size(table: &Drawn, lines: &[Line]) -> Size {
    let long = |text: &str| text.chars().count().min(MAX_CHARACTERS) as f64;
    let head = long(&table.name) * 7.6 + rows(table).len() as f64 * 6.0 + 30.0;
    let widest = lines.iter().map(|line| long(&line.name) * CHARACTER + 42.0).fold(head, f64::max);
    Size { width: widest.max(96.0).ceil(), height: HEAD + LINE * lines.len() as f64 + FOOT }
}

fn rows(table: &Drawn) -> String {
    match table.num_rows {
        rows @ 0..10_000 => grouped(rows),
        rows @ 10_000..10_000_000 => format!("{}k", grouped(rows / 1000)),
        rows => format!("{}M", grouped(rows / 1_000_000)),
    }
}

fn draw_box(svg: &mut String, id: usize, table: &Drawn, lines: &[Line], size: Size, (x, y): (f64, f64)) {
    let Size { width, height } = size;
    let _ = write!(
        svg,
        "<a href=\"#table-{}\"><g class=\"box\" transform=\"translate({x:.1} {y:.1})\">\
         <rect width=\"{width:.0}\" height=\"{height:.0}\" rx=\"5\"/>\
         <path class=\"head\" d=\"M0 {HEAD}V5a5 5 0 0 1 5-5H{:.0}a5 5 0 0 1 5 5V{HEAD}z\"/>\
         <text class=\"name\" x=\"9\" y=\"16\">{}</text><text class=\"rows\" x=\"{:.0}\" y=\"16\">{}</text>\
         <title>{}: {} rows, {} columns</title>",
        id,
        width - 5.0,
        escape(&shorten(&table.name, MAX_CHARACTERS)),
        width - 8.0,
        rows(table),
        escape(&table.name),
        grouped(table.num_rows),
        table.num_columns,
    );
    for (idx, line) in lines.iter().enumerate() {
        let y = HEAD + LINE * idx as f64 + 12.5;
        let name = escape(&shorten(&line.name, MAX_CHARACTERS));
        let mark = line.mark;
        let _ = write!(
            svg,
            "<text class=\"mark\" x=\"9\" y=\"{y}\">{mark}</text><text class=\"line\" x=\"32\" y=\"{y}\">{name}</text>"
        );
    }
    svg.push_str("</g></a>\n");
}

/// Curves between the layers, straight lines along the lanes.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = format!("M{:.1} {:.1}", points[0].0, points[0].1);
    for (idx, pair) in points.windows(2).enumerate() {
        let [(x, y), (next_x, next_y)] = [pair[0], pair[1]];
        if idx % 2 == 1 {
            let _ = write!(path, "L{next_x:.1} {next_y:.1}");
        } else {
            let middle = f64::midpoint(x, next_x);
            let _ = write!(path, "C{middle:.1} {y:.1} {middle:.1} {next_y:.1} {next_x:.1} {next_y:.1}");
        }
    }
    path
}

/// Out of the right side of a box and back into it.
fn loop_of(points: &[(f64, f64)]) -> String {
    let [(x, y), (_, back)] = [points[0], points[points.len() - 1]];
    let reach = x + 18.0 + (y - back) * 0.35;
    format!("M{x:.1} {y:.1}C{reach:.1} {y:.1} {reach:.1} {back:.1} {x:.1} {back:.1}")
}
