//! What a caller may ask of a sampler, with defaults, checked once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::questions::Questions;
use crate::error::{Error, Result};
use crate::stype::Stype;

/// Which visible children of a row are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Uniformly, without replacement.
    #[default]
    Uniform,
    /// The newest first.
    Recent,
}

/// Which identifier cells are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Identifiers {
    /// All that are present.
    #[default]
    All,
    /// One, and only in rows that would have no cell at all.
    Needed,
}

/// Which labels of other entities are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExampleChoice {
    /// Those of the entities that random walks from the seed's entity meet most often.
    #[default]
    Similar,
    /// The latest.
    Recent,
    /// Any, uniformly.
    Random,
}

/// A part of a whole, above 0 and at most 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share(pub f64);

/// Never NaN once it is checked.
impl Eq for Share {}

impl Share {
    /// That part of `all`, rounded down.
    pub fn of(self, all: usize) -> usize {
        (self.0 * all as f64) as usize
    }
}

/// Which seeds are sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Training seeds.
    #[default]
    Train,
    /// Validation seeds.
    Val,
    /// Test seeds.
    Test,
    /// Every seed, in the order of the task.
    All,
}

macro_rules! by_name {
    ($type:ident, $what:literal, $($name:literal => $variant:ident),*) => {
        impl std::str::FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                match name {
                    $($name => Ok(Self::$variant),)*
                    _ => Err(Error::Argument(format!(
                        concat!("unknown ", $what, " `{}`; expected one of: {}"), name, [$($name),*].join(", ")
                    ))),
                }
            }
        }
    };
}
by_name!(Strategy, "strategy", "uniform" => Uniform, "recent" => Recent);
by_name!(Identifiers, "choice of identifiers", "all" => All, "needed" => Needed);
by_name!(ExampleChoice, "example_choice", "similar" => Similar, "recent" => Recent, "random" => Random);
by_name!(Split, "split", "train" => Train, "val" => Val, "test" => Test, "all" => All);

impl Split {
    /// Whether a seed with this code in its task's file is sampled.
    pub const fn takes(self, code: u8) -> bool {
        match self {
            Self::Train => code == 0,
            Self::Val => code == 1,
            Self::Test => code == 2,
            Self::All => true,
        }
    }

    /// The name in options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::All => "all",
        }
    }
}

/// How many children are drawn by the hop they are found at; the last number holds for all further hops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PerHop {
    /// The same at every hop.
    Same(usize),
    /// At hop 1, at hop 2, and so on.
    Each(Vec<usize>),
}

/// How many children of a row are drawn per foreign key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum NumNeighbors {
    /// The same for every foreign key.
    Every(PerHop),
    /// By foreign key, as `table.column`; `*` stands for all that are not named, which otherwise have the default.
    ByKey(BTreeMap<String, PerHop>),
}

impl NumNeighbors {
    /// Children drawn where nothing else is said.
    pub const DEFAULT: usize = 16;

    /// Every number named.
    fn check(&self) -> Result<()> {
        let lists: Vec<&PerHop> = match self {
            Self::Every(numbers) => vec![numbers],
            Self::ByKey(by_key) => by_key.values().collect(),
        };
        if lists.iter().any(|numbers| matches!(numbers, PerHop::Each(each) if each.is_empty())) {
            return Err(Error::Argument("num_neighbors: a list must have at least one number, found none".into()));
        }
        Ok(())
    }
}

impl From<usize> for NumNeighbors {
    fn from(number: usize) -> Self {
        Self::Every(PerHop::Same(number))
    }
}

/// Shares of tasks and tables in a stream of seeds, in any unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Weights(pub Vec<f64>);

/// How often cells are masked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MaskRate {
    /// All predictable cells alike.
    Every(f64),
    /// By the name of their stype; cells of stypes that are not named are never masked.
    ByStype(BTreeMap<String, f64>),
}

impl MaskRate {
    /// The probability that a cell of this stype is masked.
    pub fn of(&self, stype: Stype) -> f64 {
        match self {
            Self::Every(rate) => *rate,
            Self::ByStype(rates) => rates.get(stype.name()).copied().unwrap_or(0.0),
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Every(rate) => check_probability("mask_rate", *rate),
            Self::ByStype(rates) => rates.iter().try_for_each(|(name, rate)| {
                let is_predictable = |stype: &&Stype| **stype != Stype::Identifier;
                if !Stype::ALL.iter().filter(is_predictable).any(|stype| stype.name() == name) {
                    let known: Vec<&str> = Stype::ALL.iter().filter(is_predictable).map(|stype| stype.name()).collect();
                    let known = known.join(", ");
                    return Err(Error::Argument(format!(
                        "mask_rate: `{name}` is no stype of cells that can be predicted; these are: {known}"
                    )));
                }
                check_probability(&format!("mask_rate of `{name}`"), *rate)
            }),
        }
    }
}

