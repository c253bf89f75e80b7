//! Integration tests: one binary, a module per subject.

mod inspect;
mod sampler;
mod shop;
mod tasks;
mod tiny;
