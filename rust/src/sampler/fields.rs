//! The arrays of a batch: names, types and axes, owned here and nowhere else.
//!
//! Implements the tables of `documentation/batch.md`; a test compares the two.

/// The element type of a field, under numpy's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// True or false.
    Bool,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// 32-bit float.
    Float32,
}

impl Dtype {
    /// Numpy's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
        }
    }

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::Int8 => 1,
            Self::Int16 => 2,
            Self::Int32 | Self::Float32 => 4,
            Self::Int64 => 8,
        }
    }
}

/// An axis of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// `B`, contexts.
    Contexts,
    /// `S`, cells of a context.
    Cells,
    /// `R`, rows of a context.
    Rows,
    /// `P`, foreign keys of a row.
    Parents,
    /// The seven calendar fields of a moment.
    Calendar,
    /// `W`, steps of the random walk.
    Walk,
    /// `L`, pairs of rows to judge.
    Pairs,
    /// `A`, rows of a context where a link task is sampled, else none.
    Answers,
}

impl Axis {
    /// The letter, or the number where it is fixed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contexts => "B",
            Self::Cells => "S",
            Self::Rows => "R",
            Self::Parents => "P",
            Self::Calendar => "7",
            Self::Walk => "W",
            Self::Pairs => "L",
            Self::Answers => "A",
        }
    }
}

/// One array of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its axes, outermost first.
    pub axes: &'static [Axis],
}

const fn field(name: &'static str, dtype: Dtype, axes: &'static [Axis]) -> Field {
    Field { name, dtype, axes }
}

const SEED: &[Axis] = &[Axis::Contexts];
const CELL: &[Axis] = &[Axis::Contexts, Axis::Cells];
const ROW: &[Axis] = &[Axis::Contexts, Axis::Rows];
const LINK: &[Axis] = &[Axis::Contexts, Axis::Rows, Axis::Parents];
const WALK: &[Axis] = &[Axis::Contexts, Axis::Rows, Axis::Walk];
const PAIR: &[Axis] = &[Axis::Contexts, Axis::Pairs];
const ANSWER: &[Axis] = &[Axis::Contexts, Axis::Answers];
const MOMENT: &[Axis] = &[Axis::Contexts, Axis::Cells, Axis::Calendar];

/// Every array of a batch, in the order of `documentation/batch.md`.
pub const BATCH_FIELDS: &[Field] = &[
    field("cell_row", Dtype::Int16, CELL),
    field("cell_column", Dtype::Int32, CELL),
    field("cell_stype", Dtype::Int8, CELL),
    field("cell_value", Dtype::Float32, CELL),
    field("cell_vocab", Dtype::Int32, CELL),
    field("cell_calendar", Dtype::Int16, MOMENT),
    field("cell_is_null", Dtype::Bool, CELL),
    field("cell_is_target", Dtype::Bool, CELL),
    field("cell_is_masked", Dtype::Bool, CELL),
    field("cell_is_padding", Dtype::Bool, CELL),
    field("row_table", Dtype::Int32, ROW),
    field("row_hop", Dtype::Int16, ROW),
    field("row_age", Dtype::Float32, ROW),
    field("row_has_time", Dtype::Bool, ROW),
    field("row_parents", Dtype::Int16, LINK),
    field("row_parent_keys", Dtype::Int16, LINK),
    field("row_walk", Dtype::Float32, WALK),
    field("link_child", Dtype::Int16, PAIR),
    field("link_parent", Dtype::Int16, PAIR),
    field("link_key", Dtype::Int16, PAIR),
    field("link_is_true", Dtype::Bool, PAIR),
    field("row_is_candidate", Dtype::Bool, ANSWER),
    field("row_is_target", Dtype::Bool, ANSWER),
    field("candidate_row", Dtype::Int64, ANSWER),
    field("seed_task", Dtype::Int32, SEED),
    field("seed_index", Dtype::Int64, SEED),
    field("seed_row", Dtype::Int64, SEED),
    field("seed_time", Dtype::Int64, SEED),
    field("target_cell", Dtype::Int32, SEED),
    field("target_value", Dtype::Float32, SEED),
    field("target_vocab", Dtype::Int32, SEED),
    field("target_is_null", Dtype::Bool, SEED),
    field("seed_is_padding", Dtype::Bool, SEED),
];
