//! Who is let in, and what is said of who is not.

use super::kafka;
use super::records;
use super::writer::{Writer, try_open};
use longshore::message::Message;
use longshore::{Error, ErrorKind, Fate};
use std::time::{Duration, Instant};

/// A password that must never be seen, and which no broker knows.
const CANARY: &str = "c4n4ry%2Fs3cret";
const PATIENCE: Duration = Duration::from_secs(60);

/// Refused at once, as no patience mends it, for credentials; what is said.
async fn refused(url: &str) -> Error {
    let began = Instant::now();
    let error = try_open(url, PATIENCE).await.err().unwrap_or_else(|| panic!("let in: {url}"));
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Credentials, 77), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(15), "took {:?}", began.elapsed());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_goes_by_every_way_that_auth_names_and_a_wrong_password_is_told_at_once() {
    let Some(kafka) = kafka::own(&["--sasl"]) else { return };
    let topic = kafka.fresh("login");
    for auth in ["plain", "scram-sha-256", "scram-sha-512"] {
        let place = format!("?topic={topic}&auth={auth}");
        let mut writer = Writer::open(&format!("{}{place}", kafka.sasl_url())).await;
        writer.one(Message::new(auth)).await.unwrap();
        let error = refused(&format!("kafka://guest:{CANARY}@{}{place}", kafka.sasl_bootstrap())).await;
        let said = format!("{error} {error:?}");
        assert!(said.contains(kafka.sasl_bootstrap()), "{said}");
        assert!(!said.contains("c4n4ry"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_missing_is_told_with_the_topic() {
    let Some(kafka) = kafka::own(&["--sasl"]) else { return };
    let topic = kafka.fresh("guarded");
    let made = topic.clone();
    kafka.aside(move |kafka| kafka.create(&made, 1)).await;
    let error = refused(&format!("{}?topic={topic}", kafka.nobody_url())).await;
    assert!(error.to_string().contains(&topic), "{error}");
}

/// Lets `nobody` do something with a topic, or no longer.
async fn allow(kafka: &kafka::Kafka, whether: &'static str, operation: &'static str, topic: &str) {
    let topic = topic.to_owned();
    let who = [whether, "--force", "--allow-principal", "User:nobody"];
    let work = move |kafka: &kafka::Kafka| {
        kafka.ctl(&[&["acls"], &who[..], &["--operation", operation, "--topic", &topic]].concat())
    };
    kafka.aside(work).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_look_at_a_topic_and_not_write_to_it_is_refused_at_the_start() {
    let Some(kafka) = kafka::own(&["--sasl"]) else { return };
    let topic = kafka.fresh("guarded");
    let made = topic.clone();
    kafka.aside(move |kafka| kafka.create(&made, 1)).await;
    allow(&kafka, "--add", "Describe", &topic).await;
    let error = refused(&format!("{}?topic={topic}", kafka.nobody_url())).await;
    assert!(error.to_string().contains("authorization failed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_taken_away_fails_what_is_sent_until_it_is_given_back() {
    let Some(kafka) = kafka::own(&["--sasl"]) else { return };
    let topic = kafka.fresh("guarded");
    let made = topic.clone();
    kafka.aside(move |kafka| kafka.create(&made, 1)).await;
    allow(&kafka, "--add", "Write", &topic).await;
    let mut writer = Writer::open(&format!("{}?topic={topic}", kafka.nobody_url())).await;
    writer.one(Message::new("before")).await.unwrap();
    allow(&kafka, "--remove", "Write", &topic).await;
    allow(&kafka, "--add", "Describe", &topic).await;
    let failure = writer.one(Message::new("refused")).await.unwrap_err();
    assert!(matches!(failure.fate(), Fate::Retry { .. }), "{failure:?}");
    assert!(failure.chain().contains(&format!("topic '{topic}'")), "{failure:?}");
    allow(&kafka, "--add", "Write", &topic).await;
    let (began, mut refused) = (Instant::now(), 0);
    while let Err(failure) = writer.one(Message::new("again")).await {
        assert!(failure.chain().contains("authorization failed"), "{failure:?}");
        assert!(began.elapsed() < PATIENCE, "refused for {:?}", began.elapsed());
        refused += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    writer.publish((0..1_000).map(|number| Message::new(number.to_string()))).await;
    assert_eq!(writer.failed().len(), 0, "{:?}, and {refused} before", writer.failed());
    let stored: Vec<String> = records::all(&kafka, &topic).await.iter().map(records::Record::text).collect();
    let first = ["before", "again"].map(str::to_owned).into_iter();
    assert_eq!(stored, first.chain((0..1_000).map(|number| number.to_string())).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_by_its_certificate_and_its_name_alone() {
    let Some(kafka) = kafka::own(&["--tls"]) else { return };
    let (tls, topic) = (kafka.tls(), kafka.fresh("tls"));
    let with = |ca: &std::path::Path| format!("{}?topic={topic}&ca={}", tls.url, ca.display());
    Writer::open(&with(&tls.ca())).await.one(Message::new("secret")).await.unwrap();
    for url in [with(&tls.unknown_ca()), format!("{}?topic={topic}", tls.url)] {
        let error = refused(&url).await;
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    for bad in [super::broker::Bad::WrongHost, super::broker::Bad::Expired, super::broker::Bad::UnknownAuthority] {
        let impostor = tls.impostor(bad);
        let url =
            format!("kafkas://guest:{CANARY}@localhost:{}?topic={topic}&ca={}", impostor.port, tls.ca().display());
        let error = refused(&url).await;
        assert!(!error.to_string().contains("c4n4ry"), "{error}");
        assert!(!impostor.was_believed(), "{bad:?}");
    }
}
