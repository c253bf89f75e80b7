//! The rows of a table: one record of fixed stride per row, so that a visit costs few cache lines.
//!
//! ```text
//! time      a number of the table's TimeCodes
//! parents   per foreign key: row of the parent table + 1; 0 none
//! children  per foreign key that points to the table: start and length of its list in graph.bin
//! valid     one bit per column where one of 32 columns can be null: the cell has a value
//! booleans  one bit per boolean column: its value
//! cells     per column, in the bytes of its encoding; nothing for identifiers, booleans and the table's time
//! ```
//! Every field has the bytes that its greatest number needs, none where there is only 0; see [`super::packed`]. Parents
//! follow the table's foreign keys, children the foreign keys that point to the table, both in the order of their
//! ids; cells follow the columns. A cell without a value is 0.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::packed::{TAIL, TimeCodes, load, mask, width_of};
use crate::csr::NO_PARENT;
use crate::stype::Stype;

/// Time of a row that is visible to every seed: its table has no temporal column.
pub const ALWAYS_VISIBLE: i64 = i64::MIN;
/// Time of a row that is visible to no seed: its time is null.
pub const NEVER_VISIBLE: i64 = i64::MAX;

/// How the cells of a column are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CellEncoding {
    /// Bytes of a number in the record: 4 for a z-score itself, 0 for identifiers, booleans and the table's time.
    pub width: u8,
    /// Added to the number: the earliest moment, the least vocabulary id.
    #[serde(skip_serializing_if = "is_zero")]
    pub base: i64,
    /// Multiplies the number: microseconds between moments.
    #[serde(skip_serializing_if = "is_one")]
    pub unit: u64,
    /// The number counts these entries of the table's values, instead of being added to the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<Dictionary>,
    /// Some cell has no value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
}

/// The place of a column's distinct values among those of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dictionary {
    /// The first.
    pub start: u32,
    /// How many there are.
    pub len: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form serde asks for
fn is_zero(base: &i64) -> bool {
    *base == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(unit: &u64) -> bool {
    *unit == 1
}

impl Default for CellEncoding {
    fn default() -> Self {
        Self { width: 0, base: 0, unit: 1, dictionary: None, nullable: false }
    }
}

impl CellEncoding {
    /// The widest number a column of a stype may have.
    pub fn widest(stype: Stype) -> u8 {
        match stype {
            Stype::Identifier | Stype::Boolean => 0,
            Stype::Numerical | Stype::Categorical | Stype::Text => 4,
            Stype::Timestamp => 8,
        }
    }

    /// Whether readers know what to make of it.
    pub fn is_sound(&self, stype: Stype) -> bool {
        let is_known = match (stype, self.dictionary) {
            (Stype::Numerical, None) => self.width == 4 && self.base == 0 && self.unit == 1,
            (Stype::Numerical | Stype::Categorical | Stype::Text, Some(Dictionary { start, len })) => {
                self.width <= 2 && start.checked_add(len).is_some()
            }
            (Stype::Categorical | Stype::Text, None) => u32::try_from(self.base).is_ok() && self.unit == 1,
            (Stype::Identifier | Stype::Boolean | Stype::Timestamp, dictionary) => dictionary.is_none(),
        };
        is_known && self.width <= Self::widest(stype)
    }
}

/// Everything that decides where the fields of a record lie.
#[derive(Clone, Debug)]
pub struct RecordShape {
    /// Times of the rows.
    pub times: TimeCodes,
    /// Encoded columns in order.
    pub columns: Vec<(Stype, CellEncoding)>,
    /// The column whose cells are the times of the rows.
    pub temporal: Option<usize>,
    /// Rows of the parent table, per foreign key of the table.
    pub parents: Vec<u32>,
    /// Edges and the most children of a row, per foreign key that points to the table.
    pub children: Vec<(u64, u64)>,
}

/// A number in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    at: usize,
    mask: u64,
}

impl Field {
    #[inline]
    fn read(self, bytes: &[u8]) -> u64 {
        load(bytes, self.at) & self.mask
    }

    /// Whether it has no bytes.
    pub(crate) fn is_empty(self) -> bool {
        self.mask == 0
    }

    /// Puts a number where there is 0. Eight bytes are written, of which those after the field keep their value.
    #[inline]
    pub(crate) fn put(self, bytes: &mut [u8], number: u64) {
        debug_assert_eq!(number & !self.mask, 0, "a number that does not fit its field");
        let word = load(bytes, self.at) | number;
        bytes[self.at..self.at + 8].copy_from_slice(&word.to_le_bytes());
    }
}

