//! Where the engine and the driver meet: what was told, what happened, and what was delivered and not handed over.
//!
//! The engine takes batches from here as it comes for them, so that a batch is as large as what has come meanwhile. It
//! is bounded by the prefetch in deliveries; asks are bounded by the contract, and events by one a turn of either side.

use super::super::properties::inbound::{Inbound, Reading};
use super::super::wire::Cut;
use crate::message::{At, Head, Slab, SlabBuilder};
use crate::transport::{Ask, Event};
use lapin::message::Delivery;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Most messages of one batch.
const BATCH: usize = 256;

#[derive(Default)]
struct State {
    asks: Vec<Ask>,
    events: VecDeque<Event>,
    /// Delivered and not handed over, in order.
    ready: VecDeque<Delivery>,
    epoch: u32,
    /// The last tag that was handed over, 0 before the first.
    handed_to: u64,
    /// What may be handed over, as last told and since used up.
    room: u32,
    room_in_bytes: u64,
    /// Handed over in this epoch, and neither settled nor given back.
    in_hand: u64,
    /// The most that was in hand and asked for at once, in messages; the most that was asked for, in bytes.
    window: u32,
    budget: u64,
    paused: bool,
    intake_stopped: bool,
    /// Messages are on their way back: nothing is handed over that would overtake them.
    holds: bool,
    /// Nothing is handed over any more.
    closed: bool,
    /// Nothing has been proven for too long: what is here would come again.
    doubtful: bool,
    engine: Option<Waker>,
    driver: Option<Waker>,
    cut: Option<Cut>,
    /// The source was dropped without a close.
    crashed: bool,
}

impl State {
    fn hands_over(&self) -> bool {
        self.room > 0
            && !self.ready.is_empty()
            && !self.paused
            && !self.intake_stopped
            && !self.closed
            && !self.doubtful
            && !self.holds
    }
}

/// What the driver sees of the desk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) handed_to: u64,
    pub(super) ready: usize,
    pub(super) room: u32,
    pub(super) window: u32,
    pub(super) budget: u64,
    pub(super) in_hand: u64,
    pub(super) paused: bool,
    pub(super) intake_stopped: bool,
    pub(super) holds: bool,
}

/// Shared by the source and its driver.
pub(super) struct Desk {
    state: Mutex<State>,
    reading: Reading,
    /// Name of the queue, as messages carry it.
    topic: Arc<str>,
}

