//! A source: the lines of a file or of standard input.

use super::lines::{Batch, Decoder};
use super::place::{Place, Progress};
use super::reader::{Kind, Read, Reader};
use crate::error::{Error, ErrorKind};
use crate::failure::Tally;
use crate::message::At;
use crate::transport::{Ask, Backlog, BoxFuture, Event, Settlement, Source};
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

/// How long settlements are collected before the place is written.
const SAVE_AFTER: Duration = Duration::from_millis(10);
/// A place that cannot be written is tried again after this long, doubled up to the second.
const SAVE_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Whether lines are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    /// A stream delivers what was read.
    Draining,
    Stopped,
}

/// The lines of a file or stream.
pub(super) struct FileSource {
    /// How to read it again from an earlier line; a stream cannot.
    again: Option<Arc<File>>,
    path: Arc<str>,
    kind: Kind,
    decoder: Decoder,
    reader: Option<Reader>,
    /// What was read, from which line of it on is not delivered.
    batch: Option<(Batch, usize)>,
    progress: Progress,
    /// Those of the unsettled lines that are not with the engine.
    returned: BTreeSet<u64>,
    messages: u32,
    bytes: u64,
    paused: bool,
    intake: Intake,
    ended: bool,
    out: VecDeque<Event>,
    proven: Tally,
    stale: Tally,
    saving: Option<Saving>,
    closing: Option<Pin<Box<Sleep>>>,
}

/// What is needed to keep a place.
struct Saving {
    place: Arc<Place>,
    file: Arc<File>,
    /// Settled and not yet in a write.
    unsaved: Tally,
    /// Settled and in the write that runs.
    in_write: Tally,
    write: Option<JoinHandle<io::Result<()>>>,
    /// When the next write begins.
    timer: Option<Pin<Box<Sleep>>>,
    back_off: Duration,
    /// Flushes that wait for a write that begins now, and for the one that runs.
    flushes: (u32, u32),
}

impl Saving {
    fn write_at(&mut self, at: Instant) {
        if self.timer.as_ref().is_none_or(|timer| timer.deadline() > at) {
            self.timer = Some(Box::pin(tokio::time::sleep_until(at)));
        }
    }

    fn idle(&self) -> bool {
        self.write.is_none() && self.unsaved.total() == 0 && self.flushes == (0, 0)
    }
}

/// A file that was opened, and where its group is in it.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) place: Option<Place>,
    pub(super) progress: Progress,
}

impl FileSource {
    pub(super) fn new(opened: Opened, path: Arc<str>, kind: Kind, decoder: Decoder) -> Result<Self, Error> {
        let Opened { file, place, progress } = opened;
        let file = Arc::new(file);
        let saving = place.map(|place| Saving {
            place: Arc::new(place),
            file: file.clone(),
            unsaved: Tally::default(),
            in_write: Tally::default(),
            write: None,
            timer: None,
            back_off: SAVE_AGAIN.0,
            flushes: (0, 0),
        });
        let mut source = Self {
            again: Some(file),
            path,
            kind,
            decoder,
            reader: None,
            batch: None,
            returned: progress.unsettled.keys().copied().collect(),
            progress,
            messages: 0,
            bytes: 0,
            paused: false,
            intake: Intake::Open,
            ended: false,
            out: VecDeque::from([Event::Connected]),
            proven: Tally::default(),
            stale: Tally::default(),
            saving,
            closing: None,
        };
        source.progress.next_line = source.progress.next_line.max(1);
        source.read_from_the_first_open_line()?;
        if kind == Kind::Stream {
            source.again = None;
        }
        Ok(source)
    }

    /// Starts to read where the first line begins that waits; what is settled or with the engine is passed over.
    fn read_from_the_first_open_line(&mut self) -> Result<(), Error> {
        let Some(file) = &self.again else { return Ok(()) };
        let frontier = (self.progress.frontier, self.progress.next_line);
        let from = self.returned.first().map_or(frontier, |start| (*start, self.progress.unsettled[start]));
        let reader = Reader::start(file.clone(), self.kind, from, self.decoder.clone());
        let wrong = |error| Error::new(ErrorKind::Io, format!("file '{}' cannot be read", self.path)).caused_by(error);
        self.batch = None;
        self.reader = Some(reader.map_err(wrong)?);
        Ok(())
    }

