//! What becomes of a message: acked, tried again, dead-lettered, discarded, and when.

mod support;

use longshore::message::{Headers as MessageHeaders, Message};
use longshore::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::scripted::{Does, Scripted};
use support::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note(u32);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_acked_after_its_handler_and_not_before() {
    let (app, memory) = app("acks");
    let (log, gate) = (Log::default(), Gate::default());
    let (into, held) = (log.clone(), gate.clone());
    let running = started(app.consumer(Consumer::new("take", "memory:in", move |Json(n): Json<u32>| {
        let (into, held) = (into.clone(), held.clone());
        async move {
            into.push(n);
            held.pass().await;
        }
    })))
    .await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    log.until(1).await;
    assert_eq!((memory.len("in"), running.progress().settled), (1, 0));
    gate.open();
    let stopped = stopped(running).await;
    assert_eq!((memory.len("in"), count(&stopped, "take", "acked"), stopped.exit_code()), (0, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_message_is_tried_again_in_its_place_while_other_keys_go_on() {
    let (app, memory) = app("retries");
    let log: Log<(u32, u32, Instant)> = Log::default();
    let into = log.clone();
    let retry = Retry::exponential(Duration::from_millis(60), Duration::from_secs(1)).attempts(4);
    let handler = move |Json(n): Json<u32>, Attempt(attempt): Attempt| {
        let into = into.clone();
        async move {
            into.push((n, attempt, Instant::now()));
            if n == 1 && attempt < 4 { Err(std::io::Error::other("not yet")) } else { Ok(()) }
        }
    };
    let running = started(app.consumer(Consumer::new("take", "memory:in", handler).retry(retry))).await;
    memory.publish("in", [numbered(1, "a"), numbered(2, "a"), numbered(3, "a"), numbered(4, "b")]).await.unwrap();
    let seen = log.until(7).await;
    let stopped = stopped(running).await;
    let of_a: Vec<_> = seen.iter().filter(|(n, ..)| *n != 4).map(|(n, attempt, _)| (*n, *attempt)).collect();
    assert_eq!(of_a, [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (3, 1)]);
    let at: Vec<Instant> = seen.iter().filter(|(n, ..)| *n == 1).map(|(.., at)| *at).collect();
    for (pair, least) in at.windows(2).zip([30, 60, 120]) {
        // Back-off doubles, and jitter takes at most half of it.
        assert!(pair[1] - pair[0] >= Duration::from_millis(least), "{:?} of at least {least} ms", pair[1] - pair[0]);
    }
    let other = seen.iter().find(|(n, ..)| *n == 4).unwrap().2;
    assert!(other < at[3], "another key does not wait for a retry");
    assert_eq!((count(&stopped, "take", "received"), count(&stopped, "take", "acked")), (4, 4));
    assert_eq!(count(&stopped, "take", "retried"), 0);
}

#[derive(Debug)]
struct Outer(std::num::ParseIntError);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no stock")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_says_what_it_was_and_why_it_is_one() {
    let (app, memory) = app("dead");
    let handler = |Json(_): Json<u32>| async { "x".parse::<u32>().map(drop).map_err(Outer) };
    let consumer = Consumer::new("take", "memory:in", handler).retry(quickly(3)).dead_letter("memory:dead");
    let running = started(app.consumer(consumer)).await;
    let message = numbered(7, "customer 7").with_id("id-7").with_header("trace", "abc");
    memory.publish("in", [message]).await.unwrap();
    eventually("a dead letter", || memory.len("dead") == 1).await;
    let stopped = stopped(running).await;
    let [dead] = &content(&memory, "memory:dead").await[..] else { panic!("one dead letter") };
    assert_eq!((dead.payload.as_deref(), dead.key.as_deref()), (Some(&b"7"[..]), Some(&b"customer 7"[..])));
    for (name, value) in [
        ("trace", "abc"),
        ("longshore-id", "id-7"),
        ("longshore-key", "customer 7"),
        ("longshore-reason", "error"),
        ("longshore-error", "no stock: invalid digit found in string"),
        ("longshore-attempts", "3"),
        ("longshore-worker", "take"),
        ("longshore-source", "memory:in"),
    ] {
        assert_eq!(header(dead, name), Some(value), "{name} in {dead:?}");
    }
    assert!(header(dead, "longshore-position").unwrap().parse::<u64>().is_ok());
    for time in ["longshore-first-seen", "longshore-dead-at"] {
        let text = header(dead, time).unwrap();
        assert!(text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T', "{time} is RFC 3339: {text}");
    }
    assert_eq!((count(&stopped, "take", "dead_lettered"), count(&stopped, "take", "acked")), (1, 0));
    assert_eq!((memory.len("in"), stopped.exit_code()), (0, 0));
}

/// Runs one message through a handler; what came of it.
struct Run {
    starts: u32,
    stopped: longshore::Stopped,
    dead: Vec<Message>,
}

async fn run_one<Fut>(message: Message, handler: impl Fn(u32) -> Fut + Clone + Send + 'static) -> Run
where
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (app, memory) = app("one");
    let starts = Arc::new(AtomicU32::new(0));
    let counted = starts.clone();
    let take = move |Attempt(attempt): Attempt| {
        counted.fetch_add(1, Ordering::Relaxed);
        handler(attempt)
    };
    let consumer = Consumer::new("take", "memory:in", take)
        .retry(quickly(3))
        .timeout(Duration::from_millis(50))
        .dead_letter("memory:dead");
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", [message]).await.unwrap();
    eventually("it is settled", || running.progress().settled == 1).await;
    let stopped = stopped(running).await;
    assert_eq!((memory.len("in"), stopped.exit_code()), (0, 0), "{}", stopped.table());
    Run { starts: starts.load(Ordering::Relaxed), stopped, dead: content(&memory, "memory:dead").await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_message_is_a_dead_letter_at_once() {
    let run = run_one(numbered(1, "a"), |_| async { Err(Failure::reject("no such order")) }).await;
    assert_eq!((run.starts, count(&run.stopped, "take", "dead_lettered")), (1, 1));
    assert_eq!(header(&run.dead[0], "longshore-reason"), Some("rejected"));
    assert_eq!(header(&run.dead[0], "longshore-attempts"), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discarded_message_is_counted_and_kept_nowhere() {
    let run = run_one(numbered(1, "a"), |_| async { Err(Failure::discard("a duplicate")) }).await;
    assert_eq!((run.starts, count(&run.stopped, "take", "discarded"), run.dead.len()), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_its_message_and_nothing_else() {
    let run = run_one(numbered(1, "a"), |attempt| async move {
        if attempt == 1 {
            panic!("at the first poll");
        }
        tokio::task::yield_now().await;
        if attempt == 2 {
            panic!("at a later poll");
        }
        Ok(())
    })
    .await;
    assert_eq!((run.starts, count(&run.stopped, "take", "acked"), run.dead.len()), (3, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_before_there_is_a_future_fails_its_message_too() {
    let run = run_one(numbered(1, "a"), |attempt| {
        assert!(attempt > 2, "in the call itself");
        async { Ok(()) }
    })
    .await;
    assert_eq!((run.starts, count(&run.stopped, "take", "acked")), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_always_panics_is_a_dead_letter_that_says_so() {
    let run = run_one(numbered(1, "a"), |_| async { panic!("boom") }).await;
    assert_eq!((run.starts, run.dead.len()), (3, 1));
    assert_eq!(header(&run.dead[0], "longshore-reason"), Some("panic"));
    assert!(header(&run.dead[0], "longshore-error").unwrap().contains("boom"));
}

struct OnDrop(Log<&'static str>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.push("dropped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_too_long_is_dropped_and_its_message_tried_again() {
    let log = Log::default();
    let into = log.clone();
    let run = run_one(numbered(1, "a"), move |attempt| {
        let into = into.clone();
        async move {
            let _on_drop = OnDrop(into.clone());
            into.push("began");
            if attempt < 3 {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    })
    .await;
    assert_eq!((run.starts, count(&run.stopped, "take", "acked"), run.dead.len()), (3, 1, 0));
    assert_eq!(log.all(), ["began", "dropped", "began", "dropped", "began", "dropped"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_always_takes_too_long_is_a_dead_letter_that_says_so() {
    let run = run_one(numbered(1, "a"), |_| async {
        std::future::pending::<()>().await;
        Ok(())
    })
    .await;
    assert_eq!((run.starts, header(&run.dead[0], "longshore-reason")), (3, Some("timeout")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let (app, memory) = app("decoding");
    let log = Log::default();
    let into = log.clone();
    let handler = move |Json(Note(n)): Json<Note>| {
        into.push(n);
        async {}
    };
    let running = started(app.consumer(Consumer::new("take", "memory:in", handler).dead_letter("memory:dead"))).await;
    let bad = [Message::new("{").with_key("a"), Message::tombstone("a"), Message::new("\"x\"")];
    memory.publish("in", bad).await.unwrap();
    memory.publish("in", [numbered(5, "a")]).await.unwrap();
    log.until(1).await;
    eventually("three dead letters", || memory.len("dead") == 3).await;
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "dead_lettered"), count(&stopped, "take", "acked")), (3, 1));
    for dead in content(&memory, "memory:dead").await {
        assert_eq!(header(&dead, "longshore-reason"), Some("undecodable"), "{dead:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_over_the_limit_never_reaches_a_handler() {
    let (app, memory) = app("sizes");
    let log = Log::default();
    let into = log.clone();
    let handler = move |Raw(payload): Raw| {
        into.push(payload.len());
        async {}
    };
    let consumer = Consumer::new("take", "memory:in", handler).max_message(1_000).dead_letter("memory:dead");
    let running = started(app.consumer(consumer)).await;
    let of = |size: usize| Message::new(vec![b'x'; size]).with_key("k");
    memory.publish("in", [of(1_000), of(1_001), of(10)]).await.unwrap();
    assert_eq!(log.until(2).await, [1_000, 10]);
    eventually("a dead letter", || memory.len("dead") == 1).await;
    stopped(running).await;
    let [dead] = &content(&memory, "memory:dead").await[..] else { panic!("one dead letter") };
    assert_eq!(header(dead, "longshore-reason"), Some("oversized"));
    assert!(header(dead, "longshore-error").unwrap().contains("1001"));
    assert_eq!(dead.payload.as_deref(), Some(&b""[..]));
}

/// An app whose handler sends each number on to `test:out`.
fn forwarding(name: &str, retry: Retry) -> (App, longshore::transport::memory::Memory, Scripted) {
    let (app, memory) = app(name);
    let scripted = Scripted::default();
    let handler = |Json(n): Json<u32>, out: To<Note>| async move { out.send(&Note(n)).await };
    let app = app
        .transport(scripted.clone())
        .producer(Producer::<Note>::new("out", "test:out"))
        .consumer(Consumer::new("take", "memory:in", handler).retry(retry).dead_letter("memory:dead"));
    (app, memory, scripted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_acked_only_after_what_it_sent_is_confirmed() {
    let (app, memory, scripted) = forwarding("confirms", quickly(1));
    let out = scripted.at_sink("out");
    out.set(|sink| sink.does = Does::Hold);
    let running = started(app).await;
    memory.publish("in", [numbered(1, "a"), numbered(2, "b")]).await.unwrap();
    eventually("both are with the sink", || out.held() == 2).await;
    assert_eq!((memory.len("in"), running.progress().settled), (2, 0));
    running.stop();
    // A stop waits for confirms as well.
    eventually("the app is not ready", || !running.readiness().accepting_traffic).await;
    assert_eq!(memory.len("in"), 2);
    out.set(|sink| sink.does = Does::Confirm);
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "acked"), memory.len("in"), stopped.exit_code()), (2, 0, 0));
    // The key of the cause is inherited.
    assert_eq!(out.state().has.iter().map(|sent| sent.key.clone().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_is_refused_fails_the_message_that_caused_it() {
    let (app, memory, scripted) = forwarding("refusals", quickly(1_000));
    let out = scripted.at_sink("out");
    out.set(|sink| sink.does = Does::Refuse);
    let running = started(app).await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    eventually("it is tried again", || out.state().refused >= 3).await;
    assert_eq!(running.progress().settled, 0);
    out.set(|sink| sink.does = Does::Confirm);
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "acked"), out.state().has.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_send_is_always_refused_is_a_dead_letter_that_says_so() {
    let (app, memory, scripted) = forwarding("refused", quickly(2));
    scripted.at_sink("out").set(|sink| sink.does = Does::Refuse);
    let running = started(app).await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    eventually("a dead letter", || memory.len("dead") == 1).await;
    stopped(running).await;
    let dead = &content(&memory, "memory:dead").await[0];
    assert_eq!((header(dead, "longshore-reason"), header(dead, "longshore-attempts")), (Some("refused"), Some("2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_after_the_handler_has_returned_is_refused() {
    let (app, memory) = app("late");
    let kept: Arc<Mutex<Option<To<Note>>>> = Arc::default();
    let keep = kept.clone();
    let handler = move |Json(_): Json<u32>, out: To<Note>| {
        *keep.lock().unwrap() = Some(out);
        async {}
    };
    let app =
        app.producer(Producer::<Note>::new("out", "memory:out")).consumer(Consumer::new("take", "memory:in", handler));
    let running = started(app).await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    eventually("it is acked", || running.progress().settled == 1).await;
    let out = kept.lock().unwrap().take().unwrap();
    for refused in [out.send(&Note(1)).await, out.send_confirmed(&Note(2)).await] {
        assert_eq!(refused.unwrap_err().class(), "settled");
    }
    stopped(running).await;
    assert_eq!(memory.len("out"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_send_waits_for_its_destination_and_tells_its_refusal() {
    let (app, memory) = app("confirmed");
    let scripted = Scripted::default();
    let out = scripted.at_sink("out");
    out.set(|sink| sink.does = Does::Hold);
    let log: Log<String> = Log::default();
    let into = log.clone();
    let handler = move |Json(n): Json<u32>, to: To<Note>| {
        let into = into.clone();
        async move {
            into.push("sends".into());
            let sent = to.send_confirmed(&Note(n)).await;
            into.push(sent.map_or_else(|failure| failure.class().to_owned(), |()| "has it".to_owned()));
            // Whatever the handler makes of it, a message whose send failed has failed.
            Ok::<(), Failure>(())
        }
    };
    let app = app
        .transport(scripted.clone())
        .producer(Producer::<Note>::new("out", "test:out"))
        .consumer(Consumer::new("take", "memory:in", handler).retry(quickly(2)).dead_letter("memory:dead"));
    let running = started(app).await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    eventually("it is with the sink", || out.held() == 1).await;
    assert_eq!(log.all(), ["sends"]);
    out.set(|sink| sink.does = Does::Refuse);
    eventually("a dead letter", || memory.len("dead") == 1).await;
    assert_eq!(log.all(), ["sends", "refused", "sends", "refused"]);
    out.set(|sink| sink.does = Does::Confirm);
    memory.publish("in", [numbered(2, "a")]).await.unwrap();
    assert_eq!(log.until(6).await[4..], ["sends", "has it"]);
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "acked"), count(&stopped, "take", "dead_lettered")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_cannot_be_encoded_is_a_permanent_failure() {
    let (app, memory) = app("encoding");
    let handler =
        |Json(n): Json<u32>, out: To<Note>| async move { out.send_with(&Note(n), &MessageHeaders::new()).await };
    let producer = Producer::<Note>::with("out", "memory:out", |_, _| Err("no such character".into()));
    let consumer = Consumer::new("take", "memory:in", handler).dead_letter("memory:dead");
    let running = started(app.producer(producer).consumer(consumer)).await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    eventually("a dead letter", || memory.len("dead") == 1).await;
    stopped(running).await;
    let dead = &content(&memory, "memory:dead").await[0];
    assert_eq!(
        (header(dead, "longshore-reason"), header(dead, "longshore-attempts")),
        (Some("unencodable"), Some("1"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_place_that_refuses_pauses_the_intake_and_goes_on_when_it_takes_again() {
    let (app, memory) = app("full");
    let scripted = Scripted::default();
    let dead = scripted.at_sink("dead");
    dead.set(|sink| sink.does = Does::Refuse);
    let handler = |Json(n): Json<u32>| async move { if n == 0 { Err(Failure::reject("bad")) } else { Ok(()) } };
    let consumer = Consumer::new("take", "memory:in", handler).look_ahead(8).dead_letter("test:dead");
    let running = started(app.transport(scripted.clone()).consumer(consumer)).await;
    memory.publish("in", [numbered(0, "a")]).await.unwrap();
    eventually("the place has refused it", || dead.state().refused >= 1).await;
    eventually("it is not ready", || running.readiness().status == "not_ready").await;
    let reasons = running.readiness().reasons.join("\n");
    assert!(reasons.contains("take") && reasons.contains("dead-letter place"), "{reasons}");
    memory.publish("in", (1..=200).map(|n| numbered(n, n))).await.unwrap();
    let refused = dead.state().refused;
    eventually("it is tried again", || dead.state().refused > refused).await;
    let progress = running.progress();
    assert!(progress.received <= 9, "the intake is paused: {progress:?}");
    assert!(memory.len("in") > 200 - 8, "nothing is acked for it");
    dead.set(|sink| sink.does = Does::Confirm);
    eventually("it goes on", || running.progress().settled == 201).await;
    eventually("it is ready", || running.readiness().status == "ready").await;
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "acked"), count(&stopped, "take", "dead_lettered")), (200, 1));
    assert_eq!(dead.state().has.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_dead_letter_place_that_refuses() {
    let (app, _) = app("full at the stop");
    let scripted = Scripted::default();
    let (source, dead) = (scripted.at_source("in"), scripted.at_sink("dead"));
    dead.set(|sink| sink.does = Does::Refuse);
    let handler = |Json(_): Json<u32>| async { Err::<(), _>(Failure::reject("bad")) };
    let consumer = Consumer::new("take", "test:in", handler).dead_letter("test:dead");
    let running = started(app.transport(scripted.clone()).consumer(consumer)).await;
    source.publish(0, [numbered(0, "a")]);
    eventually("the place has refused it", || dead.state().refused >= 1).await;
    let began = Instant::now();
    let stopped = stopped(running).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((source.left(), count(&stopped, "take", "returned")), (1, 1), "it is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_without_a_place_for_it_ends_the_app_with_65_and_its_position() {
    let (app, memory) = app("nowhere");
    let handler = |Json(n): Json<u32>| async move { if n == 3 { Err(Failure::reject("bad")) } else { Ok(()) } };
    let mut running = started(app.consumer(Consumer::new("take", "memory:in", handler))).await;
    let began = Instant::now();
    memory.publish("in", (0..10).map(|n| numbered(n, "a"))).await.unwrap();
    let stopped = ended(&mut running).await;
    assert_eq!(stopped.exit_code(), 65, "{}", stopped.table());
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait for what cannot happen: {:?}", began.elapsed());
    let error = actor(&stopped, "take")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("message at 3") && error.contains("bad"), "{error}");
    assert_eq!(count(&stopped, "take", "acked"), 3, "nothing of its key overtakes it: {}", stopped.table());
}
