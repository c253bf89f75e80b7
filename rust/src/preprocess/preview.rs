//! What the labels of a task look like, split by split: the part of a task's manifest entry a person judges it by.

use super::seeds::{Label, Seed};
use super::stats::Moments;
use super::targets::Targets;
use crate::error::Result;
use crate::manifest::{ClassCount, LabelStatistics, Preview, SplitPreview};

/// Most classes that are listed per split.
const MAX_CLASSES: usize = 10;
/// Longest text of a class; the rest is cut off.
const MAX_CLASS_CHARS: usize = 200;
/// Shares of the labels below the quantiles.
const QUANTILES: [f64; 7] = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0];

/// What is needed beside the seeds.
pub(super) struct Labels<'a, T: Fn(u32) -> Result<String>> {
    /// In any order, those of a link task in that of their lists.
    pub(super) seeds: &'a [Seed],
    /// Labels that are null, per split.
    pub(super) nulls: [u64; 3],
    /// The scale that turns [`Label::Number`] into the user's units, where it holds z-scores.
    pub(super) scale: Option<LabelStatistics>,
    /// The lists of [`Label::Links`].
    pub(super) targets: Option<&'a Targets>,
    /// The text of a [`Label::Text`].
    pub(super) text: T,
}

impl<T: Fn(u32) -> Result<String>> Labels<'_, T> {
    /// The preview of every split.
    pub(super) fn preview(&self) -> Result<Preview> {
        Ok(Preview { train: self.split(0)?, val: self.split(1)?, test: self.split(2)? })
    }

    fn split(&self, split: u8) -> Result<SplitPreview> {
        let seeds: Vec<&Seed> = self.seeds.iter().filter(|seed| seed.split == split).collect();
        let times = || seeds.iter().map(|seed| seed.time).filter(|&time| time != i64::MAX);
        let mut found = SplitPreview {
            rows: seeds.len() as u64,
            nulls: self.nulls[usize::from(split)],
            min_time_us: times().min(),
            max_time_us: times().max(),
            ..SplitPreview::default()
        };
        match seeds.first().map(|seed| seed.label) {
            None => {}
            Some(Label::Boolean(_)) => {
                let trues = seeds.iter().filter(|seed| seed.label == Label::Boolean(true)).count();
                found.base_rate = Some(trues as f64 / seeds.len() as f64);
            }
            Some(Label::Number(_)) => self.describe_numbers(&seeds, &mut found),
            Some(Label::Time(_)) => {
                let mut labels: Vec<i64> = seeds.iter().filter_map(|seed| moment(seed.label)).collect();
                labels.sort_unstable();
                found.quantiles_us = Some(QUANTILES.map(|share| labels[rank(share, labels.len())]));
            }
            Some(Label::Text(_)) => self.describe_classes(&seeds, &mut found)?,
            Some(Label::Links) => self.describe_links(split, &mut found),
        }
        Ok(found)
    }

    fn describe_numbers(&self, seeds: &[&Seed], found: &mut SplitPreview) {
        let in_units = |label: f64| self.scale.map_or(label, |scale| label * scale.std + scale.mean);
        let number = |label| if let Label::Number(value) = label { Some(in_units(value)) } else { None };
        let mut labels: Vec<f64> = seeds.iter().filter_map(|seed| number(seed.label)).collect();
        labels.sort_unstable_by(f64::total_cmp);
        let moments = Moments::of(labels.iter().copied());
        found.mean = Some(moments.mean());
        found.std = Some(moments.std());
        found.quantiles = Some(QUANTILES.map(|share| labels[rank(share, labels.len())]));
    }

    fn describe_links(&self, split: u8, found: &mut SplitPreview) {
        let Some(targets) = self.targets else { return };
        let lists = self.seeds.iter().zip(targets.indptr.windows(2)).filter(|(seed, _)| seed.split == split);
        let mut rows: Vec<u32> =
            lists.flat_map(|(_, ends)| &targets.rows[ends[0] as usize..ends[1] as usize]).copied().collect();
        found.mean_links = Some(rows.len() as f64 / found.rows.max(1) as f64);
        rows.sort_unstable();
        rows.dedup();
        found.num_targets = Some(rows.len() as u64);
    }

    fn describe_classes(&self, seeds: &[&Seed], found: &mut SplitPreview) -> Result<()> {
        let text = |label| if let Label::Text(id) = label { Some(id) } else { None };
        let mut ids: Vec<u32> = seeds.iter().filter_map(|seed| text(seed.label)).collect();
        ids.sort_unstable();
        let mut classes: Vec<(usize, u32)> =
            ids.chunk_by(|one, other| one == other).map(|same| (same.len(), same[0])).collect();
        found.num_classes = Some(classes.len() as u64);
        // ties in the order of the texts' ids, which the data alone decide
        classes.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
        classes.truncate(MAX_CLASSES);
        for (count, id) in classes {
            let value = (self.text)(id)?.chars().take(MAX_CLASS_CHARS).collect();
            found.classes.push(ClassCount { value, count: count as u64 });
        }
        Ok(())
    }
}

