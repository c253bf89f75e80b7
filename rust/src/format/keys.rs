//! The primary keys of a table, and the rows in their order.
//!
//! Integers are stored as their distance to the least; a table whose keys count up from the first row stores none.
//! Where the rows are in the order of their keys, no order is stored.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::file::{FileReader, FileWriter};
use super::packed::{Packed, width_of};
use super::table::{KEY_BYTES, KEY_ORDER, KEY_SHAPE, KEY_VALUES};
use crate::error::Result;
use crate::ids::RowId;
use crate::manifest::KeyKind;

/// The primary key of a row, as the user knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A string.
    String(String),
}

impl Key {
    fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Int(key) => Some(key),
            Self::Uint(key) => i64::try_from(key).ok(),
            Self::String(_) => None,
        }
    }

    fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Int(key) => u64::try_from(key).ok(),
            Self::Uint(key) => Some(key),
            Self::String(_) => None,
        }
    }
}

/// Turns the bits of a signed integer into an unsigned one of the same order, and back.
const SIGN: u64 = 1 << 63;

/// Sections of the keys of a kind.
pub const fn num_key_sections(kind: KeyKind) -> usize {
    match kind {
        KeyKind::None => 0,
        KeyKind::Int | KeyKind::Uint => 3,
        KeyKind::String => 4,
    }
}

impl FileWriter {
    /// Writes distinct integer keys, one per row: the bits of signed ones where the kind is not unsigned.
    pub fn integer_keys(&mut self, keys: &[u64], is_unsigned: bool) -> Result<()> {
        let ranked = |key: u64| if is_unsigned { key } else { key ^ SIGN };
        let ends = keys.iter().map(|&key| ranked(key));
        let (least, greatest) = (ends.clone().min().unwrap_or(0), ends.max().unwrap_or(0));
        let is_sequence = keys.iter().zip(0..).all(|(&key, row): (_, u64)| ranked(key) - least == row);
        let is_ascending = is_sequence || keys.is_sorted_by_key(|&key| ranked(key));
        let width = if is_sequence { 0 } else { width_of(greatest - least) };
        self.values(KEY_SHAPE, &[ranked(least), u64::from(width), u64::from(is_ascending)])?;
        let stored = if is_sequence { &[] } else { keys };
        self.packed(KEY_VALUES, width, stored.iter().map(|&key| ranked(key) - least))?;
        self.key_order(keys.len(), is_ascending, |row| ranked(keys[row as usize]))
    }

    /// Writes distinct string keys, one per row: `ends` has where each ends in `bytes`, starting with 0.
    pub fn string_keys(&mut self, ends: &[u64], bytes: &[u8]) -> Result<()> {
        let key = |row: u32| &bytes[ends[row as usize] as usize..ends[row as usize + 1] as usize];
        let rows = ends.len() - 1;
        let is_ascending = (1..rows as u32).all(|row| key(row - 1) < key(row));
        let width = width_of(bytes.len() as u64);
        self.values(KEY_SHAPE, &[0, u64::from(width), u64::from(is_ascending)])?;
        self.packed(KEY_VALUES, width, ends.iter().copied())?;
        self.values(KEY_BYTES, bytes)?;
        self.key_order(rows, is_ascending, key)
    }

    fn key_order<K: Ord>(&mut self, rows: usize, is_ascending: bool, key: impl Fn(u32) -> K + Sync) -> Result<()> {
        let mut order: Vec<u32> = if is_ascending { Vec::new() } else { (0..rows as u32).collect() };
        order.par_sort_unstable_by(|&one, &other| key(one).cmp(&key(other)));
        self.packed(KEY_ORDER, width_of(rows as u64), order.into_iter().map(u64::from))
    }
}

/// The primary keys of a table, in place.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    file: &'a FileReader,
    kind: KeyKind,
    rows: usize,
    /// The least integer, as an unsigned number of the same order.
    least: u64,
    /// Distances of integers to the least, `None` where they are the rows; or the ends of strings.
    values: Option<Packed<'a>>,
    bytes: &'a [u8],
    /// `None` where the rows are in the order of their keys.
    order: Option<Packed<'a>>,
}

