//! RabbitMQ, on a real node.

use super::broker::{self, Broker};
use longshore::testing::conformance::{self, Place, Subject};
use longshore::transport::amqp::Amqp;
use std::sync::Arc;
use std::time::Duration;

/// Queues of a vhost of their own, so that one subject's connections can be closed and no other's. `options` are those
/// of source and sink, `reads` those of the source alone.
async fn subject(broker: &Broker, name: &str, options: &'static str, reads: &'static str) -> Subject {
    let vhost: Arc<str> = broker.fresh("conformance").into();
    let base = format!("{}/{vhost}", broker.url());
    let made = vhost.clone();
    broker
        .aside(move |broker| {
            broker.ctl(&["add_vhost", &made]);
            broker.ctl(&["set_permissions", "--vhost", &made, "guest", ".*", ".*", ".*"]);
        })
        .await;
    let mut count = 0;
    let broker = broker.clone();
    Subject::new(name, Amqp::default(), move |_| {
        count += 1;
        Place::new(format!("{base}?queue=q{count}{options}"), format!("{base}?queue=q{count}{options}{reads}"))
    })
    .patience(Duration::from_secs(20))
    .quiet(Duration::from_millis(200))
    .lapse(move |_| {
        let (broker, vhost) = (broker.clone(), vhost.clone());
        Box::pin(async move {
            let closed = broker.aside(move |broker| broker.ctl(&["close_all_connections", "--vhost", &vhost, "lapse"]));
            closed.await;
        })
    })
}

async fn conforms(name: &str, options: &'static str, reads: &'static str) {
    let Some(broker) = broker::shared() else { return };
    let report = conformance::run(subject(&broker, name, options, reads).await).await;
    report.assert();
    println!("{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_queues_conform() {
    conforms("amqp, quorum", "", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_queues_conform() {
    conforms("amqp, classic", "&type=classic", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_queues_with_one_active_consumer_conform() {
    conforms("amqp, quorum, single active", "&single-active=true", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_queues_with_one_active_consumer_conform() {
    conforms("amqp, classic, single active", "&type=classic&single-active=true", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_found_in_the_payload_conforms() {
    let Some(broker) = broker::shared() else { return };
    let mut subject = subject(&broker, "amqp, key in the payload", "", "&key=/key").await;
    for case in
        ["a_key_keeps_its_order", "what_is_given_back_comes_in_its_old_order", "a_payload_comes_back_byte_for_byte"]
    {
        subject = subject.only(case);
    }
    conformance::run(subject).await.assert();
}
