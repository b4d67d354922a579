//! The root supervisor: start order, restart policy, drain, report.

pub mod health;
