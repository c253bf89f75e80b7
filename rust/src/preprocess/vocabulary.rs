//! Distinct texts: per batch of one column first, then in one vocabulary over the whole database.
//!
//! A batch numbers its texts in order of first occurrence, in parallel with other columns; the vocabulary takes them
//! in batch by batch, column by column, so that ids depend on the data alone.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use super::memory::{Memory, Segmented};
use super::slots::Slots;
use crate::error::{Error, Result};
use crate::format::{FileWriter, TextWriter};

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
    /// Of the values, and of the texts once sealed.
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
                self.hashes.push(hash);
                id
            }
        }
    }

    /// Forgets what was only needed while rows came in; hashes the texts for the vocabulary.
    pub(super) fn seal(&mut self) {
        self.known = HashTable::new();
        if !self.prefix.is_empty() {
            self.hashes = (0..self.ends.len()).map(|id| xxh3_64(self.text(id))).collect();
        }
    }

    /// The text of a position.
    pub(super) fn text(&self, id: usize) -> &[u8] {
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..self.ends[id]]
    }
}

/// Every distinct text of the database in order of first occurrence.
#[derive(Debug)]
pub(super) struct Vocabulary {
    bytes: Segmented<u8>,
    /// `[texts + 1]`, starting with 0.
    ends: Segmented<u64>,
    known: Slots,
}

/// Texts whose places in memory are asked for together, before the first of them is looked up.
const LOOK_AHEAD: usize = 32;

impl Vocabulary {
    pub(super) fn new(memory: &Memory) -> Result<Self> {
        let mut ends = Segmented::new(memory);
        ends.extend(&[0])?;
        Ok(Self { bytes: Segmented::new(memory), ends, known: Slots::new(memory, 0)? })
    }

    /// Number of texts.
    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Puts the bytes of a text in the place of what `bytes` holds.
    ///
    /// # Panics
    /// If there is no such text.
    pub(super) fn copy(&self, id: usize, bytes: &mut Vec<u8>) {
        self.bytes.copy(self.ends.at(id) as usize..self.ends.at(id + 1) as usize, bytes);
    }

    /// Writes the texts.
    pub(super) fn write(&self, writer: &mut FileWriter) -> Result<()> {
        let mut texts = TextWriter::new(writer)?;
        let mut text = Vec::new();
        for id in 0..self.len() {
            self.copy(id, &mut text);
            texts.push(&text)?;
        }
        texts.finish()
    }

    /// The vocabulary ids of a sealed batch's texts, by their position there.
    ///
    /// # Errors
    /// [`Error::Schema`] when there are more texts than ids; [`Error::Io`] when there is no room for them.
    pub(super) fn adopt(&mut self, batch: &BatchTexts) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(batch.hashes.len());
        for (group, hashes) in batch.hashes.chunks(LOOK_AHEAD).enumerate() {
            self.ask_for(hashes);
            for (offset, &hash) in hashes.iter().enumerate() {
                ids.push(self.intern(batch.text(group * LOOK_AHEAD + offset), hash)?);
            }
        }
        Ok(ids)
    }

    /// Brings closer what looking up these hashes will touch: the slots, the ends and the bytes, one after the other.
    fn ask_for(&self, hashes: &[u64]) {
        for &hash in hashes {
            self.known.prefetch(hash);
        }
        let mut guesses = [None; LOOK_AHEAD];
        for (guess, &hash) in guesses.iter_mut().zip(hashes) {
            *guess = self.known.guess(hash);
            if let Some(id) = *guess {
                self.ends.prefetch(id as usize);
            }
        }
        for id in guesses.into_iter().flatten() {
            self.bytes.prefetch(self.ends.at(id as usize) as usize);
        }
    }

    fn intern(&mut self, text: &[u8], hash: u64) -> Result<u32> {
        let (bytes, ends) = (&self.bytes, &self.ends);
        let is_same = |id: u32| {
            let start = ends.at(id as usize);
            ends.at(id as usize + 1) - start == text.len() as u64 && bytes.is_at(start as usize, text)
        };
        let new = u32::try_from(self.ends.len() - 1).ok().filter(|&id| id < NO_TEXT - 1).ok_or_else(|| {
            let remedy = "set the stype of text columns nobody needs to ignored";
            Error::schema("vocabulary", format!("more than {} distinct texts; {remedy}", NO_TEXT - 1))
        })?;
        if let Some(known) = self.known.find_or_insert(hash, new, is_same)? {
            return Ok(known);
        }
        self.bytes.extend(text)?;
        self.ends.extend(&[self.bytes.len() as u64])?;
        Ok(new)
    }

    /// Hands the memory of scratch files back to the system.
    pub(super) fn release_pages(&self) {
        self.bytes.release_pages();
        self.ends.release_pages();
        self.known.release_pages();
    }
}

