//! Edges to compressed sparse rows: pure arithmetic, no files.

use rayon::prelude::*;

/// Marks a row without a parent in an array of parent rows.
pub const NO_PARENT: u32 = u32::MAX;

/// Children of each parent, sorted by time and then by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children<T> {
    /// `[parents + 1]` positions in `indices`.
    pub indptr: Vec<u32>,
    /// `[edges]` child rows.
    pub indices: Vec<u32>,
    /// `[edges]` the time of each child; empty where rows have none.
    pub times: Vec<T>,
}

/// A time, or a number that is in the order of times.
pub trait Time: Copy + Default + Ord + Send + Sync {
    /// The number of the time, in their order.
    fn rank(self) -> u64;
}

impl Time for i64 {
    fn rank(self) -> u64 {
        self as u64 ^ 1 << 63
    }
}

impl Time for u64 {
    fn rank(self) -> u64 {
        self
    }
}

impl<T: Time> Children<T> {
    /// Turns a parent per child row into the children of each parent.
    ///
    /// `order` lists the child rows sorted by (time, row); scattering them in that order sorts every list at no
    /// further cost. `parents[row]` is [`NO_PARENT`] for a row without one; `times` is empty where rows have none.
    ///
    /// # Panics
    /// If a parent is not below `num_parents`, or `order` names a row outside of `parents`.
    pub fn scatter(num_parents: usize, parents: &[u32], times: &[T], order: &[u32]) -> Self {
        let mut indptr = vec![0u32; num_parents + 1];
        for &parent in parents.iter().filter(|&&parent| parent != NO_PARENT) {
            indptr[parent as usize + 1] += 1;
        }
        for parent in 0..num_parents {
            indptr[parent + 1] += indptr[parent];
        }
        let edges = indptr[num_parents] as usize;
        let mut next = indptr.clone();
        let timed = if times.is_empty() { 0 } else { edges };
        let mut children = Self { indptr, indices: vec![0; edges], times: vec![T::default(); timed] };
        for &row in order {
            let parent = parents[row as usize];
            if parent != NO_PARENT {
                let slot = &mut next[parent as usize];
                children.indices[*slot as usize] = row;
                if let Some(&time) = times.get(row as usize) {
                    children.times[*slot as usize] = time;
                }
                *slot += 1;
            }
        }
        children
    }
}

/// Rows sorted by (time, row); rows of one time keep their order.
///
/// Dates and whole hours leave few distinct times, which are counted; all others are sorted.
pub fn time_order<T: Time>(times: &[T]) -> Vec<u32> {
    if times.is_sorted() {
        return (0..times.len() as u32).collect();
    }
    if let Some(order) = counted_order(times) {
        return order;
    }
    let mut pairs: Vec<(T, u32)> = times.iter().copied().zip(0..).collect();
    pairs.par_sort_unstable();
    pairs.into_iter().map(|(_, row)| row).collect()
}

/// The order by counting, when the times lie on a grid with at most a few points per row.
fn counted_order<T: Time>(times: &[T]) -> Option<Vec<u32>> {
    // A null time is the greatest of all and lies on no grid; it gets the last place.
    let known = || times.iter().map(|time| time.rank()).filter(|&time| time != u64::MAX);
    let (min, max) = (known().min()?, known().max()?);
    let mut step = max.abs_diff(min);
    for time in known() {
        let distance = time.abs_diff(min);
        if !distance.is_multiple_of(step) {
            step = greatest_divisor(distance, step);
        }
    }
    let points = max.abs_diff(min) / step.max(1) + 2;
    if points > 4 * times.len() as u64 + 1024 {
        return None;
    }
    let place = |time: u64| if time == u64::MAX { points - 1 } else { time.abs_diff(min) / step.max(1) } as usize;
    let mut next = vec![0u32; points as usize + 1];
    for time in times {
        next[place(time.rank()) + 1] += 1;
    }
    for point in 0..points as usize {
        next[point + 1] += next[point];
    }
    let mut order = vec![0; times.len()];
    for (row, time) in times.iter().enumerate() {
        let slot = &mut next[place(time.rank())];
        order[*slot as usize] = row as u32;
        *slot += 1;
    }
    Some(order)
}

fn greatest_divisor(mut left: u64, mut right: u64) -> u64 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_a_stable_sort(
            times in prop_oneof![
                prop::collection::vec((-3i64..3).prop_map(|day| day * 86_400_000_000 + 7), 0..50),
                prop::collection::vec(prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>(), -5i64..5], 0..50),
                prop::collection::vec(prop_oneof![Just(i64::MAX), -5i64..5], 0..50),
            ]
        ) {
            let mut naive: Vec<u32> = (0..times.len() as u32).collect();
            naive.sort_by_key(|&row| times[row as usize]);
            prop_assert_eq!(time_order(&times), naive);
        }

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
