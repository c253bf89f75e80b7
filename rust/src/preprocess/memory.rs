//! The memory of an encode run: what grows with the rows and texts lies on the heap up to a limit, and in scratch
//! files of the staging folder beyond it.
//!
//! Where a value lies changes nothing but speed. Scratch files are mapped, so the system may take their pages back at
//! any time, and [`Buffer::release_pages`] hands them over when a stage is done with them.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;

use crate::available::available_memory;
use crate::error::{Error, Result};
use crate::format::Scratch;

/// Arrays up to this size are on the heap whatever the limit.
const SMALL: usize = 4096;
/// The limit where the system does not say what is available.
const UNKNOWN: u64 = 2 << 30;
/// The least limit that is chosen without being asked for.
const LEAST: u64 = 256 << 20;

/// The account of one run.
#[derive(Clone, Debug)]
pub(super) struct Memory(Arc<Account>);

#[derive(Debug)]
struct Account {
    folder: PathBuf,
    limit: u64,
    used: AtomicU64,
}

impl Memory {
    /// Up to `limit` bytes on the heap (a quarter of what is available where `None`), the rest in `folder`.
    pub(super) fn new(folder: &Path, limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or_else(|| available_memory().map_or(UNKNOWN, |bytes| (bytes / 4).max(LEAST)));
        Self(Arc::new(Account { folder: folder.to_owned(), limit, used: AtomicU64::new(0) }))
    }

    /// Everything on the heap.
    pub(super) fn unlimited() -> Self {
        Self::new(Path::new(""), Some(u64::MAX))
    }

    /// Bytes of the limit that nobody holds.
    pub(super) fn left(&self) -> u64 {
        self.0.limit.saturating_sub(self.0.used.load(Ordering::Relaxed))
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// [`Error::Io`] when they need a scratch file and there is no room for it.
    pub(super) fn zeros<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| isize::try_from(bytes).is_ok());
        let bytes = bytes.ok_or_else(|| Error::Argument(format!("{len} values exceed the address space")))?;
        let place = match self.lease(bytes) {
            Some(lease) => Place::Heap(bytemuck::zeroed_vec(len), Some(lease)),
            None => Place::Scratch(Scratch::create(&self.0.folder, bytes)?, PhantomData),
        };
        Ok(Buffer(place))
    }

    fn lease(&self, bytes: usize) -> Option<Lease> {
        let size = bytes as u64;
        let fits = |used: u64| used.checked_add(size).filter(|&sum| sum <= self.0.limit || bytes <= SMALL);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Lease { account: Arc::clone(&self.0), size })
    }
}

/// A share of the limit, given back with the value.
#[derive(Debug)]
struct Lease {
    account: Arc<Account>,
    size: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.account.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// Values of a fixed number, on the heap or in a scratch file.
#[derive(Debug)]
pub(super) struct Buffer<T>(Place<T>);

#[derive(Debug)]
enum Place<T> {
    Heap(Vec<T>, #[allow(dead_code)] Option<Lease>),
    Scratch(Scratch, PhantomData<T>),
}

/// No values.
impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self(Place::Heap(Vec::new(), None))
    }
}

impl<T: Pod> Buffer<T> {
    /// Hands the memory of a scratch file back to the system; the values stay.
    pub(super) fn release_pages(&self) {
        if let Place::Scratch(file, _) = &self.0 {
            file.release_pages();
        }
    }
}

impl Buffer<i64> {
    /// Replaces every value by a number, where it lies.
    pub(super) fn into_numbers(mut self, number: impl Fn(i64) -> u64) -> Buffer<u64> {
        self.iter_mut().for_each(|value| *value = number(*value) as i64);
        Buffer(match self.0 {
            Place::Heap(values, lease) => Place::Heap(bytemuck::cast_vec(values), lease),
            Place::Scratch(file, _) => Place::Scratch(file, PhantomData),
        })
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Heap(values, _) => values,
            Place::Scratch(file, _) => bytemuck::cast_slice(file.bytes()),
        }
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Place::Heap(values, _) => values,
            Place::Scratch(file, _) => bytemuck::cast_slice_mut(file.bytes_mut()),
        }
    }
}

/// Values that are appended, in arrays of one size: growing moves nothing and takes no memory twice.
#[derive(Debug)]
pub(super) struct Segmented<T> {
    memory: Memory,
    segment_len: usize,
    segments: Vec<Buffer<T>>,
    len: usize,
}

