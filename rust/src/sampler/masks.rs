//! Cells that are hidden in pretraining. Implements `documentation/sampling.md`, "Masked cells".

use super::collate::{Cells, Written};
use super::config::SamplerConfig;
use super::finishing::Finished;
use super::rng::{Domain, Rng, hash, nth};
use crate::stype::Stype;

/// Bits of a random number that are compared with a probability: as many as a 64-bit float holds.
const BITS: u32 = 53;
/// Stands in the place of a column where a hash chooses the one cell that is masked for certain.
const CERTAIN: u64 = u64::MAX;

/// Which cells are masked, by chance.
#[derive(Clone, Copy, Debug)]
pub struct Masks {
    /// By stype code: numbers below this mask a cell.
    cells: [u64; Stype::ALL.len()],
    /// Numbers below this mask a column of a context.
    columns: u64,
}

/// A random number's first 53 bits are below this with probability `rate`.
fn threshold(rate: f64) -> u64 {
    (rate * (1u64 << BITS) as f64).ceil() as u64
}

#[inline]
fn first_bits(word: u64) -> u64 {
    word >> (64 - BITS)
}

impl Masks {
    /// `None` where nothing is ever masked.
    pub fn new(config: &SamplerConfig) -> Option<Self> {
        let rate = |stype: Stype| if stype == Stype::Identifier { 0.0 } else { config.mask_rate.of(stype) };
        let masks =
            Self { cells: Stype::ALL.map(|stype| threshold(rate(stype))), columns: threshold(config.mask_columns) };
        (masks.columns > 0 || masks.cells.iter().any(|&cells| cells > 0)).then_some(masks)
    }

    /// Whether cells of this stype are masked at times.
    #[inline]
    fn may_hide(&self, stype: i8) -> bool {
        stype != Stype::Identifier.code() as i8 && (self.columns > 0 || self.cells[stype as usize] > 0)
    }

    /// Marks the masked cells of a context.
    pub fn hide(&self, context: Finished, cells: &mut Cells<'_>) {
        let state = hash(Domain::Mask, &[context.state]);
        let mut cells = cells.written();
        for at in 0..cells.stype.len() {
            let stype = cells.stype[at];
            let mut is_masked = first_bits(nth(state, at as u64)) < self.cells[stype as usize];
            if self.columns > 0 && stype != Stype::Identifier.code() as i8 {
                is_masked |= first_bits(hash(Domain::Mask, &[state, cells.column[at] as u64])) < self.columns;
            }
            cells.is_masked[at] = is_masked && !cells.is_target[at];
        }
        if context.is_row_seed {
            self.hide_one(state, &mut cells);
        }
    }

    /// Masks a cell of row 0 that has a value, unless one is masked.
    fn hide_one(&self, state: u64, cells: &mut Written<'_>) {
        let len = cells.row.iter().take_while(|&&row| row == 0).count();
        let can_be_hidden = |at: &usize| !cells.is_null[*at] && self.may_hide(cells.stype[*at]);
        if (0..len).filter(can_be_hidden).any(|at| cells.is_masked[at]) {
            return;
        }
        let number = (0..len).filter(can_be_hidden).count() as u32;
        let chosen = Rng::new(hash(Domain::Mask, &[state, CERTAIN])).below(number) as usize;
        if let Some(at) = (0..len).filter(can_be_hidden).nth(chosen) {
            cells.is_masked[at] = true;
        }
    }
}
