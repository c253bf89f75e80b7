//! Arrays of whole numbers in as few bytes as their greatest needs, and moments as such numbers.
//!
//! A number of `width` bytes (0 to 8) is little-endian; one of no bytes is 0. A packed array ends in [`TAIL`] zero
//! bytes, so that every number is read with one load of eight bytes and a mask.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::mmap::prefetch_read;
use super::record::{ALWAYS_VISIBLE, NEVER_VISIBLE};

/// Zero bytes after the last number of a packed array.
pub const TAIL: usize = 8;

/// Bytes that hold every number up to `greatest`.
pub const fn width_of(greatest: u64) -> u8 {
    (u64::BITS - greatest.leading_zeros()).div_ceil(8) as u8
}

/// Bits of a number of `width` bytes.
pub(super) const fn mask(width: u8) -> u64 {
    match width {
        0 => 0,
        1..=7 => (1 << (8 * width)) - 1,
        _ => u64::MAX,
    }
}

/// The eight bytes from `at` on as a number.
///
/// # Panics
/// If they are not inside of `bytes`.
#[inline]
pub(super) fn load(bytes: &[u8], at: usize) -> u64 {
    bytemuck::pod_read_unaligned(&bytes[at..at + 8])
}

/// Bytes of a packed array, or `None` where they overflow.
pub fn packed_len(len: usize, width: u8) -> Option<usize> {
    len.checked_mul(usize::from(width))?.checked_add(TAIL)
}

/// A packed array, in place.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    bytes: &'a [u8],
    width: usize,
    mask: u64,
    len: usize,
}

impl<'a> Packed<'a> {
    /// `len` numbers of `width` bytes; `None` when `bytes` is not what they take.
    pub fn new(bytes: &'a [u8], width: u8, len: usize) -> Option<Self> {
        (width <= 8 && packed_len(len, width) == Some(bytes.len())).then_some(Self {
            bytes,
            width: usize::from(width),
            mask: mask(width),
            len,
        })
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The `idx`-th number.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub fn get(&self, idx: usize) -> u64 {
        assert!(idx < self.len, "number {idx} of {}", self.len);
        load(self.bytes, idx * self.width) & self.mask
    }

    /// The numbers of a range.
    ///
    /// # Panics
    /// When one is reached that is not there.
    pub fn range(self, range: Range<usize>) -> impl ExactSizeIterator<Item = u64> + Clone + use<'a> {
        range.map(move |idx| self.get(idx))
    }

    /// Every number in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u64> + Clone + use<'a> {
        self.range(0..self.len)
    }

    /// Asks the processor to bring the `idx`-th number closer; nothing happens where there is none.
    #[inline]
    pub(crate) fn prefetch(&self, idx: usize) {
        prefetch_read(self.bytes, idx * self.width);
    }
}

/// Appends numbers of `width` bytes; a number that does not fit loses its high bytes.
pub(crate) fn pack(numbers: impl ExactSizeIterator<Item = u64>, width: u8, bytes: &mut Vec<u8>) {
    let (start, width) = (bytes.len(), usize::from(width));
    let end = start + numbers.len() * width;
    bytes.resize(end + TAIL, 0);
    let mut at = start;
    for number in numbers {
        // what is written beyond the number is overwritten by the next one, and cut off at last
        bytes[at..at + TAIL].copy_from_slice(&number.to_le_bytes());
        at += width;
    }
    bytes.truncate(end);
}

/// Divides by a number everything that it divides, with one multiplication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExactDivisor {
    shift: u32,
    /// The inverse of the odd part modulo 2^64.
    inverse: u64,
    /// The greatest multiple's quotient by the odd part.
    greatest: u64,
}

impl ExactDivisor {
    /// # Panics
    /// If `divisor` is 0.
    pub(crate) fn new(divisor: u64) -> Self {
        let shift = divisor.trailing_zeros();
        let odd = divisor >> shift;
        // Newton: every step doubles the low bits that are right, from 5 to 10, 20, 40 and 80.
        let mut inverse = odd.wrapping_mul(3) ^ 2;
        for _ in 0..4 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        Self { shift, inverse, greatest: u64::MAX / odd }
    }

