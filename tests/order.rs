//! What is handled one after the other, also across retries, lanes and batches.

mod support;

use longshore::message::Message;
use longshore::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use support::scripted::{Does, Scripted};
use support::*;

/// A message of one of some keys: its place among those of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Nth {
    key: u32,
    n: u32,
}

fn nth(key: u32, n: u32) -> Message {
    Message::new(serde_json::to_vec(&Nth { key, n }).unwrap()).with_key(format!("key {key}"))
}

/// `each` messages of each of `keys` keys, in turns.
fn in_turns(keys: u32, each: u32) -> impl Iterator<Item = Message> {
    (0..each).flat_map(move |n| (0..keys).map(move |key| nth(key, n)))
}

/// Fails if two of one key run at a time.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<HashSet<u32>>>);

struct Inside(Running, u32);

impl Running {
    fn enter(&self, key: u32) -> Inside {
        assert!(self.0.lock().unwrap().insert(key), "two messages of key {key} run at a time");
        Inside(self.clone(), key)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().remove(&self.1);
    }
}

/// The numbers of each key, in the order of the log.
fn by_key(log: &[Nth]) -> HashMap<u32, Vec<u32>> {
    let mut keys: HashMap<u32, Vec<u32>> = HashMap::new();
    log.iter().for_each(|nth| keys.entry(nth.key).or_default().push(nth.n));
    keys
}

