//! Integration tests: one binary, a module per subject.
#![allow(clippy::unwrap_used)]

mod damage;
mod draws;
mod encode;
mod examples;
mod inspect;
mod labels;
mod links;
mod pretraining;
mod sampler;
mod schema;
mod shop;
mod tasks;
mod tiny;
