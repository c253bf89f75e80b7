//! What was found while the tables were encoded: the tables of the manifest and the warnings.

use super::Table;
use super::graph::ChildLists;
use super::link::ParentRows;
use super::records::{Tally, Written};
use super::summary::Summary;
use super::table_file;
use crate::ids::{ColumnId, ForeignKeyId, TableId};
use crate::manifest::{ColumnManifest, ColumnStatistics, ForeignKeyManifest, KeyKind, TableManifest};
use crate::schema::{Schema, TableSchema};
use crate::stype::Stype;

/// The tables after their rows were written.
pub(super) struct Found<'a> {
    pub(super) schema: &'a Schema,
    pub(super) tables: &'a [Table<'a>],
    /// Per table.
    pub(super) written: &'a [Written],
    /// Per foreign key.
    pub(super) children: &'a [ChildLists],
    pub(super) key_kinds: &'a [KeyKind],
}

/// How many keys name no parent, with the first of them.
pub(super) fn dangling(parents: &ParentRows, num_rows: usize, parent: &TableSchema) -> String {
    let sample = parents.sample.as_deref().unwrap_or_default();
    let (count, parent) = (parents.dangling.len(), &parent.name);
    format!("{count} of {num_rows} foreign keys name no row of `{parent}`, the first is {sample}")
}

impl Found<'_> {
    /// The tables as the manifest describes them.
    pub(super) fn tables(&self) -> Vec<TableManifest> {
        let (mut column_id, mut key_id) = (0, 0);
        let mut tables = Vec::with_capacity(self.tables.len());
        for (id, table) in self.tables.iter().enumerate() {
            let described = table.source.table;
            let columns = described.columns.iter().enumerate().filter_map(|(position, column)| {
                let stype = column.stype?;
                column_id += 1;
                Some(ColumnManifest {
                    id: ColumnId::from(column_id - 1),
                    name: column.name.clone(),
                    stype,
                    description: column.description.clone(),
                    statistics: statistics(
                        stype,
                        table.summaries.columns[position],
                        &self.written[id].tallies[position],
                    ),
                    encoding: self.written[id].encodings[position],
                })
            });
            let columns = columns.collect();
            let foreign_keys = table.parents.iter().map(|parents| {
                key_id += 1;
                let (dangling, null) = (parents.dangling.len() as u64, parents.null);
                ForeignKeyManifest {
                    id: ForeignKeyId::from(key_id - 1),
                    column: described.columns[parents.column].name.clone(),
                    parent_table: parents.parent,
                    edges: table.source.num_rows as u64 - dangling - null,
                    dangling,
                    null,
                    max_children: self.children[key_id - 1].most,
                }
            });
            tables.push(TableManifest {
                id: TableId::from(id),
                name: described.name.clone(),
                description: described.description.clone(),
                file: table_file(&described.name),
                num_rows: table.source.num_rows as u32,
                primary_key: described.primary_key.clone(),
                key_kind: self.key_kinds[id],
                temporal_column: described.temporal_column.clone(),
                null_time_visible: described.null_time_visible,
                times: table.codes,
                columns,
                foreign_keys: foreign_keys.collect(),
            });
        }
        tables
    }

    /// What the user should know of the data, by table.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (table, written) in self.tables.iter().zip(self.written) {
            for parents in table.parents.iter().filter(|parents| !parents.dangling.is_empty()) {
                let place = table.source.place(parents.column);
                let parent = &self.schema.tables[parents.parent.idx()];
                let found = dangling(parents, table.source.num_rows, parent);
                warnings.push(format!("{place}: {found}; these rows have no edge"));
            }
            for parents in table.parents.iter().filter(|parents| table.source.is_float(parents.column)) {
                let (place, null) = (table.source.place(parents.column), parents.null);
                warnings.push(format!("{place}: the foreign key holds floats, read as integers; {null} are null"));
            }
            if table.times.nulls > 0 {
                let seen = if table.source.table.null_time_visible { "every" } else { "no" };
                let (name, count) = (&table.source.table.name, table.times.nulls);
                warnings.push(format!("table `{name}`: {count} rows without a time are visible to {seen} seed"));
            }
            for (column, tally) in written.tallies.iter().enumerate() {
                warnings.extend(unusable(table, column, tally));
            }
        }
        warnings
    }
}

/// A warning about cells that hold something which cannot be a value.
fn unusable(table: &Table<'_>, column: usize, tally: &Tally) -> Option<String> {
    let stype = table.source.table.columns[column].stype?;
    let count = table.summaries.columns[column].map_or(tally.unusable, |summary| summary.unusable);
    let what = match stype {
        Stype::Timestamp => "moments beyond the range of microseconds since 1970",
        _ => "values that are NaN, infinite or out of range",
    };
    (count > 0).then(|| format!("{}: {count} {what} count as null", table.source.place(column)))
}

fn statistics(stype: Stype, summary: Option<Summary>, tally: &Tally) -> ColumnStatistics {
    let mut found = ColumnStatistics { nulls: tally.nulls, ..ColumnStatistics::default() };
    let summary = summary.map(|summary| (summary, summary.values > 0));
    match (stype, summary) {
        (Stype::Numerical, Some((summary, has_values))) => {
            found.non_finite = Some(summary.unusable);
            found.mean = Some(summary.moments.mean());
            found.std = Some(summary.moments.std());
            found.min = has_values.then_some(summary.min);
            found.max = has_values.then_some(summary.max);
        }
        (Stype::Timestamp, Some((summary, _))) => {
            found.overflow = Some(summary.unusable);
            found.min_us = summary.grid.map(|grid| grid.min_us);
            found.max_us = summary.grid.map(|grid| grid.max_us);
        }
        (Stype::Boolean, _) => found.true_count = Some(tally.true_count),
        (Stype::Categorical | Stype::Text, _) => found.distinct = Some(tally.categories.len() as u64),
        _ => {}
    }
    found
}
