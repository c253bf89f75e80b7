//! One context as a person reads it: which rows, reached how, with which cells, and what stayed hidden and why.
//!
//! The context is made by the same walk as in a batch; what was hidden is counted afterwards from the visited rows.

use serde::Serialize;
use serde_json::Value;

use super::collate::{Batch, Shape};
use super::config::SamplerConfig;
use super::context::{Asked, Walker};
use super::examples::latest_label;
use super::frontier::{Via, Visit};
use super::plan::{TaskPlan, key_names};
use super::seeds::Seed;
use super::temporal::END_OF_TIME;
use super::{Core, Sampler};
use crate::database::{Database, View};
use crate::error::{Error, Result};
use crate::format::record::{Cell, CellEncoding, NEVER_VISIBLE};
use crate::ids::{RowId, TableId, TaskId};
use crate::inspect::{cell_value, key_json};
use crate::manifest::{ColumnManifest, ColumnStatistics, Manifest, TableManifest, TaskManifest};
use crate::stype::Stype;
use crate::timestamp;

/// Hidden rows named per link.
const EXAMPLES: usize = 3;

/// A context, decoded.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The task's name; that of the table for a seed that is a row of one.
    pub task: String,
    /// Position among all seeds of the task; the row of a table.
    pub seed_index: u32,
    /// The epoch whose draws are shown.
    pub epoch: u64,
    /// The seed's split; `asked` for seeds of the caller's own, `row` for rows of a table.
    pub split: &'static str,
    /// The seed's time, or `None` at the end of time.
    pub seed_time: Option<String>,
    /// The entity's table.
    pub entity_table: String,
    /// The entity's row.
    pub entity_row: u32,
    /// The entity's primary key.
    pub entity: Value,
    /// The column asked for, if one is.
    pub target_column: Option<String>,
    /// Its semantic type.
    pub target_stype: Option<&'static str>,
    /// The label, null where none is known. It is in no cell of the context.
    pub label: Value,
    /// Columns the task hides everywhere, as `table.column`.
    pub removed_columns: Vec<String>,
    /// Visited rows in the order of their local numbers.
    pub rows: Vec<ExplainedRow>,
    /// Sums over the context.
    pub counts: Counts,
}

/// Sums over a context.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    /// Rows visited.
    pub rows: usize,
    /// Cells shown, the target included.
    pub cells: usize,
    /// Cells a context has room for.
    pub seq_len: usize,
    /// Links from visited rows to rows that are not visible at the seed's time.
    pub hidden_by_time: usize,
    /// Links from visited rows to rows that are older than the look-back window.
    pub hidden_by_lookback: usize,
    /// Links from visited rows to visible rows that were not visited, for lack of room or by the limits.
    pub hidden_by_budget: usize,
    /// Target cells hidden in other rows of the entity's table.
    pub hidden_targets: usize,
}

/// One visited row.
#[derive(Debug, Serialize)]
pub struct ExplainedRow {
    /// Its local number.
    pub local: usize,
    /// Its table; the task's name for rows of the task itself.
    pub table: String,
    /// Its row, or seed, number.
    pub row: u32,
    /// Its primary key.
    pub key: Value,
    /// Links from the seed's row.
    pub hop: u32,
    /// Local number of the row it was reached from; none for the seed's row and for examples.
    pub from: Option<usize>,
    /// How it was reached: `seed`, `parent`, `child`, `history` or `example`.
    pub kind: &'static str,
    /// The foreign key it was reached by, as `table.column`.
    pub link: Option<String>,
    /// Local number of the example it was reached from, over any number of links; none for the seed's own part.
    pub example: Option<usize>,
    /// Its time.
    pub time: Option<String>,
    /// Its cells in the context.
    pub cells: Vec<ExplainedCell>,
    /// The target cell of this row is hidden: its label is not known yet, or it is in a later split.
    pub has_hidden_target: bool,
    /// Linked rows that are not in the context.
    pub hidden: Vec<HiddenRows>,
}

/// One cell of the context.
#[derive(Debug, Serialize)]
pub struct ExplainedCell {
    /// Its column.
    pub column: String,
    /// Its semantic type.
    pub stype: Stype,
    /// Its value in the user's units; null for a missing one and for the target.
    pub value: Value,
    /// It is the masked target.
    pub is_target: bool,
    /// It is hidden in pretraining, and its value what is asked for.
    pub is_masked: bool,
}

