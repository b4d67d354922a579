//! Which acks are known to have arrived: pure.
//!
//! An ack has no answer, and the client library says only that it is on the socket. What was measured to prove more:
//!
//! | queue | a later answer on the channel | `basic.cancel-ok` |
//! |---|---|---|
//! | classic | proves | proves |
//! | quorum, and one whose type is unknown | does not: the broker holds settlements back for a moment | proves |
//!
//! So on a quorum queue that is still consumed from, *proven* means: sent, the channel has answered a later question,
//! and [`SETTLES_IN`] has passed since. That is a time and no proof. A stop that may cancel its consumer has the real
//! one. No proof outlives the broker: what has arrived is not on its disk yet, and a broker that is killed soon after may
//! forget it (seen of a classic queue) and bring the message again.

use super::super::place::QueueType;
use crate::failure::Tally;
use std::time::{Duration, Instant};

/// One question at a time, and no more often than this: it costs the hot path nothing.
const ASKED_EVERY: Duration = Duration::from_millis(50);
/// How long a quorum queue may hold settlements back after its channel has answered; none was seen to be lost then.
const SETTLES_IN: Duration = Duration::from_millis(50);
/// Nothing proven for so long, though something waits for it: the connection is not to be trusted.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// What an answer on the channel says of the acks before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// They have arrived.
    Proves,
    /// They will have, after [`SETTLES_IN`].
    ProvesLater,
}

impl Answer {
    pub(super) fn of(queue: Option<QueueType>) -> Self {
        match queue {
            Some(QueueType::Classic | QueueType::Stream) => Self::Proves,
            Some(QueueType::Quorum) | None => Self::ProvesLater,
        }
    }
}

/// Settlements on their way, with the time since when the oldest of them is.
#[derive(Debug, Clone, Copy)]
struct Sent {
    tally: Tally,
    since: Instant,
}

/// Settlements of one channel that were sent and are not proven.
#[derive(Debug)]
pub(super) struct Proofs {
    answer: Answer,
    /// Sent since the last question.
    sent: Option<Sent>,
    /// Sent before the question that is open.
    asked: Option<Sent>,
    /// The question is answered; proven from then on.
    answered: Option<(Sent, Instant)>,
    last_asked: Option<Instant>,
}

impl Proofs {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, sent: None, asked: None, answered: None, last_asked: None }
    }

    /// How long after an answer whatever was sent before it has taken effect.
    pub(super) fn settles_in(&self) -> Duration {
        match self.answer {
            Answer::Proves => Duration::ZERO,
            Answer::ProvesLater => SETTLES_IN,
        }
    }

    /// These are on the socket.
    pub(super) fn sent(&mut self, tally: Tally, now: Instant) {
        if tally.total() > 0 {
            self.sent.get_or_insert(Sent { tally: Tally::default(), since: now }).tally += tally;
        }
    }

    /// When a question is worth it; `None` while there is nothing to ask, or one is under way.
    pub(super) fn ask_at(&self, now: Instant, urgent: bool) -> Option<Instant> {
        if self.sent.is_none() || self.asked.is_some() || self.answered.is_some() {
            return None;
        }
        Some(if urgent { now } else { self.last_asked.map_or(now, |last| last + ASKED_EVERY) })
    }

    /// The question goes out, behind everything that was sent.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked = self.sent.take();
        self.last_asked = Some(now);
    }

    /// It is answered.
    pub(super) fn answered(&mut self, now: Instant) {
        if let Some(sent) = self.asked.take() {
            self.answered = Some((sent, now + self.settles_in()));
        }
    }

    /// What is proven by now, once.
    pub(super) fn proven(&mut self, now: Instant) -> Tally {
        match self.answered {
            Some((sent, at)) if at <= now => {
                self.answered = None;
                sent.tally
            }
            _ => Tally::default(),
        }
    }

    /// When [`Proofs::proven`] has something to say.
    pub(super) fn proven_at(&self) -> Option<Instant> {
        self.answered.map(|(_, at)| at)
    }

    fn all(&self) -> impl Iterator<Item = Sent> {
        [self.sent, self.asked, self.answered.map(|(sent, _)| sent)].into_iter().flatten()
    }

    /// Everything that is not proven; it is forgotten: a cancel has proven it, or it will never be known.
    pub(super) fn take_all(&mut self) -> Tally {
        let mut tally = Tally::default();
        self.all().for_each(|sent| tally += sent.tally);
        (self.sent, self.asked, self.answered) = (None, None, None);
        tally
    }

    /// Whether everything that was sent is proven.
    pub(super) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// From when on the connection is not to be trusted, unless something is proven before.
    pub(super) fn doubtful_at(&self) -> Option<Instant> {
        self.all().map(|sent| sent.since + TRUSTED_FOR).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(acked: u64) -> Tally {
        Tally { acked, ..Tally::default() }
    }

    #[test]
    fn an_answer_proves_what_was_sent_before_the_question_and_no_more() {
        let now = Instant::now();
        let mut proofs = Proofs::new(Answer::of(Some(QueueType::Classic)));
        proofs.sent(acked(3), now);
        proofs.asked(now);
        proofs.sent(acked(2), now);
        assert_eq!(proofs.ask_at(now, true), None, "one question at a time");
        proofs.answered(now);
        assert_eq!((proofs.proven(now), proofs.proven(now)), (acked(3), acked(0)));
        assert_eq!(proofs.take_all(), acked(2));
    }

    #[test]
    fn on_a_quorum_queue_an_answer_proves_nothing_until_a_while_later() {
        let now = Instant::now();
        for queue in [Some(QueueType::Quorum), None] {
            let mut proofs = Proofs::new(Answer::of(queue));
            proofs.sent(acked(1), now);
            proofs.asked(now);
            proofs.answered(now);
            assert_eq!(proofs.proven(now + SETTLES_IN - Duration::from_millis(1)), acked(0));
            assert_eq!(proofs.proven(now + SETTLES_IN), acked(1));
            assert!(proofs.is_empty());
        }
    }

    #[test]
    fn questions_are_rare_unless_somebody_waits() {
        let now = Instant::now();
        let mut proofs = Proofs::new(Answer::Proves);
        assert_eq!(proofs.ask_at(now, true), None, "nothing to ask");
        proofs.sent(acked(1), now);
        assert_eq!(proofs.ask_at(now, false), Some(now));
        proofs.asked(now);
        proofs.answered(now);
        proofs.proven(now);
        proofs.sent(acked(1), now);
        assert_eq!(proofs.ask_at(now, false), Some(now + ASKED_EVERY));
        assert_eq!(proofs.ask_at(now, true), Some(now));
    }

    #[test]
    fn what_is_nowhere_proven_is_there_to_be_told_unknown() {
        let now = Instant::now();
        let mut proofs = Proofs::new(Answer::ProvesLater);
        proofs.sent(acked(1), now);
        proofs.asked(now);
        proofs.answered(now);
        proofs.sent(acked(2), now);
        assert_eq!(proofs.doubtful_at(), Some(now + TRUSTED_FOR));
        assert_eq!((proofs.take_all(), proofs.is_empty()), (acked(3), true));
    }
}
