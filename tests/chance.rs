//! Apps of chance: whatever handlers do and whenever a stop comes, every message is accounted for, and keys keep their
//! order.
//!
//! A failing run names its seed; `SEED=n cargo test --test chance` runs that one alone.

mod support;

use fastrand::Rng;
use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::local::Local;
use longshore::transport::memory::Memory;
use longshore::transport::{DeadPlace, Transport, Url};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use support::*;

/// What the handler does with an attempt of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Done,
    Sent,
    Failed,
    Rejected,
    Discarded,
    Panicked,
    Hung,
}

/// How one app behaves.
#[derive(Debug, Clone, Copy)]
struct Chance {
    seed: u64,
    messages: u32,
    keys: u32,
    concurrency: u32,
    look_ahead: u32,
    attempts: u32,
    /// Messages of a batch; 0 for one at a time.
    batch: u32,
    by_key: bool,
    trouble: u32,
    stop_after: usize,
}

impl Chance {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let messages = rng.u32(1..250);
        Self {
            seed,
            messages,
            keys: *rng.choice(&[1, 3, 20, 1_000]).unwrap(),
            concurrency: *rng.choice(&[1, 2, 5, 16]).unwrap(),
            look_ahead: *rng.choice(&[1, 10, 300]).unwrap(),
            attempts: rng.u32(1..4),
            batch: *rng.choice(&[0, 0, 1, 4, 20]).unwrap(),
            by_key: rng.u32(0..4) > 0,
            trouble: *rng.choice(&[0, 5, 40]).unwrap(),
            stop_after: rng.usize(0..=messages as usize),
        }
    }

    /// The same for the same attempt of the same message.
    fn deed(&self, id: u32, attempt: u32) -> Deed {
        let mut rng = Rng::with_seed(self.seed ^ (u64::from(id) << 20) ^ u64::from(attempt));
        rng.u64(..);
        if rng.u32(0..100) >= self.trouble {
            return if rng.bool() { Deed::Done } else { Deed::Sent };
        }
        match rng.u32(0..40) {
            0..20 => Deed::Failed,
            20..26 => Deed::Rejected,
            26..32 => Deed::Discarded,
            32..39 => Deed::Panicked,
            _ => Deed::Hung,
        }
    }

    fn message(&self, id: u32) -> Message {
        Message::new(id.to_string()).with_key((id % self.keys).to_string())
    }
}

/// What handlers did, by message: in the order in which it was done.
type Deeds = Log<(u32, Deed)>;

async fn act(chance: Chance, log: &Deeds, out: &To<u32>, id: u32, attempt: u32) -> Outcome {
    match fastrand::u32(0..6) {
        0 => tokio::time::sleep(Duration::from_micros(fastrand::u64(0..1_500))).await,
        1 => tokio::task::yield_now().await,
        _ => {}
    }
    let deed = chance.deed(id, attempt);
    if deed == Deed::Sent {
        out.send(&id).await?;
    }
    log.push((id, deed));
    match deed {
        Deed::Done | Deed::Sent => Ok(()),
        Deed::Failed => Err(Failure::retry("by chance")),
        Deed::Rejected => Err(Failure::reject("by chance")),
        Deed::Discarded => Err(Failure::discard("by chance")),
        Deed::Panicked => panic!("by chance"),
        Deed::Hung => std::future::pending().await,
    }
}

/// The app on this source and dead-letter place, with its log of deeds and of what came out of its sends.
fn app_of(chance: Chance, source: &str, dead: Option<&str>, deeds: &Deeds, sent: &Log<u32>) -> App {
    fn set<B>(mut consumer: Consumer<B>, chance: Chance, dead: Option<&str>) -> Consumer<B> {
        if let Some(dead) = dead {
            consumer = consumer.dead_letter(dead);
        }
        consumer
            .concurrency(chance.concurrency)
            .look_ahead(chance.look_ahead)
            .order(if chance.by_key { Order::ByKey } else { Order::None })
            .retry(Retry::exponential(Duration::from_millis(1), Duration::from_millis(4)).attempts(chance.attempts))
            .timeout(Duration::from_millis(40))
            .batches(chance.batch.max(1), 1 << 20, Duration::from_millis(2))
    }
    let (one, many, note) = (deeds.clone(), deeds.clone(), sent.clone());
    let app = App::new("chance")
        .stop_deadline(Duration::from_secs(25))
        .producer(Producer::<u32>::new("out", "memory:out?capacity=16"))
        .consumer(Consumer::new("note", "memory:out", move |Json(id): Json<u32>| {
            note.push(id);
            async {}
        }));
    if chance.batch == 0 {
        let take = move |Json(id): Json<u32>, Attempt(attempt): Attempt, out: To<u32>| {
            let deeds = one.clone();
            async move { act(chance, &deeds, &out, id, attempt).await }
        };
        app.consumer(set(Consumer::new("take", source, take), chance, dead))
    } else {
        let take = move |batch: Batch<(Json<u32>, Attempt)>, out: To<u32>| {
            let deeds = many.clone();
            async move {
                let mut outcomes = Vec::new();
                for (Json(id), Attempt(attempt)) in batch {
                    outcomes.push(act(chance, &deeds, &out, id, attempt).await);
                }
                outcomes
            }
        };
        app.consumer(set(Consumer::batch("take", source, take), chance, dead))
    }
}