/// Rows linked to a visited row by one foreign key that are not in the context.
#[derive(Debug, Serialize)]
pub struct HiddenRows {
    /// `parent`, `child` or `history`.
    pub kind: &'static str,
    /// The foreign key, as `table.column`.
    pub link: String,
    /// `time`, `lookback` or `budget`.
    pub reason: &'static str,
    /// How many.
    pub count: usize,
    /// Some of them: the primary key, or the row where there is none, and the time.
    pub examples: Vec<HiddenRow>,
}

/// A row that is not in the context.
#[derive(Debug, Serialize)]
pub struct HiddenRow {
    /// Its primary key, or its row number where the table has no keys.
    pub key: Value,
    /// Its time.
    pub time: Option<String>,
}

impl Sampler {
    /// The context at a position of the order of seeds, decoded.
    ///
    /// # Errors
    /// [`Error::Argument`] when a fixed order has no such position; [`Error::Format`] when the content is damaged.
    pub fn explain(&self, position: u64) -> Result<Explanation> {
        let seed = self.core.order.seeds(position, 1).next().flatten().ok_or_else(|| {
            Error::Argument(format!("position {position} is out of range; there are {} seeds", self.num_seeds()))
        })?;
        self.core.guard(|| explain(&self.core, seed))?
    }

    /// The context of a seed given by its task and its position among all seeds of the task, or by its table and row,
    /// decoded.
    ///
    /// # Errors
    /// [`Error::Argument`] when the sampler does not have the task or table, or it has no such seed.
    pub fn explain_seed(&self, source: &str, index: u32) -> Result<Explanation> {
        if !self.core.config.tasks.iter().any(|task| task == source) {
            return self.explain_row(source, index);
        }
        let found = self.core.database.manifest().task(source);
        let task = found.ok_or_else(|| Error::Argument(format!("the sampler has no task `{source}`")))?;
        let seeds = self.core.config.seeds.as_ref().map_or(task.num_seeds, |seeds| seeds.len() as u32);
        if index >= seeds {
            let name = &task.name;
            return Err(Error::Argument(format!("task `{name}` has {seeds} seeds, seed {index} was asked for")));
        }
        self.core.guard(|| explain(&self.core, Seed { task: task.id, index, epoch: 0 }))?
    }

    fn explain_row(&self, name: &str, row: u32) -> Result<Explanation> {
        let manifest = self.core.database.manifest();
        let is_asked = |table: &&TableManifest| table.name == name && self.core.config.tables.contains(&table.name);
        let table = manifest.tables.iter().find(is_asked);
        let table = table.ok_or_else(|| Error::Argument(format!("the sampler has no task and no table `{name}`")))?;
        let rows = table.num_rows;
        if row >= rows {
            return Err(Error::Argument(format!("table `{name}` has {rows} rows, row {row} was asked for")));
        }
        self.core.guard(|| {
            if self.core.database.table(table.id).record(RowId(row)).time() == NEVER_VISIBLE {
                let message = format!("table `{name}`, row {row}: its time is null, so it is no seed");
                return Err(Error::Argument(message));
            }
            let task = TaskId(manifest.tasks.len() as u32 + table.id.0);
            explain(&self.core, Seed { task, index: row, epoch: 0 })
        })?
    }
}