impl<T: Pod + Eq> Segmented<T> {
    /// Bytes of one array.
    const SEGMENT: usize = 16 << 20;

    /// No values yet.
    pub(super) fn new(memory: &Memory) -> Self {
        Self::with_segment_len(memory, Self::SEGMENT / size_of::<T>())
    }

    fn with_segment_len(memory: &Memory, segment_len: usize) -> Self {
        Self { memory: memory.clone(), segment_len, segments: Vec::new(), len: 0 }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends values.
    pub(super) fn extend(&mut self, mut values: &[T]) -> Result<()> {
        while !values.is_empty() {
            let start = self.len % self.segment_len;
            if start == 0 {
                self.segments.push(self.memory.zeros(self.segment_len)?);
            }
            let (now, later) = values.split_at(values.len().min(self.segment_len - start));
            let segment = self.segments.last_mut().expect("pushed where the last was full");
            segment[start..start + now.len()].copy_from_slice(now);
            self.len += now.len();
            values = later;
        }
        Ok(())
    }

    /// The value at a position.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(super) fn at(&self, position: usize) -> T {
        assert!(position < self.len, "a position among the values");
        self.segments[position / self.segment_len][position % self.segment_len]
    }

    /// Whether the values from a position on are these.
    #[inline]
    pub(super) fn is_at(&self, position: usize, values: &[T]) -> bool {
        let (mut position, mut values) = (position, values);
        if position + values.len() > self.len {
            return false;
        }
        loop {
            let start = position % self.segment_len;
            let (now, later) = values.split_at(values.len().min(self.segment_len - start));
            if now.is_empty() {
                return true;
            }
            if self.segments[position / self.segment_len][start..start + now.len()] != *now {
                return false;
            }
            position += now.len();
            values = later;
        }
    }

    /// Puts some values in the place of what `values` holds.
    ///
    /// # Panics
    /// If they are not all there.
    pub(super) fn copy(&self, range: Range<usize>, values: &mut Vec<T>) {
        values.clear();
        while range.start + values.len() < range.end {
            let position = range.start + values.len();
            let start = position % self.segment_len;
            let len = (range.end - position).min(self.segment_len - start);
            values.extend_from_slice(&self.segments[position / self.segment_len][start..start + len]);
        }
    }

    /// Asks the processor for the value at a position.
    #[inline]
    pub(super) fn prefetch(&self, position: usize) {
        if let Some(segment) = self.segments.get(position / self.segment_len) {
            crate::format::prefetch_read(segment, position % self.segment_len);
        }
    }

    /// See [`Buffer::release_pages`].
    pub(super) fn release_pages(&self) {
        self.segments.iter().for_each(Buffer::release_pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_come_back_wherever_they_lie(
            batches in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            segment_len in 1usize..6,
            limit in 0u64..20,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let memory = Memory::new(folder.path(), Some(limit));
            let mut values = Segmented::with_segment_len(&memory, segment_len);
            for batch in &batches {
                values.extend(batch).unwrap();
            }
            let all = batches.concat();
            prop_assert_eq!(values.len(), all.len());
            for start in 0..all.len() {
                prop_assert_eq!(values.at(start), all[start]);
                prop_assert!((start..=all.len()).all(|end| values.is_at(start, &all[start..end])));
                let mut some = vec![0];
                values.copy(start..all.len(), &mut some);
                prop_assert_eq!(&some, &all[start..]);
                prop_assert!(!values.is_at(start, &[all[start] ^ 1]));
            }
        }
    }

    #[test]
    fn the_limit_is_kept_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path(), Some(100_000));
        let heap = memory.zeros::<u64>(10_000).unwrap();
        let mut scratch = memory.zeros::<u32>(10_000).unwrap();
        scratch.fill(7);
        assert!(matches!((&heap.0, &scratch.0), (Place::Heap(..), Place::Scratch(..))));
        assert_eq!(memory.left(), 20_000);
        scratch[9_999] = 8;
        scratch.release_pages();
        assert_eq!((scratch[0], scratch[9_998], scratch[9_999]), (7, 7, 8));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(heap);
        assert_eq!(memory.left(), 100_000);
        assert!(memory.zeros::<u64>(usize::MAX).is_err());
        let full = memory.zeros::<u8>(1 << 62).unwrap_err().to_string();
        assert!(full.contains("--memory"), "{full}");
    }
}
