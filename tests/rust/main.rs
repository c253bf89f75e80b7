//! Integration tests: one binary, a module per subject.
mod sampler;
mod tiny;
