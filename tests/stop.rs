//! How an app starts and stops: in which order, what becomes of the work, and how it ends when something fails.

mod support;

use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::local::Local;
use longshore::transport::memory::Memory;
use longshore::transport::{SinkSpec, Transport, Url};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use support::scripted::{Does, Scripted};
use support::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note(u32);

/// Publishes into a queue from outside of any app.
async fn publish(transport: &impl Transport, url: &str, messages: impl IntoIterator<Item = Message>) {
    use longshore::message::SlabBuilder;
    use longshore::transport::{SinkAsk, SinkEvent};
    let spec = SinkSpec::new("test", PATIENCE);
    let mut sink = transport.sink(&Url::parse(url).unwrap(), &spec).unwrap().open().await.unwrap();
    let mut slab = SlabBuilder::new();
    for message in messages {
        slab.push_message(&message);
    }
    let (mut open, mut told) = (slab.len() as u32, false);
    let slab = Arc::new(slab.finish("test".into()));
    while open > 0 {
        match sink.next().await {
            SinkEvent::Demand { messages, .. } if !told => {
                assert!(messages >= open, "the test publishes what fits");
                sink.tell(SinkAsk::Send { batch: 0, slab: slab.clone() });
                told = true;
            }
            SinkEvent::Confirmed { range, failed, .. } => {
                assert!(failed.is_empty(), "{failed:?}");
                open -= range.len() as u32;
            }
            _ => {}
        }
    }
}

