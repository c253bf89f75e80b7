//! The weights of the model, from a file in the safetensors format.
//!
//! The file begins with the length of a JSON text (8 bytes, little-endian) and that text, which says of each tensor
//! its type, its shape and where its bytes are, counted from the end of the text.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::product::{Packed, Row, WIDTH};
use crate::error::{Error, Result};
use crate::format::mmap::Mapping;

const LAYERS: usize = 6;

/// Squares of 384 x 384 of which the wide layer has one after the other.
const SQUARES: usize = 4;

#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// An open file.
#[derive(Debug)]
struct Tensors {
    path: PathBuf,
    mapping: Mapping,
    entries: HashMap<String, Entry>,
    start: usize,
}

impl Tensors {
    fn open(path: &Path) -> Result<Self> {
        let mapping = Mapping::open(path)?;
        let damaged = |message: &str| Error::schema(path.display().to_string(), message);
        let (size, rest) =
            mapping.bytes().split_first_chunk::<8>().ok_or_else(|| damaged("is too short for a safetensors file"))?;
        let size = usize::try_from(u64::from_le_bytes(*size)).unwrap_or(usize::MAX);
        let text = rest.get(..size).ok_or_else(|| damaged("ends within its list of tensors"))?;
        let listed: HashMap<String, serde_json::Value> = serde_json::from_slice(text).map_err(|error| {
            damaged(&format!("is no safetensors file: its list of tensors cannot be read: {error}"))
        })?;
        let mut entries = HashMap::new();
        for (name, entry) in listed.into_iter().filter(|(name, _)| name != "__metadata__") {
            let entry = serde_json::from_value(entry)
                .map_err(|error| damaged(&format!("tensor `{name}` is not described as it should be: {error}")))?;
            entries.insert(name, entry);
        }
        Ok(Self { path: path.to_owned(), mapping, entries, start: 8 + size })
    }

    /// Where the bytes of a float32 tensor are, of which the first extent may be anything when `shape` has 0 there.
    fn range(&self, name: &str, shape: &[usize]) -> Result<Range<usize>> {
        let damaged = |message: String| Error::schema(format!("{}: tensor `{name}`", self.path.display()), message);
        let entry = self.entries.get(name).ok_or_else(|| damaged("is missing".into()))?;
        let is_expected = entry.shape.len() == shape.len()
            && entry.shape.iter().zip(shape).all(|(&found, &expected)| expected == 0 || found == expected);
        if entry.dtype != "F32" || !is_expected {
            return Err(damaged(format!(
                "expected F32 of shape {shape:?} (0 for any), found {} of shape {:?}",
                entry.dtype, entry.shape
            )));
        }
        let num_bytes = entry.shape.iter().try_fold(4_usize, |size, &extent| size.checked_mul(extent));
        let [from, to] = entry.data_offsets;
        let end = self.start.checked_add(to).filter(|&end| end <= self.mapping.bytes().len());
        match (num_bytes, to.checked_sub(from), end) {
            (Some(expected), Some(found), Some(end)) if expected == found => Ok(self.start + from..end),
            _ => {
                Err(damaged(format!("bytes {from} to {to} are not in the file or do not fit shape {:?}", entry.shape)))
            }
        }
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (numbers, _) = self.mapping.bytes()[self.range(name, shape)?].as_chunks();
        Ok(numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    fn rows(&self, name: &str) -> Result<Vec<Row>> {
        let floats = self.floats(name, &[0, WIDTH])?;
        Ok(floats.as_chunks().0.iter().map(|&row| Row(row)).collect())
    }

    fn row(&self, name: &str) -> Result<Row> {
        let floats = self.floats(name, &[WIDTH])?;
        Ok(Row(floats.as_chunks().0[0]))
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm {
            scale: self.row(&format!("{name}.LayerNorm.weight"))?,
            shift: self.row(&format!("{name}.LayerNorm.bias"))?,
        })
    }

    /// A square matrix with its bias.
    fn square(&self, name: &str) -> Result<Packed> {
        let weights = self.floats(&format!("{name}.weight"), &[WIDTH, WIDTH])?;
        let bias = self.row(&format!("{name}.bias"))?;
        Ok(Packed::new(WIDTH, |input, output| weights[output * WIDTH + input], &bias))
    }

    fn layer(&self, idx: usize) -> Result<Layer> {
        let name = |part: &str| format!("encoder.layer.{idx}.{part}");
        let wide = SQUARES * WIDTH;
        let up = self.floats(&name("intermediate.dense.weight"), &[wide, WIDTH])?;
        let up_bias = self.floats(&name("intermediate.dense.bias"), &[wide])?;
        let down = self.floats(&name("output.dense.weight"), &[WIDTH, wide])?;
        let down_bias = self.row(&name("output.dense.bias"))?;
        let squares = up_bias.as_chunks().0.iter().enumerate().map(|(square, &up_bias)| {
            let first = square * WIDTH;
            Square {
                up: Packed::new(WIDTH, |input, output| up[(first + output) * WIDTH + input], &Row(up_bias)),
                down: Packed::new(WIDTH, |input, output| down[output * wide + first + input], &down_bias),
            }
        });
        Ok(Layer {
            query: self.square(&name("attention.self.query"))?,
            key: self.square(&name("attention.self.key"))?,
            value: self.square(&name("attention.self.value"))?,
            attention_output: self.square(&name("attention.output.dense"))?,
            attention_norm: self.norm(&name("attention.output"))?,
            squares: squares.collect(),
            norm: self.norm(&name("output"))?,
        })
    }
}

/// Scale and shift of a normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) scale: Row,
    pub(super) shift: Row,
}

