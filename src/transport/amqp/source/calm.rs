//! When a consumer can be cancelled without disorder: pure.
//!
//! An ack gives a quorum queue credit, and it sends more. What reaches the broker's channel after a `basic.cancel` goes
//! back singly, ahead of the rest: measured, a cancel right after acks left the queue out of order 6 times of 6, and a
//! question in between did not help. Cancelled when as much was let out as the prefetch allows, or when nothing had been
//! acked and nothing had come for a while, it was in order each time. A classic queue always is.

use super::super::place::QueueType;
use std::time::{Duration, Instant};

/// Neither an ack nor a delivery for so long: nothing is under way.
const CALM: Duration = Duration::from_millis(100);

/// What is known of the traffic of one consumer.
#[derive(Debug)]
pub(super) struct Calm {
    /// Whether it matters.
    matters: bool,
    /// The last ack, and the last delivery after one.
    last: Option<Instant>,
}

impl Calm {
    pub(super) fn of(queue: Option<QueueType>) -> Self {
        Self { matters: matches!(queue, Some(QueueType::Quorum) | None), last: None }
    }

    /// A new consumer has got no ack yet.
    pub(super) fn opened(&mut self) {
        self.last = None;
    }

    pub(super) fn acked(&mut self, now: Instant) {
        self.last = Some(now);
    }

    pub(super) fn arrived(&mut self, now: Instant) {
        if let Some(last) = &mut self.last {
            *last = now;
        }
    }

    /// When it can be cancelled, if nothing happens before. `full`: the broker has let out all that it may.
    pub(super) fn at(&self, now: Instant, full: bool) -> Instant {
        match self.last {
            Some(last) if self.matters && !full => last + CALM,
            _ => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_queue_is_cancelled_when_it_is_full_or_when_nothing_moves() {
        let now = Instant::now();
        let later = now + Duration::from_millis(20);
        for queue in [Some(QueueType::Quorum), None] {
            let mut calm = Calm::of(queue);
            calm.arrived(now);
            assert_eq!(calm.at(now, false), now, "nothing was acked");
            calm.acked(now);
            assert_eq!((calm.at(now, true), calm.at(now, false)), (now, now + CALM));
            calm.arrived(later);
            assert_eq!(calm.at(later, false), later + CALM);
            calm.opened();
            assert_eq!(calm.at(later, false), later);
        }
        let mut classic = Calm::of(Some(QueueType::Classic));
        classic.acked(now);
        assert_eq!(classic.at(now, false), now);
    }
}
