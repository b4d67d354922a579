//! The root supervisor: an actor that carries out what the drain machine says, and nothing else decides.
//!
//! It keeps its own ordered record of its children: ractor's is a hash map, and it would kill what is left in it.
//! Every event goes through the mailbox, in order; what actors report about a death goes through it once more, since
//! supervision events overtake messages and the reason would come after the death.

use super::clock::StopClock;
use super::drain::{Actor as Id, Cause, Command, Event, Kind, Machine};
use super::health::{Health, Stage};
use super::phases::{Phase, PhaseEnds};
use super::report::{ActorReport, PhaseTime, Report, Stopped, Stuck};
use super::restart::{End, Policy, Restarts, Verdict};
use crate::actor::{Blueprint, Link, Order};
use crate::duration;
use crate::error::Error;
use crate::handler::Stopping;
use crate::process::board::{ActorLine, Board, Doing};
use crate::telemetry::metrics::AppMetrics;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// A resource that takes longer to close is warned about.
const SLOW_RELEASE: Duration = Duration::from_secs(2);
/// While a stop waits, it says for whom this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What reaches the root.
#[derive(Debug)]
pub(crate) enum RootMsg {
    Event(Event),
    StartFailed { id: Id, text: String, exit: u8 },
    ActorFailed { id: Id, text: String, escalates: Option<u8> },
    Trouble { id: Id, text: String },
    Escalate { id: Id, text: String, cause: Cause },
    Ended { cell: ractor::ActorId, failed: Option<String> },
    Progress,
}

/// Tells the root; cheap to clone. Before the root is there, and after it is gone, nothing happens.
#[derive(Clone, Default)]
pub(crate) struct RootRef {
    root: Arc<OnceLock<ActorRef<RootMsg>>>,
}

impl RootRef {
    fn cast(&self, msg: RootMsg) {
        if let Some(root) = self.root.get() {
            // A root that is gone has reported.
            let _ = root.cast(msg);
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        self.cast(RootMsg::Event(event));
    }

    pub(crate) fn start_failed(&self, id: Id, error: &Error) {
        self.cast(RootMsg::StartFailed { id, text: error.to_string(), exit: error.exit_code() });
    }

    /// What failed while it ran; some errors no restart can mend.
    pub(crate) fn actor_failed(&self, id: Id, error: &Error) {
        let escalates = matches!(error.kind(), crate::ErrorKind::GaveUp).then_some(error.exit_code());
        self.cast(RootMsg::ActorFailed { id, text: error.to_string(), escalates });
    }

    pub(crate) fn resource_trouble(&self, id: Id, text: String) {
        self.cast(RootMsg::Trouble { id, text });
    }

    pub(crate) fn escalate(&self, id: Id, error: &Error, cause: Cause) {
        self.cast(RootMsg::Escalate { id, text: error.to_string(), cause });
    }
}

/// One child, in the order in which the app installed it.
pub(crate) struct Child {
    pub(crate) blueprint: Box<dyn Blueprint>,
    pub(crate) link: Link,
    pub(crate) policy: Policy,
}

/// How the process ends.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) code: u8,
    pub(crate) report: Report,
    /// A third SIGINT: no report, no release, out.
    pub(crate) at_once: bool,
    /// Why the start failed, where that is why it ends.
    pub(crate) error: Option<String>,
}

/// What the root is given.
pub(crate) struct RootArgs {
    pub(crate) app: Arc<str>,
    pub(crate) children: Vec<Child>,
    pub(crate) clock: Arc<StopClock>,
    pub(crate) health: Health,
    pub(crate) metrics: AppMetrics,
    pub(crate) stopping: watch::Sender<Stopping>,
    pub(crate) this: RootRef,
    pub(crate) board: Arc<Board>,
    pub(crate) ended: oneshot::Sender<Ending>,
}

/// Spawns the root and begins the start.
pub(crate) async fn spawn(args: RootArgs) -> Result<(), ractor::SpawnErr> {
    let this = args.this.clone();
    let (root, _) = Actor::spawn(None, Root, args).await?;
    let _ = this.root.set(root);
    this.tell(Event::Begin);
    Ok(())
}

struct Root;

