//! One start of a handler, and the sends that it caused.
//!
//! The state is one atomic word, so that a send, its confirm and the handler's return need no lock between them:
//! generation (32 bits), open (1), failed (1), pending sends (30). A pooled attempt that is used again has a new
//! generation; a confirm of an older one finds that and changes nothing.

use super::signal::LaneSignal;
use crate::failure::Failure;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const OPEN: u64 = 1 << 31;
const FAILED: u64 = 1 << 30;
const PENDING: u64 = FAILED - 1;

/// The pooled state of one handler start.
#[derive(Debug)]
pub(crate) struct Attempt {
    state: AtomicU64,
    failure: Mutex<Option<Failure>>,
    id: u32,
    lane: Arc<LaneSignal>,
}

/// What the sends of an attempt have come to when its handler returns.
#[derive(Debug)]
pub(crate) enum Sends {
    /// All confirmed, or there were none.
    Confirmed,
    /// Some are not confirmed yet; the lane will be told.
    Pending,
    /// One failed.
    Failed(Failure),
}

impl Attempt {
    pub(crate) fn new(id: u32, lane: Arc<LaneSignal>) -> Self {
        Self { state: AtomicU64::new(0), failure: Mutex::new(None), id, lane }
    }

    /// Begins a handler start under a new generation: sends are taken from now on.
    #[inline]
    pub(crate) fn open(self: &Arc<Self>) -> Cause {
        let generation = (self.state.load(Ordering::Relaxed) >> 32).wrapping_add(1) as u32;
        self.state.store(u64::from(generation) << 32 | OPEN, Ordering::Release);
        Cause { attempt: self.clone(), generation }
    }

    /// Whether a wake-up of this generation is about the start that is on now.
    #[inline]
    pub(crate) fn is_generation(&self, generation: u32) -> bool {
        (self.state.load(Ordering::Relaxed) >> 32) as u32 == generation
    }

    pub(crate) fn generation(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) >> 32) as u32
    }

    /// Ends the handler's part: no send is taken any more.
    #[inline]
    pub(crate) fn close(&self) -> Sends {
        let before = self.state.fetch_and(!OPEN, Ordering::AcqRel);
        // A failure is told at once: there is nothing in the other confirms to wait for.
        if before & FAILED != 0 {
            self.failed()
        } else if before & PENDING != 0 {
            Sends::Pending
        } else {
            Sends::Confirmed
        }
    }

    /// How the sends stand after the lane was told; not `Pending` by then, unless it was told of something older.
    pub(crate) fn sends(&self) -> Sends {
        let state = self.state.load(Ordering::Acquire);
        if state & FAILED != 0 {
            self.failed()
        } else if state & PENDING != 0 {
            Sends::Pending
        } else {
            Sends::Confirmed
        }
    }

    fn failed(&self) -> Sends {
        let failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        Sends::Failed(failure.unwrap_or_else(|| Failure::retry("a send failed").classed("send")))
    }

    /// Ends the start for good: its open sends concern nobody any more.
    #[inline]
    pub(crate) fn retire(&self) {
        let generation = (self.state.load(Ordering::Relaxed) >> 32).wrapping_add(1) as u32;
        self.state.store(u64::from(generation) << 32, Ordering::Release);
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    }
}

/// The handler start that a send belongs to.
#[derive(Clone)]
pub(crate) struct Cause {
    attempt: Arc<Attempt>,
    generation: u32,
}

/// A send came after its handler had returned, timed out or been cancelled.
#[derive(Debug)]
pub(crate) struct Settled;

impl Cause {
    /// Counts one more send; refused once the handler has returned.
    pub(crate) fn register(&self) -> Result<(), Settled> {
        self.attempt
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                let alive = (state >> 32) as u32 == self.generation && state & OPEN != 0 && state & PENDING < PENDING;
                alive.then(|| state + 1)
            })
            .map(|_| ())
            .map_err(|_| Settled)
    }

    /// One send is confirmed.
    pub(crate) fn confirmed(&self) {
        self.ended(0);
    }

    /// One send failed: so does the attempt.
    pub(crate) fn failed(&self, failure: Failure) {
        {
            // Stored before the bit is set, so that whoever sees the bit finds the reason; under the lock that `retire`
            // takes, so that it is of this start and of no later one.
            let mut kept = self.attempt.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if self.attempt.is_generation(self.generation) {
                *kept = Some(failure);
            }
        }
        self.ended(FAILED);
    }

    fn ended(&self, failed: u64) {
        let before = self.attempt.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
            ((state >> 32) as u32 == self.generation && state & PENDING > 0).then(|| (state - 1) | failed)
        });
        // The lane waits only once the handler has returned; until then `close` sees the state itself.
        if let Ok(before) = before
            && before & OPEN == 0
            && (before & PENDING == 1 || failed != 0)
        {
            self.attempt.lane.confirmed(self.attempt.id, self.generation);
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cause({}.{})", self.attempt.id, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> Arc<Attempt> {
        Arc::new(Attempt::new(3, Arc::new(LaneSignal::default())))
    }

    #[test]
    fn a_handler_that_sent_nothing_is_confirmed_when_it_returns() {
        let attempt = attempt();
        attempt.open();
        assert!(matches!(attempt.close(), Sends::Confirmed));
    }

    #[test]
    fn the_lane_is_told_once_the_last_send_is_confirmed_after_the_return() {
        let attempt = attempt();
        let cause = attempt.open();
        cause.register().unwrap();
        cause.register().unwrap();
        cause.confirmed();
        assert!(matches!(attempt.close(), Sends::Pending));
        assert!(attempt.lane.take_confirmed().is_empty());
        cause.confirmed();
        assert_eq!(attempt.lane.take_confirmed(), [(3, cause.generation)]);
        assert!(matches!(attempt.sends(), Sends::Confirmed));
    }

    #[test]
    fn a_send_after_the_return_is_refused() {
        let attempt = attempt();
        let cause = attempt.open();
        attempt.close();
        assert!(cause.register().is_err());
    }

    #[test]
    fn a_confirm_of_an_older_start_changes_nothing() {
        let attempt = attempt();
        let old = attempt.open();
        old.register().unwrap();
        attempt.retire();
        let new = attempt.open();
        new.register().unwrap();
        old.failed(Failure::reject("late"));
        assert!(matches!(attempt.close(), Sends::Pending));
        new.confirmed();
        assert!(matches!(attempt.sends(), Sends::Confirmed));
    }

    #[test]
    fn a_failed_send_fails_the_attempt_without_waiting_for_the_others() {
        let attempt = attempt();
        let cause = attempt.open();
        cause.register().unwrap();
        cause.register().unwrap();
        assert!(matches!(attempt.close(), Sends::Pending));
        cause.failed(Failure::reject("no such route"));
        assert_eq!(attempt.lane.take_confirmed().len(), 1);
        assert!(matches!(attempt.sends(), Sends::Failed(failure) if failure.chain() == "no such route"));
    }
}
