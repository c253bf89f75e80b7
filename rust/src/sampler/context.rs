//! From a seed to the rows and cells of its context.
//!
//! A [`Walker`] belongs to one thread; once warm it allocates nothing. Implements `documentation/sampling.md`,
//! "Context" and "The walk".

use super::cells::CellWriter;
use super::children::Children;
use super::collate::Canvas;
use super::config::SamplerConfig;
use super::examples::{Examples, Extent};
use super::finishing::{Finished, Finishing};
use super::frontier::{Frontier, Via, Visit};
use super::lead_in::LeadIn;
use super::links::close_gaps;
use super::members::own_time;
use super::plan::{Quotas, TaskPlan};
use super::rng::{Domain, Rng, hash};
use super::seeds::Seed;
use super::temporal::{END_OF_TIME, Label, Visibility};
use crate::database::{TaskView, View};
use crate::ids::RowId;
use crate::manifest::TimeStatistics;
use crate::stype::Stype;

/// Rows visited between two steps towards the memory of the next context.
const ROWS_PER_STEP: usize = 16;
/// The code of the latest split; seeds of the caller's own may see labels of every split.
const LAST_SPLIT: u8 = 2;
/// The row of a seed of the caller's own in its task's table, where no seed has its number.
const NO_SEED: u32 = u32::MAX;

/// The seeds of what is no task.
static NO_SEEDS: TaskView<'static> = TaskView {
    rows: &[],
    times: &[],
    splits: &[],
    values: &[],
    vocab: &[],
    is_null: &[],
    indptr: &[],
    indices: &[],
    index_times: &[],
    label_times: &[],
    target_indptr: &[],
    targets: &[],
};

/// What one context came to.
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    /// Rows visited.
    pub rows: usize,
    /// Cells written.
    pub cells: usize,
}

/// Writes contexts, one after the other.
pub struct Walker<'a> {
    view: &'a View<'a>,
    config: &'a SamplerConfig,
    plans: &'a [Option<TaskPlan>],
    writer: CellWriter<'a>,
    max_hops: u32,
    frontier: Frontier,
    children: Children<'a>,
    finishing: Finishing,
    pub(super) examples: Option<Box<Examples<'a>>>,
}

/// The seed of the current context and what it may see.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Its task.
    pub plan: &'a TaskPlan,
    /// The seeds of its task.
    pub seeds: &'a TaskView<'a>,
    /// Its position among them; `None` for one of the caller's own.
    pub index: Option<usize>,
    /// The entity.
    pub row: u32,
    /// Its time.
    pub time: i64,
    /// What it may see.
    pub visibility: Visibility,
    /// The row of the anchor table that an example shows with its target (kind cell).
    pub example: Option<u32>,
}

impl<'a> Asked<'a> {
    /// Resolves a seed.
    ///
    /// # Panics
    /// If the sampler has no plan for the seed's task.
    pub fn new(view: &'a View<'a>, plans: &'a [Option<TaskPlan>], config: &SamplerConfig, seed: Seed) -> Self {
        let plan = plans[seed.task.idx()].as_ref().expect("seeds come from the tasks of the sampler");
        let seeds = view.tasks.get(seed.task.idx()).unwrap_or(&NO_SEEDS);
        let index = config.seeds.is_none().then_some(seed.index as usize);
        let (row, time, split) = if plan.is_row {
            let time = view.tables[plan.anchor_table as usize].record(RowId(seed.index)).time();
            (seed.index, own_time(time), LAST_SPLIT)
        } else if let Some(questions) = &config.seeds {
            let (row, time) = questions.get(seed.index);
            (row, time, LAST_SPLIT)
        } else {
            let index = seed.index as usize;
            (seeds.rows[index], seeds.times[index], seeds.splits[index])
        };
        let visibility = Visibility::new(time, split, config);
        let asked = Self { plan, seeds, index, row, time, visibility, example: None };
        match config.max_lag {
            Some(max_lag) => {
                Self { visibility: visibility.delayed(asked.lag(max_lag, config.rng_seed, seed)), ..asked }
            }
            None => asked,
        }
    }

    /// How long before its time the seed sees the database: any number of microseconds up to `max_lag`.
    fn lag(&self, max_lag: i64, rng_seed: u64, seed: Seed) -> i64 {
        let state = hash(Domain::Lag, &[self.random_state(rng_seed, seed)]);
        let numbers = max_lag as u128 + 1;
        ((u128::from(Rng::new(state).next_u64()) * numbers) >> 64) as i64
    }