fn explain(core: &Core, seed: Seed) -> Result<Explanation> {
    let view = core.database.view();
    let mut walker = core.walker(&view);
    let mut batch = Batch::with_capacity(Shape { contexts: 1, ..core.shape })?;
    let walked = core.guard(|| walker.walk(seed, None, &mut batch.push()))?;
    let manifest = core.database.manifest();
    let task = manifest.tasks.get(seed.task.idx());
    let plan = core.plans[seed.task.idx()].as_ref().ok_or_else(|| core.damaged())?;
    let asked = Asked::new(&view, &core.plans, &core.config, seed);
    let anchor = &manifest.tables[plan.anchor_table as usize];
    let split = match asked.index {
        _ if plan.is_row => Some("row"),
        Some(index) => ["train", "val", "test"].get(asked.seeds.splits[index] as usize).copied(),
        None => Some("asked"),
    };
    let reader = Reader {
        database: &core.database,
        manifest,
        view: &view,
        config: &core.config,
        task,
        plan,
        target: task.map(target_description),
        asked,
        walker: &walker,
        visited: walked.rows,
    };
    let mut rows = reader.rows()?;
    for at in 0..walked.cells {
        let local = batch.cell_row[at] as usize;
        let cell = reader.cell(batch.cell_column[at], batch.cell_is_target[at], &rows[local], &walker.rows()[local])?;
        rows[local].cells.push(ExplainedCell { is_masked: batch.cell_is_masked[at], ..cell });
    }
    let hidden_by = |reason| rows.iter().flat_map(|row| &row.hidden).filter(move |hidden| hidden.reason == reason);
    let counts = Counts {
        rows: walked.rows,
        cells: walked.cells,
        seq_len: core.shape.cells,
        hidden_by_time: hidden_by("time").map(|hidden| hidden.count).sum(),
        hidden_by_lookback: hidden_by("lookback").map(|hidden| hidden.count).sum(),
        hidden_by_budget: hidden_by("budget").map(|hidden| hidden.count).sum(),
        hidden_targets: rows.iter().filter(|row| row.has_hidden_target).count(),
    };
    Ok(Explanation {
        task: task.map_or_else(|| anchor.name.clone(), |task| task.name.clone()),
        seed_index: seed.index,
        epoch: seed.epoch,
        split: split.ok_or_else(|| core.damaged())?,
        seed_time: (asked.time != END_OF_TIME).then(|| timestamp::format(asked.time)),
        entity_table: anchor.name.clone(),
        entity_row: asked.row,
        entity: key_json(core.database.key(anchor.id, RowId(asked.row))?.as_ref()),
        target_column: task.map(|task| task.target_column.clone()),
        target_stype: task.map(|task| task.target_stype.target_name()),
        label: asked.index.filter(|_| !plan.is_row).map_or(Ok(Value::Null), |index| reader.label(index))?,
        removed_columns: task
            .into_iter()
            .flat_map(|task| &task.remove_columns)
            .map(|id| reader.column_name(id.0))
            .collect(),
        rows,
        counts,
    })
}

/// The target of a task as a column, so that labels decode like cells.
fn target_description(task: &TaskManifest) -> ColumnManifest {
    ColumnManifest {
        id: task.target_column_id,
        name: task.target_column.clone(),
        stype: task.target_stype,
        description: String::new(),
        statistics: ColumnStatistics {
            mean: Some(task.statistics.mean),
            std: Some(task.statistics.std),
            ..ColumnStatistics::default()
        },
        encoding: CellEncoding::default(),
    }
}

fn time_text(time: i64) -> Option<String> {
    (time != i64::MIN && time != i64::MAX).then(|| timestamp::format(time))
}

/// Why a linked row is not in the context.
#[derive(Clone, Copy)]
enum Reason {
    Time,
    Lookback,
    Budget,
}

/// Why a parent of this time may be absent.
fn parent_reason(asked: &Asked<'_>, time: i64) -> Reason {
    if asked.visibility.row(time) { Reason::Budget } else { Reason::Time }
}

/// Why a child of this time may be absent.
fn child_reason(asked: &Asked<'_>, time: i64) -> Reason {
    if asked.visibility.is_too_old(time) { Reason::Lookback } else { parent_reason(asked, time) }
}

/// Why an earlier seed may be absent.
fn label_reason(asked: &Asked<'_>, seed: usize) -> Reason {
    match asked.visibility.is_too_old(asked.seeds.times[seed]) {
        _ if asked.shows_label(seed) => Reason::Budget,
        true => Reason::Lookback,
        false => Reason::Time,
    }
}

/// Decodes what a walk left behind.
struct Reader<'a> {
    database: &'a Database,
    manifest: &'a Manifest,
    view: &'a View<'a>,
    config: &'a SamplerConfig,
    /// None for a row of a table.
    task: Option<&'a TaskManifest>,
    plan: &'a TaskPlan,
    target: Option<ColumnManifest>,
    asked: Asked<'a>,
    walker: &'a Walker<'a>,
    visited: usize,
}

