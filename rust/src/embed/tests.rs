//! Each function against its plain definition, and the same bits from every kind of processor.

use std::io::Write;

use super::attention::{Attention, HeadRoom};
use super::functions::{Normalise, gelu};
use super::product::{Finish, Packed, Product, Row, Start, WIDTH};
use super::*;
use crate::simd::{LANES, Lanes, Portable, exp};

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / f32::from(1_u16 << 15) / 256.0 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn rows(count: usize, seed: u64) -> Vec<Row> {
    numbers(count * WIDTH, seed).as_chunks().0.iter().map(|&row| Row(row)).collect()
}

fn bits(rows: &[Row]) -> Vec<u32> {
    rows.iter().flat_map(|row| row.0.map(f32::to_bits)).collect()
}

/// The results of every kind of processor that this machine can stand for, the portable one's first.
fn everywhere(work: impl Fn(Instructions) -> Vec<Row>) -> Vec<Row> {
    let expected = work(Instructions::Portable(Portable));
    for name in ["avx512", "avx2"] {
        if let Some(instructions) = Instructions::find(Some(name)) {
            assert!(bits(&work(instructions)) == bits(&expected), "{name} differs");
        }
    }
    expected
}

struct Curves<'a> {
    x: &'a [Lanes],
    result: &'a mut [[Lanes; 2]],
}

impl Work for Curves<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (x, [exponential, curve]) in self.x.iter().zip(self.result) {
            simd.store(exponential, exp(simd, simd.load(x)));
            simd.store(curve, gelu(simd, simd.load(x)));
        }
    }
}

#[test]
fn exponential_and_gelu_are_right_to_float32() {
    /// The error function by its series, which alternates.
    fn erf(x: f64) -> f64 {
        let (mut sum, mut term) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }
    let x: Vec<f32> = (-4800..4800).map(|idx| idx as f32 / 1000.0).collect();
    let mut result = vec![[[0.0; LANES]; 2]; x.len() / LANES];
    Portable.run(Curves { x: x.as_chunks().0, result: &mut result });
    for (x, result) in x.as_chunks::<LANES>().0.iter().zip(result) {
        for lane in 0..LANES {
            let x = f64::from(x[lane]);
            let [exponential, curve] = result.map(|lanes| f64::from(lanes[lane]));
            assert!((exponential / x.exp() - 1.0).abs() < 2e-7, "exp({x}) = {exponential}");
            let expected = x * 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2));
            assert!((curve - expected).abs() < 3e-7 * x.abs().max(1.0), "gelu({x}) = {curve}, not {expected}");
        }
    }
    let far = [[-200.0, -20.0, -0.0, 20.0, 88.0, 0.0, 1.0, 5.5, -5.5, 0.1, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]];
    let mut result = [[[0.0; LANES]; 2]];
    Portable.run(Curves { x: &far, result: &mut result });
    let [exponential, curve] = result[0];
    assert!(exponential[0] < 1e-37 && (exponential[4] / 88_f32.exp() - 1.0).abs() < 1e-6);
    assert!(curve[0].abs() < 1e-5 && curve[1].abs() < 1e-6 && (curve[3] - 20.0).abs() < 1e-5);
}

#[test]
fn products_are_chains_in_the_order_of_inputs() {
    let (weights, bias, x) = (numbers(WIDTH * 40, 1), rows(1, 2)[0], rows(15, 3));
    let packed = Packed::new(40, |input, output| weights[input * 40 + output], &bias);
    for num_rows in [1, 2, 5, 13, 14, 15] {
        let result = everywhere(|instructions| {
            let mut result = vec![Row::ZERO; num_rows];
            let [start, finish] = [Start::Bias, Start::Result].map(|start| (start, Finish::Plain));
            for (start, finish) in [start, finish] {
                let rows = &x[..num_rows];
                instructions.run(Product { rows, weights: &packed, start, finish, result: &mut result });
            }
            result
        });
        for (x, result) in x.iter().zip(&result) {
            for output in 0..40 {
                let chain = |start: f32| {
                    (0..WIDTH).fold(start, |sum, input| x.0[input].mul_add(weights[input * 40 + output], sum))
                };
                assert_eq!(result.0[output].to_bits(), chain(chain(bias.0[output])).to_bits());
            }
        }
    }
}

