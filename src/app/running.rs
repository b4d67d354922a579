//! An app that runs inside a runtime: started, asked to stop, awaited.

use super::builder::App;
use super::plan::Problem;
use super::settings::{From, Settings};
use crate::error::Error;
use crate::handler::{Context, Stopping};
use crate::process::board::{ActorSpec, Board};
use crate::process::guard::Deadline;
use crate::supervisor::clock::StopClock;
use crate::supervisor::counts::Counts;
use crate::supervisor::drain::{Actor as Id, Cause, Event};
use crate::supervisor::health::{Health, Readiness};
use crate::supervisor::phases::PhaseEnds;
use crate::supervisor::report::Report;
use crate::supervisor::root::{self, Child, Ending, RootArgs, RootRef};
use crate::telemetry::metrics::{AppMetrics, WorkerMetrics};
use std::fmt;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

/// An app that has been started. Dropping it asks for a stop and does not wait.
pub struct Running {
    pub(super) root: RootRef,
    pub(super) clock: Arc<StopClock>,
    pub(super) health: Health,
    pub(super) ended: Option<oneshot::Receiver<Ending>>,
    pub(super) counts: Vec<Counts>,
}

/// The exit code of an app whose root supervisor is gone.
const WITHOUT_A_ROOT: u8 = 70;

/// How an app has stopped.
#[derive(Debug)]
pub struct Stopped {
    pub(super) ending: Ending,
}

impl Stopped {
    /// The exit code that a process of it ends with: 0 when everything was drained.
    pub fn exit_code(&self) -> u8 {
        self.ending.code
    }

    /// Why its start failed, if it did.
    pub fn start_error(&self) -> Option<&str> {
        self.ending.error.as_deref()
    }

    /// The shutdown report as JSON, as it is logged: phases, actors, and the counts of each worker and in total.
    pub fn report(&self) -> serde_json::Value {
        self.ending.report.json()
    }

    /// The shutdown report as a table for a person.
    pub fn table(&self) -> String {
        self.ending.report.table()
    }

    /// The closing line of a command: `counts received=N acked=N …`.
    pub fn counts(&self) -> String {
        self.ending.report.total().to_string()
    }
}

impl Running {
    /// Waits until every actor is ready; false when the start failed or a stop came first. Cancel-safe.
    pub async fn ready(&self) -> bool {
        let mut changes = self.health.changes();
        loop {
            match self.health.readiness().status {
                "ready" => return true,
                "shutting_down" => return false,
                _ if self.ended.as_ref().is_none_or(|ended| !ended.is_empty()) => return false,
                _ => {}
            }
            if changes.changed().await.is_err() {
                return false;
            }
        }
    }

    /// How ready it is, and why not.
    pub fn readiness(&self) -> Readiness {
        self.health.readiness()
    }

    /// Messages received and settled so far, over all workers: for a progress line.
    pub fn progress(&self) -> Progress {
        Progress::of(&self.counts)
    }

    /// Asks it to stop, as SIGTERM does. Returns at once; asking again changes nothing.
    pub fn stop(&self) {
        self.root.tell(Event::Request(Cause::Embedder));
    }

    /// Waits until it has stopped. Cancel-safe.
    ///
    /// # Panics
    /// When it has stopped and that was told already.
    pub async fn wait(&mut self) -> Stopped {
        let ended = self.ended.as_mut().expect("an app that runs has an end to wait for");
        let ending = ended.await;
        self.ended = None;
        Stopped { ending: ending.unwrap_or_else(|_| self.ending_without_its_root()) }
    }

