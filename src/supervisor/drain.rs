//! The life of the process as a pure state machine: what happened goes in, what to do comes out.
//!
//! No I/O and no clock. The root supervisor feeds it events and carries out its commands, in order. Time is an event:
//! on [`Command::Enter`] the root arms the phase's end and on [`Command::Stop`] and [`Command::Release`] the actor's
//! bound (both from [`PhaseEnds`](super::phases::PhaseEnds)); when they pass, it says [`Event::PhaseTimeout`] and
//! [`Event::ActorTimeout`].
//!
//! What the machine holds to, searched over every interleaving in `search.rs`:
//!
//! - Resources, services, producers, bridges, consumers start in this order, one by one; nothing starts after a
//!   request to stop. A stop during the start goes through the same phases with those that are there.
//! - It is not ready before any intake stops; every intake stops before anything is drained.
//! - Draining ends when all workers are idle at the same time, or by its timer.
//! - A producer is stopped after every consumer and bridge, a resource is released after everybody else, both in
//!   reverse start order.
//! - Whatever dies, in whatever phase, is waited for no longer. Timers alone lead to the exit, one phase a timer.
//! - The first cause sets the exit code; a later one replaces only 0.

use super::phases::Phase;
use std::fmt;

/// An actor: its place in the list that [`Machine::new`] was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor(pub u16);

/// What an actor is. They start in this order and stop in reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Opened first, closed last.
    Resource,
    /// A background task of the user's.
    Service,
    /// Sends what handlers give it.
    Producer,
    /// Takes from a source and sends to a sink.
    Bridge,
    /// Takes from a source and handles.
    Consumer,
}

impl Kind {
    /// Whether it takes from a source: only these are drained.
    pub const fn takes(self) -> bool {
        matches!(self, Kind::Bridge | Kind::Consumer)
    }

    /// Its name in logs and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Resource => "resource",
            Kind::Service => "service",
            Kind::Producer => "producer",
            Kind::Bridge => "bridge",
            Kind::Consumer => "consumer",
        }
    }
}

/// Why the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// SIGTERM; again, it changes nothing.
    Sigterm,
    /// SIGINT; a second one goes straight to returning, a third exits now.
    Sigint,
    /// `POST /shutdown`.
    Http,
    /// The program that Longshore is embedded in.
    Embedder,
    /// Every consumer and bridge has ended, and there is one.
    SourcesEnded,
    /// An actor gave up; the exit code, which is 70.
    Escalated(u8),
    /// An actor did not start; the exit code of its error.
    StartFailed(u8),
}

impl Cause {
    /// The exit code that it asks for.
    pub const fn exit_code(self) -> u8 {
        match self {
            Cause::Sigterm | Cause::Sigint | Cause::Http | Cause::Embedder | Cause::SourcesEnded => 0,
            Cause::Escalated(code) | Cause::StartFailed(code) => code,
        }
    }

