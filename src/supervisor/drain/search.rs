//! A search of the machine over every interleaving, against a world that knows nothing of its insides.
//!
//! The world remembers what each actor was told and what it has answered. In each state it offers everything that
//! could happen next: every answer that is owed, deaths, failures, timers, signals. It checks each command as it comes.

use super::*;
use hashbrown::HashMap;
use std::rc::Rc;

/// What an actor really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Being {
    Unborn,
    /// It starts; for the first time or again.
    Opening,
    Alive,
    /// Died, may come back.
    Dead,
    /// Stopped, abandoned, or dead for good.
    Finished,
}

/// The last thing that it was told, and whether it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    StopIntake,
    IntakeStopped,
    Drain,
    Cancel,
    /// It said that it is idle; it may get busy again.
    Idle,
    Close,
    Closed,
    Stop,
}

impl Told {
    fn is_owed(self) -> bool {
        matches!(self, Told::StopIntake | Told::Drain | Told::Cancel | Told::Close | Told::Stop)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Real {
    being: Being,
    told: Told,
    ended: bool,
}

#[derive(Debug, Clone)]
struct World {
    machine: Machine,
    kinds: Rc<[Kind]>,
    actors: Vec<Real>,
    /// First non-zero exit code by the rules.
    code: u8,
    sigints: u8,
    requested: bool,
    /// Begin was said.
    begun: bool,
    exits: u8,
    /// Whether the dead come back.
    restarts: bool,
}

type Step = fn(&mut Machine, Event) -> Vec<Command>;
type Key = u128;

struct Found {
    states: usize,
    transitions: usize,
    exits: [bool; 256],
}

impl World {
    fn new(kinds: &[Kind], delay: bool, restarts: bool) -> Self {
        let real = Real { being: Being::Unborn, told: Told::Nothing, ended: false };
        Self {
            machine: Machine::new(kinds, delay),
            kinds: kinds.into(),
            actors: vec![real; kinds.len()],
            code: 0,
            sigints: 0,
            requested: false,
            begun: false,
            exits: 0,
            restarts,
        }
    }

    /// All of the state in one number, so that a million states fit into memory. The cause is left out: it decides
    /// nothing once it is set.
    fn key(&self) -> Key {
        let code = |code: u8| [0, 1, 69, 70, 75, 130].iter().position(|&known| known == code).expect("a known code");
        let mut key: Key = 0;
        let mut push = |value: usize, below: usize| {
            assert!(value < below);
            key = key * below as Key + value as Key;
        };
        for (real, member) in self.actors.iter().zip(&self.machine.members) {
            push(real.being as usize, 5);
            push(real.told as usize, 9);
            push(real.ended.into(), 2);
            push(member.life as usize, 8);
            push(member.owes.into(), 2);
        }
        push(self.machine.phase as usize, 11);
        push(code(self.machine.code), 6);
        push(code(self.code), 6);
        push(self.machine.sigints.into(), 4);
        push(self.sigints.into(), 4);
        push(self.machine.ended.into(), 2);
        push(self.requested.into(), 2);
        push(self.begun.into(), 2);
        push(self.exits.into(), 2);
        key
    }

    /// Everything that can happen next.
    fn offers(&self) -> Vec<Event> {
        let mut all = Vec::new();
        if self.exits > 0 {
            return all;
        }
        if !self.begun {
            all.push(Event::Begin);
        }
        all.extend([Cause::Sigterm, Cause::Sigint, Cause::Escalated(70)].map(Event::Request));
        let timed = |phase| (Phase::NotReady..=Phase::Releasing).contains(&phase);
        if timed(self.machine.phase()) {
            all.push(Event::PhaseTimeout(self.machine.phase()));
        }
        for (at, real) in (0u16..).zip(&self.actors) {
            let actor = Actor(at);
            let takes = self.kind(actor).takes();
            match real.being {
                Being::Unborn | Being::Finished => continue,
                Being::Opening => all.extend([Event::Ready(actor), Event::StartFailed { actor, exit: 69 }]),
                Being::Dead => {
                    all.extend([Event::RestartDue(actor), Event::GivenUp(actor)]);
                    continue;
                }
                Being::Alive if takes && !real.ended && !self.requested => all.push(Event::SourceEnded(actor)),
                Being::Alive => {}
            }
            all.push(Event::Died(actor));
            match real.told {
                Told::Nothing | Told::IntakeStopped | Told::Closed => {}
                Told::StopIntake => all.push(Event::IntakeStopped(actor)),
                Told::Drain | Told::Cancel => all.push(Event::Idle(actor)),
                Told::Idle => all.push(Event::Busy(actor)),
                Told::Close => all.extend([true, false].map(|clean| Event::Closed { actor, clean })),
                Told::Stop => all.extend([Event::Stopped(actor), Event::ActorTimeout(actor)]),
            }
        }
        all
    }

    /// Lets it happen, steps the machine, checks what it commands.
    fn happen(&mut self, event: Event, step: Step) -> Result<(), String> {
        self.happen_alone(event, step)?;
        match event {
            Event::Died(actor) if !self.restarts && self.real(actor).being == Being::Dead => {
                self.happen_alone(Event::GivenUp(actor), step)
            }
            _ => Ok(()),
        }
    }

    fn happen_alone(&mut self, event: Event, step: Step) -> Result<(), String> {
        let before = self.machine.clone();
        self.note(event, &before);
        let commands = step(&mut self.machine, event);
        if before.is_stopping() && event == Event::Request(Cause::Sigterm) {
            ensure(commands.is_empty() && before == self.machine, "a second SIGTERM changes nothing")?;
        }
        let mut phase = before.phase();
        for &command in &commands {
            self.obey(command, event, &mut phase)?;
        }
        ensure(phase == self.machine.phase() || self.exits == 1, "each phase is entered by a command")?;
        if let Event::PhaseTimeout(_) = event {
            ensure(self.machine.phase() > before.phase(), "timers alone lead to the end, one phase a timer")?;
        }
        ensure(self.sigints < 2 || phase >= Phase::Returning, "a second SIGINT goes straight to returning")?;
        ensure(self.sigints < 3 || self.exits == 1, "a third SIGINT exits")?;
        if self.exits == 0 {
            self.check_waiting()?;
        }
        Ok(())
    }

    /// What the event means, by the rules rather than by the machine.
    fn note(&mut self, event: Event, before: &Machine) {
        match event {
            Event::Begin => self.begun = true,
            Event::Request(cause) => {
                self.requested = true;
                self.sigints += u8::from(cause == Cause::Sigint);
                let code = if self.sigints == 2 { 130 } else { cause.exit_code() };
                self.asks(code);
            }
            Event::PhaseTimeout(Phase::Draining | Phase::Returning | Phase::Stopping | Phase::Releasing) => {
                self.asks(75)
            }
            Event::PhaseTimeout(_) => {}
            Event::Ready(actor) => self.real(actor).being = Being::Alive,
            Event::StartFailed { actor, .. } | Event::Died(actor) => {
                let first = before.phase() == Phase::Starting && before.awaited().any(|awaited| awaited == actor);
                let real = self.actors[usize::from(actor.0)];
                if first {
                    self.requested = true;
                    self.asks(if let Event::StartFailed { exit, .. } = event { exit } else { 1 });
                } else if self.requested && real.being == Being::Alive && real.told != Told::Stop {
                    self.asks(70);
                }
                let being = if self.requested { Being::Finished } else { Being::Dead };
                *self.real(actor) = Real { being, told: Told::Nothing, ended: false };
            }
            Event::RestartDue(_) => {}
            Event::GivenUp(actor) => self.real(actor).being = Being::Finished,
            Event::SourceEnded(actor) => self.real(actor).ended = true,
            Event::IntakeStopped(actor) => self.real(actor).told = Told::IntakeStopped,
            Event::Idle(actor) => self.real(actor).told = Told::Idle,
            Event::Busy(actor) => self.real(actor).told = Told::Drain,
            Event::Closed { actor, clean } => {
                self.real(actor).told = Told::Closed;
                if !clean {
                    self.asks(75);
                }
            }
            Event::Stopped(actor) => self.real(actor).being = Being::Finished,
            Event::ActorTimeout(actor) => {
                let resource = self.kind(actor) == Kind::Resource;
                if !resource && before.phase() == Phase::Stopping {
                    self.asks(75);
                }
            }
        }
    }

    fn asks(&mut self, code: u8) {
        if self.code == 0 {
            self.code = code;
        }
    }

    fn obey(&mut self, command: Command, event: Event, phase: &mut Phase) -> Result<(), String> {
        ensure(self.exits == 0, "nothing is commanded after the exit")?;
        let forced = matches!(event, Event::PhaseTimeout(_)) || self.sigints >= 2;
        let workers = |world: &Self| world.alive_workers();
        match command {
            Command::Enter(next) => {
                ensure(next > *phase, "phases only go on")?;
                ensure(
                    next <= Phase::NotReady || *phase >= Phase::NotReady,
                    "it is not ready before any intake stops",
                )?;
                let reals = workers(self);
                match next {
                    Phase::Draining => ensure(
                        forced || reals.iter().all(|real| real.told == Told::IntakeStopped),
                        "nothing is drained before every intake has stopped",
                    )?,
                    Phase::Returning => ensure(
                        forced || reals.iter().all(|real| real.told == Told::Idle),
                        "draining ends when all are idle at the same time",
                    )?,
                    Phase::Stopping => ensure(
                        forced || reals.iter().all(|real| real.told == Told::Closed),
                        "nobody is stopped before every source is closed",
                    )?,
                    Phase::Running => ensure(
                        self.actors.iter().all(|real| !matches!(real.being, Being::Unborn)),
                        "it runs when all have been started",
                    )?,
                    Phase::NotReady => self.requested = true,
                    _ => {}
                }
                *phase = next;
            }
            Command::Start(actor) => {
                ensure(!self.requested, "nothing starts after a request")?;
                let real = *self.real(actor);
                ensure(matches!(real.being, Being::Unborn | Being::Dead), "only what is not there is started")?;
                if real.being == Being::Unborn {
                    let earlier = &self.actors[..usize::from(actor.0)];
                    ensure(
                        earlier.iter().all(|real| real.being != Being::Unborn),
                        "they start in order: resources, services, producers, bridges, consumers",
                    )?;
                }
                *self.real(actor) = Real { being: Being::Opening, told: Told::Nothing, ended: false };
            }
            Command::StopIntake(actor) => self.tell(actor, Told::StopIntake, &[Told::Nothing], *phase)?,
            Command::Drain(actor) => {
                self.tell(actor, Told::Drain, &[Told::StopIntake, Told::IntakeStopped], *phase)?;
            }
            Command::Cancel(actor) => self.tell(actor, Told::Cancel, &[Told::Drain, Told::Idle], *phase)?,
            Command::Close(actor) => {
                let open =
                    [Told::Nothing, Told::StopIntake, Told::IntakeStopped, Told::Drain, Told::Cancel, Told::Idle];
                self.tell(actor, Told::Close, &open, *phase)?;
            }
            Command::Stop(actor) | Command::Release(actor) => {
                let kind = self.kind(actor);
                let real = *self.real(actor);
                ensure(matches!(real.being, Being::Opening | Being::Alive), "only what is there is stopped")?;
                ensure(real.told != Told::Stop, "each is stopped once")?;
                ensure((kind == Kind::Resource) == matches!(command, Command::Release(_)), "resources are released")?;
                if *phase < Phase::Stopping {
                    ensure(kind.takes() && real.being == Being::Opening, "only a worker's start is undone early")?;
                } else {
                    ensure(self.requested && *phase >= Phase::Stopping, "nobody stops before its phase")?;
                    let later = &self.actors[usize::from(actor.0) + 1..];
                    ensure(
                        later.iter().all(|real| !matches!(real.being, Being::Opening | Being::Alive))
                            || kind.takes() && later.iter().all(|real| real.is_gone_or_told()),
                        "they stop in reverse start order, producers after every consumer and bridge",
                    )?;
                }
                self.real(actor).told = Told::Stop;
            }
            Command::Abandon(actor) => {
                let timed_out = event == Event::ActorTimeout(actor);
                ensure(forced || timed_out, "nobody is abandoned before its time")?;
                self.real(actor).being = Being::Finished;
            }
            Command::Hurry => ensure(self.sigints == 2, "only a second SIGINT hurries")?,
            Command::Exit(code) => {
                ensure(
                    self.actors.iter().all(|real| !matches!(real.being, Being::Opening | Being::Alive)),
                    "it exits when all are gone",
                )?;
                ensure(code == self.code, "the exit code is right")?;
                self.exits += 1;
            }
            Command::ExitNow(code) => {
                ensure(self.sigints == 3, "only a third SIGINT exits at once")?;
                ensure(code == self.code && code != 0, "the exit code is right")?;
                self.exits += 1;
            }
        }
        Ok(())
    }

    fn tell(&mut self, actor: Actor, what: Told, after: &[Told], phase: Phase) -> Result<(), String> {
        ensure(self.requested && phase > Phase::NotReady, "it is not ready before any intake stops")?;
        ensure(self.kind(actor).takes(), "only workers are drained")?;
        let real = self.real(actor);
        ensure(real.being == Being::Alive, "only the living are told")?;
        ensure(after.contains(&real.told), "each is told once, in order")?;
        real.told = what;
        Ok(())
    }

    /// It never waits for nobody, and stopped nothing half.
    fn check_waiting(&self) -> Result<(), String> {
        let awaited: Vec<_> = self.machine.awaited().collect();
        match self.machine.phase() {
            Phase::Built => ensure(!self.begun, "it begins")?,
            Phase::Running => {
                let mut workers = (0..).zip(&self.actors).filter(|&(at, _)| self.kind(Actor(at)).takes());
                let over = |real: &Real| real.ended || real.being == Being::Finished;
                let all = workers.clone().all(|(_, real)| over(real)) && workers.any(|(_, real)| real.ended);
                ensure(!all, "it stops when every source has ended")?;
            }
            Phase::NotReady => ensure(self.machine.delay, "it lingers only where there is a delay")?,
            _ => {
                let owed = |actor: &Actor| {
                    let real = self.actors[usize::from(actor.0)];
                    real.being == Being::Opening || real.being == Being::Alive && real.told.is_owed()
                };
                ensure(awaited.iter().any(owed), "it waits for somebody who will answer")?;
            }
        }
        ensure(self.requested == self.machine.is_stopping(), "a request is never overheard")
    }

    fn alive_workers(&self) -> Vec<Real> {
        let all = (0..).zip(&self.actors);
        all.filter(|&(at, real)| self.kind(Actor(at)).takes() && real.being == Being::Alive && real.told != Told::Stop)
            .map(|(_, real)| *real)
            .collect()
    }

    fn kind(&self, actor: Actor) -> Kind {
        self.kinds[usize::from(actor.0)]
    }

    fn real(&mut self, actor: Actor) -> &mut Real {
        &mut self.actors[usize::from(actor.0)]
    }
}

impl Real {
    fn is_gone_or_told(&self) -> bool {
        !matches!(self.being, Being::Opening | Being::Alive) || self.told == Told::Stop
    }
}

fn ensure(holds: bool, claim: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(claim.to_owned()) }
}

fn search(kinds: &[Kind], delay: bool, restarts: bool, step: Step) -> Result<Found, String> {
    assert!(kinds.is_sorted(), "the world numbers actors in start order");
    let start = World::new(kinds, delay, restarts);
    let mut seen: HashMap<Key, (Key, Event), foldhash::fast::FixedState> = HashMap::default();
    seen.insert(start.key(), (0, Event::Begin));
    let mut frontier = vec![start];
    let mut found = Found { states: 1, transitions: 0, exits: [false; 256] };
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for world in frontier {
            let from = world.key();
            for event in world.offers() {
                let mut then = world.clone();
                found.transitions += 1;
                if let Err(claim) = then.happen(event, step) {
                    return Err(format!("{claim}\n  after {}\n  in {:?}", trace(&seen, from, event), world));
                }
                if then.exits > 0 {
                    found.exits[usize::from(then.code)] = true;
                }
                seen.entry(then.key()).or_insert_with(|| {
                    next.push(then);
                    found.states += 1;
                    (from, event)
                });
            }
        }
        frontier = next;
    }
    Ok(found)
}

