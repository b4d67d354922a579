//! Retries that wait outside of the worker, at a source that cannot delay a redelivery by itself.

mod support;

use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::{ATTEMPTS_HEADER, RETRY_AFTER_HEADER, Verdict};
use std::time::Instant;
use support::scripted::{Does, Scripted};
use support::*;
use tokio::runtime::Handle;

/// What a handler saw of a message: its number, which attempt it was, and the names of its headers.
type Seen = (u32, u32, Vec<String>);

/// A worker on `test:in` whose handler fails a message while its attempt is below `good`.
fn failing(log: &Log<Seen>, good: u64) -> Consumer<impl longshore::handler::Bind<Unit = longshore::Delivery>> {
    let into = log.clone();
    Consumer::new("take", "test:in", move |Json(n): Json<u32>, Attempt(attempt): Attempt, headers: Headers| {
        into.push((n, attempt, headers.iter().map(|(name, _)| name.to_owned()).collect()));
        async move { if u64::from(attempt) < good { Err(Failure::retry("not yet")) } else { Ok(()) } }
    })
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_retry_is_settled_once_its_store_has_it_and_comes_again_with_its_count() {
    let (app, _) = app("durable");
    let (scripted, log) = (Scripted::default(), Log::default());
    let (source, store) = (scripted.at_source("in"), scripted.retry_store_of("in"));
    store.set(|store| store.does = Does::Hold);
    let consumer = failing(&log, 2).retry(Retry::fixed(HOUR).durable());
    let running = started(app.transport(scripted).consumer(consumer)).await;
    let message = numbered(7, "a").with_header("trace", "abc").with_header(ATTEMPTS_HEADER, "forged");
    source.publish(0, [message]);
    eventually("it is with the store", || store.held() == 1).await;
    assert_eq!((running.progress().settled, source.state().settled.len()), (0, 0), "nothing has confirmed it");
    store.set(|store| store.does = Does::Confirm);
    eventually("it is settled", || source.state().settled.len() == 1).await;
    assert_eq!(source.state().settled[0].verdict, Verdict::Retried);

    let kept = store.state().has[0].clone();
    assert_eq!((kept.payload.as_deref(), kept.key.as_deref()), (Some(&b"7"[..]), Some(&b"a"[..])));
    assert_eq!((header(&kept, "trace"), header(&kept, ATTEMPTS_HEADER)), (Some("abc"), Some("1")));
    let after: u64 = header(&kept, RETRY_AFTER_HEADER).unwrap().parse().unwrap();
    assert!((1_800_000..=3_600_000).contains(&after), "milliseconds of an hour with jitter: {after}");

    source.publish(0, [kept]);
    assert_eq!(log.until(2).await[1], (7, 2, vec!["trace".to_owned()]));
    let stopped = stopped(running).await;
    let counts = ["received", "retried", "acked"].map(|of| count(&stopped, "take", of));
    assert_eq!((counts, source.left(), stopped.exit_code()), ([2, 1, 1], 0, 0), "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_count_neither_skips_the_handler_nor_makes_a_message_come_for_ever() {
    let (app, memory) = app("forged");
    let (scripted, log) = (Scripted::default(), Log::default());
    let (source, store) = (scripted.at_source("in"), scripted.retry_store_of("in"));
    let consumer = failing(&log, u64::MAX).retry(Retry::fixed(HOUR).attempts(2).durable()).dead_letter("memory:dead");
    let running = started(app.transport(scripted).consumer(consumer)).await;
    let forged =
        |count: &str| Message::new("1").with_header(RETRY_AFTER_HEADER, "0").with_header(ATTEMPTS_HEADER, count);
    for (number, count) in ["99999999999999999999999", "4294967296", "4294967295", "2"].iter().enumerate() {
        source.publish(0, [forged(count)]);
        eventually("a dead letter", || memory.len("dead") == number as u64 + 1).await;
        assert_eq!(log.len(), number + 1, "{count}: one start, and no more");
    }
    for count in ["-7", "", "x", "0"] {
        let before = store.state().has.len();
        source.publish(0, [forged(count)]);
        eventually("it is with the store", || store.state().has.len() == before + 1).await;
        assert_eq!(header(store.state().has.last().unwrap(), ATTEMPTS_HEADER), Some("1"), "{count}");
    }
    assert_eq!(stopped(running).await.exit_code(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_store_that_refuses_pauses_the_intake_and_goes_on_when_it_takes_again() {
    let (app, _) = app("refusing");
    let (scripted, log) = (Scripted::default(), Log::default());
    let (source, store) = (scripted.at_source("in"), scripted.retry_store_of("in"));
    store.set(|store| store.does = Does::Refuse);
    let consumer = failing(&log, 2).look_ahead(8).retry(Retry::fixed(HOUR).durable());
    let running = started(app.transport(scripted).consumer(consumer)).await;
    source.publish(0, [numbered(0, "a")]);
    eventually("the store has refused it", || store.state().refused >= 1).await;
    eventually("it is not ready", || running.readiness().status == "not_ready").await;
    let reasons = running.readiness().reasons.join("\n");
    assert!(reasons.contains("'take'") && reasons.contains("retry store refuses"), "{reasons}");
    source.publish(0, (1..=100).map(|n| numbered(n, n)));
    let refused = store.state().refused;
    eventually("it is tried again", || store.state().refused > refused).await;
    assert!(running.progress().received <= 9, "the intake is paused: {:?}", running.progress());
    assert!(source.state().settled.is_empty(), "nothing is settled that is nowhere else");
    store.set(|store| store.does = Does::Confirm);
    eventually("it goes on", || running.progress().settled == 101).await;
    eventually("it is ready", || running.readiness().status == "ready").await;
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "retried"), store.state().has.len()), (101, 101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_gives_back_what_the_retry_store_refuses() {
    let (app, _) = app("refusing at the stop");
    let (scripted, log) = (Scripted::default(), Log::default());
    let (source, store) = (scripted.at_source("in"), scripted.retry_store_of("in"));
    store.set(|store| store.does = Does::Refuse);
    let consumer = failing(&log, 2).retry(Retry::fixed(HOUR).durable());
    let running = started(app.transport(scripted).consumer(consumer)).await;
    source.publish(0, [numbered(0, "a")]);
    eventually("the store has refused it", || store.state().refused >= 1).await;
    let began = Instant::now();
    let stopped = stopped(running).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((source.left(), count(&stopped, "take", "returned"), stopped.exit_code()), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_retries_that_nothing_can_delay_are_refused_with_78_and_the_name_of_the_worker() {
    let (app, _) = app("nowhere");
    let consumer = failing(&Log::default(), 2).retry(Retry::fixed(HOUR).durable());
    let error = app.transport(Scripted::default()).consumer(consumer).start(&Handle::current()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("'take'") && text.contains("durable()") && text.contains("test:in"), "{text}");
    assert_eq!(error.exit_code(), 78, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_store_that_the_server_cannot_keep_fails_the_start_of_who_asked_for_it() {
    let (app, _) = app("cannot");
    let scripted = Scripted::default();
    scripted.retry_store_of("in").set(|store| store.failing_opens = u32::MAX);
    let consumer = failing(&Log::default(), 2).retry(Retry::fixed(HOUR).durable());
    let mut running = app.transport(scripted).consumer(consumer).start(&Handle::current()).await.unwrap();
    let stopped = ended(&mut running).await;
    assert_ne!(stopped.exit_code(), 0);
    let error = actor(&stopped, "take")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("cannot be opened"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_order_only_long_delays_go_to_the_store_and_they_wait_here_where_it_refuses() {
    let (app, _) = app("unordered");
    let (scripted, log) = (Scripted::default(), Log::default());
    let (source, store) = (scripted.at_source("in"), scripted.retry_store_of("in"));
    let consumer = failing(&log, 2).order(Order::None).retry(Retry::fixed(HOUR));
    let running = started(app.transport(scripted).consumer(consumer)).await;
    assert_eq!(store.state().opens, 0, "what is never needed is never made");
    source.publish(0, [numbered(1, "a")]);
    eventually("it is with the store", || store.state().has.len() == 1).await;
    eventually("it is settled", || source.state().settled.len() == 1).await;
    store.set(|store| store.does = Does::Refuse);
    source.publish(0, [numbered(2, "a")]);
    eventually("the store has refused it", || store.state().refused == 1).await;
    // Its intake goes on, and it is as ready as before.
    source.publish(0, [numbered(3, "a")]);
    eventually("the store has refused another", || store.state().refused == 2).await;
    assert_eq!(running.readiness().status, "ready");
    let stopped = stopped(running).await;
    assert_eq!((source.left(), count(&stopped, "take", "retried"), count(&stopped, "take", "returned")), (2, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_could_hold_a_message_longer_than_its_broker_lets_it_does_not_start() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let quick = Retry::fixed(Duration::from_secs(1));
    for (timeout, retry, fits) in [
        (minutes(5), Retry::default(), true),
        (minutes(10), quick, false),
        (minutes(29), Retry::never(), true),
        (minutes(30), Retry::never(), false),
        (minutes(29), quick.durable(), true),
        (minutes(5), Retry::fixed(minutes(8)), false),
    ] {
        let (app, _) = app("ages");
        let scripted = Scripted::default();
        scripted.retry_store_of("in");
        scripted.at_source("in").set(|source| source.holds_for = Some(minutes(30)));
        let consumer = failing(&Log::default(), 1).timeout(timeout).retry(retry);
        let started = app.transport(scripted).consumer(consumer).start(&Handle::current()).await;
        assert_eq!(started.is_ok(), fits, "{timeout:?}, {retry:?}");
        if let Err(error) = started {
            assert_eq!(error.exit_code(), 78, "{error}");
            let text = error.to_string();
            assert!(text.contains("'take' may hold") && text.contains("30m"), "{text}");
        }
    }
}
