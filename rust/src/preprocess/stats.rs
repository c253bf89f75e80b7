//! Mean and deviation of numbers, summed batch by batch and merged in order, so that threads cannot change a bit.
//!
//! Source: Chan, Golub and `LeVeque`, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979).
//! Differs in that values are scaled by a power of two once they grow so large that their squares would overflow.

/// Values beyond this are scaled down before they are squared.
const LARGE: f64 = 1e140;
/// A power of two that brings every f64 below [`LARGE`].
const SMALLER: f64 = 1.0
    / (1u128 << 120) as f64
    / (1u128 << 120) as f64
    / (1u128 << 120) as f64
    / (1u128 << 120) as f64
    / (1u128 << 120) as f64;

/// Count, mean, squared deviations, least and greatest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
    /// What the mean is multiplied by, 1 or [`SMALLER`]; the squares by its square.
    scale: f64,
}

impl Moments {
    pub(super) const EMPTY: Self = Self { count: 0, mean: 0.0, squares: 0.0, scale: 1.0 };

    /// Those of a batch; NaN is no number.
    pub(super) fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let numbers = values.filter(|value| !value.is_nan());
        let largest = numbers.clone().fold(0.0f64, |largest, value| largest.max(value.abs()));
        let scale = if largest > LARGE { SMALLER } else { 1.0 };
        let Some(first) = numbers.clone().next().map(|first| first * scale) else { return Self::EMPTY };
        // Distances from the first number: those of equal numbers are exactly 0, and so is their deviation.
        let (count, sum) = numbers.clone().fold((0u64, 0.0), |(n, sum), value| (n + 1, sum + (value * scale - first)));
        let mean = first + sum / count as f64;
        let squares = numbers.fold(0.0, |squares, value| {
            let deviation = value * scale - mean;
            squares + deviation * deviation
        });
        Self { count, mean, squares, scale }
    }

    /// Those of both.
    pub(super) fn merge(self, later: Self) -> Self {
        if self.count == 0 || later.count == 0 {
            return if self.count == 0 { later } else { self };
        }
        let scale = self.scale.min(later.scale);
        let (left, right) = (self.rescaled(scale), later.rescaled(scale));
        let (count, share) = (left.count + right.count, right.count as f64 / (left.count + right.count) as f64);
        let distance = right.mean - left.mean;
        Self {
            count,
            mean: left.mean + distance * share,
            squares: left.squares + right.squares + distance * distance * share * left.count as f64,
            scale,
        }
    }

    fn rescaled(self, scale: f64) -> Self {
        let factor = scale / self.scale;
        Self { mean: self.mean * factor, squares: self.squares * factor * factor, scale, ..self }
    }

    /// The mean; 0 of no numbers.
    pub(super) fn mean(&self) -> f64 {
        self.mean / self.scale
    }

    /// The population standard deviation; 0 of no numbers and of equal ones.
    pub(super) fn std(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares / self.count as f64).sqrt() / self.scale }
    }
}

/// Turns numbers into z-scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZScore {
    mean: f64,
    std: f64,
}

impl ZScore {
    /// Quarters of mean and deviation: neither can the difference of two numbers overflow then, and multiplying by a
    /// power of two is exact.
    const QUARTER: f64 = 0.25;

    pub(super) fn new(mean: f64, std: f64) -> Self {
        Self { mean: mean * Self::QUARTER, std: std * Self::QUARTER }
    }

    /// The z-score, finite; 0 when the deviation is 0.
    #[inline]
    pub(super) fn of(self, value: f64) -> f32 {
        if self.std > 0.0 {
            (((value * Self::QUARTER - self.mean) / self.std) as f32).clamp(-f32::MAX, f32::MAX)
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
    }

    proptest! {
        #[test]
        fn merged_batches_equal_the_whole(batches in prop::collection::vec(prop::collection::vec(-1e6f64..1e6, 0..20), 0..10)) {
            let all: Vec<f64> = batches.concat();
            let merged = batches.iter().map(|batch| Moments::of(batch.iter().copied())).fold(Moments::EMPTY, Moments::merge);
            let mean = if all.is_empty() { 0.0 } else { all.iter().sum::<f64>() / all.len() as f64 };
            let variance = if all.is_empty() { 0.0 } else { all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len() as f64 };
            prop_assert!(close(merged.mean(), mean) && close(merged.std(), variance.sqrt()));
        }

        #[test]
        fn z_scores_are_finite(values in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO, 1..20), other in prop::num::f64::NORMAL) {
            let moments = values.iter().map(|&value| Moments::of(std::iter::once(value))).fold(Moments::EMPTY, Moments::merge);
            prop_assert!(moments.mean().is_finite() && moments.std().is_finite());
            let z = ZScore::new(moments.mean(), moments.std());
            prop_assert!(values.iter().chain([&other]).all(|&value| z.of(value).is_finite()));
        }
    }

    #[test]
    fn large_numbers_and_constants() {
        let huge = Moments::of([f64::MAX, -f64::MAX].into_iter());
        assert_eq!((huge.mean(), huge.std()), (0.0, f64::MAX));
        let merged = Moments::of([1.0].into_iter()).merge(Moments::of([f64::MAX].into_iter()));
        assert!((merged.mean() / (f64::MAX / 2.0) - 1.0).abs() < 1e-12);
        let extremes = Moments::of([i64::MIN as f64, i64::MAX as f64].into_iter());
        assert_eq!((extremes.mean(), extremes.std()), (0.0, 9_223_372_036_854_775_808.0));
        let constant = Moments::of([7.5, f64::NAN, 7.5].into_iter());
        assert_eq!((constant.mean(), constant.std(), ZScore::new(7.5, 0.0).of(7.5)), (7.5, 0.0, 0.0));
        assert_eq!((Moments::EMPTY.mean(), Moments::EMPTY.std()), (0.0, 0.0));
    }
}
