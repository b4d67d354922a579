//! The counts of one worker while it runs.

use super::report;
use crate::failure::Tally;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counted by the worker's loop, read by the report and the progress line.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    received: AtomicU64,
    acked: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
    discarded: AtomicU64,
    returned: AtomicU64,
    abandoned: AtomicU64,
    unknown: AtomicU64,
    in_flight: AtomicU64,
}

fn add(cell: &AtomicU64, count: u64) {
    if count > 0 {
        cell.fetch_add(count, Ordering::Relaxed);
    }
}

impl Counts {
    pub(crate) fn received(&self, messages: u64) {
        add(&self.received, messages);
    }

    pub(crate) fn settled(&self, tally: Tally) {
        add(&self.acked, tally.acked);
        add(&self.retried, tally.retried);
        add(&self.dead_lettered, tally.dead_lettered);
        add(&self.discarded, tally.discarded);
    }

    /// These were counted as settled and did not take effect: unknown, or returned to whoever owns them now.
    pub(crate) fn unsettled(&self, tally: Tally, unknown: bool) {
        for (cell, count) in [
            (&self.acked, tally.acked),
            (&self.retried, tally.retried),
            (&self.dead_lettered, tally.dead_lettered),
            (&self.discarded, tally.discarded),
        ] {
            cell.fetch_sub(count, Ordering::Relaxed);
        }
        add(if unknown { &self.unknown } else { &self.returned }, tally.total());
    }

    pub(crate) fn returned(&self, messages: u64) {
        add(&self.returned, messages);
    }

    pub(crate) fn abandoned(&self, messages: u64) {
        add(&self.abandoned, messages);
    }

    pub(crate) fn in_flight(&self, messages: u64) {
        self.in_flight.store(messages, Ordering::Relaxed);
    }

    /// Delivered and not settled, as of the last tick.
    pub(crate) fn now_in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The numbers now.
    pub(crate) fn snapshot(&self) -> report::Counts {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        report::Counts {
            received: read(&self.received),
            acked: read(&self.acked),
            retried: read(&self.retried),
            dead_lettered: read(&self.dead_lettered),
            discarded: read(&self.discarded),
            returned: read(&self.returned),
            abandoned: read(&self.abandoned),
            unknown: read(&self.unknown),
        }
    }
}
