//! Any bytes in the place of one file: `open` and `verify` answer with an error or mean what was published.
//!
//! Input: which file (the manifest last); flags (1: checksums are made right first, 2: what follows are the file's whole
//! bytes); else changes of the good file, 6 bytes each: how, where (u32), what.
#![no_main]

use headwater::{Database, MANIFEST_FILE};
use libfuzzer_sys::fuzz_target;

#[path = "good.rs"]
mod good;

const WORDS: [u64; 6] = [0, 1, 64, 1 << 32, i64::MAX as u64, u64::MAX];

/// The good bytes with every change made, in order.
fn changed(original: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for change in changes.chunks_exact(6).take(32) {
        if bytes.len() <= 8 {
            break;
        }
        let at = u32::from_le_bytes(change[1..5].try_into().unwrap()) as usize % (bytes.len() - 8);
        match change[0] % 4 {
            0 | 1 => bytes[at] = change[5],
            2 => bytes[at..at + 8].copy_from_slice(&WORDS[change[5] as usize % WORDS.len()].to_le_bytes()),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let [file, flags, rest @ ..] = input else { return };
    let good = good::good();
    let (name, original) = &good.files[*file as usize % good.files.len()];
    let (is_repaired, is_whole) = (flags & 1 != 0, flags & 2 != 0);
    let bytes = if is_whole { rest.to_vec() } else { changed(original, rest) };
    let bytes = match (is_repaired, name == MANIFEST_FILE) {
        (false, _) => bytes,
        (true, true) => good::with_checksum(&bytes),
        (true, false) => good::with_hashes(&bytes),
    };
    let mut files = vec![(name.as_str(), bytes.clone())];
    if is_repaired && name != MANIFEST_FILE {
        files.push((MANIFEST_FILE, good.manifest_for(name, &bytes)));
    }
    good.with(&files, |root| {
        let Ok(database) = Database::open(root) else { return };
        let verified = database.verify();
        assert!(is_repaired || bytes == *original || verified.is_err(), "{name}: other bytes are taken for sound");
        good::use_all(&database);
    });
});
