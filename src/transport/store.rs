//! Looking at what a broker holds, without taking it.

use super::{BoxFuture, Url};
use crate::error::Error;
use crate::message::{At, Slab};

/// Where the dead letters of a source go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadPlace {
    /// There is none: bad input ends the process with 65, unless `--dead-letter` names a place.
    None,
    /// This place; it works as a sink and as a shelf.
    At(Url),
}

/// What is in a queue for one group; `None` where the broker does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Inspection {
    /// The queue or topic.
    pub queue: String,
    /// The group.
    pub group: Option<String>,
    /// Messages that could be delivered now; where `in_flight` is not told, it may be all that are not settled.
    pub waiting: Option<u64>,
    /// Messages that wait for their delay.
    pub delayed: Option<u64>,
    /// Messages that an owner has and has not settled.
    pub in_flight: Option<u64>,
    /// Messages in the dead-letter place.
    pub dead: Option<u64>,
    /// Messages between the group's place and the end.
    pub lag: Option<u64>,
    /// Age of the oldest message that waits, in milliseconds.
    pub oldest_age_ms: Option<u64>,
}

/// Stored messages to be looked at and taken off one by one: a dead-letter place, or a queue.
pub trait Shelf: Send {
    /// The next messages in order, at most so many; an empty slab at the end. `head.at` names each for
    /// [`Shelf::remove`].
    fn read(&mut self, max: u32) -> BoxFuture<'_, Result<Slab, Error>>;

    /// Takes these off for good; how many of them were still there.
    fn remove(&mut self, these: Vec<At>) -> BoxFuture<'_, Result<u64, Error>>;
}
