use super::*;
use crate::failure::Tally;
use crate::message::At;
use crate::transport::{Ask, Event, OVERSIZED_HEADER, Settlement, SinkAsk, SinkEvent, Verdict};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn spec() -> SourceSpec {
    SourceSpec {
        worker: "w".into(),
        default_group: "app".into(),
        concurrency: 16,
        by_key: false,
        max_message: 1000,
        patience: Duration::from_secs(1),
    }
}

async fn source(memory: &Memory, url: &str) -> Box<dyn Source> {
    let plan = memory.source(&Url::parse(url).unwrap(), &spec()).unwrap();
    let mut source = plan.open(SourceHooks::default()).await.unwrap();
    assert!(matches!(source.next().await, Event::Connected));
    source.tell(Ask::Demand { messages: 100_000, bytes: 1 << 30 });
    source
}

async fn sink(memory: &Memory, url: &str) -> Box<dyn Sink> {
    let spec = SinkSpec { worker: "w".into(), patience: Duration::from_secs(1) };
    let mut sink = memory.sink(&Url::parse(url).unwrap(), &spec).unwrap().open().await.unwrap();
    assert!(matches!(sink.next().await, SinkEvent::Connected));
    assert!(matches!(sink.next().await, SinkEvent::Demand { .. }));
    sink
}

fn numbered(range: std::ops::Range<u32>) -> impl Iterator<Item = Message> + Send {
    range.map(|number| Message::new(number.to_string()).with_key(format!("k{}", number % 10)))
}

fn slab(range: std::ops::Range<u32>) -> Arc<Slab> {
    let mut builder = SlabBuilder::new();
    numbered(range).for_each(|message| {
        builder.push_message(&message);
    });
    Arc::new(builder.finish("elsewhere".into()))
}

/// What is there to be seen without waiting.
async fn now(source: &mut Box<dyn Source>) -> Option<Event> {
    tokio::select! { biased; event = source.next() => Some(event), () = std::future::ready(()) => None }
}

async fn now_sink(sink: &mut Box<dyn Sink>) -> Option<SinkEvent> {
    tokio::select! { biased; event = sink.next() => Some(event), () = std::future::ready(()) => None }
}

/// Everything that is delivered without waiting.
async fn delivered(source: &mut Box<dyn Source>) -> Vec<(At, u32)> {
    let mut all = Vec::new();
    while let Some(event) = now(source).await {
        if let Event::Batch(slab) = event {
            all.extend(slab.iter().map(|message| (message.head().at, number(message.payload()))));
        }
    }
    all
}

fn number(payload: Option<&[u8]>) -> u32 {
    std::str::from_utf8(payload.unwrap()).unwrap().parse().unwrap()
}

fn numbers(all: &[(At, u32)]) -> Vec<u32> {
    all.iter().map(|(_, number)| *number).collect()
}

fn acked(these: &[(At, u32)]) -> Ask {
    Ask::Settle(these.iter().map(|(at, _)| Settlement { at: *at, verdict: Verdict::Acked }).collect())
}

#[tokio::test]
async fn what_was_published_before_a_source_came_is_delivered_in_order() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..1000)).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    let all = delivered(&mut source).await;
    assert_eq!(numbers(&all), (0..1000).collect::<Vec<_>>());
    source.tell(acked(&all));
    let Some(Event::Settled { proven, stale, .. }) = now(&mut source).await else { panic!("nothing was settled") };
    assert_eq!((proven.acked, stale.total(), memory.len("q")), (1000, 0, 0));
}

#[tokio::test]
async fn no_more_is_delivered_than_was_asked_for() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..1000)).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    source.tell(Ask::Demand { messages: 300, bytes: 1 << 20 });
    assert_eq!(delivered(&mut source).await.len(), 300);
    // Each of these has a payload of three bytes and a key of two.
    source.tell(Ask::Demand { messages: 300, bytes: 54 });
    assert_eq!(delivered(&mut source).await.len(), 10);
    source.tell(Ask::Pause(None));
    source.tell(Ask::Demand { messages: 1, bytes: 1 << 20 });
    assert_eq!(delivered(&mut source).await.len(), 0);
    source.tell(Ask::Resume(None));
    assert_eq!(delivered(&mut source).await.len(), 1);
}

