//! Primary keys, matched exactly: no hash stands for a key and no value is reserved.
//!
//! Integers of every width, decimals and floats that hold integers are one kind of key, strings the other. Dense
//! integers are looked up in a direct table, all others through a hash table that compares the keys themselves.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, PrimitiveArray};
use arrow_schema::DataType;
use xxhash_rust::xxh3::xxh3_64;

use super::decode::{hex, shorten, utf8};
use super::kind::ValueKind;
use super::link::by_chunk;
use super::memory::{Buffer, Memory};
use super::slots::Slots;
use super::source::TableSource;
use crate::error::{Error, Result};
use crate::format::FileWriter;
use crate::manifest::KeyKind;

/// One key, as a file holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum KeyRef<'a> {
    /// No key.
    Null,
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    Big(u64),
    /// A string.
    Text(&'a str),
    /// A number that no integer equals.
    Fraction(f64),
}

impl std::fmt::Display for KeyRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Int(key) => write!(f, "{key}"),
            Self::Big(key) => write!(f, "{key}"),
            Self::Text(key) => write!(f, "\"{}\"", shorten(key)),
            Self::Fraction(key) => write!(f, "{key}"),
        }
    }
}

/// Whether values of a kind can be keys; floats are judged one by one.
pub(super) fn check_kind(kind: ValueKind, place: &str) -> Result<()> {
    if matches!(kind, ValueKind::Null | ValueKind::Number | ValueKind::Text | ValueKind::Bytes) {
        return Ok(());
    }
    let message = format!("{} cannot be keys; write the column as integers or strings", kind.name());
    Err(Error::schema(place, message))
}

fn int_key<T: Into<i128>>(value: T) -> KeyRef<'static> {
    let value: i128 = value.into();
    i64::try_from(value).map(KeyRef::Int).or_else(|_| u64::try_from(value).map(KeyRef::Big)).unwrap_or(
        // Beyond 64 bits: no key that is kept equals it.
        KeyRef::Fraction(value as f64),
    )
}

fn float_key(value: f64) -> KeyRef<'static> {
    if value.is_nan() {
        KeyRef::Null
    } else if value.fract() != 0.0 || value.abs() >= 18_446_744_073_709_551_616.0 {
        KeyRef::Fraction(value)
    } else {
        int_key(value as i128)
    }
}

fn decimal_key(value: i128, scale: i8) -> KeyRef<'static> {
    let unit = 10i128.checked_pow(u32::from(scale.unsigned_abs()));
    match (unit, scale) {
        (Some(unit), 0..) if value % unit == 0 => int_key(value / unit),
        (Some(unit), ..0) => value.checked_mul(unit).map_or(KeyRef::Fraction(value as f64), int_key),
        _ => KeyRef::Fraction(value as f64 / 10f64.powi(i32::from(scale))),
    }
}