fn moment(label: Label) -> Option<i64> {
    if let Label::Time(time) = label { Some(time) } else { None }
}

/// The place of a quantile among `len` sorted values: the least with at least that share at or below it.
fn rank(share: f64, len: usize) -> usize {
    ((share * len as f64).ceil() as usize).clamp(1, len) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview(labels: &[(u8, i64, Label)], scale: Option<LabelStatistics>) -> Preview {
        let seeds: Vec<Seed> = labels.iter().map(|&(split, time, label)| Seed { time, row: 0, split, label }).collect();
        let text = |id: u32| Ok(format!("class {id}"));
        Labels { seeds: &seeds, nulls: [1, 0, 2], scale, targets: None, text }.preview().unwrap()
    }

    #[test]
    fn numbers_are_described_in_the_users_units() {
        let scale = LabelStatistics { mean: 10.0, std: 2.0 };
        let labels: Vec<_> = [-1.0, 0.0, 1.0, 2.0].iter().map(|&z| (0, 5, Label::Number(z))).collect();
        let found = preview(&labels, Some(scale)).train;
        assert_eq!((found.rows, found.nulls, found.mean), (4, 1, Some(11.0)));
        assert_eq!(found.quantiles, Some([8.0, 8.0, 8.0, 10.0, 12.0, 14.0, 14.0]));
        assert!((found.std.unwrap() - 5f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn every_split_speaks_for_itself() {
        let found = preview(
            &[(0, 1, Label::Boolean(true)), (0, 9, Label::Boolean(false)), (2, i64::MAX, Label::Boolean(true))],
            None,
        );
        assert_eq!((found.train.base_rate, found.val.base_rate, found.test.base_rate), (Some(0.5), None, Some(1.0)));
        assert_eq!((found.train.min_time_us, found.train.max_time_us), (Some(1), Some(9)));
        assert_eq!((found.test.min_time_us, found.test.nulls), (None, 2));
    }

    #[test]
    fn classes_come_by_frequency_then_by_id() {
        let labels: Vec<_> = [3, 1, 3, 2, 1, 7].iter().map(|&id| (1, 0, Label::Text(id))).collect();
        let found = preview(&labels, None).val;
        assert_eq!(found.num_classes, Some(4));
        let top: Vec<(&str, u64)> = found.classes.iter().map(|class| (class.value.as_str(), class.count)).collect();
        assert_eq!(top, [("class 1", 2), ("class 3", 2), ("class 2", 1), ("class 7", 1)]);
    }

    #[test]
    fn moments_keep_their_microseconds() {
        let labels: Vec<_> = (0..100).map(|time| (0, 0, Label::Time(i64::MAX - 200 + time))).collect();
        let found = preview(&labels, None).train.quantiles_us.unwrap();
        assert_eq!((found[0], found[3], found[6]), (i64::MAX - 200, i64::MAX - 151, i64::MAX - 101));
    }
}
