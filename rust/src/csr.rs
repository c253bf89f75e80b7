//! Edges to compressed sparse rows: pure arithmetic, no files.

/// Marks a row without a parent in an array of parent rows.
pub const NO_PARENT: u32 = u32::MAX;

/// Children of each parent, sorted by time and then by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// `[parents + 1]` positions in `indices`.
    pub indptr: Vec<u32>,
    /// `[edges]` child rows.
    pub indices: Vec<u32>,
    /// `[edges]` the time of each child, microseconds.
    pub times: Vec<i64>,
}

impl Children {
    /// Turns a parent per child row into the children of each parent.
    ///
    /// `order` lists the child rows sorted by (time, row); scattering them in that order sorts every list at no
    /// further cost. `parents[row]` is [`NO_PARENT`] for a row without one.
    ///
    /// # Panics
    /// If a parent is not below `num_parents`, or `order` names a row outside of `parents`.
    pub fn scatter(num_parents: usize, parents: &[u32], times: &[i64], order: &[u32]) -> Self {
        let mut indptr = vec![0u32; num_parents + 1];
        for &parent in parents.iter().filter(|&&parent| parent != NO_PARENT) {
            indptr[parent as usize + 1] += 1;
        }
        for parent in 0..num_parents {
            indptr[parent + 1] += indptr[parent];
        }
        let edges = indptr[num_parents] as usize;
        let mut next = indptr.clone();
        let mut children = Self { indptr, indices: vec![0; edges], times: vec![0; edges] };
        for &row in order {
            let parent = parents[row as usize];
            if parent != NO_PARENT {
                let slot = &mut next[parent as usize];
                children.indices[*slot as usize] = row;
                children.times[*slot as usize] = times[row as usize];
                *slot += 1;
            }
        }
        children
    }
}

/// Rows sorted by (time, row); rows of one time keep their order.
pub fn time_order(times: &[i64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..times.len() as u32).collect();
    if !times.is_sorted() {
        order.sort_by_key(|&row| times[row as usize]);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn scatter_equals_the_naive_lists(
            rows in prop::collection::vec((prop::option::of(0u32..7), -5i64..5), 0..60)
        ) {
            let parents: Vec<u32> = rows.iter().map(|(parent, _)| parent.unwrap_or(NO_PARENT)).collect();
            let times: Vec<i64> = rows.iter().map(|(_, time)| *time).collect();
            let children = Children::scatter(7, &parents, &times, &time_order(&times));
            for parent in 0..7u32 {
                let mut naive: Vec<(i64, u32)> = (0..rows.len())
                    .filter(|&row| parents[row] == parent)
                    .map(|row| (times[row], row as u32))
                    .collect();
                naive.sort_unstable();
                let (start, end) =
                    (children.indptr[parent as usize] as usize, children.indptr[parent as usize + 1] as usize);
                let got: Vec<(i64, u32)> =
                    (start..end).map(|edge| (children.times[edge], children.indices[edge])).collect();
                prop_assert_eq!(got, naive);
            }
        }
    }
}
