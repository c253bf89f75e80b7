//! From a seed to the context a model may see at its time.
//!
//! [`Sampler::batch`] is a pure function of the database, the options and the step. [`seeds`] says who is sampled at
//! a step, [`temporal`] who is visible, [`frontier`] in which order rows are visited, [`context`] turns them into
//! cells, [`collate`] lays contexts side by side. Implements `documentation/sampling.md`.

mod cells;
mod children;
mod collate;
mod config;
mod context;
mod examples;
mod explain;
mod fields;
mod finishing;
mod frontier;
mod lead_in;
mod links;
mod masks;
mod members;
mod plan;
mod questions;
mod rng;
mod seeds;
mod similar;
mod stream;
mod temporal;
mod walk_features;

use std::sync::Arc;

pub use collate::{Array, Batch, Shape};
pub use config::{
    ExampleChoice, Identifiers, MaskRate, NumNeighbors, PerHop, SamplerConfig, Share, Split, Strategy, Weights,
};
pub use explain::{Counts, ExplainedCell, ExplainedRow, Explanation, HiddenRow, HiddenRows};
pub use fields::{Axis, BATCH_FIELDS, Dtype, Field};
pub use questions::Questions;
pub use seeds::Seed;
pub use stream::Polled;
pub use temporal::END_OF_TIME;

use crate::database::{Database, View};
use crate::error::{Error, Result};
use crate::guard::guarded;
use context::Walker;
use examples::{Examples, Labels};
use plan::{Quotas, TaskPlan};
use seeds::SeedOrder;
use stream::Stream;

/// Draws batches from a database. Clones share their stream of batches.
#[derive(Clone)]
pub struct Sampler {
    core: Arc<Core>,
    stream: Arc<Stream>,
}

/// What every thread of a sampler reads.
struct Core {
    database: Database,
    config: SamplerConfig,
    order: SeedOrder,
    plans: Vec<Option<TaskPlan>>,
    quotas: Quotas,
    /// What examples are chosen from, by task id; empty where none are shown.
    labels: Vec<Option<Labels>>,
    shape: Shape,
}

impl Core {
    fn walker<'a>(&'a self, view: &'a View<'a>) -> Walker<'a> {
        let examples = Examples::new(view, &self.config, &self.quotas, &self.labels);
        Walker::new(view, &self.config, &self.plans, &self.quotas, self.database.manifest().time, examples)
    }

    /// The seeds of one of this process's batches.
    fn seeds(&self, step: u64) -> Result<impl Iterator<Item = Option<Seed>> + '_> {
        if let Some(steps) = self.num_steps()
            && step >= steps
        {
            return Err(Error::Argument(format!("step {step} is out of range; the pass has {steps} steps")));
        }
        let (size, rank) = (self.config.batch_size as u64, self.config.rank);
        let first = step.checked_mul(self.config.seeds_per_step()).and_then(|first| first.checked_add(rank * size));
        let first = first.ok_or_else(|| Error::Argument(format!("step {step} is out of range")))?;
        Ok(self.order.seeds(first, size))
    }

    /// Steps of a pass in fixed order; `None` where epochs never end.
    fn num_steps(&self) -> Option<u64> {
        (!self.config.shuffle).then(|| self.steps_per_epoch())
    }

    fn steps_per_epoch(&self) -> u64 {
        self.order.len().div_ceil(self.config.seeds_per_step())
    }

    /// The batch of a step; ends early when it `is_unwanted`.
    fn batch(&self, walker: &mut Walker<'_>, step: u64, is_unwanted: &dyn Fn() -> bool) -> Result<Batch> {
        let mut seeds = self.seeds(step)?.peekable();
        let mut batch = Batch::with_capacity(self.shape)?;
        self.guard(|| {
            while let Some(seed) = seeds.next() {
                if is_unwanted() {
                    return Err(Error::Closed("the batch was given up".into()));
                }
                let mut canvas = batch.push();
                if let Some(seed) = seed {
                    walker.walk(seed, seeds.peek().copied().flatten(), &mut canvas);
                }
            }
            Ok(batch)
        })?
    }

    /// Runs a walk; an index that points outside of its array is the database's fault.
    fn guard<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        guarded(work).ok_or_else(|| self.damaged())
    }

    /// An index pointed outside of its array: the content contradicts itself though every header is sound.
    fn damaged(&self) -> Error {
        Error::format(self.database.path(), "the content of the database is damaged (`tributary verify` says where)")
    }
}

impl Sampler {
    /// A sampler of the tasks and tables of `config`.
    ///
    /// # Errors
    /// [`Error::Argument`] when an option is out of range, a task is unknown or there are no seeds.
    pub fn new(database: &Database, config: SamplerConfig) -> Result<Self> {
        config.check()?;
        let manifest = database.manifest();
        let order = SeedOrder::new(database, &config)?;
        let plans = plan::plans(manifest, &config)?;
        let is_link = plans.iter().flatten().any(|plan| plan.target_table.is_some());
        let shape = Shape {
            contexts: config.batch_size,
            cells: config.seq_len,
            rows: config.rows(),
            parents: manifest.max_parents(),
            walk: config.walk_features,
            pairs: config.num_links,
            answers: if is_link { config.rows() } else { 0 },
        };
        let quotas = Quotas::new(manifest, &config)?;
        let labels_of = |task: &crate::manifest::TaskManifest| {
            let is_asked = config.examples > 0 && config.tasks.contains(&task.name);
            is_asked.then(|| Labels::new(&database.task(task.id), &config))
        };
        let labels = manifest.tasks.iter().map(labels_of).collect();
        let core = Arc::new(Core { database: database.clone(), config, order, plans, quotas, labels, shape });
        Ok(Self { stream: Arc::new(Stream::new(core.clone())), core })
    }

    /// The database it samples.
    pub fn database(&self) -> &Database {
        &self.core.database
    }

    /// The options it was made with.
    pub fn config(&self) -> &SamplerConfig {
        &self.core.config
    }

    /// The lengths of the axes of its batches.
    pub fn shape(&self) -> Shape {
        self.core.shape
    }

    /// Seeds per epoch, over all processes.
    pub fn num_seeds(&self) -> u64 {
        self.core.order.len()
    }

    /// Steps after which every seed was sampled at least once; the length of a pass in fixed order.
    pub fn steps_per_epoch(&self) -> u64 {
        self.core.steps_per_epoch()
    }

    /// The batch of a step, made by the calling thread.
    ///
    /// # Errors
    /// [`Error::Argument`] when a pass in fixed order has no such step; [`Error::Format`] when the content of the
    /// database is damaged.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        self.batch_unless(step, &|| false)
    }

    /// As [`Self::batch`], which ends with [`Error::Closed`] as soon as it `is_unwanted`, asked before every context.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn batch_unless(&self, step: u64, is_unwanted: &dyn Fn() -> bool) -> Result<Batch> {
        let view = self.core.database.view();
        self.core.batch(&mut self.core.walker(&view), step, is_unwanted)
    }
}
