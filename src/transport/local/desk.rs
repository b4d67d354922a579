//! Between the task that owns a source and the thread that owns its connection.
//!
//! Everything here is bounded by what was asked for: batches by the demand, settlements by what was delivered, marks
//! by what was asked; settled counts are summed up in one event.

use super::neighbours::{Ring, lock};
use crate::failure::Tally;
use crate::message::{At, Slab, SlabBuilder};
use crate::transport::{Event, Settlement};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// What the thread is to do, in the order it was told.
#[derive(Debug)]
pub(super) enum Errand {
    Settle(Vec<Settlement>),
    /// Give back; these count as returned by nobody: they were never delivered, or their worker counted them.
    GiveBack(Vec<At>),
    Mark(At),
    Flush,
    IntakeStopped,
    Measure,
    Close {
        by: Instant,
    },
}

#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    /// The thread waits here.
    errands: Condvar,
    /// The task waits here.
    news: Notify,
    /// Which queue's bell wakes the thread.
    queue: i64,
}

#[derive(Default)]
struct State {
    errands: Vec<Errand>,
    messages: u32,
    bytes: u64,
    flow: Flow,
    ready: VecDeque<Ready>,
    ready_messages: u32,
    ready_bytes: u64,
    events: VecDeque<Event>,
    /// Somebody published, or gave back.
    rung: bool,
    /// Demand or flow changed.
    stirred: bool,
    /// The source was dropped.
    dropped: bool,
    /// The last event was taken; nothing is said any more.
    over: bool,
    /// Delivered and neither settled nor given back.
    delivered: u64,
    /// The last ownership that was lost; what was delivered under it counts no more.
    lost_epoch: u32,
    told: Tally,
    answered: Tally,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Flow {
    #[default]
    Open,
    Paused,
    Stopped,
}

struct Ready {
    slab: Slab,
    bytes: u64,
}

/// What the thread finds when it wakes.
pub(super) struct Found {
    pub(super) errands: Vec<Errand>,
    /// Messages and bytes that may be claimed.
    pub(super) messages: u32,
    pub(super) bytes: u64,
    /// Nothing is delivered, and nothing waits to be.
    pub(super) nothing_out: bool,
    pub(super) rung: bool,
    pub(super) dropped: bool,
}

impl Desk {
    pub(super) fn of(queue: i64) -> Self {
        Self { queue, ..Self::default() }
    }

    // What the task does.

    pub(super) fn demand(&self, messages: u32, bytes: u64) {
        let mut state = lock(&self.state);
        (state.messages, state.bytes) = (messages, bytes);
        state.stirred = true;
        self.errands.notify_one();
    }

    pub(super) fn run(&self, errand: Errand) {
        let mut state = lock(&self.state);
        match &errand {
            Errand::Settle(all) => {
                for one in all {
                    one.verdict.count(&mut state.told);
                    state.leaves(one.at);
                }
            }
            Errand::GiveBack(all) => all.iter().for_each(|at| state.leaves(*at)),
            Errand::Close { .. } => state.stop(Flow::Stopped),
            _ => {}
        }
        state.errands.push(errand);
        self.errands.notify_one();
    }

    pub(super) fn pause(&self) {
        let mut state = lock(&self.state);
        if state.flow == Flow::Open {
            state.stop(Flow::Paused);
            self.errands.notify_one();
        }
    }

    pub(super) fn resume(&self) {
        let mut state = lock(&self.state);
        if state.flow == Flow::Paused {
            state.flow = Flow::Open;
            state.stirred = true;
            self.errands.notify_one();
        }
    }

    pub(super) fn stop_intake(&self) {
        let mut state = lock(&self.state);
        state.stop(Flow::Stopped);
        state.errands.push(Errand::IntakeStopped);
        self.errands.notify_one();
    }

    pub(super) fn drop_source(&self) {
        lock(&self.state).dropped = true;
        self.errands.notify_one();
    }

    /// The next event, if there is one.
    pub(super) fn take(&self) -> Option<Event> {
        let mut state = lock(&self.state);
        if state.over {
            return None;
        }
        if let Some(event) = state.events.pop_front() {
            state.over = matches!(event, Event::Closed { .. } | Event::Failed(_));
            return Some(event);
        }
        state.deliver().map(Event::Batch)
    }

    /// Wakes with the next event; a permit is kept where nobody waits, so a dropped wait loses nothing.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Time is up: what is known without the thread.
    pub(super) fn close_now(&self) -> Event {
        let mut state = lock(&self.state);
        state.over = true;
        state.dropped = true;
        let mut unknown = state.told;
        unknown -= state.answered;
        self.errands.notify_one();
        Event::Closed { returned: state.delivered, unknown }
    }

    // What the thread does.

