//! Where a row stands in the graph of its context: probabilities of a random walk. Implements
//! `documentation/sampling.md`, "Walk features".

use super::collate::Canvas;

/// Writes the probabilities; belongs to one thread.
#[derive(Clone, Debug)]
pub struct WalkFeatures {
    steps: usize,
    /// Links of each row, counted at both ends.
    degrees: Vec<f32>,
    /// What each row hands on along each of its links.
    shares: Vec<f32>,
    now: Vec<f32>,
    next: Vec<f32>,
}

impl WalkFeatures {
    /// The probabilities after 1 to `steps` steps.
    pub fn new(steps: usize) -> Self {
        Self { steps, degrees: vec![], shares: vec![], now: vec![], next: vec![] }
    }

    /// Writes those of a context of `rows` rows.
    pub fn write(&mut self, rows: usize, canvas: &mut Canvas<'_>) {
        let width = canvas.num_parents;
        let links = |row: usize| {
            let parents = &canvas.row_parents[row * width..(row + 1) * width];
            parents.iter().take_while(|&&parent| parent >= 0).map(|&parent| parent as usize)
        };
        self.degrees.clear();
        self.degrees.resize(rows, 0.0);
        for row in 0..rows {
            for parent in links(row) {
                self.degrees[row] += 1.0;
                self.degrees[parent] += 1.0;
            }
        }
        self.shares.resize(rows, 0.0);
        self.now.clear();
        self.now.resize(rows, 0.0);
        self.now[0] = 1.0;
        for step in 0..self.steps {
            for (share, (&here, &degree)) in self.shares.iter_mut().zip(self.now.iter().zip(&self.degrees)) {
                *share = if degree > 0.0 { here / degree } else { 0.0 };
            }
            self.next.clear();
            // a row without links keeps the walk
            self.next.extend(self.now.iter().zip(&self.degrees).map(|(&here, &of)| if of > 0.0 { 0.0 } else { here }));
            for row in 0..rows {
                for parent in links(row) {
                    self.next[parent] += self.shares[row];
                    self.next[row] += self.shares[parent];
                }
            }
            std::mem::swap(&mut self.now, &mut self.next);
            for (row, &here) in self.now.iter().enumerate() {
                canvas.row_walk[row * self.steps + step] = here;
            }
        }
    }
}
