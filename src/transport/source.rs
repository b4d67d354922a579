//! The contract of a source: told things that never wait, asked for what happens next.
//!
//! One task owns a source. It calls [`Source::tell`] between two awaits of [`Source::next`], and is always awaiting
//! `next`: that is where the source does its I/O, keeps its heartbeat and carries out what it was told.

use super::{BoxFuture, Capabilities};
use crate::error::Error;
use crate::failure::Tally;
use crate::message::{At, Slab};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the engine wants of a source, known before anything opens.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SourceSpec {
    /// Name of the worker, as in logs, metrics and errors.
    pub worker: Arc<str>,
    /// Group where the URL names none. A file takes it for no group at all and keeps no place.
    pub default_group: Arc<str>,
    /// Handlers at a time; prefetch follows from it.
    pub concurrency: u32,
    /// Whether deliveries of one key must not overlap, and not overtake each other, between owners.
    pub by_key: bool,
    /// The largest payload that is handed on; a larger one is delivered empty and marked so by
    /// [`OVERSIZED_HEADER`].
    pub max_message: u64,
    /// How long an unreachable broker is tried before the first connection counts as failed.
    pub patience: Duration,
}

impl SourceSpec {
    /// For a worker of that name and a group, with the defaults of a consumer.
    pub fn new(worker: impl Into<Arc<str>>, group: impl Into<Arc<str>>, patience: Duration) -> Self {
        Self {
            worker: worker.into(),
            default_group: group.into(),
            concurrency: 16,
            by_key: true,
            max_message: 16 << 20,
            patience,
        }
    }
}

/// Header of a delivery whose payload was over `max_message` and is left out; the value is its size in bytes.
pub const OVERSIZED_HEADER: &str = "longshore-oversized";

/// Header of a delivery that its source could not decode into a message; the value says why. The payload is raw.
pub const UNDECODABLE_HEADER: &str = "longshore-undecodable";

/// What an opened source can call back.
#[derive(Clone)]
#[non_exhaustive]
pub struct SourceHooks {
    /// Says that there is work again, at once and without waiting. A source that cannot take back calls it *before*
    /// it confirms a send to itself, so that a drain never sees everybody idle while a message lies between two.
    pub busy: Arc<dyn Fn() + Send + Sync>,
}

impl Default for SourceHooks {
    fn default() -> Self {
        Self { busy: Arc::new(|| ()) }
    }
}

/// A source that could be opened.
pub trait SourcePlan: Send + Sync {
    /// What it promises.
    fn capabilities(&self) -> Capabilities;

    /// The group it will consume as, where it has one.
    fn group(&self) -> Option<&str>;

    /// How long the broker lets a delivery be unsettled before it takes it away, counted from the delivery; `None`
    /// where it does not mind. A worker whose handler timeout and retries in place could hold one longer does not
    /// start. What no handler has started the source asks back in time, by [`Event::Recall`], and of the rest it tells
    /// by [`Event::Ageing`].
    fn holds_for(&self) -> Option<Duration> {
        None
    }

    /// Opens it. Connecting may go on inside [`Source::next`]; a source that is not connected yet says
    /// [`Event::Connected`] once it is. Fails at once for what no patience can mend.
    fn open(&self, hooks: SourceHooks) -> BoxFuture<'_, Result<Box<dyn Source>, Error>>;
}

/// Header of a message in a [retry store](super::Transport::retry_store): after how many milliseconds, as decimal text,
/// it shall come again. A source takes it off.
pub const RETRY_AFTER_HEADER: &str = "longshore-retry-after";

/// Header of a message in a [retry store](super::Transport::retry_store), and of a dead letter: handler starts so far,
/// as decimal text. A source takes it off together with [`RETRY_AFTER_HEADER`], and delivers it as
/// [`Head::attempts`](crate::message::Head::attempts); where that header is not, it leaves it alone.
///
/// Anybody can forge it, so that it is read by [`attempts_of`].
pub const ATTEMPTS_HEADER: &str = "longshore-attempts";

