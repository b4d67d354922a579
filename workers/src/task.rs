//! Commands that are done when they have answered: no app, but the same signals, exit codes and last line.

use crate::ending::Ending;
use longshore::{Counts, Error, ErrorKind};
use std::io::{self, ErrorKind as Io, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What a second interrupt ends with.
const INTERRUPTED: i32 = 130;

/// Says when to stop: SIGTERM, or Ctrl+C.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for that. Cancel-safe.
    pub async fn asked(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending().await
        }
    }
}

/// The counts of a command while it runs: printed also when it fails, or ends at once.
#[derive(Debug, Clone, Default)]
pub struct Books(Arc<Mutex<Counts>>);

impl Books {
    /// Changes them.
    pub fn note(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn counts(&self) -> Counts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command to its exit code.
pub fn run(work: impl AsyncFnOnce(Stop, Books) -> Result<u8, Error>) -> Ending {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::new(ErrorKind::Start, "no runtime").caused_by(error);
            return Ending::failed(&error, Counts::default());
        }
    };
    let books = Books::default();
    let done = runtime.block_on(async {
        let stop = signals(books.clone())?;
        work(stop, books.clone()).await
    });
    // A read of standard input may still be waiting: it ends with the process.
    runtime.shutdown_background();
    let counts = books.counts();
    match done {
        Ok(code) => Ending::new(code, counts),
        // Whoever read the answer has had enough.
        Err(error) if error.kind() == ErrorKind::Io && Answer::was_cut() => Ending::new(0, counts),
        Err(error) => Ending::failed(&error, counts),
    }
}

/// Turns signals into a stop; a second interrupt ends the process.
fn signals(books: Books) -> Result<Stop, Error> {
    let wrong = |error| Error::new(ErrorKind::Start, "signals cannot be taken over").caused_by(error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
    let (ask, stop) = watch::channel(false);
    tokio::spawn(async move {
        let mut interrupts = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => interrupts += 1,
                _ = terminate.recv() => {}
            }
            if interrupts > 1 {
                let _ = Ending::new(INTERRUPTED as u8, books.counts()).print();
                std::process::exit(INTERRUPTED);
            }
            ask.send_replace(true);
        }
    });
    Ok(Stop(stop))
}

/// What a command answers, on standard output.
pub struct Answer(io::StdoutLock<'static>);

/// Whether somebody closed standard output while it was written.
static CUT: AtomicBool = AtomicBool::new(false);

impl Answer {
    /// Standard output.
    pub fn new() -> Self {
        Self(io::stdout().lock())
    }

    fn was_cut() -> bool {
        CUT.load(Ordering::Relaxed)
    }

    /// Writes at once.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.write_all(bytes).and_then(|()| self.0.flush()).map_err(|error| {
            if error.kind() == Io::BrokenPipe {
                CUT.store(true, Ordering::Relaxed);
            }
            Error::new(ErrorKind::Io, "standard output cannot be written").caused_by(error)
        })
    }
}
