//! The life of a run: set up, ill-treated, worked off, verified.

use crate::broker::Broker;
use crate::clock::now_ms;
use crate::faults::{Fault, Healed};
use crate::ids::Id;
use crate::plant::Plant;
use crate::queue::{self, Counts};
use crate::report::Outcome;
use crate::scenario::{Scenario, Shape};
use crate::verify::Books;
use crate::world::{Carrier, Exit, Setup, Trouble, World};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Handlers at a time in the worker.
const CONCURRENCY: u32 = 64;
/// Messages that may be delivered and unsettled.
const WINDOW: u32 = 256;
/// Faults strike between these shares of the messages, so that there are some before the first and after the last.
const FIRST: f64 = 0.03;
const LAST: f64 = 0.85;
/// About how long a fault of the broker takes with what it costs, by which the producer is held back: it is to be at
/// work when the broker is ill-treated.
const FAULT_TAKES: Duration = Duration::from_secs(3);
/// How slow handlers are that fill a window, and how many run.
const SLOW: &str = "200ms..400ms";
const SLOW_CONCURRENCY: u32 = 16;
/// How long the counts of a broker may lag behind.
const COUNTS_LAG: Duration = Duration::from_secs(20);
/// How often the broker is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What a broker takes to hear of everything that was acked before it is killed.
const QUIET: Duration = Duration::from_secs(2);

/// The exit code of what cannot be run as it was asked for.
const BAD_CONFIGURATION: u8 = 78;

/// Which transport a run goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The embedded queue.
    Local,
    /// RabbitMQ.
    Amqp,
}

/// The type of RabbitMQ's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QueueType {
    /// Replicated.
    Quorum,
    /// Not replicated.
    Classic,
}

/// A run, as its command line says.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Scenarios by name; all that make sense by default.
    #[arg(long, value_parser = Scenario::named)]
    scenario: Vec<Scenario>,
    /// What messages go by.
    #[arg(long, value_enum, default_value_t = By::Amqp)]
    by: By,
    /// Types of queues; both by default.
    #[arg(long = "type", value_enum)]
    types: Vec<QueueType>,
    /// The name of the broker, instead of one that no other run has.
    #[arg(long)]
    broker: Option<String>,
    /// How many messages, instead of the scenario's number.
    #[arg(long)]
    messages: Option<u32>,
    /// How often a fault strikes, instead of the scenario's number.
    #[arg(long)]
    repeat: Option<u32>,
    /// How many keys.
    #[arg(long, default_value_t = 1_000)]
    keys: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// The seed of what is left to chance.
    #[arg(long)]
    seed: Option<u64>,
    /// A tenth of messages, repeats and outages.
    #[arg(long)]
    tenth: bool,
    /// Print each outcome as a line of JSON on stdout.
    #[arg(long)]
    json: bool,
    /// Where files lie; those of a run that held are removed.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Keep the files of a run that held, too.
    #[arg(long)]
    keep: bool,
    /// A bug in the worker, which the books must show.
    #[arg(long, hide = true)]
    plant: Option<Plant>,
}

