//! Who is sampled at a step: the order of the seeds, as arithmetic.
//!
//! The seeds of the tasks stand one after the other. An epoch visits each once: in this order, or in a keyed
//! permutation of it, so that any position is reached without replaying. Implements `documentation/sampling.md`,
//! "Order of the seeds".

use super::config::{SamplerConfig, Split};
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

/// The order in which seeds are sampled.
#[derive(Clone, Debug)]
pub struct SeedOrder {
    tasks: Vec<(TaskId, Vec<u32>)>,
    len: u64,
    is_shuffled: bool,
    rng_seed: u64,
}

impl SeedOrder {
    /// The seeds of the tasks and the split of `config`, or the caller's own.
    ///
    /// # Errors
    /// [`Error::Argument`] when a task does not exist or the split has no seeds.
    pub fn new(database: &Database, config: &SamplerConfig) -> Result<Self> {
        let manifest = database.manifest();
        let mut tasks = vec![];
        for name in &config.tasks {
            let task = manifest.task(name).ok_or_else(|| {
                let near = suggestion(name, manifest.tasks.iter().map(|task| task.name.as_str()));
                Error::Argument(format!("unknown task `{name}`{near}"))
            })?;
            let splits = database.task(task.id).splits;
            let seeds: Vec<u32> = match &config.seeds {
                Some(questions) => (0..questions.len() as u32).collect(),
                None => (0..task.num_seeds).filter(|&idx| config.split.takes(splits[idx as usize])).collect(),
            };
            tasks.push((task.id, seeds));
        }
        let len = tasks.iter().map(|(_, seeds)| seeds.len() as u64).sum();
        if len == 0 {
            let split = if config.split == Split::All { String::new() } else { format!("{} ", config.split.name()) };
            return Err(Error::Argument(format!("no {split}seeds in: {}", config.tasks.join(", "))));
        }
        Ok(Self { tasks, len, is_shuffled: config.shuffle, rng_seed: config.rng_seed })
    }

    /// Seeds per epoch.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The permutation of an epoch.
    fn permutation(&self, epoch: u64) -> Permutation {
        Permutation::new(self.len, hash(Domain::Order, &[self.rng_seed, epoch]))
    }

    /// The seeds at `count` positions from `first` on; `None` behind the end of a fixed order.
    pub fn seeds(&self, first: u64, count: u64) -> impl Iterator<Item = Option<Seed>> + '_ {
        let mut current: Option<(u64, Permutation)> = None;
        (first..first.saturating_add(count)).map(move |position| {
            if !self.is_shuffled {
                return (position < self.len).then(|| self.nth(position, 0));
            }
            let (epoch, idx) = (position / self.len, position % self.len);
            let permutation = match &current {
                Some((of, permutation)) if *of == epoch => permutation,
                _ => &current.insert((epoch, self.permutation(epoch))).1,
            };
            Some(self.nth(permutation.apply(idx), epoch))
        })
    }

    fn nth(&self, mut idx: u64, epoch: u64) -> Seed {
        for (task, seeds) in &self.tasks {
            match seeds.get(idx as usize) {
                Some(&index) => return Seed { task: *task, index, epoch },
                None => idx -= seeds.len() as u64,
            }
        }
        unreachable!("positions stay below the number of seeds")
    }
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
        let tasks = vec![(TaskId(3), vec![0, 2, 4]), (TaskId(1), vec![]), (TaskId(0), vec![1, 5])];
        SeedOrder { tasks, len: 5, is_shuffled, rng_seed: 9 }
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
}
