//! The cells of a visited row: what its table's plan shows of the record, written in place.
//!
//! Most rows are written whole, eight cells of the plan at a time; the row of a masked target, the last row of a context
//! and tables of very many columns go cell by cell. Implements `documentation/sampling.md`, "Cells".

use super::collate::{Canvas, Cells};
use super::config::{Identifiers, SamplerConfig};
use super::context::Asked;
use super::frontier::Visit;
use super::plan::{ColumnPlan, PlacedColumn, RowPlan, TablePlan};
use crate::format::record::Record;
use crate::manifest::TimeStatistics;
use crate::stype::Stype;

/// Writes the cells of rows.
#[derive(Clone, Copy, Debug)]
pub struct CellWriter<'a> {
    /// The options.
    pub config: &'a SamplerConfig,
    /// Of every timestamp of the database.
    pub time: TimeStatistics,
}

impl CellWriter<'_> {
    /// Writes the cells of a row of the database.
    #[inline]
    pub fn write_row(
        &self,
        asked: &Asked<'_>,
        plan: &TablePlan,
        record: &Record<'_>,
        visit: Visit,
        local: usize,
        canvas: &mut Canvas<'_>,
    ) {
        // the position of the masked target, or of a target that stays hidden
        let (mut masked, mut hidden) = (usize::MAX, usize::MAX);
        if let Some(target) = asked.plan.target
            && visit.table == asked.plan.anchor_table
        {
            if local == 0 {
                masked = target.position;
            } else if target.is_removed || !asked.shows_target_of(visit.row) {
                hidden = target.position;
            }
        }
        if masked == usize::MAX
            && let Some(row) = &plan.row
        {
            let mut bits = row.shown;
            if row.is_nullable {
                bits &= valid_bits(record, plan.shown.len());
            }
            if hidden != usize::MAX {
                bits &= !(1 << hidden);
            }
            if bits != 0 && canvas.cells.has_room(row.blocks.len()) {
                self.write_whole(row, record, bits, local, &mut canvas.cells);
                return;
            }
        }
        self.write_each(plan, record, (masked, hidden), local, canvas);
    }

    /// Writes all cells of a row whose bits are set.
    #[inline]
    fn write_whole(&self, row: &RowPlan, record: &Record<'_>, bits: u64, local: usize, cells: &mut Cells<'_>) {
        let start = cells.len();
        if bits == row.shown {
            cells.push_blocks(&row.blocks, row.len, local);
            self.write_values(row, record, cells, |placed| Some(start + placed.offset));
            return;
        }
        let (mut offsets, mut left) = ([0; 64], bits);
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            offsets[bit] = (cells.len() - start) as u8;
            let offset = usize::from(row.offsets[bit]);
            let block = &row.blocks[offset / 8];
            cells.push_raw(block.ids[offset % 8], block.stypes[offset % 8], local);
        }
        self.write_values(row, record, cells, |placed| {
            let bit = placed.column.position % 64;
            (bits >> bit & 1 == 1).then(|| start + usize::from(offsets[bit]))
        });
    }

    /// Writes the values of the cells that have a position.
    #[inline]
    fn write_values(
        &self,
        row: &RowPlan,
        record: &Record<'_>,
        cells: &mut Cells<'_>,
        position: impl Fn(&PlacedColumn) -> Option<usize>,
    ) {
        for placed in &row.numbers {
            if let Some(at) = position(placed) {
                cells.set_value(at, f32::from_bits(record.word(&placed.column.place)));
            }
        }
        for placed in &row.texts {
            if let Some(at) = position(placed) {
                cells.set_vocab(at, record.word(&placed.column.place));
            }
        }
        for placed in &row.truths {
            if let Some(at) = position(placed) {
                cells.set_value(at, f32::from(u8::from(record.truth(&placed.column.place))));
            }
        }
        for placed in &row.moments {
            if let Some(at) = position(placed) {
                cells.set_moment(at, record.moment(&placed.column.place), &self.time);
            }
        }
    }

    /// Writes a row cell by cell, as far as there is room.
    fn write_each(
        &self,
        plan: &TablePlan,
        record: &Record<'_>,
        (masked, hidden): (usize, usize),
        local: usize,
        canvas: &mut Canvas<'_>,
    ) {
        let cells = &mut canvas.cells;
        let start = cells.len();
        for (word, &shown) in plan.shown.iter().enumerate() {
            let valid = record.valid(word);
            let mut bits = if self.config.null_cells { shown } else { shown & valid };
            if masked / 32 == word {
                bits |= 1 << (masked % 32);
            }
            if hidden / 32 == word {
                bits &= !(1 << (hidden % 32));
            }
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let column = &plan.columns[32 * word + bit as usize];
                if column.position == masked {
                    *canvas.target_cell = cells.target(column.id, column.stype) as i32;
                } else if cells.is_full() {
                    // the target, which has a place of its own, may follow
                    if cells.has_target() {
                        cells.end_row(start, local);
                        return;
                    }
                } else if valid >> bit & 1 == 1 {
                    self.write_cell(column, record, cells);
                } else {
                    cells.null(column.id, column.stype);
                }
            }
        }
        if cells.len() == start && self.config.identifiers == Identifiers::Needed {
            let present = |column: &&ColumnPlan| record.is_valid(column.position);
            if let Some(column) = plan.spare_identifiers.iter().find(present) {
                cells.identifier(column.id);
            }
        }
        cells.end_row(start, local);
    }

    /// Writes a cell that has a value.
    fn write_cell(&self, column: &ColumnPlan, record: &Record<'_>, cells: &mut Cells<'_>) {
        let (id, place) = (column.id, &column.place);
        match column.stype {
            Stype::Identifier => cells.identifier(id),
            Stype::Numerical => cells.value(id, column.stype, f32::from_bits(record.word(place))),
            Stype::Boolean => cells.value(id, column.stype, f32::from(u8::from(record.truth(place)))),
            Stype::Timestamp => cells.timestamp(id, record.moment(place), &self.time),
            Stype::Categorical | Stype::Text => cells.vocab(id, column.stype, record.word(place)),
        }
    }

    /// Writes the label of an earlier seed.
    pub fn write_label(&self, asked: &Asked<'_>, seed: usize, canvas: &mut Canvas<'_>) {
        let (column, stype) = (asked.plan.target_column, asked.plan.target_stype);
        let cells = &mut canvas.cells;
        match stype {
            Stype::Identifier => cells.identifier(column),
            Stype::Numerical | Stype::Boolean => cells.value(column, stype, asked.seeds.values[seed]),
            Stype::Timestamp => cells.timestamp(column, asked.seeds.label_times[seed], &self.time),
            Stype::Categorical | Stype::Text => cells.vocab(column, stype, asked.seeds.vocab[seed]),
        }
    }
}

/// One bit per column of a table of at most 64: the cell has a value.
#[inline]
fn valid_bits(record: &Record<'_>, words: usize) -> u64 {
    let high = if words > 1 { u64::from(record.valid(1)) << 32 } else { 0 };
    u64::from(record.valid(0)) | high
}