    /// The quotient of a multiple.
    #[inline]
    pub(crate) fn quotient(self, multiple: u64) -> u64 {
        (multiple >> self.shift).wrapping_mul(self.inverse)
    }

    /// Whether a number is a multiple.
    #[inline]
    pub(crate) fn divides(self, number: u64) -> bool {
        let low = number & ((1u64 << self.shift) - 1);
        low == 0 && self.quotient(number) <= self.greatest
    }
}

/// How the times of the rows of a table are numbered, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeCodes {
    /// Bytes of a number.
    pub width: u8,
    /// The moment of the number `first`, microseconds.
    pub base_us: i64,
    /// Microseconds from one number to the next.
    pub unit_us: u64,
    /// Numbers below it stand for [`ALWAYS_VISIBLE`].
    pub first: u64,
    /// Numbers above it stand for [`NEVER_VISIBLE`].
    pub last: u64,
}

impl TimeCodes {
    /// Those of a table without times.
    pub const NONE: Self = Self { width: 0, base_us: 0, unit_us: 1, first: 1, last: 0 };

    /// Those of moments of which `grid` knows the ends and the distance, beside rows without a time, if any.
    pub fn new(grid: Option<Grid>, null_time: Option<i64>) -> Self {
        let mut codes = Self::NONE;
        if let Some(Grid { min_us, max_us, unit_us }) = grid {
            let (first, unit_us) = (u64::from(null_time == Some(ALWAYS_VISIBLE)), unit_us.max(1));
            let last = first + max_us.abs_diff(min_us) / unit_us;
            codes = Self { width: 0, base_us: min_us, unit_us, first, last };
        }
        codes.width = width_of(codes.last + u64::from(null_time == Some(NEVER_VISIBLE)));
        codes
    }

    /// The time of a number.
    #[inline]
    pub fn time(&self, code: u64) -> i64 {
        if code < self.first {
            ALWAYS_VISIBLE
        } else if code > self.last {
            NEVER_VISIBLE
        } else {
            self.base_us.wrapping_add((code - self.first).wrapping_mul(self.unit_us) as i64)
        }
    }

    /// What turns times, which must be on the grid, into their numbers.
    pub fn coder(&self) -> impl Fn(i64) -> u64 + Copy + use<> {
        let (codes, divisor) = (*self, ExactDivisor::new(self.unit_us.max(1)));
        move |time| match time {
            ALWAYS_VISIBLE => 0,
            NEVER_VISIBLE => codes.last + 1,
            time => codes.first + divisor.quotient(time.wrapping_sub(codes.base_us) as u64),
        }
    }
}

/// The ends of some moments and a distance that divides those between any two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The earliest, microseconds.
    pub min_us: i64,
    /// The latest, microseconds.
    pub max_us: i64,
    /// The distance; 0 of equal moments.
    pub unit_us: u64,
}

impl Grid {
    /// That of moments; `None` of none.
    pub fn of(moments: impl Iterator<Item = i64>) -> Option<Self> {
        let mut moments = moments;
        let first = moments.next()?;
        let (mut grid, mut divisor) = (Self { min_us: first, max_us: first, unit_us: 0 }, None::<ExactDivisor>);
        for time in moments {
            grid.min_us = grid.min_us.min(time);
            grid.max_us = grid.max_us.max(time);
            let distance = time.abs_diff(first);
            if !divisor.map_or(distance == 0, |divisor| divisor.divides(distance)) {
                grid.unit_us = greatest_divisor(grid.unit_us, distance);
                divisor = Some(ExactDivisor::new(grid.unit_us));
            }
        }
        Some(grid)
    }

    /// That of both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let between = greatest_divisor(self.unit_us, self.min_us.abs_diff(other.min_us));
        Self {
            min_us: self.min_us.min(other.min_us),
            max_us: self.max_us.max(other.max_us),
            unit_us: greatest_divisor(between, other.unit_us),
        }
    }
}

