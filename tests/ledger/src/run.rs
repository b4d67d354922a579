//! The life of a run: set up, ill-treated, worked off, verified.

use crate::audit;
use crate::broker::Broker;
use crate::plant::Plant;
use crate::report::Outcome;
use crate::scenario::{QueueType, Scenario, Shape};
use crate::setup::Setup;
use crate::shapes::{self, SLOW, SLOW_CONCURRENCY};
use crate::world::{Trouble, World};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Handlers at a time in the worker.
const CONCURRENCY: u32 = 64;
/// Messages that may be delivered and unsettled.
const WINDOW: u32 = 256;
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

/// A run, as its command line says.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Scenarios by name; all that make sense by default.
    #[arg(long, value_parser = Scenario::named)]
    scenario: Vec<Scenario>,
    /// What messages go by.
    #[arg(long, value_enum, default_value_t = By::Amqp)]
    by: By,
    /// Types of queues; both by default, and of a tenth what each scenario is worth.
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
        eprintln!("{}", Outcome::HEADER);
        let mut held = true;
        let mut broker = None;
        for scenario in chosen {
            let types: &[QueueType] = match (self.by, self.types.is_empty()) {
                (By::Local, _) => &[QueueType::Quorum],
                (By::Amqp, true) if self.tenth => scenario.types_of_tenth(),
                (By::Amqp, true) => &[QueueType::Quorum, QueueType::Classic],
                (By::Amqp, false) => &self.types,
            };
            for queue_type in types {
                if interrupted.load(Ordering::Relaxed) {
                    return ExitCode::FAILURE;
                }
                let scenario = if self.tenth { scenario.tenth() } else { scenario };
                let outcome = self.one(scenario, *queue_type, &mut broker, interrupted.clone());
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
    fn one(
        &self,
        mut scenario: Scenario,
        queue_type: QueueType,
        broker: &mut Option<Broker>,
        interrupted: Arc<AtomicBool>,
    ) -> Outcome {
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
        if let Err(trouble) = self.live(&scenario, run, &folder, broker, interrupted, &mut outcome) {
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
        run: u32,
        folder: &Path,
        kept: &mut Option<Broker>,
        interrupted: Arc<AtomicBool>,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        let by = outcome.by;
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let broker = match self.by {
            By::Local => None,
            By::Amqp if kept.is_some() => kept.take(),
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
        // A run has queues of its own: the broker may have been there before.
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
        let lived = shapes::live(&mut world, scenario, &first);
        let lived = lived.and_then(|()| world.drain());
        // Also where it could not go on: the books say how far it came.
        outcome.seen = std::mem::take(&mut world.seen);
        let verified = audit::verify(&world, &queues, outcome);
        lived.and(verified)?;
        if outcome.holds() {
            // The next run goes by it, too. One that may be frozen, full or worse ends here.
            *kept = world.into_broker();
        }
        Ok(())
    }
}
