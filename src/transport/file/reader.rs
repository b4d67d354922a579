//! The thread that reads: a read may block for ever, and must never keep anybody.

use super::lines::{Batch, Collected, Decoder, Found, Lines};
use crate::error::{Error, ErrorKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// A batch holds at most so many lines, and about so many bytes …
const BATCH: (usize, usize) = (256, 1 << 20);
/// … and so many batches are read ahead.
const AHEAD: usize = 2;
/// How often a file that is followed is looked at, and a stream whether it is to be stopped.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file, to its end.
    ToEnd,
    /// A regular file, and what comes later.
    Follow,
    /// Standard input.
    Stream,
}

/// What a reader says.
#[derive(Debug)]
pub(super) enum Read {
    Batch(Batch),
    /// There is no more, and all that was read was said.
    End,
    Failed(Error),
}

/// A thread that reads lines. Dropped, it ends by itself, at the latest when what it waits for comes.
pub(super) struct Reader {
    pub(super) lines: mpsc::Receiver<Read>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// Starts to read `file` at this byte, the beginning of the line of this number. A stream is read where it is.
    pub(super) fn start(file: Arc<File>, kind: Kind, from: (u64, u64), decoder: Decoder) -> io::Result<Self> {
        let (sender, lines) = mpsc::channel(AHEAD);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let file = match kind {
            Kind::Stream => Input::Stream(file),
            Kind::ToEnd | Kind::Follow => Input::At(file, from.0),
        };
        let lines_of = Lines::new(from.0, from.1, decoder.line_limit());
        std::thread::Builder::new().name("longshore-file".into()).spawn(move || {
            let mut reading =
                Reading { file, kind, decoder, lines: lines_of, out: Collected::default(), sender, stopped };
            if let Err(error) = reading.run() {
                // The receiver may be gone; then nobody wants to know.
                let _ = reading.sender.blocking_send(Read::Failed(error));
            }
        })?;
        Ok(Self { lines, stop })
    }

    /// Reads no more; what was read is still said, then the channel ends.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What is read from.
enum Input {
    Stream(Arc<File>),
    /// At a place of its own: the description's position is nobody's.
    At(Arc<File>, u64),
}

impl Input {
    fn file(&self) -> &File {
        match self {
            Self::Stream(file) | Self::At(file, _) => file,
        }
    }
}

impl io::Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stream(file) => (&**file).read(into),
            Self::At(file, at) => {
                let read = file.read_at(into, *at)?;
                *at += read as u64;
                Ok(read)
            }
        }
    }
}

struct Reading {
    file: Input,
    kind: Kind,
    decoder: Decoder,
    lines: Lines,
    out: Collected,
    sender: mpsc::Sender<Read>,
    stopped: Arc<AtomicBool>,
}

impl Reading {
    fn run(&mut self) -> Result<(), Error> {
        let failed = |error| Error::new(ErrorKind::Io, "reading failed").caused_by(error);
        loop {
            if self.lines.must_read() {
                // A line must not wait in here until the next one comes.
                if (self.kind != Kind::ToEnd && !self.send()) || !self.ready().map_err(failed)? {
                    return Ok(());
                }
            }
            let found = self.lines.next(&mut self.file).map_err(failed)?;
            match (found, self.kind) {
                (Found::Line, _) => {
                    self.decoder.push(&self.lines.line(), &mut self.out);
                    if (self.out.len() >= BATCH.0 || self.out.bytes() >= BATCH.1) && !self.send() {
                        return Ok(());
                    }
                }
                (Found::Dry, Kind::Follow) => {
                    let is = self.file.file().metadata().map_err(failed)?.len();
                    let was = self.lines.line().end;
                    if is < was {
                        let text = format!("the file has shrunk to {is} bytes, and {was} were read");
                        return Err(Error::configuration(text));
                    }
                    if !self.send() {
                        return Ok(());
                    }
                    std::thread::sleep(LOOK_EVERY);
                }
                (Found::Dry, Kind::ToEnd | Kind::Stream) => {
                    if self.lines.last() {
                        self.decoder.push(&self.lines.line(), &mut self.out);
                    }
                    if self.send() {
                        let _ = self.sender.blocking_send(Read::End);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Whether to go on; waits until a stream has something.
    fn ready(&self) -> io::Result<bool> {
        loop {
            if self.stopped.load(Ordering::Relaxed) || self.sender.is_closed() {
                return Ok(false);
            }
            if self.kind != Kind::Stream {
                return Ok(true);
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.as_nanos() as i64 };
            match poll(&mut [PollFd::new(self.file.file(), PollFlags::IN)], Some(&wait)) {
                Ok(0) => {}
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says what was collected; false when nobody listens any more.
    fn send(&mut self) -> bool {
        if self.out.len() == 0 {
            return !self.sender.is_closed();
        }
        let batch = self.out.finish(&self.decoder.topic);
        self.sender.blocking_send(Read::Batch(batch)).is_ok()
    }
}
