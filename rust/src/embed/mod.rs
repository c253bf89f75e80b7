//! Texts to vectors on the processor: the forward pass of all-MiniLM-L6-v2, a six-layer BERT with mean pooling.
//!
//! The tokens of many texts stand one below the other in one matrix, without padding; only attention looks at texts.
//! All sums have one order, whatever the texts beside a text and whatever instructions the processor has, and every
//! operation is rounded as IEEE 754 says: a text's vector has the same bits in every batch and on every machine.
//!
//! `product` holds the products with weights, `attention` and `functions` the rest, and `weights` reads the file. Tokenising is the caller's.
//!
//! Most functions are `#[inline(always)]`, because one that is not part of a function with the attribute of
//! `Simd::run` may not use its instructions.
#![allow(clippy::inline_always)]

mod attention;
mod functions;
mod product;
#[cfg(test)]
mod tests;
mod weights;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use attention::{Attention, HeadRoom};
use functions::{Normalise, Pool, Unit};
use product::{Finish, Packed, Product, Row, Start, WIDTH};
use weights::{Norm, Weights};

use crate::error::{Error, Result};
use crate::simd::{Instructions, Simd, Work};

/// Rows that are worked on together, unless one text has more: eighteen tiles, few enough for the cache of a core.
const BLOCK_ROWS: usize = 252;

/// The model with its weights, ready to make vectors. It can be used by several threads at once.
#[derive(Debug)]
pub struct Encoder {
    weights: Weights,
    projection: Option<Packed>,
    dimension: usize,
    instructions: Instructions,
    /// Working memory that no thread is using.
    rooms: Mutex<Vec<Room>>,
}

/// Working memory of one thread.
#[derive(Debug, Default)]
struct Room {
    x: Vec<Row>,
    queries: Vec<Row>,
    keys: Vec<Row>,
    values: Vec<Row>,
    pooled: Vec<Row>,
    projected: Vec<Row>,
    head: HeadRoom,
}

impl Encoder {
    /// Reads the weights.
    ///
    /// # Arguments
    /// - `path`: the model's `model.safetensors`, which the caller has verified.
    /// - `projection`: 384 rows of `dimension` numbers; the pooled vectors are multiplied by it. None for vectors of
    ///   all 384 numbers.
    /// - `instructions`: `avx512`, `avx2` or `portable` instead of the fastest.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Schema`] when it is not that of the model,
    /// [`Error::Argument`] when the projection has another shape or this processor has not got the instructions.
    pub fn open(path: &Path, projection: Option<(&[f32], usize)>, instructions: Option<&str>) -> Result<Self> {
        let instructions = Instructions::find(instructions).ok_or_else(|| {
            let name = instructions.unwrap_or_default();
            Error::Argument(format!("this processor has no instructions `{name}`; there are avx512, avx2 and portable"))
        })?;
        let dimension = projection.map_or(WIDTH, |(_, dimension)| dimension);
        let projection = projection.map(|(numbers, dimension)| {
            if dimension == 0 || dimension > WIDTH || numbers.len() != WIDTH * dimension {
                return Err(Error::Argument(format!(
                    "the projection must have {WIDTH} rows of at most {WIDTH} numbers, found {} numbers in rows of {dimension}",
                    numbers.len()
                )));
            }
            Ok(Packed::new(dimension, |input, output| numbers[input * dimension + output], &Row::ZERO))
        });
        let projection = projection.transpose()?;
        Ok(Self { weights: Weights::open(path)?, projection, dimension, instructions, rooms: Mutex::default() })
    }

    /// Numbers of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The vectors of some texts, one after the other, each of length one.
    ///
    /// # Arguments
    /// - `tokens`: of all texts, one after the other, the marks at both ends included.
    /// - `lengths`: how many of them each text has.
    ///
    /// # Errors
    /// [`Error::Argument`] when a text is empty or too long, a token is unknown, or the lengths do not add up.
    pub fn encode(&self, tokens: &[u32], lengths: &[usize]) -> Result<Vec<f32>> {
        self.check(tokens, lengths)?;
        let mut room = self.rooms.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let mut vectors = Vec::with_capacity(lengths.len() * self.dimension);
        let (mut tokens, mut lengths) = (tokens, lengths);
        while !lengths.is_empty() {
            let (num_texts, num_rows) = block(lengths);
            let ((texts, later), (rows, rest)) = (lengths.split_at(num_texts), tokens.split_at(num_rows));
            self.instructions.run(Block { encoder: self, tokens: rows, lengths: texts, room: &mut room });
            let results = if self.projection.is_some() { &room.projected } else { &room.pooled };
            for row in results {
                vectors.extend_from_slice(&row.0[..self.dimension]);
            }
            (tokens, lengths) = (rest, later);
        }
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        Ok(vectors)
    }

