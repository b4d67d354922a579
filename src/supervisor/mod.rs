//! The root supervisor: start order, restart policy, drain, report.

pub(crate) mod clock;
pub(crate) mod counts;
pub(crate) mod drain;
pub mod health;
pub(crate) mod phases;
pub(crate) mod report;
pub(crate) mod restart;
pub(crate) mod root;