/// A bit in a record, counted from its first byte's lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bit(usize);

impl Bit {
    #[inline]
    fn read(self, bytes: &[u8]) -> bool {
        bytes[self.0 / 8] >> (self.0 % 8) & 1 == 1
    }

    /// Sets it where `value` is true.
    #[inline]
    pub(crate) fn put(self, bytes: &mut [u8], value: bool) {
        bytes[self.0 / 8] |= u8::from(value) << (self.0 % 8);
    }
}

/// Where everything lies in the records of one table; the same arithmetic serves writer, reader and size checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordLayout {
    stride: usize,
    times: TimeCodes,
    time: Field,
    parents: Vec<Field>,
    children: Vec<(Field, Field)>,
    valid: Vec<ValidWord>,
    cells: Vec<CellPlace>,
}

/// The validity of 32 columns: bits that are always set, and those to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ValidWord {
    always: u32,
    field: Field,
}

/// The place of one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellPlace {
    stype: Stype,
    is_time: bool,
    field: Field,
    bit: Bit,
    base: i64,
    unit: u64,
    dictionary: Option<Dictionary>,
}

/// The value of a cell as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// An identifier is present.
    Identifier,
    /// A number's z-score within its column.
    Numerical(f32),
    /// A moment, microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// True or false.
    Boolean(bool),
    /// The vocabulary id of a categorical cell.
    Categorical(u32),
    /// The vocabulary id of a text cell.
    Text(u32),
}

/// Hands out the bytes of a record, one field after the other.
struct Places(usize);

impl Places {
    fn field(&mut self, width: u8) -> Field {
        let width = width.min(8);
        let field = Field { at: if width == 0 { 0 } else { self.0 }, mask: mask(width) };
        self.0 += usize::from(width);
        field
    }
}

impl RecordLayout {
    /// The layout of a table.
    pub fn new(shape: &RecordShape) -> Self {
        let mut places = Places(0);
        let time = places.field(shape.times.width);
        let parents = shape.parents.iter().map(|&rows| places.field(width_of(u64::from(rows)))).collect();
        let children = shape.children.iter().map(|&(edges, most)| {
            let start = places.field(width_of(edges));
            (start, places.field(width_of(most)))
        });
        let children = children.collect();
        let valid = shape.columns.chunks(32).map(|columns| {
            let is_nullable = columns.iter().any(|(_, encoding)| encoding.nullable);
            let all = u32::MAX >> (32 - columns.len());
            let width = if is_nullable { columns.len().div_ceil(8) as u8 } else { 0 };
            ValidWord { always: if is_nullable { 0 } else { all }, field: places.field(width) }
        });
        let valid = valid.collect();
        let num_booleans = shape.columns.iter().filter(|(stype, _)| *stype == Stype::Boolean).count();
        let mut bit = 8 * places.0;
        places.0 += num_booleans.div_ceil(8);
        let cells = shape.columns.iter().enumerate().map(|(column, &(stype, encoding))| {
            let is_time = shape.temporal == Some(column);
            let width = if is_time { 0 } else { encoding.width.min(CellEncoding::widest(stype)) };
            let place = CellPlace {
                stype,
                is_time,
                field: places.field(width),
                bit: Bit(bit),
                base: encoding.base,
                unit: encoding.unit,
                dictionary: encoding.dictionary,
            };
            bit += usize::from(stype == Stype::Boolean);
            place
        });
        let cells = cells.collect();
        Self { stride: stride(places.0), times: shape.times, time, parents, children, valid, cells }
    }

    /// Bytes per record.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes of `rows` records in a file, or `None` where they overflow.
    pub fn section_len(&self, rows: usize) -> Option<usize> {
        rows.checked_mul(self.stride)?.checked_add(TAIL)
    }

    /// How the times of the rows are numbered.
    pub fn times(&self) -> TimeCodes {
        self.times
    }

    /// Columns per record.
    pub fn num_columns(&self) -> usize {
        self.cells.len()
    }