fn trace(seen: &HashMap<Key, (Key, Event), foldhash::fast::FixedState>, mut at: Key, last: Event) -> String {
    let mut events = vec![last];
    while let Some(&(before, event)) = seen.get(&at) {
        if before == 0 {
            break;
        }
        events.push(event);
        at = before;
    }
    events.reverse();
    format!("{events:?}")
}

use Kind::{Bridge, Consumer, Producer, Resource, Service};

#[test]
fn every_interleaving_of_a_stop_keeps_its_promises() {
    let full = [Resource, Resource, Producer, Producer, Bridge, Consumer, Consumer];
    // The dead come back in the smaller ones: each actor that may makes four times as many states.
    let searches: [(&[Kind], bool, bool); 9] = [
        (&full, false, false),
        (&full, true, false),
        (&[], false, true),
        (&[Resource, Service, Producer], true, true),
        (&[Bridge], true, true),
        (&[Resource, Producer, Consumer], true, true),
        (&[Resource, Resource, Consumer], true, true),
        (&[Bridge, Consumer, Consumer], false, true),
        (&[Resource, Producer, Bridge, Consumer], false, true),
    ];
    let (mut states, mut transitions) = (0, 0);
    for (kinds, delay, restarts) in searches {
        let found = search(kinds, delay, restarts, Machine::step).unwrap_or_else(|broken| panic!("{broken}"));
        println!("{} states, {} transitions: {kinds:?}", found.states, found.transitions);
        states += found.states;
        transitions += found.transitions;
        if kinds == full {
            let exits: Vec<_> = (0..256).filter(|&code| found.exits[code]).collect();
            assert_eq!(exits, [0, 1, 69, 70, 75, 130], "every exit can happen");
        }
    }
    println!("{states} states, {transitions} transitions in all");
}

