//! What is said of an app that is asked whether it is ready.

mod support;

use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::memory::Memory;
use longshore::transport::{Event, SinkEvent};
use longshore::{Error, ErrorKind};
use std::sync::Arc;
use support::scripted::{Does, Scripted};
use support::*;
use tokio::runtime::Handle;
use tokio::sync::Notify;

#[tokio::test]
async fn a_worker_that_says_so_is_not_ready_until_it_takes_that_back() {
    let (memory, said) = (Memory::new(), Arc::new(Notify::new()));
    let tells = said.clone();
    let ship = move |Raw(payload): Raw, cx: Context| {
        let tells = tells.clone();
        async move {
            match &*payload {
                b"full" => cx.report_not_ready("the warehouse is full"),
                _ => cx.report_ready(),
            }
            tells.notify_one();
        }
    };
    let app = App::new("orders").transport(memory.clone()).consumer(Consumer::new("ship", "memory:orders", ship));
    let mut running = app.start(&Handle::current()).await.unwrap();
    assert!(running.ready().await);
    memory.publish("orders", [Message::new("full")]).await.unwrap();
    said.notified().await;
    let readiness = running.readiness();
    assert_eq!((readiness.status, readiness.accepting_traffic), ("not_ready", false));
    assert!(readiness.reasons[0].contains("ship") && readiness.reasons[0].contains("the warehouse is full"));
    memory.publish("orders", [Message::new("empty")]).await.unwrap();
    said.notified().await;
    assert_eq!(running.readiness().status, "ready");
    running.stop();
    assert_eq!(running.wait().await.exit_code(), 0);
}

/// A bridge from `test:in` to `test:out`, with dead letters in `test:dead`.
async fn bridged() -> (longshore::Running, Scripted) {
    let (app, _) = app("bridged");
    let scripted = Scripted::default();
    let bridge = Bridge::new("cross", "test:in", "test:out").retry(quickly(1)).dead_letter("test:dead");
    (started(app.transport(scripted.clone()).bridge(bridge)).await, scripted)
}

async fn reasons_are(running: &longshore::Running, expected: &[&str]) {
    eventually(&format!("the reasons are {expected:?}"), || {
        let found = running.readiness().reasons;
        found.len() == expected.len() && found.iter().zip(expected).all(|(found, part)| found.contains(part))
    })
    .await;
}

#[tokio::test]
async fn a_bridge_is_ready_again_once_its_sink_is_connected_again() {
    let (running, scripted) = bridged().await;
    let sink = scripted.at_sink("out");
    sink.set(|sink| sink.says.push_back(SinkEvent::Disconnected(Error::new(ErrorKind::Io, "sink is away"))));
    reasons_are(&running, &["'cross' is not ready: test:out: sink is away"]).await;
    sink.set(|sink| sink.says.push_back(SinkEvent::Connected));
    reasons_are(&running, &[]).await;
    assert_eq!(stopped(running).await.exit_code(), 0);
}

#[tokio::test]
async fn a_source_that_is_connected_again_says_nothing_of_what_else_is_wrong() {
    let (running, scripted) = bridged().await;
    let (source, sink, dead) = (scripted.at_source("in"), scripted.at_sink("out"), scripted.at_sink("dead"));
    sink.set(|sink| sink.does = Does::Refuse);
    dead.set(|dead| dead.does = Does::Refuse);
    source.publish(0, [Message::new("1")]);
    reasons_are(&running, &["dead-letter place refuses"]).await;
    source.set(|source| source.says.push_back(Event::Disconnected(Error::new(ErrorKind::Io, "source is away"))));
    reasons_are(&running, &["source is away", "dead-letter place refuses"]).await;
    sink.set(|sink| sink.says.push_back(SinkEvent::Disconnected(Error::new(ErrorKind::Io, "sink is away"))));
    reasons_are(&running, &["source is away", "sink is away", "dead-letter place refuses"]).await;
    source.set(|source| source.says.push_back(Event::Connected));
    reasons_are(&running, &["sink is away", "dead-letter place refuses"]).await;
    dead.set(|dead| dead.does = Does::Confirm);
    reasons_are(&running, &["sink is away"]).await;
    sink.set(|sink| sink.says.push_back(SinkEvent::Connected));
    reasons_are(&running, &[]).await;
    assert_eq!(stopped(running).await.exit_code(), 0);
}