fn ids(messages: &[Message]) -> Vec<u32> {
    messages.iter().map(|message| serde_json::from_slice(message.payload.as_ref().unwrap()).unwrap()).collect()
}

/// What every run must hold to: `left` is what the store still has.
fn check(
    chance: Chance,
    published: u32,
    deeds: &Deeds,
    sent: &Log<u32>,
    dead: &[u32],
    left: &[u32],
    settled: [u64; 3],
) {
    let deeds = deeds.all();
    let [acked, dead_lettered, discarded] = settled;
    assert_eq!(acked + dead_lettered + discarded + left.len() as u64, u64::from(published), "all are accounted for");
    let (dead_ids, left_ids): (BTreeSet<_>, BTreeSet<_>) = (dead.iter().collect(), left.iter().collect());
    assert_eq!((dead_ids.len(), dead.len() as u64), (dead.len(), dead_lettered), "a dead letter is written once");
    assert_eq!(left_ids.len(), left.len(), "nothing waits twice");
    assert!(dead_ids.is_disjoint(&left_ids), "nothing is dead and waits");
    let mut of: HashMap<u32, Vec<Deed>> = HashMap::new();
    deeds.iter().for_each(|(id, deed)| of.entry(*id).or_default().push(*deed));
    let went_well = |deed: &Deed| matches!(deed, Deed::Done | Deed::Sent);
    let sent: BTreeSet<u32> = sent.all().into_iter().collect();
    for id in 0..published {
        let deeds = of.get(&id).map_or(&[][..], Vec::as_slice);
        let well = deeds.iter().filter(|deed| went_well(deed)).count();
        let is_left = left_ids.contains(&id);
        if dead_ids.contains(&id) {
            // In a batch, one before it may have failed them all before it had its turn.
            assert!(!deeds.is_empty() || chance.batch > 0, "{id} is dead: {deeds:?}");
        } else if !is_left {
            assert!(well > 0 || deeds.contains(&Deed::Discarded), "{id} is gone: {deeds:?}");
        }
        if chance.batch == 0 {
            assert!(well <= 1, "{id} was done twice: {deeds:?}");
            assert!(well == 0 || (!is_left && !dead_ids.contains(&id)), "{id} was done and is there: {deeds:?}");
        }
        if deeds.last() == Some(&Deed::Sent) && !is_left {
            assert!(sent.contains(&id), "{id} was settled, and what it sent is not there");
        }
    }
    if chance.by_key {
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (id, _) in deeds.iter().filter(|(id, deed)| went_well(deed) && seen.insert(*id)) {
            let before = last.insert(id % chance.keys, *id);
            // In a batch, one behind a failed one was done already when that one comes again.
            if chance.batch == 0 {
                assert!(before.is_none_or(|before| before < *id), "{before:?} of key {} before {id}", id % chance.keys);
            }
        }
        let last_deed: BTreeMap<u32, (usize, Deed)> =
            deeds.iter().enumerate().map(|(at, (id, deed))| (*id, (at, *deed))).collect();
        let mut order: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
        let acked = |id: &u32, deed: &Deed| went_well(deed) && !dead_ids.contains(id) && !left_ids.contains(id);
        for (id, (at, _)) in last_deed.iter().filter(|(id, (_, deed))| acked(id, deed)) {
            if let Some((before, then)) = order.insert(id % chance.keys, (*id, *at)) {
                assert!(then < *at, "{before} of key {} was done for the last time after {id}", id % chance.keys);
            }
        }
    }
}

