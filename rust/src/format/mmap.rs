//! Read-only mappings of whole files, whole files in memory, and scratch files. `unsafe` is here, in `simd` and in `py::xla`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

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

    /// Asks for huge pages in the system's cache of the file, for all who map it: a random access then costs less of a
    /// walk through page tables, and what is not in the cache is read 2 MiB at a time.
    #[must_use]
    pub fn in_huge_pages(self) -> Self {
        #[cfg(target_os = "linux")]
        // a hint that a system without huge pages of files refuses: small ones do
        let _ = self.0.advise(memmap2::Advice::HugePage);
        self
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

/// Takes a file that was written and synchronized out of the system's cache, which keeps written files in small pages:
/// the next reader may get [huge ones](Mapping::in_huge_pages). A hint.
pub(crate) fn leave_cache(path: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(file) = File::open(path) {
        use std::os::fd::AsRawFd;
        // SAFETY: plain integers, and a descriptor that stays open during the call, which changes no byte of the file.
        let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

/// A file without a name, mapped for reading and writing; its space is free again once the value or the process is gone.
#[derive(Debug)]
pub(crate) struct Scratch(memmap2::MmapMut);

impl Scratch {
    /// Makes a file of `len` zeros, at least one, on the disk of `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be written or its disk has no room for all of the file.
    pub(crate) fn create(folder: &Path, len: usize) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(".scratch-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        let fail = |error: std::io::Error| {
            let remedy = "free some space there or allow more --memory";
            let message = format!("a scratch file of {} MiB: {error}; {remedy}", len.div_ceil(1 << 20));
            Error::io(folder, std::io::Error::new(error.kind(), message))
        };
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(fail)?;
        // Without its name nothing of it outlives the process, however that ends.
        std::fs::remove_file(&path).map_err(fail)?;
        allocate(&file, len as u64).map_err(fail)?;
        // SAFETY: the file has no name and no other handle, so nobody else changes or truncates it; all of its length
        // is allocated, so a write cannot fail for want of space; bytes are only used as plain integers.
        unsafe { memmap2::MmapMut::map_mut(&file) }.map(Self).map_err(fail)
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Takes the pages out of the process; the next touch brings them back from the file.
    pub(crate) fn release_pages(&self) {
        #[cfg(unix)]
        // SAFETY: the mapping is shared with its file, where every byte stays as it is.
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

/// Gives a new file its length and the space for it.
#[cfg(target_os = "linux")]
fn allocate(file: &File, len: u64) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let too_long = |_| std::io::Error::from(std::io::ErrorKind::FileTooLarge);
    let len = libc::off_t::try_from(len).map_err(too_long)?;
    // SAFETY: plain integers, and a descriptor that stays open during the call.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}

/// Gives a new file its length and the space for it.
#[cfg(not(target_os = "linux"))]
fn allocate(mut file: &File, len: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), len), &mut file).map(|_| ())
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