/// The handler starts that a value of [`ATTEMPTS_HEADER`] tells of: what is no number counts as 0, what is too large as
/// the largest. The handler is still started once before the message is a dead letter, and each start adds one, so that
/// no forged number skips a handler or makes a message come again for ever.
pub fn attempts_of(value: &[u8]) -> u32 {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    value.iter().fold(0, |number: u32, digit| number.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
}

/// How a delivery was settled. All but [`Verdict::Retry`] mean the same to a source: done with it, which holds for
/// those that are added later too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Handled.
    Acked,
    /// Stored and confirmed as a dead letter.
    DeadLettered,
    /// Dropped on the handler's word.
    Discarded,
    /// Stored and confirmed by the [retry store](super::Transport::retry_store), from which it comes again anew.
    Retried,
    /// Comes again after this delay.
    Retry {
        /// The delay, from now.
        after: Duration,
        /// Handler starts so far, to be delivered as [`Head::attempts`](crate::message::Head::attempts) then.
        attempts: u32,
    },
}

impl Verdict {
    /// Counts it.
    pub fn count(self, tally: &mut Tally) {
        match self {
            Verdict::Acked => tally.acked += 1,
            Verdict::DeadLettered => tally.dead_lettered += 1,
            Verdict::Discarded => tally.discarded += 1,
            Verdict::Retried | Verdict::Retry { .. } => tally.retried += 1,
        }
    }
}

/// One delivery and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// Which delivery.
    pub at: At,
    /// What became of it.
    pub verdict: Verdict,
}

/// What was delivered under one ownership, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// Everything delivered under this epoch or an earlier one …
    pub epoch: u32,
    /// … of these partitions, or of all.
    pub partitions: Option<Box<[u32]>>,
}

impl Ownership {
    /// Whether a delivery belongs to it.
    pub fn covers(&self, at: At) -> bool {
        at.epoch <= self.epoch && self.partitions.as_ref().is_none_or(|some| some.contains(&at.partition))
    }
}

/// What the engine tells a source. One that is added later is told only where its capability is declared.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ask {
    /// So much may be delivered from now on, counted from what [`Source::next`] has returned so far; replaces what was
    /// told before, and what is delivered uses it up. A source with a thread of its own counts what it has handed to
    /// that thread. A single message larger than `bytes` is delivered when nothing else is unsettled.
    Demand {
        /// Messages.
        messages: u32,
        /// Bytes, as [`Slab::size`] counts them.
        bytes: u64,
    },
    /// These are done with. Coalesced and carried out as the source sees fit, but soon: within 10 ms.
    Settle(Vec<Settlement>),
    /// These were delivered and no handler has started them: take them back, in their old order. After
    /// [`Ask::StopIntake`] a source may keep them until [`Ask::Close`].
    Return(Vec<At>),
    /// A handler is about to start this suspect: remember that durably, then say [`Event::Marked`]. Where a broker can
    /// only deliver it anew to mark it, [`Event::Lost`] and a redelivery answer it as well.
    Mark(At),
    /// Carry out every settlement told so far, then say [`Event::Flushed`]; say it by then, whatever happens, also
    /// while disconnected.
    Flush {
        /// The latest moment.
        by: Instant,
    },
    /// Deliver nothing any more; connection, heartbeat and settlement go on. Then say [`Event::IntakeStopped`].
    ///
    /// A source that cannot take back goes on delivering what it has, and refuses new work from outside.
    StopIntake,
    /// Deliver nothing of these partitions, or of all, until [`Ask::Resume`]; what is delivered stays delivered.
    /// Partitions are named only to a source that declares them.
    Pause(Option<Box<[u32]>>),
    /// Deliver again.
    Resume(Option<Box<[u32]>>),
    /// Nothing of this ownership is running any more: a revoke may go on.
    Released(Ownership),
    /// After [`Event::Recall`]: everything of it that no handler had started was returned by [`Ask::Return`]. What is
    /// still unsettled of it has been started.
    Recalled(Ownership),
    /// Count what waits, then say [`Event::Measured`].
    Measure,
    /// Settle what was told, give back everything else, release the broker; say [`Event::Closed`] by then, whatever
    /// happens. Nothing comes after it.
    Close {
        /// The latest moment.
        by: Instant,
    },
}

