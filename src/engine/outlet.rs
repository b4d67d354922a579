//! Where sends go: a bounded, shared buffer between handlers and the task that owns the sink.

use super::attempt::Cause;
use crate::failure::Failure;
use crate::message::SlabBuilder;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

/// Messages that one producer holds unconfirmed at most; senders wait beyond it.
pub(crate) const OUTLET_MESSAGES: usize = 8 * 1024;
/// Bytes that one producer holds unconfirmed at most; a single larger message is taken when nothing else is there.
pub(crate) const OUTLET_BYTES: usize = 16 << 20;
/// A batch is handed to the sink at this many messages or bytes, or as soon as the sink asks.
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// Whom the confirm of one message concerns.
#[derive(Debug)]
pub(crate) enum Receipt {
    /// The handler start that sent it.
    Cause(Cause),
    /// That, and somebody who waits for this one confirm.
    CauseAndWaiter(Cause, oneshot::Sender<Result<(), Failure>>),
    /// Somebody outside of any handler.
    Waiter(oneshot::Sender<Result<(), Failure>>),
}

impl Receipt {
    pub(crate) fn confirmed(self) {
        match self {
            Receipt::Cause(cause) => cause.confirmed(),
            Receipt::CauseAndWaiter(cause, waiter) => {
                cause.confirmed();
                let _ = waiter.send(Ok(()));
            }
            Receipt::Waiter(waiter) => drop(waiter.send(Ok(()))),
        }
    }

    pub(crate) fn failed(self, failure: Failure) {
        match self {
            Receipt::Cause(cause) => cause.failed(failure),
            Receipt::CauseAndWaiter(cause, waiter) => {
                cause.failed(failure.copied());
                let _ = waiter.send(Err(failure));
            }
            Receipt::Waiter(waiter) => drop(waiter.send(Err(failure))),
        }
    }
}

/// Messages on their way to the sink, with whom each confirm concerns.
pub(crate) struct Parcel {
    pub(crate) messages: SlabBuilder,
    pub(crate) receipts: Vec<Receipt>,
}

impl Parcel {
    fn new() -> Self {
        Self { messages: SlabBuilder::new(), receipts: Vec::new() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    /// The drain has begun: only sends that a message caused.
    CausedOnly,
    Closed,
}

struct Inner {
    filling: Parcel,
    full: VecDeque<Parcel>,
    /// Accepted and not confirmed, buffered ones included.
    messages: usize,
    bytes: usize,
    intake: Intake,
}

/// The bounded buffer of one producer.
pub(crate) struct Outlet {
    name: Arc<str>,
    inner: Mutex<Inner>,
    /// Rings for the task that owns the sink.
    pub(crate) work: Notify,
    room: Notify,
    waiting: AtomicUsize,
}

/// Why a send was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Stopping,
    Closed,
    Settled,
}

impl Refused {
    /// The class of a refusal because of a stop.
    pub(crate) const STOPPING: &str = "stopping";