impl Desk {
    pub(super) fn new(reading: Reading, topic: Arc<str>) -> Self {
        Self { state: Mutex::default(), reading, topic }
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
                let window = state.in_hand.saturating_add(u64::from(*messages));
                state.window = state.window.max(u32::try_from(window).unwrap_or(u32::MAX));
                state.budget = state.budget.max(*bytes);
            }
            Ask::Settle(these) => {
                let ours = these.iter().filter(|settlement| settlement.at.epoch == state.epoch).count();
                state.in_hand = state.in_hand.saturating_sub(ours as u64);
            }
            Ask::Return(these) => {
                let ours = these.iter().filter(|at| at.epoch == state.epoch).count();
                state.in_hand = state.in_hand.saturating_sub(ours as u64);
                state.holds = true;
            }
            Ask::StopIntake => {
                let first = !std::mem::replace(&mut state.intake_stopped, true);
                state.events.extend(first.then_some(Event::IntakeStopped));
            }
            Ask::Pause(_) => state.paused = true,
            Ask::Resume(_) => state.paused = false,
            Ask::Close { .. } => state.closed = true,
            _ => {}
        }
        // A demand is read off the state.
        if !matches!(ask, Ask::Demand { .. }) {
            state.asks.push(ask);
        }
        if let Some(driver) = state.driver.take() {
            drop(state);
            driver.wake();
        }
    }

    pub(super) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut state = self.lock();
        if let Some(event) = state.events.pop_front() {
            return Poll::Ready(event);
        }
        if state.hands_over()
            && let Some(taken) = self.take(&mut state)
        {
            let epoch = state.epoch;
            drop(state);
            let slab = self.slab(&taken, epoch);
            // Headers and heads are counted when they are known.
            let mut state = self.lock();
            state.room_in_bytes = state.room_in_bytes.saturating_sub(slab.size());
            return Poll::Ready(Event::Batch(slab));
        }
        if !state.engine.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.engine = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Takes what fits the demand; a message over its bytes goes when nothing else is in hand.
    fn take(&self, state: &mut State) -> Option<Vec<Delivery>> {
        let most = BATCH.min(state.room as usize).min(state.ready.len());
        let (mut count, mut bytes) = (0, 0);
        while count < most {
            let size = self.size(&state.ready[count]);
            let alone = count == 0 && state.in_hand == 0;
            if bytes + size > state.room_in_bytes && !alone {
                break;
            }
            bytes += size;
            count += 1;
        }
        let last = state.ready.get(count.checked_sub(1)?)?.delivery_tag;
        state.handed_to = last;
        state.in_hand += count as u64;
        state.room -= count as u32;
        Some(state.ready.drain(..count).collect())
    }

    /// As far as it is known before the headers are looked at.
    fn size(&self, delivery: &Delivery) -> u64 {
        let payload = delivery.data.len() as u64;
        let payload = if payload > self.reading.max_message { 0 } else { payload };
        payload + size_of::<Head>() as u64
    }

    fn slab(&self, taken: &[Delivery], epoch: u32) -> Slab {
        let bytes = taken.iter().map(|delivery| delivery.data.len()).sum::<usize>();
        let mut builder = SlabBuilder::with_capacity(taken.len(), bytes);
        for delivery in taken {
            let inbound = Inbound {
                properties: &delivery.properties,
                routing_key: delivery.routing_key.as_str(),
                redelivered: delivery.redelivered,
                payload: &delivery.data,
            };
            self.reading.push(&mut builder, inbound).at = At { position: delivery.delivery_tag, epoch, partition: 0 };
        }
        builder.finish(self.topic.clone())
    }

    /// The source is dropped: its connection ends with it, as that of a dead process would.
    pub(super) fn crash(&self) {
        let mut state = self.lock();
        (state.closed, state.crashed) = (true, true);
        if let Some(cut) = state.cut.take() {
            cut.now();
        }
    }

    // The driver's side.

    /// Takes what was told; pending while there is nothing new.
    pub(super) fn poll_asks(&self, cx: &mut Context<'_>, into: &mut Vec<Ask>) -> Poll<()> {
        let mut state = self.lock();
        into.append(&mut state.asks);
        if !state.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            let first = state.driver.is_none();
            state.driver = Some(cx.waker().clone());
            // Taken by whoever woke the driver: there may be a demand that is no ask.
            if first {
                return Poll::Ready(());
            }
        }
        if into.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    pub(super) fn see(&self) -> Seen {
        let state = self.lock();
        Seen {
            handed_to: state.handed_to,
            ready: state.ready.len(),
            room: state.room,
            window: state.window,
            budget: state.budget,
            in_hand: state.in_hand,
            paused: state.paused,
            intake_stopped: state.intake_stopped,
            holds: state.holds,
        }
    }

    pub(super) fn say(&self, event: Event) {
        let mut state = self.lock();
        state.events.push_back(event);
        Self::wake_engine(state);
    }

    pub(super) fn deliver(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        let mut state = self.lock();
        state.ready.extend(deliveries);
        if state.hands_over() {
            Self::wake_engine(state);
        }
    }

    fn wake_engine(mut state: MutexGuard<'_, State>) {
        if let Some(engine) = state.engine.take() {
            drop(state);
            engine.wake();
        }
    }

    /// A channel begins; until it ends, what is delivered bears its number.
    pub(super) fn begin(&self, epoch: u32) {
        let mut state = self.lock();
        (state.epoch, state.handed_to, state.in_hand, state.doubtful, state.holds) = (epoch, 0, 0, false, false);
    }

    /// What was connected and is to be cut if the source is dropped.
    pub(super) fn connected(&self, cut: Option<Cut>) {
        let mut state = self.lock();
        match cut {
            // The source was dropped meanwhile.
            Some(cut) if state.crashed => cut.now(),
            cut => state.cut = cut,
        }
    }

    /// Takes back what was not handed over: its tags.
    pub(super) fn take_ready(&self) -> Vec<u64> {
        let taken = std::mem::take(&mut self.lock().ready);
        taken.iter().map(|delivery| delivery.delivery_tag).collect()
    }

    /// Messages are about to go back.
    pub(super) fn hold(&self) {
        self.lock().holds = true;
    }

    /// They are back, unless more were given back that the driver has not looked at.
    pub(super) fn go_on(&self) {
        let mut state = self.lock();
        state.holds = state.asks.iter().any(|ask| matches!(ask, Ask::Return(_)));
        if state.hands_over() {
            Self::wake_engine(state);
        }
    }

    /// The channel has ended: what is here comes again. What was told and not looked at is for whoever is next.
    pub(super) fn end(&self, mut asks: Vec<Ask>) {
        let mut state = self.lock();
        asks.append(&mut state.asks);
        state.asks = asks;
        state.in_hand = 0;
        let dropped = std::mem::take(&mut state.ready);
        drop(state);
        drop(dropped);
    }

    /// Whether what is here would come again, as far as is known.
    pub(super) fn doubt(&self, doubtful: bool) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.doubtful, doubtful) != doubtful && state.hands_over() {
            Self::wake_engine(state);
        }
    }
}
