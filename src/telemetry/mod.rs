//! Logs and metric handles; the last to go at a stop.
