//! The order in which rows are visited: parents before children, children breadth-first, every row once.
//!
//! Knows rows as (table, row) pairs; what they hold is the business of `context`.
//! Implements `documentation/sampling.md`, "The walk".

use super::rng::Rng;

/// A map from 64-bit keys to 32-bit values that is emptied by counting up a stamp, not by touching its memory.
#[derive(Clone, Debug)]
pub struct StampedMap {
    slots: Vec<Slot>,
    stamp: u32,
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    stamp: u32,
    value: u32,
}

/// A place in a [`StampedMap`] for a key that is not there.
#[derive(Clone, Copy, Debug)]
pub struct Vacant(usize);

impl StampedMap {
    /// An empty map with room for `capacity` keys before it grows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { slots: vec![Slot::default(); (2 * capacity.max(8)).next_power_of_two()], stamp: 1, len: 0 }
    }

    /// Forgets every key.
    pub fn clear(&mut self) {
        self.len = 0;
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.slots.fill(Slot::default());
            self.stamp = 1;
        }
    }

    /// The place of a key: where it is, or where it would be.
    #[inline]
    fn locate(&self, key: u64) -> (usize, bool) {
        let mask = self.slots.len() - 1;
        let shift = 64 - self.slots.len().trailing_zeros();
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize;
        loop {
            let slot = &self.slots[at & mask];
            if slot.stamp != self.stamp {
                return (at & mask, false);
            }
            if slot.key == key {
                return (at & mask, true);
            }
            at += 1;
        }
    }

    /// The value of a key, or the place for it.
    #[inline]
    pub fn find(&self, key: u64) -> Result<u32, Vacant> {
        let (at, is_there) = self.locate(key);
        if is_there { Ok(self.slots[at].value) } else { Err(Vacant(at)) }
    }

    /// Sets the value of a key.
    #[inline]
    pub fn set(&mut self, key: u64, value: u32) {
        let (at, is_there) = self.locate(key);
        if is_there {
            self.slots[at].value = value;
        } else {
            self.fill(Vacant(at), key, value);
        }
    }

    /// Puts a key into the place [`Self::find`] answered for it, with no change in between.
    #[inline]
    pub fn fill(&mut self, vacant: Vacant, key: u64, value: u32) {
        self.slots[vacant.0] = Slot { key, stamp: self.stamp, value };
        self.len += 1;
        if 2 * self.len > self.slots.len() {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Self::with_capacity(self.slots.len());
        for slot in self.slots.iter().filter(|slot| slot.stamp == self.stamp) {
            larger.set(slot.key, slot.value);
        }
        *self = larger;
    }
}

/// Lists up to this length are shuffled in an array.
const SHORT: u32 = 1024;

/// Positions of a list, drawn uniformly without replacement: a Fisher-Yates shuffle, of long lists one that stores only
/// moved entries.
#[derive(Clone, Debug)]
pub struct Draws {
    len: u32,
    drawn: u32,
    order: Vec<u32>,
    moved: StampedMap,
}

impl Draws {
    /// Nothing to draw.
    pub fn new() -> Self {
        Self { len: 0, drawn: 0, order: Vec::with_capacity(SHORT as usize), moved: StampedMap::with_capacity(64) }
    }

    /// Starts over with the positions `0..len`.
    pub fn start(&mut self, len: u32) {
        self.len = len;
        self.drawn = 0;
        self.order.clear();
        if len <= SHORT {
            self.order.extend(0..len);
        } else {
            self.moved.clear();
        }
    }

    /// Positions not drawn yet.
    #[inline]
    pub fn remaining(&self) -> u32 {
        self.len - self.drawn
    }

    /// The next position, uniformly among the remaining ones, of which there must be one.
    #[inline]
    pub fn uniform(&mut self, rng: &mut Rng) -> u32 {
        let first = self.drawn;
        let picked = first + rng.below(self.len - first);
        self.drawn += 1;
        if self.len <= SHORT {
            self.order.swap(first as usize, picked as usize);
            return self.order[first as usize];
        }
        let standing = |moved: &StampedMap, place: u32| moved.find(u64::from(place)).unwrap_or(place);
        let position = standing(&self.moved, picked);
        if picked != first {
            let replacement = standing(&self.moved, first);
            self.moved.set(u64::from(picked), replacement);
        }
        position
    }

    /// The last position not drawn yet, of which there must be one.
    #[inline]
    pub fn newest(&mut self) -> u32 {
        self.drawn += 1;
        self.len - self.drawn
    }
}

