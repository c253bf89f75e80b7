//! Read-only mappings of whole files, and whole files in memory. `unsafe` is here and in `embed::simd`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
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
        let (file, _) = open(path)?;
        // SAFETY: the mapping is private and read-only, and bytes are only ever read as plain integers and floats,
        // for which every bit pattern is valid. A processed file is never written after its rename into place; a
        // program that truncates one under us gets SIGBUS, as with every memory-mapped store.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|source| Error::io(path, source))?;
        Ok(Self(map))
    }

    /// Reads a regular file into memory of its own, in huge pages where the system has them: a random access then costs
    /// no walk through page tables.
    ///
    /// # Errors
    /// As [`Self::open`], and [`Error::Io`] when there is not that much memory.
    pub fn read(path: &Path) -> Result<Self> {
        let (mut file, len) = open(path)?;
        let fault = |source| Error::io(path, source);
        let mut memory = memmap2::MmapMut::map_anon(usize::try_from(len).unwrap_or(usize::MAX)).map_err(fault)?;
        #[cfg(target_os = "linux")]
        // a hint that a system without huge pages refuses: small ones do
        let _ = memory.advise(memmap2::Advice::HugePage);
        file.read_exact(&mut memory).map_err(fault)?;
        Ok(Self(memory.make_read_only().map_err(fault)?))
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A regular file and its length.
fn open(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
    if !metadata.is_file() {
        return Err(Error::format(path, "expected a regular file"));
    }
    Ok((File::open(path).map_err(|source| Error::io(path, source))?, metadata.len()))
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
