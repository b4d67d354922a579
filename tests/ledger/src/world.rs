//! The world of a run: its processes, its folder, and how far it has come.

use crate::broker::Broker;
use crate::child::Role;
use crate::clock::now_ms;
use crate::exits::Exit;
use crate::faults::Healed;
use crate::progress::Progress;
use crate::seen::{DEADLINE_SLACK, Seen};
use crate::setup::{Carrier, DEADLINE, Setup};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much longer a process that does not end is waited for, so that its lateness has a figure.
const EXIT_PATIENCE: Duration = Duration::from_secs(30);
/// Nothing new for so long, and the run has stalled.
const STALLED: Duration = Duration::from_secs(120);
/// How often the collector's file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// The pause before a fault strikes, at most: not every message that reaches a point is to be the last one handled.
const JITTER: Duration = Duration::from_millis(40);
/// How long a classic queue may keep an ack in memory alone: on a busy machine 3.2 s were seen.
const UNWRITTEN: Duration = Duration::from_secs(5);
/// The name of the app, and so of its group where a source has groups.
pub const GROUP: &str = "ledger";

/// Why a run cannot go on.
#[derive(Debug)]
pub struct Trouble(pub String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A run at work.
pub struct World {
    pub setup: Setup,
    pub seen: Seen,
    pub random: fastrand::Rng,
    broker: Option<Broker>,
    socket: PathBuf,
    collector: Role,
    producer: Option<Role>,
    producers: u16,
    worker: Option<Role>,
    bridge: Option<Role>,
    boots: u32,
    progress: Progress,
    interrupted: Arc<AtomicBool>,
}

impl World {
    /// Starts the collector.
    pub fn new(setup: Setup, broker: Option<Broker>, interrupted: Arc<AtomicBool>) -> Result<Self, Trouble> {
        // Not in the folder: a socket's path has no room for a long one.
        let socket = std::env::temp_dir().join(format!("longshore-ledger-{:08x}.sock", setup.run));
        let effects = Self::effects_file(&setup.folder);
        let arguments = setup.collector(&socket, &effects);
        let collector = Role::start_and_hear(&setup.folder, "collector", &arguments)?;
        Ok(Self {
            random: fastrand::Rng::with_seed(setup.seed),
            seen: Seen::default(),
            broker,
            socket,
            collector,
            producer: None,
            producers: 0,
            worker: None,
            bridge: None,
            boots: 0,
            progress: Progress::of(&effects),
            interrupted,
            setup,
        })
    }

    /// The broker.
    pub fn broker(&self) -> Result<&Broker, Trouble> {
        self.broker.as_ref().ok_or_else(|| Trouble("this scenario needs a broker".to_owned()))
    }

    /// The broker, once everybody is done with it.
    pub fn into_broker(mut self) -> Option<Broker> {
        self.broker.take()
    }

    /// Kills the broker as a power cut would.
    pub fn kill_broker(&mut self) -> Result<(), Trouble> {
        let since = now_ms().saturating_sub(UNWRITTEN.as_millis() as u64);
        self.broker()?.kill()?;
        self.look()?;
        self.seen.unwritten += (self.done() - self.progress.before(since)) as u32;
        Ok(())
    }

    /// Whether there is one.
    pub fn has_broker(&self) -> bool {
        self.broker.is_some()
    }

    /// Messages that one fault may make come twice, at most.
    pub fn window(&self) -> u32 {
        self.setup.window
    }

    /// A random time.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.random.f64())
    }

    /// The collector's file.
    pub fn effects_file(folder: &Path) -> PathBuf {
        folder.join("effects")
    }

    /// The log of a producer.
    pub fn intents_file(folder: &Path, producer: u16) -> PathBuf {
        folder.join(format!("intents-{producer}"))
    }

    /// Messages that have been done so far.
    pub fn done(&self) -> usize {
        self.progress.done()
    }

    /// Starts a producer of so many messages.
    pub fn produce(&mut self, messages: u32, rate: Option<f64>) -> Result<(), Trouble> {
        let folder = &self.setup.folder;
        let log = Self::intents_file(folder, self.producers);
        let arguments = self.setup.producer(self.producers, &log, messages, rate);
        self.producer = Some(Role::start(folder, &format!("produce-{}", self.producers), &arguments)?);
        self.producers += 1;
        Ok(())
    }

    /// Waits until the producer has a word on every message.
    pub fn produced(&mut self) -> Result<(), Trouble> {
        let mut producer = self.producer.take().expect("a producer was started");
        let mut since = (Instant::now(), self.done());
        while !producer.has_ended()? {
            self.look()?;
            if self.done() > since.1 {
                since = (Instant::now(), self.done());
            } else if since.0.elapsed() > STALLED {
                return Err(Trouble(format!("the producer does not end, and nothing new was done for {STALLED:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let Ok(ended) = producer.wait(Duration::ZERO)? else { unreachable!("it has ended") };
        if ended.code != Some(0) {
            self.seen.broke(format!("the producer ended with {:?}", ended.code));
        }
        Ok(())
    }

    /// Starts the worker or the bridge.
    pub fn begin(&mut self, carrier: Carrier) -> Result<(), Trouble> {
        self.start(carrier, false)
    }

    fn start(&mut self, carrier: Carrier, drains: bool) -> Result<(), Trouble> {
        self.boots += 1;
        let arguments = self.setup.carrier(carrier, self.boots, &self.socket, drains);
        let name = match carrier {
            Carrier::Worker => format!("worker-{}", self.boots),
            Carrier::Bridge => format!("bridge-{}", self.boots),
        };
        let role = Role::start(&self.setup.folder, &name, &arguments)?;
        *self.place(carrier) = Some(role);
        Ok(())
    }

    fn place(&mut self, carrier: Carrier) -> &mut Option<Role> {
        match carrier {
            Carrier::Worker => &mut self.worker,
            Carrier::Bridge => &mut self.bridge,
        }
    }

    fn take(&mut self, carrier: Carrier) -> Role {
        self.place(carrier).take().expect("who is stopped was started")
    }

    /// Kills it.
    pub fn kill(&mut self, carrier: Carrier) -> Result<(), Trouble> {
        let role = self.take(carrier);
        role.send(rustix::process::Signal::KILL);
        role.wait(EXIT_PATIENCE)?.map_err(|_| Trouble("a killed process does not end".to_owned()))?;
        Ok(())
    }

    /// Asks it to stop, and looks at how it ends.
    pub fn terminate(&mut self, carrier: Carrier, exit: Exit) -> Result<(), Trouble> {
        let mut role = self.take(carrier);
        role.wait_until_it_obeys()?;
        let began = Instant::now();
        role.send(Carrier::STOP);
        let ended = role.wait(DEADLINE + DEADLINE_SLACK + EXIT_PATIENCE)?;
        self.seen.exit_took(&format!("{carrier:?} {}", self.boots), began.elapsed());
        match ended {
            Ok(ended) => self.seen.judge(&ended, exit),
            // Dropped, and so killed.
            Err(_) => self.seen.broke(format!("{carrier:?} {} does not end", self.boots)),
        }
        Ok(())
    }

    /// Reads what has been done since the last look.
    fn look(&mut self) -> Result<(), Trouble> {
        self.progress.look()?;
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Trouble("interrupted".to_owned()));
        }
        if self.collector.has_ended()? {
            return Err(Trouble("the collector has ended".to_owned()));
        }
        for carrier in [Carrier::Worker, Carrier::Bridge] {
            if let Some(role) = self.place(carrier)
                && role.has_ended()?
            {
                return Err(Trouble(format!("{carrier:?} {} has ended by itself", self.boots)));
            }
        }
        Ok(())
    }

    /// Waits until so many messages have been done; fails when nothing new is done for long.
    pub fn wait_for(&mut self, done: usize) -> Result<(), Trouble> {
        let mut since = (Instant::now(), self.done());
        loop {
            self.look()?;
            if self.done() >= done {
                return Ok(());
            }
            if self.done() > since.1 {
                since = (Instant::now(), self.done());
            } else if since.0.elapsed() > STALLED {
                return Err(Trouble(format!("{} of {done} done, and nothing new for {STALLED:?}", self.done())));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until the queues, which were there when the first message was done, are so old.
    pub fn wait_for_age(&mut self, age: Duration) -> Result<(), Trouble> {
        self.wait_for(1)?;
        let is = Duration::from_millis(now_ms().saturating_sub(self.progress.at_ms(1)));
        std::thread::sleep(age.saturating_sub(is));
        Ok(())
    }

    /// A pause of random length.
    pub fn pause(&mut self) {
        std::thread::sleep(self.random_pause());
    }

    fn random_pause(&mut self) -> Duration {
        self.up_to(JITTER)
    }

    /// Waits until messages flow again, and notes how long that took. So many are known to be still to come.
    pub fn resumed(&mut self, healed: Healed, to_come: u32) -> Result<(), Trouble> {
        self.look()?;
        let before = self.progress.before(healed.at_ms);
        let shown_by = healed.shown_by.min(to_come.saturating_sub(before as u32)) as usize;
        if shown_by == 0 {
            return Ok(());
        }
        self.wait_for(before + shown_by)?;
        self.seen.resume_took(self.progress.at_ms(before + shown_by).saturating_sub(healed.at_ms));
        Ok(())
    }

    /// Works off what is left, with processes that are well, until nothing comes any more.
    pub fn drain(&mut self) -> Result<(), Trouble> {
        for carrier in [Carrier::Bridge, Carrier::Worker] {
            if carrier == Carrier::Bridge && self.setup.bridge.is_none() {
                continue;
            }
            self.start(carrier, true)?;
            let mut role = self.take(carrier);
            let mut since = (Instant::now(), self.done());
            while !role.has_ended()? {
                self.look()?;
                if self.done() > since.1 {
                    since = (Instant::now(), self.done());
                } else if since.0.elapsed() > STALLED {
                    return Err(Trouble(format!("{carrier:?} that drains does not end")));
                }
                std::thread::sleep(LOOK_EVERY);
            }
            let Ok(ended) = role.wait(Duration::ZERO)? else { unreachable!("it has ended") };
            self.seen.judge(&ended, Exit::Drained);
        }
        self.look()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}