impl Reader<'_> {
    fn rows(&self) -> Result<Vec<ExplainedRow>> {
        let visits = &self.walker.rows()[..self.visited];
        visits.iter().enumerate().map(|(local, visit)| self.row(local, visit)).collect()
    }

    fn row(&self, local: usize, visit: &Visit) -> Result<ExplainedRow> {
        let is_seed = self.is_own_table(visit.table);
        let time = if local == 0 && is_seed { self.asked.time } else { self.time(visit.table, visit.row) };
        let (kind, link) = match visit.via {
            Via::Seed => ("seed", None),
            Via::Parent(key) => ("parent", Some(key)),
            Via::Child(key) if is_seed => ("history", Some(key)),
            Via::Child(key) => ("child", Some(key)),
            Via::Example => ("example", None),
        };
        let (asked, example) = self.part(local);
        Ok(ExplainedRow {
            local,
            table: self.table_name(visit.table).to_owned(),
            row: visit.row,
            key: if is_seed { Value::Null } else { self.key(visit.table, visit.row)? },
            hop: visit.hop,
            from: link.map(|_| visit.from as usize),
            kind,
            link: link.map(|key| self.link_name(key)),
            example,
            time: time_text(time),
            cells: vec![],
            has_hidden_target: local > 0
                && visit.table == self.plan.anchor_table
                && self.plan.target.is_some_and(|target| target.is_removed || !asked.shows_target_of(visit.row)),
            hidden: if is_seed { self.hidden_entity(&asked, visit)? } else { self.hidden_links(&asked, visit)? },
        })
    }

    /// What the part of the context that a row belongs to may see, and the example of that part.
    fn part(&self, local: usize) -> (Asked<'_>, Option<usize>) {
        let (rows, mut first) = (self.walker.rows(), local);
        loop {
            match rows[first].via {
                Via::Seed => return (self.asked, None),
                Via::Example => {
                    let (asked, row) = (self.asked, rows[first].row);
                    let seed = if asked.plan.target.is_none() { Some(row) } else { latest_label(asked, row) };
                    return (seed.map_or(asked, |seed| asked.as_example(seed, self.config)), Some(first));
                }
                Via::Parent(_) | Via::Child(_) => first = rows[first].from as usize,
            }
        }
    }

    fn is_own_table(&self, table: u32) -> bool {
        table as usize >= self.view.tables.len()
    }

    fn table_name(&self, table: u32) -> &str {
        let of_task = || self.task.map_or("", |task| &task.name);
        self.manifest.tables.get(table as usize).map_or_else(of_task, |table| &table.name)
    }

    /// `table.column` of a foreign key.
    fn link_name(&self, key: u32) -> String {
        key_names(self.manifest)[key as usize].clone()
    }

    fn column_name(&self, id: u32) -> String {
        let mut all = self.manifest.tables.iter().flat_map(|table| table.columns.iter().map(move |c| (table, c)));
        all.find(|(_, column)| column.id.0 == id)
            .map_or_else(|| id.to_string(), |(table, column)| format!("{}.{}", table.name, column.name))
    }

    fn time(&self, table: u32, row: u32) -> i64 {
        match self.view.tables.get(table as usize) {
            Some(table) => table.record(RowId(row)).time(),
            None => self.asked.seeds.times[row as usize],
        }
    }

    fn key(&self, table: u32, row: u32) -> Result<Value> {
        Ok(key_json(self.database.key(TableId(table), RowId(row))?.as_ref()))
    }

    fn is_visited(&self, table: u32, row: u32) -> bool {
        self.walker.number(table, row).is_some_and(|number| (number as usize) < self.visited)
    }

    fn seeds_of(&self, row: u32) -> &[u32] {
        let seeds = self.asked.seeds;
        &seeds.indices[seeds.indptr[row as usize] as usize..seeds.indptr[row as usize + 1] as usize]
    }

    /// The entity of a seed's row where it is not in the context.
    fn hidden_entity(&self, asked: &Asked<'_>, visit: &Visit) -> Result<Vec<HiddenRows>> {
        let anchor = if visit.via == Via::Seed { self.asked.row } else { self.asked.seeds.rows[visit.row as usize] };
        let table = self.plan.anchor_table;
        let reason = parent_reason(asked, self.time(table, anchor));
        self.hidden("parent", self.plan.key, table, [(anchor, reason)].into_iter())
    }

    /// Rows linked to a row of the database that are not in the context.
    fn hidden_links(&self, asked: &Asked<'_>, visit: &Visit) -> Result<Vec<HiddenRows>> {
        let plan = &self.plan.tables[visit.table as usize];
        let record = self.view.tables[visit.table as usize].record(RowId(visit.row));
        let mut all = vec![];
        for link in &plan.parents {
            let parent = record.parent(link.slot);
            let parents = parent.map(|row| (row, parent_reason(asked, self.time(link.table, row))));
            all.extend(self.hidden("parent", link.key, link.table, parents.into_iter())?);
        }
        if self.plan.has_history && visit.table == self.plan.anchor_table {
            let others = self.seeds_of(visit.row).iter().filter(|&&seed| Some(seed as usize) != self.asked.index);
            let seeds = others.map(|&seed| (seed, label_reason(asked, seed as usize)));
            all.extend(self.hidden("history", self.plan.key, self.plan.table, seeds)?);
        }
        for link in &plan.children {
            let children = &self.view.children[link.key as usize];
            let range = record.children(link.slot);
            let rows = children.indices.range(range.clone()).zip(children.times.range(range));
            let rows = rows.map(|(row, time)| (row as u32, child_reason(asked, time)));
            all.extend(self.hidden("child", link.key, link.table, rows)?);
        }
        Ok(all)
    }

    /// Those of some linked rows that are not in the context, by reason.
    fn hidden(
        &self,
        kind: &'static str,
        key: u32,
        table: u32,
        rows: impl Iterator<Item = (u32, Reason)>,
    ) -> Result<Vec<HiddenRows>> {
        let mut by_reason = [("time", 0, vec![]), ("lookback", 0, vec![]), ("budget", 0, vec![])];
        for (row, reason) in rows.filter(|&(row, _)| !self.is_visited(table, row)) {
            let (_, count, examples) = &mut by_reason[reason as usize];
            *count += 1;
            if examples.len() < EXAMPLES {
                let key = if self.is_own_table(table) { Value::Null } else { self.key(table, row)? };
                let key = if key.is_null() { Value::from(row) } else { key };
                examples.push(HiddenRow { key, time: time_text(self.time(table, row)) });
            }
        }
        let some = by_reason.into_iter().filter(|(_, count, _)| *count > 0);
        Ok(some
            .map(|(reason, count, examples)| HiddenRows { kind, link: self.link_name(key), reason, count, examples })
            .collect())
    }

    /// The label of a seed in the user's units.
    fn label(&self, seed: usize) -> Result<Value> {
        let seeds = self.asked.seeds;
        let Some(target) = self.target.as_ref().filter(|_| seeds.is_null[seed] == 0) else { return Ok(Value::Null) };
        if let Some(table) = self.plan.target_table {
            return seeds.targets_of(seed).iter().map(|&row| self.key(table, row)).collect();
        }
        let cell = match target.stype {
            Stype::Identifier => Cell::Identifier,
            Stype::Numerical => Cell::Numerical(seeds.values[seed]),
            Stype::Timestamp => Cell::Timestamp(seeds.label_times[seed]),
            Stype::Boolean => Cell::Boolean(seeds.values[seed] != 0.0),
            Stype::Categorical => Cell::Categorical(seeds.vocab[seed]),
            Stype::Text => Cell::Text(seeds.vocab[seed]),
        };
        cell_value(self.database, target, Some(cell))
    }

    fn cell(&self, column: i32, is_target: bool, row: &ExplainedRow, visit: &Visit) -> Result<ExplainedCell> {
        let Some(table) = self.manifest.tables.get(visit.table as usize) else {
            return self.seed_cell(column, is_target, visit);
        };
        let positioned = table.columns.iter().enumerate().find(|(_, known)| known.id.0 as i32 == column);
        let (position, column) = positioned.ok_or_else(|| {
            Error::format(self.database.path(), format!("column {column} is not one of table `{}`", table.name))
        })?;
        let record = self.view.tables[visit.table as usize].record(RowId(visit.row));
        let cell = record.cell(position);
        let key = table.foreign_keys.iter().enumerate().find(|(_, key)| key.column == column.name);
        let parent = key.and_then(|(slot, key)| record.parent(slot).map(|parent| (key.parent_table, parent)));
        let value = match (cell, parent) {
            _ if is_target => Value::Null,
            (Some(Cell::Identifier), Some((parent_table, parent))) => self.key(parent_table.0, parent)?,
            (Some(Cell::Identifier), None) if table.primary_key.as_ref() == Some(&column.name) => row.key.clone(),
            _ => cell_value(self.database, column, cell)?,
        };
        Ok(ExplainedCell { column: column.name.clone(), stype: column.stype, value, is_target, is_masked: false })
    }

    /// A cell of the task's own table: the observation time or the label.
    fn seed_cell(&self, column: i32, is_target: bool, visit: &Visit) -> Result<ExplainedCell> {
        if column == self.plan.target_column {
            let value = if is_target { Value::Null } else { self.label(visit.row as usize)? };
            let target = self.target.as_ref();
            let stype = target.map_or(Stype::Identifier, |target| target.stype);
            let column = target.map(|target| target.name.clone()).unwrap_or_default();
            return Ok(ExplainedCell { column, stype, value, is_target, is_masked: false });
        }
        let time = if visit.via == Via::Seed { self.asked.time } else { self.asked.seeds.times[visit.row as usize] };
        Ok(ExplainedCell {
            column: self.task.and_then(|task| task.observation_time_column.clone()).unwrap_or_default(),
            stype: Stype::Timestamp,
            value: time_text(time).map_or(Value::Null, Value::String),
            is_target,
            is_masked: false,
        })
    }
}

