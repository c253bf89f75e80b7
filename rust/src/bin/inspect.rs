//! Placeholder owned by its helper.
fn main() {}
