//! Kafka, on a real node.

use super::kafka::{self, Kafka};
use longshore::testing::conformance::{self, Place, Subject};
use std::time::Duration;

/// Topics of a run of their own, each of one partition. `reads` are options of the source alone.
fn subject(kafka: &Kafka, name: &str, reads: &'static str) -> Subject {
    let base = kafka.url().to_owned();
    let (run, mut count) = (kafka.fresh("conformance"), 0);
    Subject::new(name, longshore::transport::kafka::Kafka::default(), move |_| {
        count += 1;
        let topic = format!("{run}-{count}");
        Place::new(format!("{base}?topic={topic}"), format!("{base}?topic={topic}&group={{group}}{reads}"))
    })
    .patience(Duration::from_secs(30))
    .quiet(Duration::from_millis(300))
}

async fn conforms(name: &str, reads: &'static str) {
    let Some(kafka) = kafka::shared() else { return };
    let mut subject = subject(&kafka, name, reads);
    for case in std::env::var("LONGSHORE_ONLY").iter().flat_map(|only| only.split(',')) {
        subject = subject.only(case);
    }
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
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
