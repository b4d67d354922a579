//! What a source asks back because it gets too old in the worker.

mod support;

use longshore::prelude::*;
use longshore::transport::{Event, Ownership};
use longshore::{Error, ErrorKind};
use support::scripted::Scripted;
use support::*;

const ALL: Ownership = Ownership { epoch: u32::MAX, partitions: None };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_gives_back_what_no_handler_has_started_and_nothing_else() {
    let (app, _) = app("recalls");
    let scripted = Scripted::default();
    let (source, log, gate) = (scripted.at_source("in"), Log::default(), Gate::default());
    let (into, opens) = (log.clone(), gate.clone());
    let handler = move |Json(n): Json<u32>, Attempt(attempt): Attempt| {
        let (into, gate) = (into.clone(), opens.clone());
        async move {
            into.push((n, attempt));
            if n == 0 && attempt == 1 {
                return Err(Failure::retry("not yet"));
            }
            gate.pass().await;
            Ok(())
        }
    };
    let consumer = Consumer::new("take", "test:in", handler).concurrency(2).retry(Retry::fixed(Duration::from_secs(3)));
    let running = started(app.transport(scripted).consumer(consumer)).await;
    // In back-off; running, twice; behind a message of its key; in need of a free place.
    source.publish(0, [numbered(0, "a")]);
    log.until(1).await;
    source.publish(0, [numbered(1, "b"), numbered(2, "c"), numbered(3, "b"), numbered(4, "d")]);
    log.until(3).await;
    eventually("all are delivered", || running.progress().received == 5).await;
    source.set(|source| source.says.push_back(Event::Recall(ALL)));
    eventually("the recall is answered", || source.state().recalled.len() == 1).await;
    let (of, returned_before) = source.state().recalled[0].clone();
    assert_eq!((of, returned_before), (ALL, 2), "answered behind what goes back");
    let mut returned: Vec<u64> = source.state().returned.iter().map(|at| at.position).collect();
    returned.sort_unstable();
    assert_eq!(returned, [4, 5], "the fourth and the fifth that were published");

    gate.open();
    eventually("all are acked", || source.left() == 0).await;
    let seen = log.all();
    let attempts: Vec<(u32, u32)> = seen.iter().filter(|(n, _)| *n == 0).copied().collect();
    assert_eq!(attempts, [(0, 1), (0, 2)], "what waits for its next attempt keeps its count");
    assert_eq!(seen.len(), 6, "nothing was started twice: {seen:?}");
    let of_b: Vec<u32> = seen.iter().map(|(n, _)| *n).filter(|n| [1, 3].contains(n)).collect();
    assert_eq!(of_b, [1, 3], "the order of the key holds");
    let stopped = stopped(running).await;
    let counts = ["received", "acked", "returned"].map(|of| count(&stopped, "take", of));
    assert_eq!((counts, stopped.exit_code()), ([7, 5, 2], 0), "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_of_an_idle_worker_is_answered_at_once() {
    let (app, _) = app("recalls nothing");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    let consumer = Consumer::new("take", "test:in", |_: Raw| async {});
    let running = started(app.transport(scripted).consumer(consumer)).await;
    source.set(|source| source.says.push_back(Event::Recall(ALL)));
    eventually("the recall is answered", || source.state().recalled.len() == 1).await;
    assert!(source.state().returned.is_empty());
    assert_eq!(stopped(running).await.exit_code(), 0);
}

/// A worker that is stopped while its source is away, which took with it one message that a handler had begun.
async fn stopped_while_away(with_one_begun: bool) -> longshore::Stopped {
    let (app, _) = app("away");
    let scripted = Scripted::default();
    let (source, log, gate) = (scripted.at_source("in"), Log::default(), Gate::default());
    let (into, opens) = (log.clone(), gate.clone());
    let handler = move |Json(n): Json<u32>| {
        let (into, gate) = (into.clone(), opens.clone());
        async move {
            into.push(n);
            gate.pass().await;
        }
    };
    let running = started(app.transport(scripted).consumer(Consumer::new("take", "test:in", handler))).await;
    if with_one_begun {
        source.publish(0, [numbered(0, "a")]);
        log.until(1).await;
    }
    source.set(|source| {
        source.says.push_back(Event::Lost(ALL));
        source.says.push_back(Event::Disconnected(Error::new(ErrorKind::Unreachable, "away")));
    });
    eventually("it is known to be away", || running.readiness().status != "ready").await;
    gate.open();
    stopped(running).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_away_ends_with_75_where_something_was_under_way_and_else_with_0() {
    assert_eq!(stopped_while_away(true).await.exit_code(), 75);
    assert_eq!(stopped_while_away(false).await.exit_code(), 0);
}
