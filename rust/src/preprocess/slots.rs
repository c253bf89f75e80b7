//! Numbers by the hash of what they stand for: 8 bytes a slot, so that a look-up touches one cache line.
//!
//! The table knows neither keys nor texts. A slot holds 32 bits of the hash beside the number, and whoever asks says
//! whether that number is the one: equal hashes never decide.

use super::memory::{Buffer, Memory};
use crate::error::Result;
use crate::format::prefetch_read;

/// Tables that grow one by one, so that only a fraction of all is in memory twice at a time.
const SHARD_BITS: u32 = 6;
/// Slots of a new shard.
const FEWEST: usize = 32;

/// Open addressing with linear probing.
#[derive(Debug)]
pub(super) struct Slots {
    memory: Memory,
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    /// 0 where empty, else 32 bits of the hash above the number plus one.
    slots: Buffer<u64>,
    len: usize,
}

fn split(hash: u64) -> (usize, u32) {
    ((hash >> (64 - SHARD_BITS)) as usize, (hash >> (32 - SHARD_BITS)) as u32)
}

fn number(slot: u64) -> u32 {
    slot as u32 - 1
}

impl Shard {
    fn new(memory: &Memory, slots: usize) -> Result<Self> {
        Ok(Self { slots: memory.zeros(slots)?, len: 0 })
    }

    /// The slot where the search for a hash begins; hashes keep their order, so that growing is one sweep.
    #[inline]
    fn start(slots: &[u64], hash: u32) -> usize {
        ((u64::from(hash) * slots.len() as u64) >> 32) as usize
    }

    /// The first number of this hash that `is_same` accepts, or the empty slot where it belongs.
    #[inline]
    fn search(slots: &[u64], hash: u32, mut is_same: impl FnMut(u32) -> bool) -> Result<u32, usize> {
        let mut position = Self::start(slots, hash);
        loop {
            let slot = slots[position];
            if slot == 0 {
                return Err(position);
            }
            if (slot >> 32) as u32 == hash && is_same(number(slot)) {
                return Ok(number(slot));
            }
            position = if position + 1 == slots.len() { 0 } else { position + 1 };
        }
    }

    fn grow(&mut self, memory: &Memory) -> Result<()> {
        let mut larger = memory.zeros::<u64>(self.slots.len() + self.slots.len() / 2)?;
        let slots: &mut [u64] = &mut larger;
        for &slot in self.slots.iter().filter(|&&slot| slot != 0) {
            if let Err(position) = Self::search(slots, (slot >> 32) as u32, |_| false) {
                slots[position] = slot;
            }
        }
        self.slots = larger;
        Ok(())
    }
}

impl Slots {
    /// An empty table that takes `numbers` of them before it grows.
    pub(super) fn new(memory: &Memory, numbers: usize) -> Result<Self> {
        let slots = ((numbers >> SHARD_BITS) * 3 / 2).max(FEWEST);
        let shards = (0..1 << SHARD_BITS).map(|_| Shard::new(memory, slots)).collect::<Result<_>>()?;
        Ok(Self { memory: memory.clone(), shards })
    }

    /// The number of this hash that `is_same` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_same: impl FnMut(u32) -> bool) -> Option<u32> {
        let (shard, hash) = split(hash);
        Shard::search(&self.shards[shard].slots, hash, is_same).ok()
    }

    /// The number that is there already, or `None` where `new` was taken in.
    ///
    /// # Errors
    /// When the table cannot grow.
    #[inline]
    pub(super) fn find_or_insert(
        &mut self,
        hash: u64,
        new: u32,
        is_same: impl FnMut(u32) -> bool,
    ) -> Result<Option<u32>> {
        let (shard, hash) = split(hash);
        let shard = &mut self.shards[shard];
        match Shard::search(&shard.slots, hash, is_same) {
            Ok(known) => Ok(Some(known)),
            Err(position) => {
                shard.slots[position] = u64::from(hash) << 32 | u64::from(new + 1);
                shard.len += 1;
                if shard.len * 4 > shard.slots.len() * 3 {
                    shard.grow(&self.memory)?;
                }
                Ok(None)
            }
        }
    }

    /// Asks the processor for the slots where a search begins.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        let (shard, hash) = split(hash);
        let slots: &[u64] = &self.shards[shard].slots;
        prefetch_read(slots, Shard::start(slots, hash));
    }

    /// The number a search will probably look at.
    #[inline]
    pub(super) fn guess(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// See [`Buffer::release_pages`].
    pub(super) fn release_pages(&self) {
        self.shards.iter().for_each(|shard| shard.slots.release_pages());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equal_hashes_do_not_decide(
            hashes in prop::collection::vec(prop_oneof![0u64..3, any::<u64>(), (u64::MAX - 2)..=u64::MAX], 0..900),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut slots = Slots::new(&Memory::new(folder.path(), Some(0)), 0).unwrap();
            for (new, &hash) in hashes.iter().enumerate() {
                prop_assert_eq!(slots.find_or_insert(hash, new as u32, |_| false).unwrap(), None);
            }
            for (known, &hash) in hashes.iter().enumerate() {
                let known = known as u32;
                prop_assert_eq!(slots.find(hash, |number| number == known), Some(known));
                prop_assert_eq!(slots.find_or_insert(hash, 7, |number| number == known).unwrap(), Some(known));
                prop_assert!(slots.find(hash, |_| false).is_none());
            }
        }
    }
}