    /// The stype of the `column`-th column.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn stype(&self, column: usize) -> Stype {
        self.cells[column].stype
    }

    /// Whether a column has missing cells.
    pub fn is_nullable(&self) -> bool {
        self.valid.iter().any(|word| word.always == 0)
    }

    /// Foreign keys of the table.
    pub fn num_parents(&self) -> usize {
        self.parents.len()
    }

    /// Foreign keys that point to the table.
    pub fn num_children(&self) -> usize {
        self.children.len()
    }

    /// Whether every dictionary lies inside of `num_values` values.
    pub(crate) fn fits(&self, num_values: usize) -> bool {
        let dictionaries = self.cells.iter().filter_map(|place| place.dictionary);
        dictionaries.into_iter().all(|dictionary| entries(dictionary).end <= num_values)
    }

    /// The value of the `column`-th column in a record in which it is the only field.
    pub(crate) fn place(&self, column: usize) -> CellPlace {
        self.cells[column]
    }

    /// The number that says when the row came into being.
    pub(crate) fn time_field(&self) -> Field {
        self.time
    }

    /// The parent by the `slot`-th foreign key, counted from 1.
    pub(crate) fn parent_field(&self, slot: usize) -> Field {
        self.parents[slot]
    }

    /// Start and length of the children by the `slot`-th foreign key that points to the table.
    pub(crate) fn children_fields(&self, slot: usize) -> (Field, Field) {
        self.children[slot]
    }

    /// The number of the `column`-th column.
    pub(crate) fn cell_field(&self, column: usize) -> Field {
        self.cells[column].field
    }

    /// The bit of the `column`-th column, which is boolean.
    pub(crate) fn boolean_bit(&self, column: usize) -> Bit {
        self.cells[column].bit
    }

    /// The bit that says whether the `column`-th column has a value; `None` where it always has.
    pub(crate) fn valid_bit(&self, column: usize) -> Option<Bit> {
        let word = &self.valid[column / 32];
        (word.always == 0).then(|| Bit(8 * word.field.at + column % 32))
    }

    /// Reads a record; `bytes` holds it and at least eight bytes more.
    ///
    /// # Panics
    /// If `bytes` is shorter.
    #[inline]
    pub fn read<'a>(&'a self, bytes: &'a [u8], values: &'a [u32]) -> Record<'a> {
        Record { layout: self, bytes: &bytes[..self.stride + TAIL], values }
    }

    /// Writes a record into `bytes`, which must be zero and eight bytes longer than it.
    ///
    /// # Panics
    /// If `bytes` is shorter.
    pub fn write<'a>(&'a self, bytes: &'a mut [u8]) -> RecordMut<'a> {
        RecordMut { layout: self, bytes: &mut bytes[..self.stride + TAIL] }
    }
}

/// The stride of records of `len` bytes: rounded up to a power of two, which never straddles two cache lines, where
/// that costs an eighth at most.
fn stride(len: usize) -> usize {
    let rounded = len.next_power_of_two();
    if len > 0 && rounded <= 64 && (rounded - len) * 8 <= len { rounded } else { len }
}

fn entries(dictionary: Dictionary) -> Range<usize> {
    let start = dictionary.start as usize;
    start..start + dictionary.len as usize
}

/// One row, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    layout: &'a RecordLayout,
    bytes: &'a [u8],
    values: &'a [u32],
}

