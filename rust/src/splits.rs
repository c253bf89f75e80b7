//! The split of what has no times to divide it: a named hash, the same on every machine and in every version.

use xxhash_rust::xxh3::Xxh3;

use crate::format::Key;

/// 0, 1 or 2 (train, val, test) for 80, 10 and 10 per cent of the keys, by xxh3-64 of the name of a task or table, a
/// zero byte and the key as text.
pub fn hashed_split(name: &str, key: &str) -> u8 {
    match split_hash(name, key) % 100 {
        0..80 => 0,
        80..90 => 1,
        _ => 2,
    }
}

fn split_hash(name: &str, key: &str) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(name.as_bytes());
    hasher.update(&[0]);
    hasher.update(key.as_bytes());
    hasher.digest()
}

/// A key as text: integers in decimal.
pub fn key_text(key: &Key) -> String {
    match key {
        Key::Int(key) => key.to_string(),
        Key::Uint(key) => key.to_string(),
        Key::String(key) => key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_named_one_and_shares_eighty_ten_ten() {
        assert_eq!(split_hash("churn", "42"), xxhash_rust::xxh3::xxh3_64(b"churn\x0042"));
        let mut counts = [0; 3];
        for key in 0..10_000 {
            counts[usize::from(hashed_split("churn", &key.to_string()))] += 1;
        }
        assert!((7800..8200).contains(&counts[0]) && (850..1150).contains(&counts[1]), "{counts:?}");
    }
}
