//! What tests with real Kafka rely on: that a node does what it is told, and keeps what a client was told it has.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/proxy.rs"]
mod proxy;

use kafka::{Kafka, answers};
use proxy::Proxy;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::path::Path;
use std::time::{Duration, Instant};

/// Whoever waits longer has found a hang.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long nothing may arrive where nothing can: a fault is seen with near certainty, and no good run fails by it.
const SILENCE: Duration = Duration::from_millis(200);
/// Who watches over the owners has looked twice.
const LOOKED_TWICE: Duration = Duration::from_millis(1_200);

fn client(bootstrap: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    more.iter().for_each(|(key, value)| {
        config.set(*key, *value);
    });
    config
}

/// Returns when every node that has to has the record.
fn produce(kafka: &Kafka, topic: &str, payload: &str) {
    let producer: BaseProducer = client(kafka.bootstrap(), &[("acks", "all")]).create().unwrap();
    producer.send(BaseRecord::<(), str>::to(topic).partition(0).payload(payload)).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

/// What lies in partition 0 from its beginning, so many records.
fn consume(kafka: &Kafka, topic: &str, count: usize) -> Vec<String> {
    let consumer: BaseConsumer = client(kafka.bootstrap(), &[("group.id", "unused")]).create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let (began, mut all) = (Instant::now(), Vec::new());
    while all.len() < count {
        assert!(began.elapsed() < PATIENCE, "{all:?}");
        if let Some(Ok(record)) = consumer.poll(SILENCE) {
            all.push(String::from_utf8(record.payload().unwrap().to_vec()).unwrap());
        }
    }
    all
}

/// The names of all topics; the reason if this client is not let in.
fn topics(config: &ClientConfig) -> Result<Vec<String>, KafkaError> {
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(5))?;
    Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
}

#[test]
fn a_node_keeps_its_records_when_it_is_killed_and_none_when_it_is_reset() {
    let (Some(node), Some(other)) = (kafka::own(&[]), kafka::shared()) else { return };
    let topic = node.fresh("kept");
    let has = |kafka: &Kafka| topics(&client(kafka.bootstrap(), &[])).unwrap().contains(&topic);
    node.create(&topic, 1);
    assert_eq!((has(&node), has(&other)), (true, false), "two nodes at once are strangers");
    produce(&node, &topic, "one");
    node.restart();
    produce(&node, &topic, "two");
    let port = node.ports()[0];
    node.freeze();
    assert!(!answers(port, SILENCE), "a frozen node answers");
    node.thaw();
    assert!(answers(port, PATIENCE), "a node does not answer after it was thawed");
    node.freeze();
    node.kill();
    assert!(!answers(port, PATIENCE), "a killed node answers");
    node.restart();
    assert_eq!(consume(&node, &topic, 2), ["one", "two"]);
    node.reset();
    assert!(!has(&node));
}