fn check_probability(name: &str, found: f64) -> Result<()> {
    if (0.0..=1.0).contains(&found) {
        Ok(())
    } else {
        Err(Error::Argument(format!("{name} must be a probability, between 0 and 1, found {found}")))
    }
}

/// The options of a sampler.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(clippy::struct_excessive_bools)] // independent switches, named as users name them
pub struct SamplerConfig {
    /// Names of the tasks; their seeds follow each other in this order.
    pub tasks: Vec<String>,
    /// Names of tables whose rows are seeds without a target; they follow the tasks.
    pub tables: Vec<String>,
    /// Shares of the tasks, then of the tables, in the stream of seeds; `None`: as many as each has seeds.
    pub task_weights: Option<Weights>,
    /// Which seeds.
    pub split: Split,
    /// Seeds of the caller's own, without labels, in place of those of a split.
    pub seeds: Option<Questions>,
    /// Contexts per batch.
    pub batch_size: usize,
    /// Cells per context.
    pub seq_len: usize,
    /// Rows per context; `None`: as many as cells.
    pub max_rows: Option<usize>,
    /// Children drawn per row and foreign key.
    pub num_neighbors: NumNeighbors,
    /// Which children.
    pub strategy: Strategy,
    /// Links walked from the seed's row; `None`: no limit.
    pub max_hops: Option<usize>,
    /// Show cells without a value, too.
    pub null_cells: bool,
    /// Which identifier cells are shown.
    pub identifiers: Identifiers,
    /// Hide rows of the very time of the seed.
    pub strict_time: bool,
    /// Nothing later than this is visible to any seed, microseconds.
    pub database_cutoff: Option<i64>,
    /// Children and labels from longer before the seed are hidden, microseconds; `None`: none is too old.
    pub lookback: Option<i64>,
    /// A seed sees the database as it was a random time before, at most so much, microseconds; `None`: as it was then.
    pub max_lag: Option<i64>,
    /// Show earlier seeds of visited entities with their labels.
    pub history: bool,
    /// Probability that a cell is masked.
    pub mask_rate: MaskRate,
    /// Probability that all cells of a column are masked in a context.
    pub mask_columns: f64,
    /// Steps of a random walk from row 0 whose probabilities every row gets; 0: none.
    pub walk_features: usize,
    /// Pairs of rows to judge, whether one points to the other; 0: none.
    pub num_links: usize,
    /// Labelled seeds of other entities that are shown.
    pub examples: usize,
    /// Which of them.
    pub example_choice: ExampleChoice,
    /// The part of the cells and rows of a context that is kept for them and what they bring.
    pub example_share: Share,
    /// Random walks in search of similar entities.
    pub example_walks: usize,
    /// Steps of each.
    pub example_walk_length: usize,
    /// Endless epochs in random order; otherwise one pass in fixed order.
    pub shuffle: bool,
    /// Seed of every random number.
    pub rng_seed: u64,
    /// This process among `world_size`.
    pub rank: u64,
    /// Processes that share each step's seeds.
    pub world_size: u64,
    /// Worker threads; 0: as many as cores, no more than `prefetch`.
    pub threads: usize,
    /// Batches made ahead; 0: none, and no threads.
    pub prefetch: usize,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            tasks: vec![],
            tables: vec![],
            task_weights: None,
            split: Split::Train,
            seeds: None,
            batch_size: 32,
            seq_len: 1024,
            max_rows: None,
            num_neighbors: NumNeighbors::DEFAULT.into(),
            strategy: Strategy::Uniform,
            max_hops: None,
            null_cells: false,
            identifiers: Identifiers::All,
            strict_time: false,
            database_cutoff: None,
            lookback: None,
            max_lag: None,
            history: true,
            mask_rate: MaskRate::Every(0.0),
            mask_columns: 0.0,
            walk_features: 0,
            num_links: 0,
            examples: 0,
            example_choice: ExampleChoice::Similar,
            example_share: Share(0.5),
            example_walks: 128,
            example_walk_length: 8,
            shuffle: true,
            rng_seed: 0,
            rank: 0,
            world_size: 1,
            threads: 0,
            prefetch: 2,
        }
    }
}

