//! Histograms whose bins begin at round numbers or moments, counted while rows pass by.

use std::ops::AddAssign;

use serde::Serialize;

use super::number::Decoded;
use crate::timestamp::{self, DAY_US};

/// The most bins a histogram has.
const MAX_BINS: usize = 24;
/// Powers of two from 2^-64 up, what is below before them.
const NUM_POWERS: usize = 129;
const LEAST_POWER: i32 = -64;

/// How many values lie in each of some bins; a bin begins at its first edge and ends before its second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram {
    /// How wide the bins are.
    pub scale: Scale,
    /// Where bins begin, and where the last one ends.
    pub edges: Edges,
    /// Values per bin.
    pub counts: Vec<u64>,
}

/// How wide the bins of a histogram are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// All equally wide.
    Linear,
    /// Each a power of two times as wide as the one before; the first begins at 0.
    Log,
}

/// Ends of bins.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Edges {
    /// In the user's units.
    Numbers(Vec<f64>),
    /// ISO 8601, UTC.
    Times(Vec<String>),
}

/// Counts numbers of a known range on three grids at once, and picks the most telling at the end.
#[derive(Clone, Debug)]
pub(super) struct NumberBins {
    start: f64,
    step: f64,
    is_constant: bool,
    linear: Vec<u64>,
    /// One bin per integer, where the range is small.
    units: Vec<u64>,
    first_unit: f64,
    powers: Vec<u64>,
    has_negative: bool,
    has_fraction: bool,
}

impl NumberBins {
    /// Bins for numbers from `least` to `most`.
    pub(super) fn new(least: f64, most: f64) -> Self {
        let step = nice_step(most / MAX_BINS as f64 - least / MAX_BINS as f64);
        let start = (least / step).floor() * step;
        let bins = ((most - start) / step).floor() + 1.0;
        // steps too small to move the start make no grid either, nor do ends that are no numbers
        let is_grid = least < most && start + step > start && bins.is_finite();
        let is_constant = !is_grid;
        let num_linear = if is_constant { 1 } else { (bins as usize).clamp(1, MAX_BINS + 2) };
        let num_units = if most - least <= MAX_BINS as f64 { (most.floor() - least.floor()) as usize + 1 } else { 0 };
        Self {
            start: if is_constant { least } else { start },
            step,
            is_constant,
            linear: vec![0; num_linear],
            units: vec![0; num_units],
            first_unit: least.floor(),
            powers: vec![0; NUM_POWERS],
            has_negative: false,
            has_fraction: false,
        }
    }

    /// Counts a number; rounding of its z-score does not push it over an edge.
    #[inline]
    pub(super) fn add(&mut self, number: Decoded) {
        let Decoded { value, error } = number;
        let above = value + error;
        if self.is_constant {
            self.linear[0] += 1;
            return;
        }
        let last = self.linear.len() - 1;
        self.linear[(((above - self.start) / self.step) as usize).min(last)] += 1;
        if !self.units.is_empty() {
            let last = self.units.len() - 1;
            self.units[((above - self.first_unit) as usize).min(last)] += 1;
        }
        self.has_negative |= above < 0.0;
        self.has_fraction |= (value - value.round()).abs() > error;
        self.powers[power_of(if value.abs() <= error { 0.0 } else { above })] += 1;
    }

    /// The most telling of the grids; `None` where nothing was counted.
    pub(super) fn finish(self) -> Option<Histogram> {
        let total: u64 = self.linear.iter().sum();
        if total == 0 {
            return None;
        }
        if self.is_constant {
            let edges = Edges::Numbers(vec![self.start, self.start]);
            return Some(Histogram { scale: Scale::Linear, edges, counts: self.linear });
        }
        if !self.has_fraction && !self.units.is_empty() && self.step < 1.0 {
            let edges = (0..=self.units.len()).map(|idx| self.first_unit + idx as f64).collect();
            return Some(Histogram { scale: Scale::Linear, edges: Edges::Numbers(edges), counts: self.units });
        }
        let fullest = self.linear.iter().max().copied().unwrap_or(0);
        if !self.has_negative && fullest as f64 > 0.8 * total as f64 {
            return Some(self.logarithmic());
        }
        let edges = (0..=self.linear.len()).map(|idx| round(self.start + idx as f64 * self.step)).collect();
        Some(Histogram { scale: Scale::Linear, edges: Edges::Numbers(edges), counts: self.linear })
    }