/// The vocabulary ids a column takes.
///
/// A few are listed; once a bit for every text of the vocabulary is less than the list, they are bits.
#[derive(Debug, Default)]
pub(super) struct Categories {
    listed: Vec<u32>,
    sorted: usize,
    bits: Vec<u64>,
}

/// Ids that are listed before they are sorted for the first time.
const UNSORTED: usize = 1 << 16;

impl Categories {
    /// Adds ids, known or new.
    pub(super) fn extend(&mut self, ids: &[u32]) {
        if !self.bits.is_empty() {
            self.set(ids);
            return;
        }
        self.listed.extend_from_slice(ids);
        if self.listed.len() > 2 * self.sorted + UNSORTED {
            self.compact();
            let bits = self.listed.last().map_or(0, |&last| last as usize + 1);
            if self.sorted * 32 > bits {
                let listed = std::mem::take(&mut self.listed);
                self.set(&listed);
            }
        }
    }

    fn set(&mut self, ids: &[u32]) {
        let words = ids.iter().max().map_or(0, |&last| last as usize / 64 + 1);
        self.bits.resize(self.bits.len().max(words), 0);
        for &id in ids {
            self.bits[id as usize / 64] |= 1 << (id % 64);
        }
    }

    fn compact(&mut self) {
        self.listed.sort_unstable();
        self.listed.dedup();
        self.sorted = self.listed.len();
    }

    /// Number of distinct ids, once [`Categories::ascending`] has run.
    pub(super) fn len(&self) -> usize {
        self.listed.len() + self.bits.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    }

    /// The distinct ids, ascending.
    pub(super) fn ascending(&mut self) -> impl Iterator<Item = u32> {
        self.compact();
        let bits = self.bits.iter().enumerate().flat_map(|(word, &bits)| {
            let rest = std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)));
            let rest = rest.take_while(|&bits| bits != 0);
            rest.map(move |bits| word as u32 * 64 + bits.trailing_zeros())
        });
        self.listed.iter().copied().chain(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_follow_first_occurrence(batches in prop::collection::vec(prop::collection::vec("[ab\0]{0,2}", 0..9), 0..9)) {
            let folder = tempfile::tempdir().unwrap();
            let memory = Memory::new(folder.path(), Some(0));
            let (mut vocabulary, mut naive) = (Vocabulary::new(&memory).unwrap(), Vec::<String>::new());
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
            let mut text = Vec::new();
            for (id, expected) in naive.iter().enumerate() {
                vocabulary.copy(id, &mut text);
                prop_assert_eq!(&text, expected.as_bytes());
            }
        }
    }

    #[test]
    fn categories_are_distinct_and_ascending() {
        for step in [1, 1000] {
            let mut categories = Categories::default();
            let ids: Vec<u32> = (0..50_000).map(|id| 7 + id * step).collect();
            for batch in [&ids[..30_000], &ids[20_000..], &ids, &ids, &ids[..10]] {
                categories.extend(&batch.iter().rev().copied().collect::<Vec<u32>>());
            }
            assert_eq!(categories.ascending().collect::<Vec<u32>>(), ids);
            assert_eq!((categories.bits.is_empty(), categories.len()), (step == 1000, ids.len()));
        }
    }
}
