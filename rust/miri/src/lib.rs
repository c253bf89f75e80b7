//! The two rooms that hold `unsafe`, under Miri: of `simd` every load, store and instruction on sixteen lanes,
//! and equal bits on every kind of processor that Miri plays; of `format/mmap.rs` all but the mapping itself.
#![cfg(test)]

#[path = "../../src/simd/mod.rs"]
#[allow(dead_code)]
mod simd;

#[path = "../../src/format/mmap.rs"]
#[allow(dead_code)]
mod mmap;

/// What `mmap.rs` needs of the crate's error.
mod error {
    use std::path::Path;

    pub type Result<T> = std::result::Result<T, Error>;

    #[derive(Debug)]
    pub struct Error(#[allow(dead_code)] String);

    impl Error {
        pub fn io(path: &Path, source: std::io::Error) -> Self {
            Self(format!("{}: {source}", path.display()))
        }

        pub fn format(path: &Path, what: impl Into<String>) -> Self {
            Self(format!("{}: {}", path.display(), what.into()))
        }
    }
}

use simd::{Avx2, Avx512, LANES, Lanes, Portable, Simd, Work};

/// Every operation of [`Simd`] once; the results in their order.
struct EveryOperation<'a> {
    inputs: &'a [Lanes; 3],
    results: &'a mut Vec<Lanes>,
}

impl Work for EveryOperation<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [a, b, c] = self.inputs.each_ref().map(|lanes| simd.load(lanes));
        let found = [
            simd.splat(1.5),
            simd.add(a, b),
            simd.sub(a, b),
            simd.mul(a, b),
            simd.div(a, b),
            simd.min(a, b),
            simd.max(a, b),
            simd.mul_add(a, b, c),
            simd.exponent(c),
        ];
        for values in found {
            let mut lanes = [0.0; LANES];
            simd.store(&mut lanes, values);
            self.results.push(lanes);
        }
    }
}

fn every_operation(simd: impl Simd) -> Vec<[u32; LANES]> {
    // values in the middle of an allocation of their own, so that a read beyond sixteen floats is out of bounds
    let inputs: Box<[Lanes; 3]> =
        Box::new([3, 5, 7].map(|step| std::array::from_fn(|idx| ((idx * step + 1) % 17) as f32 / 4.0 - 1.7)));
    let mut results = Vec::new();
    simd.run(EveryOperation { inputs: &inputs, results: &mut results });
    results.into_iter().map(|lanes| lanes.map(f32::to_bits)).collect()
}

#[test]
fn avx2_equals_plain_rust() {
    let Some(simd) = Avx2::detect() else { panic!("start with RUSTFLAGS='-C target-feature=+avx2,+fma'") };
    assert_eq!(every_operation(simd), every_operation(Portable));
}

#[test]
fn avx512_equals_plain_rust_where_there_is_one() {
    if let Some(simd) = Avx512::detect() {
        assert_eq!(every_operation(simd), every_operation(Portable));
    }
}

#[test]
fn prefetching_touches_nothing_out_of_range() {
    let values: Box<[u32]> = (0..5).collect();
    for idx in [0, 4, 5, usize::MAX] {
        mmap::prefetch_read(&values, idx);
    }
    mmap::prefetch_read::<u32>(&[], 0);
}

#[test]
fn what_is_no_file_is_refused() {
    assert!(mmap::Mapping::open(std::path::Path::new(".")).is_err());
    assert!(mmap::Mapping::open(std::path::Path::new("no such file")).is_err());
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no files")]
fn a_file_is_read_whole() {
    let path = std::env::temp_dir().join("headwater-miri");
    std::fs::write(&path, b"abc").unwrap();
    assert_eq!(mmap::Mapping::open(&path).unwrap().bytes(), b"abc");
}
