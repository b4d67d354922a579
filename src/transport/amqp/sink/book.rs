//! What a sink was told and has not answered yet: pure, but for the events that it says.

use crate::failure::Failure;
use crate::message::{MessageRef, Slab};
use crate::transport::{SinkAsk, SinkEvent};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// What may be sent and not confirmed. Confirms of a quorum queue come in waves: with 1,000 in flight the broker idles
/// between two, beyond some 4,000 nothing is gained.
pub(super) const WINDOW: (u32, u64) = (4_096, 16 << 20);
/// Of the time that a close has, this much at most is kept for saying that it is over.
const LAST_WORD: Duration = Duration::from_millis(100);

/// One message that was sent.
pub(super) struct Piece {
    batch: u64,
    slab: Arc<Slab>,
    index: u32,
    /// Its place among everything that was ever sent.
    order: u64,
}

impl Piece {
    pub(super) fn message(&self) -> MessageRef<'_> {
        self.slab.get(self.index)
    }

    pub(super) fn slab(&self) -> Arc<Slab> {
        self.slab.clone()
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }
}

struct Flush {
    /// Messages with a lower order were sent before it …
    before: u64,
    /// … and so many of them are open.
    open: u64,
    by: Instant,
}

/// A `Confirmed` that still grows.
struct Growing {
    batch: u64,
    range: Range<u32>,
    failed: Vec<(u32, Failure)>,
}

pub(super) struct Book {
    /// Not published yet, or to be published again; in the order in which it was sent.
    waiting: VecDeque<Piece>,
    /// Sent and not answered: those that wait, and those in flight.
    open: u32,
    open_bytes: u64,
    /// What the engine believes that it may still send.
    said: (u32, u64),
    sent: u64,
    flushes: Vec<Flush>,
    close: Option<Instant>,
    growing: Option<Growing>,
    /// Whether the broker asks to send nothing.
    blocked: bool,
    events: UnboundedSender<SinkEvent>,
}

impl Book {
    pub(super) fn new(events: UnboundedSender<SinkEvent>) -> Self {
        Self {
            waiting: VecDeque::new(),
            open: 0,
            open_bytes: 0,
            said: (0, 0),
            sent: 0,
            flushes: Vec::new(),
            close: None,
            growing: None,
            blocked: false,
            events,
        }
    }

    /// Takes in what the engine asks for.
    pub(super) fn take(&mut self, ask: SinkAsk) {
        match ask {
            SinkAsk::Send { batch, slab } => {
                for (index, message) in (0..).zip(slab.iter()) {
                    let bytes = message.size() as u64;
                    self.open += 1;
                    self.open_bytes += bytes;
                    self.said = (self.said.0.saturating_sub(1), self.said.1.saturating_sub(bytes));
                    self.waiting.push_back(Piece { batch, slab: slab.clone(), index, order: self.sent });
                    self.sent += 1;
                }
            }
            SinkAsk::Flush { by } => {
                self.flushes.push(Flush { before: self.sent, open: u64::from(self.open), by });
            }
            // What is stored is worked off by whoever consumes it.
            SinkAsk::StopIntake => {}
            SinkAsk::Close { by } => self.close = Some(by - last_word(by)),
        }
    }

    /// The next message to publish.
    pub(super) fn next(&mut self) -> Option<Piece> {
        self.waiting.pop_front()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// These could not be proven to be stored, and are published again before everything else. In order.
    pub(super) fn again(&mut self, unproven: impl DoubleEndedIterator<Item = Piece>) {
        for piece in unproven.rev() {
            self.waiting.push_front(piece);
        }
    }

    /// It is stored, or it failed.
    pub(super) fn decide(&mut self, piece: Piece, failure: Option<Failure>) {
        self.open -= 1;
        self.open_bytes -= piece.message().size() as u64;
        for flush in &mut self.flushes {
            flush.open -= u64::from(piece.order < flush.before);
        }
        let (batch, index) = (piece.batch, piece.index);
        let grows = self.growing.as_ref().is_some_and(|growing| growing.batch == batch && growing.range.end == index);
        if !grows {
            self.say_growing();
        }
        let growing = self.growing.get_or_insert(Growing { batch, range: index..index, failed: Vec::new() });
        growing.range.end = index + 1;
        growing.failed.extend(failure.map(|failure| (index, failure)));
    }

    fn say_growing(&mut self) {
        if let Some(Growing { batch, range, failed }) = self.growing.take() {
            self.say(SinkEvent::Confirmed { batch, range, failed });
        }
    }

    /// A handle that is gone hears nothing, and ends the driver by that elsewhere.
    pub(super) fn say(&self, event: SinkEvent) {
        let _ = self.events.send(event);
    }

    /// Whether the broker takes publishes. While it does not, the engine is told to send nothing. Whether that is new.
    pub(super) fn block(&mut self, blocked: bool) -> bool {
        std::mem::replace(&mut self.blocked, blocked) != blocked
    }

    /// Says what follows from what was decided since the last call: confirms, flushes that are done, and demand.
    pub(super) fn say_all(&mut self, now: Instant) {
        self.say_growing();
        let (events, open) = (&self.events, self.open);
        self.flushes.retain(|flush| {
            let waits = flush.open > 0 && now < flush.by;
            if !waits {
                let _ = events.send(SinkEvent::Flushed { unconfirmed: flush.open });
            }
            waits
        });
        let room = match self.blocked || self.close.is_some() {
            true => (0, 0),
            false => (WINDOW.0.saturating_sub(open), WINDOW.1.saturating_sub(self.open_bytes)),
        };
        let more = room.0.saturating_sub(self.said.0) >= WINDOW.0 / 4
            || room.1.saturating_sub(self.said.1) >= WINDOW.1 / 4
            || (open == 0 && self.said != room)
            || (self.blocked && self.said != room);
        if more {
            self.said = room;
            self.say(SinkEvent::Demand { messages: room.0, bytes: room.1 });
        }
    }

    /// When something has to be said at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.flushes.iter().map(|flush| flush.by).chain(self.close).min()
    }

    /// Whether a close was asked for, and nothing is left to wait for.
    pub(super) fn may_close(&self, now: Instant) -> bool {
        self.close.is_some_and(|by| self.open == 0 || now >= by)
    }

    /// How long an orderly goodbye may take, once a close was asked for.
    pub(super) fn goodbye(&self, now: Instant) -> Duration {
        self.close.map_or(Duration::ZERO, |by| by.saturating_duration_since(now))
    }

    /// The last word.
    pub(super) fn closed(mut self) {
        self.say_growing();
        for flush in &self.flushes {
            self.say(SinkEvent::Flushed { unconfirmed: flush.open });
        }
        self.say(SinkEvent::Closed { unconfirmed: u64::from(self.open) });
    }
}

/// What of the time until then is kept for the last word: little of a long time, half of a short one.
fn last_word(by: Instant) -> Duration {
    (by.saturating_duration_since(Instant::now()) / 2).min(LAST_WORD)
}
