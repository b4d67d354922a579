//! Kafka, on a real node.

use super::kafka::{self, Kafka};
use super::proxy::Proxy;
use longshore::testing::conformance::{self, Place, Subject};
use std::sync::Arc;
use std::time::Duration;

/// Topics of a run of their own, each of one partition. `reads` are options of the source alone.
fn subject(kafka: &Kafka, base: String, name: &str, reads: &'static str) -> Subject {
    let (run, mut count) = (kafka.fresh("conformance"), 0);
    Subject::new(name, longshore::transport::kafka::Kafka::default(), move |_| {
        count += 1;
        let topic = format!("{run}-{count}");
        Place::new(format!("{base}?topic={topic}"), format!("{base}?topic={topic}&group={{group}}-{run}{reads}"))
    })
    .patience(Duration::from_secs(30))
    .quiet(Duration::from_millis(300))
}

async fn conforms(name: &str, reads: &'static str) {
    let Some(kafka) = kafka::shared() else { return };
    let subject = subject(&kafka, kafka.url().to_owned(), name, reads);
    let report = conformance::run(subject).await;
    println!("{report}");
    report.assert();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_the_classic_protocol_conforms() {
    conforms("kafka, classic", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_the_brokers_protocol_conforms() {
    conforms("kafka, KIP-848", "&protocol=consumer").await;
}

/// Nothing of a member arrives for longer than its session lasts.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_the_group_has_given_up_conforms() {
    let Some(kafka) = kafka::own(&["--proxy"]) else { return };
    let (port, server) = kafka.proxy_ports();
    let proxy = Arc::new(Proxy::between(port, server).await);
    let base = format!("kafka://127.0.0.1:{port}");
    let subject = subject(&kafka, base, "kafka, given up", "&session.timeout.ms=6000").lapse(move |_| {
        let proxy = proxy.clone();
        Box::pin(async move {
            proxy.black_hole();
            // The session is over then, and the next tick of the broker's clock has seen it.
            tokio::time::sleep(Duration::from_secs(8)).await;
            proxy.heal();
        })
    });
    let subject = subject.only("a_lost_ownership_is_told_and_its_settlements_are_stale");
    conformance::run(subject).await.assert();
}
