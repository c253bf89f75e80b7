//! Placeholder owned by its helper.
