//! The data loop of a consumer: from its source to its lanes, and settlements back.
//!
//! One task owns the source and always awaits it. It asks for no more than the worker's window holds, in messages and
//! in bytes, so that the channels to the lanes, unbounded by type, are bounded by what was asked for.

use super::lane::{LaneAsk, LaneNews, Place};
use super::solo::{Next, Solo};
use crate::error::Error;
use crate::failure::Tally;
use crate::message::{At, ByteBudget, Slab};
use crate::transport::{Ask, Backlog, Event, Ownership, Settlement, Source, SourceHooks};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What the intake looks at by itself: stalls, gauges, idleness.
const TICK: Duration = Duration::from_millis(250);
/// Lanes have this part of the time until `by` to let go of their handlers, then the source is closed without them.
const LANES_SHARE: u32 = 2;
/// A worker by key whose first messages, so many, have none is warned about.
const UNKEYED_WARNING: u64 = 100;
/// A source has this long to carry out what it was told, when everything else is done.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// Without a settlement for the handler timeout and this, while something is in flight, a worker is stalled.
const STALL_GRACE: Duration = Duration::from_secs(30);

/// What an intake is told at its birth.
pub(crate) struct IntakeConfig {
    pub(crate) worker: Arc<str>,
    /// Messages delivered and unsettled at most.
    pub(crate) window: u32,
    /// Bytes of batches in memory at most.
    pub(crate) bytes: u64,
    pub(crate) takes_back: bool,
    /// Messages of one key are handled one after the other.
    pub(crate) by_key: bool,
    /// The source can mark a message before it runs.
    pub(crate) marks: bool,
    pub(crate) timeout: Duration,
    /// Ends after so many messages, as if the source had.
    pub(crate) limit: Option<u64>,
    /// Ends when nothing has come and nothing was in flight for so long.
    pub(crate) until_idle: Option<Duration>,
}

/// What the actor tells the intake.
#[derive(Debug)]
pub(crate) enum IntakeAsk {
    StopIntake,
    Drain,
    Cancel,
    Close { by: Instant },
}

/// What the intake tells: to the root what a stop waits for, to health and log the rest.
#[derive(Debug)]
pub(crate) enum IntakeNews {
    Connected,
    Disconnected(Error),
    Trouble(Error),
    Ended,
    IntakeStopped,
    Idle,
    Busy,
    Closed {
        clean: bool,
    },
    Failed(Error),
    PlaceRefuses(Place, String),
    PlaceTakes(Place),
    Stalled(Duration),
    Moving,
    /// Now and then: what is in flight.
    Gauges {
        in_flight: u64,
        bytes: u64,
    },
    Measured(Backlog),
}

/// Counts of a worker, kept where the report, the metrics and the watchdog see them.
pub(crate) trait Ledger: Send + Sync + 'static {
    fn received(&self, messages: u64, redelivered: u64, unkeyed: u64);
    fn settled(&self, tally: Tally);
    /// These were counted as settled and were not.
    fn unsettled(&self, tally: Tally, became: Became);
    fn returned(&self, messages: u64);
    fn abandoned(&self, messages: u64);
    fn dead_letter(&self, class: &'static str);
}

/// What became of settlements that did not take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Became {
    /// Their ownership was over: the messages are somebody else's.
    Stale,
    /// Whether they arrived is not known.
    Unknown,
}

pub(crate) type Report = Arc<dyn Fn(IntakeNews) + Send + Sync>;

/// Whether the root was told that this worker is idle. Shared with whoever gives a source work from inside the
/// process, so that *busy* is told before that sender can be idle itself.
#[derive(Default)]
pub(crate) struct Idleness {
    /// Armed, and told.
    state: Mutex<(bool, bool)>,
}

impl Idleness {
    fn lock(&self) -> std::sync::MutexGuard<'_, (bool, bool)> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// From now on a send into the source takes the armed state away.
    fn arm(&self) {
        self.lock().0 = true;
    }

    /// Tells that the worker is idle, unless work has come since it was armed. Under the lock, so that a *busy* comes
    /// after it or prevents it.
    fn tell(&self, report: &Report) -> bool {
        let mut state = self.lock();
        if state.0 && !state.1 {
            state.1 = true;
            report(IntakeNews::Idle);
        }
        state.0
    }