/// Calls `emit` with every key of a column in order.
///
/// # Errors
/// A message when the type cannot hold keys.
pub(super) fn each_key(array: &dyn Array, mut emit: impl FnMut(KeyRef<'_>)) -> Result<(), String> {
    #[inline]
    fn primitive<T: ArrowPrimitiveType>(
        array: &PrimitiveArray<T>,
        emit: &mut impl FnMut(KeyRef<'_>),
        key: impl Fn(T::Native) -> KeyRef<'static>,
    ) {
        if array.null_count() == 0 {
            array.values().iter().for_each(|&value| emit(key(value)));
        } else {
            array.iter().for_each(|value| emit(value.map_or(KeyRef::Null, &key)));
        }
    }
    match array.data_type() {
        DataType::Int8 => primitive(array.as_primitive::<Int8Type>(), &mut emit, |v| KeyRef::Int(v.into())),
        DataType::Int16 => primitive(array.as_primitive::<Int16Type>(), &mut emit, |v| KeyRef::Int(v.into())),
        DataType::Int32 => primitive(array.as_primitive::<Int32Type>(), &mut emit, |v| KeyRef::Int(v.into())),
        DataType::Int64 => primitive(array.as_primitive::<Int64Type>(), &mut emit, KeyRef::Int),
        DataType::UInt8 => primitive(array.as_primitive::<UInt8Type>(), &mut emit, |v| KeyRef::Int(v.into())),
        DataType::UInt16 => primitive(array.as_primitive::<UInt16Type>(), &mut emit, |v| KeyRef::Int(v.into())),
        DataType::UInt32 => primitive(array.as_primitive::<UInt32Type>(), &mut emit, |v| KeyRef::Int(v.into())),
        DataType::UInt64 => primitive(array.as_primitive::<UInt64Type>(), &mut emit, int_key),
        DataType::Float16 => primitive(array.as_primitive::<Float16Type>(), &mut emit, |v| float_key(v.to_f64())),
        DataType::Float32 => primitive(array.as_primitive::<Float32Type>(), &mut emit, |v| float_key(v.into())),
        DataType::Float64 => primitive(array.as_primitive::<Float64Type>(), &mut emit, float_key),
        DataType::Decimal32(_, scale) => {
            primitive(array.as_primitive::<Decimal32Type>(), &mut emit, |v| decimal_key(v.into(), *scale));
        }
        DataType::Decimal64(_, scale) => {
            primitive(array.as_primitive::<Decimal64Type>(), &mut emit, |v| decimal_key(v.into(), *scale));
        }
        DataType::Decimal128(_, scale) => {
            primitive(array.as_primitive::<Decimal128Type>(), &mut emit, |v| decimal_key(v, *scale));
        }
        DataType::Decimal256(_, scale) => primitive(array.as_primitive::<Decimal256Type>(), &mut emit, |v| {
            v.to_i128().map_or(KeyRef::Fraction(f64::INFINITY), |v| decimal_key(v, *scale))
        }),
        DataType::Utf8View => {
            array.as_string_view().iter().for_each(|text| emit(text.map_or(KeyRef::Null, KeyRef::Text)));
        }
        DataType::BinaryView => {
            for bytes in array.as_binary_view() {
                emit(bytes.map(utf8).transpose()?.map_or(KeyRef::Null, KeyRef::Text));
            }
        }
        DataType::FixedSizeBinary(_) => {
            array.as_fixed_size_binary().iter().for_each(|bytes| match bytes {
                Some(bytes) => emit(KeyRef::Text(&hex(bytes))),
                None => emit(KeyRef::Null),
            });
        }
        DataType::Null => (0..array.len()).for_each(|_| emit(KeyRef::Null)),
        other => return Err(format!("{other} cannot be keys; write the column as integers or strings")),
    }
    Ok(())
}

/// The primary keys of one table and the row of each.
#[derive(Debug)]
pub(super) enum KeyIndex {
    /// Integers between `min` and `min + rows.len()`, looked up directly.
    Dense {
        /// Their bits are those of an unsigned integer.
        is_unsigned: bool,
        /// The smallest key.
        min: u64,
        /// One more than the row of `min + position`; 0 where no row has that key.
        rows: Buffer<u32>,
        /// Number of keys.
        num_rows: usize,
    },
    /// Other integers.
    Sparse {
        /// Their bits are those of an unsigned integer.
        is_unsigned: bool,
        /// The key of each row.
        keys: Buffer<u64>,
        /// Rows by the hash of their keys.
        rows: Slots,
    },
    /// Strings.
    Text {
        /// The key of each row.
        keys: TextKeys,
        /// Rows by the hash of their keys.
        rows: Slots,
    },
}

/// Strings, one per row.
#[derive(Debug)]
pub(super) struct TextKeys {
    /// `[rows + 1]` ends of the keys in `bytes`, starting with 0.
    ends: Buffer<u64>,
    /// The keys, one after the other.
    bytes: Buffer<u8>,
}

impl TextKeys {
    #[inline]
    fn of(&self, row: usize) -> &[u8] {
        &self.bytes[self.ends[row] as usize..self.ends[row + 1] as usize]
    }

    fn num_rows(&self) -> usize {
        self.ends.len() - 1
    }
}

/// What one row group contributes.
struct KeyChunk<'v> {
    first_row: usize,
    /// The key of each row, or where it ends in `bytes`.
    values: &'v mut [u64],
    bytes: Vec<u8>,
    /// The bytes once the row group is read.
    done: Option<Buffer<u8>>,
    has_negative: bool,
    has_big: bool,
    /// The first row without a usable key, and what it holds.
    bad: Option<(usize, String)>,
}

impl<'v> KeyChunk<'v> {
    fn new(first_row: usize, values: &'v mut [u64]) -> Self {
        Self { first_row, values, bytes: Vec::new(), done: None, has_negative: false, has_big: false, bad: None }
    }

    fn push(&mut self, row: usize, key: KeyRef<'_>) {
        self.values[row] = match key {
            KeyRef::Int(key) => {
                self.has_negative |= key < 0;
                key as u64
            }
            KeyRef::Big(key) => {
                self.has_big = true;
                key
            }
            KeyRef::Text(key) => {
                self.bytes.extend_from_slice(key.as_bytes());
                self.bytes.len() as u64
            }
            KeyRef::Null | KeyRef::Fraction(_) => {
                if self.bad.is_none() {
                    self.bad = Some((row, key.to_string()));
                }
                0
            }
        };
    }

    /// Puts the bytes where they count as memory of the run.
    fn close(&mut self, memory: &Memory) -> Result<()> {
        if !self.bytes.is_empty() {
            let mut bytes = memory.zeros(self.bytes.len())?;
            bytes.copy_from_slice(&self.bytes);
            self.bytes = Vec::new();
            bytes.release_pages();
            self.done = Some(bytes);
        }
        Ok(())
    }
}

/// Spreads the bits of an integer key (the finaliser of `MurmurHash3`).
fn hash_int(key: u64) -> u64 {
    let mut hash = key;
    hash = (hash ^ hash >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ hash >> 33
}

impl KeyIndex {
    /// Reads and indexes the primary keys in the `column`-th column of a table.
    ///
    /// # Errors
    /// [`Error::Schema`] naming table, column and a sample when a key is null, no integer, or occurs twice.
    pub(super) fn build(source: &TableSource<'_>, column: usize, memory: &Memory) -> Result<Self> {
        let place = source.place(column);
        check_kind(source.kinds[column], &place)?;
        let is_text = matches!(source.kinds[column], ValueKind::Text | ValueKind::Bytes);
        let chunks = source.chunks();
        // strings begin at 0, the first of their ends
        let mut values = memory.zeros::<u64>(source.num_rows + usize::from(is_text))?;
        let own = by_chunk(&mut values[usize::from(is_text)..], &chunks).into_iter().zip(&chunks);
        let states = vec![own.map(|(values, chunk)| KeyChunk::new(chunk.first_row, values)).collect()];
        let read = source.scan(&[column], states, |_, chunk: &mut KeyChunk<'_>, first_row, array| {
            let mut row = first_row;
            each_key(array, |key| {
                chunk.push(row, key);
                row += 1;
            })
            .map_err(|message| Error::schema(&place, message))?;
            if row == chunk.values.len() { chunk.close(memory) } else { Ok(()) }
        })?;
        let mut parts = read.into_iter().next().unwrap_or_default();
        if let Some((first_row, (row, found))) =
            parts.iter_mut().find_map(|part| Some((part.first_row, part.bad.take()?)))
        {
            let remedy = "every row needs a key: remove the row, or leave primary_key out";
            let row = first_row + row;
            return Err(Error::schema(&place, format!("the primary key of row {row} is {found}; {remedy}")));
        }
        if is_text {
            let bytes = join_texts(parts, memory)?;
            return Self::of_texts(TextKeys { ends: values, bytes }, &place, memory);
        }
        let is_unsigned = parts.iter().any(|part| part.has_big);
        if is_unsigned && parts.iter().any(|part| part.has_negative) {
            let message = format!("negative keys beside keys above {}; write the column as strings", i64::MAX);
            return Err(Error::schema(place, message));
        }
        drop(parts);
        Self::of_ints(values, is_unsigned, &place, memory)
    }

    fn of_ints(keys: Buffer<u64>, is_unsigned: bool, place: &str, memory: &Memory) -> Result<Self> {
        let shown = |key: u64| if is_unsigned { key.to_string() } else { (key as i64).to_string() };
        let order = |key: &u64| if is_unsigned { *key } else { *key ^ 1 << 63 };
        let bounds = keys.iter().map(order).min().zip(keys.iter().map(order).max());
        let (min, max) = bounds.unwrap_or((order(&0), order(&0)));
        if max - min <= 4 * keys.len() as u64 + 1024 {
            let mut rows = memory.zeros::<u32>((max - min) as usize + 1)?;
            let slots: &mut [u32] = &mut rows;
            for (row, key) in keys.iter().enumerate() {
                let slot = &mut slots[(order(key) - min) as usize];
                if *slot != 0 {
                    return Err(duplicate(place, &shown(*key), *slot - 1, row));
                }
                *slot = row as u32 + 1;
            }
            let (min, num_rows) = (if is_unsigned { min } else { min ^ 1 << 63 }, keys.len());
            return Ok(Self::Dense { is_unsigned, min, rows, num_rows });
        }
        let known: &[u64] = &keys;
        let mut rows = Slots::new(memory, known.len())?;
        for (row, &key) in known.iter().enumerate() {
            if let Some(ahead) = known.get(row + LOOK_AHEAD) {
                rows.prefetch(hash_int(*ahead));
            }
            let first = rows.find_or_insert(hash_int(key), row as u32, |row| known[row as usize] == key)?;
            if let Some(first) = first {
                return Err(duplicate(place, &shown(key), first, row));
            }
        }
        Ok(Self::Sparse { is_unsigned, keys, rows })
    }

    fn of_texts(keys: TextKeys, place: &str, memory: &Memory) -> Result<Self> {
        let mut rows = Slots::new(memory, keys.num_rows())?;
        for row in 0..keys.num_rows() {
            let key = keys.of(row);
            let first = rows.find_or_insert(xxh3_64(key), row as u32, |row| keys.of(row as usize) == key)?;
            if let Some(first) = first {
                let shown = format!("\"{}\"", shorten(&String::from_utf8_lossy(key)));
                return Err(duplicate(place, &shown, first, row));
            }
        }
        Ok(Self::Text { keys, rows })
    }

    /// The row that has the key.
    #[inline]
    pub(super) fn find(&self, key: KeyRef<'_>) -> Option<u32> {
        match (self, key) {
            (Self::Text { keys, rows }, KeyRef::Text(key)) => {
                rows.find(xxh3_64(key.as_bytes()), |row| keys.of(row as usize) == key.as_bytes())
            }
            (Self::Dense { is_unsigned, min, rows, .. }, key) => {
                let bits = int_bits(key, *is_unsigned)?;
                // Below `min` the difference wraps to a position that no table has: tables are far below 2^63 long,
                // and the distance between two keys of one sign convention is exact modulo 2^64.
                let is_below = if *is_unsigned { bits < *min } else { (bits as i64) < *min as i64 };
                let position = if is_below { None } else { usize::try_from(bits.wrapping_sub(*min)).ok() };
                rows.get(position?)?.checked_sub(1)
            }
            (Self::Sparse { is_unsigned, keys, rows }, key) => {
                let bits = int_bits(key, *is_unsigned)?;
                rows.find(hash_int(bits), |row| keys[row as usize] == bits)
            }
            (Self::Text { .. }, _) => None,
        }
    }

    /// How the keys are stored.
    pub(super) fn key_kind(&self) -> KeyKind {
        match self {
            Self::Dense { is_unsigned, .. } | Self::Sparse { is_unsigned, .. } => {
                if *is_unsigned {
                    KeyKind::Uint
                } else {
                    KeyKind::Int
                }
            }
            Self::Text { .. } => KeyKind::String,
        }
    }

    /// What messages call the keys.
    pub(super) fn kind(&self) -> ValueKind {
        match self {
            Self::Dense { .. } | Self::Sparse { .. } => ValueKind::Number,
            Self::Text { .. } => ValueKind::Text,
        }
    }

    /// Writes the keys of the rows and the rows in the order of their keys.
    pub(super) fn write(self, writer: &mut FileWriter, memory: &Memory) -> Result<()> {
        match self {
            Self::Dense { is_unsigned, min, rows, num_rows } => {
                let mut keys = memory.zeros::<u64>(num_rows)?;
                let values: &mut [u64] = &mut keys;
                for (position, row) in rows.iter().enumerate() {
                    if let Some(row) = row.checked_sub(1) {
                        values[row as usize] = min.wrapping_add(position as u64);
                    }
                }
                drop(rows);
                writer.integer_keys(values, is_unsigned)
            }
            Self::Sparse { is_unsigned, keys, rows } => {
                drop(rows);
                writer.integer_keys(&keys, is_unsigned)
            }
            Self::Text { keys, rows } => {
                drop(rows);
                writer.string_keys(&keys.ends, &keys.bytes)
            }
        }
    }

    /// Hands the memory of scratch files back to the system.
    pub(super) fn release_pages(&self) {
        match self {
            Self::Dense { rows, .. } => rows.release_pages(),
            Self::Sparse { keys, rows, .. } => {
                keys.release_pages();
                rows.release_pages();
            }
            Self::Text { keys, rows } => {
                keys.ends.release_pages();
                keys.bytes.release_pages();
                rows.release_pages();
            }
        }
    }
}

/// Keys that are looked at before it is their turn.
const LOOK_AHEAD: usize = 16;

/// The texts of all row groups one after the other; their ends are moved accordingly.
fn join_texts(parts: Vec<KeyChunk<'_>>, memory: &Memory) -> Result<Buffer<u8>> {
    let len = |part: &KeyChunk<'_>| part.done.as_ref().map_or(0, |bytes| bytes.len());
    let mut bytes = memory.zeros::<u8>(parts.iter().map(len).sum())?;
    let mut start = 0;
    for part in parts {
        part.values.iter_mut().for_each(|end| *end += start as u64);
        if let Some(part) = part.done {
            bytes[start..start + part.len()].copy_from_slice(&part);
            start += part.len();
        }
    }
    Ok(bytes)
}

/// The bits of an integer key as an index keeps them; `None` where it has no such key.
#[inline]
fn int_bits(key: KeyRef<'_>, is_unsigned: bool) -> Option<u64> {
    match key {
        KeyRef::Int(key) if !is_unsigned || key >= 0 => Some(key as u64),
        KeyRef::Big(key) if is_unsigned => Some(key),
        _ => None,
    }
}

fn duplicate(place: &str, key: &str, first: u32, second: usize) -> Error {
    let remedy = "primary keys must be unique: remove one of the rows, or leave primary_key out";
    Error::schema(place, format!("the primary key {key} occurs in the rows {first} and {second}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ints(keys: &[i128]) -> Result<KeyIndex> {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path(), Some(1 << 10));
        let mut values = memory.zeros(keys.len()).unwrap();
        let mut chunk = KeyChunk::new(0, &mut values);
        keys.iter().enumerate().for_each(|(row, &key)| chunk.push(row, int_key(key)));
        let is_unsigned = chunk.has_big;
        KeyIndex::of_ints(values, is_unsigned, "here", &memory)
    }

    proptest! {
        #[test]
        fn integers_are_found_where_they_are(
            keys in prop_oneof![
                prop::collection::btree_set(-40i128..40, 0..30),
                prop::collection::btree_set(i128::from(i64::MIN)..=i128::from(i64::MAX), 0..30),
                prop::collection::btree_set((1i128 << 64) - 40..1 << 64, 0..30),
                prop::collection::btree_set(0i128..1 << 64, 0..30),
            ].prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle(),
            others in prop::collection::vec(-(1i128 << 63)..1 << 64, 0..30),
        ) {
            let index = ints(&keys).unwrap();
            for key in keys.iter().chain(&others).flat_map(|&key| [key - 1, key, key + 1]) {
                let expected = keys.iter().position(|&known| known == key).map(|row| row as u32);
                prop_assert_eq!(index.find(int_key(key)), expected, "{}", key);
            }
        }
    }

    #[test]
    fn extremes_negative_and_unsigned_keys() {
        let index = ints(&[i64::MIN.into(), i64::MAX.into(), -1, 0]).unwrap();
        assert_eq!(index.find(KeyRef::Int(i64::MIN)), Some(0));
        assert_eq!((index.find(KeyRef::Big(u64::MAX)), index.find(KeyRef::Int(-1))), (None, Some(2)));
        let index = ints(&[u64::MAX.into(), 0]).unwrap();
        assert_eq!((index.key_kind(), index.find(KeyRef::Big(u64::MAX))), (KeyKind::Uint, Some(0)));
        assert_eq!(index.find(KeyRef::Int(-1)), None);
        assert!(ints(&[5, 6, 5]).unwrap_err().to_string().contains("key 5 occurs in the rows 0 and 2"));
        assert!(ints(&[5, 1 << 40, 5]).unwrap_err().to_string().contains("key 5 occurs in the rows 0 and 2"));
        assert_eq!(ints(&[]).unwrap().find(KeyRef::Int(0)), None);
    }

    #[test]
    fn floats_and_decimals_are_integers_or_match_nothing() {
        assert_eq!(
            (float_key(3.0), float_key(-0.0), float_key(f64::NAN)),
            (KeyRef::Int(3), KeyRef::Int(0), KeyRef::Null)
        );
        assert_eq!(float_key(9_223_372_036_854_775_808.0), KeyRef::Big(1 << 63));
        assert_eq!(
            (float_key(0.5), float_key(f64::INFINITY)),
            (KeyRef::Fraction(0.5), KeyRef::Fraction(f64::INFINITY))
        );
        assert_eq!(
            (decimal_key(1500, 2), decimal_key(1501, 2), decimal_key(2, -2)),
            (KeyRef::Int(15), KeyRef::Fraction(15.01), KeyRef::Int(200))
        );
    }
}
