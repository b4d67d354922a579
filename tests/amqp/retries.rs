//! Where retries wait, and that none of them is lost there.

use super::broker;
use super::peer::Peer;
use super::writer::{PATIENCE, Writer};
use lapin::types::AMQPValue;
use longshore::message::Message;
use longshore::transport::amqp::Amqp;
use longshore::transport::{ATTEMPTS_HEADER, RETRY_AFTER_HEADER, SinkSpec, Transport, Url};
use longshore::{Error, ErrorKind, Fate};
use std::process::Command;
use std::time::{Duration, Instant};

async fn store(url: &str) -> Result<Writer, Error> {
    let spec = SinkSpec::new("taker", PATIENCE);
    let plan = Amqp::default().retry_store(&Url::parse(url)?, &spec)?.expect("queues have a retry store");
    Ok(Writer::on(plan.open().await?))
}

fn retry(name: impl ToString, after: Duration) -> Message {
    Message::new(name.to_string())
        .with_key("a")
        .with_header(RETRY_AFTER_HEADER, after.as_millis().to_string())
        .with_header(ATTEMPTS_HEADER, "1")
}

/// Waits until so many lie in a queue, and takes them.
async fn arrived(peer: &Peer, queue: &str, count: usize) -> Vec<String> {
    let began = Instant::now();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(began.elapsed() < PATIENCE, "{} of {count} came back", all.len());
        all.extend(peer.take_all(queue).await.iter().map(|seen| seen.text()));
        // Nothing tells a foreign client that a message has come into a queue that it does not consume.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_comes_back_after_its_delay_and_not_before() {
    let Some(broker) = broker::shared() else { return };
    let (peer, work) = (Peer::at(&broker).await, broker.fresh("work"));
    peer.declare(&work, "quorum", &[]).await;
    let mut store = store(&format!("{}?queue={work}", broker.url())).await.unwrap();
    let began = Instant::now();
    store.publish([retry("late", Duration::from_millis(1_700)), retry("soon", Duration::from_millis(300))]).await;
    assert!(store.failed().is_empty());
    assert_eq!(peer.take_all(&work).await.len(), 0, "none is back at once");
    assert_eq!(arrived(&peer, &work, 1).await, ["soon"]);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(arrived(&peer, &work, 1).await, ["late"]);
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_retry_is_lost_whose_work_queue_is_absent_when_it_is_due() {
    let Some(broker) = broker::own(&[]) else { return };
    // The broker tries again after 3 min, by default.
    let soon = "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).";
    broker.aside(move |node| node.ctl(&["eval", soon])).await;
    let (peer, work) = (Peer::at(&broker).await, broker.fresh("work"));
    peer.declare(&work, "quorum", &[]).await;
    let mut store = store(&format!("{}?queue={work}", broker.url())).await.unwrap();
    store.publish((0..200).map(|number| retry(number, Duration::from_secs(1)))).await;
    assert!(store.failed().is_empty());
    peer.delete(&work).await;
    // All are due, and there is nowhere to go for a while: time is what this is about.
    tokio::time::sleep(Duration::from_secs(3)).await;
    peer.declare(&work, "quorum", &[]).await;
    let mut back = arrived(&peer, &work, 200).await;
    back.sort_by_key(|name| name.parse::<u32>().unwrap());
    back.dedup();
    assert_eq!(back, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_queue_that_would_lose_messages_is_refused_by_its_name_and_takes_none() {
    let Some(broker) = broker::shared() else { return };
    let (peer, work) = (Peer::at(&broker).await, broker.fresh("work"));
    peer.declare(&work, "quorum", &[]).await;
    // As somebody made them by hand years ago.
    let old = [
        ("x-message-ttl", AMQPValue::LongInt(1_000)),
        ("x-dead-letter-exchange", AMQPValue::LongString("".into())),
        ("x-dead-letter-routing-key", AMQPValue::LongString(work.as_str().into())),
    ];
    let tier = format!("{work}.retry.1s");
    peer.declare(&tier, "classic", &old).await;
    let mut store = store(&format!("{}?queue={work}", broker.url())).await.unwrap();
    let failure = store.one(retry("a", Duration::from_secs(1))).await.unwrap_err();
    assert!(failure.chain().contains(&tier) && failure.chain().contains("inequivalent arg"), "{failure:?}");
    assert!(matches!(failure.fate(), Fate::Retry { .. }), "{failure:?}");
    // Others are as they should be, and once that one is away it is made anew.
    store.one(retry("b", Duration::from_secs(2))).await.unwrap();
    peer.delete(&tier).await;
    store.one(retry("c", Duration::from_secs(1))).await.unwrap();
    let mut back = arrived(&peer, &work, 2).await;
    back.sort();
    assert_eq!(back, ["b", "c"]);
    assert_eq!((store.connected, store.disconnected.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_queues_that_are_deleted_are_made_anew() {
    let Some(broker) = broker::shared() else { return };
    let (peer, work) = (Peer::at(&broker).await, broker.fresh("work"));
    peer.declare(&work, "quorum", &[]).await;
    let mut store = store(&format!("{}?queue={work}", broker.url())).await.unwrap();
    store.one(retry("a", Duration::from_secs(1))).await.unwrap();
    assert_eq!(arrived(&peer, &work, 1).await, ["a"]);
    peer.delete(&format!("{work}.retry.1s")).await;
    let failure = store.one(retry("unlucky", Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(failure.class(), "unroutable", "{failure:?}");
    store.one(retry("b", Duration::from_secs(1))).await.unwrap();
    assert_eq!(arrived(&peer, &work, 1).await, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_declared_where_the_url_forbids_it() {
    let Some(broker) = broker::shared() else { return };
    let (peer, work) = (Peer::at(&broker).await, broker.fresh("work"));
    peer.declare(&work, "quorum", &[]).await;
    let mut store = store(&format!("{}?queue={work}&declare=false", broker.url())).await.unwrap();
    let failure = store.one(retry("a", Duration::from_secs(1))).await.unwrap_err();
    let text = failure.chain();
    assert!(text.contains(&format!("{work}.retry.1s")) && text.contains("declare=false"), "{text}");
    let all = broker.aside(|node| node.ctl(&["list_queues", "name"])).await;
    assert!(!all.contains(&format!("{work}.retry")), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_leaves_nothing_behind() {
    let Some(broker) = broker::shared() else { return };
    let (peer, work) = (Peer::at(&broker).await, broker.fresh("work"));
    peer.declare(&work, "quorum", &[]).await;
    let store = store(&format!("{}?queue={work}", broker.url())).await.unwrap();
    let all = broker.aside(|node| node.ctl(&["list_queues", "name"])).await;
    assert!(!all.contains(&format!("{work}.retry")), "{all}");
    drop(store);
}

/// A node that runs without the feature flag `stream_queue`, as one does that was upgraded from before it.
struct Upgraded {
    name: String,
    url: String,
}

impl Upgraded {
    fn start() -> Self {
        let name = format!("test-flags-{}", std::process::id());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/broker");
        let output = Command::new(script)
            .args(["start", &name, "--owner", &std::process::id().to_string()])
            .env("RABBITMQ_FEATURE_FLAGS", "quorum_queue,implicit_default_bindings,virtual_host_metadata,user_limits")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let url = printed.lines().find_map(|line| line.strip_prefix("AMQP_URL=")).unwrap().to_owned();
        Self { name, url }
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/broker");
        let _ = Command::new(script).args(["stop", &self.name]).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_lose_retries_is_refused_at_the_open_with_the_reason() {
    if broker::shared().is_none() {
        return;
    }
    let node = tokio::task::spawn_blocking(Upgraded::start).await.unwrap();
    let error = store(&format!("{}?queue=work", node.url)).await.map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("'work'") && text.contains("stream_queue"), "{text}");
    assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
    tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
}