#[tokio::test]
async fn one_message_over_the_bytes_comes_when_nothing_else_is_unsettled() {
    let memory = Memory::new();
    memory.publish("q", [Message::new("1"), Message::new(format!("{:0>100}", 2))]).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    source.tell(Ask::Demand { messages: 10, bytes: 50 });
    let first = delivered(&mut source).await;
    assert_eq!(numbers(&first), [1]);
    source.tell(acked(&first));
    assert_eq!(numbers(&delivered(&mut source).await), [2]);
}

#[tokio::test]
async fn consumers_of_one_group_share_and_every_group_sees_all() {
    let memory = Memory::new();
    let mut first = source(&memory, "memory:q?group=a").await;
    let mut second = source(&memory, "memory:q?group=a").await;
    let mut other = source(&memory, "memory:q?group=b").await;
    first.tell(Ask::Demand { messages: 40, bytes: 1 << 20 });
    memory.publish("q", numbered(0..100)).await.unwrap();
    assert_eq!(numbers(&delivered(&mut first).await), (0..40).collect::<Vec<_>>());
    assert_eq!(numbers(&delivered(&mut second).await), (40..100).collect::<Vec<_>>());
    assert_eq!(numbers(&delivered(&mut other).await), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_waiting_source_is_woken_by_a_publish() {
    let memory = Memory::new();
    let mut source = source(&memory, "memory:q").await;
    let publisher = memory.clone();
    let task = tokio::spawn(async move { publisher.publish("q", numbered(0..1)).await });
    assert!(matches!(source.next().await, Event::Batch(_)));
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_returned_comes_again_in_its_old_order() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..100)).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    source.tell(Ask::Demand { messages: 50, bytes: 1 << 20 });
    let all = delivered(&mut source).await;
    source.tell(acked(&all[10..20]));
    source.tell(Ask::Return(all.iter().rev().filter(|(_, n)| n % 2 == 0).map(|(at, _)| *at).collect()));
    source.tell(Ask::Demand { messages: 100_000, bytes: 1 << 20 });
    let wanted: Vec<u32> = (0..50).filter(|n| n % 2 == 0 && !(10..20).contains(n)).chain(50..100).collect();
    assert_eq!(numbers(&delivered(&mut source).await), wanted);
}

#[tokio::test]
async fn a_dropped_source_is_a_crash_and_a_closed_one_is_not() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..3)).await.unwrap();
    for (closes, unclean) in [(true, 0), (false, 0), (true, 1), (false, 1), (false, 2)] {
        let mut source = source(&memory, "memory:q").await;
        let Event::Batch(slab) = source.next().await else { panic!("they come again each time") };
        assert_eq!(slab.iter().map(|each| number(each.payload())).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(slab.heads()[1].unclean, unclean);
        if closes {
            source.tell(Ask::Close { by: Instant::now() });
            assert!(matches!(source.next().await, Event::Closed { returned: 3, .. }));
        }
    }
}

