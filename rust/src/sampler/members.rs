//! Which rows of a table, or seeds of a task, are sampled: numbered without gaps, in as little memory as they need.

use std::ops::Range;

use super::config::{SamplerConfig, Split};
use super::temporal::END_OF_TIME;
use crate::database::Database;
use crate::error::Result;
use crate::format::record::{ALWAYS_VISIBLE, NEVER_VISIBLE};
use crate::ids::RowId;
use crate::manifest::TableManifest;
use crate::splits::{hashed_split, key_text};

const WORD: usize = 64;
/// Words between two counts.
const STRIDE: usize = 8;

/// Members of a set of rows, in order.
#[derive(Clone, Debug)]
pub enum Members {
    /// Those of a range.
    Range(Range<u32>),
    /// Those of a list.
    List(Vec<u32>),
    /// Those with a set bit.
    Bits(Bits),
}

impl Members {
    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // asked for by nobody
    pub fn len(&self) -> u64 {
        match self {
            Self::Range(range) => range.len() as u64,
            Self::List(rows) => rows.len() as u64,
            Self::Bits(bits) => u64::from(bits.len),
        }
    }

    /// The `nth` one.
    pub fn get(&self, nth: u64) -> u32 {
        match self {
            Self::Range(range) => range.start + nth as u32,
            Self::List(rows) => rows[nth as usize],
            Self::Bits(bits) => bits.get(nth as u32),
        }
    }

    /// Those of `0..len` for which something holds; in the order of time, the seeds of a split are often a range.
    pub fn of(len: u32, is_member: impl Fn(u32) -> bool) -> Self {
        let start = (0..len).find(|&row| is_member(row)).unwrap_or(len);
        let end = (start..len).find(|&row| !is_member(row)).unwrap_or(len);
        if (end..len).any(&is_member) {
            Self::List((start..len).filter(|&row| is_member(row)).collect())
        } else {
            Self::Range(start..end)
        }
    }

    /// The rows of a table that are seeds: those of the split that have a time, none after the cut-off.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when the table's keys are damaged.
    pub fn of_table(database: &Database, table: &TableManifest, config: &SamplerConfig) -> Result<Self> {
        let rows = database.table(table.id);
        let keys = database.table_file(table.id).keys(table.key_kind, table.num_rows as usize)?;
        let mut bits = Bits::default();
        for row in 0..table.num_rows {
            let time = rows.record(RowId(row)).time();
            let is_late = time != ALWAYS_VISIBLE && config.database_cutoff.is_some_and(|cutoff| time > cutoff);
            let mut is_member = time != NEVER_VISIBLE && !is_late;
            if is_member && config.split != Split::All {
                let key = match &keys {
                    Some(keys) => key_text(&keys.key(row as usize)?),
                    None => row.to_string(),
                };
                is_member = config.split.takes(hashed_split(&table.name, &key));
            }
            bits.push(is_member);
        }
        Ok(if bits.len == table.num_rows { Self::Range(0..table.num_rows) } else { Self::Bits(bits) })
    }
}

/// The time of a seed that is a row of this time.
pub const fn own_time(row_time: i64) -> i64 {
    if row_time == ALWAYS_VISIBLE { END_OF_TIME } else { row_time }
}

/// A set of numbers, one bit each, and every [`STRIDE`] words the count of those before.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    words: Vec<u64>,
    before: Vec<u32>,
    pushed: usize,
    len: u32,
}

impl Bits {
    fn push(&mut self, is_member: bool) {
        if self.pushed.is_multiple_of(WORD * STRIDE) {
            self.before.push(self.len);
        }
        if self.pushed.is_multiple_of(WORD) {
            self.words.push(0);
        }
        let word = self.pushed / WORD;
        self.words[word] |= u64::from(is_member) << (self.pushed % WORD);
        self.len += u32::from(is_member);
        self.pushed += 1;
    }

    /// The `nth` member.
    fn get(&self, nth: u32) -> u32 {
        let block = self.before.partition_point(|&before| before <= nth) - 1;
        let mut left = nth - self.before[block];
        let mut at = block * STRIDE;
        while self.words[at].count_ones() <= left {
            left -= self.words[at].count_ones();
            at += 1;
        }
        let mut word = self.words[at];
        for _ in 0..left {
            word &= word - 1;
        }
        (at * WORD) as u32 + word.trailing_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::rng::Rng;

    #[test]
    fn every_member_is_found_by_its_number() {
        let mut rng = Rng::new(4);
        for (len, one_in) in [(1, 1), (64, 1), (65, 2), (3000, 1), (3000, 3), (5000, 700), (40_000, 9000)] {
            let mut bits = Bits::default();
            let mut expected = vec![];
            for row in 0..len {
                let is_member = rng.below(one_in) == 0;
                bits.push(is_member);
                if is_member {
                    expected.push(row);
                }
            }
            let listed = Members::of(len, |row| expected.binary_search(&row).is_ok());
            for members in [Members::Bits(bits), listed] {
                assert_eq!(members.len(), expected.len() as u64);
                assert!((0..members.len()).map(|nth| members.get(nth)).eq(expected.iter().copied()));
            }
        }
    }

    #[test]
    fn members_side_by_side_are_a_range() {
        for (start, end) in [(0, 0), (0, 9), (3, 9), (0, 4), (2, 5)] {
            assert!(
                matches!(Members::of(9, |row| (start..end).contains(&row)), Members::Range(range) if range.len() == (end - start) as usize)
            );
        }
        assert!(matches!(Members::of(9, |row| row % 2 == 0), Members::List(rows) if rows == [0, 2, 4, 6, 8]));
    }
}
