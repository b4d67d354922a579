//! The root supervisor: start order, restart policy, drain, report.

// Until the root supervisor executes the machine's commands, only tests call these.
#![allow(dead_code)]

pub(crate) mod drain;
pub(crate) mod phases;
pub(crate) mod report;
pub(crate) mod restart;