fn settled(stopped: &longshore::Stopped) -> [u64; 3] {
    ["acked", "dead_lettered", "discarded"].map(|of| count(stopped, "take", of))
}

async fn in_memory(chance: Chance) {
    let (deeds, sent) = (Deeds::default(), Log::default());
    let memory = Memory::new();
    let app = app_of(chance, "memory:in", Some("memory:dead"), &deeds, &sent).transport(memory.clone());
    let running = started(app).await;
    let publisher = memory.clone();
    let published = tokio::spawn(async move {
        let mut published = 0;
        while published < chance.messages && publisher.publish("in", [chance.message(published)]).await.is_ok() {
            published += 1;
        }
        published
    });
    eventually("enough is done, or all", || {
        deeds.len() >= chance.stop_after || (published.is_finished() && memory.is_empty("in"))
    })
    .await;
    let stopped = stopped(running).await;
    let published = soon("the publisher ends", published).await.unwrap();
    assert_eq!((stopped.exit_code(), count(&stopped, "take", "abandoned")), (0, 0), "{}", stopped.table());
    // Nobody drains the queue any more once the app is gone, so that it takes messages again.
    let late = ids(&content(&memory, "memory:in").await);
    let published = published - late.len() as u32;
    assert_eq!(late, (published..published + late.len() as u32).collect::<Vec<_>>());
    let dead = ids(&content(&memory, "memory:dead").await);
    check(chance, published, &deeds, &sent, &dead, &[], settled(&stopped));
}

async fn in_a_file(chance: Chance) {
    let (deeds, sent) = (Deeds::default(), Log::default());
    let dir = tempfile::tempdir().unwrap();
    let queue = format!("local:{}?queue=in", dir.path().join("q.db").display());
    let source = format!("{queue}&group=take");
    let memory = Memory::new();
    memory.publish("in", (0..chance.messages).map(|id| chance.message(id))).await.unwrap();
    memory.close("in");
    let app = App::new("publisher").transport(memory).bridge(Bridge::new("over", "memory:in", &queue));
    ended(&mut app.start(&tokio::runtime::Handle::current()).await.unwrap()).await;

    let local = Local::default();
    let DeadPlace::At(place) = local.dead_letters(&Url::parse(&source).unwrap(), "take") else { panic!("a place") };
    // Twice: what the first one gave back, the second one finds.
    let mut all = [0; 3];
    for round in 0..2 {
        let running = started(app_of(chance, &source, None, &deeds, &sent)).await;
        soon("enough is done, or all", async {
            while in_store(&local, &source).await > 0 && (round == 1 || deeds.len() < chance.stop_after) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        let stopped = stopped(running).await;
        assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
        settled(&stopped).iter().zip(&mut all).for_each(|(now, all)| *all += now);
        let dead = ids(&content(&local, &place.to_string()).await);
        let left = ids(&content(&local, &source).await);
        check(chance, chance.messages, &deeds, &sent, &dead, &left, all);
        assert!(round == 0 || left.is_empty());
    }
}

/// Messages of the store that are not settled.
async fn in_store(local: &Local, source: &str) -> u64 {
    let seen = local.inspect(&Url::parse(source).unwrap(), "take").await.unwrap();
    [seen.waiting, seen.delayed, seen.in_flight].into_iter().map(|count| count.unwrap()).sum()
}

/// Runs one seed on two threads; a failure names it.
fn run(seed: u64, durable: bool) {
    let chance = Chance::new(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            if durable {
                in_a_file(chance).await;
            } else {
                in_memory(chance).await;
            }
        });
    }));
    if let Err(panic) = result {
        eprintln!("failed with SEED={seed}, durable {durable}: {chance:?}");
        std::panic::resume_unwind(panic);
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        // Others each time: what one run misses, another finds.
        Err(_) => (0..count).map(|_| fastrand::u64(..)).collect(),
    }
}

/// Panics of handlers are wanted here, and hundreds of their texts are not.
fn without_the_noise() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"by chance") {
                usual(info);
            }
        }));
    });
}

#[test]
fn every_message_in_the_process_is_accounted_for_whatever_happens() {
    without_the_noise();
    seeds(60).into_iter().for_each(|seed| run(seed, false));
}

#[test]
fn every_message_of_a_durable_queue_is_accounted_for_whatever_happens() {
    without_the_noise();
    seeds(15).into_iter().for_each(|seed| run(seed, true));
}
