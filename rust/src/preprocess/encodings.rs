//! How the cells of each column are stored, decided by what all of them are: the narrowest form that costs readers
//! nothing.

use hashbrown::HashTable;

use super::stats::ZScore;
use super::summary::{Summary, hash_bits};
use crate::format::packed::{ExactDivisor, Grid, width_of};
use crate::format::record::{CellEncoding, Dictionary};
use crate::stype::Stype;

/// Distinct values a dictionary may have; larger ones would leave the caches of a reader.
const MOST_DISTINCT: usize = 1 << 14;
/// Bytes of a dictionary entry.
const ENTRY: usize = 4;
/// Bytes that a dictionary must save, over its own.
const WORTH: usize = 2;

/// The most distinct numbers with which a dictionary can pay in a table of some rows.
pub(super) fn most_distinct(num_rows: usize) -> usize {
    MOST_DISTINCT.min(num_rows.saturating_mul(ENTRY) / (WORTH * ENTRY))
}

/// Whether a dictionary of `distinct` values saves enough in a column whose cells else take `width` bytes.
fn pays(distinct: usize, width: u8, num_rows: usize) -> bool {
    let saved = usize::from(width.saturating_sub(width_of((distinct as u64).saturating_sub(1))));
    distinct <= MOST_DISTINCT && saved > 0 && num_rows.saturating_mul(saved) >= WORTH * ENTRY * distinct
}

/// Turns the values of one column into the numbers its records hold.
pub(super) enum Coder {
    /// Nothing is stored but whether there is a value.
    Nothing,
    /// One bit.
    Boolean,
    /// Z-scores.
    Numbers(ZScore),
    /// Numbers by their bits, as entries of a dictionary of z-scores.
    KnownNumbers(HashTable<(u64, u32)>),
    /// Moments, as distances from the first in units.
    Moments(i64, ExactDivisor),
    /// Vocabulary ids, as distances from the least.
    Ids(u32),
    /// Vocabulary ids, as entries of a dictionary in ascending order.
    KnownIds(Vec<u32>),
}

impl Coder {
    /// The number of a z-score.
    #[inline]
    pub(super) fn number(known: &HashTable<(u64, u32)>, value: f64) -> u64 {
        let bits = value.to_bits();
        known.find(hash_bits(bits), |&(known, _)| known == bits).map_or(0, |&(_, code)| u64::from(code))
    }

    /// The numbers of vocabulary ids, which are among those of the column.
    pub(super) fn ids(&self, ids: &[u32]) -> Vec<u64> {
        match self {
            Self::KnownIds(known) => ids.iter().map(|id| known.partition_point(|known| known < id) as u64).collect(),
            Self::Ids(base) => ids.iter().map(|id| u64::from(id - base)).collect(),
            _ => Vec::new(),
        }
    }
}

/// The encodings of the columns of one table, as they are decided column by column.
#[derive(Default)]
pub(super) struct Encodings {
    /// How each column is stored.
    pub(super) cells: Vec<CellEncoding>,
    /// How to turn values into what is stored.
    pub(super) coders: Vec<Coder>,
    /// The entries of all dictionaries.
    pub(super) values: Vec<u32>,
}

impl Encodings {
    fn push(&mut self, encoding: CellEncoding, coder: Coder) {
        self.cells.push(encoding);
        self.coders.push(coder);
    }

    /// A column that stores no more than whether there is a value.
    pub(super) fn nothing(&mut self, stype: Option<Stype>, nullable: bool) {
        let coder = if stype == Some(Stype::Boolean) { Coder::Boolean } else { Coder::Nothing };
        self.push(CellEncoding { nullable, ..CellEncoding::default() }, coder);
    }

