//! From a seed to the context a model may see at its time.

mod fields;

pub use fields::{Axis, BATCH_FIELDS, Dtype, Field};
