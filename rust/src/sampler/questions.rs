//! Seeds of the caller's own: any entity at any time, without a label.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

use super::temporal::END_OF_TIME;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::ids::{RowId, TaskId};
use crate::manifest::TaskKind;

/// Entities and the times they are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    rows: Arc<[u32]>,
    times: Arc<[i64]>,
}

impl Questions {
    /// The question about each row of the anchor table of a task. Without `times`, a row is asked about at its own
    /// time, or at the end of time where it has none.
    ///
    /// # Errors
    /// [`Error::Argument`] when a row does not exist, the lengths differ, there is no question at all, or times are
    /// missing though the task's seeds have them.
    pub fn new(database: &Database, task: TaskId, rows: &[i64], times: Option<&[i64]>) -> Result<Self> {
        let manifest = database.manifest();
        let task = &manifest.tasks[task.idx()];
        let (name, anchor) = (&task.name, &manifest.tables[task.anchor_table.idx()]);
        if rows.is_empty() || u32::try_from(rows.len()).is_err() {
            let most = u32::MAX;
            return Err(Error::Argument(format!("task `{name}`: 1 to {most} seeds expected, found {}", rows.len())));
        }
        let known = |(idx, &row): (usize, &i64)| {
            u32::try_from(row).ok().filter(|&row| row < anchor.num_rows).ok_or_else(|| {
                let (table, rows) = (&anchor.name, anchor.num_rows);
                Error::Argument(format!("task `{name}`, seed {idx}: table `{table}` has {rows} rows, found row {row}"))
            })
        };
        let rows: Vec<u32> = rows.iter().enumerate().map(known).collect::<Result<_>>()?;
        let times = match times {
            Some(times) if times.len() != rows.len() => {
                let (found, expected) = (times.len(), rows.len());
                return Err(Error::Argument(format!("task `{name}`: {expected} seeds with {found} times")));
            }
            Some(times) => times.to_vec(),
            None if task.kind == TaskKind::Table && task.observation_time_column.is_some() => {
                return Err(Error::Argument(format!(
                    "task `{name}` asks about entities at a time; say at which time each seed is asked"
                )));
            }
            None => {
                let table = database.table(task.anchor_table);
                let own = |&row: &u32| Some(table.record(RowId(row)).time()).filter(|&time| time != i64::MIN);
                rows.iter().map(|row| own(row).unwrap_or(END_OF_TIME)).collect()
            }
        };
        Ok(Self { rows: rows.into(), times: times.into() })
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The entity's row and the time of a question.
    #[inline]
    pub fn get(&self, idx: u32) -> (u32, i64) {
        (self.rows[idx as usize], self.times[idx as usize])
    }
}

/// As options are compared: their number and a hash.
impl Serialize for Questions {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut hash = Xxh3::new();
        self.rows.iter().for_each(|row| hash.update(&row.to_le_bytes()));
        self.times.iter().for_each(|time| hash.update(&time.to_le_bytes()));
        serializer.collect_str(&format_args!("{} seeds {:032x}", self.rows.len(), hash.digest128()))
    }
}
