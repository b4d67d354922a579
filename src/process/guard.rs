//! The OS thread that owns the signals and the deadline.
//!
//! It is started before the runtime and asks nobody: signals reach it through socket pairs, the deadline stands in an
//! atomic, and what to report stands on the [`Board`]. From the first request on there is one absolute deadline. When
//! the process outlives it, for whatever reason, this thread says who held it and leaves by `_exit`: that runs no exit
//! handler, of which any could hang. On this way out it takes no lock, allocates nothing and uses neither tracing nor
//! tokio.

use super::board::Board;
use super::emergency::{self, Stderr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::low_level;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// So long after the deadline the process is ended from outside the runtime: enough for a proper exit at the deadline,
/// and well within the second that is promised.
const MARGIN: Duration = Duration::from_millis(250);

/// So long after a second SIGINT, whatever the deadline says: 130 within a second.
const AFTER_SECOND_SIGINT: Duration = Duration::from_millis(950);

/// Signals that nobody has taken yet, at most. Repeats change nothing, and the third SIGINT ends the process here.
const BACKLOG: usize = 16;

/// Exit code when the deadline passed.
const UNFINISHED: u8 = 75;
/// Exit code after a second SIGINT.
const INTERRUPTED: u8 = 130;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A request to stop that came as a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

/// The thread. Dropping it ends the enforcement and the thread; see [`Guard::keep`].
///
/// Several may live in one process, each with its own board: each of them gets every signal. Once a guard has been
/// there, the default action of its signals never comes back.
#[derive(Debug)]
pub struct Guard {
    deadline: Deadline,
    signals: Vec<SigId>,
    thread: Option<JoinHandle<()>>,
}

/// The one absolute deadline of a stop; cloned by whoever may request one.
#[derive(Debug, Clone)]
pub struct Deadline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    board: Arc<Board>,
    /// In milliseconds of the board.
    at_ms: AtomicU64,
    /// The exit code that the first cause asked for, or 0.
    code: AtomicU8,
    over: AtomicBool,
    /// Wakes the thread.
    wake: UnixStream,
}

impl Deadline {
    /// Arms it. The earliest deadline holds, whoever armed it; the first code that is not 0 holds, and where there is
    /// none the process leaves with 75. Never blocks.
    pub fn arm(&self, at: Instant, code: u8) {
        let _ = self.0.code.compare_exchange(0, code, AcqRel, Acquire);
        self.0.at_ms.fetch_min(self.0.board.ms_of(at), AcqRel);
        self.0.wake();
    }

    /// Time left until the deadline; `None` before the first request.
    pub fn left(&self) -> Option<Duration> {
        match self.0.at_ms.load(Acquire) {
            NEVER => None,
            at => Some(Duration::from_millis(at.saturating_sub(self.0.board.now_ms()))),
        }
    }

    /// Takes it back: what was to be stopped is gone, and the process goes on.
    pub fn disarm(&self) {
        self.0.at_ms.store(NEVER, Release);
        self.0.wake();
    }
}

impl Shared {
    fn wake(&self) {
        // Full means that it is about to wake up.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Guard {
    /// Registers SIGTERM, SIGINT, SIGQUIT and SIGUSR1, then starts the thread; when it returns, none of them is lost
    /// any more. `stop_deadline` is what a signal arms when nothing was armed before it. The receiver gets every
    /// SIGTERM and SIGINT.
    ///
    /// # Errors
    /// When the system refuses a descriptor, a signal handler or the thread.
    pub fn start(board: Arc<Board>, stop_deadline: Duration) -> io::Result<(Guard, mpsc::Receiver<Signal>)> {
        let stderr = Stderr::duplicate()?;
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            board,
            at_ms: AtomicU64::new(NEVER),
            code: AtomicU8::new(0),
            over: AtomicBool::new(false),
            wake,
        });
        // From here on dropping the guard undoes what was registered.
        let mut guard = Guard { deadline: Deadline(shared.clone()), signals: Vec::new(), thread: None };
        let mut pipes = Vec::new();
        for signal in [SIGTERM, SIGINT, SIGQUIT, SIGUSR1] {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            guard.signals.push(low_level::pipe::register(signal, write)?);
            pipes.push(read);
        }
        let (send, received) = mpsc::channel(BACKLOG);
        let [terminate, interrupt, quit, user] =
            <[UnixStream; 4]>::try_from(pipes).expect("one pair for each of four signals");
        let watch = Watch {
            shared,
            stop_deadline,
            stderr,
            send,
            pipes: [woken, terminate, interrupt, quit, user],
            interrupts: 0,
            second: None,
        };
        let thread = std::thread::Builder::new().name("longshore-guard".into()).spawn(move || watch.run())?;
        guard.thread = Some(thread);
        Ok((guard, received))
    }

    /// The deadline, for whoever requests a stop otherwise than by a signal.
    #[cfg(test)]
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Lets the thread live as long as the process: until the last exit handler has returned.
    pub fn keep(self) -> Deadline {
        let deadline = self.deadline.clone();
        std::mem::forget(self);
        deadline
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for &signal in &self.signals {
            low_level::unregister(signal);
        }
        self.deadline.0.over.store(true, Release);
        self.deadline.0.wake();
        if let Some(thread) = self.thread.take() {
            // It waits for nothing but what was just said.
            let _ = thread.join();
        }
    }
}

