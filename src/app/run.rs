//! The life of a process: signals and deadline first, then the runtime, then the actors; the report last.

use super::builder::App;
use super::running::{Launch, Progress, Running, Stopped};
use crate::admin::{Admin, AdminListen};
use crate::error::{Error, ErrorKind};
use crate::process::guard::{Guard, Signal};
use crate::supervisor::drain::{Cause, Event};
use crate::supervisor::health::Stage;
use crate::telemetry::{logs, metrics};
use crate::transport::Secret;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Tokio looks at timers and I/O once in so many polls of a thread; a lane's poll is a turn, so the default of 61 would
/// let a timer wait for thousands of messages.
const EVENT_INTERVAL: u32 = 7;
/// The third interrupt ends the process at once.
const INTERRUPTED: u8 = 130;

impl App {
    /// Runs the app until it has stopped, and says how: `fn main() -> ExitCode { App::from_env("orders")….run() }`.
    ///
    /// Blocks: it owns the runtime, the signals and the deadline. Call it from `main`, outside of any runtime.
    pub fn run(self) -> ExitCode {
        match self.run_watched(None, true) {
            Ok(stopped) => {
                stopped.print();
                ExitCode::from(stopped.exit_code())
            }
            Err(error) => {
                print_error(&error);
                ExitCode::from(error.exit_code())
            }
        }
    }

    /// The same without the printing: for a program that has something to add.
    ///
    /// # Errors
    /// Everything that is wrong with the app as it was built and set; nothing has been opened then.
    pub fn run_to_end(self) -> Result<Stopped, Error> {
        self.run_watched(None, false)
    }

    /// The same, with a function that is given the progress once a second.
    ///
    /// # Errors
    /// As [`App::run_to_end`].
    pub fn run_with_progress(self, progress: impl FnMut(Progress) + Send + 'static) -> Result<Stopped, Error> {
        self.run_watched(Some(Box::new(progress)), false)
    }

    /// `to_the_exit`: nothing follows but the end of the process, whose exit handlers may hang as well.
    fn run_watched(
        self,
        progress: Option<Box<dyn FnMut(Progress) + Send>>,
        to_the_exit: bool,
    ) -> Result<Stopped, Error> {
        if !crate::process::panic_unwinds() {
            return Err(Error::configuration(
                "built with panic = \"abort\": a handler that panics would end every other; set panic = \"unwind\"",
            ));
        }
        let (mut launch, (guard, admin)) = self.launch_with(|settings, board| {
            let guard = Guard::start(board.clone(), settings.deadline);
            // The first log line says that signals are obeyed.
            logs::install();
            Ok((guard, Admin::bind(&settings.admin)?))
        })?;
        let (guard, signals) =
            guard.map_err(|error| Error::new(ErrorKind::Start, "signals cannot be taken over").caused_by(error))?;
        // From here to the last exit handler: whatever hangs, the process ends.
        let deadline = guard.keep();
        launch.guarded = Some(deadline.clone());
        match &launch.settings.file {
            Some(file) => {
                tracing::info!(event = "starting", app = launch.settings.name, pid = std::process::id(), config = %file.display(), "starting")
            }
            None => {
                tracing::info!(event = "starting", app = launch.settings.name, pid = std::process::id(), "starting")
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .thread_name("longshore")
            .build()
            .map_err(|error| Error::new(ErrorKind::Start, "no runtime").caused_by(error))?;
        let stopped = runtime.block_on(live(launch, admin, signals, progress));
        // A task that blocks, a read of stdin: they end with the process and are not waited for.
        runtime.shutdown_background();
        if !to_the_exit {
            deadline.disarm();
        }
        stopped
    }
}

/// From the first actor to the report.
async fn live(
    launch: Launch,
    admin: Option<crate::admin::Bound>,
    signals: mpsc::Receiver<Signal>,
    progress: Option<Box<dyn FnMut(Progress) + Send>>,
) -> Result<Stopped, Error> {
    let scrape = metrics::install();
    if let Some(scrape) = scrape.clone() {
        tokio::spawn(async move {
            let mut every = tokio::time::interval(metrics::UPKEEP_EVERY);
            loop {
                every.tick().await;
                scrape.upkeep();
            }
        });
    }
    let mut running = launch.start(&tokio::runtime::Handle::current()).await?;
    tokio::spawn(relay(signals, running.root.clone()));
    let admin = match admin {
        Some(bound) => {
            let (clock, root, health) = (running.clock.clone(), running.root.clone(), running.health.clone());
            let shutdown: crate::admin::Shutdown = Arc::new(move || {
                let deadline = clock.deadline_by_calendar();
                // Here and not by the root alone: whoever has the answer finds `/readyz` at 503.
                health.set_stage(Stage::Stopping);
                root.tell(Event::Request(Cause::Http));
                deadline
            });
            let token = std::env::var("LONGSHORE_ADMIN_TOKEN").ok().filter(|token| !token.is_empty()).map(Secret::new);
            match bound.serve(running.health.clone(), scrape, shutdown, token).await {
                Ok(serving) => Some(serving),
                Err(error) => {
                    // What has started is undone in order, as after any other failure of the start.
                    running.stop();
                    running.wait().await;
                    return Err(error);
                }
            }
        }
        None => None,
    };
    let stopped = watched(&mut running, progress).await;
    if let Some(admin) = admin {
        admin.stop().await;
    }
    if stopped.ending.at_once {
        // Nobody waits for destructors any more.
        crate::telemetry::status::clear_status();
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "{}", stopped.counts()).and_then(|()| out.flush());
        signal_hook::low_level::exit(i32::from(INTERRUPTED));
    }
    Ok(stopped)
}

async fn relay(mut signals: mpsc::Receiver<Signal>, root: crate::supervisor::root::RootRef) {
    while let Some(signal) = signals.recv().await {
        let cause = match signal {
            Signal::Terminate => Cause::Sigterm,
            Signal::Interrupt => Cause::Sigint,
        };
        root.tell(Event::Request(cause));
    }
}

async fn watched(running: &mut Running, progress: Option<Box<dyn FnMut(Progress) + Send>>) -> Stopped {
    let Some(mut progress) = progress else { return running.wait().await };
    let mut every = tokio::time::interval(std::time::Duration::from_secs(1));
    let counts = running.counts.clone();
    loop {
        tokio::select! {
            biased;
            stopped = running.wait() => return stopped,
            _ = every.tick() => progress(Progress::of(&counts)),
        }
    }
}

impl Stopped {
    /// Prints the report to stderr: a table on a terminal, one JSON line elsewhere; and why the start failed, if so.
    pub fn print(&self) {
        let stderr = std::io::stderr();
        let text = if stderr.is_terminal() { self.table() } else { format!("{}\n", self.report()) };
        let mut out = stderr.lock();
        // Nobody may be reading any more.
        let _ = out.write_all(text.as_bytes());
        if let Some(why) = self.start_error() {
            let _ = writeln!(out, "error: {why}");
        }
        let _ = out.flush();
    }
}

/// Prints an error of the start to stderr, a line for each thing that is wrong.
fn print_error(error: &Error) {
    let text = error.to_string();
    let mut out = std::io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(out, "error: {line}");
    }
}

impl AdminListen {
    /// No admin server.
    pub fn off() -> Self {
        AdminListen::Off
    }
}
