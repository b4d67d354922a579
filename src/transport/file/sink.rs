//! A sink: lines appended to a file, or to standard output.
//!
//! A thread of its own writes, because a lock, a full disk or a stopped terminal may keep it for ever. What has come
//! meanwhile is written at once and synced once.

use super::place::sync_folder;
use super::record::Format;
use crate::error::{Error, ErrorKind};
use crate::failure::Failure;
use crate::message::Slab;
use crate::transport::{BoxFuture, Sink, SinkAsk, SinkEvent};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// What a sink may have open: messages and bytes that are not on the disk.
pub const SINK_WINDOW: (u32, u64) = (4096, 8 << 20);
/// A write that failed is tried again after this long, doubled up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Where lines go.
pub(super) enum Target {
    File { path: PathBuf, declare: bool },
    Stdout,
}

/// Opens the file at this path and locks it. A file that was replaced between the two is opened anew.
pub(super) fn open_locked(path: &Path, create: bool) -> io::Result<File> {
    loop {
        let existed = path.exists();
        let file = OpenOptions::new().read(true).append(true).create(create).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        if !existed {
            sync_folder(path)?;
        }
        file.lock()?;
        match std::fs::metadata(path) {
            Ok(now) if same_file(&now, &file.metadata()?) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {}
            Err(error) => return Err(error),
        }
    }
}