    /// Waits until there is something to do, or until then; without an end where none is given.
    pub(super) fn find(&self, until: Option<Instant>) -> Found {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            let time_is_up = until.is_some_and(|until| until <= now);
            if time_is_up || state.rung || state.stirred || state.dropped || !state.errands.is_empty() {
                break;
            }
            state = match until {
                None => self.errands.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => self.errands.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        state.stirred = false;
        let open = state.flow == Flow::Open;
        Found {
            errands: std::mem::take(&mut state.errands),
            messages: if open { state.messages.saturating_sub(state.ready_messages) } else { 0 },
            bytes: state.bytes.saturating_sub(state.ready_bytes),
            nothing_out: state.delivered == 0 && state.ready.is_empty(),
            rung: std::mem::take(&mut state.rung),
            dropped: state.dropped,
        }
    }

    pub(super) fn put_slabs(&self, slabs: Vec<Slab>) {
        let mut state = lock(&self.state);
        for slab in slabs {
            let bytes = slab.iter().map(|message| message.size() as u64).sum();
            state.ready_messages += slab.len() as u32;
            state.ready_bytes += bytes;
            state.ready.push_back(Ready { slab, bytes });
        }
        if state.flow != Flow::Open {
            // Told to stop while the claim was made.
            state.give_back_ready();
        }
        self.news.notify_one();
    }

    /// An ownership is over: what was not delivered of it will never be.
    pub(super) fn lose(&self, epoch: u32) {
        let mut state = lock(&self.state);
        state.lost_epoch = epoch;
        state.ready.clear();
        (state.ready_messages, state.ready_bytes, state.delivered) = (0, 0, 0);
    }

    pub(super) fn say(&self, event: Event) {
        let mut state = lock(&self.state);
        if let Event::Settled { proven, stale, .. } = event {
            state.answered += proven;
            state.answered += stale;
            for said in &mut state.events {
                if let Event::Settled { proven: so_far, stale: too_late, .. } = said {
                    *so_far += proven;
                    *too_late += stale;
                    return;
                }
            }
        }
        state.events.push_back(event);
        self.news.notify_one();
    }

    /// Settlements that were told and not answered.
    pub(super) fn unknown(&self) -> Tally {
        let state = lock(&self.state);
        let mut unknown = state.told;
        unknown -= state.answered;
        unknown
    }

    pub(super) fn is_over(&self) -> bool {
        let state = lock(&self.state);
        state.over || state.events.iter().any(|event| matches!(event, Event::Closed { .. } | Event::Failed(_)))
    }
}

impl State {
    fn leaves(&mut self, at: At) {
        if at.epoch > self.lost_epoch {
            self.delivered = self.delivered.saturating_sub(1);
        }
    }

    fn stop(&mut self, flow: Flow) {
        if self.flow != Flow::Stopped {
            self.flow = flow;
        }
        self.give_back_ready();
        self.stirred = true;
    }

    fn give_back_ready(&mut self) {
        let ats: Vec<At> = self
            .ready
            .drain(..)
            .flat_map(|ready| ready.slab.heads().iter().map(|head| head.at).collect::<Vec<_>>())
            .collect();
        (self.ready_messages, self.ready_bytes) = (0, 0);
        if !ats.is_empty() {
            self.errands.push(Errand::GiveBack(ats));
        }
    }

    /// What may be delivered now: never more messages than are wanted, also where less is wanted than when they were
    /// claimed.
    fn deliver(&mut self) -> Option<Slab> {
        if self.flow != Flow::Open || self.messages == 0 {
            return None;
        }
        let Ready { slab, bytes } = self.ready.pop_front()?;
        let (slab, bytes) = if slab.len() as u32 > self.messages {
            let (now, later) = split(&slab, self.messages);
            let now_bytes = now.iter().map(|message| message.size() as u64).sum();
            self.ready.push_front(Ready { slab: later, bytes: bytes - now_bytes });
            (now, now_bytes)
        } else {
            (slab, bytes)
        };
        self.messages -= slab.len() as u32;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.ready_messages -= slab.len() as u32;
        self.ready_bytes -= bytes;
        self.delivered += slab.len() as u64;
        Some(slab)
    }
}

fn split(slab: &Slab, at: u32) -> (Slab, Slab) {
    let mut parts = [SlabBuilder::new(), SlabBuilder::new()];
    for (index, message) in slab.iter().enumerate() {
        parts[usize::from(index as u32 >= at)].push_ref(message);
    }
    let [now, later] = parts.map(|part| part.finish(slab.topic().clone()));
    (now, later)
}

impl Ring for Desk {
    fn ring(&self, queue: i64) {
        if queue == self.queue {
            lock(&self.state).rung = true;
            self.errands.notify_one();
        }
    }
}