    fn work_came(&self, report: &Report) {
        let mut state = self.lock();
        state.0 = false;
        if std::mem::take(&mut state.1) {
            report(IntakeNews::Busy);
        }
    }
}

/// Hooks for the source of an intake that reports to `report`.
pub(crate) fn hooks(idleness: &Arc<Idleness>, report: &Report) -> SourceHooks {
    let (idleness, report) = (idleness.clone(), report.clone());
    SourceHooks { busy: Arc::new(move || idleness.work_came(&report)) }
}

struct Lanes {
    asks: Vec<mpsc::UnboundedSender<LaneAsk>>,
    tasks: JoinSet<()>,
}

impl Lanes {
    fn tell(&self, ask: impl Fn() -> LaneAsk) {
        for lane in &self.asks {
            // A lane that is gone has panicked; the intake sees that by its task.
            let _ = lane.send(ask());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    IntakeStopped,
    Draining,
    /// Lanes let go; then the source is closed.
    Closing {
        by: Instant,
        lanes_by: Instant,
    },
    Closed {
        by: Instant,
    },
}

struct Intake {
    config: IntakeConfig,
    source: Box<dyn Source>,
    lanes: Lanes,
    ledger: Arc<dyn Ledger>,
    report: Report,
    idleness: Arc<Idleness>,
    budget: Arc<ByteBudget>,
    /// Suspects and what waits behind them; counted as outstanding.
    solo: Solo,

    mode: Mode,
    /// Delivered, and neither settled nor given back.
    outstanding: u64,
    delivered: u64,
    unkeyed: u64,
    /// Whether the first messages have been looked at for keys.
    warned: bool,
    /// Settlements that were told, and of which the source has not said what became of them.
    unproven: Tally,
    /// What the source may still deliver of what it was told.
    granted: u32,
    granted_at_tick: u32,
    granted_bytes: u64,
    paused: bool,
    /// Lanes whose messages each [`Place`] refuses.
    refusing: [u32; Place::COUNT],
    ended: bool,
    ended_told: bool,
    intake_stopped_told: bool,
    /// By when the source has to say that it has flushed.
    flushing: Option<Instant>,
    flushed: bool,
    measured_empty: bool,
    connected: bool,
    /// What was not settled when its ownership was lost; nothing once messages come again.
    cut_off: u64,
    quiet_since: Instant,
    settled_at: Instant,
    stalled: bool,
    releasing: Vec<(u64, Ownership, usize, bool)>,
    /// What the source asked back, and how many lanes have not answered.
    recalling: Vec<(u64, Ownership, usize)>,
    next_token: u64,
    waiting: u64,
    /// It takes nothing more, and what waits in its source is of no interest: a limit is reached, a message has no
    /// place to go to, or handlers were cancelled.
    sated: bool,
    /// A message has no place to go to.
    stuck: bool,
}

/// Starts the lanes' tasks and runs until the source is closed or has failed. Dropping it is a crash: lanes and their
/// handlers are dropped, and what is unsettled comes again.
#[expect(clippy::too_many_arguments, reason = "what an actor wires together, named one by one")]
pub(crate) async fn intake(
    config: IntakeConfig,
    source: Box<dyn Source>,
    lane_asks: Vec<mpsc::UnboundedSender<LaneAsk>>,
    tasks: JoinSet<()>,
    mut news: mpsc::UnboundedReceiver<LaneNews>,
    mut asks: mpsc::Receiver<IntakeAsk>,
    ledger: Arc<dyn Ledger>,
    report: Report,
    idleness: Arc<Idleness>,
    budget: Arc<ByteBudget>,
) {
    let now = Instant::now();
    let mut this = Intake {
        config,
        source,
        lanes: Lanes { asks: lane_asks, tasks },
        ledger,
        report,
        idleness,
        budget: budget.clone(),
        solo: Solo::default(),
        mode: Mode::Running,
        outstanding: 0,
        delivered: 0,
        granted: 0,
        granted_at_tick: 0,
        granted_bytes: 0,
        paused: false,
        refusing: [0; Place::COUNT],
        ended: false,
        ended_told: false,
        intake_stopped_told: false,
        flushing: None,
        unproven: Tally::default(),
        unkeyed: 0,
        warned: false,
        flushed: false,
        measured_empty: false,
        connected: false,
        cut_off: 0,
        quiet_since: now,
        settled_at: now,
        stalled: false,
        releasing: Vec::new(),
        recalling: Vec::new(),
        next_token: 0,
        waiting: 0,
        sated: false,
        stuck: false,
    };
    let mut heard = Vec::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        this.demand();
        this.run_solo();
        this.quieten();
        let starved = this.granted_bytes < this.step_in_bytes() && this.budget.used() > 0;
        let close_at = match this.mode {
            Mode::Closing { lanes_by, .. } => Some(lanes_by),
            _ => None,
        };
        tokio::select! {
            biased;
            ask = asks.recv() => match ask {
                Some(ask) => this.asked(ask),
                None => return,
            },
            _ = news.recv_many(&mut heard, 64) => {
                for news in heard.drain(..) {
                    if this.lane_said(news).is_break() {
                        return;
                    }
                }
            },
            event = this.source.next() => if this.happened(event).is_break() {
                return;
            },
            () = budget.freed(), if starved => {}
            Some(ended) = this.lanes.tasks.join_next(), if !this.lanes.tasks.is_empty() => {
                if let Err(error) = ended && error.is_panic() {
                    (this.report)(IntakeNews::Failed(Error::new(crate::ErrorKind::Start, "a lane panicked")));
                    return;
                }
            },
            () = sleep_until(close_at), if close_at.is_some() => this.close_source(),
            _ = tick.tick() => this.tick(),
        }
    }
}

impl Drop for Intake {
    /// A crash: what is unsettled comes again, or nobody can give it back.
    fn drop(&mut self) {
        match std::mem::take(&mut self.outstanding) {
            0 => {}
            left if self.config.takes_back => self.ledger.returned(left),
            left => self.ledger.abandoned(left),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}

use std::ops::ControlFlow;

impl Intake {
    fn room_in_bytes(&self) -> u64 {
        self.config.bytes.saturating_sub(self.budget.used())
    }

    /// What is worth asking for anew.
    fn step_in_bytes(&self) -> u64 {
        (self.config.bytes / 4).max(1)
    }

    fn limit_left(&self) -> u64 {
        self.config.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.delivered))
    }

