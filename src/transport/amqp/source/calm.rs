//! When a consumer may be cancelled without its queue losing its order: pure.
//!
//! What a quorum queue has under way when the cancel reaches it is returned singly, ahead of what we hold: out of order
//! 6 of 6 times where the cancel follows acks, which make the queue send more. In order, 6 of 6, where the prefetch is
//! used up, so that nothing can be under way; and 50 ms or more after the last ack where the queue had nothing to
//! send. Classic queues and streams keep their order whenever they are asked.

use super::super::place::QueueType;
use std::time::{Duration, Instant};

/// Nothing was acked and nothing came for so long: nothing is under way. Twice what was enough.
const QUIET: Duration = Duration::from_millis(100);
/// With acks held back, only what is published now still comes, one by one; it is not waited out for longer.
const AT_LAST: Duration = Duration::from_secs(1);

/// When the consumer of a channel last had a reason to be sent something.
#[derive(Debug)]
pub(super) struct Calm {
    waits: bool,
    acked: Instant,
    moved: Instant,
}

impl Calm {
    /// Of a channel that begins.
    pub(super) fn of(queue: Option<QueueType>, now: Instant) -> Self {
        Self { waits: !matches!(queue, Some(QueueType::Classic | QueueType::Stream)), acked: now, moved: now }
    }

    /// A consumer was opened, or acks went out: the queue may send more.
    pub(super) fn acked(&mut self, now: Instant) {
        (self.acked, self.moved) = (now, now);
    }

    /// Something has come.
    pub(super) fn came(&mut self, now: Instant) {
        self.moved = now;
    }

    /// From when on a cancel is harmless, if nothing happens before. `unacked`: what this consumer was sent and the
    /// broker was not told of.
    pub(super) fn at(&self, unacked: usize, prefetch: u16, now: Instant) -> Instant {
        let full = prefetch > 0 && unacked >= usize::from(prefetch);
        if !self.waits || full { now } else { (self.moved + QUIET).min(self.acked + AT_LAST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_classic_queue_is_never_waited_for() {
        let now = Instant::now();
        for queue in [QueueType::Classic, QueueType::Stream] {
            assert_eq!(Calm::of(Some(queue), now).at(1, 16, now), now);
        }
    }

    #[test]
    fn a_quorum_queue_is_left_once_the_prefetch_is_used_up_or_nothing_moves() {
        let now = Instant::now();
        for queue in [Some(QueueType::Quorum), None] {
            let mut calm = Calm::of(queue, now);
            assert_eq!(calm.at(16, 16, now), now);
            assert_eq!(calm.at(15, 16, now), now + QUIET);
            let later = now + Duration::from_millis(70);
            calm.came(later);
            assert_eq!(calm.at(15, 16, later), later + QUIET);
            calm.acked(later + QUIET);
            assert_eq!(calm.at(15, 16, later + QUIET), later + QUIET + QUIET);
        }
    }

    #[test]
    fn a_trickle_is_not_waited_out_for_ever_once_acks_are_held_back() {
        let now = Instant::now();
        let mut calm = Calm::of(Some(QueueType::Quorum), now);
        calm.came(now + AT_LAST);
        assert_eq!(calm.at(15, 16, now + AT_LAST), now + AT_LAST);
    }

    #[test]
    fn a_consumer_without_a_prefetch_is_never_full() {
        let now = Instant::now();
        assert_eq!(Calm::of(None, now).at(9, 0, now), now + QUIET);
    }
}
