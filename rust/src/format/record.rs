//! The rows of a table: one record of fixed stride per row, so that a visit costs few cache lines.
//!
//! ```text
//! 0            time      i64 microseconds; i64::MIN always visible, i64::MAX never (a null time)
//! 8            parents   num_parents x u32 row of the parent table, u32::MAX none
//!              children  num_children x { start u32, len u32 } into the foreign key's lists in graph.bin
//!              valid     one bit per column: the cell has a value
//!              booleans  one bit per boolean column: its value
//!              cells     u32 per column: f32 z-score (numerical) or vocabulary id (categorical, text);
//!                        i64 in two words (timestamp); nothing (identifier, boolean)
//! ```
//! Parents follow the table's foreign keys, children the foreign keys that point to the table, both in the order of
//! their ids; cells follow the columns. The stride is a multiple of 8. A cell without a value is 0.

use std::ops::Range;

use crate::bitmap;
use crate::csr::NO_PARENT;
use crate::stype::Stype;

/// Time of a row that is visible to every seed: its table has no temporal column.
pub const ALWAYS_VISIBLE: i64 = i64::MIN;
/// Time of a row that is visible to no seed: its time is null.
pub const NEVER_VISIBLE: i64 = i64::MAX;

/// Where everything lies in the records of one table; the same arithmetic serves writer, reader and size checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordLayout {
    stride: usize,
    num_parents: usize,
    num_children: usize,
    valid_at: usize,
    booleans_at: usize,
    cells: Vec<CellPlace>,
}

/// The place of one column: its stype, and its word in the record or its bit among the booleans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CellPlace {
    stype: Stype,
    at: usize,
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

impl RecordLayout {
    /// The layout of a table with these columns, own foreign keys and foreign keys that point to it.
    pub fn new(stypes: &[Stype], num_parents: usize, num_children: usize) -> Self {
        let valid_at = 2 + num_parents + 2 * num_children;
        let booleans_at = valid_at + bitmap::words(stypes.len());
        let num_booleans = stypes.iter().filter(|&&stype| stype == Stype::Boolean).count();
        let mut word = booleans_at + bitmap::words(num_booleans);
        let mut bit = 0;
        let cells = stypes
            .iter()
            .map(|&stype| {
                let at = if stype == Stype::Boolean { bit } else { word };
                match stype {
                    Stype::Identifier => {}
                    Stype::Boolean => bit += 1,
                    Stype::Timestamp => word += 2,
                    Stype::Numerical | Stype::Categorical | Stype::Text => word += 1,
                }
                CellPlace { stype, at }
            })
            .collect();
        Self { stride: word.next_multiple_of(2), num_parents, num_children, valid_at, booleans_at, cells }
    }

    /// 32-bit words per record, an even number.
    pub fn stride(&self) -> usize {
        self.stride
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

    /// Foreign keys of the table.
    pub fn num_parents(&self) -> usize {
        self.num_parents
    }

    /// Foreign keys that point to the table.
    pub fn num_children(&self) -> usize {
        self.num_children
    }

    /// Where the cell of the `column`-th column lies: its word in the record, or its bit among the booleans.
    pub(crate) fn place(&self, column: usize) -> usize {
        self.cells[column].at
    }

    /// Reads the record in `words`, which must be one stride long.
    ///
    /// # Panics
    /// If `words` is shorter.
    #[inline]
    pub fn read<'a>(&'a self, words: &'a [u32]) -> Record<'a> {
        Record { layout: self, words: &words[..self.stride] }
    }

    /// Writes into the record in `words`, which must be one stride long and zero before the first write.
    ///
    /// # Panics
    /// If `words` is shorter.
    pub fn write<'a>(&'a self, words: &'a mut [u32]) -> RecordMut<'a> {
        RecordMut { layout: self, words: &mut words[..self.stride] }
    }
}

/// One row, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    layout: &'a RecordLayout,
    words: &'a [u32],
}

impl<'a> Record<'a> {
    /// The row's time, microseconds; [`ALWAYS_VISIBLE`] or [`NEVER_VISIBLE`] where it has none.
    #[inline]
    pub fn time(&self) -> i64 {
        join(self.words[0], self.words[1])
    }

    /// The row of the parent table that the `slot`-th foreign key of the table points to.
    #[inline]
    pub fn parent(&self, slot: usize) -> Option<u32> {
        debug_assert!(slot < self.layout.num_parents);
        let row = self.words[2 + slot];
        (row != NO_PARENT).then_some(row)
    }

    /// Where the children by the `slot`-th foreign key that points to the table lie in its lists.
    #[inline]
    pub fn children(&self, slot: usize) -> Range<usize> {
        debug_assert!(slot < self.layout.num_children);
        let at = 2 + self.layout.num_parents + 2 * slot;
        let start = self.words[at] as usize;
        start..start + self.words[at + 1] as usize
    }

    /// Whether the `column`-th column has a value.
    #[inline]
    pub fn is_valid(&self, column: usize) -> bool {
        bitmap::get(&self.words[self.layout.valid_at..self.layout.booleans_at], column)
    }

