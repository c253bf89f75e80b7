//! From a seed to the rows and cells of its context.
//!
//! A [`Walker`] belongs to one thread; once warm it allocates nothing. Implements `documentation/sampling.md`,
//! "Context" and "The walk".

use std::collections::VecDeque;

use super::cells::CellWriter;
use super::collate::Canvas;
use super::config::{SamplerConfig, Strategy};
use super::examples::{Examples, Extent};
use super::finishing::{Finished, Finishing};
use super::frontier::{ChildList, Draws, Frontier, Search, Via, Visit};
use super::links::close_gaps;
use super::plan::{Quotas, TaskPlan};
use super::rng::{Domain, Rng, hash};
use super::seeds::Seed;
use super::temporal::{END_OF_TIME, Label, Visibility, Visible};
use crate::database::{TaskView, View};
use crate::ids::RowId;
use crate::manifest::TimeStatistics;
use crate::stype::Stype;

/// Draws made ahead of their use: the place in the list is on its way from memory, the row is.
const EDGES_AHEAD: usize = 8;
const ROWS_AHEAD: usize = 8;
/// Of those, draws whose row's parents are on their way, too.
const PARENTS_AHEAD: usize = 4;
/// Lists that are searched for the end of what is visible before their turn, and probes of them per draw.
const LISTS_AHEAD: usize = 6;
const PROBES_PER_DRAW: usize = 2;

/// The code of the latest split; seeds of the caller's own may see labels of every split.
const LAST_SPLIT: u8 = 2;
/// The row of a seed of the caller's own in its task's table, where no seed has its number.
const NO_SEED: u32 = u32::MAX;

/// What one context came to.
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    /// Rows visited.
    pub rows: usize,
    /// Cells written.
    pub cells: usize,
}

/// A child drawn ahead of its visit.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    list: ChildList,
    /// Position among the children of the foreign key, then the row found there.
    at: u32,
}

/// The list whose turn it is.
#[derive(Clone, Copy, Debug)]
struct Turn {
    list: ChildList,
    visible: Visible,
    quota: usize,
}

/// The lists and draws of one part of a context.
#[derive(Debug)]
pub(super) struct Pipeline {
    lists: Vec<ChildList>,
    next_list: usize,
    draws: Draws,
    turn: Option<Turn>,
    edges: VecDeque<Drawn>,
    rows: VecDeque<Drawn>,
    children: VecDeque<Drawn>,
    rng: Rng,
}

impl Pipeline {
    /// Nothing to draw, with room for `lists` lists.
    pub(super) fn new(lists: usize) -> Self {
        Self {
            lists: Vec::with_capacity(lists),
            next_list: 0,
            draws: Draws::new(),
            turn: None,
            edges: VecDeque::with_capacity(EDGES_AHEAD),
            rows: VecDeque::with_capacity(ROWS_AHEAD),
            children: VecDeque::with_capacity(PARENTS_AHEAD),
            rng: Rng::default(),
        }
    }
}

