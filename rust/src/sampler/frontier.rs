//! The order in which rows are visited: parents before children, children breadth-first, every row once.
//!
//! Knows rows as (table, row) pairs and lists of children as ranges; what they hold is the business of `context`.
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

/// Positions of a list, drawn uniformly without replacement: a Fisher-Yates shuffle that stores only moved entries.
#[derive(Clone, Debug)]
pub struct Draws {
    len: u32,
    drawn: u32,
    moved: StampedMap,
}

impl Draws {
    /// Nothing to draw.
    pub fn new() -> Self {
        Self { len: 0, drawn: 0, moved: StampedMap::with_capacity(64) }
    }

    /// Starts over with the positions `0..len`.
    pub fn start(&mut self, len: u32) {
        self.len = len;
        self.drawn = 0;
        self.moved.clear();
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

/// A list of children, waiting for its turn.
#[derive(Clone, Copy, Debug)]
pub struct ChildList {
    /// The foreign key.
    pub key: u32,
    /// The table of the children.
    pub table: u32,
    /// Local number of the parent.
    pub from: u32,
    /// Links from the seed's row to the children.
    pub hop: u32,
    /// Where the list starts.
    pub start: u32,
    /// Its length, invisible children included.
    pub len: u32,
    /// How many are visible, as far as it is known.
    pub search: Search,
}

/// A binary search for the end of the visible entries of a list, one probe at a time, so that the memory of a probe can
/// be on its way while something else is done.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Entries before this are visible.
    low: u32,
    /// Entries from this on are not.
    high: u32,
    probe: u32,
    is_awaited: bool,
}

impl Search {
    /// A search in a list; the first probe is its last entry, which is the newest.
    #[inline]
    pub const fn new(len: u32) -> Self {
        Self { low: 0, high: len, probe: len.saturating_sub(1), is_awaited: false }
    }

    /// The entry to look at next; `None` when the end is known.
    #[inline]
    pub fn probe(&self) -> Option<u32> {
        (self.low < self.high).then_some(self.probe)
    }

    /// Whether the memory of the probe is on its way.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// The entry whose memory is to be sent for.
    #[inline]
    pub fn send(&mut self) -> Option<u32> {
        self.is_awaited = true;
        self.probe()
    }

    /// Says whether the entry at the probe is visible.
    #[inline]
    pub fn answer(&mut self, is_visible: bool) {
        if is_visible {
            self.low = self.probe + 1;
        } else {
            self.high = self.probe;
        }
        self.probe = u32::midpoint(self.low, self.high);
    }

    /// The number of visible entries, once it is known.
    #[inline]
    pub fn end(&self) -> u32 {
        self.low
    }
}

/// Rows to visit, in the order of their visits, and lists of children, in the order of their turns.
///
/// A row gets its number when it is found. Since every row found as a parent is visited before the next child is
/// drawn, these numbers are the order of the visits.
#[derive(Clone, Debug)]
pub struct Frontier {
    rows: Vec<Visit>,
    numbers: StampedMap,
    lists: Vec<ChildList>,
    next_list: usize,
}

impl Frontier {
    /// An empty frontier with room for contexts of `rows` rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            rows: Vec::with_capacity(2 * rows),
            numbers: StampedMap::with_capacity(2 * rows),
            lists: Vec::with_capacity(4 * rows),
            next_list: 0,
        }
    }

    /// Starts over.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.numbers.clear();
        self.lists.clear();
        self.next_list = 0;
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

    /// Appends a list of children.
    #[inline]
    pub fn wait(&mut self, list: ChildList) {
        self.lists.push(list);
    }

    /// A list further down the queue, to be got ready for its turn.
    #[inline]
    pub fn later_list(&mut self, ahead: usize) -> Option<&mut ChildList> {
        self.lists.get_mut(self.next_list + ahead)
    }

    /// Puts other lists in the place of these.
    pub fn exchange_lists(&mut self, lists: &mut Vec<ChildList>, next_list: &mut usize) {
        std::mem::swap(&mut self.lists, lists);
        std::mem::swap(&mut self.next_list, next_list);
    }

    /// Forgets every list.
    pub fn clear_lists(&mut self) {
        self.lists.clear();
        self.next_list = 0;
    }

    /// Takes the list whose turn it is.
    #[inline]
    pub fn next_list(&mut self) -> Option<ChildList> {
        let list = self.lists.get(self.next_list).copied();
        self.next_list += usize::from(list.is_some());
        list
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
        fn draws_never_repeat_and_end_complete(len in 0u32..300, seed in any::<u64>()) {
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
    fn every_search_finds_the_end() {
        for len in 0..70 {
            for end in 0..=len {
                let mut search = Search::new(len);
                let mut probes = 0;
                while let Some(probe) = search.probe() {
                    search.answer(probe < end);
                    probes += 1;
                }
                assert_eq!(search.end(), end);
                assert!(probes <= 8, "{len} {end}: {probes}");
            }
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