    /// Whether another seed may be shown with its label.
    #[inline]
    pub fn shows_label(&self, seed: usize) -> bool {
        let label = Label { time: self.seeds.times[seed], split: self.seeds.splits[seed] };
        let is_own = match self.index {
            Some(index) => seed == index,
            None => label.time == self.time && self.seeds.rows[seed] == self.row,
        };
        !is_own && self.seeds.is_null[seed] == 0 && self.visibility.label(label, self.plan.horizon)
    }

    /// The table and the row that the walk starts at.
    fn start(&self) -> (u32, u32) {
        match (self.plan.target, self.index) {
            _ if self.plan.is_row => (self.plan.anchor_table, self.row),
            (Some(_), _) => (self.plan.anchor_table, self.row),
            (None, Some(index)) => (self.plan.table, index as u32),
            (None, None) => (self.plan.table, NO_SEED),
        }
    }

    /// Where the random numbers of its context start.
    fn random_state(&self, rng_seed: u64, seed: Seed) -> u64 {
        let (epoch, task) = (seed.epoch, u64::from(seed.task.0));
        match self.index {
            Some(index) => hash(Domain::Context, &[rng_seed, epoch, task, index as u64]),
            None => hash(Domain::Question, &[rng_seed, epoch, task, u64::from(self.row), self.time as u64]),
        }
    }

    /// What is seen in the part of an example, given by its seed.
    pub fn as_example(self, seed: u32, config: &SamplerConfig) -> Self {
        let (row, time) = (self.seeds.rows[seed as usize], self.seeds.times[seed as usize]);
        let example = self.plan.target.is_some().then_some(row);
        Self { visibility: self.visibility.as_of(time, config), example, ..self }
    }

    /// Whether the target column may be shown in another row of the anchor table (kind cell).
    pub fn shows_target_of(&self, row: u32) -> bool {
        if self.example == Some(row) {
            return true;
        }
        let bounds = &self.seeds.indptr[row as usize..row as usize + 2];
        self.seeds.indices[bounds[0] as usize..bounds[1] as usize].iter().any(|&seed| self.shows_label(seed as usize))
    }
}

impl<'a> Walker<'a> {
    /// A walker through `view`; `plans` are by task id.
    pub fn new(
        view: &'a View<'a>,
        config: &'a SamplerConfig,
        plans: &'a [Option<TaskPlan>],
        quotas: &'a Quotas,
        time: TimeStatistics,
        examples: Option<Box<Examples<'a>>>,
    ) -> Self {
        Self {
            view,
            config,
            plans,
            writer: CellWriter { config, time },
            max_hops: config.max_hops.map_or(u32::MAX, |hops| u32::try_from(hops).unwrap_or(u32::MAX)),
            frontier: Frontier::with_capacity(config.rows().min(256)),
            children: Children::new(view, config, quotas),
            finishing: Finishing::new(config, view.children.len()),
            examples,
        }
    }

    /// The rows found for the last context; the first [`Walked::rows`] of them were visited.
    pub fn rows(&self) -> &[Visit] {
        self.frontier.rows()
    }

    /// The number of a row found for the last context.
    pub fn number(&self, table: u32, row: u32) -> Option<u32> {
        self.frontier.number(table, row).ok()
    }