#[test]
fn attention_is_the_mixture_of_values_within_each_text() {
    let lengths = [1, 9, 33];
    let total = lengths.iter().sum();
    let [queries, keys, values] = [4, 5, 6].map(|seed| rows(total, seed));
    let result = everywhere(|instructions| {
        let (mut result, mut room) = (queries.clone(), HeadRoom::default());
        let (keys, values) = (&keys, &values);
        instructions.run(Attention { queries: &mut result, keys, values, lengths: &lengths, room: &mut room });
        result
    });
    let mut first = 0;
    for length in lengths {
        for (query, head) in (first..first + length).flat_map(|query| (0..12).map(move |head| (query, head))) {
            let columns = head * 32..head * 32 + 32;
            let weight = |key: usize| {
                let score: f64 =
                    columns.clone().map(|idx| f64::from(queries[query].0[idx]) * f64::from(keys[key].0[idx])).sum();
                (score / 32_f64.sqrt()).exp()
            };
            let weights: Vec<f64> = (first..first + length).map(weight).collect();
            for idx in columns.clone() {
                let mixed: f64 = weights.iter().enumerate().map(|(k, w)| w * f64::from(values[first + k].0[idx])).sum();
                let expected = mixed / weights.iter().sum::<f64>();
                assert!((f64::from(result[query].0[idx]) - expected).abs() < 1e-6);
            }
        }
        first += length;
    }
}

#[test]
fn normalised_rows_have_mean_zero_and_variance_one() {
    let (scale, shift) = (Row([1.0; WIDTH]), Row([0.0; WIDTH]));
    let result = everywhere(|instructions| {
        let mut result = rows(3, 7);
        let added = rows(3, 8);
        instructions.run(Normalise { rows: &mut result, added: &added, scale: &scale, shift: &shift });
        result
    });
    for row in result {
        let mean = row.0.iter().sum::<f32>() / WIDTH as f32;
        let variance = row.0.iter().map(|x| x * x).sum::<f32>() / WIDTH as f32;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5);
    }
}

#[test]
fn blocks_hold_whole_texts() {
    assert_eq!(block(&[256, 3]), (1, 256));
    assert_eq!(block(&[100, 100, 52, 1]), (3, 252));
    assert_eq!(block(&[5]), (1, 5));
}

#[test]
fn files_that_are_not_the_model_are_refused() {
    let open = |content: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        Encoder::open(file.path(), None, None).unwrap_err().to_string()
    };
    let listed = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[0; 16]].concat();
    assert!(open(b"short").contains("too short"));
    assert!(open(&u64::MAX.to_le_bytes()).contains("ends within its list of tensors"));
    assert!(open(&listed("nonsense")).contains("cannot be read"));
    assert!(open(&listed("{}")).contains("tensor `embeddings.token_type_embeddings.weight`: is missing"));
    let tensor = |shape: &str, offsets: &str| {
        let name = "embeddings.token_type_embeddings.weight";
        listed(&format!(r#"{{"{name}": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}}}"#))
    };
    assert!(open(&tensor("[2, 383]", "[0, 8]")).contains("expected F32 of shape [0, 384]"));
    for offsets in ["[0, 16]", "[0, 3072]", "[9, 3]", "[18446744073709551615, 18446744073709551615]"] {
        assert!(open(&tensor("[2, 384]", offsets)).contains("are not in the file or do not fit"), "{offsets}");
    }
}

#[test]
fn unknown_instructions_are_refused() {
    let error = Encoder::open(Path::new("nowhere"), None, Some("mmx")).unwrap_err();
    assert!(error.to_string().contains("no instructions `mmx`"));
    let error = Encoder::open(Path::new("nowhere"), Some((&[1.0; 10], 10)), None).unwrap_err();
    assert!(error.to_string().contains("found 10 numbers in rows of 10"));
}