fn greatest_divisor(mut left: u64, mut right: u64) -> u64 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moments() -> impl Strategy<Value = Vec<i64>> {
        prop_oneof![
            prop::collection::vec(i64::MIN + 1..i64::MAX, 0..20),
            prop::collection::vec(-9i64..9, 0..20),
            (1i64..1 << 40, any::<i32>()).prop_flat_map(|(unit, base)| {
                prop::collection::vec((0i64..1000).prop_map(move |n| i64::from(base) + n * unit), 0..20)
            }),
        ]
    }

    proptest! {
        #[test]
        fn packed_numbers_are_read_back(
            numbers in prop::collection::vec(any::<u64>(), 0..40), shift in 0u32..=63, extra in 0u8..=8,
        ) {
            let numbers: Vec<u64> = numbers.iter().map(|number| number >> shift).collect();
            let width = width_of(numbers.iter().copied().max().unwrap_or(0)).max(extra);
            let mut bytes = Vec::new();
            pack(numbers.iter().copied(), width, &mut bytes);
            bytes.extend([0; TAIL]);
            let packed = Packed::new(&bytes, width, numbers.len()).unwrap();
            prop_assert!(packed.iter().eq(numbers.iter().copied()));
            prop_assert!(Packed::new(&bytes[1..], width, numbers.len()).is_none());
        }

        #[test]
        fn exact_quotients_and_divisibility(divisor in 1u64.., number in any::<u64>(), factor in any::<u64>(), shift in 0u32..64) {
            let divisor = (divisor >> shift).max(1);
            let exact = ExactDivisor::new(divisor);
            prop_assert_eq!(exact.divides(number), number.is_multiple_of(divisor));
            let multiple = factor % (u64::MAX / divisor).saturating_add(1).max(1) * divisor;
            prop_assert!(exact.divides(multiple));
            prop_assert_eq!(exact.quotient(multiple), multiple / divisor);
        }

        #[test]
        fn times_survive_their_numbers_in_order(
            moments in moments(), split in 0usize..20, null in prop::sample::select(vec![None, Some(i64::MIN), Some(i64::MAX)]),
        ) {
            let (left, right) = moments.split_at(split.min(moments.len()));
            let grid = match (Grid::of(left.iter().copied()), Grid::of(right.iter().copied())) {
                (Some(left), Some(right)) => Some(left.merge(right)),
                (left, right) => left.or(right),
            };
            prop_assert_eq!(grid, Grid::of(moments.iter().copied()));
            let codes = TimeCodes::new(grid, null);
            let code = codes.coder();
            let mut all: Vec<i64> = moments.iter().copied().chain(null).collect();
            all.sort_unstable();
            for pair in all.windows(2) {
                prop_assert_eq!(pair[0].cmp(&pair[1]), code(pair[0]).cmp(&code(pair[1])));
            }
            for &time in &all {
                prop_assert_eq!(codes.time(code(time)), time);
                prop_assert!(width_of(code(time)) <= codes.width);
            }
        }
    }

    #[test]
    fn widths_and_times_at_their_ends() {
        assert_eq!([0, 1, 255, 256, 65_535, 65_536, u64::MAX].map(width_of), [0, 1, 1, 2, 2, 3, 8]);
        assert_eq!([0, 1, 7, 8].map(mask), [0, 255, u64::MAX >> 8, u64::MAX]);
        assert_eq!((TimeCodes::NONE.time(0), TimeCodes::new(None, Some(i64::MIN))), (i64::MIN, TimeCodes::NONE));
        let never = TimeCodes::new(None, Some(i64::MAX));
        assert_eq!((never.width, never.coder()(i64::MAX), never.time(1)), (1, 1, i64::MAX));
        let ends = Grid { min_us: i64::MIN + 1, max_us: i64::MAX - 1, unit_us: 1 };
        let codes = TimeCodes::new(Some(ends), Some(i64::MIN));
        assert_eq!(
            [i64::MIN, i64::MIN + 1, 0, i64::MAX - 1].map(|time| codes.time(codes.coder()(time))),
            [i64::MIN, i64::MIN + 1, 0, i64::MAX - 1]
        );
        assert!(packed_len(usize::MAX, 2).is_none());
    }
}