/// What waits in a source; `None` where the broker does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages that could be delivered now.
    pub waiting: Option<u64>,
    /// Messages that wait for their delay, of this group.
    pub delayed: Option<u64>,
}

/// What happens at a source.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Messages, in order. Their `at.position` rises within an epoch and a partition, except where one comes again.
    Batch(Slab),
    /// The mark is durable; the handler may start.
    Marked(At),
    /// So many settlements have reached the broker for certain, and so many came too late: their ownership was over.
    Settled {
        /// Carried out.
        proven: Tally,
        /// Dropped, because the delivery belonged to somebody else already: it is known to come again.
        stale: Tally,
        /// Sent under an ownership that ended before anything proved them: whether they arrived is not known. Said
        /// before the [`Event::Lost`] of that ownership.
        unknown: Tally,
    },
    /// Everything told before the `Flush` is carried out, or counted as stale.
    Flushed,
    /// Nothing is delivered from now on, except by a source that cannot take back.
    IntakeStopped,
    /// The source has delivered its last message.
    Ended,
    /// Partitions were given to this process.
    Assigned(Ownership),
    /// An ownership will be lost: start none of its messages, end those that run, say [`Ask::Released`], which comes
    /// after every settlement of it. Each one ends in one [`Event::Lost`], clean or not.
    Revoking {
        /// What goes.
        ownership: Ownership,
        /// When the source goes on without an answer.
        by: Instant,
    },
    /// An ownership is lost: its deliveries will come again, here or elsewhere; settlements of it are stale.
    Lost(Ownership),
    /// Give back what was delivered of this and no handler has started: it gets too old here. The ownership goes on,
    /// and so do handlers that run, messages that wait for another attempt, and those that wait for confirms.
    /// [`Ask::Recalled`] answers it, behind every [`Ask::Return`].
    ///
    /// All of it at once, so that the order by key holds: of a key, what is given back was delivered after what stays.
    /// Only for a source that takes back, which delivers nothing of this before the answer.
    Recall(Ownership),
    /// This was started and is still unsettled long after its delivery: said once for each, early enough for the
    /// warning to be of use.
    Ageing {
        /// Which delivery.
        at: At,
        /// How long it has been unsettled.
        age: Duration,
        /// When the broker takes it away, counted from its delivery.
        limit: Duration,
    },
    /// Connected and subscribed; also after each reconnect, once for each.
    Connected,
    /// The connection is gone, said once; the source tries again by itself, with back-off. It hands over nothing that
    /// it had buffered once nothing has been proven for a second: all of that would come again.
    Disconnected(Error),
    /// What waits, after [`Ask::Measure`].
    Measured(Backlog),
    /// Something the operator should see that stops nothing, said once a change: a queue that was recreated, a full
    /// disk that is tried again.
    Trouble(Error),
    /// Closed; nothing comes after it. The counts are the source's own account of what it still had; the engine keeps
    /// one as well, and reports that one.
    Closed {
        /// Deliveries that were given back or left to the broker: unsettled ones.
        returned: u64,
        /// Settlements that were told and neither proven nor stale.
        unknown: Tally,
    },
    /// It cannot go on; the actor's restart policy decides. Nothing comes after it.
    Failed(Error),
}

/// An open source. Dropping it without [`Ask::Close`] is a crash: what is unsettled comes again.
pub trait Source: Send {
    /// Takes in what to do; does no I/O and never waits.
    fn tell(&mut self, ask: Ask);

    /// What happens next. Cancel-safe: a dropped call loses neither an event nor a settlement. After
    /// [`Event::Closed`] and [`Event::Failed`] it is not called again.
    fn next(&mut self) -> BoxFuture<'_, Event>;
}
