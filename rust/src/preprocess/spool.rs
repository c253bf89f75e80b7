//! Cells that were decoded before the layout of their records is known: kept in memory while they are few, then in a
//! file of staging that has no name.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::staged::remove_if_there;
use crate::error::{Error, Result};
use crate::format::packed::{Packed, TAIL, pack, packed_len, width_of};

/// Bytes that are kept in memory.
const IN_MEMORY: usize = 16 << 20;

/// Some numbers in a spool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spooled {
    at: u64,
    width: u8,
    len: usize,
}

impl Spooled {
    /// The three numbers that [`Spooled::from_numbers`] takes.
    pub(super) fn numbers(self) -> [u64; 3] {
        [self.at, u64::from(self.width), self.len as u64]
    }

    pub(super) fn from_numbers([at, width, len]: [u64; 3]) -> Self {
        Self { at, width: width as u8, len: len as usize }
    }
}

/// Numbers that are written once, and then read.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    memory: Vec<u8>,
    file: Option<BufWriter<File>>,
    len: u64,
}

/// Numbers that were read back.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    bytes: Vec<u8>,
    width: u8,
    len: usize,
}

impl Numbers {
    pub(super) fn packed(&self) -> Packed<'_> {
        Packed::new(&self.bytes, self.width, self.len).expect("read back as they were written")
    }
}

impl Spool {
    /// An empty one, whose file is made in `staging` when it is needed.
    pub(super) fn new(staging: &Path) -> Result<Self> {
        let path = staging.join(".spool");
        // a run that was killed between the making of the file and the removal of its name left it behind
        remove_if_there(&path)?;
        Ok(Self { path, memory: Vec::new(), file: None, len: 0 })
    }

    /// Appends numbers.
    pub(super) fn append(&mut self, numbers: impl ExactSizeIterator<Item = u64> + Clone) -> Result<Spooled> {
        let width = width_of(numbers.clone().max().unwrap_or(0));
        let spooled = Spooled { at: self.len, width, len: numbers.len() };
        let start = self.memory.len();
        pack(numbers, width, &mut self.memory);
        self.memory.resize(self.memory.len() + TAIL, 0);
        self.len += (self.memory.len() - start) as u64;
        if self.memory.len() > IN_MEMORY {
            self.spill().map_err(|source| Error::io(&self.path, source))?;
        }
        Ok(spooled)
    }

    fn spill(&mut self) -> std::io::Result<()> {
        if self.file.is_none() {
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&self.path)?;
            std::fs::remove_file(&self.path)?;
            self.file = Some(BufWriter::new(file));
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.memory)?;
        }
        self.memory.clear();
        Ok(())
    }

    /// Reads numbers back.
    pub(super) fn read(&mut self, spooled: Spooled) -> Result<Numbers> {
        let Spooled { at, width, len } = spooled;
        let mut bytes = vec![0; packed_len(len, width).unwrap_or(0)];
        let in_file = self.len - self.memory.len() as u64;
        if at >= in_file {
            let kept = &self.memory[(at - in_file) as usize..];
            bytes.copy_from_slice(&kept[..packed_len(len, width).unwrap_or(0)]);
        } else if let Some(file) = &mut self.file {
            let mut read = |file: &mut BufWriter<File>| {
                file.seek(SeekFrom::Start(at))?; // writes what is buffered
                file.get_mut().read_exact(&mut bytes)
            };
            read(file).map_err(|source| Error::io(&self.path, source))?;
        }
        Ok(Numbers { bytes, width, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_from_memory_and_file() {
        let root = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(root.path()).unwrap();
        let lists: Vec<Vec<u64>> = (0..40).map(|list| (0..list * 5000).map(|number| number * list).collect()).collect();
        let spooled: Vec<Spooled> = lists.iter().map(|list| spool.append(list.iter().copied()).unwrap()).collect();
        assert!(spool.len > IN_MEMORY as u64 / 2);
        while spool.len <= IN_MEMORY as u64 {
            spool.append((0..1u32 << 20).map(|number| u64::from(number) << 30)).unwrap();
        }
        let last = spool.append([1, u64::MAX].into_iter()).unwrap();
        for (list, spooled) in lists.iter().zip(spooled) {
            assert!(spool.read(spooled).unwrap().packed().iter().eq(list.iter().copied()));
        }
        assert!(spool.read(last).unwrap().packed().iter().eq([1, u64::MAX]));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