/// Writes contexts, one after the other.
pub struct Walker<'a> {
    view: &'a View<'a>,
    config: &'a SamplerConfig,
    plans: &'a [Option<TaskPlan>],
    quotas: &'a Quotas,
    writer: CellWriter<'a>,
    max_hops: u32,
    frontier: Frontier,
    draws: Draws,
    turn: Option<Turn>,
    /// Counts the probes made ahead.
    probes: usize,
    edges: VecDeque<Drawn>,
    rows: VecDeque<Drawn>,
    children: VecDeque<Drawn>,
    rng: Rng,
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
        let seeds = &view.tasks[seed.task.idx()];
        let index = config.seeds.is_none().then_some(seed.index as usize);
        let (row, time, split) = if let Some(questions) = &config.seeds {
            let (row, time) = questions.get(seed.index);
            (row, time, LAST_SPLIT)
        } else {
            let index = seed.index as usize;
            (seeds.rows[index], seeds.times[index], seeds.splits[index])
        };
        Self { plan, seeds, index, row, time, visibility: Visibility::new(time, split, config), example: None }
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
            quotas,
            writer: CellWriter { config, time },
            max_hops: config.max_hops.map_or(u32::MAX, |hops| u32::try_from(hops).unwrap_or(u32::MAX)),
            frontier: Frontier::with_capacity(config.rows().min(1024)),
            draws: Draws::new(),
            turn: None,
            probes: 0,
            edges: VecDeque::with_capacity(EDGES_AHEAD),
            rows: VecDeque::with_capacity(ROWS_AHEAD),
            children: VecDeque::with_capacity(PARENTS_AHEAD),
            rng: Rng::default(),
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

    /// Writes the context of a seed.
    ///
    /// # Panics
    /// If the database's content contradicts itself, or the sampler has no plan for the seed's task.
    pub fn walk(&mut self, seed: Seed, canvas: &mut Canvas<'_>) -> Walked {
        let view = self.view;
        let asked = Asked::new(view, self.plans, self.config, seed);
        write_seed(asked, seed, canvas);
        let state = asked.random_state(self.config.rng_seed, seed);
        if let Some(examples) = &mut self.examples {
            examples.start(state);
        }
        self.frontier.clear();
        self.restart(Rng::new(state));
        let (table, row) = asked.start();
        self.find(Visit { table, row, hop: 0, from: 0, via: Via::Seed });
        let max_rows = self.config.rows();
        let (whole, mut asked) = (asked, asked);
        let mut visited = 0;
        while visited < max_rows && !(canvas.cells.has_target() && canvas.cells.is_full()) {
            let used = Extent { cells: canvas.cells.len(), rows: visited };
            if visited == self.frontier.rows().len() && !self.find_next(whole, &mut asked, used) {
                break;
            }
            let visit = self.frontier.rows()[visited];
            if visit.table as usize == view.tables.len() + asked.plan.id as usize {
                self.visit_seed(asked, visit, visited, canvas);
            } else {
                self.visit_row(asked, visit, visited, canvas);
            }
            visited += 1;
        }
        if self.frontier.rows().len() > visited {
            drop_unvisited(canvas, visited);
        }
        canvas.cells.finish();
        self.finishing.run(Finished { state, rows: visited, is_row_seed: false }, canvas);
        Walked { rows: visited, cells: canvas.cells.len() }
    }

    /// Forgets lists and draws.
    pub(super) fn restart(&mut self, rng: Rng) {
        self.frontier.clear_lists();
        self.turn = None;
        self.edges.clear();
        self.rows.clear();
        self.children.clear();
        self.rng = rng;
    }

    /// Puts the lists and draws of another part in the place of these.
    pub(super) fn exchange(&mut self, other: &mut Pipeline) {
        self.frontier.exchange_lists(&mut other.lists, &mut other.next_list);
        std::mem::swap(&mut self.draws, &mut other.draws);
        std::mem::swap(&mut self.turn, &mut other.turn);
        std::mem::swap(&mut self.edges, &mut other.edges);
        std::mem::swap(&mut self.rows, &mut other.rows);
        std::mem::swap(&mut self.children, &mut other.children);
        std::mem::swap(&mut self.rng, &mut other.rng);
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
    fn visit_row(&mut self, asked: Asked<'a>, visit: Visit, local: usize, canvas: &mut Canvas<'_>) {
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
        if visit.hop >= self.max_hops {
            return;
        }
        let (from, hop) = (local as u32, visit.hop + 1);
        if asked.plan.has_history && visit.table == asked.plan.anchor_table {
            // where its seeds lie is looked up when its turn comes, which it seldom does
            let (start, len) = (visit.row, 0);
            self.frontier.wait(ChildList {
                key: asked.plan.key,
                table: asked.plan.table,
                from,
                hop,
                start,
                len,
                search: Search::new(0),
            });
        }
        for link in &plan.children {
            let range = record.children(link.slot);
            if !range.is_empty() {
                let (start, len) = (range.start as u32, range.len() as u32);
                self.frontier.wait(ChildList {
                    key: link.key,
                    table: link.table,
                    from,
                    hop,
                    start,
                    len,
                    search: Search::new(len),
                });
            }
        }
    }

    /// Visits a row of the task's own table: the seed itself, or one of its history.
    fn visit_seed(&mut self, asked: Asked<'a>, visit: Visit, local: usize, canvas: &mut Canvas<'_>) {
        let (plan, seeds, seed) = (asked.plan, asked.seeds, visit.row as usize);
        let (row, time) = if local == 0 { (asked.row, asked.time) } else { (seeds.rows[seed], seeds.times[seed]) };
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
        asked: Asked<'a>,
        parent: Visit,
        key: u32,
        local: usize,
        links: usize,
        canvas: &mut Canvas<'_>,
    ) -> bool {
        let number = match self.frontier.number(parent.table, parent.row) {
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

    /// Draws children until one is found that was not visited; false when none is left.
    pub(super) fn draw_child(&mut self, asked: Asked<'a>) -> bool {
        loop {
            self.draw_ahead(asked);
            let Some(Drawn { list, at }) = self.children.pop_front() else { return false };
            let via = Via::Child(list.key);
            if self.find(Visit { table: list.table, row: at, hop: list.hop, from: list.from, via }) {
                return true;
            }
        }
    }

    /// Keeps the draws ahead full: of a draw, first its place in the list, then its row, then the parents of the row
    /// are on their way from memory. Lists take turns in a fixed order, so drawing early changes no draw.
    fn draw_ahead(&mut self, asked: Asked<'a>) {
        while self.children.len() < PARENTS_AHEAD {
            while self.rows.len() < ROWS_AHEAD {
                while self.edges.len() < EDGES_AHEAD {
                    let Some(drawn) = self.draw(asked) else { break };
                    self.edges.push_back(drawn);
                }
                let Some(Drawn { list, at }) = self.edges.pop_front() else { break };
                let row = self.entry(asked, &list, at);
                if let Some(table) = self.view.tables.get(list.table as usize) {
                    table.prefetch(RowId(row));
                }
                self.rows.push_back(Drawn { list, at: row });
            }
            let Some(drawn) = self.rows.pop_front() else { break };
            if let Some(plan) = asked.plan.tables.get(drawn.list.table as usize) {
                let record = self.view.tables[drawn.list.table as usize].record(RowId(drawn.at));
                for link in &plan.parents {
                    if let Some(parent) = record.parent(link.slot) {
                        self.view.tables[link.table as usize].prefetch(RowId(parent));
                    }
                }
            }
            self.children.push_back(drawn);
        }
    }

    #[inline]
    fn entry(&self, asked: Asked<'a>, list: &ChildList, at: u32) -> u32 {
        if is_history(asked.plan, list) {
            asked.seeds.indices[at as usize]
        } else {
            self.view.children[list.key as usize].indices.get(at as usize) as u32
        }
    }

    /// The next draw of the list whose turn it is.
    fn draw(&mut self, asked: Asked<'a>) -> Option<Drawn> {
        loop {
            let Some(turn) = &mut self.turn else {
                self.turn = Some(self.next_turn(asked)?);
                continue;
            };
            if self.draws.remaining() == 0 || turn.quota == 0 {
                self.turn = None;
                continue;
            }
            let position = match self.config.strategy {
                Strategy::Uniform => self.draws.uniform(&mut self.rng),
                Strategy::Recent => self.draws.newest(),
            };
            let (list, at) = (turn.list, turn.list.start + turn.visible.position(position));
            if is_history(asked.plan, &list) {
                if !asked.shows_label(asked.seeds.indices[at as usize] as usize) {
                    continue;
                }
            } else {
                self.view.children[list.key as usize].indices.prefetch(at as usize);
            }
            turn.quota -= 1;
            self.search_ahead(asked);
            return Some(Drawn { list, at });
        }
    }

    /// Goes on with the searches of lists whose turn comes soon: each looks at a time that is there by now and sends
    /// for the next one.
    #[inline]
    fn search_ahead(&mut self, asked: Asked<'a>) {
        for _ in 0..PROBES_PER_DRAW {
            self.probes += 1;
            let Some(list) = self.frontier.later_list(self.probes % LISTS_AHEAD) else { continue };
            if is_history(asked.plan, list) {
                continue;
            }
            let times = self.view.children[list.key as usize].times;
            if list.search.is_awaited()
                && let Some(probe) = list.search.probe()
            {
                list.search.answer(asked.visibility.row(times.get((list.start + probe) as usize)));
            }
            if let Some(probe) = list.search.send() {
                times.prefetch((list.start + probe) as usize);
            }
        }
    }

    /// Starts the turn of the next list.
    fn next_turn(&mut self, asked: Asked<'a>) -> Option<Turn> {
        let mut list = self.frontier.next_list()?;
        let visible = if is_history(asked.plan, &list) {
            let bounds = &asked.seeds.indptr[list.start as usize..list.start as usize + 2];
            (list.start, list.len) = (bounds[0], bounds[1] - bounds[0]);
            let times = &asked.seeds.index_times[bounds[0] as usize..bounds[1] as usize];
            asked.visibility.labels(times, asked.plan.horizon)
        } else {
            let times = self.view.children[list.key as usize].times;
            let start = list.start;
            let time = |at: u32| times.get((start + at) as usize);
            while let Some(probe) = list.search.probe() {
                list.search.answer(asked.visibility.row(time(probe)));
            }
            asked.visibility.visible(list.search.end(), time)
        };
        self.draws.start(visible.len as u32);
        Some(Turn { list, visible, quota: self.quotas.get(list.key, list.hop) })
    }
}

#[inline]
fn is_history(plan: &TaskPlan, list: &ChildList) -> bool {
    plan.has_history && list.table == plan.table
}

fn write_seed(asked: Asked<'_>, seed: Seed, canvas: &mut Canvas<'_>) {
    *canvas.seed_task = seed.task.0 as i32;
    *canvas.seed_index = i64::from(seed.index);
    *canvas.seed_row = i64::from(asked.row);
    *canvas.seed_time = asked.time;
    *canvas.seed_is_padding = false;
    if let Some(index) = asked.index.filter(|&index| asked.seeds.is_null[index] == 0) {
        *canvas.target_is_null = false;
        *canvas.target_value = asked.seeds.values[index];
        *canvas.target_vocab = i32::try_from(asked.seeds.vocab[index]).unwrap_or(-1);
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