    /// Its name in logs and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Sigterm => "sigterm",
            Cause::Sigint => "sigint",
            Cause::Http => "http",
            Cause::Embedder => "embedder",
            Cause::SourcesEnded => "sources_ended",
            Cause::Escalated(_) => "escalated",
            Cause::StartFailed(_) => "start_failed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happened. One that does not fit the state (late, twice, unasked) changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Begin to start.
    Begin,
    /// The actor is ready, after [`Command::Start`].
    Ready(Actor),
    /// The actor did not become ready. At the first start it ends the process with this code; at a restart the root's
    /// policy goes on to decide.
    StartFailed {
        /// Which.
        actor: Actor,
        /// Exit code of its error.
        exit: u8,
    },
    /// The actor is gone and was not asked to go. The root's policy decides what follows: [`Event::RestartDue`],
    /// [`Event::GivenUp`], or a request by [`Cause::Escalated`].
    Died(Actor),
    /// Its back-off is over: start it again, unless the process stops.
    RestartDue(Actor),
    /// It died and will not be restarted (policy *temporary*); nothing comes from it any more.
    GivenUp(Actor),
    /// Its source is finite and has ended, and all that it delivered is settled.
    SourceEnded(Actor),
    /// Stop.
    Request(Cause),
    /// Its source takes no more, after [`Command::StopIntake`].
    IntakeStopped(Actor),
    /// Nothing of it runs, waits, or lacks a confirm. Said after [`Command::Drain`], at once if it is so already.
    Idle(Actor),
    /// It has got work again. Only where the source cannot take back; said before the sender's confirm, so before the
    /// sender can be idle.
    Busy(Actor),
    /// Its source is closed, after [`Command::Close`].
    Closed {
        /// Which.
        actor: Actor,
        /// Whether everything was settled or given back: nothing abandoned, nothing unknown.
        clean: bool,
    },
    /// It is gone: after [`Command::Stop`] or [`Command::Release`] (whether that went well is for the report), or by
    /// itself and properly.
    Stopped(Actor),
    /// It did not stop within its bound.
    ActorTimeout(Actor),
    /// The phase did not end by itself in time; of [`Phase::NotReady`]: the delay is over.
    PhaseTimeout(Phase),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// The phase begins: say so, disarm the timer of the one before, arm this one's. `NotReady` turns readiness off.
    Enter(Phase),
    /// Start it; answer `Ready` or `StartFailed`.
    Start(Actor),
    /// Take nothing more; answer `IntakeStopped`.
    StopIntake(Actor),
    /// Start nothing more, give back what has not started, finish the rest; answer `Idle`.
    Drain(Actor),
    /// Drop the handlers that still run and start none, whatever comes; answer `Idle`.
    Cancel(Actor),
    /// Drop what still runs, settle what is told, give back the rest and close the source; answer `Closed`.
    Close(Actor),
    /// Stop, whatever it does, be it starting; arm its bound; answer `Stopped`.
    Stop(Actor),
    /// Close the resource, be it opening; arm its bound; answer `Stopped`.
    Release(Actor),
    /// It did not stop in time: kill it, name it in the report, wait for nothing.
    Abandon(Actor),
    /// A second SIGINT: shorten the ends of all phases and bounds, the armed ones too.
    Hurry,
    /// Report and exit with this code. The last command, unless it is `ExitNow`.
    Exit(u8),
    /// Exit with this code at once. The last command, unless it is `Exit`.
    ExitNow(u8),
}

/// Exit code of a stop that left work unfinished.
const UNFINISHED: u8 = 75;
/// Exit code after a second SIGINT.
const INTERRUPTED: u8 = 130;
/// Exit code when an actor died and was not restarted.
const GAVE_UP: u8 = 70;
/// Exit code when an actor ended while it started, and said no reason.
const NOT_STARTED: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Life {
    /// Its turn to start has not come.
    Waiting,
    /// It starts for the first time.
    Starting,
    /// It has been ready.
    Up,
    /// Up, and its source has ended.
    Ended,
    /// Dead, and may be started again.
    Down,
    /// It starts again.
    Restarting,
    /// Told to stop.
    Ending,
    /// Gone for good.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Member {
    actor: Actor,
    kind: Kind,
    life: Life,
    /// A worker that is up owes this phase its answer: intake stopped, idle, or closed.
    owes: bool,
}

/// The state of the process between start and exit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    phase: Phase,
    /// In start order.
    members: Box<[Member]>,
    /// Whether [`Phase::NotReady`] lasts.
    delay: bool,
    /// Whether a source has ended.
    ended: bool,
    cause: Option<Cause>,
    code: u8,
    sigints: u8,
}

impl Machine {
    /// A process of these actors, [`Actor`]`(0)` first. Of one kind, they start in the order given. `delay` says that
    /// a process that was ready stays in [`Phase::NotReady`] until its timer.
    pub fn new(kinds: &[Kind], delay: bool) -> Self {
        let mut members: Vec<Member> = (0u16..)
            .zip(kinds)
            .map(|(at, &kind)| Member { actor: Actor(at), kind, life: Life::Waiting, owes: false })
            .collect();
        members.sort_by_key(|member| member.kind);
        Self { phase: Phase::Built, members: members.into(), delay, ended: false, cause: None, code: 0, sigints: 0 }
    }