impl Explanation {
    /// The context as an indented tree of text.
    pub fn render(&self) -> String {
        use std::fmt::Write;

        let mut text = String::new();
        let time = self.seed_time.as_deref().unwrap_or("the end of time");
        let asked = self.target_column.as_ref().map_or_else(String::new, |column| format!("{column} of "));
        let (table, entity, split, index) = (&self.entity_table, &self.entity, self.split, self.seed_index);
        let _ = writeln!(text, "{asked}{table} {entity} at {time} ({split} seed {index})");
        if self.target_column.is_some() {
            let _ = writeln!(text, "label: {}   (in no cell below)", self.label);
        }
        if !self.removed_columns.is_empty() {
            let _ = writeln!(text, "never shown for this task: {}", self.removed_columns.join(", "));
        }
        let mut following: Vec<Vec<usize>> = vec![vec![]; self.rows.len()];
        for row in &self.rows {
            if let Some(from) = row.from {
                following[from].push(row.local);
            }
        }
        // depth first along the links rows were reached by, without recursion: chains can be long
        let mut open: Vec<_> = self.rows.iter().filter(|row| row.from.is_none()).map(|row| (row.local, 0)).collect();
        open.reverse();
        while let Some((local, depth)) = open.pop() {
            self.rows[local].render(depth, &mut text);
            open.extend(following[local].iter().rev().map(|&next| (next, depth + 1)));
        }
        let counts = &self.counts;
        let _ = writeln!(
            text,
            "{} rows, {} of {} cells; linked but not shown: {} by time, {} by budget",
            counts.rows, counts.cells, counts.seq_len, counts.hidden_by_time, counts.hidden_by_budget
        );
        text
    }
}