struct Named(&'static str, Log<String>);

impl Resource for Named {
    async fn close(&self) -> Result<(), BoxError> {
        self.1.push(self.0.to_owned());
        Ok(())
    }
}

/// Another type of resource.
struct Second(Named);

impl Resource for Second {
    async fn close(&self) -> Result<(), BoxError> {
        self.0.close().await
    }
}

struct Counter {
    log: Log<String>,
}

impl Worker for Counter {
    type Input = Json<u32>;

    async fn started(&mut self, _: &Context) -> Outcome {
        self.log.push("worker started".into());
        Ok(())
    }

    async fn handle(&mut self, _: Json<u32>, _: &Context) -> Outcome {
        Ok(())
    }

    async fn stopped(&mut self, why: Why) {
        self.log.push(format!("worker {why:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_stop_before_the_producers_they_feed_and_resources_close_after_everybody_in_reverse() {
    let (app, _) = app("order");
    let scripted = Scripted::default();
    let log: Log<String> = Log::default();
    scripted.at_sink("out").set(|sink| sink.log = Some(log.clone()));
    let (one, two, of_worker, of_service) = (log.clone(), log.clone(), log.clone(), log.clone());
    let app = app
        .transport(scripted.clone())
        // Installed from last to first: the kinds have an order of their own.
        .consumer(Consumer::worker("take", "memory:in", move |_: Res<Second>| {
            let log = of_worker.clone();
            async move { Ok::<_, BoxError>(Counter { log }) }
        }))
        .producer(Producer::<Note>::new("out", "test:out"))
        .service_with(
            "listen",
            move || {
                let log = of_service.clone();
                async move { Ok::<_, BoxError>(log) }
            },
            |log| async move {
                log.push("service".to_owned());
                Ok(())
            },
        )
        .resource("first", move || {
            let log = one.clone();
            async move {
                log.push("opens first".into());
                Ok::<_, BoxError>(Named("first", log))
            }
        })
        .resource("second", move |first: Res<Named>| {
            let log = two.clone();
            async move {
                assert_eq!(first.0, "first");
                log.push("opens second".into());
                Ok::<_, BoxError>(Second(Named("second", log)))
            }
        });
    let running = started(app).await;
    assert_eq!(log.all(), ["opens first", "opens second", "worker started"]);
    let stopped = stopped(running).await;
    assert_eq!(log.all()[3..], ["worker Stopping", "sink", "service", "second", "first"]);
    assert_eq!(stopped.exit_code(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_that_fails_or_hangs_when_it_closes_is_named_and_the_next_still_closes() {
    struct Hangs;
    struct Fails;
    struct Panics;
    let log: Log<String> = Log::default();
    let into = log.clone();
    let app = App::new("closing")
        .stop_deadline(Duration::from_secs(2))
        .resource("good", move || {
            let log = into.clone();
            async move { Ok::<_, BoxError>(Named("good", log)) }
        })
        .resource_with("hangs", || async { Ok::<_, BoxError>(Hangs) }, |_: Arc<Hangs>| std::future::pending())
        .resource_with(
            "fails",
            || async { Ok::<_, BoxError>(Fails) },
            |_: Arc<Fails>| async { Err("disk gone".into()) },
        )
        .resource_with("panics", || async { Ok::<_, BoxError>(Panics) }, |_: Arc<Panics>| async { panic!("closing") });
    let began = Instant::now();
    let stopped = stopped(started(app).await).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(log.all(), ["good"]);
    assert_eq!(actor(&stopped, "hangs")["stopped"], "hung");
    assert_eq!(actor(&stopped, "fails")["stopped"], "failed");
    assert!(actor(&stopped, "fails")["error"].as_str().unwrap().contains("disk gone"));
    assert_eq!(actor(&stopped, "panics")["stopped"], "failed");
    assert_eq!(actor(&stopped, "good")["stopped"], "properly");
    assert!(stopped.table().contains("resource hangs: hung"), "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_told_of_the_drain_and_publishes_nothing_from_then_on() {
    let (app, memory) = app("services");
    let log: Log<String> = Log::default();
    let into = log.clone();
    let service = move |cx: Context, out: Publisher<Note>| {
        let log = into.clone();
        async move {
            out.publish(&Note(1)).await.map_err(Failure::into_error)?;
            log.push("published".into());
            cx.until(Stopping::Draining).await;
            log.push(format!("{:?}", cx.stopping()));
            while out.publish(&Note(2)).await.is_ok() {
                tokio::task::yield_now().await;
            }
            log.push(out.publish(&Note(3)).await.unwrap_err().class().to_owned());
            Ok::<_, BoxError>(())
        }
    };
    let app = app.producer(Producer::<Note>::new("out", "memory:out")).service("feed", service);
    let running = started(app).await;
    log.until(1).await;
    let stopped = stopped(running).await;
    assert_eq!(log.all(), ["published", "Draining", "stopping"]);
    assert!(memory.len("out") >= 1);
    assert_eq!((stopped.exit_code(), actor(&stopped, "feed")["stopped"].clone()), (0, "properly".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_ends_with_the_refusal_of_its_publish_does_not_spoil_the_exit() {
    let (app, memory) = app("refused");
    let service = |out: Publisher<Note>| async move {
        loop {
            out.publish(&Note(1)).await.map_err(Failure::into_error)?;
            tokio::task::yield_now().await;
        }
        #[allow(unreachable_code, reason = "the type of the block")]
        Ok::<_, BoxError>(())
    };
    let app = app.producer(Producer::<Note>::new("out", "memory:out?capacity=1000000")).service("feed", service);
    let running = started(app).await;
    eventually("it publishes", || memory.len("out") > 0).await;
    let stopped = stopped(running).await;
    assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_has_enqueued_is_flushed_before_its_producer_closes() {
    let (app, _) = app("flush");
    let scripted = Scripted::default();
    let out = scripted.at_sink("out");
    out.set(|sink| (sink.does, sink.window) = (Does::Hold, Some(1)));
    let log: Log<bool> = Log::default();
    let into = log.clone();
    let service = move |cx: Context, out: Publisher<Note>| {
        let log = into.clone();
        async move {
            let mut confirms = Vec::new();
            for n in 0..5 {
                confirms.push(out.enqueue(&Note(n), &Default::default()).await.map_err(Failure::into_error)?);
            }
            tokio::spawn(async move {
                for confirm in confirms {
                    log.push(confirm.await.is_ok());
                }
            });
            cx.until(Stopping::Draining).await;
            Ok::<_, BoxError>(())
        }
    };
    let app =
        app.transport(scripted.clone()).producer(Producer::<Note>::new("out", "test:out")).service("feed", service);
    let running = started(app).await;
    eventually("one is with the sink", || out.held() == 1).await;
    running.stop();
    // Closed too early, the sink would say so, and what waits in front of it would have failed.
    for n in 1..=5 {
        eventually("the next one is with the sink", || out.held() == 1 && out.state().has.len() == n - 1).await;
        out.set(|sink| sink.confirms = 1);
    }
    stopped(running).await;
    assert_eq!(log.until(5).await, [true; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_every_handler_that_has_started_and_gives_back_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("local:{}?queue=in&group=take", dir.path().join("q.db").display());
    let local = Local::default();
    publish(&local, &url.replace("&group=take", ""), (0..100).map(|n| numbered(n, n))).await;
    let begun: Log<u32> = Log::default();
    let done: Log<u32> = Log::default();
    let (begin, end) = (begun.clone(), done.clone());
    let handler = move |Json(n): Json<u32>| {
        let (begin, end) = (begin.clone(), end.clone());
        async move {
            begin.push(n);
            tokio::time::sleep(Duration::from_millis(300)).await;
            end.push(n);
        }
    };
    let app = App::new("handlers").consumer(Consumer::new("take", url.clone(), handler).concurrency(8));
    let running = started(app).await;
    begun.until(8).await;
    let stopped = stopped(running).await;
    assert_eq!((begun.len(), done.len(), stopped.exit_code()), (8, 8, 0), "{}", stopped.table());
    assert_eq!(count(&stopped, "take", "acked"), 8);
    let received = count(&stopped, "take", "received");
    assert_eq!(count(&stopped, "take", "returned"), received - 8);
    let url = Url::parse(&url).unwrap();
    let seen = local.inspect(&url, "take").await.unwrap();
    assert_eq!((seen.waiting, seen.in_flight, seen.dead), (Some(92), Some(0), Some(0)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_given_back_is_worked_off_by_a_stop() {
    let (app, memory) = app("work off");
    let handler = |Json(_): Json<u32>| tokio::time::sleep(Duration::from_millis(1));
    let running = started(app.consumer(Consumer::new("take", "memory:in", handler).concurrency(4))).await;
    memory.publish("in", (0..500).map(|n| numbered(n, n))).await.unwrap();
    running.stop();
    assert!(memory.publish("in", [numbered(0, 0)]).await.is_err() || memory.len("in") > 0);
    let stopped = stopped(running).await;
    assert_eq!((memory.len("in"), stopped.exit_code()), (0, 0), "{}", stopped.table());
    assert_eq!(count(&stopped, "take", "abandoned"), 0);
}

/// A handler that never ends, on a durable queue of one message, stopped with a short deadline.
async fn stuck(retry: Retry) -> (longshore::Stopped, longshore::transport::Inspection, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("local:{}?queue=in&group=take", dir.path().join("q.db").display());
    let local = Local::default();
    publish(&local, &url.replace("&group=take", ""), [numbered(1, "a")]).await;
    let begun: Log<()> = Log::default();
    let begin = begun.clone();
    let handler = move |Json(_): Json<u32>| {
        begin.push(());
        std::future::pending::<()>()
    };
    let app = App::new("stuck")
        .stop_deadline(Duration::from_secs(1))
        .consumer(Consumer::new("take", url.clone(), handler).retry(retry));
    let running = started(app).await;
    begun.until(1).await;
    let began = Instant::now();
    let stopped = stopped(running).await;
    let took = began.elapsed();
    let url = Url::parse(&url).unwrap();
    (stopped, local.inspect(&url, "take").await.unwrap(), took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_does_not_end_by_the_deadline_is_dropped_named_and_its_message_given_back() {
    let (stopped, seen, took) = stuck(quickly(3)).await;
    assert_eq!(stopped.exit_code(), 75, "{}", stopped.table());
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(stopped.report()["stuck"][0]["worker"], "take");
    assert!(stopped.table().contains("stuck in take: message at"), "{}", stopped.table());
    assert_eq!((count(&stopped, "take", "returned"), seen.waiting, seen.dead), (1, Some(1), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_makes_no_dead_letter_of_a_handler_that_it_cancels_in_its_last_attempt() {
    let (stopped, seen, _) = stuck(Retry::never()).await;
    assert_eq!(stopped.exit_code(), 75, "{}", stopped.table());
    assert_eq!((count(&stopped, "take", "returned"), count(&stopped, "take", "dead_lettered")), (1, 0));
    assert_eq!((seen.waiting, seen.dead), (Some(1), Some(0)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_sees_the_drain_and_then_that_time_is_up() {
    let (app, memory) = app("stages");
    let log: Log<Stopping> = Log::default();
    let into = log.clone();
    let handler = move |_: Raw, cx: Context| {
        let into = into.clone();
        async move {
            into.push(cx.stopping());
            cx.until(Stopping::Draining).await;
            into.push(cx.stopping());
            std::future::pending::<()>().await;
        }
    };
    let app = app.stop_deadline(Duration::from_millis(500)).consumer(Consumer::new("take", "memory:in", handler));
    let running = started(app).await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    log.until(1).await;
    let stopped = stopped(running).await;
    assert_eq!(log.all(), [Stopping::No, Stopping::Draining]);
    assert_eq!((stopped.exit_code(), count(&stopped, "take", "abandoned")), (75, 1), "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_over_queues_in_the_process_drains_whole_whenever_it_is_stopped() {
    struct ToC;
    for round in 0..40 {
        let memory = Memory::new();
        let done: Log<u32> = Log::default();
        let into = done.clone();
        let a = |Json(n): Json<u32>, out: To<Note>| async move {
            if n.is_multiple_of(7) {
                tokio::task::yield_now().await;
            }
            out.send(&Note(n)).await
        };
        let b = |Json(note): Json<Note>, out: To<Note, ToC>| async move {
            if note.0.is_multiple_of(5) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            out.send(&note).await
        };
        let app = App::new("pipeline")
            .transport(memory.clone())
            .producer(Producer::<Note>::new("to b", "memory:b?capacity=32"))
            .producer(Producer::<Note, ToC>::new("to c", "memory:c?capacity=32"))
            .consumer(Consumer::new("a", "memory:a", a))
            .consumer(Consumer::new("b", "memory:b", b))
            .consumer(Consumer::new("c", "memory:c", move |Json(note): Json<Note>| {
                into.push(note.0);
                async {}
            }));
        let running = started(app).await;
        let publisher = memory.clone();
        let published = tokio::spawn(async move {
            let mut published = 0;
            for n in 0..400 {
                if publisher.publish("a", [numbered(n, n % 11)]).await.is_err() {
                    break;
                }
                published += 1;
            }
            published
        });
        done.until(fastrand::usize(0..200)).await;
        let stopped = stopped(running).await;
        let published = soon("the publisher ends", published).await.unwrap();
        let context = format!("round {round}, {published} published\n{}", stopped.table());
        assert_eq!(stopped.exit_code(), 0, "{context}");
        let mut found = done.all();
        found.sort_unstable();
        assert_eq!(found, (0..published).collect::<Vec<u32>>(), "{context}");
        assert_eq!(stopped.report()["total"]["acked"], published * 3, "{context}");
    }
}

/// Runs on one thread, and fails where that thread never comes back.
fn on_one_thread(test: impl Future<Output = ()> + Send + 'static) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
        tell.send(()).unwrap();
    });
    told.recv_timeout(PATIENCE).expect("the test ends");
}

#[test]
fn a_handler_that_waits_for_room_in_its_producer_lets_a_stop_go_on() {
    on_one_thread(async {
        let (app, memory) = app("fan out");
        let scripted = Scripted::default();
        let out = scripted.at_sink("out");
        out.set(|sink| sink.does = Does::Hold);
        let begun: Log<()> = Log::default();
        let begin = begun.clone();
        let handler = move |_: Raw, out: To<Note>| {
            begin.push(());
            async move {
                for n in 0..10_000 {
                    out.send(&Note(n)).await?;
                }
                Ok::<_, Failure>(())
            }
        };
        let app = app
            .transport(scripted.clone())
            .producer(Producer::<Note>::new("out", "test:out"))
            .consumer(Consumer::new("take", "memory:in", handler));
        let running = started(app).await;
        memory.publish("in", [numbered(1, "a")]).await.unwrap();
        begun.until(1).await;
        running.stop();
        eventually("the drain has begun", || running.readiness().status == "shutting_down").await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        out.set(|sink| sink.does = Does::Confirm);
        let stopped = stopped(running).await;
        assert_eq!((stopped.exit_code(), out.state().has.len()), (0, 10_000), "{}", stopped.table());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_names_who_failed_and_is_undone_in_reverse() {
    struct Third;
    impl Resource for Third {
        async fn close(&self) -> Result<(), BoxError> {
            panic!("it was never opened")
        }
    }
    let (app, _) = app("undone");
    let log: Log<String> = Log::default();
    let (one, two) = (log.clone(), log.clone());
    let app = app
        .resource("first", move || {
            let log = one.clone();
            async move { Ok::<_, BoxError>(Named("first", log)) }
        })
        .resource("second", move || {
            let log = two.clone();
            async move { Ok::<_, BoxError>(Second(Named("second", log))) }
        })
        .resource("third", || async { Err::<Third, BoxError>("no such host".into()) })
        .consumer(Consumer::new("take", "memory:in", |_: Raw| async {}));
    let mut running = app.start(&tokio::runtime::Handle::current()).await.unwrap();
    assert!(!soon("the start fails", running.ready()).await);
    let stopped = ended(&mut running).await;
    assert_eq!(stopped.exit_code(), 1);
    let why = stopped.start_error().unwrap();
    assert!(why.contains("third") && why.contains("no such host"), "{why}");
    assert_eq!(log.all(), ["second", "first"]);
    assert_eq!(actor(&stopped, "take")["stopped"], "not_started");
}

/// A start that hangs at one place is stopped; how long that took.
async fn stopped_while_starting(what: &str, app: App, hangs: impl FnMut() -> bool) {
    let running = app.start(&tokio::runtime::Handle::current()).await.unwrap();
    eventually(what, hangs).await;
    let began = Instant::now();
    let stopped = stopped(running).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{what}: took {:?}\n{}", began.elapsed(), stopped.table());
    assert_eq!((stopped.exit_code(), stopped.start_error()), (0, None), "{what}: {}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_a_resource_opens_does_not_wait_for_it() {
    let opening: Log<()> = Log::default();
    let open = opening.clone();
    let (app, _) = app("opening");
    let app = app.resource("db", move || {
        open.push(());
        std::future::pending::<Result<Named, BoxError>>()
    });
    stopped_while_starting("it opens", app, || opening.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_an_instance_starts_does_not_wait_for_it() {
    struct Hangs(Log<()>);
    impl Worker for Hangs {
        type Input = Raw;
        async fn started(&mut self, _: &Context) -> Outcome {
            self.0.push(());
            std::future::pending().await
        }
        async fn handle(&mut self, _: Raw, _: &Context) -> Outcome {
            Ok(())
        }
    }
    let starting: Log<()> = Log::default();
    let into = starting.clone();
    let (app, _) = app("instances");
    let app = app.consumer(Consumer::worker("take", "memory:in", move || {
        let log = into.clone();
        async move { Ok::<_, BoxError>(Hangs(log)) }
    }));
    stopped_while_starting("it starts", app, || starting.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_a_source_opens_does_not_wait_for_it() {
    let (app, _) = app("source");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    source.set(|source| source.hanging_open = true);
    let app = app.transport(scripted.clone()).consumer(Consumer::new("take", "test:in", |_: Raw| async {}));
    stopped_while_starting("it opens", app, || source.state().opens == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_a_bridge_connects_to_its_sink_does_not_wait_for_it() {
    for hanging_open in [true, false] {
        let (app, _) = app("bridge");
        let scripted = Scripted::default();
        let sink = scripted.at_sink("out");
        sink.set(|sink| (sink.hanging_open, sink.disconnected) = (hanging_open, true));
        let app = app.transport(scripted.clone()).bridge(Bridge::new("over", "memory:in", "test:out"));
        stopped_while_starting("it connects", app, || sink.state().opens == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_a_producer_connects_does_not_wait_for_it() {
    for hanging_open in [true, false] {
        let (app, _) = app("producer");
        let scripted = Scripted::default();
        let sink = scripted.at_sink("out");
        sink.set(|sink| (sink.hanging_open, sink.disconnected) = (hanging_open, true));
        let app = app.transport(scripted.clone()).producer(Producer::<Note>::new("out", "test:out"));
        stopped_while_starting("it connects", app, || sink.state().opens == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_a_service_starts_does_not_wait_for_it() {
    let (app, _) = app("service");
    let starting: Log<()> = Log::default();
    let into = starting.clone();
    let start = move || {
        into.push(());
        std::future::pending::<Result<(), BoxError>>()
    };
    let app = app.service_with("listen", start, |()| async { Ok(()) });
    stopped_while_starting("it starts", app, || starting.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_ends_when_every_source_has_ended_and_all_is_settled() {
    let (app, memory) = app("ends");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.ndjson");
    std::fs::write(&path, "1\n2\n\n3").unwrap();
    let log: Log<u32> = Log::default();
    let (one, two) = (log.clone(), log.clone());
    let take = |into: Log<u32>| {
        move |Json(n): Json<u32>, Attempt(attempt): Attempt| {
            let into = into.clone();
            async move {
                if attempt == 1 {
                    return Err(Failure::retry("once"));
                }
                into.push(n);
                Ok(())
            }
        }
    };
    let app = app
        .consumer(Consumer::new("file", format!("file:{}", path.display()), take(one)).retry(quickly(3)))
        .consumer(Consumer::new("queue", "memory:in", take(two)).retry(quickly(3)));
    let mut running = started(app).await;
    memory.publish("in", (4..10).map(|n| numbered(n, n))).await.unwrap();
    memory.close("in");
    let stopped = ended(&mut running).await;
    assert_eq!((stopped.exit_code(), stopped.report()["cause"].clone()), (0, "sources_ended".into()));
    let mut found = log.all();
    found.sort_unstable();
    assert_eq!(found, (1..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_ends_the_app_after_so_many_messages() {
    let (app, memory) = app("limit");
    let handler = |Json(_): Json<u32>| async {};
    memory.publish("in", (0..50).map(|n| numbered(n, n))).await.unwrap();
    let mut running = app
        .consumer(Consumer::new("take", "memory:in", handler).limit(20))
        .start(&tokio::runtime::Handle::current())
        .await
        .unwrap();
    let stopped = ended(&mut running).await;
    assert_eq!((count(&stopped, "take", "acked"), memory.len("in")), (20, 30), "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_ends_only_when_nothing_waits_for_another_attempt() {
    let (app, memory) = app("idle");
    let handler = |Attempt(attempt): Attempt| async move {
        if attempt == 1 { Err(Failure::retry_after(Duration::from_millis(600), "later")) } else { Ok(()) }
    };
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    let consumer = Consumer::new("take", "memory:in", handler).until_idle(Duration::from_millis(100));
    let mut running = app.consumer(consumer).start(&tokio::runtime::Handle::current()).await.unwrap();
    let stopped = ended(&mut running).await;
    assert_eq!((count(&stopped, "take", "acked"), stopped.exit_code()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_is_opened_again_and_nothing_is_lost() {
    let (app, _) = app("restarts");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    source.set(|source| source.batch = Some(3));
    let log: Log<u32> = Log::default();
    let into = log.clone();
    let handler = move |Json(n): Json<u32>| {
        let into = into.clone();
        async move {
            tokio::task::yield_now().await;
            into.push(n);
        }
    };
    let running = started(app.transport(scripted.clone()).consumer(Consumer::new("take", "test:in", handler))).await;
    source.publish(0, (0..100).map(|n| numbered(n, n)));
    log.until(10).await;
    source.set(|source| source.fails = true);
    eventually("everything is settled", || source.left() == 0).await;
    assert_eq!(source.state().opens, 2);
    eventually("it is ready again", || running.readiness().status == "ready").await;
    let stopped = stopped(running).await;
    let mut found = log.all();
    found.sort_unstable();
    found.dedup();
    assert_eq!((found.len(), stopped.exit_code()), (100, 0), "{}", stopped.table());
    assert_eq!(stopped.start_error(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_cannot_be_opened_again_at_first_is_tried_on() {
    let (app, _) = app("reopens");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    let handler = |_: Raw| async {};
    let running = started(app.transport(scripted.clone()).consumer(Consumer::new("take", "test:in", handler))).await;
    source.set(|source| (source.fails, source.failing_opens) = (true, 2));
    eventually("it is opened", || source.state().opens == 4 && source.state().open).await;
    source.publish(0, [numbered(1, "a")]);
    eventually("it works", || source.left() == 0).await;
    let stopped = stopped(running).await;
    assert_eq!((stopped.exit_code(), stopped.start_error()), (0, None), "{}", stopped.table());
    assert_eq!(actor(&stopped, "take")["stopped"], "properly", "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_keeps_failing_ends_the_app_with_70_in_order() {
    let (app, _) = app("gives up");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    let log: Log<String> = Log::default();
    let into = log.clone();
    let app = app
        .transport(scripted.clone())
        .resource("db", move || {
            let log = into.clone();
            async move { Ok::<_, BoxError>(Named("db", log)) }
        })
        .consumer(Consumer::new("take", "test:in", |_: Raw| async {}));
    let mut running = started(app).await;
    let began = Instant::now();
    source.set(|source| source.always_fails = true);
    let stopped = ended(&mut running).await;
    assert_eq!((stopped.exit_code(), source.state().opens), (70, 6), "{}", stopped.table());
    // Half of 100 + 200 + 400 + 800 + 1600 ms: jitter takes at most half.
    assert!(began.elapsed() >= Duration::from_millis(1_550), "{:?}", began.elapsed());
    assert!(actor(&stopped, "take")["error"].as_str().unwrap().contains("the script says that it fails"));
    assert_eq!(log.all(), ["db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_a_worker_waits_for_its_restart_does_not_wait_for_it() {
    let (app, _) = app("restarting");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    let running =
        started(app.transport(scripted.clone()).consumer(Consumer::new("take", "test:in", |_: Raw| async {}))).await;
    source.set(|source| source.always_fails = true);
    eventually("it has failed often enough to wait long", || source.state().opens == 4).await;
    let began = Instant::now();
    let stopped = stopped(running).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_fails_is_opened_again_and_what_it_held_is_sent_again() {
    let (app, memory) = app("producers");
    let scripted = Scripted::default();
    let out = scripted.at_sink("out");
    out.set(|sink| sink.does = Does::Hold);
    let handler = |Json(n): Json<u32>, out: To<Note>| async move { out.send(&Note(n)).await };
    let app = app
        .transport(scripted.clone())
        .producer(Producer::<Note>::new("out", "test:out"))
        .consumer(Consumer::new("take", "memory:in", handler).retry(quickly(100)));
    let running = started(app).await;
    memory.publish("in", (0..5).map(|n| numbered(n, n))).await.unwrap();
    eventually("they are with the sink", || out.held() == 5).await;
    out.set(|sink| (sink.fails, sink.does) = (true, Does::Confirm));
    eventually("they are settled", || memory.is_empty("in")).await;
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "acked"), stopped.exit_code()), (5, 0), "{}", stopped.table());
    let has: std::collections::BTreeSet<Vec<u8>> =
        out.state().has.iter().map(|sent| sent.payload.clone().unwrap().to_vec()).collect();
    assert_eq!(has.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_fails_is_started_again_and_one_that_is_done_is_not() {
    let (app, _) = app("services");
    let runs = Arc::new(AtomicU32::new(0));
    let done: Log<u32> = Log::default();
    let (counted, into) = (runs.clone(), done.clone());
    let service = move || {
        let (run, into) = (counted.fetch_add(1, Ordering::Relaxed), into.clone());
        async move {
            match run {
                0 => Err::<(), BoxError>("once".into()),
                1 => panic!("twice"),
                _ => {
                    into.push(run);
                    Ok(())
                }
            }
        }
    };
    let running = started(app.service("feed", service)).await;
    done.until(1).await;
    let stopped = stopped(running).await;
    assert_eq!((runs.load(Ordering::Relaxed), stopped.exit_code()), (3, 0), "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_dropped_is_asked_to_stop() {
    let (app, _) = app("dropped");
    let log: Log<String> = Log::default();
    let into = log.clone();
    let running = started(app.resource("db", move || {
        let log = into.clone();
        async move { Ok::<_, BoxError>(Named("db", log)) }
    }))
    .await;
    drop(running);
    assert_eq!(log.until(1).await, ["db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_never_closes_is_given_up_and_the_exit_says_so() {
    let (app, _) = app("closing");
    let scripted = Scripted::default();
    scripted.at_source("in").set(|source| source.hanging_close = true);
    let app = app.stop_deadline(Duration::from_secs(1)).transport(scripted.clone()).consumer(Consumer::new(
        "take",
        "test:in",
        |_: Raw| async {},
    ));
    let running = started(app).await;
    let began = Instant::now();
    let stopped = stopped(running).await;
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!((stopped.exit_code(), actor(&stopped, "take")["stopped"].clone()), (75, "hung".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_the_delay_of_a_stop_messages_are_taken_and_the_app_is_not_ready() {
    let (app, _) = app("delay");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    let app = app.stop_delay(Duration::from_millis(300)).transport(scripted.clone()).consumer(Consumer::new(
        "take",
        "test:in",
        |_: Raw| async {},
    ));
    let running = started(app).await;
    running.stop();
    eventually("it is not ready", || !running.readiness().accepting_traffic).await;
    source.publish(0, [numbered(1, "a")]);
    eventually("it is handled", || source.left() == 0).await;
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "acked"), stopped.exit_code()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_fails_while_the_app_stops_is_named_and_the_stop_goes_on() {
    let (app, _) = app("services");
    let service = |cx: Context| async move {
        cx.until(Stopping::Draining).await;
        Err::<(), BoxError>("could not say goodbye".into())
    };
    let stopped = stopped(started(app.service("feed", service)).await).await;
    assert_eq!((stopped.exit_code(), actor(&stopped, "feed")["stopped"].clone()), (0, "failed".into()));
    assert!(actor(&stopped, "feed")["error"].as_str().unwrap().contains("could not say goodbye"));
}
