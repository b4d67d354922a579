//! The contract of a sink: the mirror of a source.

use super::{BoxFuture, Capabilities};
use crate::error::Error;
use crate::failure::Failure;
use crate::message::Slab;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the engine wants of a sink, known before anything opens.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SinkSpec {
    /// Name of the worker, as in logs, metrics and errors.
    pub worker: Arc<str>,
    /// How long an unreachable broker is tried before the first connection counts as failed.
    pub patience: Duration,
}

impl SinkSpec {
    /// For a worker of that name.
    pub fn new(worker: impl Into<Arc<str>>, patience: Duration) -> Self {
        Self { worker: worker.into(), patience }
    }
}

/// A sink that could be opened.
pub trait SinkPlan: Send + Sync {
    /// What it promises.
    fn capabilities(&self) -> Capabilities;

    /// Opens it. Connecting may go on inside [`Sink::next`].
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>>;
}

/// What the engine tells a sink.
#[derive(Debug)]
#[non_exhaustive]
pub enum SinkAsk {
    /// Publish these, in order; every index is confirmed once under this number. The engine stays within the demand.
    Send {
        /// A number that the confirms name, unique for the life of the sink.
        batch: u64,
        /// The messages; `head.at` says nothing here.
        slab: Arc<Slab>,
    },
    /// Write what is buffered, wait for its confirms, then say [`SinkEvent::Flushed`].
    Flush {
        /// The latest moment.
        by: Instant,
    },
    /// Refuse new work from outside, so that what is there can be worked off: the drain has begun. Sends that a
    /// message caused go on.
    StopIntake,
    /// Flush, release the broker, say [`SinkEvent::Closed`] by then, whatever happens.
    Close {
        /// The latest moment.
        by: Instant,
    },
}

/// What happens at a sink.
#[derive(Debug)]
#[non_exhaustive]
pub enum SinkEvent {
    /// So much may be sent from now on; replaces what was said before, and what is sent uses it up. A batch may go
    /// over by its last message.
    Demand {
        /// Messages.
        messages: u32,
        /// Bytes.
        bytes: u64,
    },
    /// The destination has these, except for those that failed.
    Confirmed {
        /// Which batch.
        batch: u64,
        /// Which of its messages.
        range: Range<u32>,
        /// Those of the range that the destination does not have, and why.
        failed: Vec<(u32, Failure)>,
    },
    /// Everything sent before the `Flush` is confirmed, or so many are not and time is up.
    Flushed {
        /// Not confirmed.
        unconfirmed: u64,
    },
    /// Connected; also after each reconnect.
    Connected,
    /// The connection is gone; the sink tries again by itself, with back-off. Open sends wait, or fail as retryable.
    Disconnected(Error),
    /// Something the operator should see that stops nothing: a full disk that is tried again.
    Trouble(Error),
    /// Closed; nothing comes after it.
    Closed {
        /// Not confirmed.
        unconfirmed: u64,
    },
    /// It cannot go on; open sends have failed. Nothing comes after it.
    Failed(Error),
}

/// An open sink. Dropping it without [`SinkAsk::Close`] loses what is not confirmed.
pub trait Sink: Send {
    /// Takes in what to do; does no I/O and never waits.
    fn tell(&mut self, ask: SinkAsk);

    /// What happens next. Cancel-safe. After [`SinkEvent::Closed`] and [`SinkEvent::Failed`] it is not called again.
    fn next(&mut self) -> BoxFuture<'_, SinkEvent>;
}
