//! Labelled examples of other entities: which ones, and how the walk turns to them.
//!
//! [`Labels`] lists the labels of a task in the order of time; [`Chooser`] picks those of a context: at random, the
//! most recent, or those of entities that random walks from the seed's entity reach most often (`similar`). The walk
//! of the context is split into parts here: the seed's own, one per example, and what is left for the seed.
//! Implements `documentation/sampling.md`, "Examples".

use super::children::Children;
use super::config::{ExampleChoice, SamplerConfig};
use super::context::{Asked, Walker};
use super::frontier::{Draws, Via, Visit};
use super::plan::Quotas;
use super::rng::{Domain, Rng, hash};
use super::similar::Similar;
use super::temporal::Visible;
use crate::database::{TaskView, View};

/// The labelled seeds of a task, by (time, seed).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Labelled {
    /// No seed of this sampler may see them.
    Unused,
    /// Every seed of the task: they lie in this order.
    All,
    /// Some of them.
    Some(Box<[u32]>),
}

impl Labelled {
    fn new(seeds: &TaskView<'_>, last_split: u8) -> Self {
        let is_labelled = |&seed: &u32| seeds.is_null[seed as usize] == 0 && seeds.splits[seed as usize] <= last_split;
        let time = |&seed: &u32| (seeds.times[seed as usize], seed);
        let mut found: Vec<u32> = (0..seeds.rows.len() as u32).filter(is_labelled).collect();
        if !found.is_sorted_by_key(time) {
            found.sort_unstable_by_key(time);
        } else if found.len() == seeds.rows.len() {
            return Self::All;
        }
        Self::Some(found.into())
    }

    #[inline]
    fn seed(&self, at: u32) -> u32 {
        match self {
            Self::Some(seeds) => seeds[at as usize],
            Self::All | Self::Unused => at,
        }
    }
}

/// The labelled seeds of a task that seeds of each split may see, as far as labels are not open: four bytes a label for
/// every split the sampler draws from, and none where all seeds of the task are meant.
#[derive(Clone, Debug)]
pub struct Labels([Labelled; 3]);

impl Labels {
    /// Lists the labels of a task.
    pub fn new(seeds: &TaskView<'_>, config: &SamplerConfig) -> Self {
        let is_used = |code| if config.seeds.is_some() { code == 2 } else { config.split.takes(code) };
        Self([0, 1, 2].map(|split| if is_used(split) { Labelled::new(seeds, split) } else { Labelled::Unused }))
    }

    fn of(&self, split: u8, seeds: &TaskView<'_>) -> (&Labelled, u32) {
        let labelled = &self.0[usize::from(split)];
        let len = match labelled {
            Labelled::Unused => 0,
            Labelled::All => seeds.rows.len(),
            Labelled::Some(found) => found.len(),
        };
        (labelled, len as u32)
    }
}

/// Which part of a context is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The seed's, until it leaves room for examples only.
    Own,
    /// The example before this one of those chosen.
    Example(usize),
    /// The seed's again, where examples left room.
    Rest,
}

/// What a context holds so far, or may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Cells.
    pub cells: usize,
    /// Rows.
    pub rows: usize,
}

impl Extent {
    fn is_within(self, limit: Self) -> bool {
        self.cells < limit.cells && self.rows < limit.rows
    }

    /// What is left of this for the next of `shares` equal shares, on top of what is used.
    fn share(self, used: Self, shares: usize) -> Self {
        let limit = |all: usize, used: usize| used + all.saturating_sub(used) / shares;
        Self { cells: limit(self.cells, used.cells), rows: limit(self.rows, used.rows) }
    }
}

/// Chooses the examples of a context and remembers how far their walk is.
pub struct Examples<'a> {
    labels: &'a [Option<Labels>],
    config: &'a SamplerConfig,
    /// What a context may hold, and what the seed's own part may before the examples.
    whole: Extent,
    own: Extent,
    chosen: Vec<u32>,
    draws: Draws,
    similar: Similar<'a>,
    part: Part,
    limit: Extent,
    state: u64,
    /// Lists and draws of the seed's own part while examples are walked.
    parked: Children<'a>,
}

