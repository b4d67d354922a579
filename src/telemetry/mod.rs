//! Logs and metric handles; the last to go at a stop.

pub mod handler_times;
mod histogram;
pub mod logs;
pub mod metrics;
