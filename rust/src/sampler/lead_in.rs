//! The first memory of a context whose seed is known long before it is written.

use super::plan::TaskPlan;
use super::seeds::Seed;
use crate::database::{TaskView, View};
use crate::ids::RowId;

/// Steps until everything was sent for.
const STEPS: u8 = 4;
/// Labels of the entity's history that are sent for.
const LABELS_AHEAD: usize = 32;

/// Sends for the memory of a context a step at a time: what one step looks at was sent for by the one before.
#[derive(Clone, Copy)]
pub struct LeadIn<'a> {
    plan: &'a TaskPlan,
    seeds: &'a TaskView<'a>,
    /// Position of the seed in its task; `None` for one of the caller's own.
    index: Option<usize>,
    /// The entity.
    row: u32,
    step: u8,
}

impl<'a> LeadIn<'a> {
    /// The way to the context of a seed; `row` is the entity where it is the caller's own.
    pub fn new(view: &'a View<'a>, plan: &'a TaskPlan, seed: Seed, row: Option<u32>) -> Self {
        let seeds = &view.tasks[seed.task.idx()];
        let index = row.is_none().then_some(seed.index as usize);
        Self { plan, seeds, index, row: row.unwrap_or(0), step: 0 }
    }

    /// Goes a step further.
    pub fn advance(&mut self, view: &View<'_>) {
        match (self.step, self.index) {
            (0, Some(index)) => self.seeds.prefetch_seed(index, self.plan.target_stype),
            (1, index) => {
                self.row = index.map_or(self.row, |index| self.seeds.rows[index]);
                view.tables[self.plan.anchor_table as usize].prefetch(RowId(self.row));
                self.seeds.prefetch_entity(self.row);
            }
            (2, _) => {
                self.send_for_links(view);
                let (start, len) = self.seeds.entity(self.row);
                self.seeds.prefetch_index(start, len);
            }
            (3, _) if self.plan.has_history => {
                let (start, len) = self.seeds.entity(self.row);
                for &seed in &self.seeds.indices[start..start + len.min(LABELS_AHEAD)] {
                    self.seeds.prefetch_label(seed as usize, self.plan.target_stype);
                }
            }
            _ => {}
        }
        self.step = STEPS.min(self.step + 1);
    }

    fn send_for_links(&self, view: &View<'_>) {
        let (plan, record) = {
            let table = self.plan.anchor_table as usize;
            (&self.plan.tables[table], view.tables[table].record(RowId(self.row)))
        };
        for link in &plan.parents {
            if let Some(parent) = record.parent(link.slot) {
                view.tables[link.table as usize].prefetch(RowId(parent));
            }
        }
        for link in &plan.children {
            let range = record.children(link.slot);
            if let Some(last) = range.clone().last() {
                let children = &view.children[link.key as usize];
                children.times.prefetch(last);
                children.indices.prefetch(range.start);
                children.indices.prefetch(last);
            }
        }
    }
}