#[tokio::test]
async fn a_settlement_of_an_owner_that_is_gone_changes_nothing() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..3)).await.unwrap();
    let mut gone = source(&memory, "memory:q").await;
    let old = delivered(&mut gone).await;
    drop(gone);
    let mut source = source(&memory, "memory:q").await;
    let new = delivered(&mut source).await;
    source.tell(acked(&old));
    let Some(Event::Settled { proven, stale, .. }) = now(&mut source).await else { panic!("nothing was settled") };
    assert_eq!((proven.total(), stale.acked, memory.len("q")), (0, 3, 3));
    source.tell(acked(&new));
    source.tell(acked(&new));
    let Some(Event::Settled { proven, stale, .. }) = now(&mut source).await else { panic!("nothing was settled") };
    assert_eq!((proven.acked, stale.acked, memory.len("q")), (3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_durable_retry_comes_after_its_delay_with_its_attempts() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..2)).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    let all = delivered(&mut source).await;
    let started = tokio::time::Instant::now();
    let verdict = Verdict::Retry { after: Duration::from_secs(60), attempts: 4 };
    source.tell(Ask::Settle(vec![Settlement { at: all[0].0, verdict }]));
    assert!(matches!(source.next().await, Event::Settled { proven: Tally { retried: 1, .. }, .. }));
    source.tell(Ask::Measure);
    let Event::Measured(backlog) = source.next().await else { panic!("it was asked to measure") };
    assert_eq!((backlog.waiting, backlog.delayed), (Some(0), Some(1)));
    let Event::Batch(slab) = source.next().await else { panic!("the message comes again") };
    assert_eq!((number(slab.get(0).payload()), slab.heads()[0].attempts), (0, 4));
    assert!(started.elapsed() >= Duration::from_secs(60));
}

#[tokio::test]
async fn a_handler_start_that_was_marked_is_counted_across_a_crash() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..1)).await.unwrap();
    let mut first = source(&memory, "memory:q").await;
    let all = delivered(&mut first).await;
    first.tell(Ask::Mark(all[0].0));
    assert!(matches!(first.next().await, Event::Marked(at) if at == all[0].0));
    drop(first);
    let Event::Batch(slab) = source(&memory, "memory:q").await.next().await else { panic!("it comes again") };
    assert_eq!((slab.heads()[0].attempts, slab.heads()[0].unclean), (1, 1));
}

#[tokio::test]
async fn a_stop_works_off_what_is_there_and_refuses_what_comes_from_outside() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..300)).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    let mut sink = sink(&memory, "memory:q").await;
    source.tell(Ask::Demand { messages: 10, bytes: 1 << 20 });
    source.tell(Ask::StopIntake);
    assert!(matches!(source.next().await, Event::Batch(_)));
    assert!(now(&mut source).await.is_none(), "the intake is not stopped while messages wait");
    let error = memory.publish("q", numbered(0..1)).await.unwrap_err();
    assert_eq!(error.to_string(), "memory queue 'q' is stopping and takes nothing from outside");
    sink.tell(SinkAsk::Send { batch: 1, slab: slab(300..301) });
    assert!(matches!(sink.next().await, SinkEvent::Confirmed { batch: 1, failed, .. } if failed.is_empty()));
    source.tell(Ask::Demand { messages: 1000, bytes: 1 << 20 });
    let mut left = 291;
    while left > 0 {
        let Event::Batch(slab) = source.next().await else { panic!("{left} are left") };
        left -= slab.len();
    }
    assert!(matches!(source.next().await, Event::IntakeStopped));
    drop(source);
    memory.publish("q", numbered(0..1)).await.unwrap();
}

#[tokio::test]
async fn a_publish_that_waits_for_room_is_refused_when_a_stop_begins() {
    let memory = Memory::new();
    let mut source = source(&memory, "memory:q?capacity=4").await;
    let publisher = memory.clone();
    let waiting = tokio::spawn(async move { publisher.publish("q", numbered(0..5)).await });
    while memory.len("q") < 4 {
        tokio::task::yield_now().await;
    }
    source.tell(Ask::StopIntake);
    assert!(waiting.await.unwrap().unwrap_err().to_string().contains("is stopping"));
}

#[tokio::test]
async fn a_stop_with_an_empty_queue_is_answered_at_once() {
    let memory = Memory::new();
    let mut source = source(&memory, "memory:q").await;
    source.tell(Ask::StopIntake);
    assert!(matches!(now(&mut source).await, Some(Event::IntakeStopped)));
}

