//! The children of every row, per foreign key: `graph.bin`.
//!
//! One foreign key is built at a time, the lists of a range of parents together: their children are collected in the
//! order of the rows and every list is sorted by itself, so that work in progress takes a share of the memory that is
//! left and touches a part of the lists at once.

use std::ops::{Range, RangeInclusive};
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::link::ParentRows;
use super::memory::{Buffer, Memory};
use crate::csr::NO_PARENT;
use crate::database::GRAPH_FILE;
use crate::error::Result;
use crate::format::packed::{TimeCodes, width_of};
use crate::format::{FileKind, FileWriter, graph};

/// A child before its list is sorted.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Child {
    time: u64,
    row: u32,
    zero: u32,
}

/// Fewest and most children of the lists that one worker sorts at a time, unless one list alone is longer.
const CHILDREN_AT_ONCE: RangeInclusive<usize> = 1 << 16..=1 << 24;

/// Children of each parent, sorted by time and then by row.
struct Lists {
    /// `[parents + 1]` positions in `indices`.
    indptr: Buffer<u32>,
    /// `[edges]` child rows.
    indices: Buffer<u32>,
    /// `[edges]` the number of each child's time; empty where rows have none.
    times: Buffer<u64>,
}

/// One table as a holder of foreign keys.
pub(super) struct Holder<'a> {
    pub(super) num_rows: usize,
    /// How the times of its rows are numbered.
    pub(super) codes: TimeCodes,
    /// The number of each row's time; empty where the table has no times.
    pub(super) times: &'a Buffer<u64>,
    pub(super) keys: &'a [ParentRows],
}

/// Where the children of each parent lie, by one foreign key.
pub(super) struct ChildLists {
    /// `[parents + 1]` positions in the lists.
    pub(super) indptr: Buffer<u32>,
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
pub(super) fn write_graph(
    staging: &Path,
    build_id: u64,
    holders: &[Holder<'_>],
    memory: &Memory,
) -> Result<Vec<ChildLists>> {
    let keys: usize = holders.iter().map(|holder| holder.keys.len()).sum();
    let mut writer = FileWriter::create(staging, GRAPH_FILE, FileKind::Graph, build_id, 2 * keys)?;
    let mut written = Vec::with_capacity(keys);
    for Holder { num_rows, codes, times, keys } in holders {
        let in_order = times.is_sorted();
        for key in *keys {
            let lists = Lists::of(holders[key.parent.idx()].num_rows, &key.rows, times, in_order, memory)?;
            let key = written.len() as u32;
            let rows = lists.indices.iter().map(|&row| u64::from(row));
            writer.packed(graph::indices(key), width_of(*num_rows as u64), rows)?;
            writer.packed(graph::times(key), codes.width, lists.times.iter().copied())?;
            let most = lists.indptr.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
            lists.indptr.release_pages();
            written.push(ChildLists { indptr: lists.indptr, most: u64::from(most) });
        }
        times.release_pages();
    }
    writer.finish()?;
    Ok(written)
}

impl Lists {
    /// The lists of one foreign key; `in_order` says that no later row has an earlier time.
    fn of(num_parents: usize, parents: &Buffer<u32>, times: &[u64], in_order: bool, memory: &Memory) -> Result<Self> {
        let indptr = count(num_parents, parents, memory)?;
        let edges = indptr[num_parents] as usize;
        let timed = if times.is_empty() { 0 } else { edges };
        let mut lists = Self { indptr, indices: memory.zeros(edges)?, times: memory.zeros(timed)? };
        let workers = rayon::current_num_threads();
        let affordable = usize::try_from(memory.left() / 4).unwrap_or(usize::MAX) / size_of::<Child>() / workers;
        let (least, most) = CHILDREN_AT_ONCE.into_inner();
        let at_once = affordable.min(edges.div_ceil(workers)).clamp(least, most);
        let parts = lists.parts(at_once);
        let done: Vec<Result<()>> =
            parts.into_par_iter().map(|part| part.fill(parents, times, in_order, memory)).collect();
        done.into_iter().collect::<Result<()>>()?;
        parents.release_pages();
        Ok(lists)
    }

    /// Cuts the lists between parents, about every `at_once` children.
    fn parts(&mut self, at_once: usize) -> Vec<Part<'_>> {
        let Self { indptr, indices, times } = self;
        let (mut indices, mut times): (&mut [u32], &mut [u64]) = (indices, times);
        let num_parents = indptr.len() - 1;
        let mut parts = Vec::new();
        let mut first = 0;
        while first < num_parents && !indices.is_empty() {
            let limit = indptr[first] as usize + at_once;
            // at least one parent, however many children it has
            let fitting = indptr[first + 1..].partition_point(|&end| end as usize <= limit).max(1);
            let parents = first..first + fitting;
            let len = (indptr[parents.end] - indptr[first]) as usize;
            let (own_indices, later_indices) = indices.split_at_mut(len);
            let (own_times, later_times) = times.split_at_mut(len.min(times.len()));
            (indices, times, first) = (later_indices, later_times, parents.end);
            if len > 0 {
                let ends = &indptr[parents.start..=parents.end];
                parts.push(Part { parents, ends, indices: own_indices, times: own_times });
            }
        }
        parts
    }
}

/// How many children every parent has, summed up: `[parents + 1]`.
fn count(num_parents: usize, parents: &[u32], memory: &Memory) -> Result<Buffer<u32>> {
    let mut indptr = memory.zeros::<u32>(num_parents + 1)?;
    let counts: &mut [u32] = &mut indptr;
    for &parent in parents.iter().filter(|&&parent| parent != NO_PARENT) {
        counts[parent as usize + 1] += 1;
    }
    let mut sum = 0;
    for count in counts {
        sum += *count;
        *count = sum;
    }
    Ok(indptr)
}

/// The lists of some consecutive parents.
struct Part<'a> {
    parents: Range<usize>,
    /// Where the lists lie among those of all parents.
    ends: &'a [u32],
    indices: &'a mut [u32],
    times: &'a mut [u64],
}

