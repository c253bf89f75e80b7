//! What the encode stage depends on, in one digest.

use std::path::Path;

use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3;

use super::EncodeOptions;
use super::files::{PartFile, part_files};
use crate::error::Result;
use crate::format::{FORMAT_VERSION, hash_file};
use crate::schema::Schema;

/// xxh3-128, in hex, of the bytes of every part file, the described tables, the options and the format version.
pub(super) fn fingerprint(input: &Path, schema: &Schema, options: &EncodeOptions) -> Result<String> {
    let per_table: Vec<Vec<PartFile>> =
        schema.tables.iter().map(|table| part_files(input, table)).collect::<Result<_>>()?;
    let files: Vec<&PartFile> = per_table.iter().flatten().collect();
    let hashes: Vec<Result<String>> = files.par_iter().map(|file| hash_file(&file.path)).collect();
    let mut all = Xxh3::new();
    let mut add = |text: &str| {
        all.update(&(text.len() as u64).to_le_bytes());
        all.update(text.as_bytes());
    };
    add(&format!("format {FORMAT_VERSION} strict {} stats_until {:?}", options.strict, options.stats_until));
    add(&schema.encoded_part());
    for (file, hash) in files.iter().zip(hashes) {
        add(&file.name);
        add(&hash?);
    }
    Ok(format!("{:032x}", all.digest128()))
}