/// How a row was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It is where the walk starts.
    Seed,
    /// It is a parent by this foreign key.
    Parent(u32),
    /// It is a child by this foreign key; those of a task's own table are its history.
    Child(u32),
    /// It is an example of another entity; no link leads to it.
    Example,
}

/// A row on the list of rows to visit.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// Its table.
    pub table: u32,
    /// Its row.
    pub row: u32,
    /// Links from the seed's row.
    pub hop: u32,
    /// Local number of the row it was reached from.
    pub from: u32,
    /// The link it was reached by.
    pub via: Via,
}

/// Rows to visit, in the order of their visits.
///
/// A row gets its number when it is found. Since every row found as a parent is visited before the next child is
/// drawn, these numbers are the order of the visits.
#[derive(Clone, Debug)]
pub struct Frontier {
    rows: Vec<Visit>,
    numbers: StampedMap,
}

impl Frontier {
    /// An empty frontier with room for contexts of `rows` rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self { rows: Vec::with_capacity(2 * rows), numbers: StampedMap::with_capacity(2 * rows) }
    }

    /// Starts over.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.numbers.clear();
    }

    /// The rows found, in the order of their numbers.
    pub fn rows(&self) -> &[Visit] {
        &self.rows
    }

    /// The number of a row, or the place for it.
    #[inline]
    pub fn number(&self, table: u32, row: u32) -> Result<u32, Vacant> {
        self.numbers.find(key_of(table, row))
    }

    /// Adds a row that [`Self::number`] did not find; answers its number.
    #[inline]
    pub fn add(&mut self, vacant: Vacant, visit: Visit) -> u32 {
        let number = self.rows.len() as u32;
        self.numbers.fill(vacant, key_of(visit.table, visit.row), number);
        self.rows.push(visit);
        number
    }
}

#[inline]
fn key_of(table: u32, row: u32) -> u64 {
    u64::from(table) << 32 | u64::from(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    use crate::sampler::rng::Rng;

    proptest! {
        #[test]
        fn the_stamped_map_is_a_map(rounds in prop::collection::vec(prop::collection::vec((0u64..200, 0u32..9), 0..150), 1..4)) {
            let mut map = StampedMap::with_capacity(8);
            for round in rounds {
                map.clear();
                let mut plain = HashMap::new();
                for (key, value) in round {
                    let key = key << 30 | key;
                    map.set(key, value);
                    plain.insert(key, value);
                }
                for key in (0..200).map(|key| key << 30 | key) {
                    prop_assert_eq!(map.find(key).ok(), plain.get(&key).copied());
                }
            }
        }

        #[test]
        fn draws_never_repeat_and_end_complete(len in prop_oneof![0u32..300, SHORT - 2..SHORT + 300], seed in any::<u64>()) {
            let (mut draws, mut rng) = (Draws::new(), Rng::new(seed));
            draws.start(len);
            let mut seen = vec![false; len as usize];
            while draws.remaining() > 0 {
                prop_assert!(!std::mem::replace(&mut seen[draws.uniform(&mut rng) as usize], true));
            }
            prop_assert!(seen.iter().all(|&seen| seen));
        }
    }

    #[test]
    fn a_wrapped_stamp_forgets_too() {
        let mut map = StampedMap::with_capacity(8);
        map.stamp = u32::MAX;
        map.set(3, 4);
        map.clear();
        assert!(map.find(3).is_err());
    }

    #[test]
    fn ordered_draws_are_uniform() {
        // 5 positions, 3 drawn: 60 ordered outcomes, 59 degrees of freedom, 0.1 % point 98.3
        let mut counts: HashMap<[u32; 3], u32> = HashMap::new();
        let (mut draws, mut rng) = (Draws::new(), Rng::new(1));
        for _ in 0..60_000 {
            draws.start(5);
            *counts.entry([draws.uniform(&mut rng), draws.uniform(&mut rng), draws.uniform(&mut rng)]).or_default() +=
                1;
        }
        assert_eq!(counts.len(), 60);
        let chi2: f64 = counts.values().map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 98.3, "{chi2}");
    }

    #[test]
    fn the_newest_come_from_the_end() {
        let mut draws = Draws::new();
        draws.start(3);
        assert_eq!([draws.newest(), draws.newest(), draws.newest()], [2, 1, 0]);
        assert_eq!(draws.remaining(), 0);
    }
}