impl ExplainedRow {
    fn render(&self, depth: usize, text: &mut String) {
        use std::fmt::Write;

        let indent = "  ".repeat(depth.min(40));
        let link = match &self.link {
            Some(link) => format!("{} by {link}: ", self.kind),
            None if self.kind == "example" => "example: ".into(),
            None => String::new(),
        };
        let key = if self.key.is_null() { format!("#{}", self.row) } else { self.key.to_string() };
        let time = self.time.as_ref().map_or_else(String::new, |time| format!(" [{time}]"));
        let cells: Vec<String> = self
            .cells
            .iter()
            .map(|cell| {
                let value = if cell.is_target { "???".to_owned() } else { cell.value.to_string() };
                format!("{}={value}{}", cell.column, if cell.is_masked { " (masked)" } else { "" })
            })
            .collect();
        let _ = writeln!(text, "{indent}{link}{} {key}{time} {}", self.table, cells.join(" "));
        if self.has_hidden_target {
            let _ = writeln!(text, "{indent}  . its target is hidden");
        }
        for hidden in &self.hidden {
            let examples: Vec<String> = hidden
                .examples
                .iter()
                .map(|row| row.time.as_ref().map_or(row.key.to_string(), |time| format!("{} [{time}]", row.key)))
                .collect();
            let dots = if hidden.count > examples.len() { ", ..." } else { "" };
            let _ = writeln!(
                text,
                "{indent}  . {} {} by {} hidden by {}: {}{dots}",
                hidden.count,
                hidden.kind,
                hidden.link,
                hidden.reason,
                examples.join(", ")
            );
        }
    }
}