struct Member {
    child: Child,
    name: Arc<str>,
    kind: Kind,
    actor: Option<ActorRef<Order>>,
    restarts: Restarts,
    stopped: Stopped,
    error: Option<String>,
    phases: Vec<PhaseTime>,
    step: Option<(&'static str, Instant)>,
}

pub(crate) struct State {
    app: Arc<str>,
    machine: Machine,
    members: Vec<Member>,
    by_cell: HashMap<ractor::ActorId, Id>,
    clock: Arc<StopClock>,
    ends: PhaseEnds,
    health: Health,
    metrics: AppMetrics,
    stopping: watch::Sender<Stopping>,
    ended: Option<oneshot::Sender<Ending>>,
    phase_began: Instant,
    phases: Vec<PhaseTime>,
    start_error: Option<String>,
    open_resources: u32,
    board: Arc<Board>,
    /// What ran when the handlers were cancelled: who held up the stop.
    cancelled: Vec<Stuck>,
}

impl Actor for Root {
    type Msg = RootMsg;
    type State = State;
    type Arguments = RootArgs;

    async fn pre_start(&self, _: ActorRef<RootMsg>, args: RootArgs) -> Result<State, ActorProcessingErr> {
        let kinds: Vec<Kind> = args.children.iter().map(|child| child.blueprint.kind()).collect();
        let ends = args.clock.ends();
        let delay = ends.end(Phase::NotReady).is_some_and(|delay| !delay.is_zero());
        let members = args
            .children
            .into_iter()
            .map(|child| Member {
                name: child.blueprint.name().clone(),
                kind: child.blueprint.kind(),
                restarts: Restarts::new(child.policy),
                child,
                actor: None,
                stopped: Stopped::NotStarted,
                error: None,
                phases: Vec::new(),
                step: None,
            })
            .collect();
        Ok(State {
            app: args.app,
            machine: Machine::new(&kinds, delay),
            members,
            by_cell: HashMap::new(),
            clock: args.clock,
            ends,
            health: args.health,
            metrics: args.metrics,
            stopping: args.stopping,
            ended: Some(args.ended),
            phase_began: Instant::now(),
            phases: Vec::new(),
            start_error: None,
            open_resources: 0,
            board: args.board,
            cancelled: Vec::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        msg: RootMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            RootMsg::Event(event) => state.happened(&myself, event).await,
            RootMsg::StartFailed { id, text, exit } => {
                let member = state.member(id);
                tracing::error!(actor = %member.name, kind = member.kind.name(), exit, "start failed: {text}");
                let why = format!("{} '{}': {text}", member.kind.name(), member.name);
                if state.machine.phase() == Phase::Starting {
                    // Later it is a restart that failed, and the next one may do.
                    state.start_error.get_or_insert(why);
                }
                let member = state.member(id);
                member.error = Some(text);
                member.stopped = Stopped::Failed;
                state.happened(&myself, Event::StartFailed { actor: id, exit }).await;
            }
            RootMsg::ActorFailed { id, text, escalates } => {
                let member = state.member(id);
                tracing::error!(actor = %member.name, kind = member.kind.name(), "failed: {text}");
                member.error = Some(text);
                if let Some(code) = escalates {
                    state.happened(&myself, Event::Request(Cause::Escalated(code))).await;
                }
            }
            RootMsg::Trouble { id, text } => {
                let member = state.member(id);
                tracing::error!(actor = %member.name, kind = member.kind.name(), "{text}");
                member.error = Some(text);
                member.stopped = Stopped::Failed;
            }
            RootMsg::Escalate { id, text, cause } => {
                let member = state.member(id);
                tracing::error!(actor = %member.name, kind = member.kind.name(), "{text}");
                member.error = Some(text);
                state.happened(&myself, Event::Request(cause)).await;
            }
            RootMsg::Ended { cell, failed } => state.child_ended(&myself, cell, failed).await,
            RootMsg::Progress => state.progress(&myself),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        _: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // Behind whatever the child has told already: its reason is in the mailbox.
        let ended = match event {
            SupervisionEvent::ActorTerminated(cell, ..) => RootMsg::Ended { cell: cell.get_id(), failed: None },
            SupervisionEvent::ActorFailed(cell, error) => {
                RootMsg::Ended { cell: cell.get_id(), failed: Some(error.to_string()) }
            }
            _ => return Ok(()),
        };
        let _ = myself.cast(ended);
        Ok(())
    }
}

impl State {
    fn member(&mut self, id: Id) -> &mut Member {
        &mut self.members[usize::from(id.0)]
    }

    async fn happened(&mut self, myself: &ActorRef<RootMsg>, event: Event) {
        if matches!(event, Event::Request(_)) {
            self.clock.request();
        }
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.note(&event);
            for command in self.machine.step(event) {
                if let Some(answer) = self.carry_out(myself, command).await {
                    events.push_back(answer);
                }
            }
        }
    }

    /// The log and the report of a step that has ended.
    fn note(&mut self, event: &Event) {
        match *event {
            Event::Ready(id) => {
                self.show(id, Doing::Ready);
                // Whatever it failed by before, it is well now.
                let member = self.member(id);
                (member.stopped, member.error) = (Stopped::NotStarted, None);
                self.end_step(id, Stopped::Properly);
                if self.member(id).kind == Kind::Resource {
                    self.open_resources += 1;
                    self.metrics.resources_open.set(f64::from(self.open_resources));
                }
            }
            Event::IntakeStopped(id) | Event::Idle(id) | Event::Closed { actor: id, .. } => {
                self.end_step(id, Stopped::Properly);
            }
            Event::Died(id) => self.show(id, Doing::Down),
            Event::Stopped(id) => {
                self.show(id, Doing::Stopped);
                let member = self.member(id);
                member.child.link.health.stopped();
                self.end_step(id, Stopped::Properly);
            }
            Event::SourceEnded(id) => tracing::info!(actor = %self.member(id).name, "source has ended, all settled"),
            Event::Request(cause) if !self.machine.is_stopping() => {
                let left = duration::short(self.ends.deadline());
                tracing::info!(event = "stop_requested", %cause, deadline = %left, "stopping, {left} at most");
            }
            _ => {}
        }
    }

    /// Shows on the board what an actor is about.
    fn show(&self, id: Id, doing: Doing) {
        let line = self.board.actor(usize::from(id.0));
        line.enter(doing, self.board.now_ms());
    }

    fn begin_step(&mut self, id: Id, step: &'static str) {
        let elapsed = duration::short(self.clock.elapsed());
        let phase = self.machine.phase();
        let member = self.member(id);
        member.step = Some((step, Instant::now()));
        tracing::info!(actor = %member.name, kind = member.kind.name(), %phase, elapsed, "{step} ...");
    }

    fn end_step(&mut self, id: Id, stopped: Stopped) {
        let elapsed = duration::short(self.clock.elapsed());
        let phase = self.machine.phase();
        let member = self.member(id);
        let Some((step, began)) = member.step.take() else { return };
        let took = began.elapsed();
        member.phases.push(PhaseTime { phase, ms: took.as_millis() as u64 });
        if member.stopped == Stopped::NotStarted || member.stopped == Stopped::Properly {
            member.stopped = stopped;
        }
        let took_text = duration::short(took);
        tracing::info!(actor = %member.name, kind = member.kind.name(), %phase, elapsed, took = %took_text, "{step}: done");
        if phase == Phase::Releasing && took > SLOW_RELEASE {
            tracing::warn!(actor = %member.name, took = %took_text, "slow to close");
            if member.stopped == Stopped::Properly {
                member.stopped = Stopped::Slowly;
            }
        }
    }

    async fn carry_out(&mut self, myself: &ActorRef<RootMsg>, command: Command) -> Option<Event> {
        match command {
            Command::Start(id) => self.show(id, Doing::Starting),
            Command::StopIntake(id) => self.show(id, Doing::IntakeStopped),
            Command::Drain(id) => self.show(id, Doing::Draining),
            Command::Cancel(id) => self.show(id, Doing::Cancelling),
            Command::Close(id) => self.show(id, Doing::Returning),
            Command::Stop(id) => self.show(id, Doing::Stopping),
            Command::Release(id) => self.show(id, Doing::Closing),
            _ => {}
        }
        match command {
            Command::Enter(phase) => self.enter(myself, phase),
            Command::Start(id) => return self.start(myself, id).await,
            Command::StopIntake(id) => {
                self.order(myself, id, "stop intake", Order::StopIntake, Event::IntakeStopped(id));
            }
            Command::Drain(id) => self.order(myself, id, "drain", Order::Drain, Event::Idle(id)),
            Command::Cancel(id) => self.order(myself, id, "cancel", Order::Cancel, Event::Idle(id)),
            Command::Close(id) => {
                let by = self.end_of(self.machine.phase());
                let gone = Event::Closed { actor: id, clean: false };
                self.order(myself, id, "close source", Order::Close { by }, gone);
            }
            Command::Stop(id) => self.stop(myself, id, "stop"),
            Command::Release(id) => self.stop(myself, id, "release"),
            Command::Abandon(id) => {
                let elapsed = duration::short(self.clock.elapsed());
                let phase = self.machine.phase();
                let member = self.member(id);
                member.stopped = Stopped::Hung;
                let step = member.step.take().map_or("step", |(step, _)| step);
                tracing::error!(actor = %member.name, kind = member.kind.name(), %phase, elapsed, "{step}: not done in time, abandoned");
                member.child.link.health.failed("did not stop in time");
                if let Some(actor) = member.actor.take() {
                    self.by_cell.remove(&actor.get_id());
                    actor.kill();
                }
            }
            Command::Hurry => {
                self.ends = self.ends.hurried(self.clock.elapsed());
                tracing::warn!("second interrupt: returning what is unfinished, and out");
                self.arm(myself, self.machine.phase());
            }
            Command::Exit(code) => self.exit(myself, code, false),
            Command::ExitNow(code) => self.exit(myself, code, true),
        }
        None
    }

    fn end_of(&self, phase: Phase) -> Instant {
        self.clock.request() + self.ends.end(phase).unwrap_or(self.ends.deadline())
    }

    fn enter(&mut self, myself: &ActorRef<RootMsg>, phase: Phase) {
        let now = Instant::now();
        let began = std::mem::replace(&mut self.phase_began, now);
        if let Some(left) = self.phases.last_mut() {
            let took = now.saturating_duration_since(began);
            left.ms = took.as_millis() as u64;
            self.metrics.stop_phase(left.phase.name(), took);
        }
        if phase >= Phase::NotReady {
            // Whatever began the stop, its deadline runs from here at the latest.
            self.clock.request();
            self.clock.ends_with(self.machine.cause().map_or(0, Cause::exit_code));
            self.phases.push(PhaseTime { phase, ms: 0 });
            let elapsed = duration::short(self.clock.elapsed());
            tracing::info!(event = "stop_phase", %phase, elapsed, "{phase}");
        }
        match phase {
            Phase::Running => {
                self.health.set_stage(Stage::Running);
                tracing::info!(event = "ready", app = %self.app, "all {} actors are ready", self.members.len());
            }
            Phase::NotReady => {
                self.health.set_stage(Stage::Stopping);
                drop(myself.send_after(PROGRESS_EVERY, || RootMsg::Progress));
            }
            Phase::IntakeStopped => {
                self.stopping.send_replace(Stopping::Draining);
                for member in &self.members {
                    if member.actor.is_none() {
                        member.child.blueprint.gone_for_good();
                    }
                    // Producers refuse work from outside from now on; takers are told by the machine.
                    match &member.actor {
                        Some(actor) if member.kind == Kind::Producer => drop(actor.cast(Order::StopIntake)),
                        None if member.stopped == Stopped::NotStarted => member.child.blueprint.will_not_start(),
                        _ => {}
                    }
                }
            }
            Phase::Cancelling => {
                self.cancelled = self.stuck();
                for stuck in &self.cancelled {
                    tracing::warn!(worker = %stuck.worker, position = stuck.position, attempt = stuck.attempt,
                        age = %duration::short(Duration::from_millis(stuck.age_ms)), "handler cancelled: it did not end in time");
                }
                self.stopping.send_replace(Stopping::Cancelling);
            }
            _ => {}
        }
        self.arm(myself, phase);
    }

    fn arm(&self, myself: &ActorRef<RootMsg>, phase: Phase) {
        if phase >= Phase::NotReady
            && let Some(end) = self.ends.end(phase)
        {
            let left = end.saturating_sub(self.clock.elapsed());
            drop(myself.send_after(left, move || RootMsg::Event(Event::PhaseTimeout(phase))));
        }
    }

    async fn start(&mut self, myself: &ActorRef<RootMsg>, id: Id) -> Option<Event> {
        self.begin_step(id, "start");
        let member = self.member(id);
        member.child.link.health.starting();
        let link = member.child.link.again();
        member.child.link = link.clone();
        match member.child.blueprint.spawn(link, myself.get_cell()).await {
            Ok(actor) => {
                let cell = actor.get_id();
                member.actor = Some(actor);
                self.by_cell.insert(cell, id);
                None
            }
            Err(error) => {
                member.error = Some(error.to_string());
                Some(Event::StartFailed { actor: id, exit: 1 })
            }
        }
    }

    /// Gives an order; for an actor that is gone the root answers itself, behind what that actor has told before.
    fn order(&mut self, myself: &ActorRef<RootMsg>, id: Id, step: &'static str, order: Order, gone: Event) {
        self.begin_step(id, step);
        let told = self.member(id).actor.as_ref().is_some_and(|actor| actor.cast(order).is_ok());
        if !told {
            let _ = myself.cast(RootMsg::Event(gone));
        }
    }

    fn stop(&mut self, myself: &ActorRef<RootMsg>, id: Id, step: &'static str) {
        let left = self.machine.awaited().count();
        let bound = self.ends.bound(self.machine.phase(), self.clock.elapsed(), left);
        self.order(myself, id, step, Order::Stop { by: Instant::now() + bound }, Event::Stopped(id));
        drop(myself.send_after(bound, move || RootMsg::Event(Event::ActorTimeout(id))));
    }

    async fn child_ended(&mut self, myself: &ActorRef<RootMsg>, cell: ractor::ActorId, failed: Option<String>) {
        let Some(id) = self.by_cell.remove(&cell) else { return };
        let was_resource = self.member(id).kind == Kind::Resource;
        let member = self.member(id);
        member.actor = None;
        if was_resource {
            self.open_resources = self.open_resources.saturating_sub(1);
            self.metrics.resources_open.set(f64::from(self.open_resources));
        }
        let Some(text) = failed else {
            return self.happened(myself, Event::Stopped(id)).await;
        };
        let stopping = self.machine.is_stopping();
        let member = self.member(id);
        member.error.get_or_insert(text);
        if stopping {
            member.stopped = Stopped::Failed;
        }
        self.happened(myself, Event::Died(id)).await;
        if self.machine.is_stopping() {
            self.member(id).child.blueprint.gone_for_good();
            return;
        }
        let member = self.member(id);
        match member.restarts.decide(End::Failed, Instant::now(), fastrand::f64()) {
            Verdict::Restart { after } => {
                let why = member.error.clone().unwrap_or_default();
                tracing::warn!(actor = %member.name, after = %duration::short(after), "restarts: {why}");
                member.child.link.health.restarting(&why);
                member.child.link.metrics.restarts.increment(1);
                drop(myself.send_after(after, move || RootMsg::Event(Event::RestartDue(id))));
            }
            Verdict::LeaveGone => self.happened(myself, Event::GivenUp(id)).await,
            Verdict::Escalate => {
                tracing::error!(actor = %member.name, "gave up restarting: the app stops");
                self.happened(myself, Event::Request(Cause::Escalated(70))).await;
            }
        }
    }

    /// One line: how many remain, and how long there is.
    fn progress(&mut self, myself: &ActorRef<RootMsg>) {
        if self.ended.is_none() {
            return;
        }
        let awaited: Vec<Id> = self.machine.awaited().collect();
        let names: Vec<String> = awaited
            .iter()
            .map(|id| {
                let member = &self.members[usize::from(id.0)];
                match member.child.link.counts.now_in_flight() {
                    0 => member.name.to_string(),
                    in_flight => format!("{} ({in_flight} in flight)", member.name),
                }
            })
            .collect();
        if !names.is_empty() {
            let left = duration::short(self.ends.deadline().saturating_sub(self.clock.elapsed()));
            tracing::info!(event = "stop_progress", phase = %self.machine.phase(), left = %left,
                "{}: waiting for {}, {left} left", self.machine.phase(), names.join(", "));
        }
        drop(myself.send_after(PROGRESS_EVERY, || RootMsg::Progress));
    }

    /// The messages that ran to the end, by worker.
    fn stuck(&self) -> Vec<Stuck> {
        let now_ms = self.board.now_ms();
        let of = |line: &ActorLine| -> Vec<Stuck> {
            line.running().map(|running| Stuck::of(line.name(), running, now_ms)).collect()
        };
        let mut stuck: Vec<Stuck> = self.board.actors().iter().flat_map(|line| of(line)).collect();
        stuck.extend(self.cancelled.iter().cloned());
        stuck
    }

    fn exit(&mut self, myself: &ActorRef<RootMsg>, code: u8, at_once: bool) {
        let actors = self
            .machine
            .start_order()
            .map(|id| {
                let member = &self.members[usize::from(id.0)];
                ActorReport {
                    name: member.name.to_string(),
                    kind: member.kind,
                    stopped: member.stopped,
                    error: member.error.clone(),
                    phases: member.phases.clone(),
                    counts: member.kind.takes().then(|| member.child.link.counts.snapshot()),
                }
            })
            .collect();
        let report = Report {
            app: self.app.to_string(),
            cause: self.machine.cause().unwrap_or(Cause::Embedder),
            exit_code: code,
            elapsed: self.clock.elapsed(),
            phases: std::mem::take(&mut self.phases),
            actors,
            stuck: self.stuck(),
        };
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(Ending { code, report, at_once, error: self.start_error.take() });
        }
        myself.stop(None);
    }
}
