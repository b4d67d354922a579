//! Worker actors and batches: state that stays with its instance, and what costs it.

mod support;

use longshore::message::Message;
use longshore::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use support::*;

/// Counts messages by key, and says what it does.
struct Tally {
    id: u32,
    seen: HashMap<String, u32>,
    log: Log<(u32, String)>,
}

impl Tally {
    fn say(&self, what: impl Into<String>) {
        self.log.push((self.id, what.into()));
    }
}

impl Worker for Tally {
    type Input = (Key, Raw, Attempt);

    async fn started(&mut self, cx: &Context) -> Outcome {
        self.say(format!("started in {}", cx.worker()));
        Ok(())
    }

    async fn handle(&mut self, (key, payload, Attempt(attempt)): Self::Input, _: &Context) -> Outcome {
        let key = key.text().unwrap().to_owned();
        if attempt == 1 {
            match &payload[..] {
                b"panic" => panic!("costs the state"),
                b"hang" => std::future::pending().await,
                b"fail" => return Err(Failure::retry("costs nothing")),
                _ => tokio::task::yield_now().await,
            }
        }
        let seen = self.seen.entry(key.clone()).or_default();
        *seen += 1;
        let text = format!("{key}:{seen}");
        self.say(text);
        Ok(())
    }

    async fn stopped(&mut self, why: Why) {
        self.say(format!("{why:?}"));
    }
}

/// A factory that numbers what it makes.
fn tallies(
    log: &Log<(u32, String)>,
) -> impl Fn() -> std::future::Ready<Result<Tally, BoxError>> + Clone + Send + Sync + 'static {
    let (log, made) = (log.clone(), Arc::new(AtomicU32::new(0)));
    move || {
        let id = made.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Tally { id, seen: HashMap::new(), log: log.clone() }))
    }
}