    fn check(&self, tokens: &[u32], lengths: &[usize]) -> Result<()> {
        let longest = self.weights.positions.len();
        if let Some((idx, length)) = lengths.iter().enumerate().find(|&(_, &length)| length == 0 || length > longest) {
            return Err(Error::Argument(format!("text {idx}: expected 1 to {longest} tokens, found {length}")));
        }
        if lengths.iter().sum::<usize>() != tokens.len() {
            let message = format!("the lengths of the texts do not add up to the {} tokens", tokens.len());
            return Err(Error::Argument(message));
        }
        let num_words = self.weights.num_words();
        match tokens.iter().find(|&&token| token as usize >= num_words) {
            Some(token) => Err(Error::Argument(format!("token {token} is unknown; there are {num_words}"))),
            None => Ok(()),
        }
    }

    /// The vectors of the texts of one block, into `room.pooled` and, where there is one, through the projection.
    fn encode_block<S: Simd>(&self, simd: S, tokens: &[u32], lengths: &[usize], room: &mut Room) {
        let Room { x, queries, keys, values, pooled, projected, head } = room;
        x.clear();
        x.extend(tokens.iter().map(|&token| self.weights.word(token).unwrap_or(Row::ZERO)));
        for rows in [&mut *queries, &mut *keys, &mut *values] {
            rows.resize(tokens.len(), Row::ZERO);
        }
        keys.clear();
        keys.extend(lengths.iter().flat_map(|&length| &self.weights.positions[..length]));
        normalise(simd, x, keys, &self.weights.norm);
        for layer in &self.weights.layers {
            multiply(simd, x, &layer.query, Finish::Plain, queries);
            multiply(simd, x, &layer.key, Finish::Plain, keys);
            multiply(simd, x, &layer.value, Finish::Plain, values);
            simd.run(Attention { queries, keys, values, lengths, room: head });
            multiply(simd, queries, &layer.attention_output, Finish::Plain, keys);
            normalise(simd, x, keys, &layer.attention_norm);
            for (idx, square) in layer.squares.iter().enumerate() {
                multiply(simd, x, &square.up, Finish::Gelu, values);
                let start = if idx == 0 { Start::Bias } else { Start::Result };
                simd.run(Product { rows: values, weights: &square.down, start, finish: Finish::Plain, result: keys });
            }
            normalise(simd, x, keys, &layer.norm);
        }
        pooled.resize(lengths.len(), Row::ZERO);
        simd.run(Pool { rows: x, lengths, means: pooled });
        if let Some(projection) = &self.projection {
            projected.clear();
            projected.resize(lengths.len(), Row::ZERO);
            multiply(simd, pooled, projection, Finish::Plain, projected);
            simd.run(Unit(projected));
        } else {
            simd.run(Unit(pooled));
        }
    }
}

/// Some texts, encoded into the room.
struct Block<'a> {
    encoder: &'a Encoder,
    tokens: &'a [u32],
    lengths: &'a [usize],
    room: &'a mut Room,
}

impl Work for Block<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.encoder.encode_block(simd, self.tokens, self.lengths, self.room);
    }
}

fn multiply<S: Simd>(simd: S, rows: &[Row], weights: &Packed, finish: Finish, result: &mut [Row]) {
    simd.run(Product { rows, weights, start: Start::Bias, finish, result });
}

fn normalise<S: Simd>(simd: S, rows: &mut [Row], added: &[Row], norm: &Norm) {
    simd.run(Normalise { rows, added, scale: &norm.scale, shift: &norm.shift });
}

/// How many of the first texts make a block, and the number of their tokens.
fn block(lengths: &[usize]) -> (usize, usize) {
    let (mut num_texts, mut num_rows) = (0, 0);
    for &length in lengths {
        if num_texts > 0 && num_rows + length > BLOCK_ROWS {
            break;
        }
        num_texts += 1;
        num_rows += length;
    }
    (num_texts, num_rows)
}