    /// Where the process is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Why it stops, once it does: the first request.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Whether a stop was requested.
    pub fn is_stopping(&self) -> bool {
        self.phase >= Phase::NotReady
    }

    /// Whom this phase waits for, in the order in which it stops them.
    pub fn awaited(&self) -> impl Iterator<Item = Actor> + '_ {
        self.members.iter().rev().filter(|member| self.is_awaited(member)).map(|member| member.actor)
    }

    /// The actors in start order.
    pub fn start_order(&self) -> impl Iterator<Item = Actor> + '_ {
        self.members.iter().map(|member| member.actor)
    }

    /// One step. The commands are to be carried out in order.
    pub fn step(&mut self, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        if self.phase == Phase::Reported {
            return out;
        }
        match event {
            Event::Begin if self.phase == Phase::Built => self.enter(Phase::Starting, &mut out),
            Event::Begin => {}
            Event::Request(cause) => self.request(cause, &mut out),
            Event::PhaseTimeout(phase) if phase == self.phase => self.time_out(&mut out),
            Event::PhaseTimeout(_) => {}
            Event::Ready(actor)
            | Event::StartFailed { actor, .. }
            | Event::Died(actor)
            | Event::RestartDue(actor)
            | Event::GivenUp(actor)
            | Event::SourceEnded(actor)
            | Event::IntakeStopped(actor)
            | Event::Idle(actor)
            | Event::Busy(actor)
            | Event::Closed { actor, .. }
            | Event::Stopped(actor)
            | Event::ActorTimeout(actor) => {
                if let Some(at) = self.members.iter().position(|member| member.actor == actor) {
                    self.happened(at, event, &mut out);
                }
            }
        }
        self.advance(&mut out);
        out
    }

    fn happened(&mut self, at: usize, event: Event, out: &mut Vec<Command>) {
        let (phase, stopping) = (self.phase, self.is_stopping());
        let member = &mut self.members[at];
        match (event, member.life) {
            (Event::Ready(_), Life::Starting | Life::Restarting) => member.life = Life::Up,

            (Event::StartFailed { exit, .. }, Life::Starting) if !stopping => self.start_failed(at, exit, out),
            (Event::Died(_) | Event::Stopped(_), Life::Starting) if !stopping => {
                self.start_failed(at, NOT_STARTED, out);
            }
            // Whoever stops the process while it starts is not told that the start failed.
            (Event::StartFailed { .. } | Event::Died(_), Life::Starting | Life::Restarting) if stopping => {
                member.life = Life::Gone;
            }
            (Event::StartFailed { .. } | Event::Died(_), Life::Restarting) => member.life = Life::Down,
            (Event::StartFailed { .. } | Event::Died(_), Life::Ending) => member.life = Life::Gone,

            (Event::Died(_), Life::Up | Life::Ended) if !stopping => member.life = Life::Down,
            (Event::Died(_), Life::Up | Life::Ended) => {
                // Nobody restarts it now. What it held was not finished, and the exit must not look clean.
                member.life = Life::Gone;
                member.owes = false;
                self.replace_code(GAVE_UP);
            }
            (Event::RestartDue(actor), Life::Down) => {
                // Down implies that nothing stops: a request makes it Gone.
                member.life = Life::Restarting;
                out.push(Command::Start(actor));
            }
            (Event::GivenUp(_), Life::Down) => member.life = Life::Gone,
            (Event::Stopped(_), Life::Starting | Life::Up | Life::Ended | Life::Restarting | Life::Ending) => {
                member.life = Life::Gone;
                member.owes = false;
            }
            (Event::ActorTimeout(actor), Life::Ending) => {
                member.life = Life::Gone;
                let resource = member.kind == Kind::Resource;
                out.push(Command::Abandon(actor));
                // A resource holds no work; it is named, and that is all. What is told to stop before its turn had
                // not started yet.
                if !resource && phase == Phase::Stopping {
                    self.replace_code(UNFINISHED);
                }
            }

            (Event::SourceEnded(_), Life::Up) if !stopping && member.kind.takes() => {
                member.life = Life::Ended;
                self.ended = true;
            }
            (Event::IntakeStopped(_), Life::Up) if phase == Phase::IntakeStopped => member.owes = false,
            (Event::Idle(_), Life::Up) if matches!(phase, Phase::Draining | Phase::Cancelling) => member.owes = false,
            (Event::Busy(_), Life::Up) if matches!(phase, Phase::Draining | Phase::Cancelling) => {
                member.owes = member.kind.takes();
            }
            (Event::Closed { clean, .. }, Life::Up) if phase == Phase::Returning && member.owes => {
                member.owes = false;
                if !clean {
                    self.replace_code(UNFINISHED);
                }
            }
            _ => {}
        }
    }

    fn start_failed(&mut self, at: usize, exit: u8, out: &mut Vec<Command>) {
        self.members[at].life = Life::Gone;
        self.request(Cause::StartFailed(exit), out);
    }

    fn request(&mut self, cause: Cause, out: &mut Vec<Command>) {
        self.replace_code(cause.exit_code());
        if !self.is_stopping() {
            self.begin_stop(cause, out);
        }
        if cause != Cause::Sigint {
            return;
        }
        self.sigints = self.sigints.saturating_add(1);
        match self.sigints {
            1 => {}
            2 => {
                self.replace_code(INTERRUPTED);
                out.push(Command::Hurry);
                if self.phase < Phase::Returning {
                    self.enter(Phase::Returning, out);
                }
            }
            _ => {
                self.phase = Phase::Reported;
                out.push(Command::ExitNow(self.code));
            }
        }
    }

    fn begin_stop(&mut self, cause: Cause, out: &mut Vec<Command>) {
        let was_ready = self.phase == Phase::Running;
        self.cause = Some(cause);
        self.enter(Phase::NotReady, out);
        for member in &mut self.members {
            match member.life {
                Life::Waiting | Life::Down => member.life = Life::Gone,
                Life::Ended => member.life = Life::Up,
                // It must not begin to take now. Others may still be wanted by what runs, and stop in their turn.
                Life::Starting | Life::Restarting if member.kind.takes() => {
                    member.life = Life::Ending;
                    out.push(Command::Stop(member.actor));
                }
                Life::Starting | Life::Restarting | Life::Up | Life::Ending | Life::Gone => {}
            }
        }
        // The delay is for those who still send here: nobody does before it was ready, or once all has ended.
        let delayed = self.delay && was_ready && cause != Cause::SourcesEnded;
        if !delayed {
            self.enter(Phase::IntakeStopped, out);
        }
    }

    /// The phase's timer: each leads to a later phase, so that they alone lead to the end.
    fn time_out(&mut self, out: &mut Vec<Command>) {
        match self.phase {
            Phase::Built | Phase::Starting | Phase::Running | Phase::Reported => {}
            Phase::NotReady => self.enter(Phase::IntakeStopped, out),
            Phase::IntakeStopped => self.enter(Phase::Draining, out),
            Phase::Draining => {
                self.replace_code(UNFINISHED);
                self.enter(Phase::Cancelling, out);
            }
            Phase::Cancelling => self.enter(Phase::Returning, out),
            Phase::Returning => {
                self.replace_code(UNFINISHED);
                self.enter(Phase::Stopping, out);
            }
            Phase::Stopping => self.abandon_rest(Phase::Releasing, out),
            Phase::Releasing => self.abandon_rest(Phase::Reported, out),
        }
    }

    fn abandon_rest(&mut self, next: Phase, out: &mut Vec<Command>) {
        for at in (0..self.members.len()).rev() {
            if self.is_awaited(&self.members[at]) {
                self.members[at].life = Life::Gone;
                out.push(Command::Abandon(self.members[at].actor));
            }
        }
        self.replace_code(UNFINISHED);
        self.enter(next, out);
    }

    /// Goes on while the phase waits for nobody.
    fn advance(&mut self, out: &mut Vec<Command>) {
        while let Some(next) = self.next_phase(out) {
            self.enter(next, out);
        }
    }

    /// The phase that follows, if this one is over; else does what this one has to do next.
    fn next_phase(&mut self, out: &mut Vec<Command>) -> Option<Phase> {
        let awaited = |machine: &Self| machine.awaited().next().is_some();
        match self.phase {
            Phase::Built | Phase::NotReady | Phase::Reported => None,
            Phase::Starting => {
                if self.members.iter().any(|member| member.life == Life::Starting) {
                    return None;
                }
                let Some(member) = self.members.iter_mut().find(|member| member.life == Life::Waiting) else {
                    return Some(Phase::Running);
                };
                member.life = Life::Starting;
                out.push(Command::Start(member.actor));
                None
            }
            Phase::Running => {
                let mut workers = self.members.iter().filter(|member| member.kind.takes());
                if self.ended && workers.all(|member| matches!(member.life, Life::Ended | Life::Gone)) {
                    self.begin_stop(Cause::SourcesEnded, out);
                    // `begin_stop` has entered the phases; go on from there.
                    return self.next_phase(out);
                }
                None
            }
            Phase::IntakeStopped => (!awaited(self)).then_some(Phase::Draining),
            // All idle: nobody to cancel.
            Phase::Draining | Phase::Cancelling => (!awaited(self)).then_some(Phase::Returning),
            Phase::Returning => (!awaited(self)).then_some(Phase::Stopping),
            Phase::Stopping => self.stop_next(Command::Stop, Phase::Releasing, out),
            Phase::Releasing => self.stop_next(Command::Release, Phase::Reported, out),
        }
    }

    /// Tells the last one that is still there, and waits for it before the one before it.
    fn stop_next(&mut self, stop: fn(Actor) -> Command, then: Phase, out: &mut Vec<Command>) -> Option<Phase> {
        let Some(at) = (0..self.members.len()).rev().find(|&at| self.is_awaited(&self.members[at])) else {
            return Some(then);
        };
        let member = &mut self.members[at];
        if member.life != Life::Ending {
            member.life = Life::Ending;
            out.push(stop(member.actor));
        }
        None
    }

    fn is_awaited(&self, member: &Member) -> bool {
        match self.phase {
            Phase::Built | Phase::Running | Phase::NotReady | Phase::Reported => false,
            Phase::Starting => member.life == Life::Starting,
            Phase::IntakeStopped | Phase::Draining | Phase::Cancelling | Phase::Returning => {
                member.life == Life::Up && member.owes
            }
            Phase::Stopping => member.life != Life::Gone && member.kind != Kind::Resource,
            Phase::Releasing => member.life != Life::Gone,
        }
    }

    fn enter(&mut self, phase: Phase, out: &mut Vec<Command>) {
        debug_assert!(phase > self.phase, "phases only go on");
        self.phase = phase;
        if phase == Phase::Reported {
            out.push(Command::Exit(self.code));
            return;
        }
        out.push(Command::Enter(phase));
        let tell = match phase {
            Phase::IntakeStopped => Command::StopIntake,
            Phase::Draining => Command::Drain,
            Phase::Cancelling => Command::Cancel,
            Phase::Returning => Command::Close,
            _ => return,
        };
        for member in self.members.iter_mut().filter(|member| member.kind.takes() && member.life == Life::Up) {
            member.owes = true;
            out.push(tell(member.actor));
        }
    }

    /// The first cause sets the exit code; a later one replaces only 0.
    fn replace_code(&mut self, code: u8) {
        if self.code == 0 {
            self.code = code;
        }
    }
}

#[cfg(test)]
mod search;
