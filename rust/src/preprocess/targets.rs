//! The seeds of a link task: one per entity, moment and split, with the rows that its labels name.
//!
//! Labels may come as lists or as one key a row; those of one entity, moment and split are one list, in ascending order
//! of the rows and without repetition.

use super::anchors::AnchorTable;
use super::labels::Labels;
use super::seeds::{Label, Seed};
use crate::database::Key;
use crate::error::{Error, Result};
use crate::schema::TaskSchema;
use crate::splits::key_text;

/// Where a label belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Observation time, microseconds.
    pub(super) time: i64,
    /// Row of the anchor table.
    pub(super) row: u32,
    /// 0 train, 1 val, 2 test.
    pub(super) split: u8,
}

/// The lists of the seeds of a link task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Targets {
    /// Where the list of each seed lies in `rows`; one more than seeds.
    pub(super) indptr: Vec<u32>,
    /// Rows of the target table, ascending within a list.
    pub(super) rows: Vec<u32>,
    /// Keys that name no row; they are in no list.
    pub(super) dangling: u64,
    /// Keys of rows that came too late; they are in no list.
    pub(super) late: u64,
    /// Keys in all.
    pub(super) num_keys: u64,
    /// The first of the dangling ones.
    pub(super) first_dangling: Option<String>,
}

/// The last time of a row that a label may name: with the moments of `RelBench` the first moment of test, as there.
fn latest_target(task: &TaskSchema) -> Option<i64> {
    task.split.filter(|_| task.timedelta_us.is_some() && task.timestamps.is_none()).map(|split| split.test_us)
}

/// The seeds in their order, their lists, and per split how many labels name nothing.
///
/// `places` are those of `labels`, by their number; `table` holds the rows that they name.
///
/// # Errors
/// [`Error::Schema`] naming the task when no key names a row, or there are more than 32-bit numbers.
pub(super) fn link_seeds(
    task: &TaskSchema,
    labels: &Labels,
    places: &[(usize, Place)],
    table: &AnchorTable,
) -> Result<(Vec<Seed>, Targets, [u64; 3])> {
    let at = || format!("task `{}`, column `{}`", task.name, task.target_column);
    let (keys, latest, mut found) = (table.keys()?, latest_target(task), Targets::default());
    let times = latest.map(|_| Ok(table.records()?.map(|record| record.time()).collect::<Vec<i64>>())).transpose()?;
    let is_late = |row: u32| times.as_ref().zip(latest).is_some_and(|(times, latest)| times[row as usize] > latest);
    let find = |key: &Key| keys.as_ref().map(|keys| keys.find(key)).transpose().map(Option::flatten);
    let mut pairs: Vec<(Place, u32)> = Vec::with_capacity(labels.num_targets());
    for &(label, place) in places {
        for key in labels.targets_of(label).iter().flatten() {
            found.num_keys += 1;
            match find(key)? {
                Some(row) if is_late(row.0) => found.late += 1,
                Some(row) => pairs.push((place, row.0)),
                None => {
                    found.dangling += 1;
                    found.first_dangling.get_or_insert_with(|| key_text(key));
                }
            }
        }
    }
    if let Some(first) = found.first_dangling.as_ref().filter(|_| found.dangling == found.num_keys) {
        let message = format!(
            "none of {} keys names a row of the target table, the first is `{first}`; name the table whose primary keys they are",
            found.num_keys
        );
        return Err(Error::schema(at(), message));
    }
    pairs.sort_unstable();
    pairs.dedup();
    if u32::try_from(pairs.len()).is_err() {
        return Err(Error::schema(at(), format!("more than {} keys in all lists", u32::MAX)));
    }
    let mut nulls = [0; 3];
    let mut all: Vec<Place> = places.iter().map(|&(_, place)| place).collect();
    all.sort_unstable();
    all.dedup();
    for place in &all {
        nulls[usize::from(place.split)] += 1;
    }
    let mut seeds = Vec::new();
    found.indptr.push(0);
    for list in pairs.chunk_by(|one, other| one.0 == other.0) {
        let Place { time, row, split } = list[0].0;
        seeds.push(Seed { time, row, split, label: Label::Links });
        nulls[usize::from(split)] -= 1;
        found.rows.extend(list.iter().map(|&(_, target)| target));
        found.indptr.push(found.rows.len() as u32);
    }
    Ok((seeds, found, nulls))
}
