//! What was delivered of a partition and what became of it: pure, without a clock and without Kafka.

mod map;
mod partition;
mod pending;

pub(in super::super) use map::{LONGEST, Note, Noted, read, write};
pub(in super::super) use partition::{Step, Tracker};
pub(super) use pending::Pending;