    fn settle(&mut self, settlements: &[Settlement]) {
        for Settlement { at, verdict } in settlements {
            if !self.is_running(*at) {
                verdict.count(&mut self.stale);
                continue;
            }
            self.progress.unsettled.remove(&at.position);
            match &mut self.saving {
                Some(saving) => {
                    verdict.count(&mut saving.unsaved);
                    if saving.write.is_none() {
                        saving.write_at(Instant::now() + SAVE_AFTER);
                    }
                }
                None => verdict.count(&mut self.proven),
            }
        }
    }

    fn is_running(&self, at: At) -> bool {
        at.epoch == self.decoder.epoch
            && self.progress.unsettled.contains_key(&at.position)
            && !self.returned.contains(&at.position)
    }

    fn give_back(&mut self, these: &[At]) {
        // What came from a stream is nowhere else: it stays with the engine.
        if self.again.is_none() {
            return;
        }
        let before = self.returned.len();
        for at in these {
            if self.is_running(*at) {
                self.returned.insert(at.position);
            }
        }
        if self.returned.len() > before {
            // Read again, from the first of them, once something is to be delivered.
            self.reader = None;
            self.batch = None;
        }
    }

    /// Delivers what the demand allows of the batch in hand.
    fn deliver(&mut self) -> Option<Event> {
        let in_hand = self.progress.unsettled.len() > self.returned.len();
        let (batch, from) = self.batch.as_mut()?;
        let heads = batch.slab.heads();
        let waits = |at: u64| at >= self.progress.frontier || self.returned.contains(&at);
        while *from < heads.len() && !waits(heads[*from].at.position) {
            *from += 1;
        }
        let start = *from;
        let (mut end, mut bytes) = (start, 0);
        while end < heads.len() && end - start < self.messages as usize && waits(heads[end].at.position) {
            let size = batch.slab.get(end as u32).size() as u64;
            let alone = end == start && !in_hand;
            if bytes + size > self.bytes && !alone {
                break;
            }
            bytes += size;
            end += 1;
        }
        for (head, (line_end, number)) in heads[start..end].iter().zip(batch.ends[start..end].iter().copied()) {
            let at = head.at.position;
            self.progress.unsettled.insert(at, number);
            self.returned.remove(&at);
            if line_end > self.progress.frontier {
                self.progress.frontier = line_end;
                self.progress.next_line = number + 1;
            }
        }
        *from = end;
        let slab =
            (end > start).then(|| batch.slab.share(start as u32..end as u32, self.decoder.topic.clone(), |_, _| ()));
        if *from == batch.slab.len() {
            self.batch = None;
        }
        self.messages -= (end - start) as u32;
        self.bytes = self.bytes.saturating_sub(bytes);
        slab.map(Event::Batch)
    }

    fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let failed = |path: &str, error: Error| Poll::Ready(Event::Failed(error.of(format_args!("file '{path}'"))));
        while !self.paused && self.intake != Intake::Stopped {
            if self.batch.is_some() {
                if let Some(event) = self.deliver() {
                    return Poll::Ready(event);
                }
                if self.batch.is_some() {
                    // The demand is used up.
                    return Poll::Pending;
                }
            }
            if self.reader.is_none()
                && !self.returned.is_empty()
                && self.messages > 0
                && let Err(error) = self.read_from_the_first_open_line()
            {
                return Poll::Ready(Event::Failed(error));
            }
            let Some(reader) = &mut self.reader else { return Poll::Pending };
            let read = std::task::ready!(reader.lines.poll_recv(cx));
            match read {
                Some(Read::Batch(batch)) => self.batch = Some((batch, 0)),
                Some(Read::Failed(error)) => return failed(&self.path, error),
                Some(Read::End) | None => {
                    let ends = read.is_some() && !std::mem::replace(&mut self.ended, true);
                    self.reader = None;
                    if ends {
                        return Poll::Ready(Event::Ended);
                    }
                    if self.intake == Intake::Draining {
                        self.intake = Intake::Stopped;
                        return Poll::Ready(Event::IntakeStopped);
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Writes the place when it is time, and says what is in it then.
    fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(saving) = &mut self.saving else { return Poll::Pending };
        loop {
            if let Some(write) = &mut saving.write {
                let done = std::task::ready!(Pin::new(write).poll(cx));
                saving.write = None;
                match done.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                    Ok(()) => {
                        saving.back_off = SAVE_AGAIN.0;
                        for _ in 0..std::mem::take(&mut saving.flushes.1) {
                            self.out.push_back(Event::Flushed);
                        }
                        if saving.unsaved.total() > 0 || saving.flushes.0 > 0 {
                            saving.write_at(Instant::now());
                        }
                        let proven = std::mem::take(&mut saving.in_write);
                        if proven.total() > 0 {
                            return Poll::Ready(Event::Settled {
                                proven,
                                stale: Tally::default(),
                                unknown: Tally::default(),
                            });
                        }
                        continue;
                    }
                    Err(error) => {
                        saving.unsaved += std::mem::take(&mut saving.in_write);
                        saving.flushes.0 += std::mem::take(&mut saving.flushes.1);
                        saving.timer = None;
                        saving.write_at(Instant::now() + saving.back_off);
                        saving.back_off = (saving.back_off * 2).min(SAVE_AGAIN.1);
                        let text = format!("the place of file '{}' cannot be written", self.path);
                        return Poll::Ready(Event::Trouble(Error::new(ErrorKind::Io, text).caused_by(error)));
                    }
                }
            }
            let Some(timer) = &mut saving.timer else { return Poll::Pending };
            std::task::ready!(timer.as_mut().poll(cx));
            saving.timer = None;
            saving.in_write = std::mem::take(&mut saving.unsaved);
            saving.flushes.1 = std::mem::take(&mut saving.flushes.0);
            // The lock goes with the write, so that a successor cannot be overwritten by it.
            let (place, file, progress) = (saving.place.clone(), saving.file.clone(), self.progress.clone());
            saving.write = Some(tokio::task::spawn_blocking(move || place.save(&file, &progress)));
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.proven.total() + self.stale.total() > 0 {
            let (proven, stale) = (std::mem::take(&mut self.proven), std::mem::take(&mut self.stale));
            return Poll::Ready(Event::Settled { proven, stale, unknown: Tally::default() });
        }
        if let Poll::Ready(event) = self.poll_place(cx) {
            return Poll::Ready(event);
        }
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(event);
        }
        let Some(by) = &mut self.closing else { return self.poll_lines(cx) };
        let saved = self.saving.as_ref().is_none_or(Saving::idle);
        if !saved && by.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let mut unknown = Tally::default();
        if let Some(saving) = self.saving.take() {
            unknown += saving.unsaved;
            unknown += saving.in_write;
        }
        let returned = (self.progress.unsettled.len() - self.returned.len()) as u64;
        Poll::Ready(Event::Closed { returned, unknown })
    }
}

impl Source for FileSource {
    fn tell(&mut self, ask: Ask) {
        match ask {
            Ask::Demand { messages, bytes } => (self.messages, self.bytes) = (messages, bytes),
            Ask::Settle(settlements) => self.settle(&settlements),
            Ask::Return(these) => self.give_back(&these),
            Ask::Mark(at) => self.out.push_back(Event::Marked(at)),
            Ask::Flush { .. } => match &mut self.saving {
                Some(saving) if !saving.idle() => {
                    saving.flushes.0 += 1;
                    if saving.write.is_none() {
                        saving.write_at(Instant::now());
                    }
                }
                _ => self.out.push_back(Event::Flushed),
            },
            Ask::StopIntake => match (&self.reader, self.kind) {
                (Some(reader), Kind::Stream) => {
                    reader.stop();
                    self.intake = Intake::Draining;
                }
                _ => {
                    self.intake = Intake::Stopped;
                    self.reader = None;
                    self.batch = None;
                    self.out.push_back(Event::IntakeStopped);
                }
            },
            Ask::Pause(_) => self.paused = true,
            Ask::Resume(_) => self.paused = false,
            Ask::Released(_) | Ask::Recalled(_) => {}
            // How many lines there are is not known without reading them.
            Ask::Measure => self.out.push_back(Event::Measured(Backlog { waiting: None, delayed: Some(0) })),
            Ask::Close { by } => {
                self.intake = Intake::Stopped;
                self.reader = None;
                self.batch = None;
                self.closing = Some(Box::pin(tokio::time::sleep_until(Instant::from_std(by))));
                if let Some(saving) = &mut self.saving
                    && saving.write.is_none()
                    && saving.unsaved.total() > 0
                {
                    saving.write_at(Instant::now());
                }
            }
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(poll_fn(|cx| self.poll_event(cx)))
    }
}