    /// Asks for as much as there is room for, in steps that are worth it.
    fn demand(&mut self) {
        let takes = match self.mode {
            Mode::Running => true,
            // What cannot be taken back is worked off.
            Mode::IntakeStopped | Mode::Draining => !self.config.takes_back,
            Mode::Closing { .. } | Mode::Closed { .. } => false,
        };
        if !takes || self.ended || self.sated || !self.solo.is_empty() {
            return;
        }
        let room = u64::from(self.config.window).saturating_sub(self.outstanding).min(self.limit_left()) as u32;
        let room = if self.paused { 0 } else { room };
        let bytes = self.room_in_bytes();
        // Half of what there is room for, when stuck messages have left little of it: what a source keeps of a demand
        // because it would tear a batch apart is never more than that.
        let step = (self.config.window / 4).min(room / 2).max(1);
        let step_in_bytes = self.step_in_bytes().min(bytes);
        if room == 0 || bytes == 0 {
            if self.granted > 0 && self.paused {
                (self.granted, self.granted_bytes) = (0, 0);
                self.source.tell(Ask::Demand { messages: 0, bytes: 0 });
            }
            return;
        }
        let more_messages = room.saturating_sub(self.granted) >= step && (self.granted == 0 || room > self.granted);
        let more_bytes = bytes > self.granted_bytes && bytes - self.granted_bytes >= step_in_bytes;
        if more_messages || more_bytes {
            (self.granted, self.granted_bytes) = (room, bytes);
            self.source.tell(Ask::Demand { messages: room, bytes });
        }
    }

