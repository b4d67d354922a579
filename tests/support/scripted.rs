//! `test:NAME`: sources and sinks that do what a test says, and tell what they were told.

use longshore::message::{At, Message, SlabBuilder};
use longshore::transport::*;
use longshore::{Error, ErrorKind, Failure, Tally};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::Notify;

/// The transport; clones share what it holds.
#[derive(Clone, Default)]
pub struct Scripted {
    sources: Arc<Mutex<HashMap<String, Arc<SourceScript>>>>,
    sinks: Arc<Mutex<HashMap<String, Arc<SinkScript>>>>,
    stores: Arc<Mutex<HashMap<String, Arc<SinkScript>>>>,
}

impl Scripted {
    pub fn at_source(&self, name: &str) -> Arc<SourceScript> {
        self.sources.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }

    pub fn at_sink(&self, name: &str) -> Arc<SinkScript> {
        self.sinks.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }

    /// The retry store of a source; there is none until this was called.
    pub fn retry_store_of(&self, source: &str) -> Arc<SinkScript> {
        self.stores.lock().unwrap().entry(source.to_owned()).or_default().clone()
    }
}

const CAPABILITIES: Capabilities = Capabilities {
    durable: true,
    ordered_across_processes: false,
    partitions: true,
    keys: true,
    delivery_count: DeliveryCount::None,
    delayed_redelivery: false,
    settles_one_by_one: true,
    bytes_bounded: true,
    takes_back: true,
    poison_protection: false,
    groups: false,
    shared: false,
    replays: false,
    finite: true,
    transactions: false,
    recognises_ids: false,
    batch: 1,
};

impl Transport for Scripted {
    fn schemes(&self) -> &'static [&'static str] {
        &["test"]
    }

    fn source(&self, url: &Url, _: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        Ok(Box::new(ScriptedPlan(self.at_source(url.path()))))
    }

    fn sink(&self, url: &Url, _: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        Ok(Box::new(ScriptedSinkPlan(self.at_sink(url.path()))))
    }

    fn dead_letters(&self, _: &Url, _: &str) -> DeadPlace {
        DeadPlace::None
    }

    fn retry_store(&self, url: &Url, _: &SinkSpec) -> Result<Option<Box<dyn SinkPlan>>, Error> {
        let store = self.stores.lock().unwrap().get(url.path()).cloned();
        Ok(store.map(|store| Box::new(ScriptedSinkPlan(store)) as Box<dyn SinkPlan>))
    }
}

/// What a source has, what it was told, and what it shall do.
#[derive(Default)]
pub struct SourceScript {
    state: Mutex<SourceState>,
    changed: Notify,
}

#[derive(Default)]
pub struct SourceState {
    waiting: VecDeque<(At, Message)>,
    flying: HashMap<At, Message>,
    last: u64,
    epoch: u32,
    /// Messages of each delivery, at most.
    pub batch: Option<usize>,
    /// How long a delivery may be unsettled.
    pub holds_for: Option<std::time::Duration>,
    pub opens: u32,
    /// Opens that fail, still to come.
    pub failing_opens: u32,
    /// An open never comes back.
    pub hanging_open: bool,
    /// What happens at it next, as the test says.
    pub says: VecDeque<Event>,
    /// The source fails once.
    pub fails: bool,
    /// The source fails whenever it is opened.
    pub always_fails: bool,
    /// It never answers a close.
    pub hanging_close: bool,
    pub ends: bool,
    ended: bool,
    pub settled: Vec<Settlement>,
    pub returned: Vec<At>,
    /// What was recalled, and how much had been returned by the answer.
    pub recalled: Vec<(Ownership, usize)>,
    /// Ends of it that were not closed in order.
    pub unclean: u32,
    /// Most messages and bytes that were delivered and not settled.
    pub most: (usize, usize),
    pub open: bool,
}