impl FileReader {
    /// The keys of a table of `rows` rows; `None` where it has none.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when the sections are not those of such keys.
    pub fn keys(&self, kind: KeyKind, rows: usize) -> Result<Option<Keys<'_>>> {
        if kind == KeyKind::None {
            return Ok(None);
        }
        let shape = self.exactly::<u64>(KEY_SHAPE, 3)?;
        let is_string = kind == KeyKind::String;
        let width = u8::try_from(shape[1]).ok().filter(|&width| width <= 8);
        let width = width.ok_or_else(|| self.fault(KEY_SHAPE, "has keys of more than 8 bytes"))?;
        let values = match (is_string, width) {
            (true, _) => Some(self.packed(KEY_VALUES, width, rows + 1)?),
            (false, 0) => None,
            (false, _) => Some(self.packed(KEY_VALUES, width, rows)?),
        };
        let is_ascending = shape[2] == 1;
        let bytes = if is_string { self.values(KEY_BYTES)? } else { &[] };
        let order = if is_ascending { None } else { Some(self.packed(KEY_ORDER, width_of(rows as u64), rows)?) };
        let least = if kind == KeyKind::Int { shape[0] ^ SIGN } else { shape[0] };
        Ok(Some(Keys { file: self, kind, rows, least, values, bytes, order }))
    }
}

