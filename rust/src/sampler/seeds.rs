//! Who is sampled at a step: the order of the seeds, as arithmetic.
//!
//! The seeds of the tasks and tables stand one after the other. An epoch visits each once: in this order, or in a keyed
//! permutation of it, so that any position is reached without replaying. Implements `documentation/sampling.md`,
//! "Order of the seeds".

use super::config::{SamplerConfig, Split};
use super::members::Members;
use super::rng::{Domain, hash, mix};
use crate::database::Database;
use crate::error::{Error, Result, suggestion};
use crate::ids::TaskId;

const ROUNDS: usize = 6;

/// A permutation of `0..len`, chosen by a key: a Feistel network on the next power of four, walked until it answers
/// a number in range.
/// Source: Black, Rogaway: Ciphers with arbitrary finite domains (2002), "cycle walking".
#[derive(Clone, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` with this key.
    pub fn new(len: u64, key: u64) -> Self {
        let bits = 64 - len.saturating_sub(1).leading_zeros();
        let mut keys = [0; ROUNDS];
        for (round, slot) in keys.iter_mut().enumerate() {
            *slot = hash(Domain::Order, &[key, round as u64]);
        }
        Self { len, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// Where `idx` goes.
    ///
    /// # Panics
    /// If `idx` is not below the length.
    pub fn apply(&self, idx: u64) -> u64 {
        assert!(idx < self.len, "the permutation has {} entries", self.len);
        let mut walked = self.feistel(idx);
        while walked >= self.len {
            walked = self.feistel(walked);
        }
        walked
    }

    fn feistel(&self, idx: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (idx >> self.half_bits, idx & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// One seed of one task, at its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed {
    /// Its task.
    pub task: TaskId,
    /// Its position among all seeds of the task, or among the caller's own.
    pub index: u32,
    /// The epoch it is sampled in.
    pub epoch: u64,
}

/// Positions of a stream of several tasks by weight in which every task has its exact share.
const BLOCK: u64 = 4096;

/// A task or a table and those of its seeds that are sampled.
#[derive(Clone, Debug)]
struct Source {
    id: TaskId,
    seeds: Members,
    /// Positions of every block that are its own; without weights, none has any.
    share: u64,
}

/// The order in which seeds are sampled.
#[derive(Clone, Debug)]
pub struct SeedOrder {
    sources: Vec<Source>,
    len: u64,
    is_shuffled: bool,
    is_weighted: bool,
    rng_seed: u64,
}

/// Permutations that the positions before needed.
#[derive(Default)]
struct Recent {
    /// Of the whole order, or of a block.
    all: Option<(u64, Permutation)>,
    /// Of each source.
    sources: Vec<Option<(u64, Permutation)>>,
}

/// The permutation with this number, made anew where another one was needed before.
fn recent(slot: &mut Option<(u64, Permutation)>, number: u64, make: impl FnOnce() -> Permutation) -> &Permutation {
    if slot.as_ref().is_none_or(|(of, _)| *of != number) {
        *slot = None;
    }
    &slot.get_or_insert_with(|| (number, make())).1
}

impl SeedOrder {
    /// The seeds of the tasks, the tables and the split of `config`, or the caller's own.
    ///
    /// # Errors
    /// [`Error::Argument`] when a task or table does not exist, the split has no seeds, or a weight is too small;
    /// [`Error::Format`] when the keys of a table are damaged.
    pub fn new(database: &Database, config: &SamplerConfig) -> Result<Self> {
        let manifest = database.manifest();
        let mut sources = vec![];
        for name in &config.tasks {
            let task = manifest.task(name).ok_or_else(|| {
                let near = suggestion(name, manifest.tasks.iter().map(|task| task.name.as_str()));
                Error::Argument(format!("unknown task `{name}`{near}"))
            })?;
            let splits = database.task(task.id).splits;
            let seeds = match &config.seeds {
                Some(questions) => Members::Range(0..questions.len() as u32),
                None => Members::of(task.num_seeds, |idx| config.split.takes(splits[idx as usize])),
            };
            sources.push(Source { id: task.id, seeds, share: 0 });
        }
        for name in &config.tables {
            let table = manifest.tables.iter().find(|table| table.name == *name).ok_or_else(|| {
                let near = suggestion(name, manifest.tables.iter().map(|table| table.name.as_str()));
                Error::Argument(format!("unknown table `{name}`{near}"))
            })?;
            let id = TaskId(manifest.tasks.len() as u32 + table.id.0);
            sources.push(Source { id, seeds: Members::of_table(database, table, config)?, share: 0 });
        }
        let len = sources.iter().map(|source| source.seeds.len()).sum();
        let split = if config.split == Split::All { String::new() } else { format!("{} ", config.split.name()) };
        if len == 0 {
            let names: Vec<&str> = config.sources().collect();
            return Err(Error::Argument(format!("no {split}seeds in: {}", names.join(", "))));
        }
        let weights = config.task_weights.as_ref().map(|weights| weights.0.as_slice());
        if let Some(weights) = weights {
            for ((source, share), name) in sources.iter_mut().zip(shares(weights)).zip(config.sources()) {
                if source.seeds.len() == 0 {
                    return Err(Error::Argument(format!("task_weights: no {split}seeds in `{name}`")));
                }
                if share == 0 {
                    return Err(Error::Argument(format!(
                        "task_weights: the share of `{name}` is too small, one of {BLOCK} seeds is the least"
                    )));
                }
                source.share = share;
            }
        }
        let (is_shuffled, is_weighted) = (config.shuffle, weights.is_some());
        Ok(Self { sources, len, is_shuffled, is_weighted, rng_seed: config.rng_seed })
    }

    /// Seeds per epoch.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The seeds at `count` positions from `first` on; `None` behind the end of a fixed order.
    pub fn seeds(&self, first: u64, count: u64) -> impl Iterator<Item = Option<Seed>> + '_ {
        let mut cache = Recent { all: None, sources: vec![None; self.sources.len()] };
        (first..first.saturating_add(count)).map(move |position| {
            if !self.is_shuffled {
                return (position < self.len).then(|| self.nth(position, 0));
            }
            if self.is_weighted {
                return Some(self.weighted(position, &mut cache));
            }
            let (epoch, idx) = (position / self.len, position % self.len);
            let key = || hash(Domain::Order, &[self.rng_seed, epoch]);
            let permutation = recent(&mut cache.all, epoch, || Permutation::new(self.len, key()));
            Some(self.nth(permutation.apply(idx), epoch))
        })
    }

    fn nth(&self, mut idx: u64, epoch: u64) -> Seed {
        for Source { id, seeds, .. } in &self.sources {
            if idx < seeds.len() {
                return Seed { task: *id, index: seeds.get(idx), epoch };
            }
            idx -= seeds.len();
        }
        unreachable!("positions stay below the number of seeds")
    }

    /// The seed at a position of a stream by weight: the block says whose turn it is, and each source goes through
    /// epochs of its own.
    fn weighted(&self, position: u64, cache: &mut Recent) -> Seed {
        let (block, place) = (position / BLOCK, position % BLOCK);
        let key = || hash(Domain::Mix, &[self.rng_seed, block]);
        let mut place = recent(&mut cache.all, block, || Permutation::new(BLOCK, key())).apply(place);
        for (source, slot) in self.sources.iter().zip(&mut cache.sources) {
            if place < source.share {
                let turn = block * source.share + place;
                let (epoch, idx) = (turn / source.seeds.len(), turn % source.seeds.len());
                let key = || hash(Domain::Order, &[self.rng_seed, epoch, u64::from(source.id.0)]);
                let permutation = recent(slot, epoch, || Permutation::new(source.seeds.len(), key()));
                return Seed { task: source.id, index: source.seeds.get(permutation.apply(idx)), epoch };
            }
            place -= source.share;
        }
        unreachable!("the shares of a block make up a block")
    }
}

/// How many positions of a block each weight has: the whole part of its share, and one more for the largest
/// remainders, the first of equal ones.
fn shares(weights: &[f64]) -> Vec<u64> {
    let total: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| weight / total * BLOCK as f64).collect();
    let mut shares: Vec<u64> = exact.iter().map(|share| share.floor() as u64).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder
        .sort_by(|&one, &other| (exact[other] - exact[other].floor()).total_cmp(&(exact[one] - exact[one].floor())));
    let left = BLOCK.saturating_sub(shares.iter().sum()) as usize;
    for &idx in by_remainder.iter().cycle().take(left) {
        shares[idx] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permutation_is_one() {
        for len in (1..70).chain([255, 256, 257, 1000, 4096, 5000]) {
            let mut seen = vec![false; len as usize];
            let permutation = Permutation::new(len, 5);
            for idx in 0..len {
                assert!(!std::mem::replace(&mut seen[permutation.apply(idx) as usize], true));
            }
        }
        let huge = Permutation::new(u64::MAX / 3, 1);
        assert!(huge.apply(12_345) < u64::MAX / 3);
    }

    #[test]
    fn keys_and_places_mix() {
        let permutation = |key| (0..1000).map(|idx| Permutation::new(1000, key).apply(idx)).collect::<Vec<_>>();
        let (one, two) = (permutation(1), permutation(2));
        assert!(one.iter().zip(&two).filter(|(a, b)| a == b).count() < 10);
        assert!(one.windows(2).filter(|pair| pair[1] == pair[0] + 1).count() < 10);
        // every place is as likely for the first entry: chi-square over keys, 9 degrees of freedom
        let mut counts = [0u32; 10];
        for key in 0..5000 {
            counts[Permutation::new(10, key).apply(0) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|&count| (f64::from(count) - 500.0).powi(2) / 500.0).sum();
        assert!(chi2 < 27.9, "{chi2}");
    }

    fn order(is_shuffled: bool) -> SeedOrder {
        let sources = [(TaskId(3), vec![0, 2, 4]), (TaskId(1), vec![]), (TaskId(0), vec![1, 5])];
        let source = |(id, seeds)| Source { id, seeds: Members::List(seeds), share: 0 };
        let sources = sources.into_iter().map(source).collect();
        SeedOrder { sources, len: 5, is_shuffled, is_weighted: false, rng_seed: 9 }
    }

    #[test]
    fn a_fixed_order_ends() {
        let seeds: Vec<_> = order(false).seeds(1, 6).map(|seed| seed.map(|seed| (seed.task.0, seed.index))).collect();
        assert_eq!(seeds, [Some((3, 2)), Some((3, 4)), Some((0, 1)), Some((0, 5)), None, None]);
    }

    #[test]
    fn every_epoch_visits_every_seed_once() {
        let order = order(true);
        let all: Vec<Seed> = order.seeds(0, 50).flatten().collect();
        for (epoch, seeds) in all.chunks(5).enumerate() {
            let mut seeds = seeds.to_vec();
            seeds.sort();
            let expected = [(0, 1), (0, 5), (3, 0), (3, 2), (3, 4)];
            let expected = expected.map(|(task, index)| Seed { task: TaskId(task), index, epoch: epoch as u64 });
            assert_eq!(seeds, expected);
        }
        for first in 0..40 {
            assert!(order.seeds(first, 7).flatten().eq(all[first as usize..first as usize + 7].iter().copied()));
        }
        assert_ne!(all[..5].iter().map(|seed| seed.index).collect::<Vec<_>>(), [0, 2, 4, 1, 5]);
    }

    #[test]
    fn shares_fill_a_block_by_largest_remainder() {
        assert_eq!(shares(&[1.0, 1.0, 2.0]), [1024, 1024, 2048]);
        assert_eq!(shares(&[1.0, 1.0, 1.0]), [1366, 1365, 1365]);
        assert_eq!(shares(&[1e300, 1e-300]), [4096, 0]);
        for weights in [vec![0.1; 7], vec![3.0, 1.0, 0.02], vec![1e-9, 1e-9]] {
            assert_eq!(shares(&weights).iter().sum::<u64>(), BLOCK);
        }
    }

    #[test]
    fn every_block_has_exact_shares_and_every_source_its_own_epochs() {
        let source = |(id, len, share)| Source { id: TaskId(id), seeds: Members::Range(0..len), share };
        let sources: Vec<Source> = [(0, 7, 1000), (4, 5000, 3000), (2, 1, 96)].into_iter().map(source).collect();
        let order = SeedOrder { sources, len: 5008, is_shuffled: true, is_weighted: true, rng_seed: 3 };
        let all: Vec<Seed> = order.seeds(0, 5 * BLOCK).flatten().collect();
        for block in all.chunks(BLOCK as usize) {
            for (task, share) in [(0, 1000), (4, 3000), (2, 96)] {
                assert_eq!(block.iter().filter(|seed| seed.task.0 == task).count(), share);
            }
        }
        for (task, len) in [(0, 7), (4, 5000), (2, 1)] {
            let mut seeds: Vec<(u64, u32)> =
                all.iter().filter(|seed| seed.task.0 == task).map(|seed| (seed.epoch, seed.index)).collect();
            seeds.sort_unstable();
            let expected = (0..).flat_map(|epoch| (0..len).map(move |index| (epoch, index)));
            let whole = seeds.len() / len as usize * len as usize;
            assert!(seeds[..whole].iter().copied().eq(expected.take(whole)), "each seed once per epoch");
        }
        for first in [0, 1, 4000, 4095, 9000] {
            assert!(order.seeds(first, 300).flatten().eq(all[first as usize..first as usize + 300].iter().copied()));
        }
    }
}