impl Run {
    /// Runs every scenario that was asked for: exit 1 when something that is promised did not hold.
    pub fn run(self) -> ExitCode {
        if self.by == By::Amqp && !cfg!(feature = "amqp") {
            eprintln!("error: RabbitMQ is not in this build: it comes with the feature 'amqp'; or take --by local");
            return ExitCode::from(BAD_CONFIGURATION);
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // So that a broker is not left behind, frozen or full.
            if let Err(error) = signal_hook::flag::register(signal, interrupted.clone()) {
                eprintln!("error: signals cannot be taken over: {error}");
                return ExitCode::FAILURE;
            }
        }
        let all = self.scenario.is_empty();
        let named = if all { crate::scenario::ALL.to_vec() } else { self.scenario.clone() };
        let chosen = named.into_iter().filter(|scenario| !all || self.by == By::Amqp || !scenario.needs_broker());
        let types: &[QueueType] = match (self.by, self.types.is_empty()) {
            (By::Local, _) => &[QueueType::Quorum],
            (By::Amqp, true) => &[QueueType::Quorum, QueueType::Classic],
            (By::Amqp, false) => &self.types,
        };
        eprintln!("{}", Outcome::HEADER);
        let mut held = true;
        for scenario in chosen {
            for queue_type in types {
                let scenario = if self.tenth { scenario.tenth() } else { scenario };
                let outcome = self.one(scenario, *queue_type, interrupted.clone());
                eprintln!("{outcome}");
                if self.json {
                    println!("{}", outcome.json());
                }
                held &= outcome.holds();
            }
        }
        if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// One scenario by one type of queue.
    fn one(&self, mut scenario: Scenario, queue_type: QueueType, interrupted: Arc<AtomicBool>) -> Outcome {
        scenario.messages = self.messages.unwrap_or(scenario.messages);
        scenario.times = self.repeat.unwrap_or(scenario.times);
        let by = match (self.by, queue_type) {
            (By::Local, _) => "local",
            (By::Amqp, QueueType::Quorum) => "quorum",
            (By::Amqp, QueueType::Classic) => "classic",
        };
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
        let run = fastrand::u32(1..);
        let folder = self.folder.clone().unwrap_or_else(|| PathBuf::from("target/ledger"));
        let folder = folder.join(format!("{}-{by}-{run:08x}", scenario.name));
        let mut outcome = Outcome::new(&scenario, by, seed, &folder, WINDOW);
        let began = Instant::now();
        if let Err(trouble) = self.live(&scenario, by, run, &folder, interrupted, &mut outcome) {
            outcome.seen.broken.push(format!("the run could not go on: {trouble}"));
        }
        outcome.seconds = began.elapsed().as_secs_f64();
        if outcome.holds() && !self.keep {
            let _ = fs::remove_dir_all(&folder);
        }
        outcome
    }

    fn live(
        &self,
        scenario: &Scenario,
        by: &str,
        run: u32,
        folder: &Path,
        interrupted: Arc<AtomicBool>,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let broker = match self.by {
            By::Local => None,
            By::Amqp => Some(Broker::start(&self.broker.clone().unwrap_or_else(|| format!("ledger-{run:08x}")))?),
        };
        let window = WINDOW;
        let url = |queue: &str| match &broker {
            None => format!("local:{}?queue={queue}", folder.join("queue.db").display()),
            Some(broker) => broker.url(queue, &format!("&type={by}")),
        };
        // Only a source has a window.
        let taken = |queue: &str| match &broker {
            None => url(queue),
            Some(_) => format!("{}&prefetch={window}", url(queue)),
        };
        // A run has queues of its own, should the broker have been there before.
        let [first, second] = ["in", "out"].map(|queue| format!("ledger-{run:08x}-{queue}"));
        let bridged = matches!(scenario.shape, Shape::Traffic(fault) if fault.needs_bridge());
        let slow = scenario.shape == Shape::FullWindow;
        let queues = if bridged { vec![taken(&first), taken(&second)] } else { vec![taken(&first)] };
        let setup = Setup {
            sink: url(&first),
            bridge: bridged.then(|| (taken(&first), url(&second))),
            source: if bridged { taken(&second) } else { taken(&first) },
            folder: folder.clone(),
            run,
            keys: self.keys,
            bytes: self.bytes,
            concurrency: if slow { SLOW_CONCURRENCY } else { CONCURRENCY },
            window,
            handler: if slow { SLOW } else { "0ms..2ms" }.to_owned(),
            plant: self.plant,
            seed: outcome.seed,
        };
        let mut world = World::new(setup, broker, interrupted)?;
        let lived = match scenario.shape {
            Shape::Traffic(fault) => traffic(&mut world, scenario, fault),
            Shape::QueueDeleted => queue_deleted(&mut world, scenario, &first),
            Shape::FullWindow => full_window(&mut world, scenario),
        };
        let lived = lived.and_then(|()| world.drain());
        // Also where it could not go on: the books say how far it came.
        outcome.seen = std::mem::take(&mut world.seen);
        let verified = verify(&world, &queues, outcome);
        lived.and(verified)
    }
}

/// Messages flow, and at random points of their progress the fault strikes.
fn traffic(world: &mut World, scenario: &Scenario, fault: Fault) -> Result<(), Trouble> {
    let messages = scenario.messages;
    let seconds = FAULT_TAKES.as_secs_f64() * f64::from(scenario.times.max(1)) + scenario.outage.as_secs_f64();
    world.produce(messages, fault.is_of_broker().then(|| f64::from(messages) / seconds))?;
    world.begin(Carrier::Worker)?;
    if fault.needs_bridge() {
        world.begin(Carrier::Bridge)?;
    }
    let share = |random: &mut fastrand::Rng| FIRST + (LAST - FIRST) * random.f64();
    let mut points: Vec<usize> =
        (0..scenario.times).map(|_| (f64::from(messages) * share(&mut world.random)) as usize).collect();
    points.sort_unstable();
    for point in points {
        world.wait_for(point)?;
        world.pause();
        world.seen.faults += 1;
        let healed = fault.strike(world, scenario.outage)?;
        // Some of the last may never be confirmed, and so never come.
        world.resumed(healed, (f64::from(messages) * LAST) as u32)?;
    }
    world.produced()?;
    if fault == Fault::StopWhileDown {
        stop_idle_while_down(world)?;
    }
    if fault.needs_bridge() {
        world.terminate(Carrier::Bridge, Exit::Drained)?;
    }
    world.terminate(Carrier::Worker, Exit::Drained)
}

/// Nothing was unsettled when the connection was lost: the worker ends with 0 though the broker is down.
fn stop_idle_while_down(world: &mut World) -> Result<(), Trouble> {
    let mut done = 0;
    while world.done() > done {
        done = world.done();
        sleep(QUIET);
        world.wait_for(done)?;
    }
    world.broker()?.kill()?;
    world.pause();
    world.terminate(Carrier::Worker, Exit::Drained)?;
    world.broker()?.restart()?;
    world.begin(Carrier::Worker)
}

/// The empty queue is deleted; the worker declares it anew, and messages flow.
fn queue_deleted(world: &mut World, scenario: &Scenario, queue: &str) -> Result<(), Trouble> {
    world.begin(Carrier::Worker)?;
    let each = scenario.messages / (scenario.times + 1);
    for round in 0..=scenario.times {
        world.produce(each, None)?;
        world.produced()?;
        world.wait_for((each * (round + 1)) as usize)?;
        if round == scenario.times {
            break;
        }
        wait_for_queue(world, queue, |_, unsettled| unsettled == 0, ["messages", "messages"])?;
        world.seen.faults += 1;
        world.broker()?.ctl(&["-q", "delete_queue", queue])?;
        let at_ms = now_ms();
        // Nobody publishes now: who declares it is the worker.
        wait_for_queue(world, queue, |consumers, _| consumers > 0, ["consumers", "messages"])?;
        world.resume_took(now_ms() - at_ms);
    }
    world.terminate(Carrier::Worker, Exit::Drained)
}

fn wait_for_queue(
    world: &World,
    queue: &str,
    is_so: impl Fn(u64, u64) -> bool,
    columns: [&str; 2],
) -> Result<(), Trouble> {
    let began = Instant::now();
    loop {
        let queues = world.broker()?.queues(columns)?;
        if queues.iter().any(|(name, first, second)| name == queue && is_so(*first, *second)) {
            return Ok(());
        }
        if began.elapsed() > crate::world::RESUME * 2 {
            return Err(Trouble(format!("queue '{queue}' is not as it should be: {columns:?} of {queues:?}")));
        }
        sleep(ASK_EVERY);
    }
}

/// A worker whose window is full of messages that wait for slow handlers is stopped and started.
fn full_window(world: &mut World, scenario: &Scenario) -> Result<(), Trouble> {
    world.produce(scenario.messages, None)?;
    world.produced()?;
    for _ in 0..scenario.times {
        world.begin(Carrier::Worker)?;
        // The first of a window are done: the rest of it has arrived.
        let healed = Healed { at_ms: now_ms(), shown_by: SLOW_CONCURRENCY };
        world.resumed(healed, scenario.messages)?;
        world.pause();
        world.seen.faults += 1;
        world.terminate(Carrier::Worker, Exit::Drained)?;
    }
    Ok(())
}

/// Looks into the queues, and compares everything.
fn verify(world: &World, queues: &[String], outcome: &mut Outcome) -> Result<(), Trouble> {
    let folder = &world.setup.folder;
    let of_queue = |error: longshore::Error| Trouble(error.to_string());
    let counts = if world.has_broker() { counts_of_broker(world)? } else { counts_of_transport(queues)? };
    let (mut dead, mut left) = (String::new(), String::new());
    let lines = |ids: Vec<Id>| ids.iter().map(|id| format!("{id}\n")).collect::<String>();
    for queue in queues {
        if counts.dead > 0 {
            dead += &lines(queue::dead(queue).map_err(of_queue)?);
        }
        if counts.unsettled > 0 {
            left += &lines(queue::left(queue).map_err(of_queue)?);
        }
    }
    fs::write(folder.join("dead"), dead)?;
    fs::write(folder.join("left"), left)?;
    let books = Books::read(folder)?;
    outcome.found(books.findings(), counts);
    Ok(())
}

fn counts_of_transport(queues: &[String]) -> Result<Counts, Trouble> {
    let mut sum = Counts::default();
    for queue in queues {
        let counts = queue::count(queue).map_err(|error| Trouble(error.to_string()))?;
        sum.unsettled += counts.unsettled;
        sum.dead += counts.dead;
    }
    Ok(sum)
}

/// Ready and unacked messages of this run's queues, once the broker's counts have caught up.
fn counts_of_broker(world: &World) -> Result<Counts, Trouble> {
    let began = Instant::now();
    let prefix = format!("ledger-{:08x}-", world.setup.run);
    loop {
        let mut counts = Counts::default();
        for (name, ready, unacked) in world.broker()?.queues(["messages_ready", "messages_unacknowledged"])? {
            if name.starts_with(&prefix) {
                *if name.ends_with(".dead") { &mut counts.dead } else { &mut counts.unsettled } += ready + unacked;
            }
        }
        if counts == Counts::default() || began.elapsed() > COUNTS_LAG {
            return Ok(counts);
        }
        sleep(ASK_EVERY);
    }
}