/// A part of the wide layer: 384 of its 1,536 numbers.
#[derive(Debug)]
pub(super) struct Square {
    pub(super) up: Packed,
    /// Its bias is that of the whole layer.
    pub(super) down: Packed,
}

/// One of the six layers.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) query: Packed,
    pub(super) key: Packed,
    pub(super) value: Packed,
    pub(super) attention_output: Packed,
    pub(super) attention_norm: Norm,
    pub(super) squares: Vec<Square>,
    pub(super) norm: Norm,
}

/// Everything of the model but the projection. Vectors of words stay in the file.
#[derive(Debug)]
pub(super) struct Weights {
    tensors: Tensors,
    words: Range<usize>,
    /// The vector of each position, that of the only kind of token added.
    pub(super) positions: Vec<Row>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
}

impl Weights {
    /// Reads and packs them.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let tensors = Tensors::open(path)?;
        let kinds = tensors.rows("embeddings.token_type_embeddings.weight")?;
        let mut positions = tensors.rows("embeddings.position_embeddings.weight")?;
        let kind = kinds.first().unwrap_or(&Row::ZERO);
        for row in &mut positions {
            row.0.iter_mut().zip(kind.0).for_each(|(value, kind)| *value += kind);
        }
        Ok(Self {
            words: tensors.range("embeddings.word_embeddings.weight", &[0, WIDTH])?,
            positions,
            norm: tensors.norm("embeddings")?,
            layers: (0..LAYERS).map(|idx| tensors.layer(idx)).collect::<Result<_>>()?,
            tensors,
        })
    }

    fn word_bytes(&self) -> &[[[u8; 4]; WIDTH]] {
        self.tensors.mapping.bytes()[self.words.clone()].as_chunks().0.as_chunks().0
    }

    /// How many tokens there are.
    pub(super) fn num_words(&self) -> usize {
        self.word_bytes().len()
    }

    /// The vector of a token.
    pub(super) fn word(&self, token: u32) -> Option<Row> {
        let bytes = self.word_bytes().get(token as usize)?;
        Some(Row(bytes.map(f32::from_le_bytes)))
    }
}