/// Machines with one mistake each, as somebody might make it; the search must find every one.
const BUGS: [(&str, Step); 16] = [
    ("producers stop before those who send through them", |machine, event| {
        // What is last in the list stops first.
        if let Event::Request(_) = event {
            machine.members.sort_by_key(|member| (member.kind != Resource, member.kind == Producer));
        }
        machine.step(event)
    }),
    ("who was idle once counts as idle for ever", |machine, event| match event {
        Event::Busy(_) => Vec::new(),
        _ => machine.step(event),
    }),
    ("a death while draining is not noticed", |machine, event| match event {
        Event::Died(_) if machine.phase == Phase::Draining => Vec::new(),
        _ => machine.step(event),
    }),
    ("a death while stopping is not noticed", |machine, event| match event {
        Event::Died(_) if machine.phase == Phase::Stopping => Vec::new(),
        _ => machine.step(event),
    }),
    ("the dead are started although the process stops", |machine, event| match event {
        Event::RestartDue(actor) if machine.is_stopping() => vec![Command::Start(actor)],
        _ => machine.step(event),
    }),
    ("a second SIGTERM cuts the drain short", |machine, event| match event {
        Event::Request(Cause::Sigterm) if machine.phase == Phase::Draining => {
            machine.step(Event::PhaseTimeout(Phase::Draining))
        }
        _ => machine.step(event),
    }),
    ("stopping has no deadline", |machine, event| match event {
        Event::PhaseTimeout(Phase::Stopping) => Vec::new(),
        _ => machine.step(event),
    }),
    ("the last cause sets the exit code", |machine, event| {
        if let Event::Request(cause) = event {
            machine.code = cause.exit_code();
        }
        machine.step(event)
    }),
    ("resources are released without waiting for one another", |machine, event| {
        let mut commands = machine.step(event);
        while let Some(&Command::Release(actor)) = commands.last() {
            commands.extend(machine.step(Event::Stopped(actor)));
        }
        commands
    }),
    ("it stays ready", |machine, event| {
        let mut commands = machine.step(event);
        commands.retain(|&command| command != Command::Enter(Phase::NotReady));
        commands
    }),
    ("it exits twice", |machine, event| {
        let mut commands = machine.step(event);
        commands.extend(commands.last().copied().filter(|last| matches!(last, Command::Exit(_))));
        commands
    }),
    ("a third SIGINT is overheard", |machine, event| match event {
        Event::Request(Cause::Sigint) if machine.sigints == 2 => Vec::new(),
        _ => machine.step(event),
    }),
    ("who starts when the stop comes is forgotten", |machine, event| {
        if let Event::Request(_) = event {
            for member in machine.members.iter_mut().filter(|member| member.life == Life::Starting) {
                member.life = Life::Gone;
            }
        }
        machine.step(event)
    }),
    ("an unclean close looks clean", |machine, event| match event {
        Event::Closed { actor, .. } => machine.step(Event::Closed { actor, clean: true }),
        _ => machine.step(event),
    }),
    ("it stops instead of draining", |machine, event| {
        let mut commands = machine.step(event);
        if machine.phase == Phase::Draining {
            commands.extend(machine.step(Event::PhaseTimeout(Phase::Draining)));
        }
        commands
    }),
    ("ended sources are waited for", |machine, event| match event {
        Event::SourceEnded(_) => Vec::new(),
        _ => machine.step(event),
    }),
];