fn assert_in_order(log: &[Nth], keys: u32, each: u32) {
    let found = by_key(log);
    for key in 0..keys {
        assert_eq!(found.get(&key), Some(&(0..each).collect()), "key {key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_one_key_are_handled_one_at_a_time_and_in_order_also_when_they_fail() {
    let (app, memory) = app("keys");
    let done: Log<Nth> = Log::default();
    let (into, running_now) = (done.clone(), Running::default());
    let handler = move |Json(nth): Json<Nth>, Attempt(attempt): Attempt| {
        let (into, running_now) = (into.clone(), running_now.clone());
        async move {
            let _inside = running_now.enter(nth.key);
            match fastrand::u32(0..4) {
                0 => tokio::time::sleep(Duration::from_micros(fastrand::u64(0..2_000))).await,
                1 => tokio::task::yield_now().await,
                _ => {}
            }
            if attempt < 3 {
                match fastrand::u32(0..12) {
                    0 => return Err(Failure::retry("by chance")),
                    1 => panic!("by chance"),
                    _ => {}
                }
            }
            into.push(nth);
            Ok(())
        }
    };
    let consumer = Consumer::new("take", "memory:in", handler).concurrency(16).retry(quickly(3));
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", in_turns(8, 100)).await.unwrap();
    done.until(800).await;
    let stopped = stopped(running).await;
    assert_in_order(&done.all(), 8, 100);
    assert_eq!((count(&stopped, "take", "acked"), done.len()), (800, 800));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_waits_for_the_confirms_of_what_its_message_sent() {
    let (app, memory) = app("confirms");
    let scripted = Scripted::default();
    let out = scripted.at_sink("out");
    out.set(|sink| sink.does = Does::Hold);
    let begun: Log<Nth> = Log::default();
    let into = begun.clone();
    let handler = move |Json(nth): Json<Nth>, out: To<Nth>| {
        let into = into.clone();
        async move {
            into.push(nth);
            out.send(&nth).await
        }
    };
    let app = app
        .transport(scripted.clone())
        .producer(Producer::<Nth>::new("out", "test:out"))
        .consumer(Consumer::new("take", "memory:in", handler));
    let running = started(app).await;
    memory.publish("in", [nth(1, 0), nth(1, 1), nth(2, 0)]).await.unwrap();
    eventually("one of each key is with the sink", || out.held() == 2).await;
    assert_eq!(by_key(&begun.all()), HashMap::from([(1, vec![0]), (2, vec![0])]));
    out.set(|sink| sink.does = Does::Confirm);
    begun.until(3).await;
    stopped(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_partition_a_partition_is_handled_in_order_whatever_its_keys() {
    let (app, _) = app("partitions");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    let done: Log<Nth> = Log::default();
    let (into, running_now) = (done.clone(), Running::default());
    let handler = move |Json(nth): Json<Nth>| {
        let (into, running_now) = (into.clone(), running_now.clone());
        async move {
            let _inside = running_now.enter(nth.key);
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..500))).await;
            into.push(nth);
        }
    };
    let consumer = Consumer::new("take", "test:in", handler).order(Order::ByPartition);
    let running = started(app.transport(scripted.clone()).consumer(consumer)).await;
    for n in 0..100 {
        for partition in 0..3 {
            // The key says nothing here.
            source.publish(partition, [nth(partition, n).with_key(n.to_string())]);
        }
    }
    done.until(300).await;
    stopped(running).await;
    assert_in_order(&done.all(), 3, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_order_messages_of_one_key_run_beside_each_other() {
    let (app, memory) = app("none");
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let handler = move |Json(_): Json<Nth>| {
        let both = both.clone();
        async move {
            both.wait().await;
        }
    };
    let consumer = Consumer::new("take", "memory:in", handler).order(Order::None).concurrency(2);
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", in_turns(1, 2)).await.unwrap();
    eventually("both are handled", || running.progress().settled == 2).await;
    stopped(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_a_key_wait_for_no_other() {
    let (app, memory) = app("unkeyed");
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let handler = move |_: Raw| {
        let both = both.clone();
        async move {
            both.wait().await;
        }
    };
    let running = started(app.consumer(Consumer::new("take", "memory:in", handler).concurrency(2))).await;
    memory.publish("in", [Message::new("1"), Message::new("2")]).await.unwrap();
    eventually("both are handled", || running.progress().settled == 2).await;
    stopped(running).await;
}

/// Two handlers that hold their threads must be in here at a time.
#[derive(Default)]
struct Meeting {
    inside: Mutex<(u32, bool)>,
    changed: Condvar,
}

impl Meeting {
    fn join(&self) {
        let mut inside = self.inside.lock().unwrap();
        inside.0 += 1;
        inside.1 |= inside.0 >= 2;
        self.changed.notify_all();
        let met = self.changed.wait_timeout_while(inside, PATIENCE, |inside| !inside.1).unwrap();
        assert!(!met.1.timed_out(), "two handlers never computed at the same time");
        let mut inside = met.0;
        inside.0 -= 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_handlers_that_compute_use_two_cores() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    let (app, memory) = app("lanes");
    let meeting = Arc::new(Meeting::default());
    let handler = move |Json(_): Json<Nth>| {
        let meeting = meeting.clone();
        async move { meeting.join() }
    };
    let running = started(app.consumer(Consumer::new("take", "memory:in", handler))).await;
    memory.publish("in", in_turns(64, 1)).await.unwrap();
    eventually("all are handled", || running.progress().settled == 64).await;
    let stopped = stopped(running).await;
    assert_eq!(count(&stopped, "take", "acked"), 64, "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_keeps_its_order_over_many_batches_at_a_time() {
    let (app, memory) = app("batches");
    let done: Log<Nth> = Log::default();
    let (into, running_now) = (done.clone(), Running::default());
    let handler = move |batch: Batch<Json<Nth>>| {
        let (into, running_now) = (into.clone(), running_now.clone());
        async move {
            let keys: HashSet<u32> = batch.iter().map(|nth| nth.key).collect();
            let _inside: Vec<Inside> = keys.into_iter().map(|key| running_now.enter(key)).collect();
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..3_000))).await;
            for nth in batch {
                into.push(*nth);
            }
            Ok::<(), Failure>(())
        }
    };
    let consumer = Consumer::batch("take", "memory:in", handler)
        .concurrency(8)
        .batches(7, 1 << 20, Duration::from_millis(3))
        .look_ahead(200);
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", in_turns(5, 200)).await.unwrap();
    done.until(1_000).await;
    let stopped = stopped(running).await;
    assert_in_order(&done.all(), 5, 200);
    assert_eq!(count(&stopped, "take", "acked"), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batched_message_behind_a_failed_one_of_its_key_is_done_again_after_it() {
    let (app, memory) = app("redo");
    let log: Log<(Nth, u32)> = Log::default();
    let into = log.clone();
    let handler = move |batch: Batch<(Json<Nth>, Attempt)>| {
        let into = into.clone();
        async move {
            let each = batch.into_iter().map(|(Json(nth), Attempt(attempt))| {
                into.push((nth, attempt));
                if nth == (Nth { key: 1, n: 1 }) && attempt == 1 { Err(Failure::retry("once")) } else { Ok(()) }
            });
            each.collect::<Vec<Outcome>>()
        }
    };
    let consumer =
        Consumer::batch("take", "memory:in", handler).batches(6, 1 << 20, Duration::from_millis(50)).retry(quickly(3));
    let memory_first = memory.clone();
    memory_first.publish("in", [nth(1, 0), nth(1, 1), nth(1, 2), nth(1, 3)]).await.unwrap();
    let running = started(app.consumer(consumer)).await;
    eventually("all are handled", || running.progress().settled == 4).await;
    let stopped = stopped(running).await;
    assert_eq!(count(&stopped, "take", "acked"), 4);
    let order: Vec<u32> = log.all().iter().map(|(nth, _)| nth.n).collect();
    assert_eq!(order[..4], [0, 1, 2, 3]);
    assert_eq!(order[4..], [1, 2, 3], "what was behind it is done again, behind it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_fails_as_a_whole_is_done_again_in_order() {
    let fails = |how: &'static str| async move {
        let (app, memory) = app(how);
        let scripted = Scripted::default();
        let out = scripted.at_sink("out");
        out.set(|sink| sink.does = Does::Refuse);
        let (begun, done) = (Log::<Nth>::default(), Log::<Nth>::default());
        let (begin, end, calls) = (begun.clone(), done.clone(), Arc::new(AtomicU32::new(0)));
        let handler = move |batch: Batch<Json<Nth>>, out: To<Nth>| {
            let (begin, end, calls) = (begin.clone(), end.clone(), calls.clone());
            async move {
                batch.iter().for_each(|nth| begin.push(**nth));
                if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                    match how {
                        "error" => return Err(Failure::retry("once")),
                        "panic" => panic!("once"),
                        "timeout" => std::future::pending().await,
                        "send" => {
                            for nth in batch {
                                out.send(&nth).await?;
                            }
                            return Ok(());
                        }
                        other => unreachable!("{other}"),
                    }
                }
                batch.iter().for_each(|nth| end.push(**nth));
                Ok(())
            }
        };
        let consumer = Consumer::batch("take", "memory:in", handler)
            .batches(20, 1 << 20, Duration::from_millis(20))
            // Jitter would scramble what waits for itself.
            .retry(Retry::fixed(Duration::from_millis(60)).attempts(5))
            .timeout(Duration::from_millis(100))
            .concurrency(1);
        let app = app.transport(scripted.clone()).producer(Producer::<Nth>::new("out", "test:out")).consumer(consumer);
        memory.publish("in", in_turns(1, 10)).await.unwrap();
        let running = started(app).await;
        done.until(10).await;
        stopped(running).await;
        let mut first = Vec::new();
        for nth in done.all() {
            if !first.contains(&nth) {
                first.push(nth);
            }
        }
        (how, by_key(&first)[&0].clone())
    };
    for how in ["error", "panic", "timeout", "send"] {
        assert_eq!(fails(how).await, (how, (0..10).collect::<Vec<_>>()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_keeps_the_order_of_each_key() {
    let (app, memory) = app("bridge");
    let done: Log<Nth> = Log::default();
    let into = done.clone();
    let app = app.bridge(Bridge::new("over", "memory:in", "memory:out?capacity=16")).consumer(Consumer::new(
        "take",
        "memory:out",
        move |Json(nth): Json<Nth>| {
            into.push(nth);
            async {}
        },
    ));
    let running = started(app).await;
    memory.publish("in", in_turns(6, 300)).await.unwrap();
    done.until(1_800).await;
    let stopped = stopped(running).await;
    assert_in_order(&done.all(), 6, 300);
    assert_eq!((count(&stopped, "over", "acked"), count(&stopped, "take", "acked")), (1_800, 1_800));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_is_not_handled_twice_at_once_when_its_worker_is_restarted_around_a_blocking_handler() {
    let (app, _) = app("restarts");
    let scripted = Scripted::default();
    let source = scripted.at_source("in");
    let (running_now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (now, seen) = (running_now.clone(), most.clone());
    let handler = move |_: Raw| {
        let (now, seen) = (now.clone(), seen.clone());
        async move {
            seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Longer than the back-off of a first restart, and nothing can cancel it.
            std::thread::sleep(Duration::from_millis(400));
            now.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let consumer = Consumer::new("take", "test:in", handler);
    let running = started(app.transport(scripted.clone()).consumer(consumer)).await;
    source.publish(0, [numbered(0, "a")]);
    eventually("it is handled", || running_now.load(Ordering::SeqCst) == 1).await;
    source.set(|source| source.fails = true);
    eventually("it is settled in the end", || source.left() == 0).await;
    stopped(running).await;
    assert_eq!(most.load(Ordering::SeqCst), 1, "one at a time");
}