    /// One bit per column: the cell has a value.
    #[inline]
    pub(crate) fn valid(&self) -> &'a [u32] {
        &self.words[self.layout.valid_at..self.layout.booleans_at]
    }

    /// The number or vocabulary id at a [`RecordLayout::place`].
    #[inline]
    pub(crate) fn word(&self, place: usize) -> u32 {
        self.words[place]
    }

    /// The moment at a [`RecordLayout::place`].
    #[inline]
    pub(crate) fn moment(&self, place: usize) -> i64 {
        join(self.words[place], self.words[place + 1])
    }

    /// The truth value at a [`RecordLayout::place`].
    #[inline]
    pub(crate) fn truth(&self, place: usize) -> bool {
        bitmap::get(&self.words[self.layout.booleans_at..], place)
    }

    /// The value of the `column`-th column, or `None` where it is null.
    ///
    /// # Panics
    /// If the table has no such column.
    #[inline]
    pub fn cell(&self, column: usize) -> Option<Cell> {
        if !self.is_valid(column) {
            return None;
        }
        let CellPlace { stype, at } = self.layout.cells[column];
        Some(match stype {
            Stype::Identifier => Cell::Identifier,
            Stype::Numerical => Cell::Numerical(f32::from_bits(self.words[at])),
            Stype::Timestamp => Cell::Timestamp(join(self.words[at], self.words[at + 1])),
            Stype::Boolean => Cell::Boolean(bitmap::get(&self.words[self.layout.booleans_at..], at)),
            Stype::Categorical => Cell::Categorical(self.words[at]),
            Stype::Text => Cell::Text(self.words[at]),
        })
    }
}

/// One row, being written.
#[derive(Debug)]
pub struct RecordMut<'a> {
    layout: &'a RecordLayout,
    words: &'a mut [u32],
}

impl RecordMut<'_> {
    /// Sets the row's time.
    pub fn set_time(&mut self, time_us: i64) {
        [self.words[0], self.words[1]] = split(time_us);
    }

    /// Sets the parent row by the `slot`-th foreign key, [`NO_PARENT`] for none.
    pub fn set_parent(&mut self, slot: usize, row: u32) {
        self.words[2 + slot] = row;
    }

    /// Sets where the children by the `slot`-th foreign key that points to the table lie.
    pub fn set_children(&mut self, slot: usize, start: u32, len: u32) {
        let at = 2 + self.layout.num_parents + 2 * slot;
        self.words[at] = start;
        self.words[at + 1] = len;
    }

    /// Sets the value of the `column`-th column.
    ///
    /// # Panics
    /// If the cell is of another stype than the column.
    pub fn set_cell(&mut self, column: usize, cell: Cell) {
        let CellPlace { stype, at } = self.layout.cells[column];
        bitmap::set(&mut self.words[self.layout.valid_at..self.layout.booleans_at], column, true);
        match (stype, cell) {
            (Stype::Identifier, Cell::Identifier) => {}
            (Stype::Numerical, Cell::Numerical(value)) => self.words[at] = value.to_bits(),
            (Stype::Timestamp, Cell::Timestamp(time_us)) => {
                [self.words[at], self.words[at + 1]] = split(time_us);
            }
            (Stype::Boolean, Cell::Boolean(value)) => {
                bitmap::set(&mut self.words[self.layout.booleans_at..], at, value);
            }
            (Stype::Categorical, Cell::Categorical(id)) | (Stype::Text, Cell::Text(id)) => self.words[at] = id,
            (stype, cell) => panic!("{cell:?} written to a {stype} column"),
        }
    }
}

#[inline]
fn join(low: u32, high: u32) -> i64 {
    (u64::from(low) | u64::from(high) << 32) as i64
}

fn split(value: i64) -> [u32; 2] {
    let bits = value as u64;
    [bits as u32, (bits >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cell_of(stype: Stype, bits: u64) -> Cell {
        match stype {
            Stype::Identifier => Cell::Identifier,
            Stype::Numerical => Cell::Numerical((bits % 1000) as f32 / 7.0),
            Stype::Timestamp => Cell::Timestamp(bits as i64),
            Stype::Boolean => Cell::Boolean(bits % 2 == 1),
            Stype::Categorical => Cell::Categorical(bits as u32),
            Stype::Text => Cell::Text(bits as u32),
        }
    }

    proptest! {
        #[test]
        fn a_record_reads_as_it_was_written(
            columns in prop::collection::vec((0usize..6, prop::option::of(any::<u64>())), 0..80),
            time in any::<i64>(),
            parents in prop::collection::vec(any::<u32>(), 0..4),
            children in prop::collection::vec((0u32..1 << 30, 0u32..1 << 30), 0..4),
        ) {
            let stypes: Vec<Stype> = columns.iter().map(|&(code, _)| Stype::ALL[code]).collect();
            let layout = RecordLayout::new(&stypes, parents.len(), children.len());
            let mut words = vec![0; layout.stride()];
            let mut record = layout.write(&mut words);
            record.set_time(time);
            for (slot, &row) in parents.iter().enumerate() {
                record.set_parent(slot, row);
            }
            for (slot, &(start, len)) in children.iter().enumerate() {
                record.set_children(slot, start, len);
            }
            for (column, &(code, bits)) in columns.iter().enumerate() {
                if let Some(bits) = bits {
                    record.set_cell(column, cell_of(Stype::ALL[code], bits));
                }
            }
            let record = layout.read(&words);
            prop_assert_eq!(record.time(), time);
            prop_assert_eq!(layout.stride() % 2, 0);
            for (slot, &row) in parents.iter().enumerate() {
                prop_assert_eq!(record.parent(slot), (row != NO_PARENT).then_some(row));
            }
            for (slot, &(start, len)) in children.iter().enumerate() {
                prop_assert_eq!(record.children(slot), start as usize..(start + len) as usize);
            }
            for (column, &(code, bits)) in columns.iter().enumerate() {
                prop_assert_eq!(record.cell(column), bits.map(|bits| cell_of(Stype::ALL[code], bits)));
            }
        }
    }
}
