//! One context as a person reads it.