impl Part<'_> {
    fn fill(self, parents: &[u32], times: &[u64], in_order: bool, memory: &Memory) -> Result<()> {
        if in_order {
            return self.take_in_order(parents, times, memory);
        }
        let mut children = memory.zeros::<Child>(self.indices.len())?;
        let children: &mut [Child] = &mut children;
        let child = |row| Child { time: times[row], row: row as u32, zero: 0 };
        self.each_child(parents, memory, |place, row| children[place] = child(row))?;
        let start = self.ends[0];
        for ends in self.ends.windows(2) {
            let list = (ends[0] - start) as usize..(ends[1] - start) as usize;
            let own = &mut children[list.clone()];
            if !own.is_sorted_by_key(|child| child.time) {
                own.sort_unstable_by_key(|child| (child.time, child.row));
            }
            let places = self.indices[list.clone()].iter_mut().zip(&mut self.times[list]);
            for (child, (index, time)) in own.iter().zip(places) {
                (*index, *time) = (child.row, child.time);
            }
        }
        Ok(())
    }

    /// The rows come in the order of their times: nothing is to be sorted.
    fn take_in_order(mut self, parents: &[u32], times: &[u64], memory: &Memory) -> Result<()> {
        let (indices, own_times) = (std::mem::take(&mut self.indices), std::mem::take(&mut self.times));
        self.each_child(parents, memory, |place, row| {
            indices[place] = row as u32;
            if let Some(time) = own_times.get_mut(place) {
                *time = times[row];
            }
        })
    }

    /// Calls `put` with every child of these parents in the order of the rows: its place in the lists and its row.
    fn each_child(&self, parents: &[u32], memory: &Memory, mut put: impl FnMut(usize, usize)) -> Result<()> {
        let (first, num_parents) = (self.parents.start as u32, self.parents.len() as u32);
        let mut next = memory.zeros::<u32>(self.parents.len())?;
        let next: &mut [u32] = &mut next;
        next.iter_mut().zip(self.ends).for_each(|(place, end)| *place = end - self.ends[0]);
        for (row, &parent) in parents.iter().enumerate() {
            // NO_PARENT is beyond every range
            let own = parent.wrapping_sub(first);
            if own < num_parents {
                let place = &mut next[own as usize];
                put(*place as usize, row);
                *place += 1;
            }
        }
        Ok(())
    }
}