#[test]
fn a_topic_is_not_made_by_who_asks_for_it_unless_the_node_is_told_to() {
    let (Some(strict), Some(lenient)) = (kafka::shared(), kafka::own(&["--set", "auto.create.topics.enable=true"]))
    else {
        return;
    };
    let made = |kafka: &Kafka, limit_ms: &str| {
        let topic = kafka.fresh("asked-for");
        let producer: BaseProducer = client(kafka.bootstrap(), &[("message.timeout.ms", limit_ms)]).create().unwrap();
        producer.send(BaseRecord::<(), str>::to(&topic).payload("one")).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
        topics(&client(kafka.bootstrap(), &[])).unwrap().contains(&topic)
    };
    assert_eq!((made(&strict, "2000"), made(&lenient, "20000")), (false, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_through_a_proxy_stays_with_it() {
    let Some(node) = kafka::own(&["--proxy"]) else { return };
    let (port, server) = node.proxy_ports();
    let proxy = Proxy::between(port, server).await;
    node.aside(|node| {
        node.create("far", 1);
        produce(node, "far", "one");
    })
    .await;
    let end = node.aside(move |_| {
        let consumer: BaseConsumer = client(&format!("127.0.0.1:{port}"), &[]).create().unwrap();
        let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
        let told: Vec<i32> = metadata.brokers().iter().map(|broker| broker.port()).collect();
        assert_eq!(told, [i32::from(port)]);
        consumer.fetch_watermarks("far", 0, PATIENCE).unwrap().1
    });
    assert_eq!(end.await, 1);
    assert!(proxy.to_server() > 0);
}

#[test]
fn of_three_nodes_any_two_go_on() {
    let Some(nodes) = kafka::own(&["--nodes", "3"]) else { return };
    nodes.create("kept", 1);
    for dead in 1..=3 {
        nodes.kill_node(dead);
        assert!(!answers(nodes.ports()[dead as usize - 1], PATIENCE), "a killed node answers");
        produce(&nodes, "kept", &format!("without {dead}"));
        nodes.restart_node(dead);
    }
    nodes.kill();
    nodes.restart();
    assert_eq!(consume(&nodes, "kept", 3), ["without 1", "without 2", "without 3"]);
}

/// The error that a member of a group is given first; none if it gets a record.
fn refused(config: &ClientConfig, topic: &str) -> Option<RDKafkaErrorCode> {
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "neither a record nor an error");
        match consumer.poll(SILENCE) {
            Some(Ok(_)) => return None,
            Some(Err(error)) => return error.rdkafka_error_code(),
            None => {}
        }
    }
}

#[test]
fn certificates_passwords_and_permissions_are_looked_at() {
    let Some(node) = kafka::own(&["--tls", "--sasl"]) else { return };
    node.create("guarded", 1);
    produce(&node, "guarded", "one");
    let tls = node.tls();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let by_tls = |ca: &Path, more: &[(&str, &str)]| {
        let mut config = client(tls.url.strip_prefix("kafkas://").unwrap(), more);
        config.set("security.protocol", "SSL").set("ssl.ca.location", path(ca));
        topics(&config)
    };
    assert!(by_tls(&tls.ca(), &[]).unwrap().contains(&"guarded".to_owned()));
    by_tls(&tls.unknown_ca(), &[]).expect_err("an authority that did not sign it");
    // One by an authority that the node does not name would be kept back by librdkafka: the client stays without a name.
    for (client, sees) in [("client", true), ("nobody", false)] {
        let (cert, key) = tls.client(client);
        let theirs = [("ssl.certificate.location", &*path(&cert)), ("ssl.key.location", &*path(&key))];
        assert_eq!(by_tls(&tls.ca(), &theirs).unwrap().contains(&"guarded".to_owned()), sees, "{client}");
    }

    let by_password = |mechanism: &str, user: &str, password: &str| {
        let mut config = client(node.sasl_bootstrap(), &[("group.id", "guarded"), ("auto.offset.reset", "earliest")]);
        config.set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanism", mechanism);
        config.set("sasl.username", user).set("sasl.password", password);
        config
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let here = topics(&by_password(mechanism, "guest", "guest-password")).unwrap();
        assert!(here.contains(&"guarded".to_owned()), "{mechanism}");
        topics(&by_password(mechanism, "guest", "wrong")).expect_err(mechanism);
    }
    let nobody = by_password("PLAIN", "nobody", "nobody-password");
    let may = |rights: &[&str]| node.ctl(&[&["acls", "--add", "--allow-principal", "User:nobody"], rights].concat());
    may(&["--operation", "Read", "--operation", "Describe", "--topic", "guarded"]);
    assert_eq!(refused(&nobody, "guarded"), Some(RDKafkaErrorCode::GroupAuthorizationFailed));
    may(&["--operation", "Read", "--group", "guarded"]);
    assert_eq!(refused(&nobody, "guarded"), None);
}

#[test]
fn a_node_ends_with_its_last_owner() {
    if !broker::wanted() {
        return;
    }
    let owner = || std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let (mut first, mut last) = (owner(), owner());
    let name = broker::unique("test-owned");
    let env = broker::start(&name, first.id(), &["--kafka"]);
    broker::start(&name, last.id(), &["--kafka"]);
    let end = |owner: &mut std::process::Child| {
        owner.kill().unwrap();
        owner.wait().unwrap();
    };
    end(&mut first);
    let port = env["KAFKA_BOOTSTRAP"].rsplit(':').next().unwrap().parse().unwrap();
    let began = Instant::now();
    while began.elapsed() < LOOKED_TWICE {
        assert!(answers(port, PATIENCE), "a node is gone while it has an owner");
        std::thread::sleep(Duration::from_millis(50));
    }
    end(&mut last);
    let began = Instant::now();
    while Path::new(&env["BROKER_FOLDER"]).exists() {
        assert!(began.elapsed() < PATIENCE, "a node outlives its owners");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!answers(port, SILENCE));
}