    /// Says what follows from nothing being in flight.
    fn quieten(&mut self) {
        if self.outstanding > 0 {
            self.flushed = false;
            return;
        }
        match self.mode {
            Mode::Closing { .. } => self.close_source(),
            Mode::Closed { .. } => {}
            Mode::Draining | Mode::Running | Mode::IntakeStopped => {
                let wanted = self.mode == Mode::Draining || (self.ended && !self.ended_told);
                if wanted && !self.flushed && self.flushing.is_none() {
                    let by = Instant::now() + FLUSH_WITHIN;
                    self.flushing = Some(by);
                    self.measured_empty = self.config.takes_back || self.sated;
                    // Armed before the source is asked what it holds: a send after that disarms it.
                    self.idleness.arm();
                    if !self.measured_empty {
                        self.source.tell(Ask::Measure);
                    }
                    self.source.tell(Ask::Flush { by });
                }
                if wanted && self.flushed && self.measured_empty {
                    if self.ended && !self.ended_told {
                        self.ended_told = true;
                        (self.report)(IntakeNews::Ended);
                    }
                    if self.mode == Mode::Draining && !self.idleness.tell(&self.report) {
                        // Work came in between: once more.
                        self.flushed = false;
                    }
                }
            }
        }
    }

    fn asked(&mut self, ask: IntakeAsk) {
        match ask {
            IntakeAsk::StopIntake => {
                if self.mode == Mode::Running {
                    self.mode = Mode::IntakeStopped;
                    self.source.tell(Ask::StopIntake);
                    if self.ended {
                        self.intake_has_stopped();
                    }
                    if self.config.takes_back {
                        (self.granted, self.granted_bytes) = (0, 0);
                        self.source.tell(Ask::Demand { messages: 0, bytes: 0 });
                    }
                    if self.sated && !self.config.takes_back {
                        // A source that works off what it has would not say so any more.
                        (self.report)(IntakeNews::IntakeStopped);
                    }
                }
            }
            IntakeAsk::Drain => {
                if matches!(self.mode, Mode::Running | Mode::IntakeStopped) {
                    self.mode = Mode::Draining;
                    self.flushed = false;
                    let takes_back = self.config.takes_back;
                    if takes_back {
                        self.give_back_suspects(None);
                    }
                    self.lanes.tell(|| if takes_back { LaneAsk::Drain } else { LaneAsk::WorkOff });
                }
            }
            IntakeAsk::Cancel => {
                // What goes back to a queue in the process would come again at once.
                self.take_no_more();
                self.give_back_suspects(None);
                self.lanes.tell(|| LaneAsk::Cancel);
            }
            IntakeAsk::Close { by } => {
                if !matches!(self.mode, Mode::Closing { .. } | Mode::Closed { .. }) {
                    self.give_back_suspects(None);
                    self.lanes.tell(|| LaneAsk::Cancel);
                    let now = Instant::now();
                    let lanes_by = now + by.saturating_duration_since(now) / LANES_SHARE;
                    self.mode = Mode::Closing { by, lanes_by };
                }
            }
        }
    }

    fn close_source(&mut self) {
        if let Mode::Closing { by, .. } = self.mode {
            self.mode = Mode::Closed { by };
            self.source.tell(Ask::Close { by });
        }
    }

    fn lane_said(&mut self, news: LaneNews) -> ControlFlow<()> {
        match news {
            LaneNews::Settled(settlements) => self.settle(settlements),
            LaneNews::Dropped(these) => self.give_back(these),
            LaneNews::Released { token } => self.released(token),
            LaneNews::Recalled { token } => self.recalled(token),
            // Only the first is told: it is the one to look at.
            LaneNews::NoDeadPlace(_) if self.stuck => {}
            LaneNews::NoDeadPlace(text) => {
                self.stuck = true;
                self.take_no_more();
                // No restart takes that message out of the way. What goes back keeps its order behind it; what
                // cannot go back is worked off, and it alone is left.
                if self.config.takes_back {
                    self.lanes.tell(|| LaneAsk::Drain);
                }
                let error = Error::new(crate::ErrorKind::BadInput, text);
                (self.report)(IntakeNews::Failed(error));
            }
            LaneNews::PlaceRefuses(place, text) => {
                self.refusing[place.index()] += 1;
                self.paused = true;
                (self.report)(IntakeNews::PlaceRefuses(place, text));
            }
            LaneNews::PlaceTakes(place) => {
                let refusing = &mut self.refusing[place.index()];
                *refusing = refusing.saturating_sub(1);
                if *refusing == 0 {
                    (self.report)(IntakeNews::PlaceTakes(place));
                }
                self.paused = self.refusing != [0; Place::COUNT];
            }
            LaneNews::DeadLettered(class) => self.ledger.dead_letter(class),
        }
        ControlFlow::Continue(())
    }