#[test]
fn the_search_finds_every_planted_bug() {
    for (name, step) in BUGS {
        let found = search(&[Resource, Resource, Producer, Consumer, Consumer], false, false, step)
            .and_then(|_| search(&[Producer, Consumer], true, true, step));
        let Err(claim) = found else { panic!("not found: {name}") };
        println!("{name}: {}", claim.lines().next().expect("a claim"));
    }
}

/// Steps a machine whose actors all become ready, then these events; says how it ends.
fn end_of(kinds: &[Kind], events: &[Event]) -> (u8, Option<Cause>) {
    let mut machine = Machine::new(kinds, false);
    let mut queue: std::collections::VecDeque<_> = machine.step(Event::Begin).into();
    let mut events = events.iter();
    loop {
        let command = queue.pop_front();
        let answer = match command {
            Some(Command::Start(actor)) => Event::Ready(actor),
            Some(Command::StopIntake(actor)) => Event::IntakeStopped(actor),
            Some(Command::Close(actor)) => Event::Closed { actor, clean: true },
            Some(Command::Stop(actor) | Command::Release(actor)) => Event::Stopped(actor),
            Some(Command::Exit(code) | Command::ExitNow(code)) => return (code, machine.cause()),
            Some(_) => continue,
            None => *events.next().expect("the events lead to the exit"),
        };
        queue.extend(machine.step(answer));
    }
}

