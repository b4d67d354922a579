//! What a sink was told and has not answered yet, as the engine sees it: pure.

use crate::transport::SinkEvent;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What may be sent and not confirmed: at half a million records a second what a broker that takes 100 ms needs.
pub(super) const WINDOW: (u32, u64) = (65_536, 32 << 20);
/// Of the time that a close has, this much at most is kept for letting go of the producer.
const LAST_WORD: Duration = Duration::from_millis(200);

/// A batch that is not confirmed as a whole.
struct Sent {
    /// Its first message's place among everything that was ever sent.
    first: u64,
    open: u32,
}

struct Flush {
    /// Messages with a lower place were sent before it …
    before: u64,
    /// … and so many of them are open.
    open: u64,
    by: Instant,
}

/// Whether a close was asked for.
#[derive(Clone, Copy)]
enum Close {
    No,
    /// Everything open is waited for until the first moment; the second is the latest for the last word.
    Asked {
        until: Instant,
        by: Instant,
    },
}

pub(super) struct Book {
    batches: HashMap<u64, Sent>,
    open: u64,
    open_bytes: u64,
    /// What the engine believes that it may still send.
    said: (u32, u64),
    sent: u64,
    flushes: Vec<Flush>,
    close: Close,
}

impl Book {
    pub(super) fn new() -> Self {
        let (batches, flushes) = (HashMap::new(), Vec::new());
        Self { batches, open: 0, open_bytes: 0, said: (0, 0), sent: 0, flushes, close: Close::No }
    }

    /// A batch was sent.
    pub(super) fn send(&mut self, batch: u64, messages: u32, bytes: u64) {
        self.batches.insert(batch, Sent { first: self.sent, open: messages });
        self.sent += u64::from(messages);
        self.open += u64::from(messages);
        self.open_bytes += bytes;
        self.said = (self.said.0.saturating_sub(messages), self.said.1.saturating_sub(bytes));
    }

    /// So many messages of a batch are confirmed, or have failed.
    pub(super) fn confirm(&mut self, batch: u64, messages: u32, bytes: u64) {
        let sent = self.batches.get_mut(&batch).expect("what is confirmed was sent, and not confirmed before");
        sent.open -= messages;
        for flush in &mut self.flushes {
            // A batch is sent as a whole, so that a flush comes before all of it or after.
            flush.open -= u64::from(messages) * u64::from(sent.first < flush.before);
        }
        if sent.open == 0 {
            self.batches.remove(&batch);
        }
        self.open -= u64::from(messages);
        self.open_bytes -= bytes;
    }

    pub(super) fn flush(&mut self, by: Instant) {
        self.flushes.push(Flush { before: self.sent, open: self.open, by });
    }

    pub(super) fn close(&mut self, now: Instant, by: Instant) {
        // Little of a long time is kept for the last word, half of a short one.
        let last_word = (by.saturating_duration_since(now) / 2).min(LAST_WORD);
        self.close = Close::Asked { until: by - last_word, by };
    }

    /// What can be said now, one at a time.
    pub(super) fn say(&mut self, now: Instant) -> Option<SinkEvent> {
        let done = self.flushes.iter().position(|flush| flush.open == 0 || now >= flush.by);
        if let Some(index) = done {
            return Some(SinkEvent::Flushed { unconfirmed: self.flushes.remove(index).open });
        }
        self.demand()
    }

    /// A new demand, once enough room is free to be worth saying.
    fn demand(&mut self) -> Option<SinkEvent> {
        if matches!(self.close, Close::Asked { .. }) {
            return None;
        }
        let open = u32::try_from(self.open).unwrap_or(u32::MAX);
        let room = (WINDOW.0.saturating_sub(open), WINDOW.1.saturating_sub(self.open_bytes));
        let more = room.0.saturating_sub(self.said.0) >= WINDOW.0 / 8
            || room.1.saturating_sub(self.said.1) >= WINDOW.1 / 8
            || (self.open == 0 && self.said != room);
        if !more {
            return None;
        }
        self.said = room;
        Some(SinkEvent::Demand { messages: room.0, bytes: room.1 })
    }

    /// When something has to be said or done at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let close = match self.close {
            Close::No => None,
            Close::Asked { until, by } => Some(if self.open == 0 { by } else { until }),
        };
        self.flushes.iter().map(|flush| flush.by).chain(close).min()
    }

    /// Whether a close was asked for, and nothing is left to wait for but the producer's end.
    pub(super) fn may_close(&self, now: Instant) -> bool {
        matches!(self.close, Close::Asked { until, .. } if self.open == 0 || now >= until)
    }

    /// The latest moment for the last word of a close.
    pub(super) fn closes_by(&self) -> Option<Instant> {
        match self.close {
            Close::No => None,
            Close::Asked { by, .. } => Some(by),
        }
    }

    /// Not confirmed.
    pub(super) fn open(&self) -> u64 {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(book: &mut Book, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| book.say(now)).map(|event| format!("{event:?}")).collect()
    }

    #[test]
    fn the_engine_never_has_more_open_than_the_window_and_is_asked_for_more_as_it_empties() {
        let (mut book, now) = (Book::new(), Instant::now());
        assert_eq!(said(&mut book, now), [format!("Demand {{ messages: {}, bytes: {} }}", WINDOW.0, WINDOW.1)]);
        book.send(1, WINDOW.0, 1_000);
        assert!(said(&mut book, now).is_empty());
        book.confirm(1, WINDOW.0 / 8 - 1, 10);
        assert!(said(&mut book, now).is_empty());
        book.confirm(1, 1, 10);
        let room = WINDOW.0 / 8;
        assert_eq!(said(&mut book, now), [format!("Demand {{ messages: {room}, bytes: {} }}", WINDOW.1 - 980)]);
    }

    #[test]
    fn a_flush_waits_for_what_was_sent_before_it_and_for_nothing_else() {
        let (mut book, now) = (Book::new(), Instant::now());
        book.send(7, 3, 30);
        book.flush(now + Duration::from_secs(1));
        book.send(8, 2, 20);
        said(&mut book, now);
        book.confirm(8, 2, 20);
        book.confirm(7, 2, 20);
        assert!(said(&mut book, now).is_empty());
        assert_eq!(book.due(), Some(now + Duration::from_secs(1)));
        book.confirm(7, 1, 10);
        assert!(said(&mut book, now).contains(&"Flushed { unconfirmed: 0 }".to_owned()));
    }

    #[test]
    fn a_flush_whose_time_is_up_says_how_many_are_not_confirmed() {
        let (mut book, now) = (Book::new(), Instant::now());
        book.send(7, 3, 30);
        book.flush(now);
        book.send(8, 2, 20);
        assert!(said(&mut book, now).contains(&"Flushed { unconfirmed: 3 }".to_owned()));
    }

    #[test]
    fn a_close_waits_for_what_is_open_but_not_to_its_very_last_moment() {
        let (mut book, now) = (Book::new(), Instant::now());
        book.send(7, 1, 10);
        let by = now + Duration::from_secs(10);
        book.close(now, by);
        assert!(!book.may_close(now) && book.may_close(by - LAST_WORD));
        assert_eq!(book.due(), Some(by - LAST_WORD));
        book.confirm(7, 1, 10);
        assert!(book.may_close(now));
        assert_eq!((book.due(), book.open()), (Some(by), 0));
        assert!(said(&mut book, now).is_empty(), "nothing is asked for any more");
    }
}
