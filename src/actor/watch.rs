//! What lanes show while they run: handler times for the metrics, running messages for the board.

use crate::engine::lane::LaneView;
use crate::message::At;
use crate::process::board::{Board, LaneLine};
use crate::telemetry::handler_times::HandlerTimes;
use crate::telemetry::metrics::WorkerMetrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Handler times go to the metrics this often.
const FLUSH_EVERY: Duration = Duration::from_millis(250);

pub(super) struct Watch {
    metrics: Arc<WorkerMetrics>,
    times: HandlerTimes,
    flushed: Instant,
    board: Arc<Board>,
    lane: Arc<LaneLine>,
    /// The board's clock as of the last turn: a millisecond is fine enough, and reading it for each message is not free.
    now_ms: u64,
    /// Counts the lanes of the worker that are not gone.
    alive: Arc<AtomicUsize>,
}

impl Watch {
    pub(super) fn new(
        metrics: Arc<WorkerMetrics>,
        board: Arc<Board>,
        lane: Arc<LaneLine>,
        alive: Arc<AtomicUsize>,
    ) -> Self {
        alive.fetch_add(1, Ordering::AcqRel);
        let now_ms = board.now_ms();
        Self { metrics, times: HandlerTimes::new(), flushed: Instant::now(), board, lane, now_ms, alive }
    }
}

impl LaneView for Watch {
    fn polling(&mut self, at: At, attempt: u32) {
        self.lane.polling(at.position, at.epoch, at.partition, attempt, self.now_ms);
    }

    fn polled(&mut self) {
        self.lane.idle();
    }

    fn pending(&mut self, slot: u32, at: At, attempt: u32, since: Instant) {
        let since = self.board.ms_of(since);
        self.lane.slot(slot as usize).set(at.position, at.epoch, at.partition, attempt, since);
    }

    fn vacant(&mut self, slot: u32) {
        self.lane.slot(slot as usize).clear();
    }

    fn handled(&mut self, took: Duration) {
        self.times.record(took);
    }

    fn turned(&mut self, now: Instant) {
        self.now_ms = self.board.ms_of(now);
        if now.saturating_duration_since(self.flushed) >= FLUSH_EVERY {
            self.flushed = now;
            self.times.flush(&self.metrics);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.lane.idle();
        self.times.flush(&self.metrics);
        self.alive.fetch_sub(1, Ordering::AcqRel);
    }
}
