//! Header, sections, checksums: the shell every binary file shares.
//!
//! ```text
//! 0   magic        b"TRIBUTRY"
//! 8   version      u32
//! 12  kind         u32, FileKind
//! 16  build_id     u64
//! 24  name_hash    u64, xxh3-64 of the path relative to the database
//! 32  file_len     u64
//! 40  num_sections u32
//! 44  zero         u32
//! 48  checksum     u64, xxh3-64 of the header (this field zero) and the table of sections
//! 56  zero         u64
//! 64  sections     num_sections x { tag u32, index u32, offset u64, len u64, xxh3-64 u64 }
//! ```
//! Sections follow in the order of their table, each at the next multiple of 64; gaps are zero. All little-endian.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::FORMAT_VERSION;
use super::mmap::Mapping;
use super::packed::{Packed, TAIL, pack};
use super::text::LastBlock;
use crate::error::{Error, Result};

#[cfg(not(target_endian = "little"))]
compile_error!("processed files are little-endian and are read in place");

const MAGIC: [u8; 8] = *b"TRIBUTRY";
const ALIGN: u64 = 64;
const MAX_SECTIONS: u32 = 1 << 20;

/// What a binary file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FileKind {
    /// The rows of a table.
    Table = 1,
    /// The children of every row.
    Graph = 2,
    /// The seeds of a task.
    Task = 3,
    /// The texts of the vocabulary.
    Vocabulary = 4,
    /// Embedding vectors.
    Vectors = 5,
}

/// The name of a section within its kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    tag: u32,
    index: u32,
}

impl Section {
    /// A section that occurs once.
    pub const fn new(tag: u32) -> Self {
        Self { tag, index: 0 }
    }

    /// One of several sections of a tag.
    pub const fn of(tag: u32, index: u32) -> Self {
        Self { tag, index }
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: u32,
    kind: u32,
    build_id: u64,
    name_hash: u64,
    file_len: u64,
    num_sections: u32,
    zero: u32,
    checksum: u64,
    zero_tail: u64,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    tag: u32,
    index: u32,
    offset: u64,
    len: u64,
    xxh3: u64,
}

const HEADER_LEN: u64 = size_of::<Header>() as u64;
const ENTRY_LEN: u64 = size_of::<Entry>() as u64;

fn checksum(header: &Header, entries: &[Entry]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(bytemuck::bytes_of(&Header { checksum: 0, ..*header }));
    hasher.update(bytemuck::cast_slice(entries));
    hasher.digest()
}

/// Writes one binary file, section after section.
///
/// The number of sections is fixed at the start; nothing is valid before [`FileWriter::finish`].
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    file: BufWriter<File>,
    header: Header,
    entries: Vec<Entry>,
    position: u64,
}