#[tokio::test]
async fn a_source_ends_when_its_queue_is_closed_and_all_is_settled() {
    let memory = Memory::new();
    memory.publish("q", numbered(0..2)).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    let all = delivered(&mut source).await;
    memory.close("q");
    assert!(now(&mut source).await.is_none());
    source.tell(acked(&all));
    assert!(matches!(source.next().await, Event::Settled { .. }));
    assert!(matches!(source.next().await, Event::Ended));
    assert_eq!(memory.publish("q", numbered(0..1)).await.unwrap_err().to_string(), "memory queue 'q' is closed");
}

#[tokio::test]
async fn a_send_is_confirmed_after_the_source_was_called_busy() {
    let memory = Memory::new();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let hooks = SourceHooks {
        busy: Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }),
    };
    let plan = memory.source(&Url::parse("memory:q").unwrap(), &spec()).unwrap();
    let source = plan.open(hooks).await.unwrap();
    let mut sink = sink(&memory, "memory:q").await;
    sink.tell(SinkAsk::Send { batch: 7, slab: slab(0..5) });
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let SinkEvent::Confirmed { batch, range, failed } = sink.next().await else { panic!("it is not confirmed") };
    assert_eq!((batch, range, failed.len()), (7, 0..5, 0));
    memory.publish("q", numbered(0..1)).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    drop(source);
    memory.publish("q", numbered(0..1)).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_full_queue_holds_back_its_publishers_until_there_is_room() {
    let memory = Memory::new();
    let mut sink = sink(&memory, "memory:q?capacity=10").await;
    sink.tell(SinkAsk::Send { batch: 1, slab: slab(0..8) });
    assert!(matches!(now_sink(&mut sink).await, Some(SinkEvent::Confirmed { batch: 1, .. })));
    assert!(matches!(now_sink(&mut sink).await, Some(SinkEvent::Demand { messages: 2, .. })));
    sink.tell(SinkAsk::Send { batch: 2, slab: slab(8..12) });
    sink.tell(SinkAsk::Send { batch: 3, slab: slab(12..13) });
    assert!(now_sink(&mut sink).await.is_none(), "a smaller batch must not overtake, and none may be confirmed");
    let publisher = memory.clone();
    let outside = tokio::spawn(async move { publisher.publish("q", numbered(13..20)).await });
    let mut source = source(&memory, "memory:q").await;
    let mut seen = Vec::new();
    while seen.len() < 20 {
        tokio::select! {
            event = source.next() => if let Event::Batch(slab) = event {
                let these: Vec<_> = slab.iter().map(|each| (each.head().at, number(each.payload()))).collect();
                assert!(memory.len("q") <= 10);
                source.tell(acked(&these));
                seen.extend(numbers(&these));
            },
            _ = sink.next() => {}
        }
    }
    outside.await.unwrap().unwrap();
    // Of two publishers either may come first; each keeps its own order.
    let of = |range: std::ops::Range<u32>| seen.iter().copied().filter(|n| range.contains(n)).collect::<Vec<_>>();
    assert_eq!((of(0..13), of(13..20)), ((0..13).collect(), (13..20).collect()));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_finds_no_room_says_at_the_end_what_is_not_confirmed() {
    let memory = Memory::new();
    let mut sink = sink(&memory, "memory:q?capacity=4").await;
    sink.tell(SinkAsk::Send { batch: 1, slab: slab(0..4) });
    sink.tell(SinkAsk::Send { batch: 2, slab: slab(4..7) });
    sink.tell(SinkAsk::Close { by: tokio::time::Instant::now().into_std() + Duration::from_secs(5) });
    assert!(matches!(sink.next().await, SinkEvent::Confirmed { batch: 1, .. }));
    assert!(matches!(sink.next().await, SinkEvent::Closed { unconfirmed: 3 }));
    assert_eq!(memory.len("q"), 4);
}

#[tokio::test]
async fn one_stuck_message_in_each_batch_does_not_hold_the_batches() {
    let memory = Memory::new();
    let mut source = source(&memory, "memory:q").await;
    let payload = "x".repeat(1000);
    for _ in 0..500 {
        memory.publish("q", (0..100).map(|_| Message::new(payload.clone()))).await.unwrap();
        let Event::Batch(slab) = source.next().await else { panic!("a batch was published") };
        let all = slab.heads()[1..].iter().map(|head| Settlement { at: head.at, verdict: Verdict::Acked }).collect();
        source.tell(Ask::Settle(all));
        assert!(matches!(source.next().await, Event::Settled { .. }));
    }
    assert_eq!(memory.len("q"), 500);
    let held = memory.known("q").unwrap().lock().most(group::Group::bytes);
    assert!(held < 3_000_000, "{held} bytes are held for 500 messages of 1,000 bytes each");
}

#[tokio::test]
async fn a_message_over_the_limit_is_delivered_empty_and_marked() {
    let memory = Memory::new();
    memory.publish("q", [Message::new("1"), Message::new("x".repeat(1001)).with_key("k")]).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    let Event::Batch(slab) = source.next().await else { panic!("there are messages") };
    assert_eq!(slab.get(0).payload(), Some(b"1".as_slice()));
    let large = slab.get(1);
    assert_eq!((large.payload(), large.key()), (Some(b"".as_slice()), Some(b"k".as_slice())));
    assert_eq!(large.headers().text(OVERSIZED_HEADER), Some("1001"));
}

#[tokio::test]
async fn a_key_is_found_where_the_url_says() {
    let memory = Memory::new();
    memory.publish("q", [Message::new(r#"{"a":{"b":"x"}}"#).with_key("native")]).await.unwrap();
    let mut source = source(&memory, "memory:q?key=/a/b").await;
    let Event::Batch(slab) = source.next().await else { panic!("there is a message") };
    assert_eq!(slab.get(0).key(), Some(b"x".as_slice()));
    assert_eq!(slab.heads()[0].key_hash, crate::message::key_hash(b"x"));
}

#[tokio::test]
async fn wrong_urls_are_refused_by_name() {
    let memory = Memory::new();
    for (url, says) in [
        ("memory:", "names no queue"),
        ("memory://host/q", "has no host"),
        ("memory:q?capacty=3", "unknown option 'capacty': did you mean 'capacity'?"),
        ("memory:q?bytes=0", "no room"),
        ("memory:q?key=routing-key", "no routing keys"),
        ("memory:q?group=", "'group' is empty"),
    ] {
        let error = memory.source(&Url::parse(url).unwrap(), &spec()).err().expect("it is wrong");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert_eq!(error.exit_code(), 78);
    }
}

#[tokio::test]
async fn a_look_takes_nothing_and_a_removal_spares_what_runs() {
    let memory = Memory::new();
    let url = Url::parse("memory:q").unwrap();
    memory.publish("q", numbered(0..10)).await.unwrap();
    let mut source = source(&memory, "memory:q").await;
    source.tell(Ask::Demand { messages: 3, bytes: 1 << 20 });
    let running = delivered(&mut source).await;
    let mut shelf = memory.shelf(&url).await.unwrap();
    let first = shelf.read(6).await.unwrap();
    let rest = shelf.read(100).await.unwrap();
    assert_eq!((first.len(), rest.len(), shelf.read(1).await.unwrap().len()), (6, 4, 0));
    let these = vec![first.heads()[0].at, first.heads()[4].at, rest.heads()[3].at];
    assert_eq!(shelf.remove(these).await.unwrap(), 2);
    let seen = memory.inspect(&url, "app").await.unwrap();
    assert_eq!((seen.waiting, seen.in_flight, seen.delayed), (Some(5), Some(3), Some(0)));
    source.tell(acked(&running));
    source.tell(Ask::Demand { messages: 100, bytes: 1 << 20 });
    assert_eq!(numbers(&delivered(&mut source).await), [3, 5, 6, 7, 8]);
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u8),
    Take(u8),
    Settle(u16),
    Return(u16),
    Retry(u16),
    Crash,
    Remove(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<u8>().prop_map(Step::Publish),
        3 => any::<u8>().prop_map(Step::Take),
        6 => any::<u16>().prop_map(Step::Settle),
        1 => any::<u16>().prop_map(Step::Return),
        1 => any::<u16>().prop_map(Step::Retry),
        1 => Just(Step::Crash),
        1 => any::<u16>().prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a map of what is unsettled: whatever is done, each message is delivered again until it is settled,
    /// never after, and what comes for the first time comes in order.
    #[test]
    fn nothing_is_lost_and_nothing_settled_comes_again(steps in proptest::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let memory = Memory::new();
            let mut consumer = source(&memory, "memory:q").await;
            consumer.tell(Ask::Demand { messages: 0, bytes: 0 });
            let mut shelf = memory.shelf(&Url::parse("memory:q").unwrap()).await.unwrap();
            let mut published = 0;
            let mut newest = 0;
            let mut running: BTreeMap<u32, At> = BTreeMap::new();
            let mut waiting: std::collections::BTreeSet<u32> = Default::default();
            for step in steps {
                let pick = |n: u16| running.iter().nth(n as usize % running.len().max(1)).map(|(n, at)| (*n, *at));
                match step {
                    Step::Publish(count) => {
                        let count = u32::from(count % 80);
                        memory.publish("q", numbered(published..published + count)).await.unwrap();
                        waiting.extend(published..published + count);
                        published += count;
                    }
                    Step::Take(count) => {
                        consumer.tell(Ask::Demand { messages: u32::from(count), bytes: 1 << 20 });
                        for (at, number) in delivered(&mut consumer).await {
                            prop_assert!(waiting.remove(&number), "{number} was not waiting");
                            prop_assert!(waiting.first().is_none_or(|first| *first > number), "{number} overtook");
                            running.insert(number, at);
                            newest = newest.max(number);
                        }
                        consumer.tell(Ask::Demand { messages: 0, bytes: 0 });
                    }
                    Step::Settle(count) => {
                        // Several at once, spread over what runs.
                        let stride = usize::from(count % 7) + 1;
                        let these: Vec<(u32, At)> = running.iter().step_by(stride).map(|(n, at)| (*n, *at)).collect();
                        running.retain(|number, _| !these.iter().any(|(n, _)| n == number));
                        consumer.tell(acked(&these.iter().map(|(n, at)| (*at, *n)).collect::<Vec<_>>()));
                    }
                    Step::Return(n) => if let Some((number, at)) = pick(n) {
                        running.remove(&number);
                        waiting.insert(number);
                        consumer.tell(Ask::Return(vec![at]));
                    },
                    Step::Retry(n) => if let Some((number, at)) = pick(n) {
                        running.remove(&number);
                        waiting.insert(number);
                        let verdict = Verdict::Retry { after: Duration::ZERO, attempts: 1 };
                        consumer.tell(Ask::Settle(vec![Settlement { at, verdict }]));
                    },
                    Step::Crash => {
                        waiting.extend(running.keys());
                        running.clear();
                        drop(consumer);
                        consumer = source(&memory, "memory:q").await;
                        consumer.tell(Ask::Demand { messages: 0, bytes: 0 });
                    }
                    Step::Remove(n) => {
                        let number = n as u32 % published.max(1);
                        let at = At { position: u64::from(number), epoch: 0, partition: 0 };
                        let gone = shelf.remove(vec![at]).await.unwrap();
                        prop_assert_eq!(gone == 1, waiting.remove(&number));
                    }
                }
                prop_assert_eq!(memory.len("q"), (running.len() + waiting.len()) as u64);
            }
            waiting.extend(running.keys());
            drop(consumer);
            let mut consumer = source(&memory, "memory:q").await;
            let last = delivered(&mut consumer).await;
            prop_assert_eq!(numbers(&last), waiting.iter().copied().collect::<Vec<_>>());
            consumer.tell(acked(&last));
            let queue = memory.known("q").unwrap();
            prop_assert_eq!((memory.len("q"), queue.lock().most(group::Group::bytes)), (0, 0));
            Ok(())
        })?;
    }
}