    fn settle(&mut self, settlements: Vec<Settlement>) {
        let mut tally = Tally::default();
        for settlement in &settlements {
            settlement.verdict.count(&mut tally);
        }
        self.outstanding -= settlements.len() as u64;
        self.ledger.settled(tally);
        self.unproven += tally;
        let now = Instant::now();
        (self.settled_at, self.quiet_since) = (now, now);
        // One that is closing already counts them as given back, and so do we: they stay unproven.
        if !matches!(self.mode, Mode::Closed { .. }) {
            self.source.tell(Ask::Settle(settlements));
        }
    }

    fn take_no_more(&mut self) {
        self.sated = true;
        (self.granted, self.granted_bytes) = (0, 0);
        self.measured_empty = true;
        self.source.tell(Ask::Demand { messages: 0, bytes: 0 });
        if self.mode == Mode::IntakeStopped && !self.config.takes_back {
            // A source that works off what it has would not say so any more.
            (self.report)(IntakeNews::IntakeStopped);
        }
    }

    /// Settlements that did not take effect, or of which nothing is known.
    fn lose_track(&mut self, tally: Tally, became: Became) {
        if tally.total() > 0 {
            self.unproven -= tally;
            self.ledger.unsettled(tally, became);
        }
    }

    fn flush_ended(&mut self) {
        self.flushing = None;
        self.flushed = self.outstanding == 0;
    }

    fn give_back(&mut self, these: Vec<At>) {
        self.outstanding -= these.len() as u64;
        if self.config.takes_back {
            self.ledger.returned(these.len() as u64);
        } else {
            self.ledger.abandoned(these.len() as u64);
        }
        if !matches!(self.mode, Mode::Closed { .. }) {
            self.source.tell(Ask::Return(these));
        }
    }

