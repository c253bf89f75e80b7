//! The first memory of a context whose seed is known long before it is written.

use super::config::SamplerConfig;
use super::context::Asked;
use super::plan::TaskPlan;
use super::seeds::Seed;
use crate::database::View;
use crate::ids::RowId;

/// Labels of a history that are sent for.
const LABELS_AHEAD: u32 = 32;

/// Sends for the memory of a context a step at a time: what one step looks at was sent for by the one before.
#[derive(Clone, Copy)]
pub struct LeadIn<'a> {
    seed: Seed,
    step: Step<'a>,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Step<'a> {
    Seed,
    Entity,
    Links(Asked<'a>),
    History(Asked<'a>),
    Nothing,
}

impl<'a> LeadIn<'a> {
    /// The way to the context of a seed.
    pub fn new(seed: Seed) -> Self {
        Self { seed, step: Step::Seed }
    }

    /// Goes a step further.
    pub fn advance(&mut self, view: &'a View<'a>, plans: &'a [Option<TaskPlan>], config: &SamplerConfig) {
        self.step = match self.step {
            Step::Seed => {
                send_for_seed(view, plans, config, self.seed);
                Step::Entity
            }
            Step::Entity => {
                let asked = Asked::new(view, plans, config, self.seed);
                view.tables[asked.plan.anchor_table as usize].prefetch(RowId(asked.row));
                asked.seeds.prefetch_entity(asked.row);
                Step::Links(asked)
            }
            Step::Links(asked) => {
                send_for_links(view, &asked);
                let (start, len) = asked.seeds.entity(asked.row);
                asked.seeds.prefetch_index(start, len);
                Step::History(asked)
            }
            Step::History(asked) => {
                if asked.plan.has_history {
                    let (start, len) = asked.seeds.entity(asked.row);
                    send_for_labels(&asked, start, len);
                }
                Step::Nothing
            }
            Step::Nothing => Step::Nothing,
        };
    }
}

/// Sends for what a seed is; one of the caller's own is known.
fn send_for_seed(view: &View<'_>, plans: &[Option<TaskPlan>], config: &SamplerConfig, seed: Seed) {
    if let Some(plan) = &plans[seed.task.idx()]
        && config.seeds.is_none()
    {
        view.tasks[seed.task.idx()].prefetch_seed(seed.index as usize, plan.target_stype);
    }
}

fn send_for_links(view: &View<'_>, asked: &Asked<'_>) {
    let table = asked.plan.anchor_table as usize;
    let (plan, record) = (&asked.plan.tables[table], view.tables[table].record(RowId(asked.row)));
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

/// Sends for the labels of a history that can be visible; `start` and `len` say where the entity's seeds lie. Each is a
/// few cache lines far from those of the others, so the others are left alone.
pub fn send_for_labels(asked: &Asked<'_>, start: usize, len: usize) {
    let visible = asked.visibility.labels(&asked.seeds.index_times[start..start + len], asked.plan.horizon);
    for nth in 0..LABELS_AHEAD.min(visible.len as u32) {
        let seed = asked.seeds.indices[start + visible.position(nth) as usize];
        asked.seeds.prefetch_label(seed as usize, asked.plan.target_stype);
    }
}
