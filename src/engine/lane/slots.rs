//! Pooled places for handler futures, each with a waker of its own, made once.

use crate::engine::signal::{LaneSignal, SlotWaker};
use crate::failure::BoxError;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

/// The number under which the service itself wakes the lane: it was not ready, and may be now.
pub(super) const SERVICE: u32 = u32::MAX;

/// The jobs that one handler call is about.
#[derive(Debug, Clone)]
pub(super) enum Members {
    None,
    One(u32),
    Many(Vec<u32>),
}

impl Members {
    pub(super) fn first(&self) -> u32 {
        match self {
            Members::One(job) => *job,
            Members::Many(jobs) => jobs[0],
            Members::None => unreachable!("a taken slot has members"),
        }
    }
}

impl IntoIterator for Members {
    type Item = u32;
    type IntoIter = std::iter::Chain<std::option::IntoIter<u32>, std::vec::IntoIter<u32>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            Members::None => (None, Vec::new()),
            Members::One(job) => (Some(job), Vec::new()),
            Members::Many(jobs) => (None, jobs),
        };
        one.into_iter().chain(many)
    }
}

/// What a poll came to.
pub(super) enum Polled<T> {
    Pending,
    Ready(Result<T, BoxError>),
    Panicked(String),
}

struct Slot<F> {
    /// A pinned future cannot be moved once it was polled; the place can be used again.
    future: Pin<Box<Option<F>>>,
    waker: Waker,
    armed: Arc<SlotWaker>,
    members: Members,
    attempt: u32,
    since: Option<Instant>,
}

pub(super) struct Slots<F> {
    all: Vec<Slot<F>>,
    free: Vec<u32>,
    limit: u32,
    lane: Arc<LaneSignal>,
    service: (Arc<SlotWaker>, Waker),
}

impl<F> Slots<F> {
    /// None yet; at most `limit`.
    pub(super) fn new(limit: u32, lane: Arc<LaneSignal>) -> Self {
        let service = SlotWaker::new(SERVICE, lane.clone());
        Self { all: Vec::new(), free: Vec::new(), limit: limit.max(1), lane, service }
    }

    pub(super) fn service_waker(&self) -> &Waker {
        self.service.0.rearm();
        &self.service.1
    }

    pub(super) fn len(&self) -> u32 {
        self.all.len() as u32
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty() || self.len() < self.limit
    }

    /// Takes a free place. There is one: see [`Slots::has_free`].
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let slot = self.len();
            let (armed, waker) = SlotWaker::new(slot, self.lane.clone());
            self.all.push(Slot {
                future: Box::pin(None),
                waker,
                armed,
                members: Members::None,
                attempt: 0,
                since: None,
            });
            slot
        })
    }

    /// Gives a place back that [`Slots::take`] gave and nobody occupied.
    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    pub(super) fn occupy(&mut self, slot: u32, members: Members, attempt: u32, since: Instant) {
        let slot = &mut self.all[slot as usize];
        (slot.members, slot.attempt, slot.since) = (members, attempt, Some(since));
    }

    pub(super) fn is_taken(&self, slot: u32) -> bool {
        self.since(slot).is_some()
    }

    pub(super) fn since(&self, slot: u32) -> Option<Instant> {
        self.all[slot as usize].since
    }

    pub(super) fn members(&self, slot: u32) -> &Members {
        &self.all[slot as usize].members
    }

    /// Empties a place whose future has ended.
    pub(super) fn vacate(&mut self, slot: u32) -> (Members, u32, Instant) {
        self.free.push(slot);
        let slot = &mut self.all[slot as usize];
        let since = slot.since.take().expect("a slot is vacated once");
        (std::mem::replace(&mut slot.members, Members::None), slot.attempt, since)
    }

    /// Drops the future in a place before it has ended.
    pub(super) fn abandon(&mut self, slot: u32) -> (Members, u32, Instant) {
        drop_future(&mut self.all[slot as usize].future);
        self.vacate(slot)
    }
}

impl<F> Slots<F> {
    /// Puts a future in and polls it.
    pub(super) fn put_and_poll<T, E>(&mut self, slot: u32, future: F) -> Polled<T>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.all[slot as usize].future.as_mut().set(Some(future));
        self.poll(slot)
    }

    /// Polls what lies there; a place whose future has ended or panicked is empty afterwards.
    pub(super) fn poll<T, E>(&mut self, slot: u32) -> Polled<T>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let slot = &mut self.all[slot as usize];
        // Before the poll: a wake that comes during it counts.
        slot.armed.rearm();
        let future = &mut slot.future;
        let waker = &slot.waker;
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            future
                .as_mut()
                .as_pin_mut()
                .expect("a slot that is polled has a future")
                .poll(&mut TaskContext::from_waker(waker))
        }));
        let polled = match polled {
            Ok(Poll::Pending) => return Polled::Pending,
            Ok(Poll::Ready(done)) => Polled::Ready(done.map_err(Into::into)),
            Err(panic) => Polled::Panicked(super::panic_text(&*panic)),
        };
        drop_future(&mut slot.future);
        polled
    }
}

/// A destructor that panics must not take the lane with it.
fn drop_future<F>(future: &mut Pin<Box<Option<F>>>) {
    if std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().set(None))).is_err() {
        tracing::error!("a handler's future panicked while it was dropped");
    }
}