    fn happened(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Batch(slab) => {
                self.cut_off = 0;
                self.deliver(slab);
            }
            Event::Marked(at) => {
                if let Some(alone) = self.solo.marked(at) {
                    self.hand_over(Arc::new(alone));
                }
            }
            Event::Settled { proven, stale, unknown } => {
                self.unproven -= proven;
                self.lose_track(stale, Became::Stale);
                self.lose_track(unknown, Became::Unknown);
                self.cut_off += unknown.total();
            }
            Event::Flushed => self.flush_ended(),
            Event::IntakeStopped => self.intake_has_stopped(),
            Event::Ended => {
                self.ended = true;
                (self.granted, self.granted_bytes) = (0, 0);
            }
            Event::Assigned(_) => {}
            Event::Revoking { ownership, .. } => self.let_go(ownership, false),
            Event::Lost(ownership) => {
                self.cut_off += self.outstanding;
                self.let_go(ownership, true);
            }
            Event::Recall(ownership) => self.recall(ownership),
            Event::Ageing { at, age, limit } => {
                use crate::duration::short;
                tracing::warn!(worker = %self.config.worker, position = at.position, partition = at.partition,
                    epoch = at.epoch, age = %short(age), limit = %short(limit),
                    "a message is still being handled: its broker takes it away at the limit, and it is handled twice");
            }
            Event::Connected => {
                self.connected = true;
                self.cut_off = 0;
                self.quiet_since = Instant::now();
                (self.report)(IntakeNews::Connected);
            }
            Event::Disconnected(error) => {
                self.connected = false;
                (self.report)(IntakeNews::Disconnected(error));
            }
            Event::Measured(backlog) => {
                self.waiting = backlog.waiting.unwrap_or(0);
                self.measured_empty = self.ended || (self.waiting == 0 && backlog.delayed.unwrap_or(0) == 0);
                if !self.measured_empty {
                    // Not idle yet: ask again once what is there has been worked off.
                    self.flushed = false;
                }
                (self.report)(IntakeNews::Measured(backlog));
                self.idle_out(backlog);
            }
            Event::Trouble(error) => (self.report)(IntakeNews::Trouble(error)),
            Event::Closed { returned, unknown } => {
                self.closed(returned, unknown);
                return ControlFlow::Break(());
            }
            Event::Failed(error) => {
                let left = std::mem::take(&mut self.outstanding);
                self.ledger.returned(left);
                let unknown = self.unproven;
                self.lose_track(unknown, Became::Unknown);
                (self.report)(IntakeNews::Failed(error));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn deliver(&mut self, mut slab: Slab) {
        let messages = slab.len() as u64;
        let (mut redelivered, mut unkeyed) = (0, 0);
        for head in slab.heads() {
            redelivered += u64::from(head.attempts > 0 || head.unclean > 0);
            unkeyed += u64::from(head.key_hash == 0);
        }
        self.ledger.received(messages, redelivered, unkeyed);
        self.unkeyed += unkeyed;
        if self.config.by_key && !self.warned && self.unkeyed >= UNKEYED_WARNING {
            self.warned = true;
            // Only if none of them had one: a queue with a few messages without a key is as it should be.
            if self.unkeyed == self.delivered + messages {
                tracing::warn!(worker = %self.config.worker, messages = self.unkeyed,
                    "ordered by key, and no message so far has one: say where it is by key= in the source's URL");
            }
        }
        if self.outstanding == 0 {
            self.settled_at = Instant::now();
        }
        self.outstanding += messages;
        self.delivered += messages;
        self.granted = self.granted.saturating_sub(messages as u32);
        self.granted_bytes = self.granted_bytes.saturating_sub(slab.size());
        self.quiet_since = Instant::now();
        self.flushed = false;
        if self.mode == Mode::Draining {
            self.idleness.work_came(&self.report);
        }
        if matches!(self.mode, Mode::Closing { .. } | Mode::Closed { .. }) {
            self.outstanding -= messages;
            self.ledger.returned(messages);
            return;
        }
        slab.charge_to(self.budget.clone());
        let slab = Arc::new(slab);
        if self.config.marks && self.solo.takes(&slab) {
            if self.mode == Mode::Draining && self.config.takes_back {
                self.give_back(slab.heads().iter().map(|head| head.at).collect());
            } else {
                tracing::warn!(worker = %self.config.worker, messages = slab.len(),
                    "messages whose owners died more than once: they run one by one");
                self.solo.hold(slab);
            }
        } else {
            self.hand_over(slab);
        }
        if self.limit_left() == 0 && !self.ended {
            self.end_by_itself();
        }
    }

    /// Says so once. A worker that has ended need not hear it from its source, which may be left with messages that
    /// nobody takes.
    fn intake_has_stopped(&mut self) {
        if !std::mem::replace(&mut self.intake_stopped_told, true) {
            (self.report)(IntakeNews::IntakeStopped);
        }
    }

    fn hand_over(&self, slab: Arc<Slab>) {
        self.lanes.tell(|| LaneAsk::Work(slab.clone()));
    }

    /// Takes the next step with suspects, once nothing else runs.
    fn run_solo(&mut self) {
        while !self.solo.is_empty() && self.outstanding == self.solo.len() {
            match self.solo.next() {
                Next::Nothing => return,
                Next::Mark(at) => {
                    self.source.tell(Ask::Mark(at));
                    return;
                }
                Next::Together(slab) | Next::Poison(slab) => self.hand_over(Arc::new(slab)),
            }
        }
    }

    fn give_back_suspects(&mut self, of: Option<&Ownership>) {
        let waiting = self.solo.take_back(of);
        if !waiting.is_empty() {
            self.give_back(waiting);
        }
    }

    /// As if the source had ended: the limit is reached, or nothing comes any more.
    fn end_by_itself(&mut self) {
        self.ended = true;
        self.take_no_more();
    }

    fn let_go(&mut self, ownership: Ownership, lost: bool) {
        self.give_back_suspects(Some(&ownership));
        let token = self.next_token;
        self.next_token += 1;
        self.releasing.push((token, ownership.clone(), self.lanes.asks.len(), lost));
        self.lanes.tell(|| LaneAsk::Release { token, ownership: ownership.clone(), lost });
    }

    fn released(&mut self, token: u64) {
        let Some(at) = self.releasing.iter().position(|(each, ..)| *each == token) else { return };
        self.releasing[at].2 -= 1;
        if self.releasing[at].2 == 0 {
            let (_, ownership, _, lost) = self.releasing.swap_remove(at);
            if !lost {
                self.source.tell(Ask::Released(ownership));
            }
        }
    }

    fn recall(&mut self, ownership: Ownership) {
        if !self.config.takes_back {
            // It could not take them.
            return self.source.tell(Ask::Recalled(ownership));
        }
        self.give_back_suspects(Some(&ownership));
        let token = self.next_token;
        self.next_token += 1;
        self.recalling.push((token, ownership.clone(), self.lanes.asks.len()));
        self.lanes.tell(|| LaneAsk::Recall { token, ownership: ownership.clone() });
    }

    fn recalled(&mut self, token: u64) {
        let Some(at) = self.recalling.iter().position(|(each, ..)| *each == token) else { return };
        self.recalling[at].2 -= 1;
        if self.recalling[at].2 == 0 {
            let (_, ownership, _) = self.recalling.swap_remove(at);
            if !matches!(self.mode, Mode::Closed { .. }) {
                self.source.tell(Ask::Recalled(ownership));
            }
        }
    }

    fn closed(&mut self, returned: u64, unknown: Tally) {
        let left = std::mem::take(&mut self.outstanding);
        if unknown != self.unproven {
            tracing::debug!(worker = %self.config.worker, told = ?self.unproven, source = ?unknown, "accounts differ");
        }
        let unknown = self.unproven;
        self.lose_track(unknown, Became::Unknown);
        if self.config.takes_back {
            self.ledger.returned(left);
        } else {
            self.ledger.abandoned(left);
        }
        let abandoned = !self.config.takes_back && (left > 0 || self.waiting > 0);
        tracing::debug!(worker = %self.config.worker, returned, left, unknown = unknown.total(), "source closed");
        // Nobody can say what became of what was under way when the connection went, unless it came back since.
        let cut_off = !self.connected && self.cut_off > 0;
        (self.report)(IntakeNews::Closed { clean: !abandoned && !cut_off && unknown.total() == 0 });
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.flushing.is_some_and(|by| now >= by + TICK) {
            // It was told to answer by then; whoever waits for it is not to wait for ever.
            tracing::warn!(worker = %self.config.worker, "the source did not say in time that it has flushed");
            self.flush_ended();
        }
        (self.report)(IntakeNews::Gauges { in_flight: self.outstanding, bytes: self.budget.used() });
        if self.flushed && !self.measured_empty && self.flushing.is_none() && self.outstanding == 0 {
            // Another consumer may have taken what was there.
            self.source.tell(Ask::Measure);
        }
        if self.granted > 0 && self.granted == self.granted_at_tick {
            // Told anew, should it keep the rest of a demand for something larger.
            (self.granted, self.granted_bytes) = (0, 0);
        }
        self.granted_at_tick = self.granted;
        let still = now.saturating_duration_since(self.settled_at);
        if self.outstanding > 0 && still > self.config.timeout + STALL_GRACE {
            if !std::mem::replace(&mut self.stalled, true) {
                (self.report)(IntakeNews::Stalled(still));
            }
        } else if std::mem::take(&mut self.stalled) {
            (self.report)(IntakeNews::Moving);
        }
        let watches = self.config.until_idle.is_some_and(|idle| {
            self.connected && !self.ended && self.outstanding == 0 && now >= self.quiet_since + idle
        });
        if watches && self.mode == Mode::Running {
            self.source.tell(Ask::Measure);
        }
    }

    /// Ends a worker that runs until idle, once its source says that nothing waits.
    fn idle_out(&mut self, backlog: Backlog) {
        let Some(idle) = self.config.until_idle else { return };
        let nothing = backlog.waiting.unwrap_or(0) == 0 && backlog.delayed.unwrap_or(0) == 0;
        let quiet = self.outstanding == 0 && Instant::now() >= self.quiet_since + idle;
        if nothing && quiet && self.connected && !self.ended && self.mode == Mode::Running {
            self.end_by_itself();
        }
    }
}
