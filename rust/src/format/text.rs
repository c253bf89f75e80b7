//! Lists of texts, compressed in blocks: `BLOCKS` says where each block lies, `BYTES` holds them.
//!
//! A block is the lengths of its texts in LEB128, then the texts, compressed as one zstd frame. Blocks end with the
//! text that brings them to [`BLOCK_LEN`] bytes, so that one text costs the decompression of little more than that.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::file::{FileReader, FileWriter, SectionWriter};
use super::texts::{BLOCKS, BYTES};
use crate::error::{Error, Result};

/// Bytes of texts that complete a block.
const BLOCK_LEN: usize = 16 << 10;
/// Blocks compressed at the same time.
const TOGETHER: usize = 64;
/// The level of zstd that costs about as much as writing the bytes it saves.
const LEVEL: i32 = 1;
/// Decompressed bytes that are believed before they are seen.
const TRUSTED_LEN: u64 = 1 << 20;

/// Where a block begins, counted over the blocks before it.
type Place = [u64; 3];

/// Writes a list of texts as the two sections of [`super::texts`].
#[allow(missing_debug_implementations)]
pub struct TextWriter<'a> {
    bytes: SectionWriter<'a>,
    places: Vec<Place>,
    full: Vec<Block>,
    open: Block,
}

#[derive(Debug, Default)]
struct Block {
    texts: u64,
    lengths: Vec<u8>,
    bytes: Vec<u8>,
}

impl<'a> TextWriter<'a> {
    /// No texts yet.
    pub fn new(writer: &'a mut FileWriter) -> Result<Self> {
        Ok(Self { bytes: writer.section(BYTES)?, places: vec![[0; 3]], full: Vec::new(), open: Block::default() })
    }

    /// Adds a text.
    pub fn push(&mut self, text: &[u8]) -> Result<()> {
        self.open.push(text);
        if self.open.bytes.len() >= BLOCK_LEN {
            self.full.push(std::mem::take(&mut self.open));
            if self.full.len() == TOGETHER {
                self.compress()?;
            }
        }
        Ok(())
    }

    /// Writes the complete blocks.
    fn compress(&mut self) -> Result<()> {
        let blocks = std::mem::take(&mut self.full);
        let compressed: Vec<std::io::Result<Vec<u8>>> = blocks
            .par_iter()
            .map_init(
                || zstd::bulk::Compressor::new(LEVEL),
                |compressor, block| match compressor {
                    Ok(compressor) => compressor.compress(&[block.lengths.as_slice(), &block.bytes].concat()),
                    Err(error) => Err(std::io::Error::other(error.to_string())),
                },
            )
            .collect();
        for (block, compressed) in blocks.iter().zip(compressed) {
            let compressed = compressed.map_err(|source| Error::io(self.bytes.path(), source))?;
            self.bytes.append(&compressed)?;
            let [texts, end, raw] = self.places[self.places.len() - 1];
            let len = (block.lengths.len() + block.bytes.len()) as u64;
            self.places.push([texts + block.texts, end + compressed.len() as u64, raw + len]);
        }
        Ok(())
    }

    /// Completes both sections.
    pub fn finish(mut self) -> Result<()> {
        if self.open.texts > 0 {
            self.full.push(std::mem::take(&mut self.open));
        }
        self.compress()?;
        let places = self.places;
        let writer = self.bytes.close();
        writer.values(BLOCKS, &places)
    }
}

impl Block {
    fn push(&mut self, text: &[u8]) {
        self.texts += 1;
        let mut len = text.len();
        while len >= 128 {
            self.lengths.push((len % 128) as u8 | 128);
            len /= 128;
        }
        self.lengths.push(len as u8);
        self.bytes.extend_from_slice(text);
    }
}

impl FileWriter {
    /// Writes a list of texts as the two sections of [`super::texts`].
    pub fn texts<T: AsRef<[u8]>>(&mut self, texts: impl IntoIterator<Item = T>) -> Result<()> {
        let mut writer = TextWriter::new(self)?;
        texts.into_iter().try_for_each(|text| writer.push(text.as_ref()))?;
        writer.finish()
    }
}

/// The block that was read last: who asks for one text asks for its neighbours, too.
#[derive(Debug, Default)]
pub(super) struct LastBlock(Mutex<Option<(usize, Arc<Texts>)>>);

/// The texts of one block.
#[derive(Debug)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// Where each text begins in `bytes`, and where the last one ends.
    starts: Vec<usize>,
}

impl Texts {
    /// Takes a decompressed block apart; `None` when it is not `number` texts of UTF-8.
    fn parse(bytes: Vec<u8>, number: usize) -> Option<Self> {
        // a text takes a byte for its length at least
        let mut starts = Vec::with_capacity(number.checked_add(1).filter(|_| number <= bytes.len())?);
        let (mut at, mut end) = (0, 0usize);
        starts.push(0);
        for _ in 0..number {
            let (mut len, mut shift) = (0u64, 0);
            loop {
                let byte = *bytes.get(at)?;
                at += 1;
                len |= u64::from(byte & 127).checked_shl(shift).filter(|_| shift < 63)?;
                shift += 7;
                if byte < 128 {
                    break;
                }
            }
            end = end.checked_add(usize::try_from(len).ok()?)?;
            starts.push(end);
        }
        for start in &mut starts {
            *start = start.saturating_add(at);
        }
        let is_whole = starts.last() == Some(&bytes.len()) && std::str::from_utf8(&bytes[at..]).is_ok();
        is_whole.then_some(Self { bytes, starts })
    }