    /// A numerical column; `numbers` are its distinct ones in ascending order, where they are few.
    pub(super) fn numbers(&mut self, summary: &Summary, numbers: Option<&[f64]>, num_rows: usize) {
        let scale = ZScore::new(summary.moments.mean(), summary.moments.std());
        let nullable = summary.values < num_rows as u64;
        let scores = numbers.map(|numbers| {
            let mut scores: Vec<u32> = numbers.iter().map(|&number| scale.of(number).to_bits()).collect();
            scores.dedup();
            scores
        });
        if let Some((numbers, scores)) = numbers.zip(scores)
            && pays(scores.len(), 4, num_rows)
        {
            let mut known = HashTable::with_capacity(numbers.len());
            let mut code = 0;
            for number in numbers {
                code += u32::from(scores[code as usize] != scale.of(*number).to_bits());
                known
                    .insert_unique(hash_bits(number.to_bits()), (number.to_bits(), code), |&(bits, _)| hash_bits(bits));
            }
            let encoding = self.dictionary(&scores, nullable);
            return self.push(encoding, Coder::KnownNumbers(known));
        }
        self.push(CellEncoding { width: 4, nullable, ..CellEncoding::default() }, Coder::Numbers(scale));
    }

    /// A timestamp column that is not the table's time.
    pub(super) fn moments(&mut self, summary: &Summary, num_rows: usize) {
        let Grid { min_us, max_us, unit_us } = summary.grid.unwrap_or(Grid { min_us: 0, max_us: 0, unit_us: 1 });
        let unit = unit_us.max(1);
        let encoding = CellEncoding {
            width: width_of(max_us.abs_diff(min_us) / unit),
            base: min_us,
            unit,
            nullable: summary.values < num_rows as u64,
            ..CellEncoding::default()
        };
        self.push(encoding, Coder::Moments(min_us, ExactDivisor::new(unit)));
    }

    /// A categorical or text column that takes the vocabulary ids `ids`, ascending.
    pub(super) fn ids(&mut self, ids: &[u32], nulls: u64, num_rows: usize) {
        let nullable = nulls > 0;
        let (least, greatest) = (ids.first().copied().unwrap_or(0), ids.last().copied().unwrap_or(0));
        let width = width_of(u64::from(greatest - least));
        if pays(ids.len(), width, num_rows) {
            let encoding = self.dictionary(ids, nullable);
            return self.push(encoding, Coder::KnownIds(ids.to_vec()));
        }
        let encoding = CellEncoding { width, base: i64::from(least), nullable, ..CellEncoding::default() };
        self.push(encoding, Coder::Ids(least));
    }

    fn dictionary(&mut self, entries: &[u32], nullable: bool) -> CellEncoding {
        let dictionary = Dictionary { start: self.values.len() as u32, len: entries.len() as u32 };
        self.values.extend_from_slice(entries);
        let width = width_of((entries.len() as u64).saturating_sub(1));
        CellEncoding { width, dictionary: Some(dictionary), nullable, ..CellEncoding::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_must_pay() {
        assert!(pays(5, 4, 100) && !pays(5, 1, 100) && !pays(5, 4, 13));
        assert!(!pays(MOST_DISTINCT + 1, 4, usize::MAX) && pays(MOST_DISTINCT, 4, usize::MAX));
        assert!(pays(1, 4, 1000) && !pays(1, 0, 1000));
        for rows in [0, 1, 2, 3, 10, 1 << 20] {
            let most = most_distinct(rows);
            assert!((most + 1..most + 3).all(|distinct| !pays(distinct, 4, rows)), "{rows}");
        }
    }

    #[test]
    fn ids_close_together_need_no_dictionary() {
        let mut encodings = Encodings::default();
        encodings.ids(&[70_000, 70_002, 70_003], 0, 1000);
        encodings.ids(&[3, 70_002, 90_003], 1, 1000);
        encodings.ids(&[], 9, 9);
        let [near, far, none] = encodings.cells.as_slice() else { panic!("three columns") };
        assert_eq!((near.width, near.base, near.dictionary), (1, 70_000, None));
        assert_eq!((far.width, far.nullable, far.dictionary), (1, true, Some(Dictionary { start: 0, len: 3 })));
        assert_eq!((none.width, none.nullable, none.dictionary), (0, true, None));
        assert_eq!((encodings.coders[0].ids(&[70_002]), encodings.coders[1].ids(&[90_003, 3])), (vec![2], vec![2, 0]));
        assert_eq!(encodings.values, [3, 70_002, 90_003]);
    }
}
