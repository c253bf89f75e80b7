//! The children of every row, per foreign key: `graph.bin`.

use std::path::Path;

use rayon::prelude::*;

use super::link::ParentRows;
use crate::csr::{Children, time_order};
use crate::database::GRAPH_FILE;
use crate::error::Result;
use crate::format::packed::{TimeCodes, width_of};
use crate::format::{FileKind, FileWriter, graph};

/// Bytes of lists that are sorted at the same time, beyond one foreign key.
const IN_FLIGHT: usize = 1 << 30;

/// One table as a holder of foreign keys.
pub(super) struct Holder<'a> {
    pub(super) num_rows: usize,
    /// How the times of its rows are numbered.
    pub(super) codes: TimeCodes,
    /// The number of each row's time; empty where the table has no times.
    pub(super) times: &'a [u64],
    pub(super) keys: &'a [ParentRows],
}

/// Where the children of each parent lie, by one foreign key.
pub(super) struct ChildLists {
    /// `[parents + 1]` positions in the lists.
    pub(super) indptr: Vec<u32>,
    /// The most children of a parent.
    pub(super) most: u64,
}

impl ChildLists {
    /// Children of all parents.
    pub(super) fn edges(&self) -> u64 {
        self.indptr.last().map_or(0, |&end| u64::from(end))
    }
}

/// Writes the lists of children and answers where those of each parent lie, per foreign key.
pub(super) fn write_graph(staging: &Path, build_id: u64, holders: &[Holder<'_>]) -> Result<Vec<ChildLists>> {
    let keys: usize = holders.iter().map(|holder| holder.keys.len()).sum();
    let mut writer = FileWriter::create(staging, GRAPH_FILE, FileKind::Graph, build_id, 2 * keys)?;
    let mut written = Vec::with_capacity(keys);
    for Holder { num_rows, codes, times, keys } in holders {
        if keys.is_empty() {
            continue;
        }
        let order = if times.is_empty() { (0..*num_rows as u32).collect() } else { time_order(times) };
        let edge_bytes = size_of::<u32>() + if times.is_empty() { 0 } else { size_of::<u64>() };
        let together = (IN_FLIGHT / (num_rows * edge_bytes).max(1)).max(1);
        for keys in keys.chunks(together) {
            let lists: Vec<Children<u64>> = keys
                .par_iter()
                .map(|key| Children::scatter(holders[key.parent.idx()].num_rows, &key.rows, times, &order))
                .collect();
            for children in lists {
                let key = written.len() as u32;
                let rows = children.indices.iter().map(|&row| u64::from(row));
                writer.packed(graph::indices(key), width_of(*num_rows as u64), rows)?;
                writer.packed(graph::times(key), codes.width, children.times.iter().copied())?;
                let most = children.indptr.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
                written.push(ChildLists { indptr: children.indptr, most: u64::from(most) });
            }
        }
    }
    writer.finish()?;
    Ok(written)
}