impl<'a> Examples<'a> {
    /// The examples of contexts; `None` where the options ask for none. `labels` are by task id.
    pub fn new(
        view: &'a View<'a>,
        config: &'a SamplerConfig,
        quotas: &'a Quotas,
        labels: &'a [Option<Labels>],
    ) -> Option<Box<Self>> {
        if config.examples == 0 {
            return None;
        }
        let whole = Extent { cells: config.seq_len, rows: config.rows() };
        let own = |all: usize| all - config.example_share.of(all);
        Some(Box::new(Self {
            labels,
            config,
            whole,
            own: Extent { cells: own(whole.cells), rows: own(whole.rows) },
            chosen: Vec::with_capacity(config.examples),
            draws: Draws::new(),
            similar: Similar::new(view, config),
            part: Part::Own,
            limit: whole,
            state: 0,
            parked: Children::new(view, config, quotas),
        }))
    }

    /// Starts over with a context whose random numbers start in this state.
    pub fn start(&mut self, state: u64) {
        self.part = Part::Own;
        self.limit = self.own;
        self.state = hash(Domain::Examples, &[state]);
    }

    /// Chooses seeds of the task; rows that `is_found` are in the context already.
    fn choose(&mut self, asked: Asked<'a>, is_found: &impl Fn(u32, u32) -> bool) {
        self.chosen.clear();
        let plan = asked.plan;
        // a list of rows cannot be shown beside an example, so it would be none
        if plan.is_row || plan.target_table.is_some() || plan.target.is_some_and(|target| target.is_removed) {
            return;
        }
        let mut rng = Rng::new(self.state);
        match self.config.example_choice {
            ExampleChoice::Random => self.random(asked, &mut rng, is_found),
            ExampleChoice::Recent => self.recent(asked, &mut rng, is_found),
            ExampleChoice::Similar => {
                self.similar.walk(asked, self.state);
                let most = self.config.examples;
                for row in self.similar.rows() {
                    if self.chosen.len() == most {
                        return;
                    }
                    let latest = latest_label(asked, row);
                    self.chosen.extend(latest.filter(|&seed| is_open(asked, seed, is_found)));
                }
                self.recent(asked, &mut rng, is_found);
            }
        }
    }

    /// Draws among all visible labels.
    fn random(&mut self, asked: Asked<'a>, rng: &mut Rng, is_found: &impl Fn(u32, u32) -> bool) {
        let (labelled, visible) = self.visible(asked);
        self.draws.start(visible.len as u32);
        while self.chosen.len() < self.config.examples && self.draws.remaining() > 0 {
            let seed = labelled.seed(visible.position(self.draws.uniform(rng)));
            if asked.shows_label(seed as usize) && is_open(asked, seed, is_found) {
                self.chosen.push(seed);
            }
        }
    }

    /// Fills up with the latest visible labels; those of the same time are drawn.
    fn recent(&mut self, asked: Asked<'a>, rng: &mut Rng, is_found: &impl Fn(u32, u32) -> bool) {
        let (labelled, visible) = self.visible(asked);
        let seed = |nth: u32| labelled.seed(visible.position(nth));
        let time = |nth: u32| asked.seeds.times[seed(nth) as usize];
        let mut end = visible.len as u32;
        while end > 0 && self.chosen.len() < self.config.examples {
            let latest = time(end - 1);
            let first = first_of(end, |nth| time(nth) == latest);
            self.draws.start(end - first);
            while self.chosen.len() < self.config.examples && self.draws.remaining() > 0 {
                let seed = seed(first + self.draws.uniform(rng));
                if !self.chosen.contains(&seed) && asked.shows_label(seed as usize) && is_open(asked, seed, is_found) {
                    self.chosen.push(seed);
                }
            }
            end = first;
        }
    }

