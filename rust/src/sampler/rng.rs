//! Randomness: one keyed hash and one generator, both our own, so that their values never change.
//!
//! [`hash`] folds words with the finaliser of `SplitMix64`; [`Rng`] is `SplitMix64` itself, seeded by that hash of
//! everything a context depends on. Implements `documentation/sampling.md`, "Random numbers".
//! Source: Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014); bounded integers after
//! Lemire: Fast random integer generation in an interval (arXiv 1805.10941), algorithm 5.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a hash is for; keeps the streams of different uses apart.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Domain {
    /// The draws of one context.
    Context = 1,
    /// The order of the seeds within an epoch.
    Order = 2,
    /// The draws of a context of a seed of the caller's own.
    Question = 3,
    /// Which cells of a context are masked.
    Mask = 4,
    /// Which pairs of rows of a context are to be judged.
    Link = 5,
    /// Which task has which position of a stream of several.
    Mix = 6,
    /// The choice of the examples of a context.
    Examples = 8,
    /// One random walk in search of examples.
    ExampleWalk = 9,
    /// The draws of one example's part of a context.
    Example = 10,
    /// How long before its time a seed sees the database.
    Lag = 11,
}

/// The finaliser of `SplitMix64`, a bijection of 64-bit words.
#[inline]
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Folds words into one: `state = mix((state ^ word) + golden)`, starting with the domain.
pub fn hash(domain: Domain, words: &[u64]) -> u64 {
    words.iter().fold(domain as u64, |state, word| mix((state ^ word).wrapping_add(GOLDEN)))
}

/// The `idx`-th number, from 0, of the stream of a hash.
#[inline]
pub const fn nth(state: u64, idx: u64) -> u64 {
    mix(state.wrapping_add(GOLDEN.wrapping_mul(idx.wrapping_add(1))))
}

/// A stream of random numbers.
#[derive(Clone, Debug, Default)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The stream of a hash.
    pub const fn new(state: u64) -> Self {
        Self { state }
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A number below `bound`, each equally likely; 0 for a bound of 0.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        let mut product = (self.next_u64() >> 32) * u64::from(bound);
        if (product as u32) < bound {
            // products whose low half is under 2^32 mod bound would make some numbers more likely
            let threshold = bound.wrapping_neg() % bound;
            while (product as u32) < threshold {
                product = (self.next_u64() >> 32) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // first outputs of the reference implementation for the state 1234567
        let mut rng = Rng::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([rng.next_u64(), rng.next_u64(), rng.next_u64()], expected);
        assert_eq!([0, 1, 2].map(|idx| nth(1_234_567, idx)), expected);
    }

    #[test]
    fn words_and_their_places_matter() {
        let words = [[1, 2, 3], [3, 2, 1], [1, 2, 4], [2, 1, 3]];
        let mut hashes: Vec<u64> = words.iter().map(|words| hash(Domain::Context, words)).collect();
        hashes.push(hash(Domain::Order, &words[0]));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 5);
    }

    #[test]
    fn every_number_below_the_bound_is_equally_likely() {
        let mut rng = Rng::new(7);
        for bound in [1u32, 2, 3, 7, 60] {
            let draws = 6000 * bound;
            let mut counts = vec![0u32; bound as usize];
            for _ in 0..draws {
                counts[rng.below(bound) as usize] += 1;
            }
            let chi2: f64 = counts.iter().map(|&count| (f64::from(count) - 6000.0).powi(2) / 6000.0).sum();
            let degrees = f64::from(bound - 1);
            assert!(chi2 <= degrees + 5.0 * (2.0 * degrees).sqrt(), "bound {bound}: chi2 {chi2}");
        }
        // a bound far from dividing 2^32: 4 products fall on every 3 numbers, one of which must not come twice as often
        let mut counts = [0; 3];
        for _ in 0..30_000 {
            counts[(rng.below(3 << 30) % 3) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    }
}