impl SourceScript {
    pub fn state(&self) -> MutexGuard<'_, SourceState> {
        self.state.lock().unwrap()
    }

    /// Changes what it shall do.
    pub fn set(&self, change: impl FnOnce(&mut SourceState)) {
        change(&mut self.state());
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    pub fn publish(&self, partition: u32, messages: impl IntoIterator<Item = Message>) {
        self.set(|state| {
            for message in messages {
                state.last += 1;
                let at = At { position: state.last, epoch: 0, partition };
                state.waiting.push_back((at, message));
            }
        });
    }

    /// Messages that nobody has settled.
    pub fn left(&self) -> usize {
        let state = self.state();
        state.waiting.len() + state.flying.len()
    }
}

struct ScriptedPlan(Arc<SourceScript>);

impl SourcePlan for ScriptedPlan {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn group(&self) -> Option<&str> {
        None
    }

    fn holds_for(&self) -> Option<std::time::Duration> {
        self.0.state().holds_for
    }

    fn open(&self, _: SourceHooks) -> BoxFuture<'_, Result<Box<dyn Source>, Error>> {
        Box::pin(async move {
            let hangs = {
                let mut state = self.0.state();
                state.opens += 1;
                if state.failing_opens > 0 {
                    state.failing_opens -= 1;
                    return Err(Error::new(ErrorKind::Io, "the script says that it cannot be opened"));
                }
                state.hanging_open
            };
            if hangs {
                std::future::pending::<()>().await;
            }
            let mut state = self.0.state();
            state.epoch += 1;
            state.open = true;
            let epoch = state.epoch;
            drop(state);
            Ok(Box::new(ScriptedSource {
                script: self.0.clone(),
                epoch,
                demand: (0, 0),
                stopped: false,
                closed: false,
                out: VecDeque::from([Event::Connected]),
            }) as Box<dyn Source>)
        })
    }
}

struct ScriptedSource {
    script: Arc<SourceScript>,
    epoch: u32,
    demand: (u32, u64),
    stopped: bool,
    closed: bool,
    out: VecDeque<Event>,
}

impl ScriptedSource {
    fn take(&mut self) -> Option<Event> {
        if let Some(event) = self.out.pop_front() {
            return Some(event);
        }
        let mut state = self.script.state();
        if self.closed {
            return None;
        }
        if let Some(event) = state.says.pop_front() {
            return Some(event);
        }
        if std::mem::take(&mut state.fails) || state.always_fails {
            self.closed = true;
            put_back(&mut state);
            return Some(Event::Failed(Error::new(ErrorKind::Io, "the script says that it fails")));
        }
        let most = state.batch.unwrap_or(usize::MAX).min(self.demand.0 as usize).min(state.waiting.len());
        if most > 0 && !self.stopped {
            let mut slab = SlabBuilder::new();
            let mut bytes = 0;
            // A message that is alone is delivered whatever its size.
            while slab.len() < most && (bytes < self.demand.1 || (slab.is_empty() && state.flying.is_empty())) {
                let Some((at, message)) = state.waiting.pop_front() else { break };
                let at = At { epoch: self.epoch, ..at };
                let before = slab.bytes();
                let mut told = message.clone();
                let mut attempts = 0;
                if told.headers.get(RETRY_AFTER_HEADER).is_some() {
                    attempts = told.headers.get(ATTEMPTS_HEADER).map_or(0, attempts_of);
                    told.headers.remove(RETRY_AFTER_HEADER);
                    told.headers.remove(ATTEMPTS_HEADER);
                }
                let head = slab.push_message(&told);
                (head.at, head.attempts) = (at, attempts);
                bytes += (slab.bytes() - before) as u64;
                state.flying.insert(at, message);
            }
            if !slab.is_empty() {
                self.demand.0 -= slab.len() as u32;
                self.demand.1 = self.demand.1.saturating_sub(bytes);
                let flying: usize = state.flying.values().map(size).sum();
                state.most = (state.most.0.max(state.flying.len()), state.most.1.max(flying));
                return Some(Event::Batch(slab.finish("test".into())));
            }
        }
        if state.ends && !state.ended && state.waiting.is_empty() && state.flying.is_empty() {
            state.ended = true;
            return Some(Event::Ended);
        }
        None
    }
}