/// Local row numbers are int16.
const MAX_ROWS: usize = i16::MAX as usize;
const MAX_CELLS: usize = 1 << 24;
const MAX_WALK: usize = 64;
const MAX_LINKS: usize = 1 << 15;
const MAX_WALKS: usize = 1 << 24;
const MAX_WALK_LENGTH: usize = 1 << 16;
/// The most elements one array of a batch may have.
const MAX_ELEMENTS: u128 = 1 << 34;

impl SamplerConfig {
    /// Rows per context.
    pub fn rows(&self) -> usize {
        self.max_rows.unwrap_or(self.seq_len.min(MAX_ROWS))
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the option, its range and what was found.
    pub fn check(&self) -> Result<()> {
        let within = |name: &str, found: usize, max: usize| {
            if (1..=max).contains(&found) {
                Ok(())
            } else {
                Err(Error::Argument(format!("{name} must be between 1 and {max}, found {found}")))
            }
        };
        self.check_sources()?;
        for (name, duration) in [("lookback", self.lookback), ("max_lag", self.max_lag)] {
            if let Some(found) = duration.filter(|&duration| duration < 0) {
                return Err(Error::Argument(format!("{name} must be at least 0 microseconds, found {found}")));
            }
        }
        self.num_neighbors.check()?;
        self.mask_rate.check()?;
        check_probability("mask_columns", self.mask_columns)?;
        within("batch_size", self.batch_size, 1 << 20)?;
        within("seq_len", self.seq_len, MAX_CELLS)?;
        within("max_rows", self.rows(), MAX_ROWS)?;
        self.check_examples()?;
        if self.rank >= self.world_size {
            let (rank, world_size) = (self.rank, self.world_size);
            return Err(Error::Argument(format!("rank must be below world_size ({world_size}), found {rank}")));
        }
        within("walk_features", self.walk_features.max(1), MAX_WALK)?;
        within("num_links", self.num_links.max(1), MAX_LINKS)?;
        within("threads", self.threads.max(1), 1024)?;
        within("prefetch", self.prefetch.max(1), 1 << 16)?;
        let widest = self.seq_len.max(self.rows()) * self.walk_features.max(7);
        let elements = self.batch_size as u128 * widest.max(self.num_links) as u128;
        if elements > MAX_ELEMENTS {
            return Err(Error::Argument(format!(
                "batch_size {} with seq_len {} and max_rows {} is too large for one batch",
                self.batch_size,
                self.seq_len,
                self.rows()
            )));
        }
        Ok(())
    }

    fn check_examples(&self) -> Result<()> {
        for (name, found, max) in [
            ("examples", self.examples, MAX_ROWS),
            ("example_walks", self.example_walks, MAX_WALKS),
            ("example_walk_length", self.example_walk_length, MAX_WALK_LENGTH),
        ] {
            if found > max {
                return Err(Error::Argument(format!("{name} must be between 0 and {max}, found {found}")));
            }
        }
        let Share(share) = self.example_share;
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::Argument(format!("example_share must be above 0 and at most 1, found {share}")));
        }
        Ok(())
    }

    /// Checks where seeds come from.
    fn check_sources(&self) -> Result<()> {
        if self.tasks.is_empty() && self.tables.is_empty() {
            return Err(Error::Argument("tasks must name at least one task, or tables one table".into()));
        }
        for (kind, names) in [("task", &self.tasks), ("table", &self.tables)] {
            if let Some((_, twice)) = names.iter().enumerate().find(|(idx, name)| names[..*idx].contains(name)) {
                return Err(Error::Argument(format!("{kind} `{twice}` is named twice")));
            }
        }
        if self.seeds.is_some() && (self.tasks.len() > 1 || !self.tables.is_empty()) {
            let names: Vec<&str> = self.sources().collect();
            let names = names.join(", ");
            return Err(Error::Argument(format!("seeds of your own are asked of one task, found {names}")));
        }
        let Some(Weights(weights)) = &self.task_weights else { return Ok(()) };
        let sources = self.sources().count();
        if weights.len() != sources {
            return Err(Error::Argument(format!(
                "task_weights: one number per task and table expected, that is {sources}, found {}",
                weights.len()
            )));
        }
        if let Some((name, weight)) =
            self.sources().zip(weights).find(|(_, weight)| !weight.is_finite() || **weight <= 0.0)
        {
            return Err(Error::Argument(format!("task_weights: `{name}` needs a positive number, found {weight}")));
        }
        if !self.shuffle {
            return Err(Error::Argument("task_weights need shuffle: a fixed order has every seed once".into()));
        }
        Ok(())
    }

    /// Tasks, then tables: what seeds come from, in order.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().chain(&self.tables).map(String::as_str)
    }

    /// The options that decide what a context holds and in which order contexts come: all but the sharing of the work.
    pub fn identity(&self) -> Value {
        let mut options = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(options) = &mut options {
            for shared in ["batch_size", "rank", "world_size", "threads", "prefetch"] {
                options.remove(shared);
            }
        }
        options
    }

    /// Worker threads; 0 when nothing is made ahead.
    pub fn workers(&self) -> usize {
        match (self.prefetch, self.threads) {
            (0, _) => 0,
            (ahead, 0) => std::thread::available_parallelism().map_or(1, usize::from).min(ahead),
            (_, threads) => threads,
        }
    }

    /// Seeds all processes take per step.
    pub fn seeds_per_step(&self) -> u64 {
        (self.batch_size as u64).saturating_mul(self.world_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SamplerConfig {
        SamplerConfig { tasks: vec!["t".into()], ..SamplerConfig::default() }
    }

    fn by_stype(name: &str, rate: f64) -> MaskRate {
        MaskRate::ByStype(BTreeMap::from([(name.to_owned(), rate)]))
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        assert!(config().check().is_ok());
        for (broken, name) in [
            (SamplerConfig { tasks: vec![], ..config() }, "tasks"),
            (SamplerConfig { tasks: vec!["t".into(), "t".into()], ..config() }, "twice"),
            (SamplerConfig { tables: vec!["a".into(), "a".into()], ..config() }, "table `a` is named twice"),
            (SamplerConfig { task_weights: Some(Weights(vec![1.0, 2.0])), ..config() }, "that is 1, found 2"),
            (SamplerConfig { task_weights: Some(Weights(vec![0.0])), ..config() }, "`t` needs a positive number"),
            (SamplerConfig { task_weights: Some(Weights(vec![1.0])), shuffle: false, ..config() }, "shuffle"),
            (SamplerConfig { lookback: Some(-1), ..config() }, "lookback"),
            (SamplerConfig { max_lag: Some(-1), ..config() }, "max_lag"),
            (SamplerConfig { num_neighbors: NumNeighbors::Every(PerHop::Each(vec![])), ..config() }, "num_neighbors"),
            (SamplerConfig { batch_size: 0, ..config() }, "batch_size"),
            (SamplerConfig { seq_len: 0, ..config() }, "seq_len"),
            (SamplerConfig { max_rows: Some(40_000), ..config() }, "max_rows"),
            (SamplerConfig { max_rows: Some(0), ..config() }, "max_rows"),
            (SamplerConfig { mask_rate: MaskRate::Every(1.5), ..config() }, "mask_rate must be a probability"),
            (SamplerConfig { mask_rate: MaskRate::Every(f64::NAN), ..config() }, "mask_rate"),
            (SamplerConfig { mask_rate: by_stype("text", -0.1), ..config() }, "mask_rate of `text`"),
            (SamplerConfig { mask_rate: by_stype("identifier", 0.1), ..config() }, "numerical, timestamp"),
            (SamplerConfig { mask_columns: 2.0, ..config() }, "mask_columns"),
            (SamplerConfig { walk_features: 65, ..config() }, "walk_features"),
            (SamplerConfig { num_links: 40_000, ..config() }, "num_links"),
            (SamplerConfig { examples: 40_000, ..config() }, "examples"),
            (SamplerConfig { example_walks: 1 << 25, ..config() }, "example_walks"),
            (SamplerConfig { example_walk_length: 1 << 17, ..config() }, "example_walk_length"),
            (SamplerConfig { example_share: Share(0.0), ..config() }, "example_share"),
            (SamplerConfig { example_share: Share(f64::NAN), ..config() }, "example_share"),
            (SamplerConfig { rank: 2, world_size: 2, ..config() }, "rank"),
            (SamplerConfig { world_size: 0, ..config() }, "world_size"),
            (SamplerConfig { batch_size: 1 << 20, seq_len: 1 << 24, ..config() }, "too large"),
        ] {
            let message = broken.check().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        assert_eq!(SamplerConfig { seq_len: 1 << 20, ..config() }.rows(), MAX_ROWS);
        assert!("newest".parse::<Strategy>().unwrap_err().to_string().contains("uniform, recent"));
    }
}
