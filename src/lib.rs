//! Longshore: message-queue workers as supervised actors.

pub mod admin;
mod delivery;
pub mod duration;
mod engine;
mod error;
mod failure;
pub mod handler;
pub mod message;
mod process;
mod supervisor;
mod telemetry;
pub mod testing;
pub mod transport;

pub use error::{Error, ErrorKind};
pub use failure::{BoxError, Failure, Fate, Outcome, Tally};