fn size(message: &Message) -> usize {
    message.payload.as_ref().map_or(0, |payload| payload.len()) + message.key.as_ref().map_or(0, |key| key.len())
}

/// What is not settled waits again, in its old order.
fn put_back(state: &mut SourceState) -> u64 {
    let flying = std::mem::take(&mut state.flying);
    let back = flying.len() as u64;
    state.waiting.extend(flying);
    state.waiting.make_contiguous().sort_by_key(|(at, _)| at.position);
    back
}

impl Source for ScriptedSource {
    fn tell(&mut self, ask: Ask) {
        let mut state = self.script.state();
        match ask {
            Ask::Demand { messages, bytes } => self.demand = (messages, bytes),
            Ask::Settle(settlements) => {
                let (mut proven, mut stale) = (Tally::default(), Tally::default());
                for settlement in settlements {
                    let had = state.flying.remove(&settlement.at).is_some();
                    settlement.verdict.count(if had { &mut proven } else { &mut stale });
                    state.settled.push(settlement);
                }
                self.out.push_back(Event::Settled { proven, stale, unknown: Tally::default() });
            }
            Ask::Return(these) => {
                for at in &these {
                    if let Some(message) = state.flying.remove(at) {
                        state.waiting.push_back((*at, message));
                    }
                }
                state.returned.extend(these);
                state.waiting.make_contiguous().sort_by_key(|(at, _)| at.position);
            }
            Ask::Mark(at) => self.out.push_back(Event::Marked(at)),
            Ask::Recalled(ownership) => {
                let returned = state.returned.len();
                state.recalled.push((ownership, returned));
            }
            Ask::Flush { .. } => self.out.push_back(Event::Flushed),
            Ask::StopIntake => {
                self.stopped = true;
                self.out.push_back(Event::IntakeStopped);
            }
            Ask::Measure => {
                let waiting = Some(state.waiting.len() as u64);
                self.out.push_back(Event::Measured(Backlog { waiting, delayed: Some(0) }));
            }
            Ask::Close { .. } if !state.hanging_close => {
                let returned = put_back(&mut state);
                state.open = false;
                self.closed = true;
                self.out.push_back(Event::Closed { returned, unknown: Tally::default() });
            }
            _ => {}
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(async move {
            let script = self.script.clone();
            loop {
                let changed = script.changed.notified();
                if let Some(event) = self.take() {
                    return event;
                }
                changed.await;
            }
        })
    }
}

impl Drop for ScriptedSource {
    fn drop(&mut self) {
        let mut state = self.script.state();
        put_back(&mut state);
        state.open = false;
        state.unclean += u32::from(!self.closed);
    }
}

/// What a sink does with what it is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Does {
    #[default]
    Confirm,
    /// Keeps it without a word.
    Hold,
    /// Answers that it does not take it.
    Refuse,
}

/// What a sink was sent, and what it shall do.
#[derive(Default)]
pub struct SinkScript {
    state: Mutex<SinkState>,
    changed: Notify,
}

#[derive(Default)]
pub struct SinkState {
    pub does: Does,
    /// Confirmed.
    pub has: Vec<Message>,
    pub refused: usize,
    /// Batches that are confirmed although it holds.
    pub confirms: u32,
    held: VecDeque<(u64, std::ops::Range<u32>, Vec<Message>)>,
    /// Messages that may be open at a time.
    pub window: Option<u32>,
    pub opens: u32,
    pub failing_opens: u32,
    pub hanging_open: bool,
    /// What happens at it next, as the test says.
    pub says: VecDeque<SinkEvent>,
    /// The sink fails once.
    pub fails: bool,
    pub closed: u32,
    /// Never connects.
    pub disconnected: bool,
    /// Where it says that it closes.
    pub log: Option<super::Log<String>>,
}

impl SinkScript {
    pub fn state(&self) -> MutexGuard<'_, SinkState> {
        self.state.lock().unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut SinkState)) {
        change(&mut self.state());
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Messages that it keeps without a word.
    pub fn held(&self) -> usize {
        self.state().held.iter().map(|(_, _, messages)| messages.len()).sum()
    }
}

