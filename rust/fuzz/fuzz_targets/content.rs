//! Changed words in the sections of a file (records, links, children, seeds, texts): whatever `open` lets through is
//! sampled and inspected without a crash, and `verify` never takes it for what was published.
//!
//! Input: which file, a flag (odd: every hash is made right, so that only the content can be refused), then changes of
//! 8 bytes each: where (u32, a word of the file) and what (u32).
#![no_main]

use headwater::{Database, MANIFEST_FILE};
use libfuzzer_sys::fuzz_target;

#[path = "good.rs"]
mod good;

fuzz_target!(|input: &[u8]| {
    let [file, flag, changes @ ..] = input else { return };
    let good = good::good();
    let (name, original) = &good.files[*file as usize % (good.files.len() - 1)];
    if !name.ends_with(".bin") {
        return;
    }
    let sections = u32::from_le_bytes(original[40..44].try_into().unwrap()) as usize;
    let begin = 64 + 32 * sections;
    let mut bytes = original.clone();
    for change in changes.chunks_exact(8).take(16) {
        let at = u32::from_le_bytes(change[..4].try_into().unwrap()) as usize;
        let at = begin + 4 * (at % ((bytes.len() - begin) / 4));
        bytes[at..at + 4].copy_from_slice(&change[4..]);
    }
    let is_repaired = flag % 2 == 1;
    let mut changed = vec![(name.as_str(), bytes.clone())];
    if is_repaired {
        let repaired = good::with_hashes(&bytes);
        changed = vec![(MANIFEST_FILE, good.manifest_for(name, &repaired)), (name, repaired)];
    }
    good.with(&changed, |root| {
        let Ok(database) = Database::open(root) else { return };
        let verified = database.verify();
        assert!(is_repaired || bytes == *original || verified.is_err(), "{name}: other bytes are taken for sound");
        good::use_all(&database);
    });
});
