//! Where the engine and the thread of a source meet: what was told, what happened, and what was read and not handed
//! over.
//!
//! What lies here is bounded by what was asked for, and by one message more: it is read as far as the demand goes, and
//! handed over as far as it goes by then.

use super::bell::Bell;
use crate::message::Slab;
use crate::transport::{Ask, Event};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct State {
    asks: Vec<Ask>,
    events: VecDeque<Event>,
    /// Read and not handed over, in order.
    ready: VecDeque<Slab>,
    ready_messages: u64,
    ready_bytes: u64,
    /// What may be handed over, as last told and since used up.
    room: u32,
    room_in_bytes: u64,
    /// The most that was asked for at once, in messages.
    window: u32,
    /// Handed over and neither settled nor given back, as far as the thread has taken it in.
    in_hand: u64,
    paused: bool,
    intake_stopped: bool,
    /// Messages are on their way back: nothing is handed over that would overtake them.
    holds: bool,
    /// Nothing has been proven for too long: what is here would come again.
    doubtful: bool,
    /// Nothing is handed over any more.
    closed: bool,
    /// The source was dropped without a close.
    crashed: bool,
    engine: Option<Waker>,
}

impl State {
    fn hands_over(&self) -> bool {
        let barred = self.paused || self.intake_stopped || self.holds || self.doubtful || self.closed;
        self.room > 0 && !self.ready.is_empty() && !barred
    }

    /// How many of the first messages of a slab fit; one that is too large fits when nothing else is in hand.
    fn fitting(&self, slab: &Slab) -> (u32, u64) {
        let (mut count, mut bytes) = (0, 0);
        for message in slab.iter().take(self.room as usize) {
            let size = message.size() as u64;
            let alone = count == 0 && self.in_hand == 0;
            if bytes + size > self.room_in_bytes && !alone {
                break;
            }
            count += 1;
            bytes += size;
        }
        (count, bytes)
    }

    fn take(&mut self) -> Option<Slab> {
        let (count, bytes) = self.fitting(self.ready.front()?);
        if count == 0 {
            return None;
        }
        let slab = self.ready.pop_front()?;
        let whole = count as usize == slab.len();
        let taken = if whole {
            slab
        } else {
            let rest = slab.share(count..slab.len() as u32, slab.topic().clone(), |_, _| {});
            let taken = slab.share(0..count, slab.topic().clone(), |_, _| {});
            self.ready.push_front(rest);
            taken
        };
        self.room -= count;
        self.room_in_bytes = self.room_in_bytes.saturating_sub(bytes);
        self.ready_messages -= u64::from(count);
        self.ready_bytes -= bytes;
        self.in_hand += u64::from(count);
        Some(taken)
    }
}

/// What the thread sees of the desk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Messages and bytes that may be read.
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// The most that was asked for at once, in messages.
    pub(super) window: u32,
    pub(super) intake_stopped: bool,
    pub(super) crashed: bool,
}

/// Shared by a source and its thread.
pub(super) struct Desk {
    state: Mutex<State>,
    bell: Arc<Bell>,
}

fn size(slab: &Slab) -> u64 {
    slab.iter().map(|message| message.size() as u64).sum()
}

impl Desk {
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self { state: Mutex::default(), bell }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The engine's side.

    pub(super) fn tell(&self, ask: Ask) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        match &ask {
            Ask::Demand { messages, bytes } => {
                (state.room, state.room_in_bytes) = (*messages, *bytes);
                state.window = state.window.max(*messages);
            }
            // What was given back comes before what was delivered after it.
            Ask::Return(_) | Ask::Pause(Some(_)) => state.holds = true,
            Ask::StopIntake => {
                let first = !std::mem::replace(&mut state.intake_stopped, true);
                state.events.extend(first.then_some(Event::IntakeStopped));
            }
            Ask::Pause(None) => state.paused = true,
            Ask::Resume(None) => state.paused = false,
            Ask::Close { .. } => state.closed = true,
            _ => {}
        }
        // A demand is read off the state.
        if !matches!(ask, Ask::Demand { .. }) {
            state.asks.push(ask);
        }
        drop(state);
        self.bell.ring();
    }

    pub(super) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut state = self.lock();
        if let Some(event) = state.events.pop_front() {
            return Poll::Ready(event);
        }
        if state.hands_over()
            && let Some(slab) = state.take()
        {
            return Poll::Ready(Event::Batch(slab));
        }
        if !state.engine.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.engine = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The source is dropped.
    pub(super) fn crash(&self) {
        let mut state = self.lock();
        (state.closed, state.crashed) = (true, true);
        drop(state);
        self.bell.ring();
    }

    // The thread's side.

    pub(super) fn see(&self) -> Seen {
        let state = self.lock();
        let barred = state.paused || state.intake_stopped || state.holds || state.doubtful || state.closed;
        let messages = if barred { 0 } else { u64::from(state.room).saturating_sub(state.ready_messages) };
        Seen {
            messages,
            // One that is too large waits here, and nothing behind it is read.
            bytes: state.room_in_bytes.saturating_sub(state.ready_bytes).max(u64::from(state.ready_messages == 0)),
            window: state.window,
            intake_stopped: state.intake_stopped,
            crashed: state.crashed,
        }
    }

    pub(super) fn asks(&self) -> Vec<Ask> {
        std::mem::take(&mut self.lock().asks)
    }

    pub(super) fn say(&self, event: Event) {
        let mut state = self.lock();
        state.events.push_back(event);
        Self::wake(state);
    }

    pub(super) fn deliver(&self, slab: Slab) {
        let mut state = self.lock();
        state.ready_messages += slab.len() as u64;
        state.ready_bytes += size(&slab);
        state.ready.push_back(slab);
        if state.hands_over() {
            Self::wake(state);
        }
    }

    /// Takes back what was read of these partitions and not handed over. A batch is of one partition.
    pub(super) fn take_ready(&self, which: impl Fn(u32) -> bool) -> Vec<Slab> {
        let mut state = self.lock();
        let covered = |slab: &Slab| slab.heads().first().is_some_and(|head| which(head.at.partition));
        let (taken, kept): (Vec<Slab>, VecDeque<Slab>) = {
            let (taken, kept): (Vec<Slab>, Vec<Slab>) = std::mem::take(&mut state.ready).into_iter().partition(covered);
            (taken, kept.into())
        };
        state.ready = kept;
        for slab in &taken {
            state.ready_messages -= slab.len() as u64;
            state.ready_bytes -= size(slab);
        }
        taken
    }

    /// Messages that are read and not handed over.
    pub(super) fn read_ahead(&self) -> u64 {
        self.lock().ready_messages
    }

    /// Messages are back in their place, unless more were given back that the thread has not looked at.
    pub(super) fn go_on(&self) {
        let mut state = self.lock();
        state.holds = state.asks.iter().any(|ask| matches!(ask, Ask::Return(_) | Ask::Pause(Some(_))));
        if state.hands_over() {
            Self::wake(state);
        }
    }

    /// So many are in hand no more.
    pub(super) fn out_of_hand(&self, messages: u64) {
        let mut state = self.lock();
        state.in_hand = state.in_hand.saturating_sub(messages);
        if state.in_hand == 0 && state.hands_over() {
            Self::wake(state);
        }
    }

    /// Whether what is here would come again, as far as is known.
    pub(super) fn doubt(&self, doubtful: bool) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.doubtful, doubtful) != doubtful && state.hands_over() {
            Self::wake(state);
        }
    }

    fn wake(mut state: MutexGuard<'_, State>) {
        if let Some(engine) = state.engine.take() {
            drop(state);
            engine.wake();
        }
    }
}
