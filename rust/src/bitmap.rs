//! Packed bits over little-endian 32-bit words, as validity masks and booleans are stored.

/// Words needed for `bits` bits.
pub const fn words(bits: usize) -> usize {
    bits.div_ceil(32)
}

/// Bit `bit` of `words`.
///
/// # Panics
/// If `bit` is outside of `words`.
#[inline]
pub fn get(words: &[u32], bit: usize) -> bool {
    words[bit / 32] >> (bit % 32) & 1 == 1
}

/// Sets bit `bit` of `words` to `value`.
///
/// # Panics
/// If `bit` is outside of `words`.
#[inline]
pub fn set(words: &mut [u32], bit: usize, value: bool) {
    let mask = 1 << (bit % 32);
    if value {
        words[bit / 32] |= mask;
    } else {
        words[bit / 32] &= !mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_two_words_is_its_own() {
        for bit in 0..64 {
            let mut bits = vec![0; words(64)];
            set(&mut bits, bit, true);
            assert_eq!((0..64).filter(|&b| get(&bits, b)).collect::<Vec<_>>(), [bit]);
            set(&mut bits, bit, false);
            assert_eq!(bits, [0, 0]);
        }
        assert_eq!((words(0), words(1), words(32), words(33)), (0, 1, 1, 2));
    }
}
