//! What wakes the thread of a source: orders, answers, and queues of the client library that are no longer empty.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Rung {
    rung: bool,
    /// Partitions whose queues were empty and are not.
    filled: Vec<u32>,
}

/// Rung by anybody, heard by one thread.
#[derive(Default)]
pub(super) struct Bell {
    state: Mutex<Rung>,
    heard: Condvar,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to look at.
    pub(super) fn ring(&self) {
        let first = !std::mem::replace(&mut self.lock().rung, true);
        if first {
            self.heard.notify_one();
        }
    }

    /// The queue of a partition has got something. Called from inside the client library: does nothing else.
    pub(super) fn filled(&self, partition: u32) {
        let mut state = self.lock();
        state.filled.push(partition);
        if !std::mem::replace(&mut state.rung, true) {
            drop(state);
            self.heard.notify_one();
        }
    }

    /// Waits until it rings, or until then; whose queues were filled. Remembers a ring that came before the call.
    pub(super) fn wait(&self, until: Option<Instant>, into: &mut Vec<u32>) {
        let mut state = self.lock();
        while !state.rung {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            // A wait without end overflows on some clocks.
            let left = left.min(Duration::from_secs(3_600));
            state = self.heard.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.rung = false;
        into.append(&mut state.filled);
    }
}
