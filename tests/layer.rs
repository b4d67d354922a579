//! What wraps and bounds a handler: tower layers inside the ack boundary, rate, concurrency.

mod support;

use longshore::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;
use support::*;
use tower::limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer};
use tower::timeout::TimeoutLayer;
use tower::util::{MapErrLayer, MapFutureLayer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_times_out_fails_the_message_inside_the_ack_boundary() {
    let (app, memory) = app("layers");
    let handler = |Attempt(attempt): Attempt| async move {
        if attempt < 3 {
            std::future::pending::<()>().await;
        }
    };
    let consumer = Consumer::new("take", "memory:in", handler)
        .layer(TimeoutLayer::new(Duration::from_millis(20)))
        .retry(quickly(3));
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    eventually("it is settled", || running.progress().settled == 1).await;
    assert_eq!(count(&stopped(running).await, "take", "acked"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_layer_makes_of_a_failure_is_settled() {
    let (app, memory) = app("mapped");
    let handler = |_: Raw| async { Err::<(), _>(Failure::retry("busy")) };
    let consumer = Consumer::new("take", "memory:in", handler)
        // A failure goes through code that speaks of errors and comes out as it was.
        .layer(MapErrLayer::new(|error: BoxError| {
            let failure = Failure::from(error);
            assert_eq!(failure.chain(), "busy");
            Failure::discard("not worth it").into_error()
        }));
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", [numbered(1, "a")]).await.unwrap();
    eventually("it is settled", || running.progress().settled == 1).await;
    assert_eq!(count(&stopped(running).await, "take", "discarded"), 1);
}

/// How many are inside, and the most there were.
#[derive(Clone, Default)]
struct Inside(Arc<(AtomicU32, AtomicU32)>);

impl Inside {
    async fn stay(self) {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> u32 {
        self.0.1.load(Ordering::SeqCst)
    }
}

fn staying(
    inside: &Inside,
) -> impl Fn(Raw) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Clone + Send + 'static {
    let inside = inside.clone();
    move |_: Raw| Box::pin(inside.clone().stay())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_is_not_ready_holds_back_the_worker_and_everything_is_still_handled() {
    let inside = Inside::default();
    let (app, memory) = app("limited");
    let consumer =
        Consumer::new("take", "memory:in", staying(&inside)).concurrency(16).layer(GlobalConcurrencyLimitLayer::new(3));
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", (0..200).map(|n| numbered(n, n))).await.unwrap();
    eventually("all are settled", || running.progress().settled == 200).await;
    assert_eq!(count(&stopped(running).await, "take", "acked"), 200);
    assert_eq!(inside.most(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_can_be_stacked_on_batches_and_workers_too() {
    struct Nothing;
    impl Worker for Nothing {
        type Input = Raw;
        async fn handle(&mut self, _: Raw, _: &Context) -> Outcome {
            Ok(())
        }
    }
    let (app, memory) = app("stacked");
    let batches = Consumer::batch("batches", "memory:one", |_: Batch<Raw>| async { Ok::<(), Failure>(()) })
        .layer(ConcurrencyLimitLayer::new(2))
        .layer(TimeoutLayer::new(Duration::from_secs(5)));
    let workers = Consumer::worker("workers", "memory:two", || std::future::ready(Ok::<_, BoxError>(Nothing)))
        .instances(3)
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(MapFutureLayer::new(|future| future));
    let running = started(app.consumer(batches).consumer(workers)).await;
    for queue in ["one", "two"] {
        memory.publish(queue, (0..50).map(|n| numbered(n, n))).await.unwrap();
    }
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "batches", "acked"), count(&stopped, "workers", "acked")), (50, 50));
}

/// A service that is ready only while its gate is open.
#[derive(Clone)]
struct Gated<S> {
    inner: S,
    open: Arc<tokio::sync::watch::Sender<bool>>,
    asked: Arc<AtomicU32>,
    waiting: Option<Arc<tokio::task::AbortHandle>>,
}

impl<S, R> tower::Service<R> for Gated<S>
where
    S: tower::Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if *self.open.borrow() {
            return self.inner.poll_ready(cx);
        }
        let (waker, mut opens) = (cx.waker().clone(), self.open.subscribe());
        let wakes = tokio::spawn(async move {
            let _ = opens.wait_for(|open| *open).await;
            waker.wake();
        });
        self.waiting = Some(Arc::new(wakes.abort_handle()));
        Poll::Pending
    }

    fn call(&mut self, request: R) -> S::Future {
        assert!(*self.open.borrow(), "called while it was not ready");
        self.inner.call(request)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_layer_is_not_ready_nothing_is_started_and_the_source_is_not_emptied() {
    let (app, memory) = app("gated");
    let (open, asked) = (Arc::new(tokio::sync::watch::Sender::new(false)), Arc::new(AtomicU32::new(0)));
    let (gate, counted) = (open.clone(), asked.clone());
    let consumer = Consumer::new("take", "memory:in", |_: Raw| async {}).look_ahead(10).layer(tower::layer::layer_fn(
        move |inner| Gated { inner, open: gate.clone(), asked: counted.clone(), waiting: None },
    ));
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", (0..100).map(|n| numbered(n, n))).await.unwrap();
    eventually("it is asked", || asked.load(Ordering::Relaxed) > 0).await;
    eventually("it has taken what it may", || running.progress().received == 10).await;
    assert_eq!(running.progress().settled, 0);
    open.send_replace(true);
    eventually("all are settled", || running.progress().settled == 100).await;
    stopped(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_handlers_run_at_a_time_than_were_allowed() {
    for (concurrency, order) in [(1, Order::ByKey), (3, Order::ByKey), (5, Order::None)] {
        let inside = Inside::default();
        let (app, memory) = app("concurrency");
        let consumer = Consumer::new("take", "memory:in", staying(&inside)).concurrency(concurrency).order(order);
        let running = started(app.consumer(consumer)).await;
        memory.publish("in", (0..100).map(|n| numbered(n, n))).await.unwrap();
        eventually("all are settled", || running.progress().settled == 100).await;
        stopped(running).await;
        assert_eq!(inside.most(), concurrency);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_not_exceeded() {
    let (app, memory) = app("rate");
    let log: Log<Instant> = Log::default();
    let into = log.clone();
    let handler = move |_: Raw| {
        into.push(Instant::now());
        async {}
    };
    memory.publish("in", (0..60).map(|n| numbered(n, n))).await.unwrap();
    let running = started(app.consumer(Consumer::new("take", "memory:in", handler).rate(100.0))).await;
    let starts = log.until(60).await;
    stopped(running).await;
    // 60 starts at 100 a second, less a burst of 20 ms.
    let took = starts[59] - starts[0];
    assert!(took >= Duration::from_millis(540), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_holds_back_batches_as_well() {
    let (app, memory) = app("batch rate");
    let log: Log<Instant> = Log::default();
    let into = log.clone();
    let handler = move |_: Batch<Raw>| {
        into.push(Instant::now());
        async { Ok::<(), Failure>(()) }
    };
    memory.publish("in", (0..60).map(|n| numbered(n, n))).await.unwrap();
    let consumer =
        Consumer::batch("take", "memory:in", handler).batches(5, 1 << 20, Duration::from_millis(1)).rate(20.0);
    let running = started(app.consumer(consumer)).await;
    eventually("all are settled", || running.progress().settled == 60).await;
    stopped(running).await;
    let starts = log.all();
    let took = *starts.last().unwrap() - starts[0];
    let least = Duration::from_millis(50) * (starts.len() as u32 - 1) - Duration::from_millis(25);
    assert!(took >= least, "{} batches in {took:?}", starts.len());
}
