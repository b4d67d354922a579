//! Logs and metric handles; the last to go at a stop.

#![allow(dead_code, reason = "until the engine and the app call it")]

pub mod handler_times;
mod histogram;
pub mod logs;
pub mod metrics;
pub mod status;