    /// Writes the context of a seed, and sends for the memory of the `next` one's.
    ///
    /// # Panics
    /// If the database's content contradicts itself, or the sampler has no plan for the seed's task.
    pub fn walk(&mut self, seed: Seed, next: Option<Seed>, canvas: &mut Canvas<'_>) -> Walked {
        let view = self.view;
        let asked = Asked::new(view, self.plans, self.config, seed);
        write_seed(&asked, seed, canvas);
        let state = asked.random_state(self.config.rng_seed, seed);
        if let Some(examples) = &mut self.examples {
            examples.start(state);
        }
        self.frontier.clear();
        self.children.clear(Rng::new(state));
        let mut lead_in = next.and_then(|next| self.lead_in(next));
        let (table, row) = asked.start();
        self.find(Visit { table, row, hop: 0, from: 0, via: Via::Seed });
        if asked.plan.is_row {
            canvas.cells.ask_nothing();
        }
        let max_rows = self.config.rows();
        let (whole, mut asked) = (asked, asked);
        let mut visited = 0;
        while visited < max_rows && !(canvas.cells.has_target() && canvas.cells.is_full()) {
            let used = Extent { cells: canvas.cells.len(), rows: visited };
            if visited == self.frontier.rows().len() && !self.find_next(&whole, &mut asked, used) {
                break;
            }
            let visit = self.frontier.rows()[visited];
            if visit.table as usize == view.tables.len() + asked.plan.id as usize {
                self.visit_seed(&asked, visit, visited, canvas);
            } else {
                self.visit_row(&asked, visit, visited, canvas);
            }
            visited += 1;
            if visited % ROWS_PER_STEP == 0
                && let Some(lead_in) = &mut lead_in
            {
                lead_in.advance(view, self.plans, self.config);
            }
        }
        if self.frontier.rows().len() > visited {
            drop_unvisited(canvas, visited);
        }
        canvas.cells.finish();
        if let Some(table) = asked.plan.target_table {
            write_candidates(&asked, table, &self.frontier.rows()[..visited], canvas);
        }
        self.finishing.run(Finished { state, rows: visited, is_row_seed: asked.plan.is_row }, canvas);
        Walked { rows: visited, cells: canvas.cells.len() }
    }

    /// Forgets lists and draws.
    pub(super) fn restart(&mut self, rng: Rng) {
        self.children.clear(rng);
    }

    /// Puts the lists and draws of another part in the place of these.
    pub(super) fn exchange(&mut self, other: &mut Children<'a>) {
        std::mem::swap(&mut self.children, other);
    }

    fn lead_in(&self, seed: Seed) -> Option<LeadIn<'a>> {
        // a row of a table has no seed to be read first
        self.plans[seed.task.idx()].as_ref().filter(|plan| !plan.is_row).map(|_| LeadIn::new(seed))
    }

    /// Adds a row unless it was found before.
    #[inline]
    pub(super) fn find(&mut self, visit: Visit) -> bool {
        match self.frontier.number(visit.table, visit.row) {
            Ok(_) => false,
            Err(vacant) => {
                self.frontier.add(vacant, visit);
                true
            }
        }
    }

    /// Visits a row of the database.
    fn visit_row(&mut self, asked: &Asked<'a>, visit: Visit, local: usize, canvas: &mut Canvas<'_>) {
        let plan = &asked.plan.tables[visit.table as usize];
        let record = self.view.tables[visit.table as usize].record(RowId(visit.row));
        self.writer.write_row(asked, plan, &record, visit, local, canvas);
        write_row(canvas, local, visit, asked.visibility.age_days(record.time()));
        let mut links = 0;
        for link in &plan.parents {
            if let Some(row) = record.parent(link.slot) {
                let parent = Visit {
                    table: link.table,
                    row,
                    hop: visit.hop + 1,
                    from: local as u32,
                    via: Via::Parent(link.key),
                };
                links += usize::from(self.meet_parent(asked, parent, link.key, local, links, canvas));
            }
        }
        self.children.wait(local as u32, &visit);
    }

    /// Visits a row of the task's own table: the seed itself, or one of its history.
    fn visit_seed(&mut self, asked: &Asked<'a>, visit: Visit, local: usize, canvas: &mut Canvas<'_>) {
        let (plan, seeds, seed) = (asked.plan, asked.seeds, visit.row as usize);
        let (row, time) = match visit.via {
            Via::Seed => (asked.row, asked.time),
            Via::Child(_) => (self.frontier.rows()[visit.from as usize].row, seeds.times[seed]),
            Via::Parent(_) | Via::Example => (seeds.rows[seed], seeds.times[seed]),
        };
        let start = canvas.cells.len();
        if let Some(column) = plan.time_column
            && !canvas.cells.is_full()
        {
            if time != END_OF_TIME {
                canvas.cells.timestamp(column, time, &self.writer.time);
            } else if self.config.null_cells {
                canvas.cells.null(column, Stype::Timestamp);
            }
        }
        if local == 0 {
            *canvas.target_cell = canvas.cells.target(plan.target_column, plan.target_stype) as i32;
        } else if !canvas.cells.is_full() {
            self.writer.write_label(asked, seed, canvas);
        }
        canvas.cells.end_row(start, local);
        write_row(canvas, local, visit, asked.visibility.age_days(time));
        let hop = visit.hop + 1;
        let anchor = Visit { table: plan.anchor_table, row, hop, from: local as u32, via: Via::Parent(plan.key) };
        self.meet_parent(asked, anchor, plan.key, local, 0, canvas);
    }

    /// Lists a parent that was or will be visited; answers whether it did.
    #[inline]
    fn meet_parent(
        &mut self,
        asked: &Asked<'a>,
        parent: Visit,
        key: u32,
        local: usize,
        links: usize,
        canvas: &mut Canvas<'_>,
    ) -> bool {
        let number =
            match self.known_parent(local, key).map_or_else(|| self.frontier.number(parent.table, parent.row), Ok) {
                Ok(number) => number,
                Err(vacant) => {
                    let time = self.view.tables[parent.table as usize].record(RowId(parent.row)).time();
                    if parent.hop > self.max_hops || !asked.visibility.row(time) {
                        return false;
                    }
                    self.frontier.add(vacant, parent)
                }
            };
        // numbers past the last row a context can have are never visited
        let Some(number) = i16::try_from(number).ok().filter(|&number| (number as usize) < canvas.row_table.len())
        else {
            return false;
        };
        let at = local * canvas.num_parents + links;
        canvas.row_parents[at] = number;
        canvas.row_parent_keys[at] = key as i16;
        true
    }

    /// The number of the parent of a row that was found as a child by this key.
    #[inline]
    fn known_parent(&self, local: usize, key: u32) -> Option<u32> {
        let Visit { via, from, .. } = self.frontier.rows()[local];
        (via == Via::Child(key)).then_some(from)
    }

    /// Draws children until one is found that was not found before; false when none is left.
    pub(super) fn find_child(&mut self, asked: &Asked<'a>) -> bool {
        while let Some(child) = self.children.next(asked, self.frontier.rows()) {
            if self.find(child) {
                return true;
            }
        }
        false
    }
}

