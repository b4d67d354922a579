//! The root supervisor: start order, restart policy, drain, report.

#[allow(dead_code, reason = "until the actors and the app call it")]
pub mod health;