    fn logarithmic(&self) -> Histogram {
        let used = |&power: &usize| self.powers[power] > 0;
        let first = (1..NUM_POWERS).find(used).unwrap_or(1);
        let last = (1..NUM_POWERS).rfind(used).unwrap_or(first);
        let per_bin = (last + 1 - first).div_ceil(MAX_BINS - 1).max(1);
        let edge = |power: usize| 2f64.powi(power as i32 - 1 + LEAST_POWER);
        let (mut edges, mut counts) = (vec![0.0], vec![self.powers[0]]);
        for low in (first..=last).step_by(per_bin) {
            edges.push(edge(low));
            counts.push(self.powers[low..(low + per_bin).min(NUM_POWERS)].iter().sum());
        }
        edges.push(edge(first) * 2f64.powi(((counts.len() - 1) * per_bin) as i32));
        if counts[0] == 0 {
            counts.remove(0);
            edges.remove(0);
        }
        Histogram { scale: Scale::Log, edges: Edges::Numbers(edges), counts }
    }
}

impl AddAssign for NumberBins {
    fn add_assign(&mut self, other: Self) {
        add(&mut self.linear, &other.linear);
        add(&mut self.units, &other.units);
        add(&mut self.powers, &other.powers);
        self.has_negative |= other.has_negative;
        self.has_fraction |= other.has_fraction;
    }
}

/// Adds counts place by place.
pub(super) fn add(left: &mut [u64], right: &[u64]) {
    for (left, right) in left.iter_mut().zip(right) {
        *left += right;
    }
}

fn power_of(value: f64) -> usize {
    if value <= 0.0 {
        return 0;
    }
    let exponent = ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    (exponent - LEAST_POWER + 1).clamp(0, NUM_POWERS as i32 - 1) as usize
}

/// The least of 1, 2 and 5 times a power of ten that is not below `step`.
fn nice_step(step: f64) -> f64 {
    if !(step > 0.0 && step.is_finite()) {
        return 1.0;
    }
    let exponent = step.log10().floor();
    let candidates = [1.0, 2.0, 5.0, 10.0].map(|factor| format!("{factor}e{exponent}").parse().unwrap_or(step));
    candidates.into_iter().find(|&nice| nice >= step * (1.0 - 1e-9)).unwrap_or(step)
}