impl Record<'_> {
    /// The row's time, microseconds; [`ALWAYS_VISIBLE`] or [`NEVER_VISIBLE`] where it has none.
    #[inline]
    pub fn time(&self) -> i64 {
        self.layout.times.time(self.time_code())
    }

    /// The number of the row's time.
    #[inline]
    pub(crate) fn time_code(&self) -> u64 {
        self.layout.time.read(self.bytes)
    }

    /// The row of the parent table that the `slot`-th foreign key of the table points to.
    #[inline]
    pub fn parent(&self, slot: usize) -> Option<u32> {
        (self.layout.parents[slot].read(self.bytes) as u32).checked_sub(1)
    }

    /// Where the children by the `slot`-th foreign key that points to the table lie in its lists.
    #[inline]
    pub fn children(&self, slot: usize) -> Range<usize> {
        let (start, len) = self.layout.children[slot];
        let start = start.read(self.bytes) as usize;
        start..start + len.read(self.bytes) as usize
    }

    /// Whether the `column`-th column has a value.
    #[inline]
    pub fn is_valid(&self, column: usize) -> bool {
        self.valid(column / 32) >> (column % 32) & 1 == 1
    }

    /// One bit per column, for the `word`-th 32 columns: the cell has a value.
    #[inline]
    pub(crate) fn valid(&self, word: usize) -> u32 {
        let ValidWord { always, field } = self.layout.valid[word];
        always | field.read(self.bytes) as u32
    }

    /// The number or vocabulary id at a place.
    ///
    /// # Panics
    /// If the record is damaged: it holds a number beyond the column's values.
    #[inline]
    pub(crate) fn word(&self, place: &CellPlace) -> u32 {
        let number = place.field.read(self.bytes) as u32;
        match place.dictionary {
            None => number.wrapping_add(place.base as u32),
            Some(dictionary) => self.values[entries(dictionary)][number as usize],
        }
    }

    /// The moment at a place.
    #[inline]
    pub(crate) fn moment(&self, place: &CellPlace) -> i64 {
        if place.is_time {
            self.time()
        } else {
            place.base.wrapping_add(place.field.read(self.bytes).wrapping_mul(place.unit) as i64)
        }
    }

    /// The truth value at a place.
    #[inline]
    pub(crate) fn truth(&self, place: &CellPlace) -> bool {
        place.bit.read(self.bytes)
    }

    /// The value of the `column`-th column, or `None` where it is null. In a damaged record, a number beyond the
    /// column's values reads as NaN or as the vocabulary id 2^32 - 1, which no text has.
    ///
    /// # Panics
    /// If the table has no such column.
    #[inline]
    pub fn cell(&self, column: usize) -> Option<Cell> {
        if !self.is_valid(column) {
            return None;
        }
        let place = &self.layout.cells[column];
        let is_damaged = || {
            let number = place.field.read(self.bytes) as usize;
            place.dictionary.is_some_and(|dictionary| number >= dictionary.len as usize)
        };
        Some(match place.stype {
            Stype::Identifier => Cell::Identifier,
            Stype::Numerical if is_damaged() => Cell::Numerical(f32::NAN),
            Stype::Numerical => Cell::Numerical(f32::from_bits(self.word(place))),
            Stype::Timestamp => Cell::Timestamp(self.moment(place)),
            Stype::Boolean => Cell::Boolean(self.truth(place)),
            Stype::Categorical if is_damaged() => Cell::Categorical(u32::MAX),
            Stype::Categorical => Cell::Categorical(self.word(place)),
            Stype::Text if is_damaged() => Cell::Text(u32::MAX),
            Stype::Text => Cell::Text(self.word(place)),
        })
    }
}

/// One row, being written.
#[derive(Debug)]
pub struct RecordMut<'a> {
    layout: &'a RecordLayout,
    bytes: &'a mut [u8],
}

