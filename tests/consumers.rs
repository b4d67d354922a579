//! What the settings of a consumer promise, each in an app of its own.

use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::memory::Memory;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

/// Runs an app over `messages` messages of one queue until all are settled; fails when that does not come to an end.
fn works_off(name: &str, messages: u32, app: impl FnOnce(App) -> App + Send + 'static) -> serde_json::Value {
    let (tell, told) = mpsc::channel();
    let memory = Memory::new();
    // A thread of its own: an executor that is stuck could not watch itself.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .event_interval(7)
            .enable_all()
            .build()
            .unwrap();
        let stopped = runtime.block_on(async {
            let mut app = app(App::new("rate").transport(memory.clone())).start(runtime.handle()).await.unwrap();
            assert!(app.ready().await);
            let all = (0..messages).map(|id| Message::new(id.to_string()).with_key((id % 7).to_string()));
            memory.publish("in", all).await.unwrap();
            memory.close("in");
            app.wait().await
        });
        let _ = tell.send(stopped.report());
    });
    told.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{name}: did not come to an end"))
}

async fn slow() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

struct Slow;

impl Worker for Slow {
    type Input = Raw;

    async fn handle(&mut self, _: Raw, _: &Context) -> Outcome {
        slow().await;
        Ok(())
    }
}

#[test]
fn a_rate_that_is_ready_again_before_the_handlers_are_keeps_nobody_from_working() {
    let report = works_off("messages", 60, |app| {
        let make = || async { Ok::<_, BoxError>(Slow) };
        app.consumer(Consumer::worker("slow", "memory:in", make).instances(4).rate(100.0))
    });
    assert_eq!(report["total"]["acked"], 60);
}

#[test]
fn a_batch_that_is_due_while_every_handler_is_busy_keeps_nobody_from_working() {
    async fn slow_batch(_: Batch<Raw>) -> Result<(), Failure> {
        slow().await;
        Ok(())
    }
    let report = works_off("batches", 60, |app| {
        let consumer = Consumer::batch("slow", "memory:in", slow_batch).concurrency(1);
        app.consumer(consumer.batches(4, 1 << 20, Duration::from_millis(1)).rate(100.0))
    });
    assert_eq!(report["total"]["acked"], 60);
}

#[test]
fn an_app_whose_workers_have_reached_their_limits_stops_whatever_is_left() {
    let report = works_off("limit", 10, |app| app.consumer(Consumer::new("few", "memory:in", slow).limit(3)));
    assert_eq!((&report["total"]["acked"], &report["exit_code"]), (&3.into(), &0.into()));
}

#[test]
fn a_message_of_a_batch_that_is_refused_has_nobody_of_its_key_handled_twice() {
    let seen = Arc::new(AtomicU32::new(0));
    let counted = seen.clone();
    let report = works_off("refused", 60, move |app| {
        let handle = move |batch: Batch<Json<u32>>| {
            counted.fetch_add(batch.len() as u32, Relaxed);
            let refuse = |Json(id): &Json<u32>| (*id % 10 == 0).then(|| Failure::reject("not this one"));
            let outcomes = batch.iter().map(|id| refuse(id).map_or(Ok(()), Err)).collect::<Vec<Outcome>>();
            async move { outcomes }
        };
        let consumer = Consumer::batch("some", "memory:in", handle).batches(30, 1 << 20, Duration::from_millis(5));
        app.consumer(consumer.dead_letter("memory:dead"))
    });
    let total = &report["total"];
    assert_eq!((&total["acked"], &total["dead_lettered"], seen.load(Relaxed)), (&54.into(), &6.into(), 60));
}

#[tokio::test]
async fn what_a_service_says_against_being_ready_is_shown_until_it_takes_it_back() {
    let (tell, told) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (said, go) = (tell.clone(), told.clone());
    let mut app = App::new("trouble")
        .service("warm", move |cx: Context| {
            let (said, go) = (said.clone(), go.clone());
            async move {
                cx.report_not_ready("the cache is cold");
                said.notify_one();
                go.notified().await;
                cx.report_ready();
                said.notify_one();
                cx.until(Stopping::Draining).await;
                Ok::<_, BoxError>(())
            }
        })
        .consumer(Consumer::new("slow", "memory:in", slow))
        .start(&tokio::runtime::Handle::current())
        .await
        .unwrap();
    tell.notified().await;
    let reasons = app.readiness().reasons;
    assert!(reasons.iter().any(|reason| reason.contains("the cache is cold")), "{reasons:?}");
    told.notify_one();
    tell.notified().await;
    assert!(app.ready().await);
    app.stop();
    assert_eq!(app.wait().await.exit_code(), 0);
}