struct Watch {
    shared: Arc<Shared>,
    stop_deadline: Duration,
    stderr: Stderr,
    send: mpsc::Sender<Signal>,
    /// Wake-ups, SIGTERM, SIGINT, SIGQUIT, SIGUSR1: a byte each.
    pipes: [UnixStream; 5],
    interrupts: u32,
    /// When the second SIGINT came.
    second: Option<Instant>,
}

impl Watch {
    fn run(mut self) {
        loop {
            let left = self.time_left();
            if left.is_some_and(|left| left.is_zero()) {
                match self.second {
                    Some(_) => self.leave("a second SIGINT came and the process still lives", INTERRUPTED),
                    None => self.leave("the deadline passed and the process still lives", UNFINISHED),
                }
            }
            let timeout = left.map(|left| Timespec::try_from(left).unwrap_or_default());
            let mut ready = self.pipes.each_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN));
            // Interrupted or not, the pipes say what happened.
            let _ = poll(&mut ready, timeout.as_ref());
            let [_, terminates, interrupts, quits, users] = self.pipes.each_mut().map(count);
            if self.shared.over.load(Acquire) {
                return;
            }
            if terminates > 0 {
                self.request(Signal::Terminate);
            }
            for _ in 0..interrupts {
                self.interrupted();
            }
            if quits + users > 0 {
                self.dump();
            }
        }
    }

    /// Time until the process has to be gone.
    fn time_left(&self) -> Option<Duration> {
        let by_deadline = Deadline(self.shared.clone()).left_with(MARGIN);
        let by_interrupt = self.second.map(|second| AFTER_SECOND_SIGINT.saturating_sub(second.elapsed()));
        match (by_deadline, by_interrupt) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn interrupted(&mut self) {
        self.interrupts += 1;
        if self.interrupts == 2 {
            self.second = Some(Instant::now());
        }
        if self.interrupts >= 3 {
            self.leave("a third SIGINT came", INTERRUPTED);
        }
        self.request(Signal::Interrupt);
    }

    /// Arms the deadline before it tells anybody: the one who is told may be stuck.
    fn request(&mut self, signal: Signal) {
        let at = self.shared.board.ms_of(Instant::now() + self.stop_deadline);
        let _ = self.shared.at_ms.compare_exchange(NEVER, at, AcqRel, Acquire);
        let _ = self.send.try_send(signal);
    }

    fn dump(&self) {
        let mut out = self.stderr.begin();
        let board = &self.shared.board;
        let _ = writeln!(out, "longshore {}: dump of process {}", board.app(), std::process::id());
        let _ = emergency::write_actors(&mut out, board, true);
        let _ = emergency::write_threads(&mut out);
        let _ = writeln!(out, "longshore {}: end of dump", board.app());
        out.flush();
    }

    /// The last way out.
    fn leave(&self, why: &str, code: u8) -> ! {
        let code = match self.shared.code.load(Acquire) {
            0 => code,
            first => first,
        };
        super::LEAVING.store(true, Release);
        let mut out = self.stderr.begin();
        let board = &self.shared.board;
        let _ = writeln!(out, "longshore {}: {why}: exit {code}", board.app());
        let _ = emergency::write_actors(&mut out, board, false);
        let _ = emergency::write_threads(&mut out);
        let _ = emergency::write_counts(&mut out, board);
        out.flush();
        low_level::exit(code.into());
    }
}

impl Deadline {
    fn left_with(&self, margin: Duration) -> Option<Duration> {
        let at = match self.0.at_ms.load(Acquire) {
            NEVER => return None,
            at => Duration::from_millis(at).saturating_add(margin),
        };
        Some(at.saturating_sub(Duration::from_millis(self.0.board.now_ms())))
    }
}

/// Takes all bytes that wait: one a signal.
fn count(pipe: &mut UnixStream) -> usize {
    let mut total = 0;
    let mut bytes = [0; 64];
    while let Ok(n @ 1..) = pipe.read(&mut bytes) {
        total += n;
    }
    total
}

#[cfg(test)]
mod tests;