const ACTOR: [Actor; 2] = [Actor(0), Actor(1)];

#[test]
fn handlers_that_finish_in_time_mean_exit_0() {
    let events = [Event::Request(Cause::Sigterm), Event::Request(Cause::Sigterm), Event::Idle(ACTOR[1])];
    assert_eq!(end_of(&[Resource, Consumer], &events), (0, Some(Cause::Sigterm)));
}

#[test]
fn a_handler_that_outlives_the_drain_means_exit_75() {
    let events =
        [Event::Request(Cause::Sigint), Event::PhaseTimeout(Phase::Draining), Event::PhaseTimeout(Phase::Cancelling)];
    assert_eq!(end_of(&[Resource, Consumer], &events), (75, Some(Cause::Sigint)));
}

#[test]
fn a_second_sigint_means_130_even_after_a_sigterm() {
    let [term, int] = [Cause::Sigterm, Cause::Sigint].map(Event::Request);
    assert_eq!(end_of(&[Consumer], &[term, int, int]), (130, Some(Cause::Sigterm)));
}

#[test]
fn all_finite_sources_ended_means_exit_0() {
    let events =
        [Event::SourceEnded(ACTOR[0]), Event::SourceEnded(ACTOR[1]), Event::Idle(ACTOR[0]), Event::Idle(ACTOR[1])];
    assert_eq!(end_of(&[Bridge, Consumer], &events), (0, Some(Cause::SourcesEnded)));
}

#[test]
fn a_failed_start_is_undone_in_reverse() {
    let mut machine = Machine::new(&[Resource, Producer, Consumer], true);
    machine.step(Event::Begin);
    machine.step(Event::Ready(Actor(0)));
    assert_eq!(machine.step(Event::Ready(Actor(1))), [Command::Start(Actor(2))]);
    let undone = machine.step(Event::StartFailed { actor: Actor(2), exit: 77 });
    assert_eq!(undone.last(), Some(&Command::Stop(Actor(1))), "{undone:?}");
    let undone = machine.step(Event::Stopped(Actor(1)));
    assert_eq!(undone.last(), Some(&Command::Release(Actor(0))), "{undone:?}");
    assert_eq!(machine.step(Event::Stopped(Actor(0))), [Command::Exit(77)]);
}
