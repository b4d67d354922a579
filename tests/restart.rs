//! Workers that are started anew after something beside their source has failed.

mod support;

use longshore::prelude::*;
use std::time::Instant;
use support::scripted::{Does, Scripted, SourceScript};
use support::*;

/// A bridge that has taken ten messages, none of which its sink has confirmed when it fails.
async fn with_a_sink_that_fails(scripted: &Scripted) -> longshore::Running {
    let (app, _) = app("falls");
    let (source, sink) = (scripted.at_source("in"), scripted.at_sink("out"));
    sink.set(|sink| sink.does = Does::Hold);
    let running = started(app.transport(scripted.clone()).bridge(Bridge::new("cross", "test:in", "test:out"))).await;
    source.publish(0, (0..10).map(|n| numbered(n, n)));
    eventually("the sink has them", || sink.held() == 10).await;
    sink.set(|sink| (sink.does, sink.fails) = (Does::Confirm, true));
    running
}

/// How often a source was opened, and how often it ended without having been closed.
fn opens(source: &SourceScript) -> (u32, u32) {
    let state = source.state();
    (state.opens, state.unclean)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_closed_in_order_when_the_sink_beside_it_fails() {
    let scripted = Scripted::default();
    let running = with_a_sink_that_fails(&scripted).await;
    let (source, sink) = (scripted.at_source("in"), scripted.at_sink("out"));
    eventually("all are there after the restart", || sink.state().has.len() == 10).await;
    let stopped = stopped(running).await;
    assert_eq!(opens(&source), (2, 0), "opened anew, and never left unclosed");
    assert_eq!((source.left(), count(&stopped, "cross", "acked"), count(&stopped, "cross", "returned")), (0, 10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_does_not_close_holds_up_a_restart_for_seconds_and_not_for_ever() {
    let scripted = Scripted::default();
    scripted.at_source("in").set(|source| source.hanging_close = true);
    let running = with_a_sink_that_fails(&scripted).await;
    let (source, sink) = (scripted.at_source("in"), scripted.at_sink("out"));
    let began = Instant::now();
    eventually("all are there after the restart", || sink.state().has.len() == 10).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(opens(&source), (2, 1));
    source.set(|source| source.hanging_close = false);
    stopped(running).await;
}
