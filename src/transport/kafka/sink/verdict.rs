//! What a delivery report means for its message.

use super::window::Marks;
use crate::failure::Failure;
use crate::transport::kafka::context::Ear;
use crate::transport::kafka::refusal::words;
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use std::sync::Arc;

/// What becomes of a message that is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The producer has lost count, or come to its end, and given it up without an answer: it is handed over again.
    Undecided,
    /// It will never be stored as it is.
    Reject,
    /// It may be stored later.
    Retry,
}

fn fate(code: Code) -> Fate {
    match code {
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal
        | Code::BrokerDestroy
        | Code::Inconsistent
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch => Fate::Undecided,
        Code::MessageSizeTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::UnsupportedForMessageFormat => Fate::Reject,
        _ => Fate::Retry,
    }
}

/// Hears what a producer says: delivery reports, on the thread that polls it.
pub(super) struct Reports {
    pub(super) ear: Ear,
    marks: Arc<Marks>,
    topic: Arc<str>,
}

impl Reports {
    pub(super) fn new(ear: Ear, marks: Arc<Marks>, topic: Arc<str>) -> Self {
        Self { ear, marks, topic }
    }

    /// The message was refused, by the broker or before it was sent.
    pub(super) fn refuse(&self, number: usize, code: Code, bytes: usize) {
        let text = match code {
            Code::MessageSizeTooLarge => {
                format!("topic '{}': {}: {bytes} bytes are more than it takes", self.topic, words(code))
            }
            _ => format!("topic '{}': {}", self.topic, words(code)),
        };
        let failure = match (fate(code), code) {
            // It stays open.
            (Fate::Undecided, _) => return,
            (Fate::Reject, Code::MessageSizeTooLarge) => Failure::reject(text).classed("too_large"),
            (Fate::Reject, _) => Failure::reject(text),
            (Fate::Retry, _) => Failure::retry(text),
        };
        self.marks.failed(number, failure);
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.ear.log(level, facility, text);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.error(error, reason);
    }
}

impl ProducerContext for Reports {
    /// The number of the message in its [window](super::window).
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(_) => self.marks.stored(number),
            Err((error, message)) => {
                let bytes = message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len);
                self.refuse(number, error.rdkafka_error_code().unwrap_or(Code::Fail), bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_second_try_mends_is_rejected_and_what_a_dying_producer_gives_up_is_not_decided() {
        for (code, wanted) in [
            (Code::MessageSizeTooLarge, Fate::Reject),
            (Code::InvalidRecord, Fate::Reject),
            (Code::InvalidTimestamp, Fate::Reject),
            (Code::InvalidDifferentRecord, Fate::Retry),
            (Code::TopicAuthorizationFailed, Fate::Retry),
            (Code::UnknownTopicOrPartition, Fate::Retry),
            (Code::NotEnoughReplicas, Fate::Retry),
            (Code::MessageTimedOut, Fate::Retry),
            (Code::PurgeInflight, Fate::Undecided),
            (Code::PurgeQueue, Fate::Undecided),
            (Code::Fatal, Fate::Undecided),
            (Code::OutOfOrderSequenceNumber, Fate::Undecided),
        ] {
            assert_eq!(fate(code), wanted, "{code:?}");
        }
    }
}
