//! What becomes of what is published.

use super::kafka::{self, Kafka};
use super::records::{self, Record};
use super::writer::{Writer, try_open};
use longshore::message::Message;
use longshore::transport::SinkAsk;
use longshore::{ErrorKind, Fate};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// As many as keep several windows of reports in flight.
const MANY: usize = 200_000;

/// A topic with so many partitions.
async fn topic(kafka: &Kafka, partitions: u32) -> String {
    let name = kafka.fresh("plain");
    let made = name.clone();
    kafka.aside(move |kafka| kafka.create(&made, partitions)).await;
    name
}

fn url(kafka: &Kafka, place: &str) -> String {
    format!("{}?topic={place}", kafka.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_confirmed_and_lies_in_the_topic_once_in_the_order_of_each_key() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = topic(&kafka, 4).await;
    let mut writer = Writer::open(&url(&kafka, &topic)).await;
    let message = |number: usize| Message::new(number.to_string()).with_key((number % 1_000).to_string());
    writer.publish((0..MANY).map(message)).await;
    assert!(writer.failed().is_empty(), "{:?}", writer.failed());
    let (unconfirmed, took) = writer.close_within(Duration::from_secs(30)).await;
    assert!(unconfirmed == 0 && took < Duration::from_secs(5), "{unconfirmed} in {took:?}");
    let mut of_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for record in records::all(&kafka, &topic).await {
        of_key.entry(record.key_text()).or_default().push(record.text().parse().unwrap());
    }
    assert_eq!(of_key.len(), 1_000);
    for (key, numbers) in of_key {
        let wanted: Vec<usize> = (key.parse().unwrap()..MANY).step_by(1_000).collect();
        assert!(numbers == wanted, "key {key}: {} of {}", numbers.len(), wanted.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_headers_times_and_tombstones_are_kept_and_what_is_empty_is_not_absent() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = topic(&kafka, 1).await;
    let mut writer = Writer::open(&url(&kafka, &topic)).await;
    let bytes: Vec<u8> = (0..=255).collect();
    let mut whole = Message::new(bytes.clone()).with_key(bytes.clone());
    whole = whole.with_header("h", &bytes).with_header("é", "2").with_header("h", "").with_header("", "x");
    whole.timestamp_ms = Some(1_234_567_890_123);
    let empty = Message::new("").with_key("");
    let before = now_ms();
    writer.publish([whole, Message::tombstone("gone"), empty, Message::default()]).await;
    let after = now_ms();
    assert!(writer.failed().is_empty(), "{:?}", writer.became);
    let records = records::all(&kafka, &topic).await;
    let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let record = |key: Option<&[u8]>, payload: Option<&[u8]>| Record {
        partition: 0,
        key: key.map(<[u8]>::to_vec),
        payload: payload.map(<[u8]>::to_vec),
        headers: Vec::new(),
        timestamp_ms: None,
    };
    let whole = Record {
        headers: vec![header("h", &bytes), header("é", b"2"), header("h", b""), header("", b"x")],
        timestamp_ms: Some(1_234_567_890_123),
        ..record(Some(&bytes), Some(&bytes))
    };
    assert_eq!(records[0], whole);
    let rest: Vec<Record> = records[1..].iter().map(|each| Record { timestamp_ms: None, ..each.clone() }).collect();
    assert_eq!(rest, [record(Some(b"gone"), None), record(Some(b""), Some(b"")), record(None, None)]);
    // What has no time of its own has that of its sending.
    let times = records[1..].iter().map(|record| record.timestamp_ms.unwrap());
    assert!(
        times.clone().all(|time| (before..=after).contains(&time)),
        "{before} {:?} {after}",
        times.collect::<Vec<_>>()
    );
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lies_where_the_client_of_java_puts_it() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = topic(&kafka, 7).await;
    // Keys and hashes as Apache Kafka's own tests of `Utils.murmur2` have them.
    let hashes: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    let mut writer = Writer::open(&url(&kafka, &topic)).await;
    writer.publish(hashes.iter().map(|(key, _)| Message::new("x").with_key(*key))).await;
    assert!(writer.failed().is_empty(), "{:?}", writer.became);
    let lies: BTreeMap<String, i32> =
        records::all(&kafka, &topic).await.iter().map(|record| (record.key_text(), record.partition)).collect();
    let wanted = hashes.iter().map(|(key, hash)| ((*key).to_owned(), (hash & 0x7fff_ffff) % 7));
    assert_eq!(lies, wanted.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_fails_alone_and_for_good() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = kafka.fresh("small");
    let made = topic.clone();
    kafka
        .aside(move |kafka| {
            kafka.ctl(&[
                "topics",
                "--create",
                "--topic",
                &made,
                "--partitions",
                "2",
                "--config",
                "max.message.bytes=20000",
            ])
        })
        .await;
    let mut writer = Writer::open(&url(&kafka, &topic)).await;
    // Without one that is too large, all would be one batch over the limit.
    let body = |number: u64| format!("{number} {}", "x".repeat(if number % 50 == 7 { 20_000 } else { 1_000 }));
    let message = |number: u64| Message::new(body(number)).with_key((number % 10).to_string());
    writer.publish((0..500).map(message)).await;
    let over: Vec<u64> = (0..500).filter(|number| number % 50 == 7).collect();
    assert_eq!(writer.failed(), over);
    let failure = writer.became[&7].as_ref().unwrap_err();
    assert_eq!((failure.fate(), failure.class()), (&Fate::Reject, "too_large"), "{failure:?}");
    assert!(failure.chain().contains(&topic) && failure.chain().contains("20003 bytes"), "{failure:?}");
    let mut numbers: Vec<u64> = Vec::new();
    for record in records::all(&kafka, &topic).await {
        numbers.push(record.text().split(' ').next().unwrap().parse().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..500).filter(|number| number % 50 != 7).collect::<Vec<_>>());
    assert_eq!((writer.connected, writer.disconnected.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_no_broker_reads_fails_before_it_costs_the_connection() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = topic(&kafka, 1).await;
    let mut writer = Writer::open(&url(&kafka, &topic)).await;
    let failure = writer.one(Message::new(vec![b'x'; 100 << 20])).await.unwrap_err();
    assert_eq!((failure.fate(), failure.class()), (&Fate::Reject, "too_large"), "{failure:?}");
    // Over the topic's limit, and read by the broker.
    let failure = writer.one(Message::new(vec![b'x'; 2 << 20])).await.unwrap_err();
    assert_eq!((failure.fate(), failure.class()), (&Fate::Reject, "too_large"), "{failure:?}");
    writer.one(Message::new("small")).await.unwrap();
    assert_eq!((writer.connected, writer.disconnected.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_topic_is_made_or_told_as_declare_says() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = kafka.fresh("absent");
    let began = Instant::now();
    let error = try_open(&url(&kafka, &format!("{topic}&declare=false")), Duration::from_secs(60)).await.err().unwrap();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Configuration, 78), "{error:?}");
    assert!(error.to_string().contains(&format!("topic '{topic}' does not exist")), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "no patience mends it: {:?}", began.elapsed());
    let mut writer = Writer::open(&url(&kafka, &topic)).await;
    writer.one(Message::new("first")).await.unwrap();
    assert_eq!(records::all(&kafka, &topic).await[0].text(), "first");
    // It is there now.
    Writer::open(&url(&kafka, &format!("{topic}&declare=false"))).await.one(Message::new("second")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_answers_once_what_was_sent_before_it_is_stored() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = topic(&kafka, 4).await;
    let mut writer = Writer::open(&url(&kafka, &topic)).await;
    writer.send((0..5_000).map(|number| Message::new(number.to_string()))).await;
    writer.tell(SinkAsk::Flush { by: Instant::now() + Duration::from_secs(30) });
    writer.until("the flush", |writer| !writer.flushed.is_empty()).await;
    assert_eq!(writer.flushed, [0]);
    assert_eq!(records::all(&kafka, &topic).await.len(), 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_fails_what_cannot_be_stored_and_is_not_made_again_by_it() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = topic(&kafka, 1).await;
    // 30 s by default.
    let mut writer = Writer::open(&url(&kafka, &format!("{topic}&topic.metadata.propagation.max.ms=1000"))).await;
    writer.one(Message::new("a")).await.unwrap();
    let deleted = topic.clone();
    kafka.aside(move |kafka| kafka.ctl(&["topics", "--delete", "--topic", &deleted])).await;
    let failure = writer.one(Message::new("b")).await.unwrap_err();
    assert!(matches!(failure.fate(), Fate::Retry { .. }) && failure.chain().contains(&topic), "{failure:?}");
    let left = kafka.aside(|kafka| kafka.ctl(&["topics", "--list"])).await;
    assert!(!left.lines().any(|line| line == topic), "{left}");
}