fn of_key(key: u32, payload: &'static str) -> Message {
    Message::new(payload).with_key(format!("k{key}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_always_goes_to_the_same_instance_with_its_state() {
    let (app, memory) = app("instances");
    let log = Log::default();
    let running = started(app.consumer(Consumer::worker("count", "memory:in", tallies(&log)).instances(4))).await;
    assert_eq!(log.len(), 4, "every instance has started: {:?}", log.all());
    memory.publish("in", (0..30).flat_map(|_| (0..20).map(|key| of_key(key, "")))).await.unwrap();
    log.until(4 + 600).await;
    let stopped = stopped(running).await;
    assert_eq!(count(&stopped, "count", "acked"), 600);
    let all = log.all();
    let mut owners: BTreeMap<String, HashSet<u32>> = BTreeMap::new();
    for (id, text) in &all {
        if let Some((key, _)) = text.split_once(':') {
            owners.entry(key.to_owned()).or_default().insert(*id);
        }
    }
    assert!(owners.len() == 20 && owners.values().all(|owners| owners.len() == 1), "{owners:?}");
    for key in 0..20 {
        assert!(all.iter().any(|(_, text)| *text == format!("k{key}:30")), "the state of k{key} is whole");
    }
    let of = |what: &str| all.iter().filter(|(_, text)| text == what).map(|(id, _)| *id).collect::<HashSet<_>>();
    assert_eq!((of("started in count").len(), of("Stopping").len()), (4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_or_a_time_out_costs_an_instance_its_state_and_never_the_message() {
    for what in ["panic", "hang"] {
        let (app, memory) = app(what);
        let log = Log::default();
        let consumer =
            Consumer::worker("count", "memory:in", tallies(&log)).retry(quickly(3)).timeout(Duration::from_millis(50));
        let running = started(app.consumer(consumer)).await;
        memory.publish("in", [of_key(1, ""), of_key(1, what), of_key(1, "")]).await.unwrap();
        eventually("all are settled", || running.progress().settled == 3).await;
        let stopped = stopped(running).await;
        assert_eq!((count(&stopped, "count", "acked"), stopped.exit_code()), (3, 0));
        let said: Vec<(u32, String)> = log.all();
        let said: Vec<(u32, &str)> = said.iter().map(|(id, text)| (*id, text.as_str())).collect();
        let wanted =
            [(0, "started in count"), (0, "k1:1"), (1, "started in count"), (1, "k1:1"), (1, "k1:2"), (1, "Stopping")];
        assert_eq!(said, wanted, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_costs_an_instance_nothing() {
    let (app, memory) = app("errors");
    let log = Log::default();
    let consumer = Consumer::worker("count", "memory:in", tallies(&log)).retry(quickly(3));
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", [of_key(1, ""), of_key(1, "fail"), of_key(2, "fail")]).await.unwrap();
    eventually("all are settled", || running.progress().settled == 3).await;
    stopped(running).await;
    assert!(log.all().iter().all(|(id, _)| *id == 0), "{:?}", log.all());
    assert!(log.all().contains(&(0, "k1:2".to_owned())));
}

/// An instance that does not start the first times, or ever.
struct Late(Arc<AtomicU32>);

impl Worker for Late {
    type Input = Raw;

    async fn started(&mut self, _: &Context) -> Outcome {
        if self.0.fetch_add(1, Ordering::Relaxed) == 1 {
            return Err(Failure::retry("no licence"));
        }
        Ok(())
    }

    async fn handle(&mut self, payload: Raw, _: &Context) -> Outcome {
        assert_ne!(&payload[..], b"panic");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_does_not_start_fails_the_start_by_name_with_1() {
    let (app, _) = app("starts");
    let starts = Arc::new(AtomicU32::new(0));
    let app = app.consumer(
        Consumer::worker("late", "memory:in", move || std::future::ready(Ok::<_, BoxError>(Late(starts.clone()))))
            .instances(3),
    );
    let mut running = app.start(&tokio::runtime::Handle::current()).await.unwrap();
    let stopped = ended(&mut running).await;
    assert_eq!(stopped.exit_code(), 1, "{}", stopped.table());
    let why = stopped.start_error().unwrap();
    assert!(why.contains("late") && why.contains("no licence"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_factory_that_fails_fails_the_start_by_name_with_1() {
    let (app, _) = app("factories");
    let app = app.consumer(Consumer::worker("late", "memory:in", || std::future::ready(Err::<Late, _>("no licence"))));
    let mut running = app.start(&tokio::runtime::Handle::current()).await.unwrap();
    let stopped = ended(&mut running).await;
    let why = stopped.start_error().unwrap();
    assert!(stopped.exit_code() == 1 && why.contains("late") && why.contains("no licence"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_cannot_be_made_again_at_once_costs_attempts_and_not_the_message() {
    let (app, memory) = app("again");
    let starts = Arc::new(AtomicU32::new(0));
    let counted = starts.clone();
    let consumer =
        Consumer::worker("late", "memory:in", move || std::future::ready(Ok::<_, BoxError>(Late(counted.clone()))))
            .retry(quickly(4))
            .dead_letter("memory:dead");
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", [of_key(1, "panic"), of_key(2, "")]).await.unwrap();
    eventually("both are settled", || running.progress().settled == 2).await;
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "late", "acked"), count(&stopped, "late", "dead_lettered")), (1, 1));
    let dead = &content(&memory, "memory:dead").await[0];
    assert_eq!((header(dead, "longshore-reason"), header(dead, "longshore-attempts")), (Some("panic"), Some("4")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_handed_over_by_count_by_bytes_and_by_time() {
    let (app, memory) = app("bounds");
    let log: Log<(Vec<usize>, Instant)> = Log::default();
    let into = log.clone();
    let handler = move |batch: Batch<Raw>| {
        into.push((batch.iter().map(|payload| payload.len()).collect(), Instant::now()));
        async { Ok::<(), Failure>(()) }
    };
    let linger = Duration::from_millis(200);
    let consumer = Consumer::batch("take", "memory:in", handler).concurrency(1).batches(5, 1_000, linger);
    let running = started(app.consumer(consumer)).await;
    let sized = |sizes: &[usize]| sizes.iter().map(|size| Message::new(vec![0u8; *size])).collect::<Vec<_>>();
    memory.publish("in", sized(&[1; 5])).await.unwrap();
    assert_eq!(log.until(1).await[0].0, [1; 5]);
    memory.publish("in", sized(&[600, 600])).await.unwrap();
    assert_eq!(log.until(2).await[1].0, [600, 600]);
    let began = Instant::now();
    memory.publish("in", sized(&[2, 2])).await.unwrap();
    let last = &log.until(3).await[2];
    assert_eq!(last.0, [2, 2]);
    assert!(last.1 - began >= linger, "{:?}", last.1 - began);
    stopped(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_of_a_batch_is_settled_by_its_own_outcome() {
    let (app, memory) = app("outcomes");
    let handler = |batch: Batch<(Json<u32>, Attempt)>| async move {
        let of = |(Json(n), Attempt(attempt)): (Json<u32>, Attempt)| match (n % 4, attempt) {
            (1, 1) => Err(Failure::retry("once")),
            (2, _) => Err(Failure::reject("bad")),
            (3, _) => Err(Failure::discard("old")),
            _ => Ok(()),
        };
        batch.into_iter().map(of).collect::<Vec<Outcome>>()
    };
    let consumer = Consumer::batch("take", "memory:in", handler)
        .batches(10, 1 << 20, Duration::from_millis(5))
        .retry(quickly(3))
        .dead_letter("memory:dead");
    let running = started(app.consumer(consumer)).await;
    let mut all: Vec<Message> = (0..40).map(|n| numbered(n, n)).collect();
    // Settled by itself, and not among those that the handler sees.
    all.insert(7, Message::new("no number").with_key("x"));
    memory.publish("in", all).await.unwrap();
    eventually("all are settled", || running.progress().settled == 41).await;
    let stopped = stopped(running).await;
    let counts = ["acked", "dead_lettered", "discarded"].map(|of| count(&stopped, "take", of));
    assert_eq!(counts, [20, 11, 10], "{}", stopped.table());
    let dead = content(&memory, "memory:dead").await;
    let reasons = |reason| dead.iter().filter(|dead| header(dead, "longshore-reason") == Some(reason)).count();
    assert_eq!((reasons("rejected"), reasons("undecodable")), (10, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_a_wrong_number_of_outcomes_acks_nothing() {
    let (app, memory) = app("too few");
    let handler = |_: Batch<Raw>| async { vec![Ok(())] as Vec<Outcome> };
    let consumer = Consumer::batch("take", "memory:in", handler)
        .batches(3, 1 << 20, Duration::from_secs(5))
        .order(Order::None)
        .concurrency(1)
        .retry(Retry::never())
        .dead_letter("memory:dead");
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", (0..3).map(|n| numbered(n, n))).await.unwrap();
    eventually("all are settled", || running.progress().settled == 3).await;
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "take", "acked"), count(&stopped, "take", "dead_lettered")), (0, 3));
}

/// Sums up what its batches hold.
struct Sum(u32, Log<u32>);

impl BatchWorker for Sum {
    type Item = Json<u32>;

    async fn handle(&mut self, batch: Batch<Json<u32>>, _: &Context) -> Result<BatchDone, Failure> {
        self.0 += batch.iter().map(|n| **n).sum::<u32>();
        self.1.push(self.0);
        Ok(BatchDone::All)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_worker_keeps_its_state_from_batch_to_batch() {
    let (app, memory) = app("sums");
    let log = Log::default();
    let into = log.clone();
    let factory = move || std::future::ready(Ok::<_, BoxError>(Sum(0, into.clone())));
    let consumer = Consumer::batch_worker("sum", "memory:in", factory).batches(4, 1 << 20, Duration::from_millis(5));
    let running = started(app.consumer(consumer)).await;
    memory.publish("in", (1..=100).map(|n| numbered(n, n))).await.unwrap();
    let stopped = stopped(running).await;
    assert_eq!((count(&stopped, "sum", "acked"), log.all().last().copied()), (100, Some(5_050)));
}
