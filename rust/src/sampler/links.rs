//! Pairs of rows to judge: true links taken out of the context, and false ones beside them. Implements
//! `documentation/sampling.md`, "Pairs of rows".

use super::collate::Canvas;
use super::finishing::Finished;
use super::rng::{Domain, Rng, hash};

/// Draws pairs; belongs to one thread.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Foreign keys of the database; those of tasks follow.
    num_keys: usize,
    /// Links of the context, as positions in its `row_parents`.
    links: Vec<u32>,
}

impl Pairs {
    /// Pairs of links by the first `num_keys` foreign keys.
    pub fn new(num_keys: usize) -> Self {
        Self { num_keys, links: vec![] }
    }

    /// Draws the pairs of a context and takes the true ones out of its links.
    pub fn take(&mut self, context: Finished, canvas: &mut Canvas<'_>) {
        let (width, used) = (canvas.num_parents, context.rows * canvas.num_parents);
        self.links.clear();
        let keys = &canvas.row_parent_keys[..used];
        let can_be_asked = |at: &u32| usize::try_from(keys[*at as usize]).is_ok_and(|key| key < self.num_keys);
        self.links.extend((0..used as u32).filter(can_be_asked));
        let mut rng = Rng::new(hash(Domain::Link, &[context.state]));
        let number = canvas.link_child.len();
        let num_true = number.div_ceil(2).min(self.links.len());
        for drawn in 0..num_true {
            let picked = drawn + rng.below((self.links.len() - drawn) as u32) as usize;
            self.links.swap(drawn, picked);
            let at = self.links[drawn] as usize;
            let (child, parent, key) = ((at / width) as i16, canvas.row_parents[at], canvas.row_parent_keys[at]);
            write_pair(canvas, 2 * drawn, (child, parent, key), true);
            if 2 * drawn + 1 < number
                && let Some(other) = other_row(canvas, context.rows, parent, &mut rng)
            {
                write_pair(canvas, 2 * drawn + 1, (child, other, key), false);
            }
        }
        self.links.truncate(num_true);
        for &at in &self.links {
            canvas.row_parents[at as usize] = -1;
        }
        for &at in &self.links {
            let start = at as usize / width * width;
            let links = start..start + width;
            close_gaps(&mut canvas.row_parents[links.clone()], &mut canvas.row_parent_keys[links]);
        }
    }
}

/// A row of the parent's table that is not the parent, each equally likely.
fn other_row(canvas: &Canvas<'_>, rows: usize, parent: i16, rng: &mut Rng) -> Option<i16> {
    let table = canvas.row_table[parent as usize];
    let others = || (0..rows).filter(|&row| canvas.row_table[row] == table && row != parent as usize);
    let number = others().count() as u32;
    if number == 0 {
        return None;
    }
    others().nth(rng.below(number) as usize).map(|row| row as i16)
}

fn write_pair(canvas: &mut Canvas<'_>, at: usize, (child, parent, key): (i16, i16, i16), is_true: bool) {
    canvas.link_child[at] = child;
    canvas.link_parent[at] = parent;
    canvas.link_key[at] = key;
    canvas.link_is_true[at] = is_true;
}

/// Moves the links of a row to the front.
pub fn close_gaps(parents: &mut [i16], keys: &mut [i16]) {
    let mut kept = 0;
    for link in 0..parents.len() {
        let (parent, key) = (parents[link], keys[link]);
        (parents[link], keys[link]) = (-1, -1);
        if parent >= 0 {
            (parents[kept], keys[kept]) = (parent, key);
            kept += 1;
        }
    }
}
