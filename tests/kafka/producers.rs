//! What becomes of what was sent when a producer comes to its end. No real broker does that to one at will: librdkafka's
//! own, which speaks the protocol in this process, answers what it is told to.

use super::records;
use super::writer::Writer;
use longshore::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

const LOST_COUNT: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    cluster
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = Message> {
    range.map(|number| Message::new(number.to_string()).with_key("k"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_has_lost_count_is_replaced_and_nothing_is_lost_or_out_of_order() {
    let cluster = cluster();
    let mut writer = Writer::open(&format!("kafka://{}?topic=t", cluster.bootstrap_servers())).await;
    writer.publish(numbers(0..100)).await;
    cluster.request_errors(RDKafkaApiKey::Produce, &[LOST_COUNT]);
    writer.publish(numbers(100..2_000)).await;
    assert!(writer.failed().is_empty(), "{:?}", writer.failed());
    assert_eq!(writer.troubles.len(), 1, "{:?}", writer.troubles);
    assert!(writer.troubles[0].contains("sequence"), "{:?}", writer.troubles);
    let bootstrap = cluster.bootstrap_servers();
    let stored = tokio::task::spawn_blocking(move || records::read(&bootstrap, "t")).await.unwrap();
    let mut stored: Vec<u32> = stored.iter().map(|record| record.text().parse().unwrap()).collect();
    // What was stored without an answer is stored again: order is that of the first of each.
    let mut seen = std::collections::HashSet::new();
    stored.retain(|number| seen.insert(*number));
    assert_eq!(stored, (0..2_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_loses_count_again_and_again_is_given_up_and_says_why() {
    let cluster = cluster();
    let mut writer = Writer::open(&format!("kafka://{}?topic=t", cluster.bootstrap_servers())).await;
    writer.publish(numbers(0..10)).await;
    cluster.request_errors(RDKafkaApiKey::Produce, &[LOST_COUNT; 20]);
    writer.send(numbers(10..20)).await;
    let failure = writer.until_it_fails().await;
    assert_eq!(failure.exit_code(), 70, "{failure}");
    assert!(failure.to_string().contains("sequence"), "{failure}");
    assert_eq!(writer.became.len(), 10, "what is open is not said to be stored");
}