    /// The root ends by reporting. One that did not has panicked, and its actors have gone with it: a bug of this
    /// library's, at which the process ends as at a restart that was given up.
    fn ending_without_its_root(&self) -> Ending {
        let error = "the root supervisor ended without a report".to_owned();
        tracing::error!(app = self.health.app(), "{error}");
        let report = Report {
            app: self.health.app().to_owned(),
            cause: Cause::Escalated(WITHOUT_A_ROOT),
            exit_code: WITHOUT_A_ROOT,
            elapsed: self.clock.elapsed(),
            phases: Vec::new(),
            actors: Vec::new(),
            stuck: Vec::new(),
        };
        Ending { code: WITHOUT_A_ROOT, report, at_once: false, error: Some(error) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_some() {
            self.stop();
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("readiness", &self.readiness()).finish()
    }
}

/// How far the workers of an app are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages received.
    pub received: u64,
    /// Messages settled, in whatever way.
    pub settled: u64,
    /// Messages delivered and not settled, as of the last look.
    pub in_flight: u64,
}

impl Progress {
    pub(super) fn of(workers: &[Counts]) -> Self {
        let mut progress = Self::default();
        for counts in workers {
            let now = counts.snapshot();
            progress.received += now.received;
            progress.settled += now.acked + now.retried + now.dead_lettered + now.discarded;
            progress.in_flight += counts.now_in_flight();
        }
        progress
    }
}

/// What prepares and starts an app, before anything is spawned.
pub(super) struct Launch {
    pub(super) settings: Settings,
    pub(super) children: Vec<(Box<dyn crate::actor::Blueprint>, Context, crate::supervisor::restart::Policy)>,
    pub(super) root: RootRef,
    pub(super) stopping: watch::Sender<Stopping>,
    pub(super) board: Arc<Board>,
    /// Armed with the deadline of a stop, where a thread guards it.
    pub(super) guarded: Option<Deadline>,
}

impl App {
    /// Reads the settings, takes what else they ask for, and prepares every worker; everything that is wrong is in the
    /// one error.
    pub(super) fn launch_with<T>(
        mut self,
        take: impl FnOnce(&Settings, &Arc<Board>) -> Result<T, Error>,
    ) -> Result<(Launch, T), Error> {
        let mut problems: Vec<Problem> = Vec::new();
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match self.from {
            From::Code => {}
            From::CodeAndTimes => self.settings.times(&set, &mut problems),
            From::Everywhere => self.settings = self.settings.clone().overlaid(&set, &mut problems),
        }
        let settings = self.settings.clone();
        let board = Arc::new(Board::new(&settings.name));
        let taken = take(&settings, &board).map_err(|error| problems.push(Problem::text(error.to_string())));
        let name: Arc<str> = settings.name.as_str().into();
        let root = RootRef::default();
        let (stopping, stops) = watch::channel(Stopping::No);
        let asks = root.clone();
        let request: Arc<dyn Fn() + Send + Sync> = Arc::new(move || asks.tell(Event::Request(Cause::Embedder)));
        let context =
            move |worker: &Arc<str>| Context::new(name.clone(), worker.clone(), stops.clone(), request.clone());
        let prepared = self.prepare(problems, &context)?;
        let taken = taken.expect("what could not be taken is a problem, which prepare tells");
        Ok((Launch { settings, children: prepared.blueprints, root, stopping, board, guarded: None }, taken))
    }

    /// Starts the app inside a runtime: for tests, and for programs that have a runtime of their own. Signals are
    /// left alone, and no admin server listens.
    ///
    /// # Errors
    /// Everything that is wrong with the app as it was built; nothing has been opened then. A start that fails later
    /// is told by [`Running::wait`].
    pub async fn start(self, handle: &Handle) -> Result<Running, Error> {
        let (launch, ()) = self.launch_with(|_, _| Ok(()))?;
        launch.start(handle).await
    }
}

impl Launch {
    pub(super) async fn start(self, handle: &Handle) -> Result<Running, Error> {
        let health = Health::new(self.settings.name.as_str(), env!("CARGO_PKG_VERSION"));
        let clock =
            Arc::new(StopClock::new(PhaseEnds::new(self.settings.deadline, self.settings.delay), self.guarded.clone()));
        let (tell, ended) = oneshot::channel();
        self.board.register(
            self.children
                .iter()
                .map(|(blueprint, ..)| {
                    let (lanes, slots) = blueprint.lanes();
                    ActorSpec { name: blueprint.name().clone(), kind: blueprint.kind().name(), lanes, slots }
                })
                .collect(),
        );
        let mut counts = Vec::new();
        let mut children = Vec::new();
        for (index, (blueprint, context, policy)) in self.children.into_iter().enumerate() {
            let name = blueprint.name().clone();
            let kind = blueprint.kind();
            let word = health.actor(&name, kind.name());
            context.on_trouble(move |why| word.own_word(why));
            let of_worker = Counts::new(self.board.actor(index).clone());
            if kind.takes() {
                counts.push(of_worker.clone());
            }
            let line = health.actor(&name, kind.name());
            let link = crate::actor::Link::new(
                Id(index as u16),
                self.root.clone(),
                line,
                Arc::new(WorkerMetrics::new(&name)),
                of_worker,
                self.board.clone(),
                context,
            );
            children.push(Child { blueprint, link, policy });
        }
        let args = RootArgs {
            app: self.settings.name.as_str().into(),
            children,
            clock: clock.clone(),
            health: health.clone(),
            metrics: AppMetrics::new(),
            stopping: self.stopping,
            this: self.root.clone(),
            board: self.board.clone(),
            ended: tell,
        };
        let spawned = handle.spawn(root::spawn(args)).await;
        spawned
            .map_err(|error| Error::new(crate::ErrorKind::Start, "the root did not start").caused_by(error))?
            .map_err(|error| Error::new(crate::ErrorKind::Start, format!("the root did not start: {error}")))?;
        Ok(Running { root: self.root, clock, health, ended: Some(ended), counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn an_app_whose_root_is_gone_has_ended_and_says_so() {
        let (tell, ended) = oneshot::channel();
        let mut running = Running {
            root: RootRef::default(),
            clock: Arc::new(StopClock::new(PhaseEnds::new(Duration::from_secs(1), Duration::ZERO), None)),
            health: Health::new("orders", "1.2.3"),
            ended: Some(ended),
            counts: Vec::new(),
        };
        drop(tell);
        let stopped = running.wait().await;
        assert_eq!(stopped.exit_code(), 70);
        assert!(stopped.start_error().unwrap().contains("root supervisor"), "{stopped:?}");
    }
}
