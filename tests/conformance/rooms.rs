//! The transports of this crate.