impl FileWriter {
    /// Creates the file `root/name` (and the folders of `name`) for `num_sections` sections.
    ///
    /// A file of that name is replaced and not written into, for its bytes may have a second name in another database.
    pub fn create(root: &Path, name: &str, kind: FileKind, build_id: u64, num_sections: usize) -> Result<Self> {
        let path = root.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| Error::io(parent, source))?;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&path, error)),
            _ => {}
        }
        let file = File::create(&path).map_err(|source| Error::io(&path, source))?;
        let num_sections = u32::try_from(num_sections)
            .ok()
            .filter(|&count| count <= MAX_SECTIONS)
            .ok_or_else(|| Error::Argument(format!("{name}: {num_sections} sections exceed {MAX_SECTIONS}")))?;
        let header = Header {
            magic: MAGIC,
            version: FORMAT_VERSION,
            kind: kind as u32,
            build_id,
            name_hash: xxh3_64(name.as_bytes()),
            file_len: 0,
            num_sections,
            zero: 0,
            checksum: 0,
            zero_tail: 0,
        };
        let position = HEADER_LEN + ENTRY_LEN * u64::from(num_sections);
        let mut writer =
            Self { path, file: BufWriter::with_capacity(1 << 20, file), header, entries: vec![], position: 0 };
        writer.zeros(position)?;
        Ok(writer)
    }

    fn zeros(&mut self, upto: u64) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.position < upto {
            let step = (upto - self.position).min(ZEROS.len() as u64);
            self.file.write_all(&ZEROS[..step as usize]).map_err(|source| Error::io(&self.path, source))?;
            self.position += step;
        }
        Ok(())
    }

    /// Opens the next section; bytes are appended to the returned writer.
    ///
    /// # Panics
    /// If all announced sections are written.
    pub fn section(&mut self, section: Section) -> Result<SectionWriter<'_>> {
        assert!(self.entries.len() < self.header.num_sections as usize, "more sections than announced");
        self.zeros(self.position.next_multiple_of(ALIGN))?;
        let offset = self.position;
        Ok(SectionWriter { writer: self, section, offset, hasher: Xxh3::new() })
    }

    /// Writes a whole section of plain values.
    pub fn values<T: Pod>(&mut self, section: Section, values: &[T]) -> Result<()> {
        let mut writer = self.section(section)?;
        writer.append(bytemuck::cast_slice(values))?;
        writer.close();
        Ok(())
    }

    /// Writes a section of numbers of `width` bytes; see [`super::packed`].
    pub fn packed(
        &mut self,
        section: Section,
        width: u8,
        mut numbers: impl ExactSizeIterator<Item = u64>,
    ) -> Result<()> {
        const AT_ONCE: usize = 1 << 14;
        let mut writer = self.section(section)?;
        let mut bytes = Vec::new();
        while width > 0 && numbers.len() > 0 {
            bytes.clear();
            pack(numbers.by_ref().take(AT_ONCE), width, &mut bytes);
            writer.append(&bytes)?;
        }
        writer.append(&[0; TAIL])?;
        writer.close();
        Ok(())
    }

    /// Completes the header and syncs the file to disk.
    ///
    /// # Panics
    /// If fewer sections were written than announced.
    pub fn finish(mut self) -> Result<()> {
        assert_eq!(self.entries.len(), self.header.num_sections as usize, "fewer sections than announced");
        self.zeros(self.position.next_multiple_of(ALIGN))?;
        self.header.file_len = self.position;
        self.header.checksum = checksum(&self.header, &self.entries);
        let write = |file: &mut BufWriter<File>| -> std::io::Result<()> {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(bytemuck::bytes_of(&self.header))?;
            file.write_all(bytemuck::cast_slice(&self.entries))?;
            file.flush()?;
            file.get_ref().sync_all()
        };
        write(&mut self.file).map_err(|source| Error::io(&self.path, source))
    }
}

/// Appends bytes to one section.
#[allow(missing_debug_implementations)]
pub struct SectionWriter<'a> {
    writer: &'a mut FileWriter,
    section: Section,
    offset: u64,
    hasher: Xxh3,
}

impl<'a> SectionWriter<'a> {
    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.writer.file.write_all(bytes).map_err(|source| Error::io(&self.writer.path, source))?;
        self.writer.position += bytes.len() as u64;
        Ok(())
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.writer.path
    }

    /// Ends the section; answers the writer of the next ones.
    pub fn close(self) -> &'a mut FileWriter {
        self.writer.entries.push(Entry {
            tag: self.section.tag,
            index: self.section.index,
            offset: self.offset,
            len: self.writer.position - self.offset,
            xxh3: self.hasher.digest(),
        });
        self.writer
    }
}

