//! What lanes show while they run: handler times for the metrics, running messages for the board.

use crate::engine::lane::LaneView;
use crate::message::At;
use crate::telemetry::handler_times::HandlerTimes;
use crate::telemetry::metrics::WorkerMetrics;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Handler times go to the metrics this often.
const FLUSH_EVERY: Duration = Duration::from_millis(250);

pub(super) struct Watch {
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) times: HandlerTimes,
    pub(super) flushed: Instant,
}

impl Watch {
    pub(super) fn new(metrics: Arc<WorkerMetrics>) -> Self {
        Self { metrics, times: HandlerTimes::new(), flushed: Instant::now() }
    }
}

impl LaneView for Watch {
    fn polling(&mut self, _at: At, _attempt: u32, _now: Instant) {}
    fn polled(&mut self) {}
    fn pending(&mut self, _slot: u32, _at: At, _attempt: u32, _since: Instant) {}
    fn vacant(&mut self, _slot: u32) {}

    fn handled(&mut self, took: Duration) {
        self.times.record(took);
    }

    fn turned(&mut self, now: Instant) {
        if now.saturating_duration_since(self.flushed) >= FLUSH_EVERY {
            self.flushed = now;
            self.times.flush(&self.metrics);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.times.flush(&self.metrics);
    }
}