    /// The labels a seed may see, but for its own entity's and some untimed ones.
    fn visible(&self, asked: Asked<'a>) -> (&'a Labelled, Visible) {
        let labels = self.labels[asked.plan.id as usize].as_ref().expect("tasks of the sampler have labels");
        let (labelled, len) = labels.of(asked.visibility.split(), asked.seeds);
        let time = |at: u32| asked.seeds.times[labelled.seed(at) as usize];
        (labelled, asked.visibility.labels_among(len, time, asked.plan.horizon))
    }
}

/// The first of the last entries of `0..end` for which something holds, which it does for the very last.
fn first_of(end: u32, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, end - 1);
    while low < high {
        let middle = u32::midpoint(low, high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The row that shows a seed's label: one of the task (kind table) or of its anchor table (kind cell).
fn shown_at(asked: Asked<'_>, seed: u32) -> (u32, u32) {
    match asked.plan.target {
        Some(_) => (asked.plan.anchor_table, asked.seeds.rows[seed as usize]),
        None => (asked.plan.table, seed),
    }
}

/// Whether a visible label may be an example: it is another entity's and is not in the context.
fn is_open(asked: Asked<'_>, seed: u32, is_found: &impl Fn(u32, u32) -> bool) -> bool {
    let (table, row) = shown_at(asked, seed);
    asked.seeds.rows[seed as usize] != asked.row && !is_found(table, row)
}

/// The latest visible label of an entity.
pub fn latest_label(asked: Asked<'_>, row: u32) -> Option<u32> {
    let seeds = asked.seeds;
    let (start, end) = (seeds.indptr[row as usize] as usize, seeds.indptr[row as usize + 1] as usize);
    let visible = asked.visibility.labels(&seeds.index_times[start..end], asked.plan.horizon);
    let mut latest = (0..visible.len as u32).rev().map(|nth| seeds.indices[start + visible.position(nth) as usize]);
    latest.find(|&seed| asked.shows_label(seed as usize))
}

impl<'a> Walker<'a> {
    /// Finds the row whose visit comes next, once every found row was visited: a child, or an example. `asked` becomes
    /// what the part of the context that it belongs to may see. False when no row is left.
    #[inline]
    pub(super) fn find_next(&mut self, whole: &Asked<'a>, asked: &mut Asked<'a>, used: Extent) -> bool {
        let Some(mut examples) = self.examples.take() else { return self.find_child(whole) };
        let is_found = self.find_in_parts(&mut examples, *whole, asked, used);
        self.examples = Some(examples);
        is_found
    }

    fn find_in_parts(
        &mut self,
        examples: &mut Examples<'a>,
        whole: Asked<'a>,
        asked: &mut Asked<'a>,
        used: Extent,
    ) -> bool {
        loop {
            if used.is_within(examples.limit) && self.find_child(asked) {
                return true;
            }
            let mut next = match examples.part {
                Part::Rest => return false,
                Part::Example(next) => next,
                Part::Own => {
                    examples.choose(whole, &|table, row| self.number(table, row).is_some());
                    self.exchange(&mut examples.parked);
                    0
                }
            };
            while let Some(&seed) = examples.chosen.get(next) {
                let shares = examples.chosen.len() - next;
                next += 1;
                if self.find_example(whole, seed) {
                    self.restart(Rng::new(hash(Domain::Example, &[examples.state, next as u64 - 1])));
                    *asked = whole.as_example(seed, examples.config);
                    (examples.part, examples.limit) = (Part::Example(next), examples.whole.share(used, shares));
                    return true;
                }
            }
            self.exchange(&mut examples.parked);
            *asked = whole;
            (examples.part, examples.limit) = (Part::Rest, Extent { cells: usize::MAX, rows: usize::MAX });
        }
    }

    /// Finds the row that shows an example unless it was found before.
    fn find_example(&mut self, asked: Asked<'a>, seed: u32) -> bool {
        let (table, row) = shown_at(asked, seed);
        self.find(Visit { table, row, hop: 0, from: 0, via: Via::Example })
    }
}
