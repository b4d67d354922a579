//! How a channel is ended, and how messages go back while it lives, by the type of its queue: pure.
//!
//! What was measured of unacked messages, as a later reader sees them:
//!
//! | queue | `nack` one by one | channel or connection closed | socket dropped |
//! |---|---|---|---|
//! | classic | in order | in order | in order |
//! | quorum with a delivery limit | in order | in order | in order |
//! | quorum without | to the tail | in order | in order |
//! | quorum, another waits as single active consumer | | out of order: it starts beside us | in order |

use super::super::place::QueueType;
use super::super::topology::Queue;

/// The end of a channel, after every settlement was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// `basic.cancel`, whose answer proves every ack before it, then close.
    CancelAndClose,
    /// A [witness](super::witness), whose answer proves them too, then close: after a cancel what is under way would
    /// come back ahead of what we hold.
    WitnessAndClose,
    /// A question, a moment, then the socket is dropped: a cancel would let the next single active consumer start
    /// while what we hold is still ours.
    WaitAndCut,
}

/// How what no handler has started goes back while the source goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recall {
    /// One by one, in order.
    Nack,
    /// With the channel, once what has been started is settled.
    CloseChannel,
}

impl Ending {
    pub(super) fn of(queue: &Queue, single_active: bool) -> Self {
        let single_active = queue.single_active.unwrap_or(single_active);
        match queue.queue_type {
            Some(QueueType::Quorum) | None if single_active => Self::WaitAndCut,
            Some(QueueType::Quorum) | None => Self::WitnessAndClose,
            _ => Self::CancelAndClose,
        }
    }
}

impl Recall {
    /// `by_key`: whether it matters that what goes back keeps its place.
    pub(super) fn of(queue: &Queue, by_key: bool) -> Self {
        match queue.queue_type {
            Some(QueueType::Classic | QueueType::Stream) => Self::Nack,
            Some(QueueType::Quorum) if queue.delivery_limit.is_some() => Self::Nack,
            Some(QueueType::Quorum) | None if by_key => Self::CloseChannel,
            Some(QueueType::Quorum) | None => Self::Nack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_type: Option<QueueType>, delivery_limit: Option<i64>, single_active: Option<bool>) -> Queue {
        Queue { queue_type, single_active, delivery_limit, ..Queue::default() }
    }

    #[test]
    fn only_what_is_no_quorum_queue_is_left_by_a_cancel() {
        for (queue_type, single_active, ending) in [
            (Some(QueueType::Classic), true, Ending::CancelAndClose),
            (Some(QueueType::Classic), false, Ending::CancelAndClose),
            (Some(QueueType::Quorum), true, Ending::WaitAndCut),
            (Some(QueueType::Quorum), false, Ending::WitnessAndClose),
            (Some(QueueType::Stream), false, Ending::CancelAndClose),
            (None, true, Ending::WaitAndCut),
            (None, false, Ending::WitnessAndClose),
        ] {
            assert_eq!(Ending::of(&queue(queue_type, None, None), single_active), ending, "{queue_type:?}");
            // What the broker says of its queue holds against what the URL says.
            assert_eq!(Ending::of(&queue(queue_type, None, Some(single_active)), !single_active), ending);
        }
    }

    #[test]
    fn a_quorum_queue_without_a_limit_takes_back_in_order_only_with_the_channel() {
        for (queue_type, limit, by_key, recall) in [
            (Some(QueueType::Classic), None, true, Recall::Nack),
            (Some(QueueType::Quorum), Some(20), true, Recall::Nack),
            (Some(QueueType::Quorum), None, true, Recall::CloseChannel),
            (Some(QueueType::Quorum), None, false, Recall::Nack),
            (None, None, true, Recall::CloseChannel),
            (None, None, false, Recall::Nack),
        ] {
            assert_eq!(
                Recall::of(&queue(queue_type, limit, None), by_key),
                recall,
                "{queue_type:?} {limit:?} {by_key}"
            );
        }
    }
}