struct ScriptedSinkPlan(Arc<SinkScript>);

impl SinkPlan for ScriptedSinkPlan {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>> {
        Box::pin(async move {
            let (hangs, disconnected) = {
                let mut state = self.0.state();
                state.opens += 1;
                if state.failing_opens > 0 {
                    state.failing_opens -= 1;
                    return Err(Error::new(ErrorKind::Io, "the script says that it cannot be opened"));
                }
                (state.hanging_open, state.disconnected)
            };
            if hangs {
                std::future::pending::<()>().await;
            }
            let window = self.0.state().window.unwrap_or(1_024);
            let mut out = VecDeque::new();
            if !disconnected {
                out.push_back(SinkEvent::Connected);
                out.push_back(SinkEvent::Demand { messages: window, bytes: u64::MAX });
            }
            let sink = ScriptedSink { script: self.0.clone(), used: 0, window, out, closing: None, closed: false };
            Ok(Box::new(sink) as Box<dyn Sink>)
        })
    }
}

struct ScriptedSink {
    script: Arc<SinkScript>,
    used: u32,
    window: u32,
    out: VecDeque<SinkEvent>,
    closing: Option<Instant>,
    closed: bool,
}

impl ScriptedSink {
    fn take(&mut self) -> Option<SinkEvent> {
        if let Some(event) = self.out.pop_front() {
            return Some(event);
        }
        if self.closed {
            return None;
        }
        let mut state = self.script.state();
        if let Some(event) = state.says.pop_front() {
            return Some(event);
        }
        if std::mem::take(&mut state.fails) {
            state.held.clear();
            self.closed = true;
            return Some(SinkEvent::Failed(Error::new(ErrorKind::Io, "the script says that it fails")));
        }
        if (state.does != Does::Hold || state.confirms > 0)
            && let Some((batch, range, messages)) = state.held.pop_front()
        {
            self.used -= range.len() as u32;
            state.confirms = state.confirms.saturating_sub(1);
            let mut failed = Vec::new();
            if state.does == Does::Refuse {
                state.refused += messages.len();
                failed.extend(
                    range.clone().map(|index| (index, Failure::retry("the script says no").classed("refused"))),
                );
            } else {
                state.has.extend(messages);
            }
            self.out.push_back(SinkEvent::Demand { messages: self.window - self.used, bytes: u64::MAX });
            return Some(SinkEvent::Confirmed { batch, range, failed });
        }
        if let Some(by) = self.closing
            && (state.held.is_empty() || Instant::now() >= by)
        {
            self.closed = true;
            state.closed += 1;
            if let Some(log) = &state.log {
                log.push("sink".to_owned());
            }
            let unconfirmed = std::mem::take(&mut state.held).iter().map(|(_, _, held)| held.len() as u64).sum();
            return Some(SinkEvent::Closed { unconfirmed });
        }
        None
    }
}

impl Sink for ScriptedSink {
    fn tell(&mut self, ask: SinkAsk) {
        match ask {
            SinkAsk::Send { batch, slab } => {
                self.used += slab.len() as u32;
                assert!(self.used <= self.window, "the engine stays within the demand");
                let messages = slab.iter().map(|message| message.to_message()).collect();
                self.script.state().held.push_back((batch, 0..slab.len() as u32, messages));
            }
            SinkAsk::Flush { .. } => self.out.push_back(SinkEvent::Flushed { unconfirmed: 0 }),
            SinkAsk::Close { by } => self.closing = Some(by),
            _ => {}
        }
    }

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(async move {
            let script = self.script.clone();
            loop {
                let changed = script.changed.notified();
                if let Some(event) = self.take() {
                    return event;
                }
                match self.closing.filter(|_| !self.closed) {
                    Some(by) => drop(tokio::time::timeout_at(by.into(), changed).await),
                    None => changed.await,
                }
            }
        })
    }
}