    pub(crate) fn failure(self, producer: &str) -> Failure {
        let (class, text) = match self {
            Refused::Full => ("send", "is full"),
            Refused::Stopping => (Self::STOPPING, "takes no new work: the app is stopping"),
            Refused::Closed => (Self::STOPPING, "is closed"),
            Refused::Settled => ("settled", "refused a send whose handler has returned already"),
        };
        Failure::retry(format!("producer '{producer}' {text}")).classed(class)
    }
}

impl Outlet {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            inner: Mutex::new(Inner {
                filling: Parcel::new(),
                full: VecDeque::new(),
                messages: 0,
                bytes: 0,
                intake: Intake::Open,
            }),
            work: Notify::new(),
            room: Notify::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Puts one message in, if there is room: `write` adds exactly one to the builder. `size` is what it will take.
    pub(crate) fn try_send(
        &self,
        size: usize,
        write: impl FnOnce(&mut SlabBuilder),
        receipt: impl FnOnce() -> Result<Receipt, super::attempt::Settled>,
        caused: bool,
    ) -> Result<(), Refused> {
        let mut inner = self.inner();
        match inner.intake {
            Intake::Closed => return Err(Refused::Closed),
            Intake::CausedOnly if !caused => return Err(Refused::Stopping),
            _ => {}
        }
        if inner.messages > 0 && (inner.messages >= OUTLET_MESSAGES || inner.bytes + size > OUTLET_BYTES) {
            return Err(Refused::Full);
        }
        let receipt = receipt().map_err(|_| Refused::Settled)?;
        let first = inner.filling.messages.is_empty() && inner.full.is_empty();
        write(&mut inner.filling.messages);
        inner.filling.receipts.push(receipt);
        inner.messages += 1;
        inner.bytes += size;
        if inner.filling.messages.len() >= BATCH_MESSAGES || inner.filling.messages.bytes() >= BATCH_BYTES {
            let full = std::mem::replace(&mut inner.filling, Parcel::new());
            inner.filling.messages = SlabBuilder::with_capacity(BATCH_MESSAGES, full.messages.bytes());
            inner.filling.receipts.reserve(BATCH_MESSAGES);
            inner.full.push_back(full);
        }
        drop(inner);
        if first {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits until there may be room, or the answer would be another one. Cancel-safe.
    pub(crate) async fn room(&self, size: usize, caused: bool) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _leaving = Leaving(&self.waiting);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Listening before looking: a confirm between the two is not missed.
            room.as_mut().enable();
            {
                let inner = self.inner();
                let full =
                    inner.messages > 0 && (inner.messages >= OUTLET_MESSAGES || inner.bytes + size > OUTLET_BYTES);
                let refused = match inner.intake {
                    Intake::Open => false,
                    Intake::CausedOnly => !caused,
                    Intake::Closed => true,
                };
                if !full || refused {
                    return;
                }
            }
            room.await;
        }
    }

    /// Whether everything that was accepted has been taken.
    pub(crate) fn is_taken(&self) -> bool {
        let inner = self.inner();
        inner.full.is_empty() && inner.filling.messages.is_empty()
    }

    /// The next messages for the sink, oldest first.
    pub(crate) fn take(&self) -> Option<Parcel> {
        let mut inner = self.inner();
        if let Some(full) = inner.full.pop_front() {
            return Some(full);
        }
        if inner.filling.messages.is_empty() {
            return None;
        }
        let capacity = inner.filling.messages.len();
        let next = Parcel {
            messages: SlabBuilder::with_capacity(capacity, inner.filling.messages.bytes()),
            receipts: Vec::with_capacity(capacity),
        };
        Some(std::mem::replace(&mut inner.filling, next))
    }

    /// Some messages are confirmed or have failed.
    pub(crate) fn release(&self, messages: usize, bytes: usize) {
        let mut inner = self.inner();
        inner.messages -= messages;
        inner.bytes -= bytes;
        drop(inner);
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.room.notify_waiters();
        }
    }

    /// Whether something waits to be taken.
    pub(crate) fn has_buffered(&self) -> bool {
        let inner = self.inner();
        !inner.full.is_empty() || !inner.filling.messages.is_empty()
    }

    /// Messages that are accepted and not confirmed.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.inner().messages
    }

    /// From now on only sends that a message caused are taken.
    pub(crate) fn refuse_outside(&self) {
        let mut inner = self.inner();
        if inner.intake == Intake::Open {
            inner.intake = Intake::CausedOnly;
        }
        drop(inner);
        self.room.notify_waiters();
    }

    /// Takes nothing any more.
    pub(crate) fn close(&self) {
        self.inner().intake = Intake::Closed;
        self.room.notify_waiters();
        self.work.notify_one();
    }

    /// Fails everything that is buffered; for the end of a producer that will not come back.
    pub(crate) fn fail_buffered(&self, why: &str) {
        while let Some(parcel) = self.take() {
            let (messages, bytes) = (parcel.receipts.len(), parcel.messages.bytes());
            for receipt in parcel.receipts {
                receipt.failed(Failure::retry(why.to_owned()).classed("send"));
            }
            self.release(messages, bytes);
        }
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("name", &self.name).field("unconfirmed", &self.unconfirmed()).finish()
    }
}

struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