fn write_seed(asked: &Asked<'_>, seed: Seed, canvas: &mut Canvas<'_>) {
    *canvas.seed_task = seed.task.0 as i32;
    *canvas.seed_index = i64::from(seed.index);
    *canvas.seed_row = i64::from(asked.row);
    *canvas.seed_time = asked.time;
    *canvas.seed_is_padding = false;
    if asked.plan.is_row {
        return;
    }
    if let Some(index) = asked.index.filter(|&index| asked.seeds.is_null[index] == 0) {
        *canvas.target_is_null = false;
        *canvas.target_value = asked.seeds.values[index];
        *canvas.target_vocab = i32::try_from(asked.seeds.vocab[index]).unwrap_or(-1);
    }
}

/// Says which rows of the context a link task chooses among, and which of them the seed's own list names.
fn write_candidates(asked: &Asked<'_>, table: u32, rows: &[Visit], canvas: &mut Canvas<'_>) {
    let named = asked.index.map_or(&[][..], |index| asked.seeds.targets_of(index));
    for (local, visit) in rows.iter().enumerate().filter(|(_, visit)| visit.table == table) {
        canvas.row_is_candidate[local] = true;
        canvas.row_is_target[local] = named.binary_search(&visit.row).is_ok();
        canvas.candidate_row[local] = i64::from(visit.row);
    }
}

#[inline]
fn write_row(canvas: &mut Canvas<'_>, local: usize, visit: Visit, age: Option<f32>) {
    canvas.row_table[local] = visit.table as i32;
    canvas.row_hop[local] = visit.hop as i16;
    if let Some(age) = age {
        canvas.row_age[local] = age;
        canvas.row_has_time[local] = true;
    }
}

/// Takes links to rows that were found but not visited out of the lists of parents.
fn drop_unvisited(canvas: &mut Canvas<'_>, visited: usize) {
    let (width, used) = (canvas.num_parents, visited * canvas.num_parents);
    let rows = canvas.row_parents[..used].chunks_exact_mut(width);
    for (parents, keys) in rows.zip(canvas.row_parent_keys[..used].chunks_exact_mut(width)) {
        for parent in parents.iter_mut().filter(|parent| **parent as usize >= visited) {
            *parent = -1;
        }
        close_gaps(parents, keys);
    }
}