/// Without the noise of binary fractions.
fn round(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// Counts moments of a known range.
#[derive(Clone, Debug)]
pub(super) struct TimeBins {
    start: i64,
    step: i64,
    counts: Vec<u64>,
}

impl TimeBins {
    /// Bins for moments from `first` to `last`, microseconds.
    pub(super) fn new(first: i64, last: i64) -> Self {
        const SECOND: i64 = 1_000_000;
        const STEPS: [i64; 16] = [
            SECOND,
            5 * SECOND,
            15 * SECOND,
            60 * SECOND,
            300 * SECOND,
            900 * SECOND,
            3600 * SECOND,
            3 * 3600 * SECOND,
            12 * 3600 * SECOND,
            DAY_US,
            2 * DAY_US,
            7 * DAY_US,
            14 * DAY_US,
            28 * DAY_US,
            91 * DAY_US,
            182 * DAY_US,
        ];
        let least = i64::try_from((i128::from(last) - i128::from(first)) / MAX_BINS as i128).unwrap_or(i64::MAX);
        let nice = STEPS.into_iter().find(|&step| step >= least);
        let step = nice.unwrap_or_else(|| (least / (365 * DAY_US)).saturating_add(1).saturating_mul(365 * DAY_US));
        let start = first.div_euclid(step).saturating_mul(step);
        let bins = (i128::from(last) - i128::from(start)) / i128::from(step) + 1;
        Self { start, step, counts: vec![0; bins.clamp(1, MAX_BINS as i128 + 2) as usize] }
    }

    /// Counts a moment.
    #[inline]
    pub(super) fn add(&mut self, time_us: i64) {
        let bin = (i128::from(time_us) - i128::from(self.start)) / i128::from(self.step);
        let last = self.counts.len() as i128 - 1;
        self.counts[bin.clamp(0, last) as usize] += 1;
    }

    /// What was counted; `None` for nothing.
    pub(super) fn finish(self) -> Option<Histogram> {
        let edge = |idx: usize| self.start.saturating_add(self.step.saturating_mul(idx as i64));
        let edges = (0..=self.counts.len()).map(|idx| timestamp::format(edge(idx))).collect();
        let is_empty = self.counts.iter().all(|&count| count == 0);
        (!is_empty).then_some(Histogram { scale: Scale::Linear, edges: Edges::Times(edges), counts: self.counts })
    }
}

impl AddAssign for TimeBins {
    fn add_assign(&mut self, other: Self) {
        add(&mut self.counts, &other.counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(values: &[f64]) -> Histogram {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut bins = NumberBins::new(least, most);
        for &value in values {
            bins.add(Decoded { value, error: 1e-9 * value.abs() });
        }
        bins.finish().unwrap()
    }

    #[test]
    fn small_integers_have_a_bin_each() {
        let histogram = bins(&[1.0, 3.0, 3.0, 0.0]);
        assert_eq!(histogram.edges, Edges::Numbers(vec![0.0, 1.0, 2.0, 3.0, 4.0]));
        assert_eq!(histogram.counts, [1, 1, 0, 2]);
    }

    #[test]
    fn fractions_have_round_edges() {
        let histogram = bins(&[0.0, 0.25, 1.0, 0.3]);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 4);
        let Edges::Numbers(edges) = &histogram.edges else { panic!("numbers") };
        assert_eq!((edges[0], edges[1], edges[6]), (0.0, 0.05, 0.3));
        assert_eq!((histogram.counts[5], histogram.counts[6]), (1, 1));
    }

    #[test]
    fn long_tails_are_counted_by_powers_of_two() {
        let mut values = vec![1.0; 50];
        values.extend([0.0, 3.0, 1000.0]);
        let histogram = bins(&values);
        assert_eq!(histogram.scale, Scale::Log);
        let Edges::Numbers(edges) = &histogram.edges else { panic!("numbers") };
        assert_eq!(edges[..4], [0.0, 1.0, 2.0, 4.0]);
        assert_eq!(histogram.counts[..3], [1, 50, 1]);
        assert_eq!((edges.last(), histogram.counts.last()), (Some(&1024.0), Some(&1)));
    }

    #[test]
    fn no_range_breaks_the_grid() {
        for (least, most) in [(5.0, 5.0), (f64::MIN, f64::MAX), (1e300, 1.1e300), (-1e-310, 1e-310), (1.0, 1.0 + 1e-15)]
        {
            for value in [least, most] {
                let mut grid = NumberBins::new(least, most);
                grid.add(Decoded { value, error: 0.0 });
                assert_eq!(grid.finish().unwrap().counts.iter().sum::<u64>(), 1, "{least} {most} {value}");
            }
        }
        for (first, last) in [(0, 0), (i64::MIN, i64::MAX), (i64::MAX - 1, i64::MAX), (i64::MIN, i64::MIN)] {
            let mut grid = TimeBins::new(first, last);
            grid.add(first);
            grid.add(last);
            assert_eq!(grid.finish().unwrap().counts.iter().sum::<u64>(), 2, "{first} {last}");
        }
    }

    #[test]
    fn moments_fall_into_days() {
        let mut grid = TimeBins::new(0, 20 * DAY_US);
        for time in [0, DAY_US - 1, DAY_US, 20 * DAY_US] {
            grid.add(time);
        }
        let histogram = grid.finish().unwrap();
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[20]), (2, 1, 1));
        let Edges::Times(edges) = &histogram.edges else { panic!("times") };
        assert_eq!((edges[0].as_str(), edges[1].as_str()), ("1970-01-01", "1970-01-02"));
    }
}