    fn get(&self, idx: usize) -> Option<&str> {
        let range = *self.starts.get(idx)?..*self.starts.get(idx + 1)?;
        std::str::from_utf8(self.bytes.get(range)?).ok()
    }
}

impl FileReader {
    fn places(&self) -> Result<&[Place]> {
        let places = self.values::<Place>(BLOCKS)?;
        if places.first() == Some(&[0; 3]) { Ok(places) } else { Err(self.fault(BLOCKS, "does not begin with zeros")) }
    }

    /// Number of texts of the two sections of [`super::texts`].
    pub fn num_texts(&self) -> Result<usize> {
        let last = self.places()?.last().map_or(0, |place| place[0]);
        usize::try_from(last).map_err(|_| self.fault(BLOCKS, "counts too many texts"))
    }

    /// The `idx`-th text of the two sections of [`super::texts`].
    ///
    /// # Errors
    /// [`Error::Format`] when `idx` is out of range or the bytes are damaged.
    pub fn text(&self, idx: usize) -> Result<String> {
        let places = self.places()?;
        let block = places.partition_point(|place| place[0] <= idx as u64).wrapping_sub(1);
        let missing = || self.fault(BYTES, &format!("holds no text {idx}"));
        let first = places.get(block).ok_or_else(missing)?[0] as usize;
        let mut last = self.last_block.0.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = match &*last {
            Some((number, texts)) if *number == block => Arc::clone(texts),
            _ => Arc::new(self.block(block).ok_or_else(missing)?),
        };
        *last = Some((block, Arc::clone(&texts)));
        idx.checked_sub(first).and_then(|idx| texts.get(idx)).map(str::to_owned).ok_or_else(missing)
    }

    /// Calls `emit` with every text and its number, in order.
    ///
    /// # Errors
    /// [`Error::Format`] when the bytes are damaged; whatever `emit` answers.
    pub fn each_text(&self, mut emit: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
        let mut idx = 0;
        for block in 0..self.places()?.len() - 1 {
            let damaged = || self.fault(BYTES, &format!("is damaged at block {block}"));
            let texts = self.block(block).ok_or_else(damaged)?;
            for number in 0..texts.starts.len() - 1 {
                emit(idx, texts.get(number).ok_or_else(damaged)?)?;
                idx += 1;
            }
        }
        Ok(())
    }

    /// The texts of a block; `None` when there is no such block or it is damaged.
    fn block(&self, block: usize) -> Option<Texts> {
        let places = self.places().ok()?;
        let ([first, start, raw], [end_text, end, end_raw]) = (*places.get(block)?, *places.get(block + 1)?);
        let (number, len) = (end_text.checked_sub(first)?, end_raw.checked_sub(raw)?);
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        let compressed = self.values::<u8>(BYTES).ok()?.get(range)?;
        let mut bytes = Vec::new();
        if len <= TRUSTED_LEN {
            bytes = zstd::bulk::decompress(compressed, len as usize).ok()?;
        } else {
            zstd::Decoder::with_buffer(compressed).ok()?.take(len.checked_add(1)?).read_to_end(&mut bytes).ok()?;
        }
        if bytes.len() as u64 == len { Texts::parse(bytes, usize::try_from(number).ok()?) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::file::FileKind;
    use super::*;

    fn written(root: &Path, texts: &[String]) -> FileReader {
        let mut writer = FileWriter::create(root, "v", FileKind::Vocabulary, 7, 2).unwrap();
        writer.texts(texts).unwrap();
        writer.finish().unwrap();
        FileReader::open(root, "v", FileKind::Vocabulary).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn texts_are_read_back(
            texts in prop::collection::vec(("[a-zéß🦀]{0,9}", prop_oneof![9 => 0usize..3, 1 => 0usize..4000]), 0..200)
        ) {
            let texts: Vec<String> = texts.iter().map(|(text, times)| text.repeat(*times)).collect();
            let root = tempfile::tempdir().unwrap();
            let file = written(root.path(), &texts);
            prop_assert_eq!(file.num_texts().unwrap(), texts.len());
            let mut read = Vec::new();
            file.each_text(|idx, text| {
                assert_eq!(idx, read.len());
                read.push(text.to_owned());
                Ok(())
            }).unwrap();
            prop_assert_eq!(&read, &texts);
            for idx in (0..texts.len()).step_by(17) {
                prop_assert_eq!(&file.text(idx).unwrap(), &texts[idx]);
            }
            prop_assert!(file.text(texts.len()).is_err());
        }

        #[test]
        fn no_block_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), number in 0usize..50) {
            if let Some(texts) = Texts::parse(bytes, number) {
                prop_assert!((0..number).all(|idx| texts.get(idx).is_none_or(|text| text.len() < 50)));
            }
        }
    }

    #[test]
    fn large_blocks_and_repeated_texts() {
        let root = tempfile::tempdir().unwrap();
        let texts = vec![String::new(), "x".repeat(3 << 20), "y".into()];
        let file = written(root.path(), &texts);
        assert!((0..3).all(|idx| file.text(idx).unwrap() == texts[idx]));
        assert!(std::fs::metadata(root.path().join("v")).unwrap().len() < 10_000);
    }
}