fn same_file(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// How long the file is without an unterminated last line.
pub(super) fn whole_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

type Sent = (u64, Arc<Slab>);

/// The writer's side.
struct Writer {
    target: Target,
    format: Format,
    sent: Receiver<Sent>,
    events: mpsc::UnboundedSender<SinkEvent>,
}

impl Writer {
    fn run(&self) {
        let mut lines = Vec::new();
        while let Ok(first) = self.sent.recv() {
            lines.clear();
            let mut confirms = Vec::new();
            // Everything that has come meanwhile; the window bounds it.
            for (batch, slab) in std::iter::once(first).chain(self.sent.try_iter()) {
                let failed: Vec<(u32, Failure)> = (0..slab.len() as u32)
                    .filter_map(|index| Some((index, self.format.write(slab.get(index), &mut lines).err()?)))
                    .collect();
                confirms.push(SinkEvent::Confirmed { batch, range: 0..slab.len() as u32, failed });
            }
            if !self.write(&lines) {
                return;
            }
            for confirm in confirms {
                // Nobody may be there to be told any more; what is written is written.
                let _ = self.events.send(confirm);
            }
        }
    }

    /// Writes lines until they are there; false when that cannot be, or nobody waits for it any more.
    fn write(&self, lines: &[u8]) -> bool {
        let mut pause = AGAIN.0;
        loop {
            let done = match &self.target {
                Target::Stdout => {
                    let mut out = io::stdout().lock();
                    match out.write_all(lines).and_then(|()| out.flush()) {
                        Ok(()) => return true,
                        Err(error) => {
                            let text = match error.kind() {
                                io::ErrorKind::BrokenPipe => "nobody reads standard output any more",
                                _ => "standard output cannot be written",
                            };
                            let error = Error::new(ErrorKind::GaveUp, text).caused_by(error);
                            let _ = self.events.send(SinkEvent::Failed(error));
                            return false;
                        }
                    }
                }
                Target::File { path, declare } => self.append(path, *declare, lines),
            };
            let Err(error) = done else { return true };
            if self.trouble("cannot be written", Some(error)).is_err() {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    fn trouble(&self, what: &str, cause: Option<io::Error>) -> Result<(), mpsc::error::SendError<SinkEvent>> {
        let Target::File { path, .. } = &self.target else { return Ok(()) };
        let error = Error::new(ErrorKind::Io, format!("file '{}' {what}", path.display()));
        self.events.send(SinkEvent::Trouble(match cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        }))
    }

    /// One locked append: all of it is on the disk, or none.
    fn append(&self, path: &Path, declare: bool, lines: &[u8]) -> io::Result<()> {
        let mut file = open_locked(path, declare)?;
        let length = file.metadata()?.len();
        let whole = whole_lines(&file)?;
        if whole < length {
            file.set_len(whole)?;
            let cut = length - whole;
            let _ = self.trouble(&format!("had an unterminated last line: {cut} bytes were cut off"), None);
        }
        let done = file.write_all(lines).and_then(|()| file.sync_data());
        if done.is_err() {
            // Also after a failed sync: what the disk has is unknown then, and it is written again.
            file.set_len(whole)?;
        }
        done
        // The lock ends with the file.
    }
}

/// What is asked for at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Flush,
    Close,
}

/// An open sink.
pub(super) struct FileSink {
    sent: Sender<Sent>,
    events: mpsc::UnboundedReceiver<SinkEvent>,
    /// Sent and not confirmed.
    open: VecDeque<(u64, u32)>,
    /// What the engine may still send.
    granted: (u32, u64),
    first: VecDeque<SinkEvent>,
    last: Option<(Last, Pin<Box<Sleep>>)>,
}

impl FileSink {
    pub(super) fn start(target: Target, format: Format) -> io::Result<Self> {
        let (sent, receiver) = channel();
        let (sender, events) = mpsc::unbounded_channel();
        let writer = Writer { target, format, sent: receiver, events: sender };
        std::thread::Builder::new().name("longshore-file".into()).spawn(move || writer.run())?;
        let demand = SinkEvent::Demand { messages: SINK_WINDOW.0, bytes: SINK_WINDOW.1 };
        Ok(Self {
            sent,
            events,
            open: VecDeque::new(),
            granted: SINK_WINDOW,
            first: VecDeque::from([SinkEvent::Connected, demand]),
            last: None,
        })
    }

    fn unconfirmed(&self) -> u64 {
        self.open.iter().map(|(_, messages)| u64::from(*messages)).sum()
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<SinkEvent> {
        if let Some(event) = self.first.pop_front() {
            return Poll::Ready(event);
        }
        match self.events.poll_recv(cx) {
            Poll::Ready(Some(event)) => {
                if let SinkEvent::Confirmed { batch, .. } = &event {
                    let confirmed = self.open.pop_front();
                    debug_assert!(confirmed.is_some_and(|(first, _)| first == *batch));
                    // The next window begins when this one is confirmed: what is open stays bounded.
                    if self.open.is_empty() && self.granted != SINK_WINDOW {
                        self.granted = SINK_WINDOW;
                        let (messages, bytes) = SINK_WINDOW;
                        self.first.push_back(SinkEvent::Demand { messages, bytes });
                    }
                }
                return Poll::Ready(event);
            }
            Poll::Ready(None) => {
                return Poll::Ready(SinkEvent::Failed(Error::new(ErrorKind::Io, "the thread that writes has ended")));
            }
            Poll::Pending => {}
        }
        if let Some((last, by)) = &mut self.last {
            let last = *last;
            if self.open.is_empty() || by.as_mut().poll(cx).is_ready() {
                self.last = None;
                let unconfirmed = self.unconfirmed();
                return Poll::Ready(match last {
                    Last::Flush => SinkEvent::Flushed { unconfirmed },
                    Last::Close => SinkEvent::Closed { unconfirmed },
                });
            }
        }
        Poll::Pending
    }
}

impl Sink for FileSink {
    fn tell(&mut self, ask: SinkAsk) {
        let until = |by| Box::pin(tokio::time::sleep_until(Instant::from_std(by)));
        match ask {
            SinkAsk::Send { batch, slab } => {
                self.granted.0 = self.granted.0.saturating_sub(slab.len() as u32);
                self.granted.1 = self.granted.1.saturating_sub(slab.buffer_len());
                self.open.push_back((batch, slab.len() as u32));
                // A writer that has ended says so in `next`.
                let _ = self.sent.send((batch, slab));
            }
            SinkAsk::Flush { by } => self.last = Some((Last::Flush, until(by))),
            SinkAsk::StopIntake => {}
            SinkAsk::Close { by } => self.last = Some((Last::Close, until(by))),
        }
    }

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(poll_fn(|cx| self.poll_event(cx)))
    }
}
