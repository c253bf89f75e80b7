//! What is done to a context once its rows are visited: pairs of rows to judge, masked cells, walk features.
//!
//! None of it changes which rows and cells are there. Everything is off by default and costs nothing then.

use super::collate::Canvas;
use super::config::SamplerConfig;
use super::links::Pairs;
use super::masks::Masks;
use super::walk_features::WalkFeatures;

/// The parts that are switched on.
#[derive(Clone, Debug)]
pub struct Finishing {
    pairs: Option<Pairs>,
    masks: Option<Masks>,
    walk: Option<WalkFeatures>,
}

/// What the parts need to know of a context.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Where the random numbers of the context started.
    pub state: u64,
    /// Rows visited.
    pub rows: usize,
    /// The seed is a row of a table, without a target.
    pub is_row_seed: bool,
}

impl Finishing {
    /// The parts that the options ask for; foreign keys from `num_keys` on are those of tasks.
    pub fn new(config: &SamplerConfig, num_keys: usize) -> Self {
        Self {
            pairs: (config.num_links > 0).then(|| Pairs::new(num_keys)),
            masks: Masks::new(config),
            walk: (config.walk_features > 0).then(|| WalkFeatures::new(config.walk_features)),
        }
    }

    /// Completes a context.
    #[inline]
    pub fn run(&mut self, context: Finished, canvas: &mut Canvas<'_>) {
        if let Some(pairs) = &mut self.pairs {
            pairs.take(context, canvas);
        }
        if let Some(masks) = &self.masks {
            masks.hide(context, &mut canvas.cells);
        }
        if let Some(walk) = &mut self.walk {
            walk.write(context.rows, canvas);
        }
    }
}
