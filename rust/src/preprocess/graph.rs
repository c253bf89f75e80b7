//! The children of every row, per foreign key: `graph.bin`.

use std::path::Path;

use rayon::prelude::*;

use super::link::ParentRows;
use crate::csr::{Children, time_order};
use crate::database::GRAPH_FILE;
use crate::error::Result;
use crate::format::{FileKind, FileWriter, graph};

/// Bytes of lists that are sorted at the same time, beyond one foreign key.
const IN_FLIGHT: usize = 1 << 30;

/// Writes the lists of children and answers where those of each parent lie, `indptr` per foreign key.
///
/// `tables` holds, per table, the times of its rows and its foreign keys; `num_rows` the rows of each table.
pub(super) fn write_graph(
    staging: &Path,
    build_id: u64,
    tables: &[(&[i64], &[ParentRows])],
    num_rows: &[usize],
) -> Result<Vec<Vec<u32>>> {
    let keys: usize = tables.iter().map(|(_, keys)| keys.len()).sum();
    let mut writer = FileWriter::create(staging, GRAPH_FILE, FileKind::Graph, build_id, 2 * keys)?;
    let mut indptrs = Vec::with_capacity(keys);
    for (times, keys) in tables {
        if keys.is_empty() {
            continue;
        }
        let order = time_order(times);
        let edge_bytes = size_of::<u32>() + size_of::<i64>();
        let together = (IN_FLIGHT / (times.len() * edge_bytes).max(1)).max(1);
        for keys in keys.chunks(together) {
            let lists: Vec<Children> = keys
                .par_iter()
                .map(|key| Children::scatter(num_rows[key.parent.idx()], &key.rows, times, &order))
                .collect();
            for children in lists {
                let key = indptrs.len() as u32;
                writer.values(graph::indices(key), &children.indices)?;
                writer.values(graph::times(key), &children.times)?;
                indptrs.push(children.indptr);
            }
        }
    }
    writer.finish()?;
    Ok(indptrs)
}
