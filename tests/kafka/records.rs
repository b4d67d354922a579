//! What lies in a topic, as another client reads it.

use super::kafka::Kafka;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// Whoever waits longer has found a hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a partition of a node nearby tells within.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp_ms: Option<i64>,
}

impl Record {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let of = |header: rdkafka::message::Header<'_, &[u8]>| {
                (header.key.to_owned(), header.value.expect("no header of ours is null").to_vec())
            };
            headers.iter().map(of).collect()
        });
        Self {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp_ms: message.timestamp().to_millis(),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.payload.clone().expect("a payload")).unwrap()
    }

    pub fn key_text(&self) -> String {
        String::from_utf8(self.key.clone().expect("a key")).unwrap()
    }
}

/// Everything that lies in a topic now, in the order of each partition.
pub async fn all(kafka: &Kafka, topic: &str) -> Vec<Record> {
    let topic = topic.to_owned();
    kafka.aside(move |kafka| read(kafka.bootstrap(), &topic)).await
}

pub fn read(bootstrap: &str, topic: &str) -> Vec<Record> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "reader").set("enable.auto.commit", "false");
    config.set("receive.message.max.bytes", "200000000").set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = config.create().unwrap();
    let began = Instant::now();
    let metadata = told(began, || consumer.fetch_metadata(Some(topic), ANSWER));
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let (mut from, mut left) = (TopicPartitionList::new(), 0);
    for partition in 0..partitions {
        let (low, high) = told(began, || consumer.fetch_watermarks(topic, partition, ANSWER));
        left += high - low;
        from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&from).unwrap();
    let mut all = Vec::new();
    while left > 0 {
        assert!(began.elapsed() < PATIENCE, "topic '{topic}' gives {} records, and {left} more lie in it", all.len());
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                all.push(Record::of(&message));
                left -= 1;
            }
            // A node that was away a moment ago says so once.
            Some(Err(error)) => assert!(error.rdkafka_error_code().is_some(), "topic '{topic}': {error}"),
            None => {}
        }
    }
    all
}

/// The answer of a node, which may have been away a moment ago: then it leads no partition for a while.
fn told<T>(began: Instant, ask: impl Fn() -> KafkaResult<T>) -> T {
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