/// xxh3-128 of a file's bytes, in hex.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|source| Error::io(path, source))?;
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(|source| Error::io(path, source))?;
        if read == 0 {
            return Ok(format!("{:032x}", hasher.digest128()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residence {
    /// In the system's cache of the file, shared by all processes.
    #[default]
    Mapped,
    /// There, too, in huge pages where the system has them: for files that fit into its memory and are read at random.
    HugePages,
    /// In this process's own memory, in huge pages.
    Memory,
}

/// One binary file, mapped; its header and the places of its sections are checked.
#[derive(Debug)]
pub struct FileReader {
    path: PathBuf,
    mapping: Mapping,
    entries: Vec<Entry>,
    build_id: u64,
    pub(super) last_block: LastBlock,
}

impl FileReader {
    /// Opens the file `root/name` and checks everything but the content of its sections.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Format`] when it is not a whole file of this kind, name and version.
    pub fn open(root: &Path, name: &str, kind: FileKind) -> Result<Self> {
        Self::open_in(root, name, kind, Residence::Mapped)
    }

    /// As [`Self::open`], with a say in where its bytes are.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(root: &Path, name: &str, kind: FileKind, residence: Residence) -> Result<Self> {
        let path = root.join(name);
        let mapping = match residence {
            Residence::Mapped => Mapping::open(&path)?,
            Residence::HugePages => Mapping::open(&path)?.in_huge_pages(),
            Residence::Memory => Mapping::read(&path)?,
        };
        let (entries, build_id) =
            check(mapping.bytes(), name, kind).map_err(|message| Error::format(&path, message))?;
        Ok(Self { path, mapping, entries, build_id, last_block: LastBlock::default() })
    }

    /// The build this file belongs to.
    pub fn build_id(&self) -> u64 {
        self.build_id
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The values of a section, in place.
    ///
    /// # Errors
    /// [`Error::Format`] when the section is missing or its length is no multiple of the size of `T`.
    pub fn values<T: Pod>(&self, section: Section) -> Result<&[T]> {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.tag == section.tag && entry.index == section.index)
            .ok_or_else(|| self.fault(section, "is missing"))?;
        let bytes = &self.mapping.bytes()[entry.offset as usize..(entry.offset + entry.len) as usize];
        bytemuck::try_cast_slice(bytes).map_err(|_| self.fault(section, "has a length that does not fit its type"))
    }

    /// The values of a section; none where the file has no such section.
    pub fn optional<T: Pod>(&self, section: Section) -> Result<&[T]> {
        let is_there = self.entries.iter().any(|entry| entry.tag == section.tag && entry.index == section.index);
        if is_there { self.values(section) } else { Ok(&[]) }
    }

    /// The values of a section that must have `len` of them.
    pub fn exactly<T: Pod>(&self, section: Section, len: usize) -> Result<&[T]> {
        let values = self.values(section)?;
        if values.len() == len {
            Ok(values)
        } else {
            Err(self.fault(section, &format!("has {} values, expected {len}", values.len())))
        }
    }

    /// The `len` numbers of `width` bytes of a section, in place; see [`super::packed`].
    pub fn packed(&self, section: Section, width: u8, len: usize) -> Result<Packed<'_>> {
        let bytes = self.values(section)?;
        Packed::new(bytes, width, len).ok_or_else(|| {
            self.fault(section, &format!("has {} bytes, expected {len} numbers of {width} bytes", bytes.len()))
        })
    }

    /// Hashes every section and checks the gaps between them.
    ///
    /// # Errors
    /// [`Error::Format`] naming the first section whose bytes are not what was written.
    pub fn verify(&self) -> Result<()> {
        let bytes = self.mapping.bytes();
        let mut end = HEADER_LEN + ENTRY_LEN * self.entries.len() as u64;
        for entry in &self.entries {
            let section = Section::of(entry.tag, entry.index);
            if bytes[end as usize..entry.offset as usize].iter().any(|&byte| byte != 0) {
                return Err(self.fault(section, "does not follow zeros"));
            }
            end = entry.offset + entry.len;
            if xxh3_64(&bytes[entry.offset as usize..end as usize]) != entry.xxh3 {
                return Err(self.fault(section, "does not match its checksum"));
            }
        }
        if bytes[end as usize..].iter().any(|&byte| byte != 0) {
            return Err(Error::format(&self.path, "bytes after the last section"));
        }
        Ok(())
    }

    pub(super) fn fault(&self, section: Section, message: &str) -> Error {
        Error::format(&self.path, format!("section {}.{} {message}", section.tag, section.index))
    }
}

/// Checks a file's header and table of sections; answers the sections and the build id, or what is wrong.
fn check(bytes: &[u8], name: &str, kind: FileKind) -> Result<(Vec<Entry>, u64), String> {
    let header: Header = bytes
        .get(..HEADER_LEN as usize)
        .map(bytemuck::pod_read_unaligned)
        .ok_or_else(|| format!("{} bytes are too short for a processed file", bytes.len()))?;
    if header.magic != MAGIC {
        return Err("not a file of a processed database (wrong magic)".into());
    }
    if header.version != FORMAT_VERSION {
        return Err(format!("format version {} found, this build reads version {FORMAT_VERSION}", header.version));
    }
    if header.file_len != bytes.len() as u64 {
        return Err(format!("{} bytes found, {} expected", bytes.len(), header.file_len));
    }
    let table_end = HEADER_LEN + ENTRY_LEN * u64::from(header.num_sections.min(MAX_SECTIONS));
    let table = bytes.get(HEADER_LEN as usize..table_end as usize).ok_or("the table of sections is cut off")?;
    let entries: Vec<Entry> = bytemuck::pod_collect_to_vec(table);
    if header.num_sections > MAX_SECTIONS || checksum(&header, &entries) != header.checksum {
        return Err("the header does not match its checksum".into());
    }
    if header.kind != kind as u32 || header.name_hash != xxh3_64(name.as_bytes()) {
        return Err("this is another file of a processed database, moved here".into());
    }
    let mut end = table_end;
    for entry in &entries {
        let fits = entry.offset.checked_add(entry.len).is_some_and(|upto| upto <= header.file_len);
        if entry.offset != end.next_multiple_of(ALIGN) || !fits {
            return Err(format!("section {}.{} lies outside of the file", entry.tag, entry.index));
        }
        end = entry.offset + entry.len;
    }
    Ok((entries, header.build_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(root: &Path) -> Vec<u8> {
        let mut writer = FileWriter::create(root, "tables/a.bin", FileKind::Table, 7, 3).unwrap();
        writer.values(Section::new(1), &[1u32, 2, 3]).unwrap();
        writer.texts(["one", "", "três"]).unwrap();
        writer.finish().unwrap();
        std::fs::read(root.join("tables/a.bin")).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        written(root.path());
        let file = FileReader::open(root.path(), "tables/a.bin", FileKind::Table).unwrap();
        assert_eq!(file.exactly::<u32>(Section::new(1), 3).unwrap(), [1, 2, 3]);
        let texts: Vec<String> = (0..file.num_texts().unwrap()).map(|idx| file.text(idx).unwrap()).collect();
        assert_eq!((texts, file.build_id()), (["one", "", "três"].map(String::from).to_vec(), 7));
        assert!(file.text(3).is_err() && file.values::<u32>(Section::new(9)).is_err());
        assert!(file.exactly::<u32>(Section::new(1), 4).is_err());
        file.verify().unwrap();
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_detected() {
        let root = tempfile::tempdir().unwrap();
        let good = written(root.path());
        let path = root.path().join("tables/a.bin");
        let read = || FileReader::open(root.path(), "tables/a.bin", FileKind::Table)?.verify();
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert!(matches!(read(), Err(Error::Format { .. })), "flip of byte {byte}");
        }
        for cut in (0..good.len()).step_by(7) {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert!(matches!(read(), Err(Error::Format { .. })), "cut to {cut}");
        }
    }

    #[test]
    fn another_name_or_kind_is_refused() {
        let root = tempfile::tempdir().unwrap();
        written(root.path());
        assert!(FileReader::open(root.path(), "tables/a.bin", FileKind::Task).is_err());
        std::fs::rename(root.path().join("tables/a.bin"), root.path().join("tables/b.bin")).unwrap();
        assert!(FileReader::open(root.path(), "tables/b.bin", FileKind::Table).is_err());
        assert!(matches!(FileReader::open(root.path(), "gone", FileKind::Table), Err(Error::Io { .. })));
    }
}
