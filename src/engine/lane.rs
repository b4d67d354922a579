//! A lane: one task that starts handlers, polls them and says how each message is to be settled.
//!
//! A consumer has one lane a core, and a key always lies in the same lane. A handler is called into a pooled slot and
//! polled at once: one that is ready at its first poll costs neither a spawn nor a box nor an entry anywhere. Only what
//! has to wait becomes a *job*: for its key, for its handler, for its confirms, for its next attempt.

mod batching;
mod jobs;
mod letting_go;
mod places;
mod slots;

use super::attempt::{Attempt, Sends};
use super::order::{Numbers, Order};
use super::rate::RateLimit;
use super::retry::{IN_PLACE_WITHOUT_ORDER, Retry};
use super::signal::LaneSignal;
use super::solo::POISON_HEADER;
use crate::delivery::Delivery;
use crate::failure::{BoxError, Failure, Fate, Outcome};
use crate::handler::Unit;
use crate::message::{At, Slab};
use crate::transport::{OVERSIZED_HEADER, Ownership, Settlement, UNDECODABLE_HEADER, Verdict};
use jobs::{Jobs, State};
use slots::{Members, Polled, Slots};
use std::collections::{BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tower_service::Service;

pub(crate) use batching::BatchBounds;
pub(crate) use places::{Place, Places};

/// A turn ends after so many starts and polls, so that timers and other tasks get their time.
const TURN_MESSAGES: u32 = 64;
/// Of a turn that wakes alone would fill, so many starts come on top.
const TURN_STARTS: u32 = 16;
/// A turn ends at the first poll that took longer.
const TURN_POLL: Duration = Duration::from_micros(100);
/// Settlements leave in vectors of at most this many.
const SETTLED_AT_ONCE: usize = 256;
/// While a lane has more to do, what is settled leaves this often, or when it is enough.
const REPORT_EVERY: Duration = Duration::from_millis(1);
/// A message whose handler or confirm is pending longer is copied out of its batch.
const COPY_OUT_AFTER: Duration = Duration::from_secs(1);

/// What a lane is told at its birth.
#[derive(Clone)]
pub(crate) struct LaneConfig {
    pub(crate) worker: Arc<str>,
    pub(crate) index: u32,
    pub(crate) lanes: u32,
    /// Handlers at a time in this lane, at least 1.
    pub(crate) concurrency: u32,
    pub(crate) order: Order,
    pub(crate) timeout: Duration,
    pub(crate) retry: Retry,
    pub(crate) rate: Option<Arc<RateLimit>>,
    pub(crate) batch: Option<BatchBounds>,
    pub(crate) places: Places,
    /// The source can take a message back for later.
    pub(crate) delayed_redelivery: bool,
}

/// What the intake tells a lane. Bounded by what the intake asked the source for, and a handful of orders.
#[derive(Debug)]
pub(crate) enum LaneAsk {
    /// Messages; the lane takes those that are its own.
    Work(Arc<Slab>),
    /// Start nothing any more; what no handler has started goes back, what waits for another attempt too.
    Drain,
    /// As `Drain`, but what has been delivered is still worked off: the source cannot take it back.
    WorkOff,
    /// Drop every handler that runs.
    Cancel,
    /// Start nothing of this ownership; say `Released` under this number when nothing of it is left.
    Release { token: u64, ownership: Ownership, lost: bool },
    /// Give back what of this ownership no handler has started; say `Recalled` under this number when that is told.
    Recall { token: u64, ownership: Ownership },
}

/// What a lane tells the intake.
#[derive(Debug)]
pub(crate) enum LaneNews {
    Settled(Vec<Settlement>),
    /// Not started, or waiting for another attempt: goes back.
    Dropped(Vec<At>),
    Released {
        token: u64,
    },
    Recalled {
        token: u64,
    },
    /// Bad input and no place for it: the worker cannot go on.
    NoDeadPlace(String),
    /// The place does not take a message; it is tried again.
    PlaceRefuses(Place, String),
    PlaceTakes(Place),
    DeadLettered(&'static str),
}

/// What a lane shows to the outside while it runs: the message that is being polled, and those that wait.
pub(crate) trait LaneView: Send + 'static {
    /// A handler is about to be polled.
    fn polling(&mut self, at: At, attempt: u32);
    /// The poll is over.
    fn polled(&mut self);
    /// A handler is pending in that slot.
    fn pending(&mut self, slot: u32, at: At, attempt: u32, since: Instant);
    /// The slot is free.
    fn vacant(&mut self, slot: u32);
    /// A handler took so long.
    fn handled(&mut self, took: Duration);
    /// The turn is over.
    fn turned(&mut self, now: Instant);
}

pub(crate) struct Lane<S, U, V>
where
    S: Service<U>,
    U: Unit,
{
    config: LaneConfig,
    service: S,
    signal: Arc<LaneSignal>,
    asks: mpsc::UnboundedReceiver<LaneAsk>,
    news: mpsc::UnboundedSender<LaneNews>,
    view: V,

    slots: Slots<S::Future>,
    jobs: Jobs,
    numbers: Numbers,
    attempts: Vec<Arc<Attempt>>,
    free_attempts: Vec<u32>,
    /// Which jobs wait for the confirms of an attempt.
    confirming: Vec<Members>,

    /// Batches that came and are not through, and how far the first one is.
    inbox: VecDeque<Arc<Slab>>,
    cursor: u32,
    /// Jobs that hold their number and wait for a slot; served before new messages.
    ready: VecDeque<u32>,
    /// Jobs that wait for a moment.
    timers: BTreeSet<(Instant, u32)>,
    forming: batching::Forming,
    rate_until: Option<Instant>,
    service_blocked: bool,
    mode: Mode,
    releasing: Vec<Releasing>,
    /// What is on its way to each [`Place`].
    traffic: [places::Traffic; Place::COUNT],

    out: Vec<Settlement>,
    dropped: Vec<At>,
    now: Instant,
    clock: quanta::Clock,
    lapped: u64,
    next_sweep: Instant,
    next_report: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    WorkingOff,
    Draining,
    Cancelled,
}

struct Releasing {
    token: u64,
    ownership: Ownership,
    cancel_at: Option<Instant>,
}

/// One message: where it lies, and how often a handler has started on it.
#[derive(Clone)]
struct Pick {
    slab: Arc<Slab>,
    index: u32,
    attempts: u32,
}

impl Pick {
    fn at(&self) -> At {
        self.slab.heads()[self.index as usize].at
    }
}

impl<S, U, V> Lane<S, U, V>
where
    U: Unit,
    V: LaneView,
    S: Service<U, Response = U::Done, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
{
    pub(crate) fn new(
        config: LaneConfig,
        service: S,
        asks: mpsc::UnboundedReceiver<LaneAsk>,
        news: mpsc::UnboundedSender<LaneNews>,
        view: V,
    ) -> Self {
        let (now, clock) = (Instant::now(), quanta::Clock::new());
        let signal = Arc::new(LaneSignal::default());
        Self {
            slots: Slots::new(config.concurrency, signal.clone()),
            forming: batching::Forming::new(config.batch),
            config,
            service,
            signal,
            asks,
            news,
            view,
            jobs: Jobs::default(),
            numbers: Numbers::default(),
            attempts: Vec::new(),
            free_attempts: Vec::new(),
            confirming: Vec::new(),
            inbox: VecDeque::new(),
            cursor: 0,
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            rate_until: None,
            service_blocked: false,
            mode: Mode::Running,
            releasing: Vec::new(),
            traffic: Default::default(),
            out: Vec::new(),
            dropped: Vec::new(),
            now,
            lapped: clock.raw(),
            clock,
            next_sweep: now,
            next_report: now,
        }
    }

    /// Runs until the intake is gone. Dropping it drops every handler: their messages are unsettled.
    pub(crate) async fn run(mut self) {
        let mut asks = Vec::new();
        let mut woken = Vec::new();
        let mut confirmed = Vec::new();
        loop {
            self.now = Instant::now();
            self.lapped = self.clock.raw();
            while let Ok(ask) = self.asks.try_recv() {
                asks.push(ask);
            }
            for ask in asks.drain(..) {
                self.told(ask);
            }
            self.signal.take(&mut woken, &mut confirmed);
            for (attempt, generation) in confirmed.drain(..) {
                self.confirmed(attempt, generation);
            }
            self.view.turned(self.now);
            let more = self.turn(&mut woken);
            self.sweep();
            if !more || self.now >= self.next_report {
                self.next_report = self.now + REPORT_EVERY;
                self.report();
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let timer = self.next_timer();
            let signal = self.signal.clone();
            tokio::select! {
                biased;
                ask = self.asks.recv() => match ask {
                    Some(ask) => asks.push(ask),
                    None => return,
                },
                () = signal.bell.notified() => {}
                () = sleep_until(timer), if timer.is_some() => {}
            }
        }
    }

    fn told(&mut self, ask: LaneAsk) {
        match ask {
            LaneAsk::Work(slab) if matches!(self.mode, Mode::Draining | Mode::Cancelled) => {
                for index in 0..slab.len() as u32 {
                    if self.is_mine(&slab, index) {
                        self.dropped.push(slab.heads()[index as usize].at);
                    }
                }
            }
            LaneAsk::Work(slab) => self.inbox.push_back(slab),
            LaneAsk::Drain => self.drain(),
            // One that drains already, because a message has no place to go to, goes on so.
            LaneAsk::WorkOff if self.mode == Mode::Running => self.work_off(),
            LaneAsk::WorkOff => {}
            LaneAsk::Cancel => self.cancel(),
            LaneAsk::Release { token, ownership, lost } => self.release(token, ownership, lost),
            LaneAsk::Recall { token, ownership } => self.recall(token, &ownership),
        }
    }

    fn is_mine(&self, slab: &Slab, index: u32) -> bool {
        let lanes = self.config.lanes;
        lanes == 1 || self.config.order.lane(&slab.heads()[index as usize], lanes) == self.config.index
    }

    /// Polls and starts up to [`TURN_MESSAGES`]; true when there is more to do at once.
    fn turn(&mut self, woken: &mut Vec<u32>) -> bool {
        let mut left = TURN_MESSAGES;
        let mut seen = 0;
        let mut slow = false;
        // Oldest first, so that handlers which wake themselves again and again do not keep the others from their turn.
        while left > 0 && !slow && seen < woken.len() {
            let slot = woken[seen];
            seen += 1;
            left -= 1;
            if slot == slots::SERVICE {
                self.service_blocked = false;
            } else if self.slots.is_taken(slot) {
                slow = self.poll_slot(slot) > TURN_POLL;
            }
        }
        woken.drain(..seen);
        if slow {
            return true;
        }
        let more_woken = !woken.is_empty();
        if more_woken {
            // New messages get a part of every turn as well.
            left = TURN_STARTS;
        }
        self.due();
        while left > 0 && self.can_start() {
            left -= 1;
            match self.start_next() {
                Some(took) if took > TURN_POLL => return true,
                Some(_) => {}
                None => return more_woken,
            }
        }
        more_woken || left == 0
    }

    fn can_start(&self) -> bool {
        self.opens() && self.rate_until.is_none_or(|until| until <= self.now)
    }

    /// Whether a handler may start, as far as it is not a matter of time.
    fn opens(&self) -> bool {
        !self.service_blocked && self.mode != Mode::Cancelled && self.slots.has_free()
    }

    /// Starts the next handler that may start; how long its poll took, or `None` when there is nothing to start.
    fn start_next(&mut self) -> Option<Duration> {
        loop {
            if self.forming.is_due(self.now) {
                return self.start_batch();
            }
            if let Some(&job) = self.ready.front() {
                if U::BATCH {
                    self.ready.pop_front();
                    self.form_with_those_behind(job);
                    continue;
                }
                if !self.may_start_now() {
                    return None;
                }
                self.ready.pop_front();
                let mut pick = self.jobs.pick(job);
                return Some(self.start(&mut pick, Some(job)));
            }
            let slab = self.inbox.front()?;
            if self.cursor as usize >= slab.len() {
                self.inbox.pop_front();
                self.cursor = 0;
                continue;
            }
            if !self.is_mine(slab, self.cursor) {
                self.cursor += 1;
                continue;
            }
            let head = &slab.heads()[self.cursor as usize];
            let number = self.config.order.number(head);
            let attempts = head.attempts;
            let joins = U::BATCH && self.forming.holds(number) && !self.numbers.is_awaited(number);
            if self.numbers.is_held(number) && !joins {
                let slab = Arc::new(slab.only(self.cursor));
                self.cursor += 1;
                let job = self.jobs.add(Pick { slab, index: 0, attempts }, number, State::Parked, self.now);
                self.numbers.wait(number, job, &mut self.jobs);
                continue;
            }
            if U::BATCH {
                let pick = Pick { slab: slab.clone(), index: self.cursor, attempts };
                self.cursor += 1;
                self.numbers.hold(number);
                let job = self.jobs.add(pick, number, State::Forming, self.now);
                self.form(job);
                continue;
            }
            if !self.may_start_now() {
                return None;
            }
            // Moved out and back: a clone of the batch for each message is what the usual one need not pay.
            let slab = self.inbox.pop_front()?;
            let mut pick = Pick { slab, index: self.cursor, attempts };
            self.cursor += 1;
            let took = self.start(&mut pick, None);
            self.inbox.push_front(pick.slab);
            return Some(took);
        }
    }

    /// Whether the rate and the service let a handler start.
    fn may_start_now(&mut self) -> bool {
        let waker = self.slots.service_waker();
        match self.service.poll_ready(&mut TaskContext::from_waker(waker)) {
            Poll::Ready(_) => {}
            Poll::Pending => {
                self.service_blocked = true;
                return false;
            }
        }
        match self.config.rate.as_ref().map(|rate| rate.take(self.now)) {
            None | Some(Ok(())) => true,
            Some(Err(again)) => {
                self.rate_until = Some(again);
                false
            }
        }
    }

    /// Calls the handler for one message and polls it once.
    fn start(&mut self, pick: &mut Pick, job: Option<u32>) -> Duration {
        if pick.slab.get(pick.index).headers().is_empty() {
            // The usual case, and nothing to look for.
        } else if let Some(failure) = unreadable(pick) {
            self.failed(pick.clone(), job, failure);
            return Duration::ZERO;
        }
        // A count from outside may be any number.
        pick.attempts = pick.attempts.saturating_add(1);
        let attempt = self.attempt();
        let delivery = Delivery {
            slab: pick.slab.clone(),
            index: pick.index,
            attempt: pick.attempts,
            cause: self.attempts[attempt as usize].open(),
        };
        let at = pick.at();
        if let Some(job) = job {
            self.jobs.set_attempts(job, pick.attempts);
        }
        let slot = self.slots.take();
        let (polled, took) = self.call(slot, at, pick.attempts, || U::one(delivery));
        match polled {
            Polled::Pending => {
                let job = job.unwrap_or_else(|| {
                    let number = self.config.order.number(&pick.slab.heads()[pick.index as usize]);
                    self.numbers.hold(number);
                    self.jobs.add(pick.clone(), number, State::Running, self.now)
                });
                self.jobs.set_state(job, State::Running);
                self.slots.occupy(slot, Members::One(job), attempt, self.now);
                self.view.pending(slot, at, pick.attempts, self.now);
            }
            Polled::Ready(done) => {
                self.slots.give_back(slot);
                self.view.handled(took);
                let mut outcome = Ok(());
                U::spread(done, 1, &mut |_, each| outcome = each);
                self.ended_one(pick, job, attempt, outcome);
            }
            Polled::Panicked(text) => {
                self.slots.give_back(slot);
                self.view.handled(took);
                self.ended_one(pick, job, attempt, Err(panicked(&text)));
            }
        }
        took
    }

    /// Calls the service into a slot and polls it, both under `catch_unwind`.
    fn call(&mut self, slot: u32, at: At, attempt: u32, unit: impl FnOnce() -> U) -> (Polled<U::Done>, Duration) {
        self.view.polling(at, attempt);
        let service = &mut self.service;
        let called = std::panic::catch_unwind(AssertUnwindSafe(|| service.call(unit())));
        let polled = match called {
            Ok(future) => self.slots.put_and_poll::<U::Done, S::Error>(slot, future),
            Err(panic) => Polled::Panicked(panic_text(&*panic)),
        };
        self.view.polled();
        (polled, self.lap())
    }

    /// Time since the last lap or the begin of the turn. The lane's time goes on by it, so that the system's clock is
    /// asked once a turn.
    fn lap(&mut self) -> Duration {
        let raw = self.clock.raw();
        let took = self.clock.delta(self.lapped, raw);
        self.lapped = raw;
        self.now += took;
        took
    }

    /// Polls a handler that was pending.
    fn poll_slot(&mut self, slot: u32) -> Duration {
        let (at, attempts) = self.shown(slot);
        self.view.polling(at, attempts);
        let polled = self.slots.poll::<U::Done, S::Error>(slot);
        self.view.polled();
        let took = self.lap();
        let done = match polled {
            Polled::Pending => return took,
            Polled::Ready(done) => done,
            Polled::Panicked(text) => Err(panicked(&text).into_error()),
        };
        self.end_slot(slot, done);
        took
    }

    /// What a slot shows: its message, or the first of its batch.
    fn shown(&self, slot: u32) -> (At, u32) {
        let pick = &self.jobs.get(self.slots.members(slot).first()).pick;
        (pick.at(), pick.attempts)
    }

    /// Takes the outcome of a handler that has ended in a slot.
    fn end_slot(&mut self, slot: u32, done: Result<U::Done, BoxError>) {
        let (members, attempt, since) = self.slots.vacate(slot);
        self.view.vacant(slot);
        self.view.handled(self.now.saturating_duration_since(since));
        match members {
            Members::One(job) => {
                let mut outcome = Ok(());
                U::spread(done, 1, &mut |_, each| outcome = each);
                let pick = self.jobs.pick(job);
                self.ended_one(&pick, Some(job), attempt, outcome);
            }
            Members::Many(jobs) => self.ended_batch(jobs, attempt, done),
            Members::None => unreachable!("a slot that was polled has members"),
        }
    }

    /// The handler of one message has ended.
    fn ended_one(&mut self, pick: &Pick, job: Option<u32>, attempt: u32, outcome: Outcome) {
        let sends = match outcome {
            Ok(()) => self.attempts[attempt as usize].close(),
            Err(failure) => Sends::Failed(failure),
        };
        match sends {
            Sends::Confirmed => {
                self.free_attempts.push(attempt);
                self.settle(pick.at(), job, Verdict::Acked);
            }
            Sends::Pending => {
                let job = job.unwrap_or_else(|| self.adopt(pick.clone()));
                self.jobs.set_state(job, State::Confirming { attempt, then: Verdict::Acked });
                self.confirming[attempt as usize] = Members::One(job);
            }
            Sends::Failed(failure) => {
                self.attempts[attempt as usize].retire();
                self.free_attempts.push(attempt);
                self.failed(pick.clone(), job, failure);
            }
        }
    }

    /// Makes a job of a message that was polled inline; it holds its number from now on.
    fn adopt(&mut self, pick: Pick) -> u32 {
        let number = self.config.order.number(&pick.slab.heads()[pick.index as usize]);
        self.numbers.hold(number);
        self.jobs.add(pick, number, State::Running, self.now)
    }

    /// The sends of an attempt have come to an end.
    fn confirmed(&mut self, attempt: u32, generation: u32) {
        let state = &self.attempts[attempt as usize];
        // A ring for an earlier start of a pooled attempt.
        if !state.is_generation(generation) {
            return;
        }
        let sends = state.sends();
        if matches!(sends, Sends::Pending) {
            return;
        }
        let members = std::mem::replace(&mut self.confirming[attempt as usize], Members::None);
        if matches!(members, Members::None) {
            return;
        }
        state.retire();
        self.free_attempts.push(attempt);
        match sends {
            Sends::Failed(failure) => {
                let mut failed = Vec::new();
                for job in members {
                    match self.jobs.get(job).state {
                        State::Confirming { then: Verdict::DeadLettered | Verdict::Retried, .. } => {
                            self.place_refused(job, &failure)
                        }
                        State::Confirming { .. } => failed.push(job),
                        _ => {}
                    }
                }
                self.failed_together(failed, || failure.copied());
            }
            _ => {
                for job in members {
                    let State::Confirming { then, .. } = self.jobs.get(job).state else { continue };
                    self.sent(job, then);
                }
            }
        }
    }

    /// Everything that a message caused is confirmed.
    fn sent(&mut self, job: u32, then: Verdict) {
        self.parted(job);
        let at = self.jobs.get(job).pick.at();
        self.settle(at, Some(job), then);
    }

    /// A message was not handled: again, to the dead letters, or away.
    fn failed(&mut self, pick: Pick, job: Option<u32>, failure: Failure) {
        if self.is_let_go(pick.at()) {
            // It is somebody else's by now, or will be in a moment: neither tried again nor buried here.
            let job = job.unwrap_or_else(|| self.adopt(pick));
            return self.give_back(job);
        }
        let delay = match failure.fate() {
            Fate::Discard => return self.settle(pick.at(), job, Verdict::Discarded),
            Fate::Reject => None,
            Fate::Retry { after } => {
                self.config.retry.delay_after(pick.attempts, fastrand::f64()).map(|delay| after.unwrap_or(delay))
            }
        };
        let Some(delay) = delay else {
            let job = job.unwrap_or_else(|| self.adopt(pick));
            self.dead_letter(job, failure);
            return;
        };
        let number = job.map_or_else(
            || self.config.order.number(&pick.slab.heads()[pick.index as usize]),
            |job| self.jobs.get(job).number,
        );
        let may_overtake = self.config.retry.is_durable() || (number == 0 && delay > IN_PLACE_WITHOUT_ORDER);
        tracing::debug!(worker = %self.config.worker, position = pick.at().position, attempt = pick.attempts,
            delay = ?delay, class = failure.class(), "failed, tried again: {failure}");
        if may_overtake && self.config.delayed_redelivery {
            self.settle(pick.at(), job, Verdict::Retry { after: delay, attempts: pick.attempts });
            return;
        }
        let job = job.unwrap_or_else(|| self.adopt(pick));
        if may_overtake && self.config.places.retry_store.is_some() {
            return self.part(job, Place::RetryStore { after: delay }, failure);
        }
        if matches!(self.mode, Mode::Draining | Mode::Cancelled) {
            // In back-off during a stop: goes back at once.
            return self.give_back(job);
        }
        self.jobs.copy_out(job);
        self.at(self.now + delay, job, State::Waiting { until: self.now + delay });
    }

    fn at(&mut self, until: Instant, job: u32, state: State) {
        self.jobs.set_state(job, state);
        self.timers.insert((until, job));
    }

    /// The one place where a message is settled.
    fn settle(&mut self, at: At, job: Option<u32>, verdict: Verdict) {
        self.out.push(Settlement { at, verdict });
        if let Some(job) = job {
            self.remove(job);
        }
        if self.out.len() >= SETTLED_AT_ONCE {
            self.report();
        }
    }

    /// A message goes back unsettled; the source keeps it.
    fn give_back(&mut self, job: u32) {
        self.dropped.push(self.jobs.get(job).pick.at());
        self.remove(job);
    }

    /// Forgets a job and lets its number go to the next one.
    fn remove(&mut self, job: u32) {
        let gone = self.jobs.remove(job);
        if let Some(parting) = &gone.parting {
            self.left(parting);
        }
        if let State::Waiting { until } | State::PlaceWaiting { until } = gone.state {
            self.timers.remove(&(until, job));
        }
        if let Some(next) = self.numbers.free(gone.number, &mut self.jobs) {
            self.next_up(next);
        }
    }

    /// A job that waited for its number holds it now.
    fn next_up(&mut self, job: u32) {
        match self.jobs.get_mut(job).not_before.take() {
            Some(until) if until > self.now => self.at(until, job, State::Waiting { until }),
            _ => {
                self.jobs.set_state(job, State::Ready);
                self.ready.push_back(job);
            }
        }
    }

    /// Moves what is due from its wait.
    fn due(&mut self) {
        while let Some(&(until, job)) = self.timers.first()
            && until <= self.now
        {
            self.timers.pop_first();
            match self.jobs.get(job).state {
                State::Waiting { .. } => {
                    self.jobs.set_state(job, State::Ready);
                    self.ready.push_back(job);
                }
                State::PlaceWaiting { .. } => self.send_to_place(job),
                _ => {}
            }
        }
    }

    fn attempt(&mut self) -> u32 {
        self.free_attempts.pop().unwrap_or_else(|| {
            let id = self.attempts.len() as u32;
            self.attempts.push(Arc::new(Attempt::new(id, self.signal.clone())));
            self.confirming.push(Members::None);
            id
        })
    }

    /// Handlers that run too long, batches that wait too long, ownerships that are lost.
    fn sweep(&mut self) {
        if self.now < self.next_sweep {
            return;
        }
        let every = (self.config.timeout / 10).clamp(Duration::from_millis(5), Duration::from_secs(1));
        self.next_sweep = self.now + every.min(COPY_OUT_AFTER / 2);
        for slot in 0..self.slots.len() {
            let Some(since) = self.slots.since(slot) else { continue };
            let age = self.now.saturating_duration_since(since);
            if age >= self.config.timeout {
                let text = format!("handler did not end within {}", crate::duration::short(self.config.timeout));
                self.lose(slot, || Failure::retry(text.clone()).classed("timeout"));
            }
        }
        self.jobs.copy_out_older_than(self.now, COPY_OUT_AFTER);
        self.sweep_lost();
        self.check_released();
    }

    /// Drops the handler in a slot; its messages have failed.
    fn lose(&mut self, slot: u32, why: impl Fn() -> Failure) {
        let members = self.drop_handler(slot);
        self.failed_together(members, why);
    }

    /// Drops the handler in a slot; whose it was.
    fn drop_handler(&mut self, slot: u32) -> Members {
        let (members, attempt, since) = self.slots.abandon(slot);
        self.view.vacant(slot);
        self.view.handled(self.now.saturating_duration_since(since));
        // What the handler had sent concerns nobody any more.
        self.attempts[attempt as usize].retire();
        self.free_attempts.push(attempt);
        members
    }

    fn next_timer(&self) -> Option<Instant> {
        let sweep = (!self.jobs.is_empty() || !self.releasing.is_empty()).then_some(self.next_sweep);
        let first = self.timers.first().map(|(until, _)| *until);
        // A moment that is past and changes nothing would be waited for in a circle: what keeps a start from being made
        // now wakes the lane itself, be it the end of a handler, the service or an order.
        let opens = self.opens();
        let waits = self.rate_until.filter(|_| opens && !(self.inbox.is_empty() && self.ready.is_empty()));
        let due = self.forming.is_due(self.now);
        let forming = if due { self.rate_until } else { self.forming.due_at() };
        [sweep, first, waits, forming.filter(|_| opens)].into_iter().flatten().min()
    }

    /// Hands over what was settled and what goes back.
    fn report(&mut self) {
        self.hand_out();
        self.check_released();
    }

    fn hand_out(&mut self) {
        if !self.out.is_empty() {
            let room = self.out.len().next_power_of_two().min(SETTLED_AT_ONCE);
            let out = std::mem::replace(&mut self.out, Vec::with_capacity(room));
            let _ = self.news.send(LaneNews::Settled(out));
        }
        if !self.dropped.is_empty() {
            let _ = self.news.send(LaneNews::Dropped(std::mem::take(&mut self.dropped)));
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}

/// Why a message must not be given to a handler: its source could not read it, or it kills whoever handles it.
fn unreadable(pick: &Pick) -> Option<Failure> {
    let headers = pick.slab.get(pick.index).headers();
    if let Some(why) = headers.text(POISON_HEADER) {
        return Some(Failure::reject(why.to_owned()).classed("poison"));
    }
    if let Some(why) = headers.text(UNDECODABLE_HEADER) {
        return Some(Failure::reject(why.to_owned()).classed("undecodable"));
    }
    let size = headers.text(OVERSIZED_HEADER)?;
    Some(Failure::reject(format!("payload of {size} bytes is over the limit")).classed("oversized"))
}

fn panicked(text: &str) -> Failure {
    Failure::retry(format!("handler panicked: {text}")).classed("panic")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a value that is no text".to_owned())
}
