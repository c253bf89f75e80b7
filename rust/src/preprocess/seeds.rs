//! Seeds before they are packed: their order, and the split each belongs to.

use std::cmp::Ordering;

use crate::error::{Result, suggestion};
use crate::manifest::SPLITS;
use crate::schema::{SplitTimes, TaskSchema};
use crate::splits::hashed_split;

const TRAIN: u8 = 0;
const VAL: u8 = 1;
const TEST: u8 = 2;

/// What a seed asks for, and the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seed {
    /// Observation time, microseconds.
    pub time: i64,
    /// Row of the anchor table.
    pub row: u32,
    /// 0 train, 1 val, 2 test.
    pub split: u8,
    /// The answer.
    pub label: Label,
}

/// The label of a seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Label {
    /// A number in the user's units, or a z-score where the scale is known already.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// A moment, microseconds.
    Time(i64),
    /// A text: its place among the sorted texts of the labels, or its vocabulary id.
    Text(u32),
    /// A list of rows, which lies elsewhere; a link task has one seed per (time, row, split).
    Links,
}

impl Seed {
    /// The order of seeds: time, anchor row, label, split. Seeds that compare equal are equal.
    pub(super) fn cmp(one: &Self, other: &Self) -> Ordering {
        (one.time, one.row)
            .cmp(&(other.time, other.row))
            .then_with(|| one.label.cmp(&other.label))
            .then_with(|| one.split.cmp(&other.split))
    }
}

impl Label {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => one.total_cmp(other),
            (Self::Boolean(one), Self::Boolean(other)) => one.cmp(other),
            (Self::Time(one), Self::Time(other)) => one.cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            // labels of one task are of one kind
            _ => Ordering::Equal,
        }
    }
}

/// Decides the split of every seed of one task.
pub(super) struct Splitter {
    task: String,
    times: Option<SplitTimes>,
}

impl Splitter {
    pub(super) fn new(task: &TaskSchema) -> Self {
        Self { task: task.name.clone(), times: task.split }
    }

    /// The split of a seed: by the task's times, or 80, 10 and 10 per cent of the entities by a hash of the task and
    /// the entity's `key`, which is asked for only then.
    pub(super) fn split(&self, time: i64, key: impl FnOnce() -> Result<String>) -> Result<u8> {
        Ok(match self.times {
            Some(times) if time >= times.test_us => TEST,
            Some(times) if time >= times.val_us => VAL,
            Some(_) => TRAIN,
            None => hashed_split(&self.task, &key()?),
        })
    }
}

/// The split that a label names, `None` for a null.
pub(super) fn named_split(name: Option<&str>) -> Result<u8, String> {
    let name = name.ok_or("the split is null; expected train, val or test")?;
    SPLITS.iter().position(|split| *split == name).map(|code| code as u8).ok_or_else(|| {
        format!("unknown split `{name}`{}; the splits are train, val and test", suggestion(name, SPLITS))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splitter(times: Option<SplitTimes>) -> Splitter {
        Splitter { task: "churn".into(), times }
    }

    fn split(splitter: &Splitter, time: i64, key: &str) -> u8 {
        splitter.split(time, || Ok(key.to_owned())).unwrap()
    }

    #[test]
    fn times_divide_and_names_are_strict() {
        let timed = splitter(Some(SplitTimes { val_us: 10, test_us: 20 }));
        assert_eq!([9, 10, 19, 20, i64::MAX].map(|time| split(&timed, time, "1")), [TRAIN, VAL, VAL, TEST, TEST]);
        assert_eq!(SPLITS.map(|name| named_split(Some(name))), [Ok(TRAIN), Ok(VAL), Ok(TEST)]);
        assert!(named_split(None).is_err());
        assert!(named_split(Some("tests")).unwrap_err().contains("did you mean `test`"));
    }

    #[test]
    fn without_times_the_key_alone_decides() {
        let hashed = splitter(None);
        assert_eq!(split(&hashed, 5, "7"), split(&hashed, 900, "7"));
        assert_eq!(split(&hashed, 5, "42"), hashed_split("churn", "42"));
    }

    #[test]
    fn seeds_are_sorted_by_time_row_and_label() {
        let seed = |time, row, label| Seed { time, row, split: 0, label };
        let sorted = [
            seed(1, 5, Label::Number(-1.0)),
            seed(1, 5, Label::Number(2.0)),
            seed(1, 6, Label::Number(-9.0)),
            seed(2, 0, Label::Number(0.0)),
        ];
        let mut seeds = [sorted[3], sorted[1], sorted[2], sorted[0]];
        seeds.sort_unstable_by(Seed::cmp);
        assert_eq!(seeds, sorted);
    }
}
