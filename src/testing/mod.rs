//! For tests: the conformance suite, which any transport can be put to.

pub mod conformance;
