//! What is in memory: windows in messages and bytes, and what one stuck message keeps alive.

mod support;

use longshore::message::Message;
use longshore::prelude::*;
use support::scripted::Scripted;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_messages_are_delivered_ahead_than_the_window_holds() {
    for (concurrency, look_ahead, window) in [(4, None, 16), (4, Some(7), 7), (1, Some(1), 1)] {
        let (app, _) = app("window");
        let scripted = Scripted::default();
        let source = scripted.at_source("in");
        let handler = |_: Raw| tokio::time::sleep(Duration::from_micros(200));
        let mut consumer = Consumer::new("take", "test:in", handler).concurrency(concurrency);
        if let Some(messages) = look_ahead {
            consumer = consumer.look_ahead(messages);
        }
        source.publish(0, (0..300).map(|n| numbered(n, n)));
        let running = started(app.transport(scripted.clone()).consumer(consumer)).await;
        eventually("all are settled", || source.left() == 0).await;
        stopped(running).await;
        assert_eq!(source.state().most.0, window, "concurrency {concurrency}, look-ahead {look_ahead:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_bytes_are_delivered_ahead_than_the_budget_holds_and_one_message() {
    let (app, _) = app("bytes");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    // The source counts what it has not been told to be settled, and that is told within a millisecond: handlers that
    // take longer keep that part of the figure to one message a handler.
    let handler = |_: Raw| tokio::time::sleep(Duration::from_millis(5));
    let consumer = Consumer::new("take", "test:in", handler).concurrency(8).look_ahead(1_000).bytes(100_000);
    source.publish(0, (0..200).map(|n| Message::new(vec![0u8; 10_000]).with_key(n.to_string())));
    let running = started(app.transport(scripted.clone()).consumer(consumer)).await;
    eventually("all are settled", || source.left() == 0).await;
    stopped(running).await;
    let most = source.state().most.1;
    assert!((20_000..=110_100 + 8 * 10_100).contains(&most), "{most} bytes at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_larger_than_the_budget_is_handled_alone() {
    let (app, _) = app("large");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    let consumer = Consumer::new("take", "test:in", |_: Raw| async {}).bytes(1_000);
    source.publish(0, (0..20).map(|n| Message::new(vec![0u8; 5_000]).with_key(n.to_string())));
    let running = started(app.transport(scripted.clone()).consumer(consumer)).await;
    eventually("all are settled", || source.left() == 0).await;
    stopped(running).await;
    assert_eq!(source.state().most.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_stuck_messages_have_nearly_filled_still_moves() {
    let (app, memory) = app("narrow");
    let gate = Gate::default();
    let opens = gate.clone();
    let handler = move |key: Key| {
        let gate = opens.clone();
        async move {
            if key.text() == Some("stuck") {
                gate.pass().await;
            }
        }
    };
    let running = started(app.consumer(Consumer::new("take", "memory:in", handler).look_ahead(700))).await;
    for batch in 0..600 {
        // Whole batches of the queue's own size: what is left of a demand must not wait for one that never comes.
        let keyed =
            |n: u32| Message::new("x").with_key(if n == 0 { "stuck".to_owned() } else { format!("{batch}/{n}") });
        memory.publish("in", (0..256).map(keyed)).await.unwrap();
    }
    eventually("all others are settled", || running.progress().settled >= 600 * 255).await;
    gate.open();
    assert_eq!(stopped(running).await.exit_code(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_key_with_a_message_in_each_batch_holds_up_no_other_within_the_budget() {
    let (app, _) = app("stuck key");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    source.set(|source| source.batch = Some(100));
    let gate = Gate::default();
    let held = gate.clone();
    let handler = move |key: Key| {
        let held = held.clone();
        async move {
            if key.text() == Some("stuck") {
                held.pass().await;
            }
        }
    };
    // Each batch is 100 kB; 20 of them fit. If a message that waits kept its batch, the 21st would not come.
    let consumer = Consumer::new("take", "test:in", handler).look_ahead(1_000).bytes(2_000_000);
    let running = started(app.transport(scripted.clone()).consumer(consumer)).await;
    let of = |key: String| Message::new(vec![0u8; 1_000]).with_key(key);
    source.publish(0, (0..10_000).map(|n| of(if n % 100 == 0 { "stuck".to_owned() } else { n.to_string() })));
    eventually("all others are settled", || running.progress().settled == 9_900).await;
    gate.open();
    eventually("all are settled", || source.left() == 0).await;
    let stopped = stopped(running).await;
    assert_eq!(count(&stopped, "take", "acked"), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_retry_or_its_confirm_keeps_no_batch_in_memory() {
    for how in ["retry", "confirm"] {
        let (app, _) = app(how);
        let scripted = Scripted::default();
        let (source, out) = (scripted.at_source("in"), scripted.at_sink("out"));
        source.set(|source| source.batch = Some(100));
        out.set(|sink| sink.does = support::scripted::Does::Hold);
        let handler = move |key: Key, Attempt(attempt): Attempt, to: To<u32>| async move {
            match key.text() {
                Some(key) if key.starts_with("odd") && how == "confirm" => to.send(&1).await,
                Some(key) if key.starts_with("odd") && attempt == 1 => {
                    Err(Failure::retry_after(Duration::from_secs(3_600), "much later"))
                }
                _ => Ok(()),
            }
        };
        let consumer = Consumer::new("take", "test:in", handler).look_ahead(1_000).bytes(2_000_000);
        let app = app
            .stop_deadline(Duration::from_millis(500))
            .transport(scripted.clone())
            .producer(Producer::<u32>::new("out", "test:out"))
            .consumer(consumer);
        let running = started(app).await;
        let of = |n: u32| {
            let key = if n.is_multiple_of(100) { format!("odd {n}") } else { n.to_string() };
            Message::new(vec![0u8; 1_000]).with_key(key)
        };
        source.publish(0, (0..10_000).map(of));
        eventually("all others are settled", || running.progress().settled == 9_900).await;
        let stopped = stopped(running).await;
        assert_eq!((count(&stopped, "take", "returned"), source.left()), (100, 100), "{how}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_wait_while_their_destination_takes_nothing() {
    let (app, memory) = app("full");
    let scripted = Scripted::default();
    let out = scripted.at_sink("out");
    out.set(|sink| sink.does = support::scripted::Does::Hold);
    let log: Log<u32> = Log::default();
    let into = log.clone();
    let handler = move |_: Raw, out: To<u32>| {
        let into = into.clone();
        async move {
            for n in 0..20_000 {
                out.send(&n).await?;
                into.push(n);
            }
            Ok::<(), Failure>(())
        }
    };
    let app = app
        .transport(scripted.clone())
        .producer(Producer::<u32>::new("out", "test:out"))
        .consumer(Consumer::new("take", "memory:in", handler));
    let running = started(app).await;
    memory.publish("in", [numbered(1, "k")]).await.unwrap();
    log.until(8_192).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.len(), 8_192, "the bound of a producer");
    out.set(|sink| sink.does = support::scripted::Does::Confirm);
    log.until(20_000).await;
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "acked"), out.state().has.len()), (1, 20_000));
}
