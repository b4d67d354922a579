//! Whether the app's executor turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Beats before the executor counts as dead.
const BEATS: u32 = 10;

/// The time of the last beat: written by a task of the app's executor, read by the server's thread.
///
/// Real time, not tokio's: a paused clock must not make an executor look alive or dead.
pub(super) struct Pulse {
    born: Instant,
    last_ms: AtomicU64,
    alive_within: Duration,
}

impl Pulse {
    pub(super) fn new(alive_within: Duration) -> Self {
        Self { born: Instant::now(), last_ms: AtomicU64::new(0), alive_within }
    }

    /// Beats for ever; to be spawned on the executor that is watched.
    pub(super) async fn beat(self: Arc<Self>) {
        loop {
            self.last_ms.store(self.now_ms(), Ordering::Relaxed);
            tokio::time::sleep(self.alive_within / BEATS).await;
        }
    }

    /// Time since the last beat.
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.age() < self.alive_within
    }

    fn now_ms(&self) -> u64 {
        // 584 million years fit.
        self.born.elapsed().as_millis() as u64
    }
}
