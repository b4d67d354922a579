//! The counts of one worker while it runs, on its line of the board.

use super::report;
use crate::failure::Tally;
use crate::process::board::ActorLine;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counted by the worker's loop; read by the report, the progress line and the thread that owns the deadline.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    line: Arc<ActorLine>,
}

fn add(cell: &AtomicU64, count: u64) {
    if count > 0 {
        cell.fetch_add(count, Ordering::Relaxed);
    }
}

impl Counts {
    pub(crate) fn new(line: Arc<ActorLine>) -> Self {
        Self { line }
    }

    pub(crate) fn line(&self) -> &Arc<ActorLine> {
        &self.line
    }

    pub(crate) fn received(&self, messages: u64) {
        add(&self.line.cells.received, messages);
    }

    pub(crate) fn settled(&self, tally: Tally) {
        let cells = &self.line.cells;
        add(&cells.acked, tally.acked);
        add(&cells.retried, tally.retried);
        add(&cells.dead_lettered, tally.dead_lettered);
        add(&cells.discarded, tally.discarded);
    }

    /// These were counted as settled and did not take effect: unknown, or returned to whoever owns them now.
    pub(crate) fn unsettled(&self, tally: Tally, unknown: bool) {
        let cells = &self.line.cells;
        for (cell, count) in [
            (&cells.acked, tally.acked),
            (&cells.retried, tally.retried),
            (&cells.dead_lettered, tally.dead_lettered),
            (&cells.discarded, tally.discarded),
        ] {
            cell.fetch_sub(count, Ordering::Relaxed);
        }
        add(if unknown { &cells.unknown } else { &cells.returned }, tally.total());
    }

    pub(crate) fn returned(&self, messages: u64) {
        add(&self.line.cells.returned, messages);
    }

    pub(crate) fn abandoned(&self, messages: u64) {
        add(&self.line.cells.abandoned, messages);
    }

    pub(crate) fn in_flight(&self, messages: u64) {
        self.line.cells.in_flight.store(messages, Ordering::Relaxed);
    }

    /// Delivered and not settled, as of the last look.
    pub(crate) fn now_in_flight(&self) -> u64 {
        self.line.cells.in_flight.load(Ordering::Relaxed)
    }

    /// The numbers now.
    pub(crate) fn snapshot(&self) -> report::Counts {
        report::Counts::read(&self.line.cells)
    }
}
