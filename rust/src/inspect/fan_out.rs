//! How many children the parents of a foreign key have.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

/// Numbers of children up to here are counted in place.
const NUM_SMALL: usize = 256;

/// Children per parent, parents without children included; quantiles are nearest ranks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FanOut {
    /// Parents that were looked at.
    pub parents: u64,
    /// Those without children.
    pub childless: u64,
    /// The fewest children.
    pub min: u64,
    /// Half of the parents have no more children.
    pub median: u64,
    /// Children per parent.
    pub mean: f64,
    /// Nine of ten parents have no more.
    pub p90: u64,
    /// 99 of 100 parents have no more.
    pub p99: u64,
    /// The most children.
    pub max: u64,
    /// Parents by their number of children: 0, 1, 2 to 3, 4 to 7, and so on.
    pub histogram: Vec<u64>,
}

/// Parents per number of children: exact, and small because few numbers differ.
#[derive(Clone, Debug)]
pub(super) struct Degrees {
    small: Vec<u64>,
    large: BTreeMap<u64, u64>,
}

impl Degrees {
    pub(super) fn new() -> Self {
        Self { small: vec![0; NUM_SMALL], large: BTreeMap::new() }
    }

    /// Counts a parent.
    #[inline]
    pub(super) fn add(&mut self, children: usize) {
        match self.small.get_mut(children) {
            Some(count) => *count += 1,
            None => *self.large.entry(children as u64).or_default() += 1,
        }
    }

    fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let small = self.small.iter().enumerate().map(|(children, &parents)| (children as u64, parents));
        small.chain(self.large.iter().map(|(&children, &parents)| (children, parents))).filter(|&(_, n)| n > 0)
    }

    pub(super) fn finish(&self) -> FanOut {
        let parents: u64 = self.counts().map(|(_, parents)| parents).sum();
        let children: u64 = self.counts().map(|(children, parents)| children * parents).sum();
        let max = self.counts().last().map_or(0, |(children, _)| children);
        let rank = |share: f64| {
            let mut left = ((share * parents as f64).ceil() as u64).clamp(1, parents.max(1));
            let found = self.counts().find(|&(_, parents)| {
                let is_here = left <= parents;
                left = left.saturating_sub(parents);
                is_here
            });
            found.map_or(0, |(children, _)| children)
        };
        let mut histogram = vec![0; if parents == 0 { 0 } else { bin(max) + 1 }];
        for (children, parents) in self.counts() {
            histogram[bin(children)] += parents;
        }
        FanOut {
            parents,
            childless: self.small[0],
            min: self.counts().next().map_or(0, |(children, _)| children),
            median: rank(0.5),
            mean: if parents == 0 { 0.0 } else { children as f64 / parents as f64 },
            p90: rank(0.9),
            p99: rank(0.99),
            max,
            histogram,
        }
    }
}

impl AddAssign for Degrees {
    fn add_assign(&mut self, other: Self) {
        super::binning::add(&mut self.small, &other.small);
        for (children, parents) in other.large {
            *self.large.entry(children).or_default() += parents;
        }
    }
}

/// The bin of a number of children.
fn bin(children: u64) -> usize {
    (u64::BITS - children.leading_zeros()) as usize
}

/// What a bin of the histogram holds, as text.
pub(super) fn bin_name(bin: usize) -> String {
    match bin {
        0 => "0".into(),
        1 => "1".into(),
        _ => format!("{} to {}", 1u64 << (bin - 1), (1u64 << (bin - 1)) * 2 - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_bins_are_exact() {
        let mut degrees = Degrees::new();
        for children in (0..98).chain([300, 100_000]) {
            degrees.add(children);
        }
        let fan_out = degrees.finish();
        assert_eq!((fan_out.parents, fan_out.childless, fan_out.min), (100, 1, 0));
        assert_eq!((fan_out.median, fan_out.p90, fan_out.p99, fan_out.max), (49, 89, 300, 100_000));
        assert_eq!(fan_out.histogram[..4], [1, 1, 2, 4]);
        assert_eq!((fan_out.histogram.len(), fan_out.histogram[9], fan_out.histogram[17]), (18, 1, 1));
        assert_eq!((bin_name(2), bin_name(17)), ("2 to 3".into(), "65536 to 131071".into()));
    }

    #[test]
    fn no_parents_have_no_children() {
        let fan_out = Degrees::new().finish();
        assert_eq!((fan_out.parents, fan_out.median, fan_out.max, fan_out.histogram.len()), (0, 0, 0, 0));
    }
}