impl<'a> Keys<'a> {
    /// The key of a row.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when it is damaged.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn key(&self, row: usize) -> Result<Key> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        Ok(match self.kind {
            KeyKind::String => Key::String(self.string(row)?.to_owned()),
            KeyKind::Uint => Key::Uint(self.ranked(row)),
            KeyKind::Int | KeyKind::None => Key::Int((self.ranked(row) ^ SIGN) as i64),
        })
    }

    /// The key of a row that has a string.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when it is damaged.
    pub fn string(&self, row: usize) -> Result<&'a str> {
        self.values
            .filter(|ends| row + 1 < ends.len())
            .and_then(|ends| self.bytes.get(ends.get(row) as usize..ends.get(row + 1) as usize))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .ok_or_else(|| self.file.fault(KEY_BYTES, &format!("is damaged at the key of row {row}")))
    }

    /// The row of a key, or `None` when there is none; keys of another kind match no row.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when the keys are damaged.
    pub fn find(&self, key: &Key) -> Result<Option<RowId>> {
        let wanted = match (self.kind, key) {
            (KeyKind::String, Key::String(key)) => {
                return self.search(|row| Ok(self.string(row)?.as_bytes().cmp(key.as_bytes())));
            }
            (KeyKind::Int, key) => key.as_i64().map(|key| key as u64 ^ SIGN),
            (KeyKind::Uint, key) => key.as_u64(),
            (KeyKind::String | KeyKind::None, _) => None,
        };
        let Some(wanted) = wanted else { return Ok(None) };
        if self.values.is_none() {
            let row = wanted.checked_sub(self.least).filter(|&row| row < self.rows as u64);
            return Ok(row.map(|row| RowId(row as u32)));
        }
        self.search(|row| Ok(self.ranked(row).cmp(&wanted)))
    }

    /// An integer key as an unsigned number of the same order.
    fn ranked(&self, row: usize) -> u64 {
        self.least.wrapping_add(self.values.map_or(row as u64, |values| values.get(row)))
    }

    /// Binary search through the rows in the order of their keys; `compare` says how a row's key compares to the wanted.
    fn search(&self, compare: impl Fn(usize) -> Result<Ordering>) -> Result<Option<RowId>> {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = usize::midpoint(low, high);
            let row = self.order.map_or(middle, |order| order.get(middle) as usize);
            if row >= self.rows {
                return Err(self.file.fault(KEY_ORDER, "names rows that are not there"));
            }
            match compare(row)? {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(Some(RowId(row as u32))),
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::file::FileKind;
    use super::*;

    fn written(keys: &[Key], write: impl FnOnce(&mut FileWriter) -> Result<()>) -> (tempfile::TempDir, FileReader) {
        let root = tempfile::tempdir().unwrap();
        let kind = kind_of(keys);
        let mut writer = FileWriter::create(root.path(), "t", FileKind::Table, 7, num_key_sections(kind)).unwrap();
        write(&mut writer).unwrap();
        writer.finish().unwrap();
        let file = FileReader::open(root.path(), "t", FileKind::Table).unwrap();
        (root, file)
    }

    fn kind_of(keys: &[Key]) -> KeyKind {
        match keys.first() {
            Some(Key::Uint(_)) => KeyKind::Uint,
            Some(Key::String(_)) => KeyKind::String,
            _ => KeyKind::Int,
        }
    }

    fn check(keys: &[Key], file: &FileReader) {
        let read = file.keys(kind_of(keys), keys.len()).unwrap().unwrap();
        for (row, key) in keys.iter().enumerate() {
            assert_eq!(read.key(row).unwrap(), *key);
            assert_eq!(read.find(key).unwrap(), Some(RowId(row as u32)));
        }
        for other in [i64::MIN, -1, 0, 1, 7, i64::MAX].map(Key::Int) {
            let expected =
                keys.iter().position(|key| *key == other || key.as_i64() == other.as_i64() && key.as_i64().is_some());
            assert_eq!(read.find(&other).unwrap(), expected.map(RowId::from));
        }
        let has_bytes = read.values.is_some_and(|values| values.get(values.len() - 1) > 0);
        assert!(file.keys(kind_of(keys), keys.len() + 1).is_err() || !has_bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn integers_are_found_at_their_rows(
            keys in prop_oneof![
                (any::<i64>(), 0i64..20).prop_map(|(first, len)| (0..len).map(|at| first.wrapping_add(at)).collect::<Vec<_>>()),
                prop::collection::btree_set(any::<i64>(), 0..20).prop_map(|set| set.into_iter().collect::<Vec<_>>()),
                prop::collection::btree_set(-300i64..300, 0..20).prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle(),
            ],
            is_unsigned in any::<bool>(),
        ) {
            let bits: Vec<u64> = keys.iter().map(|&key| key as u64).collect();
            let keys: Vec<Key> = bits.iter().map(|&key| if is_unsigned { Key::Uint(key) } else { Key::Int(key as i64) }).collect();
            if is_unsigned && keys.is_empty() {
                return Ok(());
            }
            let (_root, file) = written(&keys, |writer| writer.integer_keys(&bits, is_unsigned));
            check(&keys, &file);
        }

        #[test]
        fn strings_are_found_at_their_rows(
            keys in prop::collection::btree_set("[a-bé]{0,4}", 1..20).prop_map(|set| set.into_iter().collect::<Vec<_>>()),
            shuffled in any::<bool>(),
        ) {
            let mut keys = keys;
            if shuffled {
                keys.rotate_left(1);
            }
            let (mut ends, mut bytes) = (vec![0], Vec::new());
            for key in &keys {
                bytes.extend_from_slice(key.as_bytes());
                ends.push(bytes.len() as u64);
            }
            let keys: Vec<Key> = keys.into_iter().map(Key::String).collect();
            let (_root, file) = written(&keys, |writer| writer.string_keys(&ends, &bytes));
            check(&keys, &file);
        }
    }

    #[test]
    fn a_sequence_takes_no_bytes() {
        let keys: Vec<u64> = (1..=10_000).collect();
        let rows: Vec<Key> = keys.iter().map(|&key| Key::Int(key as i64)).collect();
        let (root, file) = written(&rows, |writer| writer.integer_keys(&keys, false));
        check(&rows, &file);
        assert!(std::fs::metadata(root.path().join("t")).unwrap().len() < 512);
    }
}
