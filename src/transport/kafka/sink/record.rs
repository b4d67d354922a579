//! A message as a record of Kafka: key, payload, headers and time as they are. What is absent stays absent, so that a
//! tombstone is none of an empty payload.

use super::verdict::Reports;
use crate::message::MessageRef;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord};

/// Hands a message to the producer, which copies it. Never waits.
///
/// # Errors
/// Its queue is full, the record is larger than any broker takes, or the producer is over.
pub(super) fn hand_over(
    producer: &BaseProducer<Reports>,
    topic: &str,
    number: usize,
    message: MessageRef<'_>,
) -> Result<(), KafkaError> {
    let mut record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(topic, number);
    record.key = message.key();
    record.payload = message.payload();
    // 0 and less would be now to librdkafka, or nothing to a broker.
    record.timestamp = message.timestamp_ms().filter(|time| *time > 0);
    if !message.headers().is_empty() {
        let headers = message
            .headers()
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        record.headers = Some(headers);
    }
    producer.send(record).map_err(|(error, _)| error)
}