impl RecordMut<'_> {
    /// Sets the row's time, which must be on the table's grid.
    pub fn set_time(&mut self, time_us: i64) {
        self.layout.time.put(self.bytes, self.layout.times.coder()(time_us));
    }

    /// Sets the parent row by the `slot`-th foreign key, [`NO_PARENT`] for none.
    pub fn set_parent(&mut self, slot: usize, row: u32) {
        let number = if row == NO_PARENT { 0 } else { u64::from(row) + 1 };
        self.layout.parents[slot].put(self.bytes, number);
    }

    /// Sets where the children by the `slot`-th foreign key that points to the table lie.
    pub fn set_children(&mut self, slot: usize, start: u32, len: u32) {
        let fields = self.layout.children[slot];
        fields.0.put(self.bytes, u64::from(start));
        fields.1.put(self.bytes, u64::from(len));
    }

    /// Sets the value of the `column`-th column, which takes it from `values` where it has a dictionary.
    ///
    /// # Panics
    /// If the cell is of another stype than the column, or not among its values.
    pub fn set_cell(&mut self, column: usize, cell: Cell, values: &[u32]) {
        let place = self.layout.cells[column];
        if let Some(bit) = self.layout.valid_bit(column) {
            bit.put(self.bytes, true);
        }
        let numbered = |word: u32| match place.dictionary {
            None => u64::from(word.wrapping_sub(place.base as u32)),
            Some(dictionary) => {
                let known = values[entries(dictionary)].iter().position(|&known| known == word);
                known.expect("the values of a column hold those of its cells") as u64
            }
        };
        match (place.stype, cell) {
            (Stype::Identifier, Cell::Identifier) => {}
            (Stype::Numerical, Cell::Numerical(value)) => place.field.put(self.bytes, numbered(value.to_bits())),
            (Stype::Timestamp, Cell::Timestamp(_)) if place.is_time => {}
            (Stype::Timestamp, Cell::Timestamp(time_us)) => {
                place.field.put(self.bytes, time_us.wrapping_sub(place.base) as u64 / place.unit);
            }
            (Stype::Boolean, Cell::Boolean(value)) => place.bit.put(self.bytes, value),
            (Stype::Categorical, Cell::Categorical(id)) | (Stype::Text, Cell::Text(id)) => {
                place.field.put(self.bytes, numbered(id));
            }
            (stype, cell) => panic!("{cell:?} written to a {stype} column"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed::Grid;
    use super::*;
    use proptest::prelude::*;

    fn cell_of(stype: Stype, bits: u64) -> Cell {
        match stype {
            Stype::Identifier => Cell::Identifier,
            Stype::Numerical => Cell::Numerical((bits % 1000) as f32 / 7.0),
            Stype::Timestamp => Cell::Timestamp(bits as i64),
            Stype::Boolean => Cell::Boolean(bits % 2 == 1),
            Stype::Categorical => Cell::Categorical(bits as u32 | 1),
            Stype::Text => Cell::Text(bits as u32 | 1),
        }
    }

    /// The narrowest encoding of a column, or one with a dictionary.
    fn encoding(stype: Stype, cells: &[Option<u64>], has_dictionary: bool, values: &mut Vec<u32>) -> CellEncoding {
        let nullable = cells.contains(&None);
        let cells = || cells.iter().flatten().map(|&bits| cell_of(stype, bits));
        let words: Vec<u32> = cells()
            .filter_map(|cell| match cell {
                Cell::Numerical(value) => Some(value.to_bits()),
                Cell::Categorical(id) | Cell::Text(id) => Some(id),
                _ => None,
            })
            .collect();
        let plain = CellEncoding { nullable, ..CellEncoding::default() };
        match stype {
            Stype::Identifier | Stype::Boolean => plain,
            Stype::Timestamp => {
                let grid = Grid::of(cells().map(|cell| if let Cell::Timestamp(time) = cell { time } else { 0 }));
                let Some(grid) = grid else { return plain };
                let unit = grid.unit_us.max(1);
                let width = width_of(grid.max_us.abs_diff(grid.min_us) / unit);
                CellEncoding { width, base: grid.min_us, unit, ..plain }
            }
            _ if has_dictionary => {
                let dictionary = Some(Dictionary { start: values.len() as u32, len: words.len() as u32 });
                values.extend(&words);
                CellEncoding { width: width_of((words.len() as u64).saturating_sub(1)), dictionary, ..plain }
            }
            Stype::Numerical => CellEncoding { width: 4, ..plain },
            Stype::Categorical | Stype::Text => {
                let (least, most) = (words.iter().min().unwrap_or(&0), words.iter().max().unwrap_or(&0));
                CellEncoding { width: width_of(u64::from(most - least)), base: i64::from(*least), ..plain }
            }
        }
    }

    proptest! {
        #[test]
        fn records_read_as_they_were_written(
            (columns, rows) in (0usize..70, 0usize..4).prop_flat_map(|(columns, rows)| {
                let cells = prop::collection::vec(prop::option::weighted(0.8, any::<u64>()), rows..=rows);
                let column = (0usize..6, any::<bool>(), cells);
                (prop::collection::vec(column, columns..=columns), Just(rows))
            }),
            times in prop::collection::vec(prop_oneof![any::<i64>(), Just(i64::MAX), -9i64..9], 4),
            parents in prop::collection::vec((1u32..=u32::MAX - 2, any::<u32>()), 0..4),
            children in prop::collection::vec((0u32..1 << 30, 0u32..1 << 30, 0u32..30), 0..4),
        ) {
            let mut values = Vec::new();
            let encode = |(code, has_dictionary, cells): &(usize, bool, Vec<Option<u64>>)| {
                let stype = Stype::ALL[*code];
                (stype, encoding(stype, cells, *has_dictionary, &mut values))
            };
            let encoded: Vec<(Stype, CellEncoding)> = columns.iter().map(encode).collect();
            prop_assert!(encoded.iter().all(|(stype, encoding)| encoding.is_sound(*stype)));
            let known = times.iter().copied().filter(|&time| time != i64::MAX && time != i64::MIN);
            let nulls = times.contains(&i64::MAX).then_some(i64::MAX);
            let null_time = nulls.or(times.contains(&i64::MIN).then_some(i64::MIN));
            let times: Vec<i64> = times.iter().map(|&time| if time == i64::MIN { null_time.unwrap() } else { time }).collect();
            let layout = RecordLayout::new(&RecordShape {
                times: TimeCodes::new(Grid::of(known), null_time),
                columns: encoded,
                temporal: None,
                parents: parents.iter().map(|&(rows, _)| rows).collect(),
                children: children.iter().map(|&(start, len, _)| (u64::from(start) + 9, u64::from(len))).collect(),
            });
            prop_assert!(layout.fits(values.len()) && (values.is_empty() || !layout.fits(values.len() - 1)));
            let stride = layout.stride();
            let mut bytes = vec![0; layout.section_len(rows).unwrap()];
            for row in 0..rows {
                let mut record = layout.write(&mut bytes[row * stride..]);
                record.set_time(times[row]);
                for (slot, &(rows, parent)) in parents.iter().enumerate() {
                    record.set_parent(slot, if parent % 5 == 0 { NO_PARENT } else { parent % rows });
                }
                for (slot, &(start, len, less)) in children.iter().enumerate() {
                    record.set_children(slot, start.saturating_sub(less), len.saturating_sub(less));
                }
                for (column, (code, _, cells)) in columns.iter().enumerate() {
                    if let Some(bits) = cells[row] {
                        record.set_cell(column, cell_of(Stype::ALL[*code], bits), &values);
                    }
                }
            }
            for row in 0..rows {
                let record = layout.read(&bytes[row * stride..], &values);
                prop_assert_eq!(record.time(), times[row]);
                for (slot, &(rows, parent)) in parents.iter().enumerate() {
                    prop_assert_eq!(record.parent(slot), (parent % 5 != 0).then_some(parent % rows));
                }
                for (slot, &(start, len, less)) in children.iter().enumerate() {
                    let start = start.saturating_sub(less) as usize;
                    prop_assert_eq!(record.children(slot), start..start + len.saturating_sub(less) as usize);
                }
                for (column, (code, _, cells)) in columns.iter().enumerate() {
                    prop_assert_eq!(record.cell(column), cells[row].map(|bits| cell_of(Stype::ALL[*code], bits)));
                    prop_assert_eq!(record.is_valid(column), cells[row].is_some());
                }
            }
        }

        #[test]
        fn damaged_numbers_are_no_values(number in 0u64..=255, len in 1u32..200) {
            let dictionary = Some(Dictionary { start: 3, len });
            let column = (Stype::Categorical, CellEncoding { width: 1, dictionary, ..CellEncoding::default() });
            let shape = RecordShape {
                times: TimeCodes::NONE, columns: vec![column], temporal: None, parents: vec![], children: vec![],
            };
            let layout = RecordLayout::new(&shape);
            let (mut bytes, values) = (vec![0; 9], vec![7; 3 + len as usize]);
            layout.cell_field(0).put(&mut bytes, number);
            let expected = if number < u64::from(len) { 7 } else { u32::MAX };
            prop_assert_eq!(layout.read(&bytes, &values).cell(0), Some(Cell::Categorical(expected)));
        }
    }

    #[test]
    fn strides_fit_cache_lines_where_it_is_cheap() {
        assert_eq!(
            [0, 1, 3, 15, 24, 29, 30, 32, 57, 58, 65, 100].map(stride),
            [0, 1, 3, 16, 24, 32, 32, 32, 64, 64, 65, 100]
        );
    }

    #[test]
    fn the_temporal_column_is_the_time() {
        let times = TimeCodes::new(Grid::of([5, 25].into_iter()), Some(NEVER_VISIBLE));
        let nullable = CellEncoding { nullable: true, ..CellEncoding::default() };
        let shape = RecordShape {
            times,
            columns: vec![(Stype::Timestamp, nullable)],
            temporal: Some(0),
            parents: vec![],
            children: vec![],
        };
        let layout = RecordLayout::new(&shape);
        assert_eq!((layout.stride(), times.width), (2, 1));
        let mut bytes = vec![0; layout.section_len(2).unwrap()];
        let mut record = layout.write(&mut bytes);
        record.set_time(25);
        record.set_cell(0, Cell::Timestamp(25), &[]);
        layout.write(&mut bytes[2..]).set_time(NEVER_VISIBLE);
        assert_eq!(layout.read(&bytes, &[]).cell(0), Some(Cell::Timestamp(25)));
        let never = layout.read(&bytes[2..], &[]);
        assert_eq!((never.time(), never.cell(0)), (NEVER_VISIBLE, None));
    }
}
