//! Any bytes in the place of one file: `open` and `verify` answer with an error or mean what was published.
//!
//! Input: which file (the manifest last), a flag (odd: checksums are made right first), the file's bytes.
#![no_main]

use headwater::{Database, MANIFEST_FILE};
use libfuzzer_sys::fuzz_target;

#[path = "good.rs"]
mod good;

fuzz_target!(|input: &[u8]| {
    let [file, flag, bytes @ ..] = input else { return };
    let good = good::good();
    let (name, original) = &good.files[*file as usize % good.files.len()];
    let is_manifest = name == MANIFEST_FILE;
    let is_repaired = flag % 2 == 1;
    let bytes = match (is_repaired, is_manifest) {
        (false, _) => bytes.to_vec(),
        (true, true) => good::with_checksum(bytes),
        (true, false) => good::with_hashes(bytes),
    };
    // the manifest vouches for the new bytes when they are repaired, else it tells them from the old ones at once
    let mut changed = vec![(name.as_str(), bytes.clone())];
    if is_repaired && !is_manifest {
        changed.push((MANIFEST_FILE, good.manifest_for(name, &bytes)));
    }
    good.with(&changed, |root| {
        let Ok(database) = Database::open(root) else { return };
        let verified = database.verify();
        assert!(is_repaired || bytes == *original || verified.is_err(), "{name}: other bytes are taken for sound");
        good::use_all(&database);
    });
});
