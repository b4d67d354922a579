//! Looks before a start and beside it: `check` and `inspect`.

use super::kafka::{self, Kafka};
use super::writer::Writer;
use longshore::ErrorKind;
use longshore::message::Message;
use longshore::transport::{Finding, Inspection, Side, Transports, Url};

async fn check(url: &str, side: Side) -> Result<Vec<Finding>, longshore::Error> {
    let url = Url::parse(url)?;
    Transports::built_in().of(&url)?.check(&url, side).await
}

async fn inspect(url: &str, group: &str) -> Result<Inspection, longshore::Error> {
    let url = Url::parse(url)?;
    Transports::built_in().of(&url)?.inspect(&url, group).await
}

async fn topics(kafka: &Kafka) -> Vec<String> {
    kafka.aside(|kafka| kafka.ctl(&["topics", "--list"])).await.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_of_an_absent_topic_what_a_start_would_do_and_makes_none() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = kafka.fresh("absent");
    let url = format!("{}?topic={topic}", kafka.url());
    for side in [Side::Source, Side::Sink] {
        let found = check(&url, side).await.unwrap();
        assert!(matches!(&found[..], [Finding::Note(note)] if note.contains(&topic)), "{found:?}");
        let error = check(&format!("{url}&declare=false"), side).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
    }
    assert!(!topics(&kafka).await.contains(&topic));
    Writer::open(&url).await.one(Message::new("a")).await.unwrap();
    assert_eq!(check(&url, Side::Source).await.unwrap(), []);
    let error = check("kafka://127.0.0.1:1?topic=t", Side::Sink).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_tls_is_warned_of() {
    let Some(kafka) = kafka::own(&["--sasl", "--tls"]) else { return };
    let topic = kafka.fresh("login");
    let (plain, ca) = (format!("{}?topic={topic}", kafka.sasl_url()), kafka.tls().ca());
    let warned =
        |found: &[Finding]| found.iter().any(|each| matches!(each, Finding::Warning(text) if text.contains("TLS")));
    let found = check(&plain, Side::Sink).await.unwrap();
    assert!(warned(&found), "{found:?}");
    let found =
        check(&format!("{}?topic={topic}&ca={}", kafka.tls_sasl_url(), ca.display()), Side::Sink).await.unwrap();
    assert!(!warned(&found), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inspection_counts_what_a_group_has_before_it_and_its_dead_letters() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, group) = (kafka.fresh("counted"), "g");
    let url = format!("{}?topic={topic}", kafka.url());
    let error = inspect(&url, group).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains(&topic), "{error:?}");
    let made = topic.clone();
    kafka.aside(move |kafka| kafka.create(&made, 3)).await;
    Writer::open(&url).await.publish((0..30).map(|n| Message::new("x").with_key(n.to_string()))).await;
    let found = inspect(&url, group).await.unwrap();
    assert_eq!((found.waiting, found.lag, found.dead), (Some(30), Some(30), Some(0)), "{found:?}");
    assert_eq!((found.queue.as_str(), found.group.as_deref()), (topic.as_str(), Some(group)));
    // Another client moves the group to the end of all but two records of a partition.
    let moved = topic.clone();
    kafka
        .aside(move |kafka| {
            let to = ["--reset-offsets", "--shift-by", "-2", "--execute", "--group", "g"];
            kafka.ctl(&[
                "consumer-groups",
                "--reset-offsets",
                "--to-latest",
                "--execute",
                "--group",
                "g",
                "--topic",
                &moved,
            ]);
            kafka.ctl(&[&["consumer-groups"], &to[..], &["--topic", &format!("{moved}:0")]].concat());
        })
        .await;
    let dead = format!("{}?topic={topic}.{group}.dead", kafka.url());
    Writer::open(&dead).await.publish((0..4).map(|_| Message::new("dead"))).await;
    let found = inspect(&url, group).await.unwrap();
    assert_eq!((found.waiting, found.dead), (Some(2), Some(4)), "{found:?}");
    assert_eq!(inspect(&url, "another").await.unwrap().waiting, Some(30));
}
