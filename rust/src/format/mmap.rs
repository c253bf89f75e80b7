//! Read-only mappings of whole files. All `unsafe` of the crate is here.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};

/// A regular file, mapped read-only for as long as this value lives.
#[derive(Debug)]
pub struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps a regular file (symbolic links are followed).
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or mapped, [`Error::Format`] when it is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
        if !metadata.is_file() {
            return Err(Error::format(path, "expected a regular file"));
        }
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        // SAFETY: the mapping is private and read-only, and bytes are only ever read as plain integers and floats,
        // for which every bit pattern is valid. A processed file is never written after its rename into place; a
        // program that truncates one under us gets SIGBUS, as with every memory-mapped store.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|source| Error::io(path, source))?;
        Ok(Self(map))
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Asks the processor to bring the cache line of `values[idx]` closer; does nothing where `idx` is out of range or
/// the processor has no such instruction.
#[inline(always)]
#[allow(clippy::inline_always)]
pub fn prefetch_read<T>(values: &[T], idx: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(value) = values.get(idx) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address changes nothing a program can observe, and every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, idx);
}
