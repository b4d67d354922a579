//! The engine alone: queues in the process, published to settled one by one.

use crate::measure::{Lap, Scenario, Stopwatch};
use bytes::Bytes;
use longshore::message::SlabBuilder;
use longshore::prelude::*;
use longshore::transport::memory::Memory;
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

const KEYS: usize = 1_000;
const PAYLOAD: usize = 256;

pub fn scenarios() -> Vec<Scenario> {
    let scenario = |name, goal, run: fn() -> Lap| Scenario { name, goal, run: Box::new(run), bare: None };
    vec![
        scenario("memory_noop", "as measured", || drive(3_000_000, KEYS, consumer(|| async {}))),
        scenario("memory_raw", ">= 6 M msg/s on one core, <= 0.1 allocation", || {
            drive(3_000_000, KEYS, consumer(|Raw(payload): Raw| async move { drop(std::hint::black_box(payload)) }))
        }),
        scenario("memory_stuck_key", ">= 4 M msg/s", stuck_key),
        scenario("memory_pending_once", ">= 3 M msg/s", || {
            let handler = |Raw(payload): Raw| async move {
                drop(std::hint::black_box(payload));
                pending_once().await;
            };
            drive(2_000_000, KEYS, consumer(handler))
        }),
        scenario("memory_to", ">= 2.5 M msg/s", to),
        Scenario {
            name: "memory_json",
            goal: "as measured",
            run: Box::new(|| {
                drive_with(
                    1_000_000,
                    KEYS,
                    json_payload(),
                    consumer(|Json(event): Json<Event>| async move {
                        std::hint::black_box(&event);
                    }),
                )
            }),
            bare: Some(Box::new(bare_json)),
        },
    ]
}

fn consumer<B>(
    handler: impl longshore::handler::Handler<B, Delivery>,
) -> Consumer<impl longshore::handler::Bind<Unit = Delivery>>
where
    B: longshore::handler::Extract<Delivery>,
{
    Consumer::new("handle", "memory:in", handler).concurrency(64)
}

/// Ready at its second poll.
async fn pending_once() {
    let mut polled = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Publishes so many messages, 256 at a time.
pub async fn publish(memory: &Memory, count: u64, keys: usize, payload: &[u8]) {
    const BATCH: u64 = 256;
    let keys: Vec<String> = (0..keys).map(|key| format!("customer-{key}")).collect();
    let mut keys = keys.iter().cycle();
    let mut left = count;
    while left > 0 {
        let now = left.min(BATCH);
        let mut batch = SlabBuilder::with_capacity(now as usize, now as usize * (payload.len() + 16));
        for _ in 0..now {
            let key = keys.next().expect("a cycle has no end");
            batch.push(Some(key.as_bytes()), Some(payload), Default::default(), None);
        }
        memory.publish_batch("in", batch).await.expect("it is published");
        left -= now;
    }
}

fn drive<B: longshore::handler::Bind>(count: u64, keys: usize, consumer: Consumer<B>) -> Lap {
    drive_with(count, keys, Bytes::from(vec![b'x'; PAYLOAD]), consumer)
}

fn drive_with<B: longshore::handler::Bind>(count: u64, keys: usize, payload: Bytes, consumer: Consumer<B>) -> Lap {
    let memory = Memory::new();
    drive_app(count, keys, &payload, &memory, App::new("bench").consumer(consumer))
}

/// Publishes, asks for a stop, and times until all is settled and the app has ended.
fn drive_app(count: u64, keys: usize, payload: &[u8], memory: &Memory, app: App) -> Lap {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let lap = runtime.block_on(async {
        let mut running = app.transport(memory.clone()).start(runtime.handle()).await.expect("it starts");
        assert!(running.ready().await);
        let watch = Stopwatch::start();
        publish(memory, count, keys, payload).await;
        // What is there is worked off before it stops: nothing in memory can be taken back.
        running.stop();
        let stopped = running.wait().await;
        let lap = watch.stop(count);
        assert_eq!((stopped.exit_code(), stopped.report()["total"]["unaccounted"].as_i64()), (0, Some(0)));
        lap
    });
    runtime.shutdown_background();
    lap
}

/// One key is held for 50 ms at a time while 100,000 others go on.
fn stuck_key() -> Lap {
    const COUNT: u64 = 3_000_000;
    let seen = Arc::new(AtomicU64::new(0));
    let handler = move |delivery: Delivery| {
        let stuck = delivery.key() == Some(b"customer-0") && seen.fetch_add(1, Ordering::Relaxed) < 10;
        async move {
            if stuck {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    drive(COUNT, 100_000, consumer(handler))
}

/// Each message sends one on; its key is held until that is confirmed, by a sink that takes everything.
fn to() -> Lap {
    const COUNT: u64 = 2_000_000;
    let memory = Memory::new();
    let app = App::new("bench")
        .transport(crate::nowhere::Nowhere)
        .producer(Producer::<u64>::with("out", "nowhere:", |value, into| {
            into.extend_from_slice(&value.to_le_bytes());
            Ok(())
        }))
        .consumer(
            Consumer::new("handle", "memory:in", |out: To<u64>| async move { out.send(&7).await }).concurrency(64),
        );
    drive_app(COUNT, KEYS, &[b'x'; PAYLOAD], &memory, app)
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "decoded and looked at by nobody")]
struct Event {
    id: String,
    kind: String,
    amount: f64,
    text: String,
}

fn json_payload() -> Bytes {
    let text = "t".repeat(170);
    Bytes::from(format!(r#"{{"id":"ord-000001","kind":"shipped","amount":12.5,"text":"{text}"}}"#))
}

fn bare_json() -> Lap {
    const COUNT: u64 = 1_000_000;
    let payload = json_payload();
    let watch = Stopwatch::start();
    for _ in 0..COUNT {
        let event: Event = serde_json::from_slice(std::hint::black_box(&payload)).expect("it is JSON");
        std::hint::black_box(&event);
    }
    watch.stop(COUNT)
}
