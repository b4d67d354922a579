//! What becomes of a sink while its broker is gone.

use super::kafka;
use super::records;
use super::writer::{Writer, try_open};
use longshore::ErrorKind;
use longshore::message::Message;
use longshore::transport::SinkAsk;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_nowhere_is_waited_for_as_long_as_patience_says() {
    // Nothing listens on port 1.
    let began = Instant::now();
    let error = try_open("kafka://127.0.0.1:1?topic=t", Duration::from_secs(2)).await.err().unwrap();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Unreachable, 69), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("refused"), "{text}");
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_delays_neither_a_flush_nor_a_close_beyond_their_time() {
    let Some(kafka) = kafka::own(&[]) else { return };
    let topic = kafka.fresh("frozen");
    let mut writer = Writer::open(&format!("{}?topic={topic}", kafka.url())).await;
    writer.publish((0..10).map(|number| Message::new(number.to_string()))).await;
    kafka.aside(|kafka| kafka.freeze()).await;
    writer.send((0..25).map(|number| Message::new(number.to_string()))).await;
    let began = Instant::now();
    writer.tell(SinkAsk::Flush { by: began + Duration::from_secs(2) });
    writer.until("the flush", |writer| !writer.flushed.is_empty()).await;
    let took = began.elapsed();
    assert_eq!(writer.flushed, [25]);
    assert!((Duration::from_millis(1_950)..Duration::from_millis(2_500)).contains(&took), "{took:?}");
    let (unconfirmed, took) = writer.close_within(Duration::from_secs(3)).await;
    assert_eq!(unconfirmed, 25);
    assert!(took < Duration::from_millis(3_300), "{took:?}");
    kafka.aside(|kafka| kafka.thaw()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_told_and_what_was_sent_to_it_is_stored_once_it_thaws() {
    let Some(kafka) = kafka::own(&[]) else { return };
    let topic = kafka.fresh("frozen");
    // 20 s by default.
    let mut writer = Writer::open(&format!("{}?topic={topic}&socket.timeout.ms=3000", kafka.url())).await;
    writer.publish((0..10).map(|number| Message::new(number.to_string()))).await;
    kafka.aside(|kafka| kafka.freeze()).await;
    writer.send((10..500).map(|number| Message::new(number.to_string()))).await;
    writer.until("the loss", |writer| !writer.disconnected.is_empty()).await;
    kafka.aside(|kafka| kafka.thaw()).await;
    writer.all_confirmed().await;
    writer.until("the return", |writer| writer.connected == 2).await;
    assert!(writer.failed().is_empty(), "{:?}", writer.became);
    let numbers: Vec<String> = records::all(&kafka, &topic).await.iter().map(records::Record::text).collect();
    assert_eq!(numbers, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_nothing_stores_nothing_twice_and_keeps_the_order_of_each_key() {
    const MANY: usize = 60_000;
    let Some(kafka) = kafka::own(&[]) else { return };
    let topic = kafka.fresh("killed");
    let made = topic.clone();
    kafka.aside(move |kafka| kafka.create(&made, 4)).await;
    let mut writer = Writer::open(&format!("{}?topic={topic}", kafka.url())).await;
    let message = |number: usize| Message::new(number.to_string()).with_key((number % 100).to_string());
    writer.send((0..MANY / 2).map(message)).await;
    kafka.aside(|kafka| kafka.kill()).await;
    writer.send((MANY / 2..MANY).map(message)).await;
    writer.until("the loss", |writer| !writer.disconnected.is_empty()).await;
    kafka.aside(|kafka| kafka.restart()).await;
    writer.all_confirmed().await;
    writer.until("the return", |writer| writer.connected == 2).await;
    assert!(writer.failed().is_empty(), "{:?}", writer.failed());
    assert!(writer.disconnected[0].contains("no broker can be reached"), "{:?}", writer.disconnected);
    // Said once for an outage.
    assert_eq!(writer.disconnected.len(), 1, "{:?}", writer.disconnected);
    in_order_of_each_key(&records::all(&kafka, &topic).await, MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_among_three_loses_nothing_and_the_sink_stays_connected() {
    const MANY: usize = 30_000;
    let Some(kafka) = kafka::own(&["--nodes", "3"]) else { return };
    let topic = kafka.fresh("led");
    let made = topic.clone();
    kafka.aside(move |kafka| kafka.create(&made, 6)).await;
    let mut writer = Writer::open(&format!("{}?topic={topic}", kafka.url())).await;
    let message = |number: usize| Message::new(number.to_string()).with_key((number % 100).to_string());
    writer.send((0..MANY / 2).map(message)).await;
    kafka.aside(|kafka| kafka.kill_node(2)).await;
    writer.send((MANY / 2..MANY).map(message)).await;
    writer.all_confirmed().await;
    assert!(writer.failed().is_empty(), "{:?}", writer.failed());
    assert_eq!((writer.connected, writer.disconnected.len()), (1, 0), "{:?}", writer.disconnected);
    in_order_of_each_key(&records::all(&kafka, &topic).await, MANY);
}

/// Every number below `many` once, and those of a key, which are equal modulo 100, in order.
fn in_order_of_each_key(records: &[records::Record], many: usize) {
    let mut of_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for record in records {
        of_key.entry(record.key_text()).or_default().push(record.text().parse().unwrap());
    }
    assert_eq!(of_key.len(), 100);
    for (key, numbers) in of_key {
        let wanted: Vec<usize> = (key.parse().unwrap()..many).step_by(100).collect();
        assert!(numbers == wanted, "key {key}: {} of {}", numbers.len(), wanted.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_closes_in_time_while_its_broker_is_dead() {
    let Some(kafka) = kafka::own(&[]) else { return };
    let topic = kafka.fresh("dead");
    let mut writer = Writer::open(&format!("{}?topic={topic}", kafka.url())).await;
    writer.one(Message::new("stored")).await.unwrap();
    kafka.aside(|kafka| kafka.kill()).await;
    writer.send((0..7).map(|number| Message::new(number.to_string()))).await;
    let (unconfirmed, took) = writer.close_within(Duration::from_secs(2)).await;
    assert_eq!(unconfirmed, 7);
    assert!(took < Duration::from_millis(2_300), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sink_says_that_its_broker_is_gone_and_that_it_is_back() {
    let Some(kafka) = kafka::own(&[]) else { return };
    let topic = kafka.fresh("idle");
    let mut writer = Writer::open(&format!("{}?topic={topic}", kafka.url())).await;
    writer.one(Message::new("before")).await.unwrap();
    kafka.aside(|kafka| kafka.kill()).await;
    writer.until("the loss", |writer| !writer.disconnected.is_empty()).await;
    kafka.aside(|kafka| kafka.restart()).await;
    writer.until("the return", |writer| writer.connected == 2).await;
    writer.one(Message::new("after")).await.unwrap();
}
