//! Distinct texts: per batch of one column first, then in one vocabulary over the whole database.
//!
//! A batch numbers its texts in order of first occurrence, in parallel with other columns; the vocabulary takes them
//! in batch by batch, column by column, so that ids depend on the data alone.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

/// The id of a cell without a text.
pub(super) const NO_TEXT: u32 = u32::MAX;

/// The distinct texts of one batch of one column.
#[derive(Debug, Default)]
pub(super) struct BatchTexts {
    /// Per row, the position of its text, or [`NO_TEXT`].
    pub(super) ids: Vec<u32>,
    prefix: String,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    hashes: Vec<u64>,
    known: HashTable<(u64, u32)>,
}

impl BatchTexts {
    /// No texts yet; each is preceded by `prefix` (`<column> is ` for categories).
    pub(super) fn new(prefix: String, rows: usize) -> Self {
        Self { ids: Vec::with_capacity(rows), prefix, ..Self::default() }
    }

    /// The number of a value, which is new or was seen in this batch.
    pub(super) fn intern(&mut self, value: &[u8]) -> u32 {
        let hash = xxh3_64(value);
        let (bytes, ends, skip) = (&self.bytes, &self.ends, self.prefix.len());
        let is_same = |&(known, id): &(u64, u32)| {
            let start = if id == 0 { 0 } else { ends[id as usize - 1] };
            known == hash && bytes[start + skip..ends[id as usize]] == *value
        };
        match self.known.entry(hash, is_same, |&(known, _)| known) {
            Entry::Occupied(entry) => entry.get().1,
            Entry::Vacant(entry) => {
                let id = self.ends.len() as u32;
                entry.insert((hash, id));
                self.bytes.extend_from_slice(self.prefix.as_bytes());
                self.bytes.extend_from_slice(value);
                self.ends.push(self.bytes.len());
                id
            }
        }
    }

    /// Forgets what was only needed while rows came in; hashes the texts for the vocabulary.
    pub(super) fn seal(&mut self) {
        self.known = HashTable::new();
        self.hashes = (0..self.ends.len()).map(|id| xxh3_64(self.text(id))).collect();
    }

    fn text(&self, id: usize) -> &[u8] {
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..self.ends[id]]
    }
}

/// Every distinct text of the database in order of first occurrence.
#[derive(Debug)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// `[texts + 1]`, starting with 0.
    ends: Vec<u64>,
    known: HashTable<Known>,
}

/// A text in the table: half of its hash, which spares most look-ups of bytes and all when the table grows.
#[derive(Clone, Copy, Debug)]
struct Known {
    hash: u32,
    id: u32,
}

/// Spreads 32 bits of a hash over the 64 that the table uses.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Vocabulary {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), ends: vec![0], known: HashTable::new() }
    }

    /// Number of texts.
    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// `[texts + 1]` ends of the texts in [`Vocabulary::bytes`], starting with 0.
    pub(super) fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// The texts, one after the other.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The vocabulary ids of a sealed batch's texts, by their position there.
    ///
    /// # Errors
    /// [`Error::Schema`] when there are more texts than ids.
    pub(super) fn adopt(&mut self, batch: &BatchTexts) -> Result<Vec<u32>> {
        batch.hashes.iter().enumerate().map(|(id, &hash)| self.intern(batch.text(id), hash)).collect()
    }

    fn intern(&mut self, text: &[u8], hash: u64) -> Result<u32> {
        let (bytes, ends) = (&self.bytes, &self.ends);
        let hash = (hash >> 32) as u32;
        let is_same = |known: &Known| {
            let id = known.id as usize;
            known.hash == hash && bytes[ends[id] as usize..ends[id + 1] as usize] == *text
        };
        match self.known.entry(spread(hash), is_same, |known| spread(known.hash)) {
            Entry::Occupied(entry) => Ok(entry.get().id),
            Entry::Vacant(entry) => {
                let id = u32::try_from(self.ends.len() - 1).ok().filter(|&id| id < NO_TEXT - 1).ok_or_else(|| {
                    let remedy = "set the stype of text columns nobody needs to ignored";
                    Error::schema("vocabulary", format!("more than {} distinct texts; {remedy}", NO_TEXT - 1))
                })?;
                entry.insert(Known { hash, id });
                self.bytes.extend_from_slice(text);
                self.ends.push(self.bytes.len() as u64);
                Ok(id)
            }
        }
    }
}

/// The vocabulary ids a column takes.
#[derive(Debug, Default)]
pub(super) struct Categories {
    ids: Vec<u32>,
    sorted: usize,
}

impl Categories {
    /// Adds ids, known or new.
    pub(super) fn extend(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        if self.ids.len() > 2 * self.sorted + (1 << 16) {
            self.compact();
        }
    }

    fn compact(&mut self) {
        self.ids.sort_unstable();
        self.ids.dedup();
        self.sorted = self.ids.len();
    }

    /// Number of distinct ids, once [`Categories::sorted`] has run.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The distinct ids, ascending.
    pub(super) fn sorted(&mut self) -> &[u32] {
        self.compact();
        &self.ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_follow_first_occurrence(batches in prop::collection::vec(prop::collection::vec("[ab\0]{0,2}", 0..9), 0..9)) {
            let (mut vocabulary, mut naive) = (Vocabulary::new(), Vec::<String>::new());
            for batch in &batches {
                let mut texts = BatchTexts::new("c is ".into(), batch.len());
                let local: Vec<u32> = batch.iter().map(|value| texts.intern(value.as_bytes())).collect();
                texts.seal();
                let ids = vocabulary.adopt(&texts).unwrap();
                for (value, id) in batch.iter().zip(local) {
                    let text = format!("c is {value}");
                    let expected = naive.iter().position(|known| *known == text).unwrap_or_else(|| {
                        naive.push(text.clone());
                        naive.len() - 1
                    });
                    prop_assert_eq!(ids[id as usize] as usize, expected);
                }
            }
            prop_assert_eq!(vocabulary.len(), naive.len());
            prop_assert!(vocabulary.bytes() == naive.concat().as_bytes());
        }
    }

    #[test]
    fn categories_are_distinct_and_ascending() {
        let mut categories = Categories::default();
        for _ in 0..3 {
            categories.extend(&(0..50_000).rev().collect::<Vec<u32>>());
        }
        assert_eq!(categories.sorted(), (0..50_000).collect::<Vec<u32>>());
    }
}
